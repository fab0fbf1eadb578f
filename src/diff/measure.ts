import { FORMATS, type Precision } from './tolerance.ts';
import type { Values } from './trace_file.ts';

/** How far two tensors of one shape are apart. */
export interface Measure {
  /** RMS of b - a over RMS of a; infinite where only one is NaN or infinite. */
  readonly relative_rms: number;
  /** Largest |b - a| in units of the last place of the larger. */
  readonly max_ulp: number;
  /** Elements by their distance in ulp: [0, 1, 2 to 3, 4 to 7, …]. */
  readonly ulp_histogram: readonly number[];
  /** RMS of b - a at each index of axis 0 and of the head axis, over RMS of all of a. */
  readonly by_position: readonly number[];
  readonly by_head: readonly number[] | null;
  /** Whether an element is NaN or infinite in both. */
  readonly both_not_finite: boolean;
}

/**
 * Compares two tensors of one shape.
 * @param head_axis 0, 1 or null, as in `TracedOp`; with 0 there are no positions.
 */
export function measure(a: Values, b: Values, head_axis: 0 | 1 | null, precision: Precision): Measure {
  const length = a.data.length;
  const rows = a.shape[0] ?? 1;
  const rowLength = length / rows;
  const heads = head_axis === null ? 1 : a.shape[head_axis]!;
  const headLength = head_axis === 0 ? rowLength : rowLength / heads;
  const headOf = (i: number) => (head_axis === 0 ? Math.floor(i / rowLength) : Math.floor((i % rowLength) / headLength));

  const histogram: number[] = [];
  const ofRows = new Float64Array(rows);
  const ofHeads = new Float64Array(heads);
  let squares = 0;
  let max_ulp = 0;
  let both_not_finite = false;
  for (let i = 0; i < length; i++) {
    const [x, y] = [a.data[i]!, b.data[i]!];
    squares += Number.isFinite(x) ? x * x : 0;
    both_not_finite ||= !Number.isFinite(x) && !Number.isFinite(y);
    const ulp = Math.round(ulpDistance(x, y, precision));
    max_ulp = Math.max(max_ulp, ulp);
    const bin = ulp === 0 ? 0 : Math.min(Math.floor(Math.log2(ulp)) + 1, FORMATS[precision].bits + 1);
    histogram[bin] = (histogram[bin] ?? 0) + 1;
    const error = distance(x, y) ** 2;
    ofRows[Math.floor(i / rowLength)]! += error;
    if (head_axis !== null) ofHeads[headOf(i)]! += error;
  }
  const relative = (error: number, parts: number) => (error === 0 ? 0 : Math.sqrt((error * parts) / squares));
  return {
    relative_rms: relative(
      ofRows.reduce((sum, error) => sum + error, 0),
      1,
    ),
    max_ulp,
    ulp_histogram: Array.from(histogram, (count) => count ?? 0),
    by_position: head_axis === 0 ? [] : Array.from(ofRows, (error) => relative(error, rows)),
    by_head: head_axis === null ? null : Array.from(ofHeads, (error) => relative(error, heads)),
    both_not_finite,
  };
}

/** RMS of b - a over RMS of a. */
export function relativeRms(a: ArrayLike<number>, b: ArrayLike<number>): number {
  let error = 0;
  let squares = 0;
  for (let i = 0; i < a.length; i++) {
    error += distance(a[i]!, b[i]!) ** 2;
    squares += a[i]! ** 2;
  }
  return error === 0 ? 0 : Math.sqrt(error / squares);
}

/** |b - a| in units of the last place that the larger has in this precision; infinite where only one is NaN or infinite. */
export function ulpDistance(a: number, b: number, precision: Precision): number {
  const { bits, least_exponent } = FORMATS[precision];
  const error = distance(a, b);
  if (error === 0 || error === Infinity) return error;
  const exponent = Math.max(exponentOf(Math.max(Math.abs(a), Math.abs(b))), least_exponent);
  return error / 2 ** (exponent - bits + 1);
}

/** |b - a|; infinite where only one is NaN or infinite. */
export function distance(a: number, b: number): number {
  if (Object.is(a, b)) return 0;
  const error = Math.abs(b - a);
  return Number.isNaN(error) ? Infinity : error;
}

/** Of 2^exponent <= x; Math.log2 alone may be off by one next to a power of two. */
function exponentOf(x: number): number {
  const exponent = Math.floor(Math.log2(x));
  return 2 ** exponent > x ? exponent - 1 : exponent;
}
