import { bf16 } from '../bf16/rounding.ts';
import type { Evidence } from './evidence.ts';
import {
  attend,
  convolution,
  type DeltaStep,
  deltaRule,
  deltaRuleInCalls,
  mistakenDeltaRule,
  normalized,
  product,
  silus,
  sum,
} from './formulas.ts';
import { measure } from './measure.ts';
import { normWeight, TAPS } from './parameters.ts';
import {
  deltaInputs,
  EPS,
  gatedNorm,
  gatedNormWeight,
  L2_EPS,
  l2Norm,
  O_NORM_EPS,
  RMS_EPS,
  rmsNorm,
  widthOf,
  windowOf,
  withWeight,
} from './recomputed.ts';
import { ROTARY, ROTARY_INSIDE_ATTENTION } from './rotary_signatures.ts';
import type { Prediction, Signature } from './signature.ts';
import type { Values } from './trace_file.ts';

// The mistakes that ports of this model make, each as a formula for the output of the op where it first shows.

/** @param right the eps of the release, where it is no matter of the config. */
function otherEps(right: number | null, cause: string, predict: (e: Evidence, eps: number) => Promise<Float64Array>): Signature[] {
  return EPS.filter((eps) => eps !== right).map((eps) => ({
    cause,
    what: `takes ${eps === 0 ? '0' : eps.toExponential()} for eps`,
    predict: (e) => predict(e, eps),
  }));
}

// RMS norms. Each takes the sum of its inputs: a residual stream is one.

const RMS_NORM = otherEps(null, 'rms_norm_eps', rmsNorm);

const QK_NORM: readonly Signature[] = [
  {
    cause: 'qk_norm_per_head',
    what: 'normalises each head by itself, where the norm goes over the full width',
    predict: async (e) => rmsNorm(e, RMS_EPS, (await e.output('right')).shape[2]!),
  },
  ...RMS_NORM,
];

/** The norm `of` an op, given what it was `meant` for and gave there. */
async function normOf(e: Evidence, of: string, meant: string, gave: Values): Promise<Float64Array> {
  const D = gave.shape[1]!;
  const x = sum([await e.right(meant)]);
  const weight = normWeight(x, normalized(x, D, RMS_EPS), gave.data, D);
  return product(normalized(sum([await e.taken(of)]), D, RMS_EPS), weight);
}

const FIRST_NORM_OF_GDN_BLOCK: readonly Signature[] = [
  {
    cause: 'post_norm_in_gdn_block',
    what: 'normalises what leaves the mixer of a Gated DeltaNet block, where the release normalises what enters it',
    predict: async (e) => normOf(e, 'linear_attn.o_proj', 'previous', await e.output('right')),
  },
  ...RMS_NORM,
];

/** No norm comes before these products; what one takes there is seen where it belongs, behind the mixer. */
const FIRST_OF_ATTENTION_BLOCK: readonly Signature[] = [
  {
    cause: 'pre_norm_in_attention_block',
    what: 'normalises what enters the mixer of an attention block, where the release normalises what leaves it',
    shows: 'post_attention_layernorm',
    predict: async (e) => normOf(e, 'previous', 'self_attn.o_proj', await e.right('post_attention_layernorm')),
  },
];

const O_NORM: readonly Signature[] = [
  ...otherEps(O_NORM_EPS, 'o_norm_eps', gatedNorm),
  {
    cause: 'gate_before_norm',
    what: 'gates before it normalises',
    async predict(e) {
      const [x, gate] = (await e.inputs()) as [Values, Values];
      return product(normalized(product(sum([x]), silus(gate)), widthOf(x), O_NORM_EPS), await gatedNormWeight(e));
    },
  },
];

// L2 norms

const L2_NORM: readonly Signature[] = [
  { cause: 'no_l2_norm', what: 'leaves the L2 norm out', predict: async (e) => sum(await e.inputs()) },
  {
    cause: 'rms_for_l2_norm',
    what: 'divides by the root of the mean of the squares, not of their sum',
    async predict(e) {
      const [x] = (await e.inputs()) as [Values];
      return normalized(sum([x]), widthOf(x), L2_EPS);
    },
  },
  { cause: 'l2_eps_on_mean', what: 'adds eps to the mean of the squares, not to their sum', predict: (e) => l2Norm(e, (D) => D * L2_EPS) },
  {
    cause: 'l2_eps_on_norm',
    what: 'adds eps to the norm, not to the sum of the squares',
    async predict(e) {
      const exact = await l2Norm(e, () => 0);
      const [x] = await e.inputs();
      // With y = x / |x|, so |x| = x / y, the mistake is x / (|x| + eps).
      return exact.map((y, i) => (y === 0 ? 0 : 1 / (1 / y + L2_EPS / x!.data[i]!)));
    },
  },
  ...otherEps(L2_EPS, 'l2_norm_eps', (e, eps) => l2Norm(e, () => eps)),
];

// Convolution

async function shiftedBack(e: Evidence): Promise<Float64Array> {
  const { data, shape } = await e.output('right');
  const C = data.length / shape[0]!;
  return Float64Array.from(data, (_, i) => data[i - C] ?? 0);
}

function reversed(weight: Float64Array): Float64Array {
  const C = weight.length / TAPS;
  return weight.map((_, i) => weight[(TAPS - 1 - Math.floor(i / C)) * C + (i % C)]!);
}

async function rowsThatDiffer(e: Evidence): Promise<boolean[]> {
  const { by_position } = measure(await e.output('right'), await e.output('suspect'), null, 'f64');
  return by_position.map((error) => error > e.bound);
}

/** The rows that differ come in runs of less than TAPS: a state was wrong at the beginning of each. Starts of the runs, or null. */
async function cuts(e: Evidence): Promise<number[] | null> {
  const differs = await rowsThatDiffer(e);
  const starts = differs.flatMap((bad, t) => (bad && !differs[t - 1] ? [t] : []));
  const short = starts.every((start) => !differs.slice(start, start + TAPS).every(Boolean) || start + TAPS > differs.length);
  return short && starts.length > 0 ? starts : null;
}

/** Where calls begin: as `cuts`, or, if more rows differ than a state reaches, at every one, since each token is a call of its own. */
async function callsOf(e: Evidence): Promise<number[]> {
  return (await cuts(e)) ?? (await rowsThatDiffer(e)).flatMap((bad, t) => (bad ? [t] : []));
}

/** The convolution with a wrong state where the pass was cut: `before` has what stood there instead of the inputs. */
async function withState(e: Evidence, before: (x: Float64Array, y: Float64Array) => Float64Array): Promise<Float64Array | null> {
  const starts = await callsOf(e);
  const y = sum([await e.output('suspect')]);
  if (starts.length === 0 || starts[0] === 0) return null;
  return withWeight(e, (x, weight) => {
    const C = weight.length / TAPS;
    const output = convolution(x, weight);
    const wrong = before(x, y);
    for (const start of starts) {
      const from = Math.max(0, start - (TAPS - 1));
      const rows = x.slice(from * C, (start + TAPS - 1) * C);
      rows.set(wrong.subarray(from * C, start * C));
      output.set(convolution(rows, weight).subarray((start - from) * C), start * C);
    }
    return output;
  });
}

const CONV: readonly Signature[] = [
  { cause: 'shifted_conv', what: 'gives each token the output of the token before', predict: shiftedBack },
  {
    cause: 'reversed_conv',
    what: 'applies the kernel backwards in time',
    predict: (e) => withWeight(e, (x, w) => convolution(x, reversed(w))),
  },
  { cause: 'conv_without_activation', what: 'leaves silu out', predict: (e) => withWeight(e, (x, w) => convolution(x, w, false)) },
  {
    cause: 'conv_state_after_activation',
    what: 'keeps outputs of the convolution between two calls, where its state is the inputs',
    predict: (e) => withState(e, (_, y) => y),
  },
  {
    cause: 'conv_state_lost',
    what: 'begins each call with an empty state of the convolution',
    predict: (e) => withState(e, (x) => new Float64Array(x.length)),
  },
];

/** Taken only when nothing else explains the difference: all but the first rows of a call agree. */
const CONV_STATE: readonly Signature[] = [
  {
    cause: 'state_of_another_text',
    what: 'does not begin with an empty state: it is left from another text',
    predict: async (e) => ((await cuts(e))?.join() === '0' ? await exceptRows(e, [0]) : null),
  },
  {
    cause: 'foreign_inputs_in_state',
    what: 'has something else than the last tokens of the text in its state between two calls, such as padding',
    predict: async (e) => exceptRows(e, await cuts(e)),
  },
];

async function exceptRows(e: Evidence, starts: readonly number[] | null): Promise<Float64Array | null> {
  if (starts === null) return null;
  const output = sum([await e.output('right')]);
  const { data, shape } = await e.output('suspect');
  const C = data.length / shape[0]!;
  for (const start of starts) output.set(data.subarray(start * C, (start + TAPS - 1) * C), start * C);
  return output;
}

// Gates and the delta rule

async function scaled(e: Evidence, factor: number): Promise<Float64Array> {
  return sum([await e.output('right')]).map((value) => factor * value);
}

const BETA: readonly Signature[] = [
  { cause: 'beta_without_2', what: 'leaves out the factor 2 of linear_allow_neg_eigval', predict: (e) => scaled(e, 0.5) },
  { cause: 'beta_with_2', what: 'has a factor 2, as for linear_allow_neg_eigval', predict: (e) => scaled(e, 2) },
];

function mistakenStep(cause: string, what: string, step: DeltaStep): Signature {
  return { cause, what, predict: async (e) => mistakenDeltaRule(await deltaInputs(e), step) };
}

/** @param change what a call makes of the state that the one before it left */
function wrongState(cause: string, what: string, change: Parameters<typeof deltaRuleInCalls>[3]): Signature {
  const predict = async (e: Evidence) => deltaRuleInCalls(await deltaInputs(e), (await e.output('suspect')).data, e.bound, change);
  return { cause, what, predict };
}

/** Where element [h, i, j] of a state [H, Dk, Dv] is in a state [H, Dv, Dk]. */
function transposedPlace(at: number, Dk: number, Dv: number): number {
  const [i, j] = [Math.floor(at / Dv) % Dk, at % Dv];
  return at - (at % (Dk * Dv)) + j * Dk + i;
}

const DELTA_RULE: readonly Signature[] = [
  mistakenStep('decay_after_read', 'reads the state before it is decayed', { read_before_decay: true }),
  mistakenStep('output_before_write', 'takes the output from the state before the token is written', { output_before_write: true }),
  mistakenStep('state_in_bf16', 'keeps the state in bfloat16', { round: bf16 }),
  wrongState('state_lost', 'begins each call with an empty state', (state) => new Float64Array(state.length)),
  wrongState('state_transposed', 'takes the state that a call left, [H, Dk, Dv], for [H, Dv, Dk]', (state, Dk, Dv) =>
    state.map((_, at) => state[transposedPlace(at, Dk, Dv)]!),
  ),
  wrongState('state_transposed', 'takes the state that a call left as [H, Dv, Dk] for [H, Dk, Dv]', (state, Dk, Dv) => {
    const other = new Float64Array(state.length);
    for (let at = 0; at < state.length; at++) other[transposedPlace(at, Dk, Dv)] = state[at]!;
    return other;
  }),
  {
    cause: 'key_heads_tiled',
    what: 'gives value head h the key head h mod Hk, where the release repeats each key head for neighbours',
    async predict(e) {
      const inputs = await deltaInputs(e);
      return inputs[0].shape[1] === inputs[2].shape[1] ? null : deltaRule(inputs, { tiled: true }).o;
    },
  },
  {
    cause: 'no_q_scale',
    what: 'does not scale q by 1 / sqrt(Dk)',
    predict: async (e) => scaled(e, Math.sqrt((await deltaInputs(e))[0].shape[2]!)),
  },
  {
    cause: 'no_l2_norm',
    what: 'takes q and k without their L2 norm',
    async predict(e) {
      const [, , v, g, beta] = await deltaInputs(e);
      return deltaRule([await e.taken('linear_attn.q_conv1d'), await e.taken('linear_attn.k_conv1d'), v, g, beta]).o;
    },
  },
  {
    cause: 'beta_without_2',
    what: 'leaves out the factor 2 of linear_allow_neg_eigval',
    async predict(e) {
      const [q, k, v, g, beta] = await deltaInputs(e);
      return deltaRule([q, k, v, g, { ...beta, data: sum([beta]).map((value) => value / 2) }]).o;
    },
  },
];

const STATE: readonly Signature[] = [
  {
    cause: 'state_transposed',
    what: 'shows the state as [H, Dv, Dk]',
    async predict(e) {
      const { shape, data } = await e.output('right');
      const [, Dk, Dv] = shape as [number, number, number];
      if (Dk !== Dv) return null;
      return Float64Array.from(data, (_, at) => data[transposedPlace(at, Dk, Dv)]!);
    },
  },
];

// Attention

const ATTENTION: readonly Signature[] = [
  ...ROTARY_INSIDE_ATTENTION,
  {
    cause: 'window',
    what: 'sees another number of positions',
    async predict(e): Promise<Prediction | null> {
      const [q, k, v] = (await e.inputs()) as [Values, Values, Values];
      const T = q.shape[0]!;
      const all = attend(q, k, v, T);
      const found = { right: windowOf(all, await e.output('right')), suspect: windowOf(all, await e.output('suspect')) };
      if (found.right === found.suspect || found.suspect === 0) return null;
      const output = found.suspect === T ? all : attend(q, k, v, found.suspect);
      return { output, found: `${found.suspect} where there should be ${found.right}` };
    },
  },
  {
    cause: 'kv_heads_tiled',
    what: 'gives query head h the KV head h mod Hkv, where the release repeats each KV head for neighbours',
    async predict(e) {
      const [q, k, v] = (await e.inputs()) as [Values, Values, Values];
      return q.shape[1] === k.shape[1] ? null : attend(q, k, v, q.shape[0]!, { tiled: true });
    },
  },
];

/** The known mistakes by the op, named within its layer, where they first show. Of two lists the second is for what the first leaves open. */
export const SIGNATURES: Readonly<Record<string, readonly (readonly Signature[])[]>> = {
  input_layernorm: [FIRST_NORM_OF_GDN_BLOCK],
  ...each(['post_attention_layernorm', 'post_feedforward_layernorm', 'model.norm'], [RMS_NORM]),
  ...each(['linear_attn.q_conv1d', 'linear_attn.k_conv1d', 'linear_attn.v_conv1d'], [CONV, CONV_STATE]),
  ...each(['linear_attn.q_l2norm', 'linear_attn.k_l2norm'], [L2_NORM]),
  'linear_attn.beta': [BETA],
  'linear_attn.delta_rule': [DELTA_RULE],
  'linear_attn.state': [STATE],
  'linear_attn.o_norm': [O_NORM],
  ...each(['self_attn.q_proj', 'self_attn.k_proj', 'self_attn.v_proj'], [FIRST_OF_ATTENTION_BLOCK]),
  ...each(['self_attn.q_norm', 'self_attn.k_norm'], [QK_NORM]),
  ...each(['self_attn.rotary_q', 'self_attn.rotary_k'], [ROTARY]),
  'self_attn.attention': [ATTENTION],
};

function each<T>(ops: readonly string[], value: T): Record<string, T> {
  return Object.fromEntries(ops.map((op) => [op, value]));
}
