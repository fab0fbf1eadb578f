import type { Kernels } from '../runtime/kernels.ts';
import { attention, kv_append } from './attention.ts';
import { causal_conv1d } from './causal_conv1d.ts';
import { gated_delta_rule } from './gated_delta_rule.ts';
import { gdn_beta, gdn_gate } from './gdn_gate.ts';
import { l2_norm } from './l2_norm.ts';
import { linear } from './linear.ts';
import { rms_norm, rms_norm_gated } from './rms_norm.ts';
import { rotary, rotary_table } from './rotary.ts';
import { softmax } from './softmax.ts';
import { swiglu } from './swiglu.ts';

/** The kernels as plain TypeScript in float64: slow, exact, and the definition of what the fast ones compute. */
export const referenceKernels: Kernels = {
  name: 'reference',
  embedding(y, ids, table) {
    const D = table.K;
    for (let t = 0; t < ids.rows; t++) {
      const row = ids.data[t]! * D;
      y.data.set(table.data.subarray(row, row + D), t * D);
    }
  },
  linear: (y, x, w, bias) => linear(y.data, x.data, w.data, bias?.data ?? null, x.rows, w.K, w.N),
  linears({ products }, x) {
    for (const { y, w, bias } of products) this.linear(y, x, w, bias);
  },
  rms_norm: (y, x, weight, eps) => rms_norm(y.data, x.data, weight.data, x.rows, x.cols, eps),
  rms_norm_gated: (y, x, gate, weight, eps) =>
    rms_norm_gated(y.data, x.data, gate.data, weight.data, (x.rows * x.cols) / weight.cols, weight.cols, eps),
  l2_norm: (y, x, D, eps) => l2_norm(y.data, x.data, (x.rows * x.cols) / D, D, eps),
  causal_conv1d: (y, x, weight, state) => causal_conv1d(y.data, x.data, weight.data, state.data, x.rows, x.cols, weight.rows),
  gdn_gate: (g, a, A_log, dt_bias) => gdn_gate(g.data, a.data, A_log.data, dt_bias.data, a.rows, a.cols),
  gdn_beta: (beta, b, scale) => gdn_beta(beta.data, b.data, scale, b.rows * b.cols),
  gated_delta_rule_recurrent: (o, q, k, v, g, beta, S, shape) =>
    gated_delta_rule(o.data, q.data, k.data, v.data, g.data, beta.data, S.data, q.rows, shape),
  // In float64 the two forms agree to rounding, so the reference keeps the one that reads like the paper.
  gated_delta_rule_chunked: (o, q, k, v, g, beta, S, _scratch, shape) =>
    gated_delta_rule(o.data, q.data, k.data, v.data, g.data, beta.data, S.data, q.rows, shape),
  rotary_table: (cos, sin, inv_freq, attention_factor) =>
    rotary_table(cos.data, sin.data, inv_freq.data, cos.rows, cos.cols, attention_factor),
  rotary: (x, cos, sin, position) => rotary(x.data, cos.data, sin.data, position, x.rows, x.cols / (2 * cos.cols), 2 * cos.cols),
  kv_append: (cache, x, position, shape) => kv_append(cache.data, x.data, x.rows, position, shape),
  attention: (o, q, k, v, _scores, position, shape) => attention(o.data, q.data, k.data, v.data, q.rows, position, shape),
  swiglu: (y, gate, up) => swiglu(y.data, gate.data, up.data, gate.rows * gate.cols),
  add(y, x) {
    for (let i = 0; i < x.rows * x.cols; i++) y.data[i]! += x.data[i]!;
  },
  softmax: (y, x) => softmax(y.data, x.data, x.rows, x.cols),
  exp: Math.exp,
  log: Math.log,
};
