import { readdir, readFile, stat } from 'node:fs/promises';
import { join } from 'node:path';
import { describe, expect, test } from 'vitest';
import { openFile } from '../src/checkpoint/byte_source.ts';
import { readSafetensors, readTensor } from '../src/checkpoint/safetensors.ts';
import { ArgumentError } from '../src/errors.ts';
import { loadModel, readConfig } from '../src/load.ts';
import { writeTrace } from '../src/trace.ts';
import { forwardPass, opsOf, shapeOf } from '../src/trace_format.ts';
import { changedModel, goldenIds, goldenModel, readGolden, repository, temporaryFolder } from './support/models.ts';
import { traceOf } from './support/traces.ts';

const MODELS = ['nope', 'rope', 'gqa', 'few_key_heads', 'odd_sizes', 'layer_order', 'olmo3_yarn', 'one_token'];

async function shapesOf(path: string): Promise<Record<string, readonly number[]>> {
  const source = await openFile(path);
  try {
    return Object.fromEntries([...(await readSafetensors(source)).tensors].map(([name, { shape }]) => [name, shape]));
  } finally {
    await source.close();
  }
}

describe('the format', () => {
  test.each(MODELS)('%s: the model shows the ops of the format, in their order and with their sizes', async (name) => {
    const { model } = await loadModel(goldenModel(name), { context: 5 });
    const seen: [string, number][] = [];
    model.tap = (op, { rows, cols }) => seen.push([op, rows * cols]);
    const T = name === 'one_token' ? 1 : 5;
    model.forwardAll(Array.from(await goldenIds(name)).slice(0, T), new Float32Array(T * model.config.vocab_size));
    const expected = opsOf(model.config).map((op): [string, number] => [op.name, shapeOf(op, model.config, T).reduce((a, b) => a * b)]);
    expect(seen).toEqual(expected);
  });

  test('every input of an op comes before it', () => {
    const before = new Set<string>();
    for (const { name, inputs } of forwardPass(['linear_attention', 'full_attention', 'sliding_attention', 'linear_attention'])) {
      for (const input of inputs) expect(before, `${input} of ${name}`).toContain(input);
      before.add(name);
    }
  });

  test('the page describes every op of a layer', async () => {
    const page = await readFile(repository('docs/trace_format.md'), 'utf8');
    const described = new Set([...page.matchAll(/^\| `((?:model\.|lm_head)[^`]*)`/gm)].map((match) => match[1]));
    const ops = forwardPass(['linear_attention', 'full_attention']).map(({ op, layer }) =>
      layer === null ? op : `model.layers.N${op && '.'}${op}`,
    );
    expect(described).toEqual(new Set(ops));
  });

  test('PyTorch writes the same names and shapes, and the same digests', async () => {
    const dir = await temporaryFolder();
    for (const model of ['nope', 'gqa']) {
      const theirs = repository(`golden/traces/${model}.safetensors`);
      const { metadata } = await readGolden(theirs);
      const ours = join(dir, `${model}.safetensors`);
      await traceOf(ours, model, Number(metadata.get('tokens')));
      expect(await shapesOf(ours)).toEqual(await shapesOf(theirs));
      const own = (await readGolden(ours)).metadata;
      for (const key of ['format_version', 'precision', 'config_sha256', 'tokens_sha256', 'weights_sha256']) {
        expect(own.get(key), key).toBe(metadata.get(key));
      }
    }
  });
});

describe('a trace', () => {
  test.each(['wasm', 'reference', 'bf16'] as const)('%s: holds what the tap sees', async (kernels) => {
    const path = join(await temporaryFolder(), 'trace.safetensors');
    const T = 19; // the head works on 16 rows at a time
    const summary = await traceOf(path, 'nope', T, { kernels });
    const { model } = await loadModel(goldenModel('nope'), { kernels, context: T });
    const seen = new Map<string, number[]>();
    model.tap = (name, { data, rows, cols }) => {
      const values = Array.from(data.subarray(0, rows * cols), kernels === 'reference' ? (x) => x : Math.fround);
      seen.set(name, name === 'model.norm' || name === 'lm_head' ? [...(seen.get(name) ?? []), ...values] : values);
    };
    model.forwardAll(Array.from(await goldenIds('nope')).slice(0, T), new Float32Array(T * 97));

    const source = await openFile(path);
    const { tensors, metadata } = await readSafetensors(source);
    expect(tensors.size).toBe(seen.size);
    expect(summary).toEqual({ tensors: seen.size, bytes: source.byteLength });
    for (const [name, entry] of tensors) {
      expect(entry.dtype).toBe(kernels === 'reference' ? 'F64' : 'F32');
      expect(Array.from<unknown>(await readTensor(entry)), name).toEqual(seen.get(name));
    }
    expect(metadata.get('precision')).toBe({ wasm: 'f32', reference: 'f64', bf16: 'bf16' }[kernels]);
    await source.close();
  });

  test.each([1, 7, 18])('in calls of %i tokens is the same file', async (prefill_chunk) => {
    const dir = await temporaryFolder();
    await traceOf(join(dir, 'whole'), 'rope', 23);
    await traceOf(join(dir, 'cut'), 'rope', 23, { prefill_chunk });
    expect((await readFile(join(dir, 'cut'))).equals(await readFile(join(dir, 'whole')))).toBe(true);
  });

  test.each([
    [['*'], 151],
    [['model.layers.?'], 7],
    [['model.layers.2.self_attn.*', 'lm_head'], 8],
    [['*.state'], 5],
    [['model?norm'], 1],
  ])('of %j holds %i names', async (only, names) => {
    const path = join(await temporaryFolder(), 'trace.safetensors');
    expect((await traceOf(path, 'nope', 3, { only }))?.tensors).toBe(names);
    expect(Object.keys(await shapesOf(path)).length).toBe(names);
  });

  test('has one digest for the same weights in one file and in three', async () => {
    const digestOf = async (dir: string) => {
      const path = join(await temporaryFolder(), 'trace.safetensors');
      const load = async () => (await loadModel(dir)).model;
      await writeTrace(path, dir, [1], load, { kernels: 'wasm', mode: 'strict', producer: 'test', only: ['lm_head'] });
      return (await readGolden(path)).metadata.get('weights_sha256');
    };
    const digest = await digestOf(goldenModel('sharded'));
    expect(await digestOf(await changedModel('sharded', () => {}))).toBe(digest);
    const touched = await changedModel('sharded', ({ tensors }) => void (tensors.get('lm_head.weight')!.data as Uint8Array)[0]!++);
    expect(await digestOf(touched)).not.toBe(digest);
  });
});

describe('no file is left', () => {
  test('by a name that is not there, and no model is loaded', async () => {
    const dir = await temporaryFolder();
    const config = goldenModel('nope');
    const load = () => Promise.reject(new Error('loaded'));
    const options = { kernels: 'wasm', mode: 'strict', producer: 'test', only: ['model.layers.7*', 'x'] } as const;
    await expect(writeTrace(join(dir, 'trace'), config, [1], load, options)).rejects.toThrow(ArgumentError);
    await expect(writeTrace(join(dir, 'trace'), config, [1], load, options)).rejects.toThrow(/model\.layers\.7\*.*"x"/);
    // Each of them must be one, and a name is no regular expression.
    const some = { ...options, only: ['model.norm', 'model+norm'] };
    await expect(writeTrace(join(dir, 'trace'), config, [1], load, some)).rejects.toThrow('found "model+norm".');
    expect(await readdir(dir)).toEqual([]);
  });

  test('by an interruption', async () => {
    const dir = await temporaryFolder();
    expect(await traceOf(join(dir, 'trace'), 'nope', 5, { signal: AbortSignal.abort() })).toBeNull();
    expect(await readdir(dir)).toEqual([]);
  });

  test('by a pass that fails, and an older file stays as it was', async () => {
    const dir = await temporaryFolder();
    await traceOf(join(dir, 'trace'), 'nope', 2);
    const before = await stat(join(dir, 'trace'));
    const tokens = [1, (await readConfig(goldenModel('nope'))).vocab_size];
    const load = async () => (await loadModel(goldenModel('nope'))).model;
    const options = { kernels: 'wasm', mode: 'strict', producer: 'test' } as const;
    await expect(writeTrace(join(dir, 'trace'), goldenModel('nope'), tokens, load, options)).rejects.toThrow(ArgumentError);
    expect((await stat(join(dir, 'trace'))).mtimeMs).toBe(before.mtimeMs);
    expect(await readdir(dir)).toEqual(['trace']);
  });

  test('where none can be written', async () => {
    const dir = await temporaryFolder();
    await expect(traceOf(join(dir, 'none', 'trace'), 'nope', 2)).rejects.toThrow(/no such folder/);
    await expect(traceOf(dir, 'nope', 2)).rejects.toThrow(ArgumentError);
    expect(await readdir(dir)).toEqual([]);
  });
});
