import fc from 'fast-check';
import type { KernelTensor } from '../../kernel_calls.ts';
import { type Draw, extent, mapped } from '../arbitraries.ts';
import type { KernelSpec } from '../kernel_spec.ts';
import { indexAlong } from '../tensors.ts';
import { anyOf, CLOSED, evenly, FLUSHED, linearIn, rowsDoNotMeet, turning } from './common.ts';

type None = Record<never, never>;
type Gate = { readonly a: KernelTensor; readonly A_log: KernelTensor; readonly dt_bias: KernelTensor };

const rows = { T: fc.nat(40), D: extent };
/** Over all of exp's range, or any values. */
const gates = (draws: readonly Draw[]) => fc.oneof({ withCrossShrink: true }, evenly(-100, 100), anyOf(draws));

export const gdn_gate: KernelSpec<Gate, { readonly g: KernelTensor }, None> = {
  cases: (draws) =>
    fc
      .record({ ...rows, a: gates(draws), A_log: evenly(-8, 5), dt_bias: evenly(-9, 3) })
      .map(({ T, D: H, a, A_log, dt_bias }) => ({ inputs: { a: a(T, H), A_log: A_log(H), dt_bias: dt_bias(H) }, params: {} })),
  outputs: ({ a }) => ({ g: a.shape }),
  bounds: ({ inputs: { a, A_log, dt_bias } }, truth, u) => {
    // a + dt_bias is rounded; far below 0 softplus is its exp, which turns that into a relative error of |a + dt_bias| u.
    const head = indexAlong(a.shape, 1);
    const of = truth.g.data.map(
      (g, i) => g * (10 + Math.abs(A_log.data[head(i)]!) + Math.max(0, Math.abs(a.data[i]!) + Math.abs(dt_bias.data[head(i)]!))),
    );
    return { g: { relative: u, of, absolute: FLUSHED * (1 + Math.exp(Math.max(...A_log.data))) } };
  },
  laws: [
    rowsDoNotMeet(['a']),
    turning('heads', { a: 1, A_log: 0, dt_bias: 0, g: 1 }),
    {
      name: 'is at most 0',
      async holds(port, { inputs, params }) {
        const { g } = await port.run(inputs, params);
        port.assertEqual({ g }, { g: mapped(g, (value) => Math.min(value, 0)) });
      },
    },
    {
      name: 'dt_bias is added to a',
      async holds(port, { inputs, params }) {
        const quarter = (x: KernelTensor) => mapped(x, (value) => Math.round(4 * Math.max(-30, Math.min(30, value))) / 4); // sums are exact
        const [a, dt_bias] = [quarter(inputs.a), quarter(inputs.dt_bias)];
        const head = indexAlong(a.shape, 1);
        const sum = { ...inputs, a: mapped(a, (value, i) => value + dt_bias.data[head(i)]!), dt_bias: mapped(dt_bias, () => 0) };
        port.assertNear(await port.run({ ...inputs, a, dt_bias }, params), await port.run(sum, params), { inputs: sum, params });
      },
    },
    {
      name: 'above 20 it is linear in a: softplus is the identity there',
      async holds(port, { inputs, params }) {
        const large = {
          ...inputs,
          a: mapped(inputs.a, (value) => 64 + Math.round(Math.abs(value) % 64)),
          dt_bias: mapped(inputs.dt_bias, () => 0),
        };
        const twice = { ...large, a: mapped(large.a, (value) => 2 * value) };
        const { g } = await port.run(large, params);
        port.assertNear(await port.run(twice, params), { g: mapped(g, (value) => 2 * value) }, { inputs: twice, params });
      },
    },
  ],
};

type Beta = { readonly b: KernelTensor };
type BetaParams = { readonly allow_neg_eigval: boolean };

export const gdn_beta: KernelSpec<Beta, { readonly beta: KernelTensor }, BetaParams> = {
  cases: (draws) =>
    fc
      .record({ ...rows, b: gates(draws), allow_neg_eigval: fc.boolean() })
      .map(({ T, D: H, b, allow_neg_eigval }) => ({ inputs: { b: b(T, H) }, params: { allow_neg_eigval } })),
  outputs: ({ b }) => ({ beta: b.shape }),
  bounds: (_, __, u) => ({ beta: { relative: 6 * u, absolute: 4 * FLUSHED } }),
  laws: [
    rowsDoNotMeet(['b']),
    turning('heads', { b: 1, beta: 1 }),
    {
      name: 'is twice as much with negative eigenvalues',
      async holds(port, { inputs }) {
        const [one, two] = [await port.run(inputs, { allow_neg_eigval: false }), await port.run(inputs, { allow_neg_eigval: true })];
        port.assertNear(two, { beta: mapped(one.beta, (value) => 2 * value) }, { inputs, params: { allow_neg_eigval: true } });
      },
    },
    {
      name: 'of b and of -b sum to 1, or 2',
      async holds(port, { inputs, params }) {
        const [plus, minus] = [await port.run(inputs, params), await port.run({ b: mapped(inputs.b, (value) => -value) }, params)];
        const whole = params.allow_neg_eigval ? 2 : 1;
        plus.beta.data.forEach((value, i) => {
          const sum = value + minus.beta.data[i]!;
          if (!(Math.abs(sum - whole) <= 8 * whole * port.u))
            throw new Error(`element ${i}: ${value} + ${minus.beta.data[i]} is ${sum}, not ${whole}`);
        });
      },
    },
  ],
};

type Gated = { readonly gate: KernelTensor; readonly up: KernelTensor };

export const swiglu: KernelSpec<Gated, { readonly y: KernelTensor }, None> = {
  cases: (draws) =>
    fc
      .record({ ...rows, gate: gates(draws), up: anyOf(draws) })
      .map(({ T, D, gate, up }) => ({ inputs: { gate: gate(T, D), up: up(T, D) }, params: {} })),
  outputs: ({ gate }) => ({ y: gate.shape }),
  bounds: ({ inputs: { up } }, _, u) => ({
    y: { relative: 10 * u, absolute: FLUSHED + CLOSED * (1 + Math.max(...up.data.map(Math.abs), 0)) },
  }),
  laws: [
    rowsDoNotMeet(['gate', 'up']),
    turning('columns', { gate: 1, up: 1, y: 1 }),
    linearIn('up', 'y'),
    {
      name: 'a gate of 0 closes',
      async holds(port, { inputs, params }) {
        const zero = mapped(inputs.gate, () => 0);
        port.assertEqual(await port.run({ ...inputs, gate: zero }, params), { y: zero });
      },
    },
    {
      name: 'with up 1, what a gate gives less what its negative gives is the gate',
      async holds(port, { inputs, params }) {
        const up = mapped(inputs.up, () => 1);
        const plus = await port.run({ gate: inputs.gate, up }, params);
        const minus = await port.run({ gate: mapped(inputs.gate, (value) => -value), up }, params);
        const difference = mapped(plus.y, (value, i) => value - minus.y.data[i]!);
        port.assertNear({ y: difference }, { y: inputs.gate }, { inputs: { gate: mapped(inputs.gate, Math.abs), up }, params });
      },
    },
  ],
};
