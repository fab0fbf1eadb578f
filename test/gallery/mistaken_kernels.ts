import { bf16 } from '../../src/bf16/rounding.ts';
import { silu } from '../../src/reference/activations.ts';
import { attention } from '../../src/reference/attention.ts';
import type { DeltaRuleShape, Kernels } from '../../src/runtime/kernels.ts';
import type { FloatArray, Tensor } from '../../src/runtime/tensor.ts';

// Kernels with one mistake each, written for this gallery: `diff` recomputes them with code of its own.

type Numbers = Float64Array;

/** One token of one column of the state, s [Dk], which is advanced: returns S^T q, not yet scaled. */
type Step = (s: Numbers, q: FloatArray, k: FloatArray, v: number, decay: number, beta: number) => number;

function dot(a: FloatArray, b: FloatArray): number {
  let sum = 0;
  for (let i = 0; i < a.length; i++) sum += a[i]! * b[i]!;
  return sum;
}

function scale(s: Numbers, factor: number): void {
  for (let i = 0; i < s.length; i++) s[i]! *= factor;
}

function write(s: Numbers, k: FloatArray, u: number): void {
  for (let i = 0; i < s.length; i++) s[i]! += k[i]! * u;
}

const rightStep: Step = (s, q, k, v, decay, beta) => {
  scale(s, decay);
  write(s, k, beta * (v - dot(s, k)));
  return dot(s, q);
};

export const decayAfterRead: Step = (s, q, k, v, decay, beta) => {
  const u = beta * (v - dot(s, k));
  scale(s, decay);
  write(s, k, u);
  return dot(s, q);
};

export const outputBeforeWrite: Step = (s, q, k, v, decay, beta) => {
  scale(s, decay);
  const o = dot(s, q);
  write(s, k, beta * (v - dot(s, k)));
  return o;
};

export const stateInBf16: Step = (s, ...rest) => {
  const o = rightStep(s, ...rest);
  s.set(s.map((x) => bf16(x)));
  return o;
};

export const withoutQScale: Step = (s, q, ...rest) => rightStep(s, q, ...rest) * Math.sqrt(q.length);

interface Layout {
  readonly keyHead?: (h: number, shape: DeltaRuleShape) => number;
  /** Where element (i, j) of a head's state lies. */
  readonly place?: (i: number, j: number, shape: DeltaRuleShape) => number;
}

const repeatedHead: NonNullable<Layout['keyHead']> = (h, { H, Hk }) => Math.floor((h * Hk) / H);
const rowMajor: NonNullable<Layout['place']> = (i, j, { Dv }) => i * Dv + j;

/** Both forms of the delta rule from a step. */
export function deltaRule(step: Step = rightStep, { keyHead = repeatedHead, place = rowMajor }: Layout = {}): Partial<Kernels> {
  const rule: Kernels['gated_delta_rule_recurrent'] = (o, q, k, v, g, beta, S, shape) => {
    const { Hk, H, Dk, Dv } = shape;
    for (let h = 0; h < H; h++) {
      const heads = ({ data, rows }: Tensor) => {
        const at = (t: number) => (t * Hk + keyHead(h, shape)) * Dk;
        return Array.from({ length: rows }, (_, t) => data.slice(at(t), at(t) + Dk));
      };
      const [queries, keys] = [heads(q), heads(k)];
      for (let j = 0; j < Dv; j++) {
        const at = (i: number) => h * Dk * Dv + place(i, j, shape);
        const s = Float64Array.from({ length: Dk }, (_, i) => S.data[at(i)]!);
        for (let t = 0; t < q.rows; t++) {
          const out = (t * H + h) * Dv + j;
          const [decay, strength] = [Math.exp(g.data[t * H + h]!), beta.data[t * H + h]!];
          o.data[out] = step(s, queries[t]!, keys[t]!, v.data[out]!, decay, strength) / Math.sqrt(Dk);
        }
        for (let i = 0; i < Dk; i++) S.data[at(i)] = s[i]!;
      }
    }
  };
  return {
    gated_delta_rule_recurrent: rule,
    gated_delta_rule_chunked: (o, q, k, v, g, beta, S, _scratch, shape) => rule(o, q, k, v, g, beta, S, shape),
  };
}

/** A decode kernel that takes the state as [H, Dv, Dk]; prefill leaves it as [H, Dk, Dv]. */
export function transposedInDecode(right: Kernels): Partial<Kernels> {
  const transposed = deltaRule(rightStep, { place: (i, j, { Dk }) => j * Dk + i }).gated_delta_rule_recurrent!;
  return {
    gated_delta_rule_recurrent: (...args) => (args[1].rows === 1 ? transposed : right.gated_delta_rule_recurrent)(...args),
  };
}

/** y = x / norm of each row of D. */
export function normOf(norm: (squares: number, eps: number, D: number) => number): Partial<Kernels> {
  return {
    l2_norm(y, x, D, eps) {
      for (let row = 0; row < x.rows * x.cols; row += D) {
        const values = x.data.subarray(row, row + D);
        const by = norm(dot(values, values), eps, D);
        for (let i = 0; i < D; i++) y.data[row + i] = values[i]! / by;
      }
    },
  };
}

export function gateBeforeNorm(right: Kernels): Partial<Kernels> {
  return {
    rms_norm_gated(y, x, gate, weight, eps) {
      const rows = (x.rows * x.cols) / weight.cols;
      const gated = { ...x, rows, cols: weight.cols, data: x.data.map((value, i) => value * silu(gate.data[i]!)) };
      right.rms_norm({ ...y, rows, cols: weight.cols }, gated, weight, eps);
    },
  };
}

interface Convolution {
  /** Which tap meets the input that lies j before the newest. Default: the last meets the newest. */
  readonly tap?: (j: number, W: number) => number;
  /** Tokens by which inputs come too late. */
  readonly late?: number;
  readonly activation?: (x: number) => number;
  /** What the state is made of: inputs x and outputs y. Default: inputs. */
  readonly kept?: (x: number, y: number) => number;
}

export function convolution({ tap = (j, W) => W - 1 - j, late = 0, activation = silu, kept = (x) => x }: Convolution): Partial<Kernels> {
  return {
    causal_conv1d(y, x, weight, state) {
      const [T, C, W] = [x.rows, x.cols, weight.rows];
      const before = state.data.slice();
      const history = (t: number, c: number, of: (t: number) => number) => (t < 0 ? before[Math.max(0, W - 1 + t) * C + c]! : of(t));
      for (let c = 0; c < C; c++) {
        const input = (t: number) => history(t, c, (at) => x.data[at * C + c]!);
        for (let t = 0; t < T; t++) {
          let sum = 0;
          for (let j = 0; j < W; j++) sum += weight.data[tap(j, W) * C + c]! * input(t - j - late);
          y.data[t * C + c] = activation(sum);
        }
        for (let i = 0; i < W - 1; i++) {
          state.data[i * C + c] = history(T - (W - 1) + i, c, (at) => kept(x.data[at * C + c]!, y.data[at * C + c]!));
        }
      }
    },
  };
}

/** The convolution's state is emptied after each call. */
export function stateLost(right: Kernels): Partial<Kernels> {
  return {
    causal_conv1d(y, x, weight, state) {
      right.causal_conv1d(y, x, weight, state);
      state.data.fill(0);
    },
  };
}

/** Neighbours turn with each other, as in GPT-J. */
export function interleavedRotary(): Partial<Kernels> {
  return {
    rotary(x, cos, sin, position) {
      const half = cos.cols;
      for (let pair = 0; pair < (x.rows * x.cols) / 2; pair++) {
        const angle = (position + Math.floor((2 * pair) / x.cols)) * half + (pair % half);
        const [c, s] = [cos.data[angle]!, sin.data[angle]!];
        const [a, b] = [x.data[2 * pair]!, x.data[2 * pair + 1]!];
        x.data[2 * pair] = a * c - b * s;
        x.data[2 * pair + 1] = b * c + a * s;
      }
    },
  };
}

/** Query head h reads KV head h mod Hkv. */
export function tiledKvHeads(): Partial<Kernels> {
  return {
    attention(o, q, k, v, position, { S, H, Hkv, Dh, window }) {
      for (let h = 0; h < H; h++) {
        const cache = (x: Tensor) => x.data.subarray((h % Hkv) * S * Dh, ((h % Hkv) + 1) * S * Dh);
        const head = new Float64Array(q.rows * Dh);
        for (let i = 0; i < head.length; i++) head[i] = q.data[(Math.floor(i / Dh) * H + h) * Dh + (i % Dh)]!;
        const out = new Float64Array(head.length);
        attention(out, head, cache(k), cache(v), q.rows, position, { S, H: 1, Hkv: 1, Dh, window });
        for (let i = 0; i < out.length; i++) o.data[(Math.floor(i / Dh) * H + h) * Dh + (i % Dh)] = out[i]!;
      }
    },
  };
}
