import type { Values } from './trace_file.ts';

// A trace holds inputs and outputs of every op but not its small parameters: they are solved for, from a trace that is right.

/**
 * The weight [D] of a norm, y = weight * scaled, by least squares; where x is larger it counts for more, since an eps that is not known is
 * felt least there.
 * @param x, scaled, y [T * H, D]: the input of the norm, the same normalised, the output
 */
export function normWeight(x: ArrayLike<number>, scaled: ArrayLike<number>, y: ArrayLike<number>, D: number): Float64Array {
  const products = new Float64Array(D);
  const squares = new Float64Array(D);
  for (let i = 0; i < y.length; i++) {
    const size = (x[i]! * scaled[i]!) ** 2;
    if (size === 0) continue;
    products[i % D]! += (size * y[i]!) / scaled[i]!;
    squares[i % D]! += size;
  }
  return products.map((total, i) => (total === 0 ? 0 : total / squares[i]!));
}

/** Widest convolution that is solved for; a narrower one gets leading zeros. */
export const TAPS = 4;

/**
 * The weight [TAPS, C] of y = silu(causal convolution of x), by least squares over the rows with y > 0, where silu has an inverse.
 * @param x, y [T, C] from an empty state.
 * @returns null when there are too few such rows.
 */
export function convolutionWeight(x: Values, y: Values): Float64Array | null {
  const T = y.shape[0]!;
  const C = y.data.length / T;
  const weight = new Float64Array(TAPS * C);
  for (let c = 0; c < C; c++) {
    const rows: { taps: number[]; sum: number }[] = [];
    for (let t = 0; t < T; t++) {
      const taps = Array.from({ length: TAPS }, (_, j) => x.data[(t - (TAPS - 1) + j) * C + c] ?? 0);
      if (y.data[t * C + c]! > 0) rows.push({ taps, sum: inverseSilu(y.data[t * C + c]!) });
    }
    const solution = rows.length > TAPS ? leastSquares(rows) : null;
    if (solution === null) return null;
    solution.forEach((value, j) => {
      weight[j * C + c] = value;
    });
  }
  return weight;
}

/** s with silu(s) = y, for y > 0, by Newton's method from above: silu is convex there as far as it matters. */
function inverseSilu(y: number): number {
  let s = 2 * y + 1;
  for (let i = 0; i < 20; i++) {
    const sigmoid = 1 / (1 + Math.exp(-s));
    s -= (s * sigmoid - y) / (sigmoid * (1 + s * (1 - sigmoid)));
  }
  return s;
}

/** Solves the normal equations by elimination with pivots; null where they are singular. */
function leastSquares(rows: readonly { readonly taps: readonly number[]; readonly sum: number }[]): number[] | null {
  const n = rows[0]!.taps.length;
  const m = Array.from({ length: n }, (_, i) =>
    Array.from({ length: n + 1 }, (_, j) => rows.reduce((sum, row) => sum + row.taps[i]! * (j < n ? row.taps[j]! : row.sum), 0)),
  );
  for (let i = 0; i < n; i++) {
    const pivot = m.slice(i).reduce((best, row) => (Math.abs(row[i]!) > Math.abs(best[i]!) ? row : best));
    if (!(Math.abs(pivot[i]!) > 0)) return null;
    [m[m.indexOf(pivot)], m[i]] = [m[i]!, pivot];
    for (const row of m) {
      if (row === pivot) continue;
      const factor = row[i]! / pivot[i]!;
      for (let j = i; j <= n; j++) row[j]! -= factor * pivot[j]!;
    }
  }
  return m.map((row, i) => row[n]! / row[i]!);
}
