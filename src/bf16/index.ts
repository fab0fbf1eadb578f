import { gated_delta_rule } from '../reference/gated_delta_rule.ts';
import { referenceKernels } from '../reference/index.ts';
import { linear } from '../reference/linear.ts';
import type { Kernels } from '../runtime/kernels.ts';
import type { Tensor } from '../runtime/tensor.ts';
import { attention } from './attention.ts';
import { causal_conv1d } from './causal_conv1d.ts';
import { gdn_beta, gdn_gate } from './gdn_gate.ts';
import { l2_norm, rms_norm, rms_norm_gated } from './rms_norm.ts';
import { rotary, rotary_table } from './rotary.ts';
import { bf16 } from './rounding.ts';
import { swiglu } from './swiglu.ts';

/**
 * The kernels as the PyTorch release computes them in bfloat16 on a CPU: every operation of its code rounds its result once, to bfloat16 or,
 * after a cast, to float32. Inputs and weights are bfloat16 already. Sums are float64: PyTorch sums in float32, in an order of its own.
 */
export const bf16Kernels: Kernels = {
  ...referenceKernels, // embedding and kv_append copy, exp and log make frequencies in float64; the model has no softmax of its own
  name: 'bf16',
  linears({ products }, x) {
    for (const { y, w, bias } of products) this.linear(y, x, w, bias);
  },
  linear(y, x, w, bias) {
    linear(y.data, x.data, w.data, bias?.data ?? null, x.rows, w.K, w.N);
    roundAll(y); // once: the bias is added in float32
  },
  rms_norm: (y, x, weight, eps) => rms_norm(y.data, x.data, weight.data, x.rows, x.cols, eps),
  rms_norm_gated: (y, x, gate, weight, eps) =>
    rms_norm_gated(y.data, x.data, gate.data, weight.data, (x.rows * x.cols) / weight.cols, weight.cols, eps),
  l2_norm: (y, x, D, eps) => l2_norm(y.data, x.data, (x.rows * x.cols) / D, D, eps),
  causal_conv1d: (y, x, weight, state) => causal_conv1d(y.data, x.data, weight.data, state.data, x.rows, x.cols, weight.rows),
  gdn_gate: (g, a, A_log, dt_bias) => gdn_gate(g.data, a.data, A_log.data, dt_bias.data, a.rows, a.cols),
  gdn_beta: (beta, b, scale) => gdn_beta(beta.data, b.data, scale, b.rows * b.cols),
  gated_delta_rule_recurrent(o, q, k, v, g, beta, S, shape) {
    gated_delta_rule(o.data, q.data, k.data, v.data, g.data, beta.data, S.data, q.rows, shape);
    roundAll(o); // only the output: the state and all inside are float32 in PyTorch, float64 here
  },
  gated_delta_rule_chunked: (o, q, k, v, g, beta, S, _scratch, shape) =>
    bf16Kernels.gated_delta_rule_recurrent(o, q, k, v, g, beta, S, shape),
  rotary_table: (cos, sin, inv_freq, attention_factor) =>
    rotary_table(cos.data, sin.data, inv_freq.data, cos.rows, cos.cols, attention_factor),
  rotary: (x, cos, sin, position) => rotary(x.data, cos.data, sin.data, position, x.rows, x.cols / (2 * cos.cols), 2 * cos.cols),
  attention: (o, q, k, v, _scores, position, shape) => attention(o.data, q.data, k.data, v.data, q.rows, position, shape),
  swiglu: (y, gate, up) => swiglu(y.data, gate.data, up.data, gate.rows * gate.cols),
  add(y, x) {
    for (let i = 0; i < x.rows * x.cols; i++) y.data[i] = bf16(y.data[i]! + x.data[i]!);
  },
};

function roundAll({ data, rows, cols }: Tensor): void {
  for (let i = 0; i < rows * cols; i++) data[i] = bf16(data[i]!);
}
