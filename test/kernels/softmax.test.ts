import fc from 'fast-check';
import { describe, test } from 'vitest';
import { extent, mapped, tokens, type Values, values } from '../support/arbitraries.ts';
import { assertClose, assertSame, ROUNDED_ONCE } from '../support/assert_close.ts';
import { testGoldens } from '../support/kernel_golden.ts';
import { type Implementation, implementations, reference, wasm } from '../support/workbench.ts';

function softmax({ bench }: Implementation, x: Values): Values {
  const b = bench();
  const y = b.room(x.rows, x.cols);
  b.kernels.softmax(y, b.put(x));
  return b.take(y)[0]!;
}

await testGoldens('softmax', (implementation, { of }) => ({ y: softmax(implementation, of('x')) }));

const shape = fc.tuple(tokens, extent);
const inputs = shape.chain(([T, D]) => values(T, D));
const integers = shape.chain(([T, D]) => values(T, D, ['integers']));

describe('wasm = reference', () => {
  test('on any shape and values', () => {
    fc.assert(
      fc.property(inputs, (x) => assertClose(softmax(wasm, x).data, softmax(reference, x).data, { relative: ROUNDED_ONCE })),
      { numRuns: 80 },
    );
  });

  test('NaN and infinities, in place', () => {
    fc.assert(
      fc.property(inputs, fc.nat(), fc.constantFrom(NaN, Infinity, -Infinity), (x, at, to) => {
        fc.pre(to !== -Infinity || x.cols > 1); // a row needs one finite element
        const broken = mapped(x, (value, i) => (i === at % x.data.length ? to : value));
        assertClose(softmax(wasm, broken).data, softmax(reference, broken).data, { relative: ROUNDED_ONCE });
      }),
      { numRuns: 40 },
    );
  });

  test('in place', () => {
    fc.assert(
      fc.property(inputs, (x) => {
        const b = wasm.bench();
        const y = b.put(x);
        b.kernels.softmax(y, y);
        assertSame(b.take(y)[0]!.data, softmax(wasm, x).data);
      }),
      { numRuns: 20 },
    );
  });
});

// The laws that every implementation keeps are those of the property kit: test/property_kit.test.ts runs them on both tables.
describe.each(implementations)('$name', (implementation) => {
  test('a shift of a row changes nothing: integers shift exactly', () => {
    fc.assert(
      fc.property(integers, fc.integer({ min: -5000, max: 5000 }), (x, shift) => {
        const shifted = mapped(x, (value, i) => value + shift * (Math.floor(i / x.cols) + 1));
        assertSame(softmax(implementation, shifted).data, softmax(implementation, x).data);
      }),
      { numRuns: 30 },
    );
  });
});
