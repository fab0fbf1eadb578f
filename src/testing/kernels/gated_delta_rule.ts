import fc from 'fast-check';
import type { KernelTensor } from '../../kernel_calls.ts';
import { anyDecays, anyDirections, anyStrengths, distinct, mapped, size } from '../arbitraries.ts';
import { type Bound, U32 } from '../assert_close.ts';
import type { KernelSpec } from '../kernel_spec.ts';
import { filled, indexAlong, joined, shaped, taken, tokensOf, turnedBy } from '../tensors.ts';
import { anyOf, doubled, eachOf, FLUSHED, shapedBy } from './common.ts';

/** q, k [T, Hk, Dk], v [T, H, Dv], g, beta [T, H], state [H, Dk, Dv]. */
type Inputs = Readonly<Record<'q' | 'k' | 'v' | 'g' | 'beta' | 'state', KernelTensor>>;
type Outputs = { readonly o: KernelTensor; readonly state_after: KernelTensor };
type Params = { readonly form: string };

const PER_TOKEN = ['q', 'k', 'v', 'g', 'beta'] as const;
const sizes = {
  T: fc.oneof({ withCrossShrink: true }, fc.integer({ min: 1, max: 8 }), size(129)), // chunks ± 1
  Hk: fc.integer({ min: 1, max: 2 }),
  repeat: fc.integer({ min: 1, max: 3 }),
  dims: distinct({ Dk: 17, Dv: 33 }),
};

export const gated_delta_rule: KernelSpec<Inputs, Outputs, Params> = {
  cases: (draws) =>
    fc
      .record({
        ...sizes,
        q: anyDirections(),
        k: anyDirections(),
        v: anyOf(draws),
        g: anyDecays().map(shapedBy),
        beta: anyStrengths().map(shapedBy),
        state: fc.option(anyOf(draws)),
        form: fc.constantFrom('recurrent', 'chunked'),
      })
      .map(({ T, Hk, repeat, dims: { Dk, Dv }, q, k, v, g, beta, state, form }) => {
        const H = Hk * repeat;
        const inputs = {
          q: shaped(q(T, Hk, Dk), T, Hk, Dk),
          k: shaped(k(T, Hk, Dk), T, Hk, Dk),
          v: v(T, H, Dv),
          g: g(T, H),
          beta: beta(T, H),
          state: state === null ? filled([H, Dk, Dv], () => 0) : state(H, Dk, Dv),
        };
        return { inputs, params: { form } };
      }),
  outputs: ({ v, state }) => ({ o: v.shape, state_after: state.shape }),
  bounds({ inputs, params }, _, u) {
    const { o, S } = reach(inputs);
    const [T, H] = inputs.g.shape as [number, number];
    const Dk = inputs.k.shape[2]!;
    // Sums over Dk, and over a chunk, with errors of both signs: roots of their lengths, with a factor of 2 to spare. The chunked form solves a
    // triangular system whose inverse has elements up to beta, so up to 2, and takes decays from differences of cumulative sums of g, which
    // are off by u times the sum.
    const steps = 2 * (2 + Math.sqrt(T) + Math.sqrt(Dk));
    const largest = Math.max(...turnedBy(H, 0).map((h) => turnedBy(T, 0).reduce((sum, t) => sum - inputs.g.data[t * H + h]!, 0)));
    const relative = u * (params.form === 'chunked' ? 2 * steps + 2 * largest : steps);
    const bound = (of: Float64Array): Bound => ({ relative, of, absolute: 4 * T * Dk * FLUSHED });
    return { o: bound(o), state_after: bound(S) };
  },
  laws: [
    {
      name: 'the chunked and the recurrent form give the same',
      async holds(port, { inputs }) {
        const [chunked, recurrent] = [await port.run(inputs, { form: 'chunked' }), await port.run(inputs, { form: 'recurrent' })];
        port.assertNear(chunked, recurrent, { inputs, params: { form: 'chunked' } });
      },
    },
    {
      name: 'in two pieces, with the state carried on, it gives what it gives in one',
      async holds(port, { inputs, params, at }) {
        const T = inputs.v.shape[0]!;
        const cut = Math.min(1 + (at % T), T - 1);
        if (cut === 0) return;
        const one = await port.run(piece(inputs, 0, cut), params);
        const two = await port.run({ ...piece(inputs, cut, T), state: one.state_after }, params);
        port.assertNear({ o: joined(one.o, two.o), state_after: two.state_after }, await port.run(inputs, params), { inputs, params });
      },
    },
    {
      name: 'a later token changes nothing before it',
      async holds(port, { inputs, params, at }) {
        const T = inputs.v.shape[0]!;
        const t = at % T;
        const later = (x: KernelTensor) => mapped(x, (value, i) => (indexAlong(x.shape, 0)(i) >= t ? value / 2 : value));
        const [before, after] = [
          await port.run(inputs, params),
          await port.run({ ...inputs, ...eachOf(PER_TOKEN, (name) => later(inputs[name])) }, params),
        ];
        port.assertEqual({ o: tokensOf(after.o, 0, t) }, { o: tokensOf(before.o, 0, t) });
      },
    },
    {
      name: 'beta 0 and g 0 leave the state as it is',
      async holds(port, { inputs, params }) {
        const still = { ...inputs, g: mapped(inputs.g, () => 0), beta: mapped(inputs.beta, () => 0) };
        const { state_after } = await port.run(still, params);
        port.assertEqual({ state_after }, { state_after: inputs.state });
      },
    },
    {
      name: 'beta 1 and g 0: asked with k, the state says v',
      async holds(port, { inputs, params }) {
        if (port.u < U32) return; // |k| is 1 up to a rounding to f32, whatever the kernel computes in
        const Dk = inputs.k.shape[2]!;
        const asked = { ...inputs, q: inputs.k, g: mapped(inputs.g, () => 0), beta: mapped(inputs.beta, () => 1) };
        const { o } = await port.run(asked, params);
        const said = mapped(inputs.v, (value) => value / Math.sqrt(Dk));
        port.assertNear({ o }, { o: said }, { inputs: asked, params });
      },
    },
    {
      name: 'g far below 0 forgets all that was',
      async holds(port, { inputs, params }) {
        const H = inputs.g.shape[1]!;
        const forgetting = { ...inputs, g: mapped(inputs.g, (value, i) => (i < H ? -1e4 : value)) };
        const fresh = { ...forgetting, state: mapped(inputs.state, () => 0) };
        port.assertEqual(await port.run(forgetting, params), await port.run(fresh, params));
      },
    },
    {
      name: 'is linear in v and state together',
      async holds(port, { inputs, params }) {
        const twice = { ...inputs, v: doubled(inputs.v), state: doubled(inputs.state) };
        const { o, state_after } = await port.run(inputs, params);
        port.assertNear(await port.run(twice, params), { o: doubled(o), state_after: doubled(state_after) }, { inputs: twice, params });
      },
    },
    {
      name: 'o is twice as much for twice q, and the state does not know of q',
      async holds(port, { inputs, params }) {
        const twice = { ...inputs, q: doubled(inputs.q) };
        const { o, state_after } = await port.run(inputs, params);
        const got = await port.run(twice, params);
        port.assertNear({ o: mapped(got.o, (value) => value / 2) }, { o }, { inputs, params });
        port.assertEqual({ state_after: got.state_after }, { state_after });
      },
    },
    {
      name: 'heads that change places change places in the result',
      async holds(port, { inputs, params, at }) {
        const H = inputs.v.shape[1]!;
        const own = { ...inputs, q: repeated(inputs.q, H), k: repeated(inputs.k, H) };
        const heads = turnedBy(H, at % H);
        const turned = { ...eachOf(PER_TOKEN, (name) => taken(own[name], 1, heads)), state: taken(own.state, 0, heads) };
        const { o, state_after } = await port.run(own, params);
        const want = { o: taken(o, 1, heads), state_after: taken(state_after, 0, heads) };
        port.assertNear(await port.run(turned, params), want, { inputs: turned, params });
      },
    },
    {
      name: 'fewer key heads give what they give repeated for their neighbours',
      async holds(port, { inputs, params }) {
        const H = inputs.v.shape[1]!;
        const full = { ...inputs, q: repeated(inputs.q, H), k: repeated(inputs.k, H) };
        port.assertNear(await port.run(inputs, params), await port.run(full, params), { inputs, params });
      },
    },
  ],
};

/**
 * Bounds of what o and the state can be: |S| + sum of beta |v|, by head and column, since a step with |k| = 1 and beta in [0, 2] never
 * lengthens a column but by beta |v|. Rounding errors pass through the same steps, so they add up and do not grow.
 */
function reach({ v, beta, state }: Inputs): { o: Float64Array; S: Float64Array } {
  const [H, Dk, Dv] = state.shape as [number, number, number];
  const columns = Float64Array.from({ length: H * Dv }, (_, hj) => {
    const [h, j] = [Math.floor(hj / Dv), hj % Dv];
    let sum = Math.hypot(...Array.from({ length: Dk }, (_, i) => state.data[(h * Dk + i) * Dv + j]!));
    for (let t = 0; t < v.shape[0]!; t++) sum += beta.data[t * H + h]! * Math.abs(v.data[t * H * Dv + hj]!);
    return sum;
  });
  return {
    o: Float64Array.from(v.data, (_, i) => columns[i % (H * Dv)]! / Math.sqrt(Dk)),
    S: Float64Array.from(state.data, (_, i) => columns[Math.floor(i / (Dk * Dv)) * Dv + (i % Dv)]!),
  };
}

function piece(inputs: Inputs, begin: number, end: number): Inputs {
  return { ...inputs, ...eachOf(PER_TOKEN, (name) => tokensOf(inputs[name], begin, end)) };
}

/** Key heads [T, Hk, Dk], each for H / Hk value heads. */
function repeated(x: KernelTensor, H: number): KernelTensor {
  const repeat = H / x.shape[1]!;
  return taken(
    x,
    1,
    Array.from({ length: H }, (_, h) => Math.floor(h / repeat)),
  );
}
