import type { OlmoHybridConfig } from '../config.ts';
import type { Bank } from '../runtime/bank.ts';
import type { KVFormat } from '../runtime/kernels.ts';
import type { Tensor } from '../runtime/tensor.ts';
import { KVCache } from './cache.ts';
import { MLP } from './mlp.ts';
import { add_, attention, linear, linears, type Op, rms_norm, rotary } from './nn.ts';
import type { RotaryTable } from './rotary.ts';
import type { Weights } from './weights.ts';

/** What differs between the attention layers of one model. */
export interface AttentionOptions {
  /** Positions that the cache holds. */
  readonly context: number;
  /** Positions that a query sees, its own included; `context` for full attention. */
  readonly window: number;
  /** How the cache keeps them. */
  readonly kv: KVFormat;
  /** null: no position embedding (NoPE). */
  readonly table: RotaryTable | null;
}

/** Multi-head attention with grouped KV heads and norms over the full width of q and k. HF: OlmoHybridAttention, Olmo3Attention. */
function Attention(
  cfg: OlmoHybridConfig,
  w: Weights,
  m: Bank,
  { context, window, kv, table }: AttentionOptions,
): (x: Tensor, cache: KVCache, position: number) => Tensor {
  const { hidden_size: D, num_attention_heads: H, num_key_value_heads: Hkv, head_dim: Dh, attention_bias } = cfg;
  const project = linears(m, w, D, { q_proj: H * Dh, k_proj: Hkv * Dh, v_proj: Hkv * Dh }, attention_bias);
  const o_proj = linear(m, w, 'o_proj', D, H * Dh, { bias: attention_bias });
  const q_norm = rms_norm(m, w, 'q_norm', H * Dh, cfg.rms_norm_eps); // over all heads at once
  const k_norm = rms_norm(m, w, 'k_norm', Hkv * Dh, cfg.rms_norm_eps);
  const rotary_q = rotary(m, w, 'rotary_q', table);
  const rotary_k = rotary(m, w, 'rotary_k', table);
  const attend = attention(m, w, { H, Hkv, Dh, S: context, window, kv });

  return (x, cache, position) => {
    const { q_proj, k_proj, v_proj } = project(x);
    const q = rotary_q(q_norm(q_proj), position); // [T, H, Dh]
    const k = rotary_k(k_norm(k_proj), position); // [T, Hkv, Dh]
    return o_proj(attend(q, k, v_proj, cache, position)); // [T, D]
  };
}

/** Post-norm block. HF: OlmoHybridAttentionDecoderLayer, Olmo3DecoderLayer. The GDN block in gated_delta_net.ts is pre-norm. */
export class AttentionDecoderLayer {
  readonly cache: KVCache;
  private readonly bank: Bank;
  private readonly self_attn: (x: Tensor, cache: KVCache, position: number) => Tensor;
  private readonly post_attention_layernorm: Op;
  private readonly mlp: Op;
  private readonly post_feedforward_layernorm: Op;

  constructor(cfg: OlmoHybridConfig, w: Weights, m: Bank, options: AttentionOptions) {
    this.bank = m;
    this.cache = new KVCache(m, cfg, options.context, options.kv);
    this.self_attn = Attention(cfg, w.scope('self_attn'), m, options);
    this.post_attention_layernorm = rms_norm(m, w, 'post_attention_layernorm', cfg.hidden_size, cfg.rms_norm_eps);
    m.rewindScratch(); // all of that is in x by now
    this.mlp = MLP(cfg, w.scope('mlp'), m);
    this.post_feedforward_layernorm = rms_norm(m, w, 'post_feedforward_layernorm', cfg.hidden_size, cfg.rms_norm_eps);
  }

  /** x: [T, D], updated in place; token t sits at position + t. */
  forward(x: Tensor, position: number): void {
    add_(this.bank, x, this.post_attention_layernorm(this.self_attn(x, this.cache, position)));
    add_(this.bank, x, this.post_feedforward_layernorm(this.mlp(x)));
  }
}
