import fc from 'fast-check';
import { describe, test } from 'vitest';
import { extents, mapped, tokens, type Values, values } from '../support/arbitraries.ts';
import { assertClose, assertSame, ROUNDED_ONCE } from '../support/assert_close.ts';
import { testGoldens } from '../support/kernel_golden.ts';
import { type Implementation, implementations, reference, wasm } from '../support/workbench.ts';

/** x [T, H * D]. */
function l2_norm({ bench }: Implementation, x: Values, D: number, eps: number): Values {
  const b = bench();
  const y = b.room(x.rows, x.cols);
  b.kernels.l2_norm(y, b.put(x), D, eps);
  return b.take(y)[0]!;
}

await testGoldens('l2_norm', (implementation, { of, params }) => ({
  y: l2_norm(implementation, of('x'), of('x').cols, params.eps as number),
}));

const heads = fc.tuple(tokens, extents('H', 'D')).map(([T, { H, D }]) => ({ T, H: 1 + (H % 7), D }));
const cases = heads.chain(({ T, H, D }) => fc.record({ x: values(T, H * D), D: fc.constant(D), eps: fc.constantFrom(1e-6, 1e-3) }));

describe('wasm = reference', () => {
  test('on any shape and values', () => {
    fc.assert(
      fc.property(cases, ({ x, D, eps }) =>
        assertClose(l2_norm(wasm, x, D, eps).data, l2_norm(reference, x, D, eps).data, { relative: ROUNDED_ONCE }),
      ),
      { numRuns: 80 },
    );
  });

  test('NaN and infinities, in place', () => {
    const broken = fc.tuple(cases, fc.nat(), fc.constantFrom(NaN, Infinity, -Infinity));
    fc.assert(
      fc.property(broken, ([{ x, D, eps }, at, to]) => {
        const y = mapped(x, (value, i) => (i === at % x.data.length ? to : value));
        assertClose(l2_norm(wasm, y, D, eps).data, l2_norm(reference, y, D, eps).data, { relative: ROUNDED_ONCE });
      }),
      { numRuns: 30 },
    );
  });

  test('in place', () => {
    fc.assert(
      fc.property(cases, ({ x, D, eps }) => {
        const b = wasm.bench();
        const y = b.put(x);
        b.kernels.l2_norm(y, y, D, eps);
        assertSame(b.take(y)[0]!.data, l2_norm(wasm, x, D, eps).data);
      }),
      { numRuns: 20 },
    );
  });
});

// The laws that every implementation keeps are those of the property kit: test/property_kit.test.ts runs them on both tables.
describe.each(implementations)('$name', (implementation) => {
  test('a power of two changes nothing when eps takes its square', () => {
    const scalable = heads.chain(({ T, H, D }) =>
      fc.record({ x: values(T, H * D, ['normal', 'integers', 'spread']), D: fc.constant(D), power: fc.integer({ min: -20, max: 20 }) }),
    );
    fc.assert(
      fc.property(scalable, ({ x, D, power }) => {
        const scaled = mapped(x, (value) => value * 2 ** power);
        assertSame(l2_norm(implementation, scaled, D, 1e-6 * 4 ** power).data, l2_norm(implementation, x, D, 1e-6).data);
      }),
      { numRuns: 30 },
    );
  });
});
