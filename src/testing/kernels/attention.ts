import fc from 'fast-check';
import type { KernelTensor } from '../../kernel_calls.ts';
import { attention as formula } from '../../reference/attention.ts';
import { type Draw, mapped, size } from '../arbitraries.ts';
import type { KernelSpec } from '../kernel_spec.ts';
import { filled, indexAlong, integersLike, shaped, taken, tokensOf, turnedBy } from '../tensors.ts';
import { anyOf, FLUSHED, linearIn } from './common.ts';

type Inputs = { readonly q: KernelTensor; readonly k: KernelTensor; readonly v: KernelTensor };
type Outputs = { readonly o: KernelTensor };
type Params = { readonly sliding_window: number | null };

/** Scores of these stay below some hundreds. */
const SCORES: readonly Draw[] = ['integers', 'normal', 'sparse', 'tiny', 'opposed'];
const sizes = {
  T: fc.integer({ min: 1, max: 20 }),
  past: fc.oneof({ withCrossShrink: true }, fc.nat(12), size(65)),
  Hkv: fc.integer({ min: 1, max: 3 }),
  repeat: fc.integer({ min: 1, max: 3 }),
  Dh: size(33),
  window: fc.nat(40),
};

export const attention: KernelSpec<Inputs, Outputs, Params> = {
  cases(draws) {
    const small = draws.filter((draw) => SCORES.includes(draw));
    const scores = anyOf(small.length > 0 ? small : SCORES);
    return fc.record({ ...sizes, q: scores, k: scores, v: anyOf(draws) }).map(({ T, past, Hkv, repeat, Dh, window, q, k, v }) => ({
      inputs: { q: q(T, Hkv * repeat, Dh), k: k(past + T, Hkv, Dh), v: v(past + T, Hkv, Dh) },
      params: { sliding_window: window % 2 === 0 ? null : (window + 1) / 2 },
    }));
  },
  outputs: ({ q }) => ({ o: q.shape }),
  bounds({ inputs: { q, k, v }, params }, _, u) {
    const [T, H, Dh] = q.shape as [number, number, number];
    const [S, Hkv] = k.shape as [number, number];
    const longest = ({ data }: KernelTensor) => {
      let most = 0;
      for (let i = 0; i < data.length; i += Dh) most = Math.max(most, Math.hypot(...data.subarray(i, i + Dh)));
      return most;
    };
    // A score is off by at most (Dh + 3) u |q| |k| / sqrt(Dh), a weight and their sum by e to that power; each product and sum rounds again.
    const score = ((Dh + 3) * u * longest(q) * longest(k)) / Math.sqrt(Dh);
    const of = new Float64Array(T * H * Dh);
    const byHead = (x: KernelTensor, f: (value: number) => number) => {
      const out = new Float64Array(x.data.length); // [S, Hkv, Dh] -> [Hkv, S, Dh]
      for (let i = 0; i < out.length; i++)
        out[((Math.floor(i / Dh) % Hkv) * S + Math.floor(i / (Hkv * Dh))) * Dh + (i % Dh)] = f(x.data[i]!);
      return out;
    };
    const window = params.sliding_window ?? S;
    formula(of, Float64Array.from(q.data), byHead(k, Number), byHead(v, Math.abs), T, S - T, { S, H, Hkv, Dh, window });
    const largest = Math.max(...v.data.map(Math.abs));
    return { o: { relative: Math.expm1(2 * score) + (S + 12) * u, of, absolute: S * FLUSHED * (1 + largest) } };
  },
  laws: [
    {
      name: 'a later token changes nothing before it',
      async holds(port, { inputs, params, at }) {
        const [T, S] = [inputs.q.shape[0]!, inputs.k.shape[0]!];
        const t = at % T;
        const later = (x: KernelTensor) => mapped(x, (value, i) => (indexAlong(x.shape, 0)(i) >= S - T + t ? 1 - value / 2 : value));
        const [before, after] = [
          await port.run(inputs, params),
          await port.run({ ...inputs, k: later(inputs.k), v: later(inputs.v) }, params),
        ];
        port.assertEqual({ o: tokensOf(after.o, 0, t) }, { o: tokensOf(before.o, 0, t) });
      },
    },
    {
      name: 'a query sees the last positions of its window and none before',
      async holds(port, { inputs, at }) {
        const [T, S] = [inputs.q.shape[0]!, inputs.k.shape[0]!];
        const params = { sliding_window: 1 + (at % 8) };
        const p = at % S;
        const other = (x: KernelTensor) => mapped(x, (value, i) => (indexAlong(x.shape, 0)(i) === p ? 1 - value / 2 : value));
        const blind = turnedBy(T, 0).filter((t) => S - T + t < p || S - T + t - params.sliding_window >= p);
        const [before, after] = [
          await port.run(inputs, params),
          await port.run({ ...inputs, k: other(inputs.k), v: other(inputs.v) }, params),
        ];
        port.assertEqual({ o: taken(after.o, 0, blind) }, { o: taken(before.o, 0, blind) });
      },
    },
    {
      name: 'a window of 1 gives each query its own value',
      async holds(port, { inputs }) {
        const params = { sliding_window: 1 };
        const [T, H] = inputs.q.shape as [number, number];
        const [S, Hkv] = inputs.v.shape as [number, number];
        const own = repeated(tokensOf(inputs.v, S - T, S), H / Hkv);
        port.assertNear(await port.run(inputs, params), { o: own }, { inputs, params });
      },
    },
    {
      name: 'the last queries alone give what they give after the first',
      async holds(port, { inputs, params, at }) {
        const T = inputs.q.shape[0]!;
        const cut = at % T;
        const rest = { ...inputs, q: tokensOf(inputs.q, cut, T) };
        const whole = await port.run(inputs, params);
        port.assertNear(await port.run(rest, params), { o: tokensOf(whole.o, cut, T) }, { inputs: rest, params });
      },
    },
    {
      name: 'fewer KV heads give what they give repeated for their neighbours',
      async holds(port, { inputs, params }) {
        const repeat = inputs.q.shape[1]! / inputs.k.shape[1]!;
        const full = { ...inputs, k: repeated(inputs.k, repeat), v: repeated(inputs.v, repeat) };
        port.assertNear(await port.run(inputs, params), await port.run(full, params), { inputs, params });
      },
    },
    {
      name: 'heads that change places change places in the result',
      async holds(port, { inputs, params, at }) {
        const Hkv = inputs.k.shape[1]!;
        const repeat = inputs.q.shape[1]! / Hkv;
        const heads = turnedBy(Hkv, at % Hkv);
        const queries = heads.flatMap((h) => Array.from({ length: repeat }, (_, r) => h * repeat + r));
        const turned = { q: taken(inputs.q, 1, queries), k: taken(inputs.k, 1, heads), v: taken(inputs.v, 1, heads) };
        const { o } = await port.run(inputs, params);
        port.assertNear(await port.run(turned, params), { o: taken(o, 1, queries) }, { inputs: turned, params });
      },
    },
    {
      name: 'the same vector added to every key shifts all scores of a query: nothing changes',
      async holds(port, { inputs, params }) {
        const [q, k] = [integersLike(inputs.q), integersLike(inputs.k, 1)];
        const shift = integersLike(shaped({ data: k.data }, ...k.shape.slice(1)), 2);
        const shifted = { ...inputs, q, k: mapped(k, (value, i) => value + shift.data[i % shift.data.length]!) };
        port.assertNear(await port.run(shifted, params), await port.run({ ...inputs, q, k }, params), { inputs: shifted, params });
      },
    },
    {
      name: 'keys of zeros give the mean of the values',
      async holds(port, { inputs }) {
        const S = inputs.k.shape[0]!;
        const last = {
          q: tokensOf(inputs.q, inputs.q.shape[0]! - 1, inputs.q.shape[0]!),
          k: mapped(inputs.k, () => 0),
          v: integersLike(inputs.v),
        };
        const [, H, Dh] = last.q.shape as [number, number, number];
        const [, Hkv] = last.v.shape as [number, number];
        const mean = filled([1, Hkv, Dh], (i) => {
          let sum = 0;
          for (let p = 0; p < S; p++) sum += last.v.data[p * Hkv * Dh + i]!;
          return sum / S;
        });
        const params = { sliding_window: null };
        port.assertNear(await port.run(last, params), { o: repeated(mean, H / Hkv) }, { inputs: last, params });
      },
    },
    linearIn('v', 'o'),
  ],
};

/** Heads [T, Hkv, D], each `times` times. */
function repeated(x: KernelTensor, times: number): KernelTensor {
  return taken(
    x,
    1,
    Array.from({ length: x.shape[1]! * times }, (_, h) => Math.floor(h / times)),
  );
}
