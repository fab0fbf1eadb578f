import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { extents, mapped, rowsOf, stacked, tokens, truncatedToBf16, type Values, values } from '../support/arbitraries.ts';
import { assertClose, assertSame, TINY, U32 } from '../support/assert_close.ts';
import { testGoldens } from '../support/kernel_golden.ts';
import { FLOAT16, floatValue, PATTERNS } from '../support/stored_floats.ts';
import { type Implementation, implementations, reference, wasm } from '../support/workbench.ts';

interface Options {
  readonly bias?: Values | null;
  readonly dtype?: 'F32' | 'BF16';
  readonly rowsAtOnce?: number;
}

function linear({ bench }: Implementation, x: Values, w: Values, { bias = null, dtype = 'F32', rowsAtOnce }: Options = {}): Values {
  const b = bench();
  const y = b.room(x.rows, w.rows);
  b.kernels.linear(y, b.put(x), b.matrix(w, dtype, rowsAtOnce), bias && b.put(bias));
  return b.take(y)[0]!;
}

await testGoldens('linear', (implementation, { tensors, of }) => {
  const dtype = of('weight').dtype === 'BF16' ? 'BF16' : 'F32';
  return { y: linear(implementation, of('x'), of('weight'), { bias: tensors.get('bias') ?? null, dtype }) };
});

const magnitude = (x: Values) => mapped(x, Math.abs);

// K products and K additions, each rounded once: |error| <= (K + 2) u sum |x w| to first order, the bias included.
function assertLinear(x: Values, w: Values, options: Options): void {
  const { bias = null } = options;
  const of = linear(reference, magnitude(x), magnitude(w), { bias: bias && magnitude(bias) }).data;
  const want = linear(reference, x, w, { bias }).data;
  assertClose(linear(wasm, x, w, options).data, want, { relative: (x.cols + 2) * U32, of, absolute: (x.cols + 1) * TINY });
}

// Also K beyond two slabs of 128, and N beyond a group of 512.
const shapes = fc
  .tuple(tokens, extents('K', 'N'), fc.constantFrom([0, 0], [0, 0], [0, 0], [128, 0], [256, 0], [0, 512]))
  .map(([T, { K, N }, [deeper, wider]]) => ({ T: deeper || wider ? 1 + (T % 9) : T, K: K + deeper!, N: N + wider! }));
const operands = shapes.chain(({ T, K, N }) =>
  fc.record({ x: values(T, K), w: values(N, K), bias: fc.option(values(1, N)), rowsAtOnce: fc.constantFrom(1 << 30, 16, 48) }),
);

describe('wasm = reference', () => {
  test('with f32 weights', () => {
    fc.assert(
      fc.property(operands, ({ x, w, ...options }) => assertLinear(x, w, options)),
      { numRuns: 80 },
    );
  });

  test('with bf16 weights', () => {
    fc.assert(
      fc.property(operands, ({ x, w, ...options }) => assertLinear(x, truncatedToBf16(w), { ...options, dtype: 'BF16' })),
      { numRuns: 40 },
    );
  });

  test('NaN and infinities, in place', () => {
    const broken = shapes.chain(({ T, K, N }) =>
      fc.record({
        x: values(T, K, ['normal']),
        w: values(N, K, ['normal']),
        at: fc.nat(T * K - 1),
        to: fc.constantFrom(NaN, Infinity, -Infinity),
      }),
    );
    fc.assert(
      fc.property(broken, ({ x, w, at, to }) =>
        assertLinear(
          mapped(x, (value, i) => (i === at ? to : value)),
          w,
          {},
        ),
      ),
      { numRuns: 30 },
    );
  });
});

describe.each(implementations)('$name', (implementation) => {
  test('is linear: integers give exact sums', () => {
    const integers = shapes.chain(({ T, K, N }) =>
      fc.tuple(values(T, K, ['integers']), values(T, K, ['integers']), values(N, K, ['integers'])),
    );
    fc.assert(
      fc.property(integers, ([x, x2, w]) => {
        const y = linear(implementation, x, w).data;
        const y2 = linear(implementation, x2, w).data;
        const both = linear(
          implementation,
          mapped(x, (value, i) => 3 * value - 2 * x2.data[i]!),
          w,
        );
        // + 0: -0 and 0 are the same sum.
        assertSame(both.data, mapped(both, (_, i) => 3 * y[i]! - 2 * y2[i]! + 0).data);
      }),
      { numRuns: 30 },
    );
  });

  test('a row is summed alike with and without others', () => {
    const cases = shapes.chain(({ T, K, N }) =>
      fc.record({ x: values(1 + (T % 9), K), w: values(N, K), bias: fc.option(values(1, N)), bf16: fc.boolean() }),
    );
    fc.assert(
      fc.property(cases, ({ x, w, bias, bf16 }) => {
        const options = { bias, dtype: bf16 ? 'BF16' : 'F32' } as const;
        const weight = bf16 ? truncatedToBf16(w) : w;
        const alone = Array.from({ length: x.rows }, (_, t) => linear(implementation, rowsOf(x, t, t + 1), weight, options));
        assertSame(linear(implementation, x, weight, options).data, stacked(...alone).data);
      }),
      { numRuns: 40 },
    );
  });

  test('an output is summed alike with and without others, up to the last panel', () => {
    const cases = shapes.chain(({ T, K, N }) => fc.record({ x: values(T, K), w: values(N, K), N: fc.integer({ min: 1, max: N }) }));
    fc.assert(
      fc.property(cases, ({ x, w, N }) => {
        const y = linear(implementation, x, w);
        const some = linear(implementation, x, rowsOf(w, 0, N));
        assertSame(some.data, mapped(some, (_, i) => y.data[Math.floor(i / N) * y.cols + (i % N)]!).data);
      }),
      { numRuns: 40 },
    );
  });

  test('the bias is added last', () => {
    const cases = shapes.chain(({ T, K, N }) => fc.record({ x: values(T, K), w: values(N, K), bias: values(1, N) }));
    fc.assert(
      fc.property(cases, ({ x, w, bias }) => {
        const y = linear(implementation, x, w);
        const sum = y.data.map((value, i) => value + bias.data[i % w.rows]!);
        assertSame(linear(implementation, x, w, { bias }).data, sum);
      }),
      { numRuns: 20 },
    );
  });

  test('NaN stays in its row', () => {
    const cases = shapes.chain(({ T, K, N }) => fc.record({ x: values(T, K), w: values(N, K), row: fc.nat(T - 1), k: fc.nat(K - 1) }));
    fc.assert(
      fc.property(cases, ({ x, w, row, k }) => {
        const y = linear(implementation, x, w);
        const broken = mapped(x, (value, i) => (i === row * x.cols + k ? NaN : value));
        assertSame(linear(implementation, broken, w).data, mapped(y, (value, i) => (Math.floor(i / y.cols) === row ? NaN : value)).data);
      }),
      { numRuns: 20 },
    );
  });
});

describe('stored weights', () => {
  test('bf16 and f32 give the same bits where bf16 can represent the weights', () => {
    fc.assert(
      fc.property(operands, ({ x, w, bias, rowsAtOnce }) => {
        const weight = truncatedToBf16(w);
        assertSame(linear(wasm, x, weight, { bias, dtype: 'BF16', rowsAtOnce }).data, linear(wasm, x, weight, { bias }).data);
      }),
      { numRuns: 40 },
    );
  });

  // One product by 1 for each pattern. The sum begins with 0, so -0 comes back as 0.
  test('f16 is widened exactly, each of its patterns', () => {
    const b = wasm.bench();
    const y = b.room(1, PATTERNS.length);
    b.kernels.linear(
      y,
      b.put({ data: Float32Array.of(1), rows: 1, cols: 1 }),
      b.matrix({ bits: PATTERNS, rows: PATTERNS.length, cols: 1 }, 'F16'),
      null,
    );
    assertSame(
      b.take(y)[0]!.data,
      Float64Array.from(PATTERNS, (pattern) => floatValue(pattern, FLOAT16) + 0),
    );
    expect(b.notFinite).toBe(2 * 1024);
  });

  test('f16 goes to the place of its row and column', () => {
    const bits = Uint16Array.from({ length: 37 * 133 }, (_, i) => (i * 7919) % 0x7c00);
    const w = { data: Float32Array.from(bits, (pattern) => floatValue(pattern, FLOAT16)), rows: 37, cols: 133 };
    const x = fc.sample(values(3, 133, ['normal']), { numRuns: 1, seed: 1 })[0]!;
    for (const rowsAtOnce of [16, 32, 48]) {
      const b = wasm.bench();
      const y = b.room(3, 37);
      b.kernels.linear(y, b.put(x), b.matrix({ bits, rows: 37, cols: 133 }, 'F16', rowsAtOnce), null);
      assertSame(b.take(y)[0]!.data, linear(wasm, x, w).data);
    }
  });

  test.each(['F32', 'BF16'] as const)('%s: NaN and infinite values are counted', (dtype) => {
    const w = fc.sample(values(21, 70, ['normal']), { numRuns: 1, seed: 2 })[0]!;
    const broken = mapped(w, (value, i) => ({ 0: NaN, 69: Infinity, 700: -Infinity, 1469: -NaN })[i] ?? value);
    const b = wasm.bench();
    b.matrix(broken, dtype, 16);
    expect(b.notFinite).toBe(4);
    b.matrix(truncatedToBf16(w), dtype, 16);
    expect(b.notFinite).toBe(4);
  });
});
