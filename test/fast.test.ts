import { readdirSync } from 'node:fs';
import { describe, expect, test } from 'vitest';
import { loadModel } from '../src/load.ts';
import { hasRelaxedSimd } from '../src/runtime/wasm_module.ts';
import { goldenIds, goldenModel, logitsOf, repository } from './support/models.ts';

/** Largest distance of a logit of fast mode from strict mode's, as a part of the spread of the logits. */
const FAST_BOUND = 3e-6;

const spreadOf = (logits: Float64Array) => logits.reduce((a, b) => Math.max(a, b)) - logits.reduce((a, b) => Math.min(a, b));

describe('fast mode is within its bound of strict mode', async () => {
  const relaxed = await hasRelaxedSimd();
  test.each(readdirSync(repository('golden/models')))('%s', async (name) => {
    const ids = await goldenIds(name);
    const [strict, fast] = [await loadModel(goldenModel(name)), await loadModel(goldenModel(name), { mode: 'fast' })];
    expect(fast.build).toBe(relaxed ? 'relaxed' : 'strict');
    const want = logitsOf(strict.model, ids, strict.model.prefill_chunk);
    const got = logitsOf(fast.model, ids, 24); // whole chunks of the delta rule, and a last one of other length
    const error = want.reduce((most, value, i) => Math.max(most, Math.abs(value - got[i]!)), 0);
    expect(error / spreadOf(want)).toBeLessThan(FAST_BOUND);
  });
});
