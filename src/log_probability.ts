import type { FloatArray } from './runtime/tensor.ts';
import { exp } from './sampler.ts';

/**
 * log of the sum of e^logit, which taken from a logit leaves its log probability. In float64, the largest logit first taken out, and from
 * + - * / alone, so that it is the same in every engine.
 * @param logits [V]
 * @returns NaN when a logit is NaN or infinite upwards
 */
export function logSumExp(logits: FloatArray): number {
  let largest = -Infinity;
  for (let id = 0; id < logits.length; id++) if (logits[id]! > largest) largest = logits[id]!;
  let sum = 0;
  for (let id = 0; id < logits.length; id++) sum += exp(logits[id]! - largest);
  return largest + log(sum);
}

/**
 * Natural logarithm of a number of at least 1, within 2 ulp or 4e-16: x = 2^n m with m in (0.7, 1.42), then
 * log x = n log 2 + 2 (s + s^3/3 + s^5/5 + ... + s^23/23), s = (m - 1) / (m + 1), whose next term is below 1e-20.
 */
export function log(x: number): number {
  let n = 0;
  let m = x;
  for (; m > Math.SQRT2; n++) m /= 2;
  const s = (m - 1) / (m + 1);
  const z = s * s;
  let tail = 0;
  for (let k = 23; k > 1; k -= 2) tail = z * (1 / k + tail);
  return n * Math.LN2 + 2 * s * (1 + tail);
}
