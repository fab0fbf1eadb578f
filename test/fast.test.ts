import { readdirSync } from 'node:fs';
import { describe, expect, test } from 'vitest';
import { loadModel } from '../src/load.ts';
import { hasRelaxedSimd } from '../src/runtime/wasm_module.ts';
import { goldenIds, goldenModel, logitsOf, repository } from './support/models.ts';

/** Largest distance of a logit of fast mode from strict mode's, as a part of the spread of the logits. */
const BOUNDS = [
  ['keys and values in f32', 'f32', 3e-6],
  ['keys and values in f16, the default', undefined, 1e-3],
] as const;

const spreadOf = (logits: Float64Array) => logits.reduce((a, b) => Math.max(a, b)) - logits.reduce((a, b) => Math.min(a, b));

describe.each(BOUNDS)('fast mode is within its bound of strict mode: %s', async (_, kv, bound) => {
  const relaxed = await hasRelaxedSimd();
  test.each(readdirSync(repository('golden/models')))('%s', async (name) => {
    const ids = await goldenIds(name);
    const [strict, fast] = [await loadModel(goldenModel(name)), await loadModel(goldenModel(name), { mode: 'fast', kv })];
    expect(fast.plan.build).toBe(relaxed ? 'relaxed' : 'strict');
    const want = logitsOf(strict.model, ids, strict.model.prefill_chunk);
    const got = logitsOf(fast.model, ids, 24); // whole chunks of the delta rule, and a last one of other length
    const error = want.reduce((most, value, i) => Math.max(most, Math.abs(value - got[i]!)), 0);
    expect(error / spreadOf(want)).toBeLessThan(bound);
  });
});
