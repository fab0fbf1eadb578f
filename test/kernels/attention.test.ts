import fc from 'fast-check';
import { describe, test } from 'vitest';
import { type KVFormat, kvWords } from '../../src/runtime/kernels.ts';
import { cuts, type Draw, extent, mapped, pieces, rowsOf, stacked, tokens, type Values, values } from '../support/arbitraries.ts';
import { assertClose, assertSame, EXP_ERROR, TINY, U32 } from '../support/assert_close.ts';
import { testGoldens } from '../support/kernel_golden.ts';
import { type Implementation, implementations, reference, wasm } from '../support/workbench.ts';

interface Heads {
  readonly H: number;
  readonly Hkv: number;
  readonly Dh: number;
}

interface Options {
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
function attention({ bench }: Implementation, q: Values, k: Values, v: Values, { H, Hkv, Dh }: Heads, options: Options = {}): Values {
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

await testGoldens('attention', (implementation, { of, params }) => {
  const [, H, Dh] = of('q').shape;
  const window = (params.sliding_window as number | null) ?? of('k').rows;
  return { o: attention(implementation, of('q'), of('k'), of('v'), { H: H!, Hkv: of('k').shape[1]!, Dh: Dh! }, { window }) };
});

interface Case {
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
const cases: fc.Arbitrary<Case> = fc
  .record({
    T: tokens,
    past: fc.oneof(fc.constant(0), extent),
    Hkv: fc.integer({ min: 1, max: 3 }),
    repeat: fc.integer({ min: 1, max: 3 }),
    Dh: extent,
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

const longest = ({ data, cols }: Values, Dh: number) => {
  const lengths = Array.from({ length: (data.length / cols) * (cols / Dh) }, (_, row) =>
    Math.hypot(...data.subarray(row * Dh, (row + 1) * Dh)),
  );
  return Math.max(...lengths);
};

/** Position p of the keys or values becomes NaN. */
const spoiled = (x: Values, p: number) => mapped(x, (value, i) => (Math.floor(i / x.cols) === p ? NaN : value));

describe('wasm = reference', () => {
  test('on any shape, values, window and cache', () => {
    fc.assert(
      fc.property(cases, ({ q, k, v, heads, ...options }) => {
        const { Dh } = heads;
        // A score is off by at most (Dh + 3) u |q| |k| / sqrt(Dh), a probability and the sum of them by e to that power, and every
        // product, sum and rescaling of a block rounds once more.
        const score = ((Dh + 3) * U32 * longest(q, Dh) * longest(k, Dh)) / Math.sqrt(Dh);
        const of = attention(reference, q, k, mapped(v, Math.abs), heads, options).data;
        const largest = Math.max(...Array.from(v.data, Math.abs));
        const bound = { relative: Math.expm1(2 * score) + (k.rows + 8) * U32, of, absolute: 2 * k.rows * TINY * (1 + largest) };
        assertClose(attention(wasm, q, k, v, heads, options).data, attention(reference, q, k, v, heads, options).data, bound);
      }),
      { numRuns: 80 },
    );
  });
});

describe.each(implementations)('$name', (implementation) => {
  test('a prompt in pieces = in one piece, bit for bit', () => {
    fc.assert(
      fc.property(cases, ({ q, k, v, heads, cuts, window }) => {
        const whole = attention(implementation, q, k, v, heads, { window });
        assertSame(attention(implementation, q, k, v, heads, { window, cuts }).data, whole.data);
        const oneByOne = Array.from({ length: q.rows - 1 }, (_, t) => t + 1);
        assertSame(attention(implementation, q, k, v, heads, { window, cuts: oneByOne }).data, whole.data);
      }),
      { numRuns: 25 },
    );
  });

  test('is causal: a later token changes nothing before it', () => {
    fc.assert(
      fc.property(cases, fc.nat(), ({ q, k, v, heads, window }, at) => {
        const t = at % q.rows; // the first query that sees the change
        const p = k.rows - q.rows + t;
        const whole = attention(implementation, q, k, v, heads, { window });
        for (const [k2, v2] of [
          [spoiled(k, p), v],
          [k, spoiled(v, p)],
        ] as const) {
          const o = attention(implementation, q, k2, v2, heads, { window });
          assertSame(rowsOf(o, 0, t).data, rowsOf(whole, 0, t).data);
          assertSame(rowsOf(o, t, t + 1).data, mapped(rowsOf(o, t, t + 1), () => NaN).data);
        }
      }),
      { numRuns: 25 },
    );
  });

  test('a window sees its last positions and none before', () => {
    fc.assert(
      fc.property(cases, fc.nat(), ({ q, k, v, heads, window }, at) => {
        const past = k.rows - q.rows;
        const p = at % k.rows;
        const whole = attention(implementation, q, k, v, heads, { window });
        const sees = (t: number) => past + t - window < p && p <= past + t;
        const want = mapped(whole, (value, i) => (sees(Math.floor(i / q.cols)) ? NaN : value));
        assertSame(attention(implementation, q, spoiled(k, p), v, heads, { window }).data, want.data);
        assertSame(attention(implementation, q, k, spoiled(v, p), heads, { window }).data, want.data);
      }),
      { numRuns: 30 },
    );
  });

  test('nothing behind the last position is read', () => {
    fc.assert(
      fc.property(cases, ({ q, k, v, heads, window, cuts }) => {
        const whole = attention(implementation, q, k, v, heads, { window });
        assertSame(attention(implementation, q, k, v, heads, { window, cuts, spare: 41, garbage: Infinity }).data, whole.data);
      }),
      { numRuns: 15 },
    );
  });

  test('fewer KV heads = the same repeated, bit for bit', () => {
    fc.assert(
      fc.property(cases, ({ q, k, v, heads: { H, Hkv, Dh }, window }) => {
        const repeated = (x: Values): Values => {
          const from = (i: number) => Math.floor(i / (H * Dh)) * Hkv * Dh + Math.floor((i % (H * Dh)) / Dh / (H / Hkv)) * Dh + (i % Dh);
          return { data: Float64Array.from({ length: x.rows * H * Dh }, (_, i) => x.data[from(i)]!), rows: x.rows, cols: H * Dh };
        };
        const whole = attention(implementation, q, k, v, { H, Hkv, Dh }, { window });
        assertSame(attention(implementation, q, repeated(k), repeated(v), { H, Hkv: H, Dh }, { window }).data, whole.data);
      }),
      { numRuns: 25 },
    );
  });

  test('of equal values gives that value; of one position its own', () => {
    fc.assert(
      fc.property(cases, ({ q, k, v, heads, window }) => {
        const { H, Hkv, Dh } = heads;
        const own = (x: Values, t: number) =>
          Float64Array.from({ length: H * Dh }, (_, i) => x.data[t * x.cols + Math.floor(i / Dh / (H / Hkv)) * Dh + (i % Dh)]!);
        const equal = mapped(v, (_, i) => v.data[i % v.cols]!);
        const want = Array.from({ length: q.rows }, () => [...own(equal, 0)]).flat();
        // The weights sum to 1; each product and sum rounds once.
        assertClose(attention(implementation, q, k, equal, heads, { window }).data, want, {
          relative: (k.rows + 8) * implementation.u + EXP_ERROR,
          absolute: k.rows * 2 * TINY,
        });
        const narrow = attention(implementation, q, k, v, heads, { window: 1 });
        const last = Array.from({ length: q.rows }, (_, t) => [...own(v, k.rows - q.rows + t)]).flat();
        assertClose(narrow.data, last, { relative: 2 * implementation.u });
      }),
      { numRuns: 20 },
    );
  });

  test('scores are divided by the root of Dh', () => {
    const Dh = 9;
    const q = { data: Float32Array.from({ length: Dh }, () => 1), rows: 1, cols: Dh };
    const k = { data: Float32Array.from({ length: 2 * Dh }, (_, i) => (i < Dh ? 0 : 1)), rows: 2, cols: Dh };
    const v = { data: Float32Array.from({ length: 2 * Dh }, (_, i) => (i < Dh ? 0 : 1)), rows: 2, cols: Dh };
    const o = attention(implementation, q, k, v, { H: 1, Hkv: 1, Dh });
    assertClose(o.data, new Float64Array(Dh).fill(1 / (1 + Math.exp(-3))), { relative: 4 * implementation.u + EXP_ERROR });
  });

  test('every visible position counts', () => {
    fc.assert(
      fc.property(fc.integer({ min: 1, max: 100 }), fc.nat(), (S, at) => {
        const p = at % S;
        const data = (f: (i: number) => number) => ({ data: Float32Array.from({ length: 2 * S }, (_, i) => f(i)), rows: S, cols: 2 });
        const q = { data: Float32Array.of(1, 0), rows: 1, cols: 2 };
        const o = (v: Values) =>
          attention(
            implementation,
            q,
            data(() => 0),
            v,
            { H: 1, Hkv: 1, Dh: 2 },
          ).data;
        assertClose(o(data((i) => (i >> 1 === p ? 1 : 0))), [1 / S, 1 / S], { relative: 4 * implementation.u + EXP_ERROR });
      }),
      { numRuns: 30 },
    );
  });
});
