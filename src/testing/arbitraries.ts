import fc from 'fast-check';
import { Random } from '../random.ts';
import type { FloatArray } from '../runtime/tensor.ts';

/** A dense row-major matrix of numbers that every implementation can hold: f32 values. */
export interface Values {
  readonly data: FloatArray;
  readonly rows: number;
  readonly cols: number;
}

/** Every size up to 70, and the sizes of blocks ± 1 more often and up to 129; in order, so that a failure shrinks to the smallest. */
const BLOCKS = [15, 16, 17, 31, 32, 33, 63, 64, 65, 127, 128, 129];
const SIZES = [...Array.from({ length: 70 }, (_, i) => i + 1), ...BLOCKS, ...BLOCKS].sort((a, b) => a - b);

/** One size: odd tails and blocks ± 1. */
export function size(most = 129): fc.Arbitrary<number> {
  const sizes = SIZES.filter((n) => n <= most);
  return fc.nat(sizes.length - 1).map((i) => sizes[i]!);
}

export const extent: fc.Arbitrary<number> = size();

/** Tokens of a call. */
export const tokens: fc.Arbitrary<number> = fc.integer({ min: 1, max: 40 });

/** Sizes that are never equal, so that no transposed matrix fits. */
export function extents<N extends string>(...names: N[]): fc.Arbitrary<Record<N, number>> {
  return distinct(Object.fromEntries(names.map((name) => [name, 129])) as Record<N, number>);
}

/** The same, each with a largest size of its own. */
export function distinct<N extends string>(most: Readonly<Record<N, number>>): fc.Arbitrary<Record<N, number>> {
  const names = Object.keys(most) as N[];
  return fc.tuple(...names.map((name) => size(most[name]))).map((drawn) => {
    const taken: number[] = [];
    for (const n of drawn) taken.push(taken.includes(n) ? freeSize(n, taken) : n);
    return Object.fromEntries(names.map((name, i) => [name, taken[i]!])) as Record<N, number>;
  });
}

/** The next smaller size that is not taken, or else the smallest. */
function freeSize(n: number, taken: readonly number[]): number {
  let size = n;
  while (size > 0 && taken.includes(size)) size--;
  return size > 0 ? size : SIZES.find((other) => !taken.includes(other))!;
}

/** How the values of a tensor are drawn, the simplest first; `before` is the neighbour's. */
const DRAWS = {
  /** Small integers: ties, zeros and exact sums. */
  integers: (r: Random) => Math.floor(9 * r.uniform()) - 4,
  /** Standard normal. */
  normal: (r: Random) => gaussian(r),
  /** Eight orders of magnitude side by side. */
  spread: (r: Random) => gaussian(r) * 10 ** (8 * r.uniform() - 4),
  /** Neighbours that are equal but for a thousandth, and of the other sign: sums cancel. */
  opposed: (r: Random, before: number) => (before === 0 || r.uniform() < 0.2 ? gaussian(r) : -before * (1 + gaussian(r) * 1e-3)),
  /** Mostly 0 and -0. */
  sparse: (r: Random) => (r.uniform() < 0.8 ? (r.uniform() < 0.5 ? 0 : -0) : gaussian(r)),
  /** Around and below the smallest normal f32. */
  tiny: (r: Random) => gaussian(r) * 2 ** -Math.floor(120 + 30 * r.uniform()),
  /** Large, yet a sum of thousands of products of two stays finite. */
  large: (r: Random) => gaussian(r) * 10 ** (11 + 3 * r.uniform()),
} as const;

export type Draw = keyof typeof DRAWS;
export const ALL_DRAWS = Object.keys(DRAWS) as Draw[];

function gaussian(r: Random): number {
  return Math.sqrt(-2 * Math.log(1 - r.uniform())) * Math.cos(2 * Math.PI * r.uniform());
}

/** [rows, cols] values of one kind, from a seed. */
export function drawn(rows: number, cols: number, draw: Draw, seed: number): Values {
  const random = new Random(seed);
  let before = 0;
  const data = Float32Array.from({ length: rows * cols }, () => {
    before = DRAWS[draw](random, before);
    return before;
  });
  return described({ data, rows, cols }, `${draw} ${rows}x${cols} of seed ${seed}`);
}

/**
 * Values of one kind from one seed, for whatever shape they are asked for. Shape and values are drawn apart, so that a failure shrinks in its
 * shape and keeps its kind of values: a smaller tensor begins with the same numbers.
 */
export type Maker = (rows: number, cols: number) => Values;

const seeds = fc.nat(2 ** 31 - 1);

/** Any of these kinds, the simplest first. */
export function anyValues(draws: readonly Draw[] = ALL_DRAWS): fc.Arbitrary<Maker> {
  return fc.tuple(fc.constantFrom(...draws), seeds).map(
    ([draw, seed]) =>
      (rows, cols) =>
        drawn(rows, cols, draw, seed),
  );
}

/** Values drawn evenly from an interval. */
export function anyUniform(low: number, high: number): fc.Arbitrary<Maker> {
  return seeds.map((seed) => (rows, cols) => {
    const random = new Random(seed);
    const data = Float32Array.from({ length: rows * cols }, () => low + (high - low) * random.uniform());
    return described({ data, rows, cols }, `uniform(${low}, ${high}) ${rows}x${cols} of seed ${seed}`);
  });
}

/** Log decays g [T, H] <= 0: none, weak, mixed or so strong that nothing of the past is left. */
export function anyDecays(): fc.Arbitrary<Maker> {
  const [none, weak, mixed, strong] = [
    [-Infinity, -Infinity],
    [-14, -5],
    [-9, 3],
    [2, 9],
  ] as const;
  return fc.tuple(fc.constantFrom(mixed, none, weak, strong), seeds).map(([[low, high], seed]) => (T, H) => {
    const random = new Random(seed);
    const data = Float32Array.from({ length: T * H }, () => -Math.exp(low === -Infinity ? low : low + (high - low) * random.uniform()));
    return described({ data, rows: T, cols: H }, `decays e^[${low}, ${high}] ${T}x${H} of seed ${seed}`);
  });
}

/** beta [T, H] in [0, 2]: its ends, 1, and what is next to them among all others. */
export function anyStrengths(): fc.Arbitrary<Maker> {
  return seeds.map((seed) => (T, H) => {
    const random = new Random(seed);
    const some = [0, 1, 2, 1e-6, 1 - 2 ** -20, 2 - 2 ** -20];
    const data = Float32Array.from({ length: T * H }, () => some[Math.floor(12 * random.uniform())] ?? 2 * random.uniform());
    return described({ data, rows: T, cols: H }, `strengths ${T}x${H} of seed ${seed}`);
  });
}

/**
 * Keys or queries [T, H, D] of length 1, flattened to [T, H * D]: independent, or all close to one direction per head, which conditions the
 * delta rule worst when beta is near 2.
 */
export function anyDirections(): fc.Arbitrary<(T: number, H: number, D: number) => Values> {
  return fc.tuple(fc.constantFrom(1, 0.03, 0), seeds).map(([spread, seed]) => (T, H, D) => {
    const random = new Random(seed);
    const common = Float64Array.from({ length: H * D }, () => gaussian(random));
    const data = new Float32Array(T * H * D);
    for (let row = 0; row < T * H; row++) {
      const x = Float64Array.from({ length: D }, (_, i) => common[(row % H) * D + i]! * (1 - spread) + gaussian(random) * spread);
      const length = Math.hypot(...x);
      for (let i = 0; i < D; i++) data[row * D + i] = x[i]! / length;
    }
    return described({ data, rows: T, cols: H * D }, `directions ${T}x${H}x${D}, ${spread} apart, of seed ${seed}`);
  });
}

/** Tensors [rows, cols] of a fixed shape. */
export function values(rows: number, cols: number, draws: readonly Draw[] = ALL_DRAWS): fc.Arbitrary<Values> {
  return anyValues(draws).map((make) => make(rows, cols));
}

export function uniform(rows: number, cols: number, low: number, high: number): fc.Arbitrary<Values> {
  return anyUniform(low, high).map((make) => make(rows, cols));
}

export function decays(T: number, H: number): fc.Arbitrary<Values> {
  return anyDecays().map((make) => make(T, H));
}

export function strengths(T: number, H: number): fc.Arbitrary<Values> {
  return anyStrengths().map((make) => make(T, H));
}

export function directions(T: number, H: number, D: number): fc.Arbitrary<Values> {
  return anyDirections().map((make) => make(T, H, D));
}

/** The same shape with every element mapped. */
export function mapped<X extends { readonly data: FloatArray }>(x: X, f: (value: number, index: number) => number): X {
  return { ...x, data: Float64Array.from(x.data, f) };
}

/** Where a sequence of n is cut: 0 < cut < n in order, possibly none. */
export function cuts(n: number): fc.Arbitrary<number[]> {
  if (n < 2) return fc.constant([]);
  return fc.uniqueArray(fc.integer({ min: 1, max: n - 1 }), { maxLength: 4 }).map((all) => all.sort((a, b) => a - b));
}

/** A failing property prints where its values come from, not thousands of them. */
function described(values: Values, text: string): Values {
  return Object.defineProperty(values, fc.toStringMethod, { value: () => text, enumerable: false });
}
