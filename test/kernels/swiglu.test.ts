import fc from 'fast-check';
import { describe, test } from 'vitest';
import { extent, mapped, tokens, type Values, values } from '../support/arbitraries.ts';
import { assertClose, assertSame, ROUNDED_ONCE } from '../support/assert_close.ts';
import { testGoldens } from '../support/kernel_golden.ts';
import { type Implementation, reference, wasm } from '../support/workbench.ts';

function swiglu({ bench }: Implementation, gate: Values, up: Values): Values {
  const b = bench();
  const y = b.room(gate.rows, gate.cols);
  b.kernels.swiglu(y, b.put(gate), b.put(up));
  return b.take(y)[0]!;
}

await testGoldens('swiglu', (implementation, { of }) => ({ y: swiglu(implementation, of('gate'), of('up')) }));

const cases = fc.tuple(tokens, extent).chain(([T, D]) => fc.record({ gate: values(T, D), up: values(T, D) }));

/** silu(-Infinity) is -Infinity * 0: whether that is infinite or NaN is left open. */
const poisoned = (y: Values) => mapped(y, (value) => (Number.isFinite(value) ? value : NaN));

describe('wasm = reference', () => {
  test('on any shape and values', () => {
    fc.assert(
      fc.property(cases, ({ gate, up }) =>
        assertClose(swiglu(wasm, gate, up).data, swiglu(reference, gate, up).data, { relative: ROUNDED_ONCE }),
      ),
      { numRuns: 80 },
    );
  });

  test('over the whole range of gates', () => {
    const data = Float32Array.from({ length: 4001 }, (_, i) => (i - 2000) / 10);
    const gate = { data, rows: 1, cols: data.length };
    const up = { ...gate, data: data.map(() => 1) };
    assertClose(swiglu(wasm, gate, up).data, swiglu(reference, gate, up).data, { relative: ROUNDED_ONCE });
  });

  test('NaN and infinities, in place', () => {
    // Gates that no exp rounds to 0 or infinity: nothing defines which of them do, and what an infinite up becomes there.
    const moderate = fc.tuple(tokens, extent).chain(([T, D]) => fc.record({ gate: values(T, D, ['normal', 'sparse']), up: values(T, D) }));
    const broken = fc.tuple(moderate, fc.nat(), fc.constantFrom(NaN, Infinity, -Infinity), fc.boolean());
    fc.assert(
      fc.property(broken, ([{ gate, up }, at, to, inGate]) => {
        const spoil = (x: Values) => mapped(x, (value, i) => (i === at % x.data.length ? to : value));
        const args = inGate ? ([spoil(gate), up] as const) : ([gate, spoil(up)] as const);
        assertClose(poisoned(swiglu(wasm, ...args)).data, poisoned(swiglu(reference, ...args)).data, { relative: ROUNDED_ONCE });
      }),
      { numRuns: 40 },
    );
  });

  test('over either input', () => {
    fc.assert(
      fc.property(cases, ({ gate, up }) => {
        const want = swiglu(wasm, gate, up).data;
        const b = wasm.bench();
        const y = b.put(gate);
        b.kernels.swiglu(y, y, b.put(up));
        assertSame(b.take(y)[0]!.data, want);
        const c = wasm.bench();
        const z = c.put(up);
        c.kernels.swiglu(z, c.put(gate), z);
        assertSame(c.take(z)[0]!.data, want);
      }),
      { numRuns: 20 },
    );
  });
});

// The laws that every implementation keeps are those of the property kit: test/property_kit.test.ts runs them on both tables.
