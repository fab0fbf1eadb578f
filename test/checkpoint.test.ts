import { cp, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { describe, expect, test } from 'vitest';
import type { TensorData } from '../src/checkpoint/safetensors_writer.ts';
import { CheckpointError, ConfigError } from '../src/errors.ts';
import { loadModel, planModel } from '../src/load.ts';
import { changedModel, type Contents, goldenIds, goldenModel, logitsOf, temporaryFolder } from './support/models.ts';

const Q = 'model.layers.0.linear_attn.q_proj.weight';

function reshaped(tensor: TensorData, shape: number[]): TensorData {
  return { ...tensor, shape };
}

async function problemsOf(name: string, change: (contents: Contents) => void): Promise<string[]> {
  const dir = await changedModel(name, change);
  const error = await planModel(dir).then(
    () => null,
    (reason: unknown) => reason,
  );
  expect(error).toBeInstanceOf(CheckpointError);
  return (error as CheckpointError).message.split('\n');
}

describe('a checkpoint that does not fit its config', () => {
  test('a missing tensor is named with the shape that it should have', async () => {
    const problems = await problemsOf('f32', ({ tensors }) => tensors.delete(Q));
    expect(problems).toEqual([
      expect.stringMatching(new RegExp(`"${Q.replaceAll('.', '\\.')}": expected a tensor \\[\\d+, \\d+\\], found nothing`)),
    ]);
  });

  test('a tensor of another shape, one that nobody knows and one of another dtype are reported together', async () => {
    const problems = await problemsOf('f32', ({ tensors }) => {
      const q = tensors.get(Q)!;
      tensors.set(Q, reshaped(q, [...q.shape].reverse()));
      tensors.set('model.layers.0.extra', { ...q, name: 'model.layers.0.extra' });
      const norm = tensors.get('model.norm.weight')!;
      tensors.set('model.norm.weight', { ...norm, dtype: 'I32' });
    });
    expect(problems).toHaveLength(3);
    expect(problems.join('\n')).toMatch(/q_proj.weight": expected \[\d+, \d+\], found \[\d+, \d+\]/);
    expect(problems.join('\n')).toMatch(/"model.layers.0.extra": expected no such tensor/);
    expect(problems.join('\n')).toMatch(/"model.norm.weight": expected BF16, F16 or F32, found I32/);
  });

  test('convolutions whose channels do not add up', async () => {
    const problems = await problemsOf('names_fused_conv', ({ tensors }) => {
      const name = 'model.layers.0.linear_attn.conv1d.weight';
      const conv = tensors.get(name)!;
      const rows = conv.shape[0]! - 1;
      tensors.set(name, { ...conv, shape: [rows, 1, 4], data: new Uint8Array(rows * 8) });
    });
    expect(problems.filter((line) => line.includes('conv1d'))).not.toEqual([]);
  });

  test('a vocabulary that disagrees with the embedding', async () => {
    const problems = await problemsOf('f32', ({ config }) => {
      config['vocab_size'] = (config['vocab_size'] as number) + 1;
    });
    expect(problems.map((line) => /"(.*?)"/.exec(line)![1])).toEqual(['model.embed_tokens.weight', 'lm_head.weight']);
  });

  test('a layer type that the weights do not have', async () => {
    const problems = await problemsOf('f32', ({ config }) => {
      const types = config['layer_types'] as string[];
      config['layer_types'] = types.map((type, i) => (i === 0 ? 'full_attention' : type));
    });
    expect(problems.some((line) => line.includes('model.layers.0.self_attn.q_proj.weight'))).toBe(true);
    expect(problems.some((line) => line.includes('model.layers.0.linear_attn.q_proj.weight'))).toBe(true);
  });
});

test('tensors that the release ignores are ignored, and an untied lm_head beside tied embeddings', async () => {
  const dir = await changedModel('tied', ({ tensors }) => {
    const embedding = tensors.get('model.embed_tokens.weight')!;
    tensors.set('mtp.head', { ...embedding, name: 'mtp.head' });
    tensors.set('lm_head.weight', { ...embedding, name: 'lm_head.weight' });
  });
  const ids = await goldenIds('tied');
  const { model } = await loadModel(dir);
  const { model: original } = await loadModel(goldenModel('tied'));
  expect(logitsOf(model, ids, 256)).toEqual(logitsOf(original, ids, 256));
});

test('every way to name the tensors gives the same bits', async () => {
  const ids = await goldenIds('names_release');
  const logits = async (name: string) => logitsOf((await loadModel(goldenModel(name))).model, ids, 256);
  const released = await logits('names_release');
  for (const name of ['names_save_pretrained', 'names_fine_tuned', 'names_fused_conv', 'names_olmo_core']) {
    expect(await logits(name), name).toEqual(released);
  }
});

test('every way to say NoPE gives the same bits', async () => {
  const ids = await goldenIds('nope_null');
  const logits = async (name: string) => logitsOf((await loadModel(goldenModel(name))).model, ids, 256);
  expect(await logits('nope_type_null')).toEqual(await logits('nope_null'));
  expect(await logits('nope_theta_null')).toEqual(await logits('nope_null'));
});

test.each(['f32', 'bf16', 'f16'])('NaN and infinite weights are named after loading: %s', async (name) => {
  const infinite = { f32: [0, 0, 0x80, 0x7f], bf16: [0x80, 0x7f], f16: [0, 0x7c] }[name]!;
  const dir = await changedModel(name, ({ tensors }) => {
    for (const tensor of [Q, 'model.embed_tokens.weight', 'model.norm.weight', 'model.layers.0.linear_attn.k_conv1d.weight']) {
      const { data } = tensors.get(tensor)!;
      new Uint8Array(data.buffer, data.byteOffset).set(infinite);
    }
  });
  for (const kernels of ['wasm', 'reference'] as const) {
    const { not_finite } = await loadModel(dir, { kernels });
    expect([...not_finite].sort()).toEqual(
      ['model.embed_tokens.weight', 'model.layers.0.linear_attn.k_conv1d.weight', Q, 'model.norm.weight'].sort(),
    );
  }
});

test('progress ends at the bytes of the file', async () => {
  const calls: [number, number][] = [];
  await loadModel(goldenModel('f32'), { onProgress: (done, total) => calls.push([done, total]) });
  const [done, total] = calls.at(-1)!;
  expect(done).toBe(total);
  expect(calls.map(([bytes]) => bytes)).toEqual(calls.map(([bytes]) => bytes).sort((a, b) => a - b));
});

describe('a folder without a model', () => {
  test('no config.json', async () => {
    const dir = await temporaryFolder();
    await expect(loadModel(dir)).rejects.toThrow(ConfigError);
    await expect(loadModel(dir)).rejects.toThrow(/config\.json: expected a file, found nothing/);
  });

  test('no weights', async () => {
    const dir = await temporaryFolder();
    await cp(join(goldenModel('f32'), 'config.json'), join(dir, 'config.json'));
    await expect(loadModel(dir)).rejects.toThrow(CheckpointError);
  });

  test('a damaged file', async () => {
    const dir = await temporaryFolder();
    await cp(join(goldenModel('f32'), 'config.json'), join(dir, 'config.json'));
    await writeFile(join(dir, 'model.safetensors'), 'not a safetensors file');
    await expect(loadModel(dir)).rejects.toThrow(CheckpointError);
  });
});
