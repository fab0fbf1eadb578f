import { createHash } from 'node:crypto';
import { readdirSync, readFileSync } from 'node:fs';
import { join, relative } from 'node:path';
import { afterAll, describe, expect, test } from 'vitest';
import { loadModel } from '../src/load.ts';
import type { FloatArray } from '../src/runtime/tensor.ts';
import { type Golden, goldenModel, logitsOf, readGolden, repository } from './support/models.ts';

// The reference sums in float64 as the truth does, in another order: 1e-13 leaves two decimal digits for a few hundred roundings.
const REFERENCE_BOUND = 1e-13;
const LARGEST_RATIO = 2;
const MEDIAN_RATIO = 1; // of strict mode; fast mode is held to strict by fast.test.ts
const CLEAR_MARGIN = 0.02;

const models = readdirSync(repository('golden/models'));

function filesBelow(dir: string): string[] {
  return readdirSync(dir, { withFileTypes: true }).flatMap((entry) => {
    const path = join(dir, entry.name);
    return entry.isDirectory() ? filesBelow(path) : [path];
  });
}

test('golden/digests.json lists every golden file with its sha256', () => {
  const golden = repository('golden');
  const listed = JSON.parse(readFileSync(join(golden, 'digests.json'), 'utf8')) as Record<string, string>;
  const files = filesBelow(golden).filter(
    (path) => /\.(safetensors|json|jinja|txt)$/.test(path) && !/(digests\.json|requirements\.txt)$/.test(path),
  );
  const found = files.map((path) => [relative(golden, path), createHash('sha256').update(readFileSync(path)).digest('hex')]);
  expect(Object.fromEntries(found)).toEqual(listed);
});

test('goldens stay below 25 MB', () => {
  const files = filesBelow(repository('golden'));
  const bytes = files.reduce((sum, path) => sum + readFileSync(path).length, 0);
  expect(bytes).toBeLessThan(25e6);
});

/** Largest |a - b|; a NaN counts as infinite. */
function distance(a: FloatArray, b: FloatArray): number {
  let most = 0;
  for (let i = 0; i < b.length; i++) {
    const d = Math.abs(a[i]! - b[i]!);
    most = Math.max(most, Number.isNaN(d) ? Infinity : d);
  }
  return most;
}

function largest(a: FloatArray): number {
  return distance(a, new Float64Array(a.length));
}

/** Rows of [T, V] logits at the golden's positions. */
function rowsAtPositions(golden: Golden, logits: Float64Array, V: number): Float64Array {
  const positions = golden.arrays.get('positions');
  if (!positions) return logits;
  const rows = new Float64Array(positions.length * V);
  positions.forEach((t, row) => {
    rows.set(logits.subarray(t * V, (t + 1) * V), row * V);
  });
  return rows;
}

describe.each(models)('%s', (name) => {
  const dir = goldenModel(name);
  const load = async (kernels: 'wasm' | 'reference', mode: 'strict' | 'fast', kv?: 'f32') => {
    const golden = await readGolden(join(dir, 'expected.safetensors'));
    const ids = [...golden.arrays.get('input_ids')!];
    const { model, not_finite } = await loadModel(dir, { kernels, mode, kv });
    expect(not_finite).toEqual([]);
    const V = model.config.vocab_size;
    const truth = golden.arrays.get('logits.truth')!;
    const pytorch = golden.arrays.get('logits')!;
    return { golden, ids, model, V, truth, pytorch };
  };

  test('says what it holds', async () => {
    const { metadata } = await readGolden(join(dir, 'expected.safetensors'));
    expect(metadata.get('_comment')).toBeTruthy();
    expect(metadata.get('producer')).toContain('torch 2.13.0');
  });

  test('the reference is the truth', async () => {
    const { golden, ids, model, V, truth } = await load('reference', 'strict');
    const ours = rowsAtPositions(golden, logitsOf(model, ids, model.prefill_chunk), V);
    expect(distance(ours, truth) / largest(truth)).toBeLessThan(REFERENCE_BOUND);
  });

  test('hidden states of the reference are the truth after every layer', async () => {
    const { golden, ids, model } = await load('reference', 'strict');
    if (ids.length > model.prefill_chunk) return; // the long cases hold logits only
    const names = ['model.embed_tokens', ...model.config.layer_types.map((_, i) => `model.layers.${i}`)];
    const seen = new Map<string, Float64Array>();
    model.tap = (path, { data, rows, cols }) => {
      if (names.includes(path)) seen.set(path, Float64Array.from(data.subarray(0, rows * cols)));
    };
    model.forward(ids);
    names.forEach((path, i) => {
      const truth = golden.arrays.get(`hidden_states.${i}.truth`);
      if (truth) expect(distance(seen.get(path)!, truth) / largest(truth), path).toBeLessThan(REFERENCE_BOUND);
    });
  });

  test.each(['strict', 'fast'] as const)('%s: logits are as near to the truth as those of PyTorch', async (mode) => {
    const { golden, ids, model, V, truth, pytorch } = await load('wasm', mode, 'f32');
    const ours = rowsAtPositions(golden, logitsOf(model, ids, model.prefill_chunk), V);
    const ratio = distance(ours, truth) / distance(pytorch, truth);
    if (mode === 'strict') ratios.push(ratio);
    expect(ratio).toBeLessThanOrEqual(LARGEST_RATIO);
  });

  test('strict: the cut of the prompt changes no bit, decoding token by token included', async () => {
    const { ids, model } = await load('wasm', 'strict');
    const whole = logitsOf(model, ids, model.prefill_chunk);
    for (const chunk of [1, 7, 64]) expect(logitsOf(model, ids, chunk), `chunks of ${chunk}`).toEqual(whole);
  });

  test.each(['strict', 'fast'] as const)('%s: the greedy continuation is that of PyTorch', async (mode) => {
    const { golden, ids, model } = await load('wasm', mode);
    const greedy = golden.arrays.get('greedy')!;
    const margins = golden.arrays.get('greedy_margins')!;
    let last: FloatArray = new Float32Array();
    for (let t = 0; t < ids.length; t += model.prefill_chunk) last = model.forward(ids.slice(t, t + model.prefill_chunk));
    expect(margins.filter((margin) => margin > CLEAR_MARGIN).length).toBeGreaterThan(0);
    greedy.forEach((id, i) => {
      if (margins[i]! > CLEAR_MARGIN) expect(last.indexOf(Math.max(...last)), `token ${i}`).toBe(id);
      last = model.forward([id]);
    });
  });
});

const ratios: number[] = [];

afterAll(() => {
  if (ratios.length < models.length) return; // a part of the file was run
  expect(ratios.sort((a, b) => a - b)[Math.floor(ratios.length / 2)], 'median error ratio').toBeLessThanOrEqual(MEDIAN_RATIO);
});
