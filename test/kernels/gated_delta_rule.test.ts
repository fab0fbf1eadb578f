import fc from 'fast-check';
import { describe, test } from 'vitest';
import { chunkedScratch } from '../../src/runtime/kernels.ts';
import {
  cuts,
  decays,
  directions,
  extents,
  mapped,
  pieces,
  rowsOf,
  stacked,
  strengths,
  tokens,
  type Values,
  values,
} from '../support/arbitraries.ts';
import { assertClose, assertSame, ROUNDED_ONCE, TINY, U32 } from '../support/assert_close.ts';
import { testGoldens } from '../support/kernel_golden.ts';
import { type Implementation, implementations, reference, wasm } from '../support/workbench.ts';

type Form = 'recurrent' | 'chunked';
const FORMS: readonly Form[] = ['recurrent', 'chunked'];

/** q, k [T, Hk * Dk]; v [T, H * Dv]; g, beta [T, H]; S [H, Dk * Dv]. */
interface Inputs {
  readonly q: Values;
  readonly k: Values;
  readonly v: Values;
  readonly g: Values;
  readonly beta: Values;
  readonly S: Values;
}

interface Outputs {
  readonly o: Values;
  readonly S: Values;
}

function delta_rule({ bench }: Implementation, form: Form, { q, k, v, g, beta, S }: Inputs): Outputs {
  const H = g.cols;
  const Dv = v.cols / H;
  const Dk = S.cols / Dv;
  const shape = { Hk: k.cols / Dk, H, Dk, Dv };
  const b = bench();
  const o = b.room(v.rows, v.cols);
  const state = b.put(S);
  const scratch = b.room(H, chunkedScratch);
  const args = [o, b.put(q), b.put(k), b.put(v), b.put(g), b.put(beta), state] as const;
  if (form === 'chunked') b.kernels.gated_delta_rule_chunked(...args, scratch, shape);
  else b.kernels.gated_delta_rule_recurrent(...args, shape);
  const [out, state_after] = b.take(o, state, scratch);
  return { o: out!, S: state_after! };
}

for (const form of FORMS) {
  await testGoldens(
    'gated_delta_rule',
    (implementation, { of, tensors }) => {
      const [, H] = of('v').shape;
      const after = of('state_after');
      const S = tensors.get('state') ?? mapped(after, () => 0);
      const [q, k, v, g, beta] = [of('q'), of('k'), of('v'), of('g'), of('beta')];
      const { o, S: state_after } = delta_rule(implementation, form, { q, k, v, g, beta, S: { ...S, rows: H!, cols: S.data.length / H! } });
      return { o, state_after };
    },
    { when: ({ params }) => params.form === form },
  );
}

const sizes = fc
  .record({ T: tokens, Hk: fc.integer({ min: 1, max: 2 }), repeat: fc.integer({ min: 1, max: 3 }), dims: extents('Dk', 'Dv') })
  .map(({ T, Hk, repeat, dims: { Dk, Dv } }) => ({ T, Hk, H: Hk * repeat, Dk, Dv }));

const inputs = sizes.chain(({ T, Hk, H, Dk, Dv }) =>
  fc.record({
    q: directions(T, Hk, Dk),
    k: directions(T, Hk, Dk),
    v: values(T, H * Dv),
    g: decays(T, H),
    beta: strengths(T, H),
    S: values(H, Dk * Dv),
  }),
);

/**
 * Bounds of what columns of S and o can be: |S| + sum of beta |v|, by head and column, since a step with |k| = 1 and beta in [0, 2] never
 * lengthens a column but by beta |v|. Rounding errors pass through the same steps, so they add up and do not grow.
 */
function reach({ v, beta, S }: Inputs): { o: Float64Array; S: Float64Array } {
  const [T, H] = [beta.rows, beta.cols];
  const Dv = v.cols / H;
  const Dk = S.cols / Dv;
  const columns = Float64Array.from({ length: H * Dv }, (_, hj) => {
    const [h, j] = [Math.floor(hj / Dv), hj % Dv];
    let sum = Math.hypot(...Array.from({ length: Dk }, (_, i) => S.data[h * S.cols + i * Dv + j]!));
    for (let t = 0; t < T; t++) sum += beta.data[t * H + h]! * Math.abs(v.data[t * v.cols + hj]!);
    return sum;
  });
  return {
    o: Float64Array.from(v.data, (_, i) => columns[i % v.cols]! / Math.sqrt(Dk)),
    S: Float64Array.from(S.data, (_, i) => columns[Math.floor(i / S.cols) * Dv + (i % Dv)]!),
  };
}

// Each step rounds sums over Dk (and over a chunk) with errors of both signs: sqrt(T) of them, not T, and sqrt(Dk), with a factor of 2 to spare.
function bound(inputs: Inputs, u: number): (of: Float64Array) => { relative: number; of: Float64Array; absolute: number } {
  const T = inputs.v.rows;
  const Dk = (inputs.S.cols * inputs.g.cols) / inputs.v.cols;
  const relative = 2 * u * (2 + Math.sqrt(T) + Math.sqrt(Dk));
  return (of) => ({ relative, of, absolute: 4 * T * Dk * TINY });
}

function assertOutputs(got: Outputs, want: Outputs, inputs: Inputs, u: number): void {
  const scale = reach(inputs);
  const within = bound(inputs, u);
  assertClose(got.o.data, want.o.data, within(scale.o));
  assertClose(got.S.data, want.S.data, within(scale.S));
}

describe.each(FORMS)('wasm = reference, %s', (form) => {
  test('on any shape, values, decay and strength', () => {
    fc.assert(
      fc.property(inputs, (x) => assertOutputs(delta_rule(wasm, form, x), delta_rule(reference, form, x), x, U32)),
      { numRuns: 100 },
    );
  });

  test('NaN stays in its head, and in its column where it comes with v', () => {
    fc.assert(
      fc.property(inputs, fc.nat(), fc.constantFrom('v', 'q', 'k', 'g', 'beta', 'S'), (x, at, name) => {
        const broken = { ...x, [name]: mapped(x[name], (value, i) => (i === at % x[name].data.length ? NaN : value)) };
        const nans = ({ o, S }: Outputs) => [...o.data, ...S.data].map(Number.isNaN);
        const [got, want] = [nans(delta_rule(wasm, form, broken)), nans(delta_rule(reference, form, broken))];
        assertSame(got.map(Number), want.map(Number));
      }),
      { numRuns: 30 },
    );
  });
});

test('recurrent in wasm: a token rounds each number once', () => {
  const token = inputs.map((x): Inputs => {
    const first = (y: Values) => rowsOf(y, 0, 1);
    return { q: first(x.q), k: first(x.k), v: first(x.v), g: first(x.g), beta: first(x.beta), S: x.S };
  });
  fc.assert(
    fc.property(token, (x) => {
      const [got, want, scale] = [delta_rule(wasm, 'recurrent', x), delta_rule(reference, 'recurrent', x), reach(x)];
      for (const name of ['o', 'S'] as const) {
        // What cancels leaves the errors of exp and of the sums in f64: 2^-34 of the terms.
        const of = want[name].data.map((value, i) => Math.abs(value) + 2 ** -10 * scale[name][i]!);
        assertClose(got[name].data, want[name].data, { relative: ROUNDED_ONCE, of });
      }
    }),
    { numRuns: 50 },
  );
});

test('chunked = recurrent in wasm', () => {
  fc.assert(
    fc.property(inputs, (x) => assertOutputs(delta_rule(wasm, 'chunked', x), delta_rule(wasm, 'recurrent', x), x, 2 * U32)),
    { numRuns: 50 },
  );
});

const laws = implementations.flatMap((implementation) =>
  FORMS.map((form) => ({ implementation, form, name: `${implementation.name} ${form}` })),
);

describe.each(laws)('$name', ({ implementation, form }) => {
  const { u } = implementation;
  const run = (x: Inputs) => delta_rule(implementation, form, x);

  test('beta 0 and g 0 leave the state alone', () => {
    fc.assert(
      fc.property(inputs, (x) => {
        const still = { ...x, g: mapped(x.g, () => 0), beta: mapped(x.beta, () => 0), S: mapped(x.S, (value) => value + 0) };
        assertSame(mapped(run(still).S, (value) => value + 0).data, still.S.data); // + 0: a zero may change its sign
      }),
      { numRuns: 20 },
    );
  });

  test('beta 1 and g 0: the state says v of the last k', () => {
    fc.assert(
      fc.property(inputs, (x) => {
        const { v, S, k } = x;
        // Asked with q = k, o = S^T k / sqrt(Dk).
        const asked = { ...x, q: k, g: mapped(x.g, () => 0), beta: mapped(x.beta, () => 1) };
        const Dk = (S.cols * x.g.cols) / v.cols;
        // k is of length 1 up to its rounding, which comes from f32 in both.
        assertClose(run(asked).o.data, mapped(v, (value) => value / Math.sqrt(Dk)).data, bound(asked, Math.max(u, U32))(reach(asked).o));
      }),
      { numRuns: 30 },
    );
  });

  test('g far below 0 forgets all that was', () => {
    fc.assert(
      fc.property(inputs, (x) => {
        const first = (t: number) => (value: number, i: number) => (Math.floor(i / x.g.cols) === t ? -1e4 : value);
        const forgetting = { ...x, g: mapped(x.g, first(0)) };
        const fresh = run({ ...forgetting, S: mapped(x.S, () => 0) });
        const after = run(forgetting);
        assertSame(mapped(after.o, (value) => value + 0).data, mapped(fresh.o, (value) => value + 0).data);
        assertSame(mapped(after.S, (value) => value + 0).data, mapped(fresh.S, (value) => value + 0).data);
      }),
      { numRuns: 20 },
    );
  });

  test('is linear in v and S together', () => {
    fc.assert(
      fc.property(inputs, inputs, (x, other) => {
        const some = (like: Values, from: Values) => mapped(like, (_, i) => from.data[i % from.data.length]!);
        const [v2, S2] = [some(x.v, other.v), some(x.S, other.S)];
        const sum = {
          ...x,
          v: mapped(x.v, (value, i) => Math.fround(value + v2.data[i]!)),
          S: mapped(x.S, (value, i) => Math.fround(value + S2.data[i]!)),
        };
        const [a, b] = [run(x), run({ ...x, v: v2, S: S2 })];
        const want = { o: mapped(a.o, (value, i) => value + b.o.data[i]!), S: mapped(a.S, (value, i) => value + b.S.data[i]!) };
        const magnitudes = (p: Values, q: Values) => mapped(p, (value, i) => Math.abs(value) + Math.abs(q.data[i]!));
        // The inputs of the sum were rounded to f32, for both.
        assertOutputs(run(sum), want, { ...x, v: magnitudes(x.v, v2), S: magnitudes(x.S, S2) }, 2 * Math.max(u, U32));
      }),
      { numRuns: 25 },
    );
  });

  test('heads do not meet: permuted heads give permuted results, bit for bit', () => {
    fc.assert(
      fc.property(inputs, (x) => {
        const H = x.g.cols;
        const Dk = (x.S.cols * H) / x.v.cols;
        const own = { ...x, q: repeated(x.q, H, Dk), k: repeated(x.k, H, Dk) };
        const turned = { q: turn(own.q, H), k: turn(own.k, H), v: turn(x.v, H), g: turn(x.g, H), beta: turn(x.beta, H), S: turnRows(x.S) };
        const [a, b] = [run(own), run(turned)];
        assertSame(b.o.data, turn(a.o, H).data);
        assertSame(b.S.data, turnRows(a.S).data);
      }),
      { numRuns: 20 },
    );
  });

  test('fewer key heads = the same repeated, bit for bit', () => {
    fc.assert(
      fc.property(inputs, (x) => {
        const H = x.g.cols;
        const Dk = (x.S.cols * H) / x.v.cols;
        const [a, b] = [run(x), run({ ...x, q: repeated(x.q, H, Dk), k: repeated(x.k, H, Dk) })];
        assertSame(b.o.data, a.o.data);
        assertSame(b.S.data, a.S.data);
      }),
      { numRuns: 20 },
    );
  });

  test('is causal: later tokens change nothing before them', () => {
    fc.assert(
      fc.property(inputs, fc.nat(), (x, at) => {
        const t = at % x.v.rows;
        const later = (y: Values) => mapped(y, (value, i) => (i >= t * y.cols ? NaN : value));
        const broken = { ...x, q: later(x.q), k: later(x.k), v: later(x.v), g: later(x.g), beta: later(x.beta) };
        assertSame(rowsOf(run(broken).o, 0, t).data, rowsOf(run(x).o, 0, t).data);
      }),
      { numRuns: 20 },
    );
  });
});

test.each(implementations)('recurrent $name: in pieces with the state carried on = in one piece, bit for bit', (implementation) => {
  const cut = inputs.chain((x) => fc.record({ x: fc.constant(x), at: cuts(x.v.rows) }));
  fc.assert(
    fc.property(cut, ({ x, at }) => {
      const whole = delta_rule(implementation, 'recurrent', x);
      let S = x.S;
      const parts = pieces(x.v.rows, at).map(([begin, end]) => {
        const piece = (y: Values) => rowsOf(y, begin, end);
        const out = delta_rule(implementation, 'recurrent', {
          q: piece(x.q),
          k: piece(x.k),
          v: piece(x.v),
          g: piece(x.g),
          beta: piece(x.beta),
          S,
        });
        S = out.S;
        return out.o;
      });
      assertSame(stacked(...parts).data, whole.o.data);
      assertSame(S.data, whole.S.data);
    }),
    { numRuns: 40 },
  );
});

/** Heads [T, Hk * D] each repeated H / Hk times. */
function repeated(x: Values, H: number, D: number): Values {
  const Hk = x.cols / D;
  const from = (i: number) => (Math.floor(i / (H * D)) * Hk + Math.floor((Math.floor(i / D) % H) / (H / Hk))) * D + (i % D);
  return { data: Float64Array.from({ length: x.rows * H * D }, (_, i) => x.data[from(i)]!), rows: x.rows, cols: H * D };
}

/** Each head takes the place of the next, in [T, H * D]. */
function turn(x: Values, H: number): Values {
  const D = x.cols / H;
  return mapped(x, (_, i) => x.data[Math.floor(i / x.cols) * x.cols + (((i % x.cols) + D) % x.cols)]!);
}

function turnRows(x: Values): Values {
  return mapped(x, (_, i) => x.data[(i + x.cols) % x.data.length]!);
}
