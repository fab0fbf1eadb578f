import { expect, test } from 'vitest';
import { verifyEmbedded } from '../src/verify.ts';

/** How much the perplexity of the held-out text may change with keys and values in 8 bits. */
const BOUND = 2e-3;

test('keys and values in 8 bits hardly change the perplexity of the held-out text', { timeout: 120_000 }, async () => {
  const [exact, narrow] = [await verifyEmbedded({ mode: 'fast', kv: 'f32' }), await verifyEmbedded({ mode: 'fast', kv: 'q8' })];
  expect(narrow.perplexity).not.toBe(exact.perplexity);
  expect(Math.abs(narrow.perplexity / exact.perplexity - 1)).toBeLessThan(BOUND);
});
