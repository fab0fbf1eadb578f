import fc from 'fast-check';
import { describe, test } from 'vitest';
import { extent, mapped, tokens, uniform, type Values, values } from '../support/arbitraries.ts';
import { assertClose, assertSame, EXP_ERROR, ROUNDED_ONCE } from '../support/assert_close.ts';
import { testGoldens } from '../support/kernel_golden.ts';
import { type Implementation, implementations, reference, wasm } from '../support/workbench.ts';

/** a [T, H]; A_log, dt_bias [H]. */
function gdn_gate({ bench }: Implementation, a: Values, A_log: Values, dt_bias: Values): Values {
  const b = bench();
  const g = b.room(a.rows, a.cols);
  b.kernels.gdn_gate(g, b.put(a), b.put(A_log), b.put(dt_bias));
  return b.take(g)[0]!;
}

function gdn_beta({ bench }: Implementation, x: Values, scale: number): Values {
  const b = bench();
  const beta = b.room(x.rows, x.cols);
  b.kernels.gdn_beta(beta, b.put(x), scale);
  return b.take(beta)[0]!;
}

await testGoldens('gdn_gate', (implementation, { of }) => ({ g: gdn_gate(implementation, of('a'), of('A_log'), of('dt_bias')) }));
await testGoldens('gdn_beta', (implementation, { of, params }) => ({
  beta: gdn_beta(implementation, of('b'), params.allow_neg_eigval ? 2 : 1),
}));

const row = (...data: number[]): Values => ({ data: Float32Array.from(data), rows: 1, cols: data.length });
const column = (...data: number[]): Values => ({ data: Float32Array.from(data), rows: data.length, cols: 1 });
const shape = fc.tuple(tokens, extent);
const gates = shape.chain(([T, H]) =>
  fc.record({
    a: fc.oneof(values(T, H), uniform(T, H, -40, 40)),
    A_log: uniform(1, H, -8, 5),
    dt_bias: fc.oneof(uniform(1, H, -9, 3), values(1, H)),
  }),
);
const strengths = shape.chain(([T, H]) => fc.record({ b: fc.oneof(values(T, H), uniform(T, H, -40, 40)), scale: fc.constantFrom(1, 2) }));

describe('wasm = reference', () => {
  test('gdn_gate', () => {
    const args = gates.map(({ a, A_log, dt_bias }) => [a, A_log, dt_bias] as const);
    fc.assert(
      fc.property(args, (a) => assertClose(gdn_gate(wasm, ...a).data, gdn_gate(reference, ...a).data, { relative: ROUNDED_ONCE })),
      { numRuns: 80 },
    );
  });

  test('gdn_beta', () => {
    fc.assert(
      fc.property(strengths, ({ b, scale }) =>
        assertClose(gdn_beta(wasm, b, scale).data, gdn_beta(reference, b, scale).data, { relative: ROUNDED_ONCE }),
      ),
      { numRuns: 80 },
    );
  });

  test('softplus and sigmoid from end to end', () => {
    const sweep = column(...Array.from({ length: 4001 }, (_, i) => (i - 2000) / 18));
    const joins = column(
      ...[-0.9162907, 0, 20, -37, -87.3, -103.9].flatMap((x) => Array.from({ length: 41 }, (_, i) => x + (i - 20) * 2e-6)),
    );
    for (const x of [sweep, joins]) {
      assertClose(gdn_gate(wasm, x, row(0), row(0)).data, gdn_gate(reference, x, row(0), row(0)).data, { relative: ROUNDED_ONCE });
      assertClose(gdn_beta(wasm, x, 1).data, gdn_beta(reference, x, 1).data, { relative: ROUNDED_ONCE });
    }
  });

  test('NaN and infinities, in place', () => {
    const x = column(NaN, Infinity, -Infinity, 1);
    assertClose(gdn_beta(wasm, x, 2).data, gdn_beta(reference, x, 2).data, { relative: ROUNDED_ONCE });
    assertClose(gdn_gate(wasm, x, row(0.5), row(1)).data, gdn_gate(reference, x, row(0.5), row(1)).data, { relative: ROUNDED_ONCE });
    const [one, broken] = [row(1, 1, 1), row(NaN, Infinity, 0)];
    assertClose(gdn_gate(wasm, one, broken, one).data, gdn_gate(reference, one, broken, one).data, { relative: ROUNDED_ONCE });
    assertClose(gdn_gate(wasm, one, one, broken).data, gdn_gate(reference, one, one, broken).data, { relative: ROUNDED_ONCE });
  });

  test('in place', () => {
    fc.assert(
      fc.property(gates, ({ a, A_log, dt_bias }) => {
        const b = wasm.bench();
        const g = b.put(a);
        b.kernels.gdn_gate(g, g, b.put(A_log), b.put(dt_bias));
        assertSame(b.take(g)[0]!.data, gdn_gate(wasm, a, A_log, dt_bias).data);
        const c = wasm.bench();
        const beta = c.put(a);
        c.kernels.gdn_beta(beta, beta, 2);
        assertSame(c.take(beta)[0]!.data, gdn_beta(wasm, a, 2).data);
      }),
      { numRuns: 20 },
    );
  });
});

describe.each(implementations)('$name', (implementation) => {
  const { u } = implementation;

  test('g never grows the state, and decays more for a larger a', () => {
    fc.assert(
      fc.property(gates, ({ a, A_log, dt_bias }) => {
        const data = a.data.slice().sort((x, y) => x - y);
        const rising = { data: Float32Array.from(data), rows: a.data.length, cols: 1 };
        const g = Array.from(gdn_gate(implementation, rising, row(A_log.data[0]!), row(dt_bias.data[0]!)).data);
        return g.every((value, i) => value <= 0 && (i === 0 || value <= g[i - 1]! * (1 - 4 * u - EXP_ERROR)));
      }),
      { numRuns: 20 },
    );
  });

  test('known values', () => {
    const a = column(0, 1, 21, 1000);
    const softplus = [Math.LN2, Math.log(1 + Math.E), 21, 1000];
    const bound = { relative: 2 * u + EXP_ERROR };
    assertClose(
      gdn_gate(implementation, a, row(0), row(0)).data,
      softplus.map((x) => -x),
      bound,
    );
    assertClose(
      gdn_gate(implementation, a, row(Math.log(8)), row(0)).data,
      softplus.map((x) => -8 * x),
      { relative: 2 * u + 2e-7 },
    ); // ln 8 in f32
    assertClose(
      gdn_gate(
        implementation,
        mapped(a, (x) => x - 3),
        row(0),
        row(3),
      ).data,
      softplus.map((x) => -x),
      bound,
    );
    assertClose(gdn_beta(implementation, column(0, Math.LN2, -Infinity, Infinity), 2).data, [1, 4 / 3, 0, 2], { relative: u + 1e-7 }); // ln 2 in f32
  });

  test('sigmoid(b) + sigmoid(-b) = 1, and scale 2 is twice scale 1', () => {
    fc.assert(
      fc.property(strengths, ({ b }) => {
        const beta = gdn_beta(implementation, b, 1);
        const other = gdn_beta(
          implementation,
          mapped(b, (value) => -value),
          1,
        ).data;
        assertClose(mapped(beta, (value, i) => value + other[i]!).data, mapped(beta, () => 1).data, { relative: u + EXP_ERROR });
        assertClose(gdn_beta(implementation, b, 2).data, mapped(beta, (value) => 2 * value).data, { relative: 0, absolute: 2 ** -148 });
      }),
      { numRuns: 40 },
    );
  });

  test('heads do not meet', () => {
    fc.assert(
      fc.property(gates, fc.nat(), ({ a, A_log, dt_bias }, at) => {
        const h = at % a.cols;
        const spoil = (x: Values) => mapped(x, (value, i) => (i % x.cols === h ? Infinity : value));
        const g = gdn_gate(implementation, a, A_log, dt_bias);
        const want = mapped(g, (value, i) => (i % a.cols === h ? -Infinity : value));
        assertSame(gdn_gate(implementation, spoil(a), A_log, dt_bias).data, want.data);
        assertSame(gdn_gate(implementation, a, A_log, spoil(dt_bias)).data, want.data);
      }),
      { numRuns: 20 },
    );
  });
});
