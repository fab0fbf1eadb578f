import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { syntheticTensors } from '../../src/bench/synthetic.ts';
import { shapeConfig } from '../../src/bench/shapes.ts';
import { loadModel, type LoadOptions, planModel, planModelFrom } from '../../src/load.ts';
import { MOST_NARROW_DH } from '../../src/runtime/kernels.ts';
import { mapped, rowsOf } from '../support/arbitraries.ts';
import { assertClose, assertSame, TINY, U32 } from '../support/assert_close.ts';
import { attention, cases, kept, longest, spoiled } from '../support/attention_cases.ts';
import { goldenIds, goldenModel, logitsOf } from '../support/models.ts';
import { reference, wasm } from '../support/workbench.ts';

const FORMATS = ['F16', 'Q8'] as const;

describe.each(FORMATS)('%s', (kv) => {
  test('attention = the reference on the values that the cache keeps', () => {
    fc.assert(
      fc.property(cases, ({ q, k, v, heads, ...options }) => {
        const [k2, v2] = [kept(kv, k, heads.Dh), kept(kv, v, heads.Dh)];
        const score = ((heads.Dh + 4) * U32 * longest(q, heads.Dh) * longest(k2, heads.Dh)) / Math.sqrt(heads.Dh);
        const of = attention(reference, q, k2, mapped(v2, Math.abs), heads, options).data;
        const largest = Math.max(...Array.from(v2.data, Math.abs));
        const bound = { relative: Math.expm1(2 * score) + (k.rows + 10) * U32, of, absolute: 256 * k.rows * TINY * (1 + largest) };
        assertClose(attention(wasm, q, k, v, heads, { ...options, kv }).data, attention(reference, q, k2, v2, heads, options).data, bound);
      }),
      { numRuns: 80 },
    );
  });

  test('a position alone gives its own value within the rounding of the format', () => {
    fc.assert(
      fc.property(cases, ({ q, k, v, heads }) => {
        const { H, Hkv, Dh } = heads;
        const own = (of: Float64Array) =>
          Float64Array.from({ length: q.rows * H * Dh }, (_, i) => {
            const [t, h, d] = [Math.floor(i / (H * Dh)), Math.floor(i / Dh) % H, i % Dh];
            return of[(k.rows - q.rows + t) * v.cols + Math.floor(h / (H / Hkv)) * Dh + d]!;
          });
        const largest = Float64Array.from(v.data, (_, i) =>
          Math.max(...Array.from(v.data.subarray(i - (i % Dh), i - (i % Dh) + Dh), Math.abs)),
        );
        const half =
          kv === 'F16' ? { relative: 2 ** -11, absolute: 2 ** -25 } : { relative: 1.0001 / 254, of: own(largest), absolute: 256 * TINY };
        assertClose(
          attention(wasm, q, k, v, heads, { kv, window: 1 }).data,
          own(Float64Array.from(v.data, (x) => (kv === 'F16' && Math.abs(x) >= 65520 ? x * Infinity : x))),
          half,
        );
      }),
      { numRuns: 40 },
    );
  });

  test('a prompt in pieces = in one piece, bit for bit', () => {
    fc.assert(
      fc.property(cases, ({ q, k, v, heads, cuts, window }) => {
        const whole = attention(wasm, q, k, v, heads, { window, kv });
        assertSame(attention(wasm, q, k, v, heads, { window, kv, cuts }).data, whole.data);
        const oneByOne = Array.from({ length: q.rows - 1 }, (_, t) => t + 1);
        assertSame(attention(wasm, q, k, v, heads, { window, kv, cuts: oneByOne }).data, whole.data);
      }),
      { numRuns: 80 },
    );
  });

  test('a later token changes nothing before it; NaN stays NaN', () => {
    fc.assert(
      fc.property(cases, fc.nat(), ({ q, k, v, heads, window }, at) => {
        const t = at % q.rows;
        const p = k.rows - q.rows + t;
        const whole = attention(wasm, q, k, v, heads, { window, kv });
        for (const [k2, v2] of [
          [spoiled(k, p), v],
          [k, spoiled(v, p)],
        ] as const) {
          const o = attention(wasm, q, k2, v2, heads, { window, kv });
          assertSame(rowsOf(o, 0, t).data, rowsOf(whole, 0, t).data);
          assertSame(rowsOf(o, t, t + 1).data, mapped(rowsOf(o, t, t + 1), () => NaN).data);
        }
      }),
      { numRuns: 25 },
    );
  });
});

test('f16 keeps infinities, rounds what is too large to one, and keeps subnormals', () => {
  const one = (x: number) => ({ data: Float32Array.of(x), rows: 1, cols: 1 });
  const through = (x: number) => attention(wasm, one(0), one(0), one(x), { H: 1, Hkv: 1, Dh: 1 }, { kv: 'F16' }).data[0];
  const eight = (x: number) => ({ data: new Float32Array(8).fill(x), rows: 1, cols: 8 });
  const wide = (x: number) => attention(wasm, eight(0), eight(0), eight(x), { H: 1, Hkv: 1, Dh: 8 }, { kv: 'F16' }).data[7];
  for (const via of [through, wide]) {
    expect([65504, 65519, 65520, -Infinity, 2 ** -24, -(2 ** -25), 3 * 2 ** -26].map(via)).toEqual([
      65504,
      65504,
      Infinity,
      -Infinity,
      2 ** -24,
      0, // added to a sum
      2 ** -24,
    ]);
  }
});

describe.each(['f16', 'q8'] as const)('a model with kv %s', (kv) => {
  const name = 'gqa';

  test('has the same bits for any cut of the prompt, any threads, and after a snapshot', async () => {
    const ids = await goldenIds(name);
    const { model } = await loadModel(goldenModel(name), { kv });
    const whole = logitsOf(model, ids, model.prefill_chunk);
    for (const chunk of [1, 7]) expect(logitsOf(model, ids, chunk)).toEqual(whole);
    const { model: threaded, dispose } = await loadModel(goldenModel(name), { kv, threads: 2 });
    expect(logitsOf(threaded, ids, 64)).toEqual(whole);
    await dispose();

    model.reset();
    const half = ids.length >> 1;
    model.forward(ids.slice(0, half));
    const snapshot = model.snapshot();
    const next = model.forward(ids.slice(half)).slice();
    model.reset();
    model.forward([1, 2, 3]);
    model.restore(snapshot);
    expect(model.forward(ids.slice(half))).toEqual(next);
  });

  test('is near the model with kv f32, but not it', async () => {
    const ids = await goldenIds(name);
    const [{ model }, { model: exact }] = [await loadModel(goldenModel(name), { kv }), await loadModel(goldenModel(name))];
    const [got, want] = [logitsOf(model, ids, 64), logitsOf(exact, ids, 64)];
    const spread = Math.max(...want) - Math.min(...want);
    const error = Math.max(...got.map((value, i) => Math.abs(value - want[i]!))) / spread;
    expect(error).toBeGreaterThan(0);
    expect(error).toBeLessThan(kv === 'f16' ? 1e-3 : 2e-2);
  });

  test('takes less memory by as much as the rows are narrower', async () => {
    const [narrow, wide] = [await planModel(goldenModel(name), { kv }), await planModel(goldenModel(name))];
    const { num_key_value_heads: Hkv, head_dim: Dh, layer_types } = wide.config;
    const layers = layer_types.filter((type) => type !== 'linear_attention').length;
    const bytes = kv === 'f16' ? 4 * Math.ceil(Dh / 2) : 4 + 4 * Math.ceil(Dh / 4);
    const saved = 2 * layers * Hkv * wide.context * (Dh * 4 - bytes);
    expect(Math.abs(wide.placement.total_bytes - narrow.placement.total_bytes - saved)).toBeLessThan(64 * 2 * layers);
  });

  test('is refused by kernels in TypeScript', async () => {
    await expect(loadModel(goldenModel(name), { kv, kernels: 'reference' })).rejects.toThrow(
      /weights, kv and threads: expected kernels wasm/,
    );
  });
});

test('is f16 in fast mode unless something else is asked for or heads are too wide, f32 otherwise', async () => {
  const kvOf = async (options: LoadOptions) => (await planModel(goldenModel('rope'), options)).kv;
  expect(await kvOf({})).toBe('f32');
  expect(await kvOf({ mode: 'fast' })).toBe('f16');
  expect(await kvOf({ mode: 'fast', kv: 'q8' })).toBe('q8');
  expect(await kvOf({ mode: 'fast', kernels: 'reference' })).toBe('f32');
  const wide = { ...shapeConfig('0.3b'), head_dim: MOST_NARROW_DH + 1, num_attention_heads: 1, num_key_value_heads: 1 };
  expect((await planModelFrom(wide, syntheticTensors(wide), { mode: 'fast' })).kv).toBe('f32');
});
