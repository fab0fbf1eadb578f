import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { extents, mapped, truncatedToBf16, type Values, values } from '../support/arbitraries.ts';
import { assertSame } from '../support/assert_close.ts';
import { BFLOAT16, FLOAT16, floatValue, PATTERNS } from '../support/stored_floats.ts';
import { type Implementation, implementations, wasm } from '../support/workbench.ts';

type Dtype = 'F32' | 'BF16';

function embedding({ bench }: Implementation, ids: readonly number[], table: Values, dtype: Dtype, rowsAtOnce?: number): Values {
  const b = bench();
  const y = b.room(ids.length, table.cols);
  b.kernels.embedding(y, b.ids(ids), b.table(table, dtype, rowsAtOnce));
  return b.take(y)[0]!;
}

const cases = extents('V', 'D').chain(({ V, D }) =>
  fc.record({
    table: values(V, D),
    ids: fc.array(fc.nat(V - 1), { minLength: 1, maxLength: 20 }),
    rowsAtOnce: fc.constantFrom(1 << 30, 16),
  }),
);

describe.each(implementations)('$name', (implementation) => {
  test.each(['F32', 'BF16'] as const)('gives the rows of the ids, bit for bit: %s', (dtype) => {
    fc.assert(
      fc.property(cases, ({ table: given, ids, rowsAtOnce }) => {
        const table = dtype === 'BF16' ? truncatedToBf16(given) : given;
        const y = embedding(implementation, ids, table, dtype, rowsAtOnce);
        assertSame(y.data, mapped(y, (_, i) => table.data[ids[Math.floor(i / table.cols)]! * table.cols + (i % table.cols)]!).data);
      }),
      { numRuns: 50 },
    );
  });

  test.each([
    { dtype: 'F16', format: FLOAT16, notFinite: 2 * 2 ** 10 },
    { dtype: 'BF16', format: BFLOAT16, notFinite: 2 * 2 ** 7 },
  ] as const)('$dtype is widened exactly, each of its patterns', ({ dtype, format, notFinite }) => {
    const b = implementation.bench();
    const y = b.room(3, 65536 / 4);
    b.kernels.embedding(y, b.ids([3, 0, 2]), b.table({ bits: PATTERNS, rows: 4, cols: 65536 / 4 }, dtype));
    const want = Array.from(PATTERNS, (pattern) => floatValue(pattern, format));
    const quarter = (i: number) => want.slice((i * 65536) / 4, ((i + 1) * 65536) / 4);
    assertSame(b.take(y)[0]!.data, [...quarter(3), ...quarter(0), ...quarter(2)]);
    if (implementation === wasm) expect(b.notFinite).toBe(notFinite);
    else expect(b.notFinite).toBeGreaterThan(0);
  });
});

describe.each(implementations)('$name', (implementation) => {
  test.each(['F32', 'BF16'] as const)('%s: a table with NaN or infinite values is told from one without', (dtype) => {
    const table = fc.sample(values(13, 7, ['normal']), { numRuns: 1, seed: 1 })[0]!;
    for (const at of [0, 6, 45, 90]) {
      for (const bad of [NaN, Infinity, -Infinity]) {
        const b = implementation.bench();
        b.table(
          mapped(table, (value, i) => (i === at ? bad : value)),
          dtype,
        );
        expect(b.notFinite).toBe(1);
      }
    }
    const b = implementation.bench();
    b.table(
      mapped(table, (value) => value * 3e37),
      dtype,
    );
    expect(b.notFinite).toBe(0);
  });
});
