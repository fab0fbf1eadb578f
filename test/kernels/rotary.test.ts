import fc from 'fast-check';
import { describe, test } from 'vitest';
import type { RopeParameters } from '../../src/config.ts';
import { rotaryTable } from '../../src/model/rotary.ts';
import { extent, mapped, rowsOf, stacked, tokens, uniform, type Values, values } from '../support/arbitraries.ts';
import { assertClose, assertSame, TINY, U32 } from '../support/assert_close.ts';
import { testGoldens } from '../support/kernel_golden.ts';
import { type Implementation, implementations, reference, wasm } from '../support/workbench.ts';

const POSITIONS = 128;

/** x [T, H * Dh] rotated with the tables of `rope`; token t sits at position + t. */
function rotated({ bench }: Implementation, x: Values, Dh: number, rope: RopeParameters, position: number): Values {
  const b = bench();
  const { cos, sin, fill } = rotaryTable(b.bank, rope, position + x.rows, Dh);
  fill();
  const y = b.put(x);
  b.kernels.rotary(y, cos, sin, position);
  return b.take(y)[0]!;
}

/** The same with tables [positions, Dh / 2] of any numbers. */
function rotary({ bench }: Implementation, x: Values, cos: Values, sin: Values, position: number): Values {
  const b = bench();
  const y = b.put(x);
  b.kernels.rotary(y, b.put(cos), b.put(sin), position);
  return b.take(y)[0]!;
}

function tables({ bench }: Implementation, inv_freq: Float64Array, positions: number, attention_factor: number): Values[] {
  const b = bench();
  const cos = b.room(positions, inv_freq.length);
  const sin = b.room(positions, inv_freq.length);
  b.kernels.rotary_table(cos, sin, b.put64(inv_freq), attention_factor);
  return b.take(cos, sin);
}

function ropeOf(params: Readonly<Record<string, unknown>>): RopeParameters {
  const none = { factor: 1, original_max_position_embeddings: 1, beta_fast: 32, beta_slow: 1, attention_factor: null };
  return { ...none, ...params } as unknown as RopeParameters;
}

// An inverse frequency theta^-s = e^-y is off by at most 2 y u in f64, an angle p e^-y by 2 p y e^-y u <= 0.74 p u: 5e-12 at position 65,532.
await testGoldens(
  'rotary',
  (implementation, { of, params }) => {
    const [, , Dh] = of('x').shape;
    return { y: rotated(implementation, of('x'), Dh!, ropeOf(params), params.position as number) };
  },
  { reference: 1e-11 },
);

const heads = fc.tuple(tokens, fc.integer({ min: 1, max: 4 }), extent).map(([T, H, half]) => ({ T, H, half }));
const cases = heads.chain(({ T, H, half }) =>
  fc.record({
    x: values(T, H * 2 * half),
    cos: values(T + 9, half, ['normal']),
    sin: values(T + 9, half, ['normal']),
    position: fc.nat(9),
  }),
);

describe('wasm = reference', () => {
  test('rotary', () => {
    fc.assert(
      fc.property(cases, ({ x, cos, sin, position }) => {
        const args = [x, cos, sin, position] as const;
        // The sum of two products is rounded once. It may cancel: then the bound is that of the products in f64.
        const terms = rotary(
          reference,
          mapped(x, Math.abs),
          mapped(cos, Math.abs),
          mapped(sin, (value) => -Math.abs(value)),
          position,
        ).data;
        const upper = rotary(reference, mapped(x, Math.abs), mapped(cos, Math.abs), mapped(sin, Math.abs), position).data;
        const want = rotary(reference, ...args).data;
        const of = want.map((value, i) => Math.abs(value) + 2 ** -28 * Math.max(terms[i]!, upper[i]!));
        assertClose(rotary(wasm, ...args).data, want, { relative: U32, of });
      }),
      { numRuns: 60 },
    );
  });

  test('rotary_table', () => {
    const frequencies = extent.chain((half) => uniform(1, half, -9, 1)).map(({ data }) => Float64Array.from(data, (value) => 10 ** value));
    fc.assert(
      fc.property(frequencies, fc.integer({ min: 1, max: 60 }), fc.constantFrom(1, 1.2079441541679836), (inv_freq, positions, factor) => {
        const want = tables(reference, inv_freq, positions, factor);
        tables(wasm, inv_freq, positions, factor).forEach(({ data }, i) => {
          assertClose(data, want[i]!.data, { relative: U32, absolute: 1.3e-14 }); // one rounding, and 1e-14 * factor of cos64 and sin64
        });
      }),
      { numRuns: 40 },
    );
  });

  test('NaN and infinities, in place', () => {
    fc.assert(
      fc.property(cases, fc.nat(), fc.constantFrom(NaN, Infinity, -Infinity), ({ x, cos, sin, position }, at, to) => {
        const broken = mapped(x, (value, i) => (i === at % x.data.length ? to : value));
        const infinite = (y: Values) => mapped(y, (value) => (Number.isFinite(value) ? 0 : value)).data;
        assertSame(infinite(rotary(wasm, broken, cos, sin, position)), infinite(rotary(reference, broken, cos, sin, position)));
      }),
      { numRuns: 30 },
    );
  });
});

describe.each(implementations)('$name', (implementation) => {
  const { u } = implementation;
  const rope = (theta: number) => ropeOf({ rope_type: 'default', rope_theta: theta });
  const turned = heads.chain(({ T, H, half }) =>
    fc.record({
      x: values(T, H * 2 * half, ['normal', 'integers', 'spread']),
      Dh: fc.constant(2 * half),
      theta: fc.constantFrom(1e4, 5e5),
      position: fc.nat(POSITIONS),
    }),
  );

  test('position 0 changes nothing', () => {
    fc.assert(
      fc.property(turned, ({ x, Dh, theta }) => {
        const first = rowsOf(x, 0, 1);
        // x - 0 y and y + 0 x: a zero may lose its sign.
        assertSame(
          mapped(rotated(implementation, first, Dh, rope(theta), 0), (value) => value + 0).data,
          mapped(first, (value) => value + 0).data,
        );
      }),
      { numRuns: 20 },
    );
  });

  test('every pair keeps its length', () => {
    fc.assert(
      fc.property(turned, ({ x, Dh, theta, position }) => {
        const y = rotated(implementation, x, Dh, rope(theta), position);
        const half = Dh / 2;
        const lengths = ({ data }: Values) =>
          Array.from(data, (value, i) => Math.hypot(value, data[(i % Dh) + half < Dh ? i + half : i - half]!));
        // cos, sin, in f64 the products, the sum and the length itself are each rounded.
        assertClose(lengths(y), lengths(x), { relative: 8 * u, absolute: 2 * TINY });
      }),
      { numRuns: 40 },
    );
  });

  test('q k depends on the distance of their positions only', () => {
    const pair = fc
      .tuple(extent, fc.constantFrom(1e4, 5e5), fc.nat(60), fc.nat(60), fc.nat(60))
      .chain(([half, theta, i, j, shift]) =>
        fc.record({ q: values(1, 2 * half, ['normal']), k: values(1, 2 * half, ['normal']), at: fc.constant({ theta, i, j, shift }) }),
      );
    fc.assert(
      fc.property(pair, ({ q, k, at: { theta, i, j, shift } }) => {
        const score = (p: number, s: number) => {
          const a = rotated(implementation, q, q.cols, rope(theta), p).data;
          const b = rotated(implementation, k, k.cols, rope(theta), s).data;
          return Array.from(a).reduce((sum, value, n) => sum + value * b[n]!, 0);
        };
        const bound = Math.hypot(...q.data) * Math.hypot(...k.data);
        // Both vectors are rounded; for the reference the angles of up to 120 radians are, too.
        assertClose([score(i + shift, j + shift)], [score(i, j)], { relative: 16 * u + 1e-13, of: [bound] });
      }),
      { numRuns: 30 },
    );
  });

  test('turns by the angle of its position: at pi / 2 the halves change places', () => {
    const inv_freq = Float64Array.of(Math.PI / 2, Math.PI / 4);
    const [cos, sin] = tables(implementation, inv_freq, 3, 1);
    const x = { data: Float32Array.of(1, 2, 3, 5), rows: 1, cols: 4 };
    const r = Math.SQRT1_2;
    assertClose(rotary(implementation, x, cos!, sin!, 1).data, [-3, (2 - 5) * r, 1, (5 + 2) * r], { relative: 4 * u, of: [5, 7, 5, 7] });
    assertClose(rotary(implementation, x, cos!, sin!, 2).data, [-1, -5, -3, 2], { relative: 4 * u, of: [5, 7, 5, 7] });
  });

  test('a token is turned alike with and without others', () => {
    fc.assert(
      fc.property(turned, ({ x, Dh, theta, position }) => {
        const alone = Array.from({ length: x.rows }, (_, t) => rotated(implementation, rowsOf(x, t, t + 1), Dh, rope(theta), position + t));
        assertSame(rotated(implementation, x, Dh, rope(theta), position).data, stacked(...alone).data);
      }),
      { numRuns: 15 },
    );
  });
});
