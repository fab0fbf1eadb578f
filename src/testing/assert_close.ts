/** Unit roundoff of f32: the largest relative error of one rounding. */
export const U32 = 2 ** -24;
/** Unit roundoff of f64. */
export const U64 = 2 ** -53;
/** The largest error of one rounding to f32 where its numbers are no longer normal. */
export const TINY = 2 ** -150;
/** What can be compared. */
export type Numbers = ArrayLike<number>;

/** How far from the wanted value each element may be: relative * |of[i]| + absolute. */
export interface Bound {
  readonly relative: number;
  /** What the relative error is taken of, by element: the sum of the terms' magnitudes, where they may cancel. Default: the wanted value. */
  readonly of?: Numbers;
  /** Default: one rounding below the normal numbers of f32. */
  readonly absolute?: number;
}

/**
 * Every element is within its bound; NaN and infinite values match in place. Where the wanted value (in f64) rounds to an infinite f32, that
 * infinity is right.
 * @throws {Error} that shows the element furthest beyond its bound.
 */
export function assertClose(got: Numbers, want: Numbers, bound: Bound): void {
  const { share, worst } = shareOfBound(got, want, bound);
  if (share <= 1) return;
  throw new Error(`element ${worst} of ${want.length}: got ${got[worst]}, want ${want[worst]}: ${share.toPrecision(4)} times the bound`);
}

/** The largest error as a part of its element's bound, and that element; 0 where all is equal. @throws {Error} for another length. */
export function shareOfBound(
  got: Numbers,
  want: Numbers,
  { relative, of = want, absolute = TINY }: Bound,
): { share: number; worst: number } {
  sameLength(got, want);
  let worst = 0;
  let share = 0;
  for (let i = 0; i < want.length && share < Infinity; i++) {
    const a = got[i]!;
    const b = want[i]!;
    if (Object.is(a, b) || a === b || (a === Math.fround(b) && !Number.isFinite(a))) continue;
    const error = Math.abs(a - b) / (relative * Math.abs(of[i]!) + absolute);
    if (error <= share) continue;
    worst = i;
    share = Number.isNaN(error) ? Infinity : error;
  }
  return { share, worst };
}

/** The same values bit for bit: -0 is not 0; a NaN is any NaN, since wasm leaves its payload open. @throws {Error} */
export function assertSame(got: Numbers, want: Numbers): void {
  sameLength(got, want);
  for (let i = 0; i < want.length; i++) {
    if (!Object.is(got[i], want[i])) throw new Error(`element ${i} of ${want.length}: got ${show(got[i]!)}, want ${show(want[i]!)}`);
  }
}

function sameLength(got: Numbers, want: Numbers): void {
  if (got.length !== want.length) throw new Error(`${got.length} elements, want ${want.length}`);
}

function show(x: number): string {
  return Object.is(x, -0) ? '-0' : String(x);
}
