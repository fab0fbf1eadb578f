import fc from 'fast-check';
import { describe, test } from 'vitest';
import { extent, mapped, tokens, type Values, values } from '../support/arbitraries.ts';
import { assertSame } from '../support/assert_close.ts';
import { type Implementation, implementations, wasm } from '../support/workbench.ts';

function add({ bench }: Implementation, y: Values, x: Values): Values {
  const b = bench();
  const sum = b.put(y);
  b.kernels.add(sum, b.put(x));
  return b.take(sum)[0]!;
}

const cases = fc.tuple(tokens, extent).chain(([T, D]) => fc.record({ y: values(T, D), x: values(T, D) }));

describe.each(implementations)('$name', (implementation) => {
  // A sum of two f32 numbers rounded to f64 and then to f32 is the sum rounded once: 53 >= 2 * 24 + 2.
  test('is the sum, rounded once', () => {
    fc.assert(
      fc.property(cases, ({ y, x }) => {
        const sum = mapped(y, (value, i) => value + x.data[i]!);
        assertSame(add(implementation, y, x).data, implementation === wasm ? Float32Array.from(sum.data) : sum.data);
      }),
      { numRuns: 50 },
    );
  });

  test('NaN, infinities and overflow', () => {
    const y = { data: Float32Array.of(NaN, 1, Infinity, Infinity, 3e38, -3e38, -0), rows: 1, cols: 7 };
    const x = { data: Float32Array.of(1, NaN, 1, -Infinity, 3e38, -3e38, -0), rows: 1, cols: 7 };
    const large = 2 * Math.fround(3e38);
    const overflow = implementation === wasm ? Infinity : large;
    assertSame(add(implementation, y, x).data, [NaN, NaN, Infinity, NaN, overflow, -overflow, -0]);
  });
});
