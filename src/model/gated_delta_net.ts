import type { OlmoHybridConfig } from '../config.ts';
import type { Bank } from '../runtime/bank.ts';
import type { Tensor } from '../runtime/tensor.ts';
import { DeltaState } from './cache.ts';
import { MLP } from './mlp.ts';
import {
  add_,
  causal_conv1d,
  gated_delta_rule,
  gdn_beta,
  gdn_gate,
  l2_norm,
  linear,
  linears,
  type Op,
  rms_norm,
  rms_norm_gated,
} from './nn.ts';
import type { Weights } from './weights.ts';

/** Of o_norm: fixed in the release, and not the config's rms_norm_eps. */
const O_NORM_EPS = 1e-5;
const L2_NORM_EPS = 1e-6;

/** Gated DeltaNet mixer, arXiv:2412.06464 §3. HF: OlmoHybridGatedDeltaNet. T tokens, D = hidden_size, Hk key heads, H value heads. */
function GatedDeltaNet(cfg: OlmoHybridConfig, w: Weights, m: Bank): (x: Tensor, state: DeltaState) => Tensor {
  const { hidden_size: D, linear_num_key_heads: Hk, linear_num_value_heads: H, linear_conv_kernel_dim: W } = cfg;
  const { linear_key_head_dim: Dk, linear_value_head_dim: Dv } = cfg;
  const project = linears(m, w, D, { q_proj: Hk * Dk, k_proj: Hk * Dk, v_proj: H * Dv, a_proj: H, b_proj: H, g_proj: H * Dv });
  const o_proj = linear(m, w, 'o_proj', D, H * Dv);
  const q_conv1d = causal_conv1d(m, w, 'q_conv1d', Hk * Dk, W);
  const k_conv1d = causal_conv1d(m, w, 'k_conv1d', Hk * Dk, W);
  const v_conv1d = causal_conv1d(m, w, 'v_conv1d', H * Dv, W);
  const q_l2norm = l2_norm(m, w, 'q_l2norm', Hk, Dk, L2_NORM_EPS);
  const k_l2norm = l2_norm(m, w, 'k_l2norm', Hk, Dk, L2_NORM_EPS);
  const decay = gdn_gate(m, w, H);
  const strength = gdn_beta(m, w, H, cfg.linear_allow_neg_eigval ? 2 : 1);
  const delta_rule = gated_delta_rule(m, w, { Hk, H, Dk, Dv });
  const o_norm = rms_norm_gated(m, w, 'o_norm', H, Dv, O_NORM_EPS);

  return (x, state) => {
    const { q_proj, k_proj, v_proj, a_proj, b_proj, g_proj } = project(x);
    const q = q_l2norm(q_conv1d(q_proj, state.conv_q)); // [T, Hk, Dk]  the convolution is causal, then silu
    const k = k_l2norm(k_conv1d(k_proj, state.conv_k)); // [T, Hk, Dk]
    const v = v_conv1d(v_proj, state.conv_v); // [T, H, Dv]
    const g = decay(a_proj); // [T, H]  -exp(A_log) softplus(a + dt_bias) <= 0
    const beta = strength(b_proj); // [T, H]  2 sigmoid(b), in (0, 2)
    const o = delta_rule(q, k, v, g, beta, state); // [T, H, Dv]  scales q by 1 / sqrt(Dk)
    return o_proj(o_norm(o, g_proj)); // [T, D]  the norm before the gate
  };
}

/** Pre-norm block. HF: OlmoHybridLinearAttentionDecoderLayer. The attention block in attention.ts is post-norm. */
export class LinearAttentionDecoderLayer {
  readonly cache: DeltaState;
  private readonly bank: Bank;
  private readonly input_layernorm: Op;
  private readonly linear_attn: (x: Tensor, state: DeltaState) => Tensor;
  private readonly post_attention_layernorm: Op;
  private readonly mlp: Op;

  constructor(cfg: OlmoHybridConfig, w: Weights, m: Bank) {
    this.bank = m;
    this.cache = new DeltaState(m, cfg);
    this.input_layernorm = rms_norm(m, w, 'input_layernorm', cfg.hidden_size, cfg.rms_norm_eps);
    this.linear_attn = GatedDeltaNet(cfg, w.scope('linear_attn'), m);
    m.rewindScratch(); // all of that is in x by now
    this.post_attention_layernorm = rms_norm(m, w, 'post_attention_layernorm', cfg.hidden_size, cfg.rms_norm_eps);
    this.mlp = MLP(cfg, w.scope('mlp'), m);
  }

  /** x: [T, D], updated in place. */
  forward(x: Tensor): void {
    add_(this.bank, x, this.linear_attn(this.input_layernorm(x), this.cache));
    add_(this.bank, x, this.mlp(this.post_attention_layernorm(x)));
  }
}
