import fc from 'fast-check';
import type { KernelTensor } from '../../kernel_calls.ts';
import { linear as reference } from '../../reference/linear.ts';
import { distinct, mapped } from '../arbitraries.ts';
import { TINY } from '../assert_close.ts';
import type { KernelSpec } from '../kernel_spec.ts';
import { indexAlong, integersLike } from '../tensors.ts';
import { anyOf, FLUSHED, rowsDoNotMeet, turning } from './common.ts';

type Inputs = { readonly x: KernelTensor; readonly weight: KernelTensor; readonly bias?: KernelTensor };
type Outputs = { readonly y: KernelTensor };

const sizes = { T: fc.nat(20), dims: distinct({ K: 129, N: 70 }) };

export const linear: KernelSpec<Inputs, Outputs, Record<never, never>> = {
  cases: (draws) =>
    fc
      .record({ ...sizes, x: anyOf(draws), weight: anyOf(draws), bias: fc.option(anyOf(draws)), cancels: fc.nat(7) })
      .map(({ T, dims: { K, N }, x, weight, bias, cancels }) => {
        const operands = { x: x(T, K), weight: weight(N, K) };
        const { x: a, weight: w } = cancels === 7 ? cancelling(operands) : operands;
        return { inputs: { x: a, weight: w, ...(bias && { bias: bias(N) }) }, params: {} };
      }),
  outputs: ({ x, weight }) => ({ y: [x.shape[0]!, weight.shape[0]!] }),
  bounds: ({ inputs: { x, weight, bias } }, _, u) => {
    const [T, K, N] = [x.shape[0]!, x.shape[1]!, weight.shape[0]!];
    const of = new Float64Array(T * N);
    reference(of, x.data.map(Math.abs), weight.data.map(Math.abs), bias ? bias.data.map(Math.abs) : null, T, K, N);
    return { y: { relative: (K + 2) * u, of, absolute: (K + 1) * TINY + FLUSHED } };
  },
  laws: [
    rowsDoNotMeet(['x']),
    {
      name: 'is linear in x: integers give exact sums',
      async holds(port, { inputs: { x, weight }, params }) {
        const [a, b, w] = [integersLike(x), integersLike(x, 1), integersLike(weight, 2)];
        const both = mapped(a, (value, i) => 3 * value - 2 * b.data[i]!);
        const [ya, yb] = [await port.run({ x: a, weight: w }, params), await port.run({ x: b, weight: w }, params)];
        port.assertEqual(await port.run({ x: both, weight: w }, params), { y: mapped(ya.y, (value, i) => 3 * value - 2 * yb.y.data[i]!) });
      },
    },
    {
      name: 'the bias is added to each token',
      async holds(port, { inputs, params }) {
        const { bias, ...rest } = inputs;
        if (!bias) return;
        const without = await port.run(rest, params);
        const column = indexAlong(without.y.shape, 1);
        const sum = mapped(without.y, (value, i) => value + bias.data[column(i)]!);
        port.assertNear(await port.run(inputs, params), { y: sum }, { inputs, params });
      },
    },
    turning('outputs', { weight: 0, bias: 0, y: 1 }),
    turning('summands', { x: 1, weight: 1 }),
  ],
};

/** Neighbours in x of opposite sign, in the weight alike: all sums cancel to about a thousandth of their terms. */
function cancelling({ x, weight }: Record<'x' | 'weight', KernelTensor>): Record<'x' | 'weight', KernelTensor> {
  const pair = ({ data, shape }: KernelTensor, sign: number): KernelTensor => ({
    shape,
    data: Float32Array.from(data, (value, i) => (i % 2 === 0 ? value : sign * data[i - 1]! * (1 + (i % 7) * 1e-4))),
  });
  return { x: pair(x, -1), weight: pair(weight, 1) };
}
