import fc from 'fast-check';
import { type KVFormat, kvWords } from '../../src/runtime/kernels.ts';
import { cuts, type Draw, extent, mapped, pieces, rowsOf, stacked, tokens, type Values, values } from './arbitraries.ts';
import type { Implementation } from './workbench.ts';

export interface Heads {
  readonly H: number;
  readonly Hkv: number;
  readonly Dh: number;
}

export interface Options {
  /** Queries for each call of the kernel. Default: all at once. */
  readonly cuts?: readonly number[];
  readonly window?: number;
  /** Format of the caches. Default F32. */
  readonly kv?: KVFormat;
  /** Positions of the cache behind those in use. */
  readonly spare?: number;
  /** What lies there. */
  readonly garbage?: number;
}

/** q [T, H * Dh]; k, v [S, Hkv * Dh], the queries' own positions last: o [T, H * Dh]. */
export function attention(
  { bench }: Implementation,
  q: Values,
  k: Values,
  v: Values,
  { H, Hkv, Dh }: Heads,
  options: Options = {},
): Values {
  const { cuts = [], window = 1 << 20, spare = 0, kv = 'F32', garbage = NaN } = options;
  const past = k.rows - q.rows;
  const shape = { H, Hkv, Dh, S: k.rows + spare, window, kv };
  const b = bench();
  const words = kvWords(kv, Dh);
  const [k_cache, v_cache] = [b.room(Hkv, shape.S * words), b.room(Hkv, shape.S * words)];
  k_cache.data.fill(garbage);
  v_cache.data.fill(garbage);
  const append = (begin: number, end: number) => {
    if (begin === end) return;
    b.kernels.kv_append(k_cache, b.put(rowsOf(k, begin, end)), begin, shape);
    b.kernels.kv_append(v_cache, b.put(rowsOf(v, begin, end)), begin, shape);
  };
  append(0, past);
  const parts = pieces(q.rows, cuts).map(([begin, end]) => {
    const o = b.room(end - begin, q.cols);
    append(past + begin, past + end);
    b.kernels.attention(o, b.put(rowsOf(q, begin, end)), k_cache, v_cache, past + begin, shape);
    return o;
  });
  return stacked(...b.take(...parts, k_cache, v_cache).slice(0, parts.length));
}

export interface Case {
  readonly q: Values;
  readonly k: Values;
  readonly v: Values;
  readonly heads: Heads;
  readonly cuts: readonly number[];
  readonly window: number;
  readonly spare: number;
}

const SCORES: readonly Draw[] = ['normal', 'integers', 'sparse', 'tiny'];
// Up to 40 queries after up to 129 cached positions: several blocks of keys, and windows that begin inside one.
export const cases: fc.Arbitrary<Case> = fc
  .record({
    T: tokens,
    past: fc.oneof(fc.constant(0), extent),
    Hkv: fc.integer({ min: 1, max: 3 }),
    repeat: fc.constantFrom(1, 1, 2, 3),
    Dh: fc.oneof(extent, fc.constantFrom(16, 48, 64)), // kernels of one token want a multiple of 16, and repeat 1
  })
  .chain(({ T, past, Hkv, repeat, Dh }) =>
    fc.record({
      q: values(T, Hkv * repeat * Dh, SCORES),
      k: values(past + T, Hkv * Dh, SCORES),
      v: values(past + T, Hkv * Dh),
      heads: fc.constant({ H: Hkv * repeat, Hkv, Dh }),
      cuts: cuts(T),
      window: fc.oneof(fc.constant(1 << 20), fc.integer({ min: 1, max: past + T }), fc.constantFrom(31, 32, 33)),
      spare: fc.constantFrom(0, 1, 37),
    }),
  );

/** Length of the longest head. */
export const longest = ({ data, cols }: Values, Dh: number) => {
  const lengths = Array.from({ length: (data.length / cols) * (cols / Dh) }, (_, row) =>
    Math.hypot(...data.subarray(row * Dh, (row + 1) * Dh)),
  );
  return Math.max(...lengths);
};

/** Position p of the keys or values becomes NaN. */
export const spoiled = (x: Values, p: number) => mapped(x, (value, i) => (Math.floor(i / x.cols) === p ? NaN : value));

const evenly = (x: number) => {
  const below = Math.floor(x);
  return x - below === 0.5 ? below + (below & 1) : Math.round(x);
};

/** The nearest number that has 11 bits and an exponent of f16. */
const nearestF16 = (x: number) => {
  const step = 2 ** (Math.max(Math.floor(Math.log2(Math.abs(x))), -14) - 10);
  const y = x === 0 ? x : evenly(x / step) * step;
  return Math.abs(y) > 65504 ? Math.sign(x) * Infinity : y;
};

/** What the cache holds of keys or values with heads of Dh. */
export function kept(format: Exclude<KVFormat, 'F32'>, x: Values, Dh: number): Values {
  if (format === 'F16') return mapped(x, nearestF16);
  const largestOf = (i: number) => Math.max(...Array.from(x.data.subarray(i - (i % Dh), i - (i % Dh) + Dh), Math.abs));
  const data = Float64Array.from(x.data, (value, i) => {
    const d = Math.fround(largestOf(i) / 127);
    return d === 0 ? 0 : Math.max(-127, Math.min(127, evenly(Math.fround(value / d)))) * d;
  });
  return { ...x, data };
}
