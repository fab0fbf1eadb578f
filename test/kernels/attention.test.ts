import fc from 'fast-check';
import { describe, test } from 'vitest';
import { mapped, rowsOf, type Values } from '../support/arbitraries.ts';
import { assertClose, assertSame, EXP_ERROR, TINY, U32 } from '../support/assert_close.ts';
import { attention, cases, longest, spoiled } from '../support/attention_cases.ts';
import { testGoldens } from '../support/kernel_golden.ts';
import { implementations, reference, wasm } from '../support/workbench.ts';

await testGoldens('attention', (implementation, { of, params }) => {
  const [, H, Dh] = of('q').shape;
  const window = (params.sliding_window as number | null) ?? of('k').rows;
  return { o: attention(implementation, of('q'), of('k'), of('v'), { H: H!, Hkv: of('k').shape[1]!, Dh: Dh! }, { window }) };
});

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
