import type { Evidence } from './evidence.ts';
import { attend, type Complex, convolution, deltaRule, sum, turned, turnsBetween } from './formulas.ts';
import { deltaInputs, EPS, gatedNorm, L2_EPS, l2Norm, O_NORM_EPS, rmsNorm, windowOf, withWeight } from './recomputed.ts';
import type { Values } from './trace_file.ts';

export type Recomputation = (e: Evidence) => Promise<Float64Array | null>;

/** An op as the release computes it, or null for one whose weights no trace shows. Of several ways the config chooses one. */
export function recomputationsOf(op: string): readonly Recomputation[] {
  return RIGHT[op.replace(/^(linear_attn|self_attn)\.[qkv]_/, '$1.*_').replace(/rotary_[qk]$/, 'rotary')] ?? [];
}

const RMS_NORM: readonly Recomputation[] = EPS.map((eps) => (e) => rmsNorm(e, eps));

const RIGHT: Readonly<Record<string, readonly Recomputation[]>> = {
  input_layernorm: RMS_NORM,
  post_attention_layernorm: RMS_NORM,
  post_feedforward_layernorm: RMS_NORM,
  'model.norm': RMS_NORM,
  '': [async (e) => sum(await e.inputs())],
  'linear_attn.*_conv1d': [(e) => withWeight(e, convolution)],
  'linear_attn.*_l2norm': [(e) => l2Norm(e, () => L2_EPS)],
  'linear_attn.delta_rule': [async (e) => deltaRule(await deltaInputs(e)).o],
  'linear_attn.state': [async (e) => deltaRule(await stateInputs(e)).state],
  'linear_attn.o_norm': [(e) => gatedNorm(e, O_NORM_EPS)],
  'self_attn.*_norm': RMS_NORM,
  'self_attn.rotary': [rotary],
  'self_attn.attention': [attention],
};

/** The state takes no q. */
async function stateInputs(e: Evidence): ReturnType<typeof deltaInputs> {
  const [k, v, g, beta] = (await e.inputs()) as [Values, Values, Values, Values];
  return [k, k, v, g, beta];
}

/** With the turns of the right trace, if these are a position embedding. */
async function rotary(e: Evidence): Promise<Float64Array | null> {
  const [[x], [rightX]] = (await Promise.all([e.inputs(), e.rightInputs()])) as [[Values], [Values]];
  const turns = turnsBetween(rightX, await e.output('right'));
  return isRope(turns, x.shape[0]!) ? turned(x, turns) : null;
}

/** How far a turn may be from what the one before it lets expect: in bfloat16 each has an error of some hundredths. */
const SLACK = 0.03;

/**
 * Whether pair i turns by f e^(i t w), w >= 0, at token t: not at all at the first, and by as much again at each one after it. Neighbours are
 * compared, so that an error of w does not grow with t.
 */
function isRope(turns: readonly Complex[], T: number): boolean {
  const half = turns.length / T;
  return turns.every(([re, im], at) => {
    const [f, none] = turns[at % half]!;
    if (!(f > 0 && Math.abs(none) <= SLACK * f)) return false;
    if (at < half) return true;
    const [c, s] = turns[(at % half) + half]!;
    const [re0, im0] = turns[at - half]!;
    return s >= -SLACK * f && Math.hypot(re - (re0 * c - im0 * s) / f, im - (re0 * s + im0 * c) / f) <= SLACK * f;
  });
}

/** With the window that the right trace shows. */
async function attention(e: Evidence): Promise<Float64Array | null> {
  const [q, k, v] = (await e.inputs()) as [Values, Values, Values];
  const [rightQ, rightK, rightV] = (await e.rightInputs()) as [Values, Values, Values];
  const T = q.shape[0]!;
  const window = windowOf(attend(rightQ, rightK, rightV, T), await e.output('right'));
  return window === 0 ? null : attend(q, k, v, window);
}
