import type { Bank } from '../runtime/bank.ts';
import { type AttentionShape, chunkedScratch, type DeltaRuleShape } from '../runtime/kernels.ts';
import { isQuantised, type Tensor } from '../runtime/tensor.ts';
import type { DeltaState, KVCache } from './cache.ts';
import type { RotaryTable } from './rotary.ts';
import type { Weights } from './weights.ts';

// Op constructors: each binds its parameters and its output buffer once and returns the op, x => y. y is overwritten by the op's next call
// and, since the halves of all layers share their scratch, by the bank's next half of a layer. T is x.rows.

export type Op = (x: Tensor) => Tensor;

/** Shows the output of an op or a module to the tap. */
export function done(m: Bank, name: string, y: Tensor): Tensor {
  m.tap?.(name, y);
  return y;
}

/** y [T, N] = x [T, K] W^T + b, T at most `rows`. HF: nn.Linear. */
export function linear(m: Bank, w: Weights, name: string, N: number, K: number, { bias = false, rows = m.rows } = {}): Op {
  const weight = w.matrix(m, `${name}.weight`, N, K);
  const b = bias ? w.vector(m, `${name}.bias`, N) : null;
  const xq = m.mode === 'fast' && isQuantised(weight.format) ? m.rounded(K) : null;
  const y = m.scratch(rows, N);
  const path = w.path(name);
  return (x) => {
    y.rows = x.rows;
    m.kernels.linear(y, x, weight, b, xq);
    return done(m, path, y);
  };
}

/**
 * Several products of one x, each as `linear`: threads meet once for all of them.
 * @param widths N of each, by its name
 * @returns for x [T, K] the products by name; the same object every time
 */
export function linears<Name extends string>(
  m: Bank,
  w: Weights,
  K: number,
  widths: Readonly<Record<Name, number>>,
  bias = false,
): (x: Tensor) => Readonly<Record<Name, Tensor>> {
  const names = Object.keys(widths) as Name[];
  const products = names.map((name) => {
    const [weight, N] = [w.matrix(m, `${name}.weight`, widths[name], K), widths[name]];
    return { w: weight, bias: bias ? w.vector(m, `${name}.bias`, N) : null, y: m.scratch(m.rows, N) };
  });
  const group = m.group(products);
  const xq = m.mode === 'fast' && products.some((product) => isQuantised(product.w.format)) ? m.rounded(K) : null;
  const paths = names.map((name) => w.path(name));
  const results = Object.fromEntries(names.map((name, i) => [name, products[i]!.y])) as Record<Name, Tensor>;
  return (x) => {
    for (let i = 0; i < products.length; i++) products[i]!.y.rows = x.rows;
    m.kernels.linears(group, x, xq);
    for (let i = 0; i < products.length; i++) done(m, paths[i]!, products[i]!.y);
    return results;
  };
}

/** y [T, D] = x / rms(x) * weight. HF: OlmoHybridRMSNorm. */
export function rms_norm(m: Bank, w: Weights, name: string, D: number, eps: number): Op {
  const weight = w.vector(m, `${name}.weight`, D);
  const y = m.scratch(m.rows, D);
  const path = w.path(name);
  return (x) => {
    y.rows = x.rows;
    m.kernels.rms_norm(y, x, weight, eps);
    return done(m, path, y);
  };
}

/** y [T, H, Dv] = x / rms(x) * weight * silu(gate), by head. HF: OlmoHybridRMSNormGated. */
export function rms_norm_gated(m: Bank, w: Weights, name: string, H: number, Dv: number, eps: number): (x: Tensor, gate: Tensor) => Tensor {
  const weight = w.vector(m, `${name}.weight`, Dv);
  const y = m.scratch(m.rows, H * Dv);
  const path = w.path(name);
  return (x, gate) => {
    y.rows = x.rows;
    m.kernels.rms_norm_gated(y, x, gate, weight, eps);
    return done(m, path, y);
  };
}

/** y [T, H, D] = x / |x|, by head. HF: l2norm. */
export function l2_norm(m: Bank, w: Weights, name: string, H: number, D: number, eps: number): Op {
  const y = m.scratch(m.rows, H * D);
  const path = w.path(name);
  return (x) => {
    y.rows = x.rows;
    m.kernels.l2_norm(y, x, D, eps);
    return done(m, path, y);
  };
}

/** y [T, C] = silu(causal depthwise convolution of x); the state keeps the last W - 1 inputs. HF: causal_conv1d_fn. */
export function causal_conv1d(m: Bank, w: Weights, name: string, C: number, W: number): (x: Tensor, state: Tensor) => Tensor {
  const weight = w.convolution(m, `${name}.weight`, C, W);
  const y = m.scratch(m.rows, C);
  const path = w.path(name);
  return (x, state) => {
    y.rows = x.rows;
    m.kernels.causal_conv1d(y, x, weight, state);
    return done(m, path, y);
  };
}

/** g [T, H] = -exp(A_log) softplus(a + dt_bias), the log decay. HF: OlmoHybridGatedDeltaNet. */
export function gdn_gate(m: Bank, w: Weights, H: number): Op {
  const A_log = w.vector(m, 'A_log', H);
  const dt_bias = w.vector(m, 'dt_bias', H);
  const g = m.scratch(m.rows, H);
  const path = w.path('g');
  return (a) => {
    g.rows = a.rows;
    m.kernels.gdn_gate(g, a, A_log, dt_bias);
    return done(m, path, g);
  };
}

/** beta [T, H] = scale * sigmoid(b). HF: OlmoHybridGatedDeltaNet. */
export function gdn_beta(m: Bank, w: Weights, H: number, scale: number): Op {
  const beta = m.scratch(m.rows, H);
  const path = w.path('beta');
  return (b) => {
    beta.rows = b.rows;
    m.kernels.gdn_beta(beta, b, scale);
    return done(m, path, beta);
  };
}

/**
 * o [T, H, Dv] read from the state, which is advanced; strict mode takes the recurrence, since chunks depend on where a prompt is cut.
 * HF: torch_chunk_gated_delta_rule, torch_recurrent_gated_delta_rule.
 */
export function gated_delta_rule(
  m: Bank,
  w: Weights,
  shape: DeltaRuleShape,
): (q: Tensor, k: Tensor, v: Tensor, g: Tensor, beta: Tensor, state: DeltaState) => Tensor {
  const o = m.scratch(m.rows, shape.H * shape.Dv);
  const scratch = m.scratch(shape.H, chunkedScratch);
  const path = w.path('delta_rule');
  const statePath = w.path('state');
  return (q, k, v, g, beta, { S }) => {
    o.rows = q.rows;
    if (m.mode === 'fast' && q.rows > 1) m.kernels.gated_delta_rule_chunked(o, q, k, v, g, beta, S, scratch, shape);
    else m.kernels.gated_delta_rule_recurrent(o, q, k, v, g, beta, S, shape);
    m.tap?.(path, o);
    m.tap?.(statePath, S);
    return o;
  };
}

/** x [T, H, Dh] rotated in place; without a table (NoPE) x itself. HF: apply_rotary_pos_emb. */
export function rotary(m: Bank, w: Weights, name: string, table: RotaryTable | null): (x: Tensor, position: number) => Tensor {
  const path = w.path(name);
  return (x, position) => {
    if (!table) return x;
    m.kernels.rotary(x, table.cos, table.sin, position);
    return done(m, path, x);
  };
}

/** o [T, H, Dh]; k and v are appended to the cache first. HF: eager_attention_forward. */
export function attention(
  m: Bank,
  w: Weights,
  shape: AttentionShape,
): (q: Tensor, k: Tensor, v: Tensor, cache: KVCache, position: number) => Tensor {
  const o = m.scratch(m.rows, shape.H * shape.Dh);
  const path = w.path('attention');
  return (q, k, v, cache, position) => {
    o.rows = q.rows;
    m.kernels.kv_append(cache.k, k, position, shape);
    m.kernels.kv_append(cache.v, v, position, shape);
    m.kernels.attention(o, q, cache.k, cache.v, position, shape);
    return done(m, path, o);
  };
}

/** y = silu(gate) * up, written over gate. HF: OlmoHybridMLP. */
export function swiglu(m: Bank): (gate: Tensor, up: Tensor) => Tensor {
  return (gate, up) => {
    m.kernels.swiglu(gate, gate, up);
    return gate;
  };
}

/** x += y: the residual stream. */
export function add_(m: Bank, x: Tensor, y: Tensor): void {
  m.kernels.add(x, y);
}
