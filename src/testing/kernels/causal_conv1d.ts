import fc from 'fast-check';
import type { KernelTensor } from '../../kernel_calls.ts';
import { size, mapped, tokens } from '../arbitraries.ts';
import type { KernelSpec } from '../kernel_spec.ts';
import { filled, joined, taken, tokensOf, turnedBy } from '../tensors.ts';
import { anyOf, CLOSED, FLUSHED, turning } from './common.ts';

type Inputs = { readonly x: KernelTensor; readonly weight: KernelTensor; readonly state: KernelTensor };
type Outputs = { readonly y: KernelTensor; readonly state_after: KernelTensor };
type Params = { readonly activation: string };

const sizes = { T: tokens, C: size(70), W: fc.constantFrom(4, 3, 2, 5) };

export const causal_conv1d: KernelSpec<Inputs, Outputs, Params> = {
  cases: (draws) =>
    fc.record({ ...sizes, x: anyOf(draws), weight: anyOf(draws), state: anyOf(draws) }).map(({ T, C, W, x, weight, state }) => ({
      inputs: { x: x(T, C), weight: weight(C, 1, W), state: state(W - 1, C) },
      params: { activation: 'silu' },
    })),
  outputs: ({ x, state }) => ({ y: x.shape, state_after: state.shape }),
  bounds({ inputs: { x, weight, state } }, { y }, u) {
    const [C, , W] = weight.shape as [number, number, number];
    const all = joined(state, x).data;
    // silu never grows an error by more than 1.1. What it closes may be 0.
    const of = y.data.map((value, i) => {
      let terms = 0;
      for (let j = 0; j < W; j++) terms += Math.abs(weight.data[(i % C) * W + j]! * all[i + j * C]!);
      return 8 * Math.abs(value) + 1.1 * (W + 2) * terms;
    });
    return { y: { relative: u, of, absolute: FLUSHED + CLOSED * 100 }, state_after: { relative: 0, absolute: 0 } };
  },
  laws: [
    {
      name: 'the state is the last inputs, the oldest first, before weight and activation',
      async holds(port, { inputs, params }) {
        const all = joined(inputs.state, inputs.x);
        const { state_after } = await port.run(inputs, params);
        port.assertEqual({ state_after }, { state_after: tokensOf(all, inputs.x.shape[0]!, all.shape[0]!) });
      },
    },
    {
      name: 'in two pieces, with the state carried on, it gives what it gives in one',
      async holds(port, { inputs, params, at }) {
        const T = inputs.x.shape[0]!;
        const cut = Math.min(1 + (at % T), T - 1);
        if (cut === 0) return;
        const one = await port.run({ ...inputs, x: tokensOf(inputs.x, 0, cut) }, params);
        const two = await port.run({ ...inputs, x: tokensOf(inputs.x, cut, T), state: one.state_after }, params);
        const whole = await port.run(inputs, params);
        port.assertNear({ y: joined(one.y, two.y), state_after: two.state_after }, whole, { inputs, params });
      },
    },
    {
      name: 'a token changes nothing before it, and nothing W tokens on',
      async holds(port, { inputs, params, at }) {
        const [T, C] = inputs.x.shape as [number, number];
        const W = inputs.weight.shape[2]!;
        const t = at % T;
        const other = { ...inputs, x: mapped(inputs.x, (value, i) => (Math.floor(i / C) === t ? 5 - value / 2 : value)) };
        const [before, after] = [(await port.run(inputs, params)).y, (await port.run(other, params)).y];
        const untouched = turnedBy(T, 0).filter((row) => row < t || row >= t + W);
        port.assertEqual({ y: taken(after, 0, untouched) }, { y: taken(before, 0, untouched) });
      },
    },
    turning('channels', { x: 1, weight: 0, state: 1, y: 1, state_after: 1 }),
    {
      name: 'the last weight meets the newest input',
      async holds(port, { inputs, params }) {
        const W = inputs.weight.shape[2]!;
        const newest = mapped(inputs.weight, (_, i) => (i % W === W - 1 ? 1 : 0));
        const x = filled(inputs.x.shape, (i) => 64 + (i % 7)); // silu leaves numbers of this size alone
        const { y } = await port.run({ ...inputs, x, weight: newest }, params);
        port.assertNear({ y }, { y: x }, { inputs: { ...inputs, x, weight: newest }, params });
      },
    },
  ],
};
