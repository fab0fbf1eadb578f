import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { cuts, extent, mapped, pieces, rowsOf, stacked, tokens, type Values, values } from '../support/arbitraries.ts';
import { assertClose, assertSame, ROUNDED_ONCE } from '../support/assert_close.ts';
import { kernelGoldens, testGoldens } from '../support/kernel_golden.ts';
import { type Implementation, implementations, reference, wasm } from '../support/workbench.ts';

/** x [T, C], weight [W, C], state [W - 1, C]: y and the state after it. */
function causal_conv1d({ bench }: Implementation, x: Values, weight: Values, state: Values): { y: Values; state_after: Values } {
  const b = bench();
  const y = b.room(x.rows, x.cols);
  const advanced = b.put(state);
  b.kernels.causal_conv1d(y, b.put(x), b.put(weight), advanced);
  const [out, state_after] = b.take(y, advanced);
  return { y: out!, state_after: state_after! };
}

/** [C, 1, W] as in files -> [W, C]. */
function transposed({ data, rows: C, cols: W }: Values): Values {
  return { data: Float32Array.from(data, (_, i) => data[(i % C) * W + Math.floor(i / C)]!), rows: W, cols: C };
}

await testGoldens('causal_conv1d', (implementation, { of }) => ({
  y: causal_conv1d(implementation, of('x'), transposed(of('weight')), of('state')).y,
}));

describe('golden state', async () => {
  test.each(await kernelGoldens('causal_conv1d'))('$name: the state after it is the release’s, exactly', ({ of }) => {
    for (const implementation of implementations) {
      const { state_after } = causal_conv1d(implementation, of('x'), transposed(of('weight')), of('state'));
      assertSame(state_after.data, of('state_after').data);
      assertSame(state_after.data, of('state_after.truth').data);
    }
  });
});

const shapes = fc.tuple(tokens, extent, fc.constantFrom(4, 3, 2, 1, 5)).map(([T, C, W]) => ({ T, C, W }));
const cases = shapes.chain(({ T, C, W }) => fc.record({ x: values(T, C), weight: values(W, C), state: values(W - 1, C), cuts: cuts(T) }));

/** silu(-Infinity) is -Infinity * 0: whether that is infinite or NaN is left open. */
const poisoned = (y: Values) => mapped(y, (value) => (Number.isFinite(value) ? value : NaN));

/** silu of a sum in f64, rounded once. The sum may cancel: silu(sum of magnitudes) >= half of that sum. */
function assertConvolved(...args: [x: Values, weight: Values, state: Values]): void {
  const [ours, want] = [causal_conv1d(wasm, ...args), causal_conv1d(reference, ...args)];
  const [x, weight, state] = args.map((values) => mapped(values, Math.abs));
  const terms = causal_conv1d(reference, x!, weight!, state!).y.data;
  const of = want.y.data.map((value, i) => Math.abs(value) + 2 ** -25 * terms[i]!);
  assertClose(poisoned(ours.y).data, poisoned(want.y).data, { relative: ROUNDED_ONCE, of });
  assertSame(ours.state_after.data, want.state_after.data);
}

describe('wasm = reference', () => {
  test('on any shape and values', () => {
    fc.assert(
      fc.property(cases, ({ x, weight, state }) => assertConvolved(x, weight, state)),
      { numRuns: 100 },
    );
  });

  test('NaN and infinities, in place', () => {
    fc.assert(
      fc.property(cases, fc.nat(), fc.constantFrom(NaN, Infinity, -Infinity), ({ x, weight, state }, at, to) => {
        assertConvolved(
          mapped(x, (value, i) => (i === at % x.data.length ? to : value)),
          weight,
          state,
        );
      }),
      { numRuns: 40 },
    );
  });
});

describe.each(implementations)('$name', (implementation) => {
  test('the state holds the last inputs, oldest first, before weights and activation', () => {
    fc.assert(
      fc.property(cases, ({ x, weight, state }) => {
        const all = stacked(state, x);
        assertSame(causal_conv1d(implementation, x, weight, state).state_after.data, rowsOf(all, x.rows, all.rows).data);
      }),
      { numRuns: 40 },
    );
  });

  test('in pieces with the state carried on = in one piece, bit for bit', () => {
    fc.assert(
      fc.property(cases, ({ x, weight, state, cuts }) => {
        const whole = causal_conv1d(implementation, x, weight, state);
        let carried = state;
        const parts = pieces(x.rows, cuts).map(([begin, end]) => {
          const { y, state_after } = causal_conv1d(implementation, rowsOf(x, begin, end), weight, carried);
          carried = state_after;
          return y;
        });
        assertSame(stacked(...parts).data, whole.y.data);
        assertSame(carried.data, whole.state_after.data);
      }),
      { numRuns: 50 },
    );
  });

  test('is causal: later tokens change nothing before them, and nothing W tokens on', () => {
    fc.assert(
      fc.property(cases, fc.nat(), ({ x, weight, state }, at) => {
        const t = at % x.rows;
        const W = weight.rows;
        const y = causal_conv1d(implementation, x, weight, state).y;
        const broken = mapped(x, (value, i) => (Math.floor(i / x.cols) === t ? NaN : value));
        const felt = (row: number) => t <= row && row < t + W;
        const want = mapped(y, (value, i) => (felt(Math.floor(i / y.cols)) ? NaN : value));
        assertSame(causal_conv1d(implementation, broken, weight, state).y.data, want.data);
      }),
      { numRuns: 40 },
    );
  });

  test('channels do not meet', () => {
    fc.assert(
      fc.property(cases, fc.nat(), ({ x, weight, state }, at) => {
        const c = at % x.cols;
        const y = causal_conv1d(implementation, x, weight, state).y;
        const broken = mapped(weight, (value, i) => (i % x.cols === c ? NaN : value));
        assertSame(causal_conv1d(implementation, x, broken, state).y.data, mapped(y, (value, i) => (i % x.cols === c ? NaN : value)).data);
      }),
      { numRuns: 20 },
    );
  });

  test('the last weight meets the newest input', () => {
    const x = { data: Float32Array.of(7, 11), rows: 2, cols: 1 };
    const weight = { data: Float32Array.of(1000, 100, 10, 1), rows: 4, cols: 1 };
    const state = { data: Float32Array.of(2, 3, 5), rows: 3, cols: 1 };
    const { y } = causal_conv1d(implementation, x, weight, state);
    expect([...y.data]).toEqual([2357, 3582 - 1]); // 1000 * 2 + 100 * 3 + 10 * 5 + 7, and 3000 + 500 + 70 + 11; silu leaves them alone
  });
});
