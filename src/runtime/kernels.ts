import type { Ids, Matrix, Tensor } from './tensor.ts';

/** Sizes of the delta rule: Hk key heads, H value heads (a multiple of Hk), Dk x Dv elements of state for each value head. */
export interface DeltaRuleShape {
  readonly Hk: number;
  readonly H: number;
  readonly Dk: number;
  readonly Dv: number;
}

/**
 * How keys and values lie in memory: f32; f16; or 8 bits with an f32 scale for each position of a head. assembly/kv_cache.ts has the layouts, and
 * kernels in TypeScript have F32 alone.
 */
export type KVFormat = 'F32' | 'F16' | 'Q8';

/** Numbers by which the kernels know the formats. */
export const KV_CODES = { F32: 0, F16: 1, Q8: 2 } as const;

/** 32-bit words of one position of a head, in a cache for keys or values. */
export function kvWords(format: KVFormat, Dh: number): number {
  if (format === 'Q8') return Math.ceil(Dh / 4) + 1;
  return format === 'F16' ? Math.ceil(Dh / 2) : Dh;
}

/** Largest head that the scratch of a thread holds a block of keys and values of, in f32. */
export const MOST_NARROW_DH = 1024;

/** Sizes of attention over a cache of S positions. `window` counts the visible positions, the query's own included. */
export interface AttentionShape {
  readonly H: number;
  readonly Hkv: number;
  readonly Dh: number;
  readonly S: number;
  readonly window: number;
  /** Default F32. */
  readonly kv?: KVFormat | undefined;
}

/** A product and where it goes. */
export interface Product {
  readonly y: Tensor;
  readonly w: Matrix;
  readonly bias: Tensor | null;
}

/** Products of one x [T, K], computed together. */
export interface LinearGroup {
  readonly products: readonly Product[];
  /** What the kernels of wasm read of them; assembly/linear_group.ts. */
  readonly table: Ids;
}

/**
 * The one list of kernels. A table of them computes the whole model: `reference/index.ts` in float64 as the text, `wasm_kernels.ts` over
 * `assembly/` as the fast print of it, `bf16/index.ts` with PyTorch's roundings to bfloat16. Outputs come first; T is `rows` of the first
 * input. Nothing is allocated by a call.
 * Equations, shapes and sources stand in `reference/<kernel>.ts` (embedding and add: `reference/index.ts`); contracts of memory in `assembly/<kernel>.ts`.
 */
export interface Kernels {
  readonly name: 'wasm' | 'reference' | 'bf16';

  /** y [T, D] = rows `ids` of table [V, D]. */
  embedding(y: Tensor, ids: Ids, table: Matrix): void;
  /** y [T, N] = x [T, K] w^T (+ bias [N]). With `xq` from `Bank.rounded`, for a quantised w: x is rounded, and the dots are of integers. */
  linear(y: Tensor, x: Tensor, w: Matrix, bias: Tensor | null, xq?: Tensor | null): void;
  /** The same for several weights and one x: y_i = x w_i^T (+ bias_i). `group` comes from `Bank.group`. */
  linears(group: LinearGroup, x: Tensor, xq?: Tensor | null): void;
  /** y [T, D] = x / rms(x) * weight. */
  rms_norm(y: Tensor, x: Tensor, weight: Tensor, eps: number): void;
  /** y = x / rms(x) * weight * silu(gate), for each head of weight.cols elements. */
  rms_norm_gated(y: Tensor, x: Tensor, gate: Tensor, weight: Tensor, eps: number): void;
  /** y = x / |x|, for each head of D elements. */
  l2_norm(y: Tensor, x: Tensor, D: number, eps: number): void;
  /** y [T, C] = silu(conv(x)); weight [W, C]; state [W - 1, C] is advanced. */
  causal_conv1d(y: Tensor, x: Tensor, weight: Tensor, state: Tensor): void;
  /** g [T, H] = -exp(A_log) softplus(a + dt_bias). */
  gdn_gate(g: Tensor, a: Tensor, A_log: Tensor, dt_bias: Tensor): void;
  /** beta [T, H] = scale * sigmoid(b). */
  gdn_beta(beta: Tensor, b: Tensor, scale: number): void;
  /** o [T, H, Dv]; S [H, Dk, Dv] is advanced, one token at a time. */
  gated_delta_rule_recurrent(o: Tensor, q: Tensor, k: Tensor, v: Tensor, g: Tensor, beta: Tensor, S: Tensor, shape: DeltaRuleShape): void;
  /** The same by chunks; `scratch` comes from `chunkedScratch`. */
  gated_delta_rule_chunked(
    o: Tensor,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    g: Tensor,
    beta: Tensor,
    S: Tensor,
    scratch: Tensor,
    shape: DeltaRuleShape,
  ): void;
  /** cos, sin [positions, Dh / 2] of position * inv_freq, times attention_factor. inv_freq is f64. */
  rotary_table(cos: Tensor, sin: Tensor, inv_freq: Tensor, attention_factor: number): void;
  /** x [T, H, Dh] rotated in place; token t sits at position + t. */
  rotary(x: Tensor, cos: Tensor, sin: Tensor, position: number): void;
  /** x [T, Hkv, Dh] is written to cache [Hkv, S, kvWords] at `position`. */
  kv_append(cache: Tensor, x: Tensor, position: number, shape: AttentionShape): void;
  /** o [T, H, Dh] from caches k and v. */
  attention(o: Tensor, q: Tensor, k: Tensor, v: Tensor, position: number, shape: AttentionShape): void;
  /** y = silu(gate) * up. */
  swiglu(y: Tensor, gate: Tensor, up: Tensor): void;
  /** y += x. */
  add(y: Tensor, x: Tensor): void;
  /** y [T, D] = softmax(x). */
  softmax(y: Tensor, x: Tensor): void;
  /** e^x of a scalar. */
  exp(x: number): number;
  /** Natural logarithm of a scalar > 0. */
  log(x: number): number;
}

/** Floats of `xq` for each row of x [T, K]; assembly/round_rows.ts says what they hold. */
export const roundedScratch = (K: number): number => Math.ceil(K / 32) * 27 + Math.ceil(K / 256);
/** Floats of scratch for each head of the chunked delta rule; assembly/gated_delta_rule_chunked.ts says what they hold. */
export const chunkedScratch = 960;
