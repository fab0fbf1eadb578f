import { createHash } from 'node:crypto';
import { readdirSync } from 'node:fs';
import { mkdir, readdir, readFile, symlink, truncate, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { describe, expect, test } from 'vitest';
import { openCheckpointFolder } from '../src/checkpoint/checkpoint_folder.ts';
import type { TensorEntry } from '../src/checkpoint/safetensors.ts';
import { type TensorData, writeSafetensors } from '../src/checkpoint/safetensors_writer.ts';
import { ArgumentError, CheckpointError } from '../src/errors.ts';
import { type LoadOptions, loadModel, planModel } from '../src/load.ts';
import { embeddedModel } from '../src/package_files.ts';
import { quantizeCheckpoint } from '../src/quantize.ts';
import { hasWideVectors } from '../src/runtime/wasm_module.ts';
import { assertSame } from './support/assert_close.ts';
import { ended, run, start } from './support/command_line.ts';
import { changedModel, goldenIds, goldenModel, logitsOf, temporaryFolder } from './support/models.ts';

/** A golden or the embedded model, quantised into a new folder. */
async function quantised(dir: string, weights: 'q8' | 'q4', options: { shard_bytes?: number; threads?: number } = {}): Promise<string> {
  const out = join(await temporaryFolder(), 'out');
  await quantizeCheckpoint(dir, out, { weights, ...options });
  return out;
}

async function logits(dir: string, ids: ArrayLike<number>, options: LoadOptions = {}): Promise<Float64Array> {
  const { model, dispose } = await loadModel(dir, options);
  return await Promise.resolve(logitsOf(model, ids, 64)).finally(dispose);
}

describe('a quantised folder', () => {
  // Every way to name the tensors, a tied head, f16 and f32, shards, OLMo 3.
  test.each([
    'bf16',
    'f16',
    'f32',
    'tied',
    'sharded',
    'odd_sizes',
    'names_save_pretrained',
    'names_fused_conv',
    'names_olmo_core',
    'olmo3_yarn',
  ])('of %s has the bits of quantising on load', async (name) => {
    const ids = await goldenIds(name);
    for (const weights of ['q8', 'q4'] as const) {
      const dir = await quantised(goldenModel(name), weights, { threads: 2 });
      for (const mode of ['strict', 'fast'] as const) {
        assertSame(await logits(dir, ids, { mode }), await logits(goldenModel(name), ids, { mode, weights }));
      }
      assertSame(await logits(dir, ids, { weights, threads: 2 }), await logits(dir, ids));
    }
  });

  test.each<[string, (tensors: Map<string, TensorData>, embedding: TensorData) => void]>([
    [
      'another head',
      (tensors, embedding) => {
        const values = new Uint16Array((embedding.data as Uint8Array).slice().buffer).reverse();
        const data = new Uint8Array(values.buffer);
        tensors.set('lm_head.weight', { ...embedding, name: 'lm_head.weight', data });
      },
    ],
    [
      'only the head',
      (tensors, embedding) => {
        tensors.set('lm_head.weight', { ...embedding, name: 'lm_head.weight' });
        tensors.delete(embedding.name);
      },
    ],
  ])('of a tied model that stores %s has the bits of quantising on load', async (_, change) => {
    const original = await changedModel('tied', ({ tensors }) => change(tensors, tensors.get('model.embed_tokens.weight')!));
    const ids = await goldenIds('tied');
    const dir = await quantised(original, 'q4');
    assertSame(await logits(dir, ids), await logits(original, ids, { weights: 'q4' }));
  });

  test('holds the tokenizer and the config, and says how it was made', async () => {
    const dir = await quantised(embeddedModel, 'q4');
    for (const file of ['config.json', 'generation_config.json', 'tokenizer.json', 'tokenizer_config.json']) {
      expect(await readFile(join(dir, file))).toEqual(await readFile(join(embeddedModel, file)));
    }
    const { files, close } = await openCheckpointFolder(dir);
    await close();
    // The digest as its docstring says, made anew.
    const source = await openCheckpointFolder(embeddedModel);
    const hash = createHash('sha256');
    for (const [name, entry] of [...source.tensors].sort(([a], [b]) => (a < b ? -1 : 1))) {
      const bytes = new Uint8Array(entry.byteLength);
      await entry.source.read(entry.offset, bytes);
      hash.update(`${name} ${entry.dtype} [${entry.shape.join(', ')}]\n`).update(bytes);
    }
    await source.close();
    expect(Object.fromEntries(files.get('model.safetensors')!.metadata)).toEqual({
      quantised_format_version: '5',
      weights: 'q4',
      block: '32',
      panel: '16',
      source_weights_sha256: hash.digest('hex'),
    });
    const { stdout } = await run('inspect', '--model', dir, '--json');
    expect(JSON.parse(stdout)).toMatchObject({ quantised: { weights: 'q4' }, weights: { Q4: 31, Q8: 7, BF16: 1 }, parameters: 2091214 });
  });

  test('holds the files of a licence, and no folder of licences', async () => {
    const dir = await changedModel('bf16', () => {});
    await mkdir(join(dir, 'LICENSES'));
    await writeFile(join(dir, 'LICENSES', 'LICENSE'), 'x');
    await mkdir(join(dir, 'LICENSE'));
    await writeFile(join(dir, 'LICENSE-2.0.txt'), 'x');
    await symlink('nothing', join(dir, 'merges.txt'));
    const files = await readdir(await quantised(dir, 'q8'));
    expect(files.sort()).toEqual(['LICENSE-2.0.txt', 'config.json', 'model.safetensors']);
  });

  test('in shards of bounded size has the same bits', async () => {
    const dir = await quantised(embeddedModel, 'q8', { shard_bytes: 600_000 });
    const shards = (await readdir(dir)).filter((file) => file.endsWith('.safetensors'));
    expect(shards.length).toBeGreaterThan(3);
    const ids = [1, 2, 3, 4, 5];
    assertSame(await logits(dir, ids), await logits(embeddedModel, ids, { weights: 'q8' }));
  });

  test('is not quantised again, nor taken for something else', async () => {
    const dir = await quantised(goldenModel('bf16'), 'q4');
    await expect(quantizeCheckpoint(dir, `${dir}2`, { weights: 'q4' })).rejects.toThrow(
      /expected weights as they were trained, found quantised ones/,
    );
    await expect(quantizeCheckpoint(dir, `${dir}2`, { weights: 'q8' })).rejects.toThrow(ArgumentError);
    await expect(loadModel(dir, { weights: 'q8' })).rejects.toThrow(/^weights: expected those that are stored, .* in q4, found q8\./);
    await expect(loadModel(dir, { weights: 'bf16' })).rejects.toThrow(ArgumentError);
    await expect(loadModel(dir, { kernels: 'reference' })).rejects.toThrow(
      /expected weights that kernels reference can read, found quantised ones/,
    );
  });

  test('that is damaged is refused', async () => {
    const dir = await quantised(goldenModel('bf16'), 'q8');
    const file = join(dir, 'model.safetensors');
    const whole = await readFile(file);
    const changed = async (from: string, to: string) => {
      const at = whole.indexOf(from);
      expect([at > 0, from.length]).toEqual([true, to.length]);
      const copy = Buffer.from(whole);
      copy.write(to, at);
      await writeFile(file, copy);
    };
    await truncate(file, whole.length - 1);
    await expect(loadModel(dir)).rejects.toThrow(CheckpointError);
    await changed('"quantised_format_version":"5"', '"quantised_format_version":"4"');
    await expect(loadModel(dir)).rejects.toThrow(/expected quantised weights with quantised_format_version 5 in their metadata, found "4"/);
    await changed('"quantised_format_version"', '"quantised_format_versiom"');
    await expect(loadModel(dir)).rejects.toThrow(/in their metadata, found none/);
    const shape = /"U8","shape":\[(\d+),(\d+),544\]/.exec(whole.toString('latin1'))!;
    await changed(shape[0], shape[0].replace(`[${shape[1]},${shape[2]}`, `[${shape[2]},${shape[1]}`));
    if (shape[1] !== shape[2]) await expect(loadModel(dir)).rejects.toThrow(/expected \[\d+, \d+, 544\], found \[\d+, \d+, 544\]/);
    await writeFile(file, whole);
    await expect(loadModel(dir)).resolves.toBeDefined();
  });

  test('mixed of two, or that says what it does not hold, is refused', async () => {
    const other = await changedModel('bf16', ({ tensors }) => {
      (tensors.get('lm_head.weight')!.data as Uint8Array)[0]! ^= 1;
    });
    const shards = { shard_bytes: 20_000 };
    const dir = await quantised(goldenModel('bf16'), 'q8', shards);
    const files = (await readdir(dir)).filter((name) => name.endsWith('.safetensors')).sort();
    const last = files.at(-1)!;
    const whole = await readFile(join(dir, last));
    const refused = async (bytes: Buffer, message: RegExp) => {
      await writeFile(join(dir, last), bytes);
      await expect(loadModel(dir)).rejects.toThrow(message);
    };
    const changed = (from: string, to: string) => Buffer.from(whole.toString('latin1').replace(from, to), 'latin1');
    const others = await readFile(join(await quantised(other, 'q8', shards), last));
    await refused(others, /\.safetensors: source_weights_sha256: expected "[0-9a-f]{64}" in every file, found "[0-9a-f]{64}"/);
    await refused(changed('"weights":"q8"', '"weights":"q4"'), /weights: expected "q8" in every file, found "q4"/);
    await refused(changed('"block":"32"', '"block":"64"'), /block: expected "32" in every file, found "64"/);
    await refused(changed('"panel":"16"', '"panel":"80"'), /panel: expected "16" in every file, found "80"/);
    await refused(changed('"quantised_format_version"', '"quantised_format_versiom"'), /in their metadata, found none/);
    await writeFile(join(dir, last), whole);
    await expect(loadModel(dir)).resolves.toBeDefined();
  });

  test('of a tied model has a head of its own', async () => {
    const dir = await quantised(goldenModel('tied'), 'q8');
    const folder = await openCheckpointFolder(dir);
    const tensors = [...folder.tensors.values()].filter(({ name }) => name !== 'lm_head.weight');
    const read = async ({ name, dtype, shape, source, offset, byteLength }: TensorEntry) => {
      const data = new Uint8Array(byteLength);
      await source.read(offset, data);
      return { name, dtype, shape, data };
    };
    const pieces = writeSafetensors(await Promise.all(tensors.map(read)), folder.files.get('model.safetensors')!.metadata);
    await folder.close();
    await writeFile(join(dir, 'model.safetensors'), pieces);
    await expect(loadModel(dir)).rejects.toThrow(
      /: "lm_head.weight": expected a quantised tensor, as the others are, found \w+ in "model.embed_tokens.weight"/,
    );
  });

  test('of weights that are not finite names them, when it is made and when it is loaded', async () => {
    const name = 'model.layers.0.linear_attn.q_proj.weight';
    const dir = await changedModel('f32', ({ tensors }) => {
      const { data } = tensors.get(name)!;
      new DataView(data.buffer, data.byteOffset).setFloat32(4 * 17, Number.NaN, true);
    });
    for (const weights of ['q8', 'q4'] as const) {
      const out = join(await temporaryFolder(), 'out');
      expect((await quantizeCheckpoint(dir, out, { weights })).not_finite).toEqual([name]);
      expect((await loadModel(out)).not_finite).toEqual([name]);
    }
  });

  test.each(['q8', 'q4'] as const)('in %s stays near the original', async (weights) => {
    // Random models have little to lose their way with: the logits move by a few per cent of their size.
    for (const name of ['bf16', 'nope', 'olmo3_yarn']) {
      const ids = await goldenIds(name);
      const exact = await logits(goldenModel(name), ids);
      const got = await logits(goldenModel(name), ids, { weights });
      const [error, size] = [got.map((value, i) => value - exact[i]!), exact].map((values) => Math.hypot(...values)) as [number, number];
      expect(error / size).toBeGreaterThan(0);
      expect(error / size).toBeLessThan(weights === 'q8' ? 0.03 : 0.3);
    }
  });
});

describe('writing one', () => {
  test('overwrites nothing', async () => {
    const dir = await temporaryFolder();
    await writeFile(join(dir, 'file'), 'x');
    await expect(quantizeCheckpoint(embeddedModel, dir, { weights: 'q8' })).rejects.toThrow(
      /expected nothing, for it would be overwritten, found a folder/,
    );
    await expect(quantizeCheckpoint(embeddedModel, join(dir, 'file'), { weights: 'q8' })).rejects.toThrow(/found a file/);
    await expect(quantizeCheckpoint(embeddedModel, join(dir, 'no', 'such'), { weights: 'q8' })).rejects.toThrow(
      /expected a folder that can be made, found no such folder/,
    );
    expect(await readdir(dir)).toEqual(['file']);
  });

  test('leaves nothing behind when it is interrupted or fails', async () => {
    const dir = await temporaryFolder();
    const controller = new AbortController();
    let calls = 0;
    const onProgress = () => {
      if (++calls === 90) controller.abort();
    };
    await expect(
      quantizeCheckpoint(embeddedModel, join(dir, 'out'), { weights: 'q8', signal: controller.signal, onProgress }),
    ).rejects.toThrow('aborted');
    expect(calls).toBe(90);
    expect(await readdir(dir)).toEqual([]);
  });

  test('on the command line: Ctrl-C ends with 130 and nothing, mistakes with 1', async () => {
    const dir = await temporaryFolder();
    expect(await run('quantize', embeddedModel, join(dir, 'x'))).toMatchObject({
      code: 1,
      stderr: expect.stringContaining('expected the option'),
    });
    const done = await run('quantize', embeddedModel, join(dir, 'q8'), '--weights', 'q8', '--threads', '1');
    expect(done).toMatchObject({ code: 0, stdout: '', stderr: expect.stringMatching(/q8: [\d.]+ MB from 4\.18 MB, q8, in /) });
    const again = await run('quantize', embeddedModel, join(dir, 'q8'), '--weights', 'q8');
    expect(again).toMatchObject({ code: 1, stderr: expect.stringContaining('it would be overwritten') });

    // 96 MB of embedding and head: long enough to be interrupted.
    const large = await changedModel('nope', ({ tensors, config }) => {
      config['vocab_size'] = 300_000;
      for (const name of ['model.embed_tokens.weight', 'lm_head.weight']) {
        const { shape, dtype } = tensors.get(name)!;
        const data = new Float32Array(300_000 * shape[1]!);
        tensors.set(name, { name, dtype, shape: [300_000, shape[1]!], data });
      }
    });
    const child = start({}, 'quantize', large, join(dir, 'out'), '--weights', 'q8', '--threads', '1');
    const watch = setInterval(() => {
      if (!readdirSync(dir).some((name) => name.startsWith('out.'))) return;
      clearInterval(watch);
      child.kill('SIGINT');
    }, 1);
    const { code } = await ended(child);
    expect([code, await readdir(dir)]).toEqual([130, ['q8']]);
  });
});

test('options that types would refuse are refused without them, before anything is made', async () => {
  const dir = await temporaryFolder();
  for (const [where, options] of Object.entries({
    weights: { weights: 'q5' },
    threads: { weights: 'q8', threads: -1 },
    shard_bytes: { weights: 'q8', shard_bytes: Number.NaN },
  })) {
    const quantizing = quantizeCheckpoint(embeddedModel, join(dir, 'out'), options as { weights: 'q8' });
    await expect(quantizing).rejects.toThrow(
      expect.objectContaining({ name: 'ArgumentError', problems: [expect.objectContaining({ where })] }),
    );
  }
  const { code, stderr } = await run('quantize', embeddedModel, join(dir, 'out'), '--weights', 'q8', '--threads', '400');
  expect([code, stderr]).toEqual([1, expect.stringContaining('threads: expected an integer from 1 to 256, found 400')]);
  expect(await readdir(dir)).toEqual([]);
});

describe('a machine that is too small', () => {
  test('is told what would fit, before anything is allocated', async () => {
    const total = async (options: LoadOptions) => (await planModel(embeddedModel, options)).placement.total_bytes;
    const [stored, q8, q4] = [await total({}), await total({ weights: 'q8' }), await total({ weights: 'q4' })];
    expect(q4 < q8 && q8 < stored).toBe(true);
    const refusal = async (options: LoadOptions) =>
      await loadModel(embeddedModel, options).then(
        () => 'loaded',
        (error: Error) => error.message,
      );
    expect(await refusal({ memory_limit_bytes: stored })).toBe('loaded');
    expect(await refusal({ memory_limit_bytes: stored - 1 })).toMatch(
      /^memory: expected [\d.]+ MB for weights, caches and scratch, found [\d.]+ MB\. This would fit: weights q8 \([\d.]+ MB\), or a context of 1024 \([\d.]+ MB\)\.$/,
    );
    expect(await refusal({ memory_limit_bytes: q8 - 1 })).toContain('weights q4');
    expect(await refusal({ memory_limit_bytes: q8 - 1, weights: 'q8' })).toContain('weights q4');
    const least = await total({ weights: 'q4', context: 256 });
    expect(await refusal({ memory_limit_bytes: least })).toContain('weights q4 and a context of 256');
    expect(await refusal({ memory_limit_bytes: 1e6 })).toContain('No weights and no context fit: use a machine with more memory.');
    const { too_large } = await planModel(embeddedModel, { memory_limit_bytes: 1e6 });
    expect(too_large?.found).toBe('1.0 MB');
  });
});

test('loading can be interrupted between pieces', async () => {
  const controller = new AbortController();
  const pieces: number[] = [];
  const onProgress = (done: number) => {
    pieces.push(done);
    if (pieces.length === 3) controller.abort(new Error('enough'));
  };
  await expect(loadModel(embeddedModel, { threads: 2, signal: controller.signal, onProgress })).rejects.toThrow('enough');
  expect(pieces).toHaveLength(3);
  await expect(loadModel(embeddedModel, { signal: AbortSignal.abort() })).rejects.toThrow('aborted');
});

describe('on the command line', () => {
  test('inspect plans formats, threads and builds', async () => {
    const facts = async (...args: string[]) => JSON.parse((await run('inspect', '--json', ...args)).stdout) as Record<string, unknown>;
    expect(await facts('--weights', 'q8', '--mode', 'strict', '--threads', '3')).toMatchObject({
      weights: { BF16: 1, Q8: 38 },
      mode: 'strict',
      build: 'strict',
      threads: 3,
      too_large: null,
    });
    const { build, relaxed_simd } = await facts('--mode', 'fast');
    expect(build).toBe(relaxed_simd ? 'relaxed' : 'strict');
    expect((await run('inspect')).stdout).toContain(`vectors of ${hasWideVectors() ? 256 : 128} bits`);
  });

  test('generate says what is not the default, and other kernels take no threads or formats', async () => {
    const options = ['generate', '--max-tokens', '3', '--seed', '1'];
    const [two, one] = await Promise.all([
      run(...options, '--weights', 'q4', '--threads', '7', '--mode', 'strict'),
      run(...options, '--kernels', 'reference'),
    ]);
    expect(two.stderr).toMatch(/ · strict build · 7 threads · q4 · seed 1 /);
    expect(one.stderr).toMatch(/ · reference kernels · seed 1 /);
    for (const refused of [
      ['--threads', '2'],
      ['--weights', 'q8'],
    ]) {
      const { code, stderr } = await run(...options, '--kernels', 'reference', ...refused);
      expect([code, stderr]).toEqual([1, expect.stringContaining('expected kernels wasm')]);
    }
  });
});
