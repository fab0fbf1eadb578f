import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { extent, extents, mapped, tokens, type Values, values } from '../support/arbitraries.ts';
import { assertClose, assertSame, ROUNDED_ONCE } from '../support/assert_close.ts';
import { testGoldens } from '../support/kernel_golden.ts';
import { type Implementation, implementations, reference, wasm } from '../support/workbench.ts';

function rms_norm({ bench }: Implementation, x: Values, weight: Values, eps: number): Values {
  const b = bench();
  const y = b.room(x.rows, x.cols);
  b.kernels.rms_norm(y, b.put(x), b.put(weight), eps);
  return b.take(y)[0]!;
}

/** x, gate [T, H * D], weight [D]. */
function rms_norm_gated({ bench }: Implementation, x: Values, gate: Values, weight: Values, eps: number): Values {
  const b = bench();
  const y = b.room(x.rows, x.cols);
  b.kernels.rms_norm_gated(y, b.put(x), b.put(gate), b.put(weight), eps);
  return b.take(y)[0]!;
}

await testGoldens('rms_norm', (implementation, { of, params }) => ({
  y: rms_norm(implementation, of('x'), of('weight'), params.eps as number),
}));
await testGoldens('rms_norm_gated', (implementation, { of, params }) => ({
  y: rms_norm_gated(implementation, of('x'), of('gate'), of('weight'), params.eps as number),
}));

const EPS = fc.constantFrom(1e-6, 1e-5, 1e-2);
const plain = fc.tuple(tokens, extent).chain(([T, D]) => fc.record({ x: values(T, D), weight: values(1, D), eps: EPS }));
const gated = fc.tuple(tokens, extents('H', 'D')).chain(([T, { H, D }]) => {
  const heads = 1 + (H % 5);
  return fc.record({ x: values(T, heads * D), gate: values(T, heads * D), weight: values(1, D), eps: EPS });
});
const ones = (D: number): Values => ({ data: new Float32Array(D).fill(1), rows: 1, cols: D });

describe('wasm = reference', () => {
  test('rms_norm', () => {
    const sizes = plain.map(({ x, weight, eps }) => [x, weight, eps] as const);
    fc.assert(
      fc.property(sizes, (args) =>
        assertClose(rms_norm(wasm, ...args).data, rms_norm(reference, ...args).data, { relative: ROUNDED_ONCE }),
      ),
      { numRuns: 80 },
    );
  });

  test('rms_norm_gated', () => {
    const sizes = gated.map(({ x, gate, weight, eps }) => [x, gate, weight, eps] as const);
    fc.assert(
      fc.property(sizes, (args) =>
        assertClose(rms_norm_gated(wasm, ...args).data, rms_norm_gated(reference, ...args).data, { relative: ROUNDED_ONCE }),
      ),
      { numRuns: 80 },
    );
  });

  test('NaN and infinities, in place', () => {
    const cases = gated.chain((sizes) =>
      fc.record({ sizes: fc.constant(sizes), at: fc.nat(sizes.x.data.length - 1), to: fc.constantFrom(NaN, Infinity, -Infinity) }),
    );
    fc.assert(
      fc.property(cases, ({ sizes: { x, gate, weight, eps }, at, to }) => {
        const broken = mapped(x, (value, i) => (i === at ? to : value));
        const head = { ...broken, rows: (x.rows * x.cols) / weight.cols, cols: weight.cols };
        assertClose(rms_norm(wasm, head, weight, eps).data, rms_norm(reference, head, weight, eps).data, { relative: ROUNDED_ONCE });
        const args = [broken, gate, weight, eps] as const;
        assertClose(rms_norm_gated(wasm, ...args).data, rms_norm_gated(reference, ...args).data, { relative: ROUNDED_ONCE });
      }),
      { numRuns: 30 },
    );
  });

  test('in place', () => {
    fc.assert(
      fc.property(gated, ({ x, gate, weight, eps }) => {
        const b = wasm.bench();
        const y = b.put(x);
        b.kernels.rms_norm_gated(y, y, b.put(gate), b.put(weight), eps);
        assertSame(b.take(y)[0]!.data, rms_norm_gated(wasm, x, gate, weight, eps).data);
        const head = { ...x, rows: (x.rows * x.cols) / weight.cols, cols: weight.cols };
        const c = wasm.bench();
        const z = c.put(head);
        c.kernels.rms_norm(z, z, c.put(weight), eps);
        assertSame(c.take(z)[0]!.data, rms_norm(wasm, head, weight, eps).data);
      }),
      { numRuns: 20 },
    );
  });
});

// The laws that every implementation keeps are those of the property kit: test/property_kit.test.ts runs them on both tables.
describe.each(implementations)('$name', (implementation) => {
  // Squares and mean scale by a power of 4, exactly.
  test('a power of two changes nothing when eps takes its square', () => {
    const cases = fc.tuple(tokens, extent).chain(([T, D]) =>
      fc.record({
        x: values(T, D, ['normal', 'integers', 'spread']),
        weight: values(1, D),
        power: fc.integer({ min: -20, max: 20 }),
        eps: EPS,
      }),
    );
    fc.assert(
      fc.property(cases, ({ x, weight, power, eps }) => {
        const scaled = mapped(x, (value) => value * 2 ** power);
        assertSame(rms_norm(implementation, scaled, weight, eps * 4 ** power).data, rms_norm(implementation, x, weight, eps).data);
      }),
      { numRuns: 30 },
    );
  });

  test('a closed gate closes, an open one lets through', () => {
    const x = { data: Float32Array.of(3, -4), rows: 1, cols: 2 };
    const gate = { data: Float32Array.of(-200, 200), rows: 1, cols: 2 };
    const [closed, open] = rms_norm_gated(implementation, x, gate, ones(2), 1e-5).data;
    expect(Math.abs(closed!)).toBeLessThan(1e-40);
    expect(open).toBeCloseTo((200 * -4) / Math.sqrt(12.5), 3);
  });
});
