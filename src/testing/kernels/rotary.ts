import fc from 'fast-check';
import type { KernelTensor } from '../../kernel_calls.ts';
import { mapped, size } from '../arbitraries.ts';
import type { KernelSpec } from '../kernel_spec.ts';
import { elements, filled, shaped } from '../tensors.ts';
import { anyOf, FLUSHED, linearIn, rowsDoNotMeet, turning } from './common.ts';

type Inputs = { readonly x: KernelTensor };
type Outputs = { readonly y: KernelTensor };
type Params = Readonly<Record<string, number | string | null>> & { readonly position: number; readonly rope_theta: number };

const YARN = { rope_type: 'yarn', factor: 8, original_max_position_embeddings: 8192, beta_fast: 32, beta_slow: 1 };
const rope: fc.Arbitrary<Params> = fc
  .tuple(
    fc.constantFrom<Readonly<Record<string, number | string>>>(
      { rope_type: 'default' },
      { rope_type: 'default' },
      { ...YARN, attention_factor: 1.2079441541679836 },
    ),
    fc.constantFrom(10000, 500000),
    fc.oneof({ withCrossShrink: true }, fc.nat(20), fc.nat(4000)),
  )
  .map(([type, rope_theta, position]) => ({ ...type, rope_theta, position }));
const sizes = { T: fc.nat(12), H: fc.integer({ min: 1, max: 5 }), half: size(33) };

const factorOf = (params: Params) => (typeof params['attention_factor'] === 'number' ? params['attention_factor'] : 1);
/** The other element of the pair that i turns with. */
const partner = (i: number, Dh: number) => (i % Dh < Dh / 2 ? i + Dh / 2 : i - Dh / 2);

export const rotary: KernelSpec<Inputs, Outputs, Params> = {
  cases: (draws) =>
    fc
      .record({ ...sizes, params: rope, x: anyOf(draws) })
      .map(({ T, H, half, params, x }) => ({ inputs: { x: x(T, H, 2 * half) }, params })),
  outputs: ({ x }) => ({ y: x.shape }),
  bounds({ inputs: { x }, params }, _, u) {
    const [T, , Dh] = x.shape as [number, number, number];
    // The inverse frequency, its product with the position, and cos or sin of that are rounded: an angle is off by some position * u.
    const of = Float64Array.from(x.data, (value, i) => Math.abs(value) + Math.abs(x.data[partner(i, Dh)]!));
    return { y: { relative: factorOf(params) * (8 + 4 * (params.position + T)) * u, of, absolute: 2 * FLUSHED } };
  },
  laws: [
    {
      name: 'position 0 changes nothing but by the attention factor',
      async holds(port, { inputs, params }) {
        const [T, H, Dh] = inputs.x.shape as [number, number, number];
        if (T === 0) return;
        const first = { x: shaped({ data: inputs.x.data.subarray(0, H * Dh) }, 1, H, Dh) };
        const start = { ...params, position: 0 };
        const want = mapped(first.x, (value) => value * factorOf(params));
        port.assertNear(await port.run(first, start), { y: want }, { inputs: first, params: start });
      },
    },
    {
      name: 'a pair keeps its length, and meets no other',
      async holds(port, { inputs, params, at }) {
        const { shape } = inputs.x;
        if (elements(shape) === 0) return;
        const Dh = shape[2]!;
        const pair = at % (Dh / 2);
        const one = filled(shape, (i) => (i % (Dh / 2) === pair ? 3 + (i % 5) : 0));
        const { y } = await port.run({ x: one }, params);
        const lengths = (x: KernelTensor, factor: number) => mapped(x, (value, i) => factor * Math.hypot(value, x.data[partner(i, Dh)]!));
        port.assertNear({ y: lengths(y, 1) }, { y: lengths(one, factorOf(params)) }, { inputs: { x: one }, params });
      },
    },
    {
      name: 'the product of q and k depends on the distance of their positions only',
      async holds(port, { params, at }) {
        const Dh = 8;
        const [q, k] = [filled([1, 1, Dh], (i) => 1 + i), filled([1, 1, Dh], (i) => 5 - i)];
        const [i, j, shift] = [at % 13, at % 17, 1 + (at % 31)];
        const score = async (p: number, s: number) => {
          const [a, b] = [
            (await port.run({ x: q }, { ...params, position: p })).y.data,
            (await port.run({ x: k }, { ...params, position: s })).y.data,
          ];
          return Array.from(a).reduce((sum, value, n) => sum + value * b[n]!, 0);
        };
        const [near, far] = [await score(i, j), await score(i + shift, j + shift)];
        const bound = 8 * (8 + 4 * (50 + shift)) * port.u * Math.hypot(...q.data) * Math.hypot(...k.data) * factorOf(params) ** 2;
        if (!(Math.abs(near - far) <= bound)) {
          throw new Error(`positions ${i} and ${j}: ${near}; ${i + shift} and ${j + shift}: ${far}`);
        }
      },
    },
    rowsDoNotMeet(['x'], (params, token) => ({ ...params, position: params.position + token })),
    turning('heads', { x: 1, y: 1 }),
    linearIn('x', 'y'),
  ],
};
