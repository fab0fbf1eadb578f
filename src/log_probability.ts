import { exp, log } from './exact_math.ts';
import type { FloatArray } from './runtime/tensor.ts';

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
