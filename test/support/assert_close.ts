import { TINY, U32 } from '../../src/testing/assert_close.ts';

// The comparison of elements is the kit's.
export * from '../../src/testing/assert_close.ts';

/** Relative error of the kernels' exp, as assembly/math.ts states it. */
export const EXP_ERROR = 1e-11;
/** One rounding of a value that was computed in f64 from a few exp: what the kernels promise that round once. */
export const ROUNDED_ONCE = U32 * (1 + 1e-3);

type Numbers = ArrayLike<number>;

/**
 * The error against the truth is at most `most` times PyTorch's. Where PyTorch was lucky its error counts as half an ulp of the largest
 * true value: no f32 result can promise less.
 * @throws {Error} with the ratio.
 */
export function assertErrorRatio(ours: Numbers, pytorch: Numbers, truth: Numbers, most = 2): void {
  const ratio = largestError(ours, truth) / Math.max(largestError(pytorch, truth), halfUlp(largest(truth)));
  if (!(ratio <= most)) throw new Error(`error ratio ${ratio.toPrecision(4)}, at most ${most}`);
}

/** The largest |got - want| is at most this part of the largest |want|. @throws {Error} with the part that it is. */
export function assertRelative(got: Numbers, want: Numbers, most: number): void {
  const error = largestError(got, want);
  if (!(error <= most * largest(want))) throw new Error(`relative error ${(error / largest(want)).toPrecision(4)}, at most ${most}`);
}

/** Half the distance from x to the next f32. */
export function halfUlp(x: number): number {
  return x === 0 ? TINY : Math.max(TINY, 2 ** (Math.floor(Math.log2(Math.abs(x))) - 24));
}

function largestError(got: Numbers, want: Numbers): number {
  if (got.length !== want.length) throw new Error(`${got.length} elements, want ${want.length}`);
  let most = 0;
  for (let i = 0; i < want.length; i++) {
    const error = Math.abs(got[i]! - want[i]!);
    if (!(error <= most)) most = Number.isNaN(error) ? Infinity : error;
  }
  return most;
}

function largest(values: Numbers): number {
  let most = 0;
  for (let i = 0; i < values.length; i++) most = Math.max(most, Math.abs(values[i]!));
  return most;
}
