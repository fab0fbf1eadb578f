import { errorRatio } from '../verify_golden.ts';
import { failed, type Judgement, passed } from './protocol.ts';

/**
 * The largest error that passes, in units of PyTorch's own in float32. Another order of sums makes a few times its error; the smallest of the
 * mistakes that the goldens are made for moves the logits 459 times as far (golden/mistakes.json).
 */
export const LARGEST_ERROR = 10;

/** The measure of levels that are held to the truth as `verify` does it, only wider. */
export const ERROR_MEASURE = { unit: "error / PyTorch's", bound: LARGEST_ERROR } as const;

/** Holds results against the truth. @param name what they are, for messages */
export function heldToTruth(name: string, results: ArrayLike<number>, pytorch: ArrayLike<number>, truth: ArrayLike<number>): Judgement {
  const { error, pytorch_error, ratio } = errorRatio(results, pytorch, truth);
  if (ratio <= LARGEST_ERROR) return passed(ratio);
  const most = LARGEST_ERROR * pytorch_error;
  return failed(`${name} with an error of at most ${most.toExponential(1)}`, error.toExponential(1), ratio);
}
