import fc from 'fast-check';
import type { KernelTensor } from '../../kernel_calls.ts';
import { extent, mapped } from '../arbitraries.ts';
import type { Bound } from '../assert_close.ts';
import type { KernelSpec, Law } from '../kernel_spec.ts';
import { taken, turnedBy } from '../tensors.ts';
import { anyOf, CLOSED, FLUSHED, linearIn, rowsDoNotMeet, turning } from './common.ts';

type Eps = { readonly eps: number };
type Y = { readonly y: KernelTensor };

const EPS = fc.constantFrom(1e-6, 1e-5, 1e-3);
const rows = { T: fc.nat(40), D: extent };
const sumsOfSquares = ({ shape, data }: KernelTensor) => {
  const D = shape[1]!;
  return Float64Array.from({ length: shape[0]! }, (_, t) =>
    Array.from(data.subarray(t * D, (t + 1) * D)).reduce((sum, x) => sum + x * x, 0),
  );
};

/** Squares, a sum of D of them in any order, halved by the root; then a few products. x / sqrt(eps) of an x that is flushed. */
function normBound(D: number, eps: number, u: number, steps: number): Bound {
  return { relative: (D / 2 + steps) * u, absolute: FLUSHED / Math.sqrt(eps) };
}

/** The squares of a row sum to what the norm promises of it. */
function lengthLaw<I extends { readonly x: KernelTensor }>(
  name: string,
  ones: (inputs: I) => I,
  want: (s: number, eps: number, D: number) => number,
): Law<I, Y, Eps> {
  return {
    name,
    async holds(port, { inputs, params }) {
      const D = inputs.x.shape[1]!;
      const sums = sumsOfSquares((await port.run(ones(inputs), params)).y);
      const wanted = sumsOfSquares(inputs.x).map((s) => want(s, params.eps, D));
      sums.forEach((sum, t) => {
        const bound = (D + 20) * port.u * wanted[t]! + (D * FLUSHED) / params.eps;
        if (!(Math.abs(sum - wanted[t]!) <= bound)) throw new Error(`the squares of row ${t} sum to ${sum}, not ${wanted[t]}`);
      });
    },
  };
}

/** A power of two scales every step exactly, if eps takes its square. */
function scaleLaw<I extends { readonly x: KernelTensor }>(): Law<I, Y, Eps> {
  return {
    name: 'x times 2^n and eps times 4^n change nothing',
    async holds(port, { inputs, params, at }) {
      const power = 1 + (at % 8);
      const scaled = {
        inputs: { ...inputs, x: mapped(inputs.x, (x) => x * 2 ** power) },
        params: { eps: params.eps * 4 ** power },
      };
      port.assertNear(await port.run(scaled.inputs, scaled.params), await port.run(inputs, params), { inputs, params });
    },
  };
}

function zeroLaw<I extends { readonly x: KernelTensor }>(): Law<I, Y, Eps> {
  return {
    name: 'a row of zeros stays zero',
    async holds(port, { inputs, params }) {
      const zero = mapped(inputs.x, () => 0);
      port.assertEqual(await port.run({ ...inputs, x: zero }, params), { y: zero });
    },
  };
}

type Norm = { readonly x: KernelTensor; readonly weight: KernelTensor };
const ones = (inputs: Norm): Norm => ({ ...inputs, weight: mapped(inputs.weight, () => 1) });

export const rms_norm: KernelSpec<Norm, Y, Eps> = {
  cases: (draws) =>
    fc
      .record({ ...rows, eps: EPS, x: anyOf(draws), weight: anyOf(draws) })
      .map(({ T, D, eps, x, weight }) => ({ inputs: { x: x(T, D), weight: weight(D) }, params: { eps } })),
  outputs: ({ x }) => ({ y: x.shape }),
  bounds: ({ inputs: { x, weight }, params: { eps } }, _, u) => {
    const bound = normBound(x.shape[1]!, eps, u, 8);
    return { y: { ...bound, absolute: bound.absolute! * (1 + Math.max(...weight.data.map(Math.abs))) } };
  },
  laws: [
    rowsDoNotMeet(['x']),
    scaleLaw(),
    lengthLaw('with weight 1 the mean square of a row m becomes m / (m + eps)', ones, (s, eps, D) => s / (s / D + eps)),
    linearIn('weight', 'y'),
    turning('columns', { x: 1, weight: 0, y: 1 }),
    zeroLaw(),
  ],
};

type GatedNorm = Norm & { readonly gate: KernelTensor };

export const rms_norm_gated: KernelSpec<GatedNorm, Y, Eps> = {
  cases: (draws) =>
    fc
      .record({ ...rows, eps: EPS, x: anyOf(draws), gate: anyOf(draws), weight: anyOf(draws) })
      .map(({ T, D, eps, x, gate, weight }) => ({ inputs: { x: x(T, D), gate: gate(T, D), weight: weight(D) }, params: { eps } })),
  outputs: ({ x }) => ({ y: x.shape }),
  bounds: ({ inputs: { x, gate, weight }, params: { eps } }, _, u) => {
    const D = x.shape[1]!;
    const largest = ({ data }: KernelTensor) => 1 + Math.max(0, ...data.map(Math.abs));
    // A norm that is flushed meets the gate; |x| / rms(x) is at most sqrt(D), and a gate that is closed may be 0.
    const absolute = (FLUSHED / Math.sqrt(eps)) * largest(gate) + CLOSED * Math.sqrt(D);
    return { y: { ...normBound(D, eps, u, 14), absolute: absolute * largest(weight) } };
  },
  laws: [
    rowsDoNotMeet(['x', 'gate']),
    scaleLaw(),
    {
      name: 'a gate changes its own element only: the norm comes before it',
      async holds(port, { inputs, params, at }) {
        const [T, D] = inputs.x.shape as [number, number];
        if (T === 0 || D < 2) return;
        const column = at % D;
        const others = turnedBy(D, column).slice(1);
        const opened = { ...inputs, gate: mapped(inputs.gate, (gate, i) => (i % D === column ? 3 - gate / 2 : gate)) };
        const [before, after] = [await port.run(inputs, params), await port.run(opened, params)];
        port.assertEqual({ y: taken(after.y, 1, others) }, { y: taken(before.y, 1, others) });
      },
    },
    linearIn('weight', 'y'),
    turning('columns', { x: 1, gate: 1, weight: 0, y: 1 }),
    {
      name: 'a gate of 0 closes',
      async holds(port, { inputs, params }) {
        const zero = mapped(inputs.gate, () => 0);
        port.assertEqual(await port.run({ ...inputs, gate: zero }, params), { y: zero });
      },
    },
  ],
};

type Plain = { readonly x: KernelTensor };

export const l2_norm: KernelSpec<Plain, Y, Eps> = {
  cases: (draws) =>
    fc.record({ ...rows, eps: EPS, x: anyOf(draws) }).map(({ T, D, eps, x }) => ({ inputs: { x: x(T, D) }, params: { eps } })),
  outputs: ({ x }) => ({ y: x.shape }),
  bounds: ({ inputs: { x }, params: { eps } }, _, u) => ({ y: normBound(x.shape[1]!, eps, u, 8) }),
  laws: [
    rowsDoNotMeet(['x']),
    scaleLaw(),
    lengthLaw(
      'the sum of squares of a row s becomes s / (s + eps)',
      (inputs) => inputs,
      (s, eps) => s / (s + eps),
    ),
    turning('columns', { x: 1, y: 1 }),
    zeroLaw(),
  ],
};

type Rows = { readonly x: KernelTensor };
type None = Record<never, never>;

export const softmax: KernelSpec<Rows, Y, None> = {
  cases: (draws) => fc.record({ ...rows, x: anyOf(draws) }).map(({ T, D, x }) => ({ inputs: { x: x(T, D) }, params: {} })),
  outputs: ({ x }) => ({ y: x.shape }),
  bounds: ({ inputs: { x } }, { y }, u) => {
    const D = x.shape[1]!;
    const top = Float64Array.from({ length: x.shape[0]! }, (_, t) => Math.max(...x.data.subarray(t * D, (t + 1) * D)));
    // Rounding x - max turns into a relative error of its exp as large as |x - max| u; below -104 the exp is 0.
    const of = y.data.map((value, i) => value * (D + 8 + Math.min(104, top[Math.floor(i / D)]! - x.data[i]!)));
    return { y: { relative: u, of, absolute: FLUSHED } };
  },
  laws: [
    rowsDoNotMeet(['x']),
    {
      name: 'a row sums to 1',
      async holds(port, { inputs, params }) {
        const { shape, data } = (await port.run(inputs, params)).y;
        const [T, D] = shape as [number, number];
        for (let t = 0; t < T; t++) {
          const sum = Array.from(data.subarray(t * D, (t + 1) * D)).reduce((a, b) => a + b, 0);
          if (!(Math.abs(sum - 1) <= (D + 8) * port.u)) throw new Error(`row ${t} sums to ${sum}`);
        }
      },
    },
    {
      name: 'a shift of a row changes nothing',
      async holds(port, { inputs, params, at }) {
        const x = mapped(inputs.x, (value) => Math.round(Math.max(-1000, Math.min(1000, value)))); // integers shift exactly
        const shifted = mapped(x, (value) => value + (at % 5001) - 2500);
        port.assertNear(await port.run({ x: shifted }, params), await port.run({ x }, params), { inputs: { x }, params });
      },
    },
    turning('columns', { x: 1, y: 1 }),
  ],
};
