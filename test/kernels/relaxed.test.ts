import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { chunkedScratch } from '../../src/runtime/kernels.ts';
import type { KernelExports } from '../../src/runtime/wasm_module.ts';
import { hasRelaxedSimd, kernelModule } from '../../src/runtime/wasm_module.ts';
import { mapped, type Values, values } from '../support/arbitraries.ts';
import { assertClose, assertSame, halfUlp, U32 } from '../support/assert_close.ts';
import { attention, cases, kept, longest } from '../support/attention_cases.ts';
import { type Implementation, reference, relaxed } from '../support/workbench.ts';

// The relaxed build computes in f32 what strict computes in f64. Its bounds hold whether or not the machine fuses products and sums.
const fast = relaxed as Implementation;

/** Below this silu32x4 is off by an absolute amount: exp is clamped there. */
const SILU_FLOOR = 1e-36;

describe('exp32', () => {
  const builds = relaxed ? (['strict', 'relaxed'] as const) : (['strict'] as const);
  test.each(builds)('%s: within 1.5 ULP on [-87, 88]', async (build) => {
    await hasRelaxedSimd();
    const memory = new WebAssembly.Memory({ initial: 1 });
    const { exp32 } = new WebAssembly.Instance(await kernelModule(build), { env: { memory } }).exports as KernelExports & {
      exp32: (x: number) => number;
    };
    let most = 0;
    for (let i = 0; i <= 300_000; i++) {
      const x = Math.fround(-87 + (175 * i) / 300_000);
      most = Math.max(most, Math.abs(exp32(x) - Math.exp(x)) / (2 * halfUlp(Math.exp(x))));
    }
    expect(most).toBeLessThan(1.5);
    expect([0, -200, -Infinity, Number.NaN].map(exp32)).toEqual([1, exp32(-87), exp32(-87), Number.NaN]);
    expect(exp32(-87)).toBeLessThan(2e-38);
  });
});

describe.skipIf(!relaxed)('relaxed = reference within f32 rounding', () => {
  const sizes = fc.record({ T: fc.integer({ min: 1, max: 9 }), D: fc.integer({ min: 1, max: 70 }) });
  const on = (implementation: Implementation, run: (b: ReturnType<Implementation['bench']>) => Values) => run(implementation.bench()).data;
  const silu = (x: number) => x / (1 + Math.exp(-x));

  test('swiglu', () => {
    const pairs = sizes.chain(({ T, D }) => fc.tuple(values(T, D), values(T, D)));
    fc.assert(
      fc.property(pairs, ([gate, up]) => {
        const small = mapped(gate, (x) => Math.max(-80, Math.min(80, x)));
        const got = on(fast, (b) => {
          const y = b.room(up.rows, up.cols);
          b.kernels.swiglu(y, b.put(small), b.put(up));
          return b.take(y)[0]!;
        });
        const want = Float64Array.from(up.data, (x, i) => x * silu(small.data[i]!));
        assertClose(got, want, { relative: 8 * U32, of: want, absolute: SILU_FLOOR * (1 + Math.max(...Array.from(up.data, Math.abs))) });
      }),
      { numRuns: 60 },
    );
  });

  test('rms_norm_gated', () => {
    const triples = sizes.chain(({ T, D }) => fc.tuple(values(T, D, ['normal']), values(T, D, ['normal']), values(1, D, ['normal'])));
    fc.assert(
      fc.property(triples, ([x, gate, weight]) => {
        const run = (b: ReturnType<Implementation['bench']>) => {
          const y = b.room(x.rows, x.cols);
          b.kernels.rms_norm_gated(y, b.put(x), b.put(gate), b.put(weight), 1e-5);
          return b.take(y)[0]!;
        };
        assertClose(on(fast, run), on(reference, run), { relative: 12 * U32, absolute: 1e-35 });
      }),
      { numRuns: 40 },
    );
  });

  test('causal_conv1d', () => {
    const inputs = fc
      .record({ T: fc.integer({ min: 1, max: 9 }), C: fc.integer({ min: 1, max: 40 }), W: fc.integer({ min: 2, max: 5 }) })
      .chain(({ T, C, W }) => fc.tuple(values(T, C, ['normal']), values(W, C, ['normal']), values(W - 1, C, ['normal'])));
    fc.assert(
      fc.property(inputs, ([x, weight, state]) => {
        const run =
          ({ data, rows, cols }: Values, w: Values, s: Values) =>
          (b: ReturnType<Implementation['bench']>) => {
            const y = b.room(rows, cols);
            const st = b.put(s);
            b.kernels.causal_conv1d(y, b.put({ data, rows, cols }), b.put(w), st);
            return b.take(y, st)[0]!;
          };
        const size = (v: Values) => mapped(v, Math.abs);
        // silu changes at most 1.1 times as fast as its argument, and |silu(x)| >= |x| / 2 for x > 0: the sum of magnitudes bounds both.
        const of = Float64Array.from(on(reference, run(size(x), size(weight), size(state))), (y) => 2 * y + 1e-30);
        assertClose(on(fast, run(x, weight, state)), on(reference, run(x, weight, state)), { relative: (weight.rows + 8) * U32, of });
      }),
      { numRuns: 40 },
    );
  });

  test.each(['recurrent', 'chunked'] as const)('gated_delta_rule_%s, 40 tokens of heads of 96 x 20', (form) => {
    const [T, Hk, H, Dk, Dv] = [40, 1, 2, 96, 20];
    const wave = (rows: number, cols: number, f: (i: number) => number) => ({
      data: Float32Array.from({ length: rows * cols }, (_, i) => f(i)),
      rows,
      cols,
    });
    const unit = (phase: number) => wave(T, Hk * Dk, (i) => Math.sin(phase + i * 1.7) / Math.sqrt(Dk / 2));
    const run = (b: ReturnType<Implementation['bench']>) => {
      const [o, S] = [b.room(T, H * Dv), b.put(wave(H, Dk * Dv, (i) => Math.cos(i)))];
      const inputs = [
        unit(1),
        unit(2),
        wave(T, H * Dv, (i) => Math.sin(i * 0.3)),
        wave(T, H, (i) => -0.1 * (1 + Math.sin(i))),
        wave(T, H, (i) => 1 + Math.cos(i)),
      ];
      const [q, k, v, g, beta] = inputs.map((x) => b.put(x)) as [never, never, never, never, never];
      const shape = { Hk, H, Dk, Dv };
      if (form === 'recurrent') b.kernels.gated_delta_rule_recurrent(o, q, k, v, g, beta, S, shape);
      else b.kernels.gated_delta_rule_chunked(o, q, k, v, g, beta, S, b.bank.tensor(H, chunkedScratch), shape);
      const [out, state] = b.take(o, S);
      return { data: Float64Array.from([...out!.data, ...state!.data]), rows: 1, cols: 1 };
    };
    const want = on(reference, run);
    const largest = Math.max(...Array.from(want, Math.abs));
    assertClose(on(fast, run), want, { relative: 0, absolute: 40 * U32 * largest });
  });

  test.each(['F32', 'F16', 'Q8'] as const)('decoding over keys and values in %s', (kv) => {
    const rounded = kv === 'Q8';
    const decodable = cases
      .filter(({ heads }) => heads.H * heads.Dh > 0)
      .map((c) => {
        const Dh = 16 * (1 + (c.heads.Dh % 3)); // whole steps
        const wide = (x: Values, H: number) => ({
          rows: x.rows,
          cols: H * Dh,
          data: Float32Array.from({ length: x.rows * H * Dh }, (_, i) => x.data[i % x.data.length]!),
        });
        const { H, Hkv } = c.heads;
        return { ...c, q: wide(c.q, H), k: wide(c.k, Hkv), v: wide(c.v, Hkv), heads: { H, Hkv, Dh } };
      });
    fc.assert(
      fc.property(decodable, ({ q, k, v, heads, window }) => {
        const { Dh } = heads;
        const [k2, v2] = kv === 'F32' ? [k, v] : [kept(kv, k, Dh), kept(kv, v, Dh)];
        const oneByOne = Array.from({ length: q.rows - 1 }, (_, t) => t + 1);
        const got = attention(fast, q, k, v, heads, { window, kv, cuts: oneByOne });
        const largest = (x: Values) => Math.max(...Array.from(x.data, Math.abs));
        // In Q8 the query is rounded to 2^-16 of its largest number, the probabilities to 2^-16 of the block's, of which there are 32.
        const score = (rounded ? 2 ** -16 * largest(q) * longest(k2, Dh) : 0) + (Dh + 8) * U32 * longest(q, Dh) * longest(k2, Dh);
        const absolute = largest(v2) * (Math.expm1(2 * score) + (rounded ? 2 ** -12 : 0) + (k.rows + 8) * U32) + 1e-29;
        assertClose(got.data, attention(reference, q, k2, v2, heads, { window }).data, { relative: 0, absolute });
      }),
      { numRuns: 60 },
    );
  });

  test('attention: a prompt in pieces of more than one token = in one piece, bit for bit, with f32 and f16', () => {
    fc.assert(
      fc.property(cases, fc.constantFrom('F32' as const, 'F16' as const), ({ q, k, v, heads, cuts, window }, kv) => {
        const ends = [...cuts, q.rows];
        const apart = cuts.filter((cut, i) => cut - (cuts[i - 1] ?? 0) > 1 && ends[i + 1]! - cut > 1);
        assertSame(attention(fast, q, k, v, heads, { window, kv, cuts: apart }).data, attention(fast, q, k, v, heads, { window, kv }).data);
      }),
      { numRuns: 25 },
    );
  });
});
