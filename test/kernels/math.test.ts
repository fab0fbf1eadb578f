import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { assertClose, assertSame, EXP_ERROR, halfUlp } from '../support/assert_close.ts';
import { wasm } from '../support/workbench.ts';

// The bounds that assembly/math.ts states. Math.exp and the others err by less than an ulp, 2.3e-16, in every engine that runs this.
const { exp, log } = wasm.bench().kernels;

const largest = (xs: Iterable<number>, error: (x: number) => number) => {
  let worst = 0;
  for (const x of xs) worst = Math.max(worst, error(x));
  return worst;
};

function* sweep(low: number, high: number, steps: number): Generator<number> {
  for (let i = 0; i <= steps; i++) yield low + ((high - low) * i) / steps;
}

/** The f32 numbers around x. */
function neighbours(x: number, count: number): number[] {
  const f32 = Float32Array.of(x);
  const bits = new Uint32Array(f32.buffer);
  return Array.from({ length: 2 * count + 1 }, (_, i) => {
    const at = Uint32Array.of(bits[0]! + i - count);
    return new Float32Array(at.buffer)[0]!;
  }).sort((a, b) => a - b);
}

/** cos and sin of angles as rotary_table gives them: rounded to f32. */
function turns(angles: readonly number[]): { cos: Float64Array; sin: Float64Array } {
  const b = wasm.bench();
  const [cos, sin] = [b.room(2, angles.length), b.room(2, angles.length)];
  b.kernels.rotary_table(cos, sin, b.put64(Float64Array.from(angles)), 1);
  const [c, s] = b.take(cos, sin).map(({ data }) => Float64Array.from(data.subarray(angles.length)));
  return { cos: c!, sin: s! };
}

describe('exp', () => {
  const error = (x: number) => Math.abs(exp(x) / Math.exp(x) - 1);

  test('relative error < 1e-11', () => {
    expect(largest(sweep(-708, 709, 200_003), error)).toBeLessThan(EXP_ERROR);
    expect(largest(sweep(-1, 1, 50_001), error)).toBeLessThan(EXP_ERROR);
    // Where the argument's share of ln 2 changes: the ends of the polynomial's interval.
    const joins = Array.from({ length: 2041 }, (_, i) => (i - 1020.5) * Math.LN2).filter((x) => -708 < x && x < 709);
    expect(
      largest(
        joins.flatMap((x) => [x - 1e-9, x, x + 1e-9]),
        error,
      ),
    ).toBeLessThan(EXP_ERROR);
    fc.assert(
      fc.property(fc.double({ min: -708, max: 709, noNaN: true }), (x) => error(x) < EXP_ERROR),
      { numRuns: 500 },
    );
  });

  test('exact at 0, and close to 1 + x around it', () => {
    expect(exp(0)).toBe(1);
    expect(exp(-0)).toBe(1);
    for (const x of [1e-300, -1e-300, 1e-17, -1e-17]) expect(exp(x)).toBe(1);
    expect(exp(2 ** -40)).toBe(1 + 2 ** -40);
  });

  test('saturates: Infinity above its range, 0 below', () => {
    for (const x of [709.1, 710, 1e300, Infinity]) expect(exp(x)).toBe(Infinity);
    for (const x of [-708.1, -1e5, -Infinity]) expect(exp(x)).toBe(0);
    expect(Math.fround(exp(709))).toBe(Infinity);
    expect(exp(Number.NaN)).toBeNaN();
  });

  test('never falls from one f32 to the next, joins included', () => {
    const falls = Array.from({ length: 256 }, (_, n) => neighbours((n - 127.5) * Math.LN2, 20)).filter((xs) =>
      xs.some((x, i) => i > 0 && exp(x) < exp(xs[i - 1]!)),
    );
    expect(falls).toEqual([]);
  });
});

describe('log', () => {
  const error = (x: number) => Math.abs(log(x) - Math.log(x)) / Math.abs(Math.log(x) || 1);

  test('relative error < 1e-15', () => {
    expect(largest(sweep(0.5, 3, 200_003), error)).toBeLessThan(1e-15);
    expect(
      largest(
        [...sweep(-1020, 1020, 20_001)].map((x) => 2 ** x),
        error,
      ),
    ).toBeLessThan(1e-15);
    // Where the exponent changes, and next to 1, where the logarithm vanishes.
    const joins = [Math.SQRT2, Math.SQRT1_2, 1, 2, 4].flatMap((x) =>
      Array.from({ length: 60 }, (_, i) => [x * (1 - 2 ** -i), x * (1 + 2 ** -i)]).flat(),
    );
    expect(
      largest(
        joins.filter((x) => x > 0),
        error,
      ),
    ).toBeLessThan(1e-15);
    fc.assert(
      fc.property(fc.double({ min: 2 ** -1022, max: Number.MAX_VALUE, noNaN: true }), (x) => error(x) < 1e-15),
      { numRuns: 500 },
    );
  });

  test('exact at 1', () => {
    expect(log(1)).toBe(0);
  });

  test('is the inverse of exp', () => {
    for (const x of sweep(-700, 700, 5000)) expect(Math.abs(log(exp(x)) - x)).toBeLessThan(EXP_ERROR + 1e-15 * Math.abs(x));
  });
});

describe('cos and sin', () => {
  // Rounded to f32 a value of 1e-7 still shows 1e-14 / 2: there the error of the reduction by pi / 2 is seen whole.
  const WIDEST = 1.6e6;

  test('absolute error < 1e-14 next to their zeros, up to angles of 1.6e6', () => {
    const angles = Array.from({ length: 6000 }, (_, i) => {
      const n = i < 2000 ? i : Math.floor((i - 1999) * (WIDEST / (Math.PI / 2) / 4001));
      return Math.max(0, n * (Math.PI / 2) + ((i % 7) - 3) * 3e-8);
    });
    const { cos, sin } = turns(angles);
    angles.forEach((angle, i) => {
      const [got, want] = Math.abs(Math.cos(angle)) < 0.5 ? [cos[i]!, Math.cos(angle)] : [sin[i]!, Math.sin(angle)];
      expect(Math.abs(got - want)).toBeLessThan(1e-14 + Math.abs(want) * 2 ** -24);
    });
  });

  // Halfway between two f32 numbers an error decides which of them it becomes.
  test('absolute error < 1e-14 between their zeros', () => {
    const halfway = Array.from({ length: 4000 }, (_, i) => Math.fround((i + 0.5) / 4000)).map((x) => x + halfUlp(x));
    for (const [f, inverse, name] of [
      [Math.cos, Math.acos, 'cos'],
      [Math.sin, Math.asin, 'sin'],
    ] as const) {
      const angles = halfway.flatMap((x) => [-1e-14, 1e-14].map((shift) => inverse(x + shift)));
      assertSame(turns(angles)[name], Float32Array.from(angles, f));
    }
  });

  test('absolute error < 1e-14 and a rounding anywhere', () => {
    const angles = [...sweep(0, 8, 4001), ...sweep(0, WIDEST, 4001), ...sweep(65_000, 65_536, 1000)];
    const { cos, sin } = turns(angles);
    assertClose(cos, angles.map(Math.cos), { relative: 2 ** -24, absolute: 1e-14 });
    assertClose(sin, angles.map(Math.sin), { relative: 2 ** -24, absolute: 1e-14 });
  });

  test('the four quadrants', () => {
    const { cos, sin } = turns([0, 1, 2, 3, 4].map((n) => (n * Math.PI) / 2));
    assertClose(cos, [1, 0, -1, 0, 1], { relative: 0, absolute: 1e-14 });
    assertClose(sin, [0, 1, 0, -1, 0], { relative: 0, absolute: 1e-14 });
    expect(cos[0]).toBe(1);
    expect(sin[0]).toBe(0);
  });
});
