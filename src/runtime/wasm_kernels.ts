import { LINEAR_SCRATCH } from './addressed_bank.ts';
import type { Kernels } from './kernels.ts';
import type { KernelExports } from './wasm_module.ts';

const PANEL = 16;

/** The kernels of `assembly/` over the memory of one instance, each called with the whole range of its outputs. */
export function wasmKernels(core: KernelExports): Kernels {
  return {
    name: 'wasm',
    embedding(y, ids, table) {
      const embedding = table.format === 'BF16' ? core.embedding_bf16 : core.embedding_f32;
      embedding(y.ptr, ids.ptr, table.ptr, table.K, 0, ids.rows);
    },
    linear(y, x, w, bias) {
      const linear = w.format === 'BF16' ? core.linear_bf16 : core.linear_f32;
      linear(y.ptr, x.ptr, w.ptr, bias?.ptr ?? 0, LINEAR_SCRATCH, x.rows, w.K, w.N, 0, Math.ceil(w.N / PANEL));
    },
    rms_norm(y, x, weight, eps) {
      core.rms_norm(y.ptr, x.ptr, weight.ptr, x.cols, eps, 0, x.rows);
    },
    rms_norm_gated(y, x, gate, weight, eps) {
      core.rms_norm_gated(y.ptr, x.ptr, gate.ptr, weight.ptr, weight.cols, eps, 0, (x.rows * x.cols) / weight.cols);
    },
    l2_norm(y, x, D, eps) {
      core.l2_norm(y.ptr, x.ptr, D, eps, 0, (x.rows * x.cols) / D);
    },
    causal_conv1d(y, x, weight, state) {
      core.causal_conv1d(y.ptr, x.ptr, weight.ptr, state.ptr, x.rows, x.cols, weight.rows, 0, x.cols);
    },
    gdn_gate(g, a, A_log, dt_bias) {
      core.gdn_gate(g.ptr, a.ptr, A_log.ptr, dt_bias.ptr, a.rows, a.cols, 0, a.cols);
    },
    gdn_beta(beta, b, scale) {
      core.gdn_beta(beta.ptr, b.ptr, scale, b.rows, b.cols, 0, b.cols);
    },
    gated_delta_rule_recurrent(o, q, k, v, g, beta, S, { Hk, H, Dk, Dv }) {
      core.gated_delta_rule_recurrent(o.ptr, q.ptr, k.ptr, v.ptr, g.ptr, beta.ptr, S.ptr, q.rows, Hk, H, Dk, Dv, 0, H);
    },
    gated_delta_rule_chunked(o, q, k, v, g, beta, S, scratch, { Hk, H, Dk, Dv }) {
      core.gated_delta_rule_chunked(o.ptr, q.ptr, k.ptr, v.ptr, g.ptr, beta.ptr, S.ptr, scratch.ptr, q.rows, Hk, H, Dk, Dv, 0, H);
    },
    rotary_table(cos, sin, inv_freq, attention_factor) {
      core.rotary_table(cos.ptr, sin.ptr, inv_freq.ptr, inv_freq.cols, attention_factor, 0, cos.rows);
    },
    rotary(x, cos, sin, position) {
      core.rotary(x.ptr, cos.ptr, sin.ptr, position, x.cols / (2 * cos.cols), 2 * cos.cols, 0, x.rows);
    },
    kv_append(cache, x, position, { S, Hkv, Dh }) {
      core.kv_append(cache.ptr, x.ptr, x.rows, position, S, Hkv, Dh, 0, Hkv);
    },
    attention(o, q, k, v, scores, position, { S, H, Hkv, Dh, window }) {
      core.attention(o.ptr, q.ptr, k.ptr, v.ptr, scores.ptr, q.rows, position, S, H, Hkv, Dh, window, 0, H);
    },
    swiglu(y, gate, up) {
      core.swiglu(y.ptr, gate.ptr, up.ptr, 0, gate.rows * gate.cols);
    },
    add(y, x) {
      core.add(y.ptr, x.ptr, 0, x.rows * x.cols);
    },
    softmax(y, x) {
      core.softmax(y.ptr, x.ptr, x.cols, 0, x.rows);
    },
    exp: (x) => core.exp64(x),
    log: (x) => core.log64(x),
  };
}
