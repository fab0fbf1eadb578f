import { ConfigError, type Problem } from './errors.ts';
import { isObject, parseJsonObject } from './text_file.ts';

export type LayerType = 'linear_attention' | 'full_attention' | 'sliding_attention';

/** Rotary position embedding of one layer type. HF: `rope_parameters`. */
export interface RopeParameters {
  readonly rope_type: 'default' | 'yarn';
  readonly rope_theta: number;
  /** YaRN only, arXiv:2309.00071. */
  readonly factor: number;
  readonly original_max_position_embeddings: number;
  readonly beta_fast: number;
  readonly beta_slow: number;
  /** Scale of cos and sin; null: 0.1 ln(factor) + 1. */
  readonly attention_factor: number | null;
}

/** config.json of `olmo_hybrid` or `olmo3`, with HF's key names and defaults. HF: OlmoHybridConfig, Olmo3Config. */
export interface OlmoHybridConfig {
  readonly model_type: 'olmo_hybrid' | 'olmo3';
  readonly vocab_size: number;
  readonly hidden_size: number;
  readonly intermediate_size: number;
  readonly num_hidden_layers: number;
  readonly num_attention_heads: number;
  readonly num_key_value_heads: number;
  readonly head_dim: number;
  readonly max_position_embeddings: number;
  readonly rms_norm_eps: number;
  readonly attention_bias: boolean;
  readonly tie_word_embeddings: boolean;
  /** One for each layer. */
  readonly layer_types: readonly LayerType[];
  /** Positions that a query of a `sliding_attention` layer sees, its own included. */
  readonly sliding_window: number | null;
  /** By layer type; null: no position embedding at all (NoPE), as in the released OLMo Hybrid. */
  readonly rope: { readonly full_attention: RopeParameters | null; readonly sliding_attention: RopeParameters | null };
  readonly linear_num_key_heads: number;
  readonly linear_num_value_heads: number;
  readonly linear_key_head_dim: number;
  readonly linear_value_head_dim: number;
  readonly linear_conv_kernel_dim: number;
  /** beta lies in (0, 2) instead of (0, 1), so that a step may flip the sign of a direction of the state. */
  readonly linear_allow_neg_eigval: boolean;
  readonly eos_token_id: readonly number[];
  /** Keys of the file that this reader does not know; none of them is known to change what is computed. */
  readonly unknown_keys: readonly string[];
}

/** Keys of the file that change nothing here: training, other software, or read elsewhere. */
const HARMLESS = new Set(
  `architectures attention_dropout auto_map bos_token_id chunk_size_feed_forward dtype id2label initializer_range is_encoder_decoder label2id
  linear_a_log_max linear_a_log_min linear_dt_init_floor linear_dt_max linear_dt_min output_attentions output_hidden_states pad_token_id problem_type
  return_dict torch_dtype transformers_version use_cache _name_or_path max_window_layers`.split(/\s+/),
);

/** Keys of other architectures that change what is computed, with the value that leaves it unchanged. */
const NEUTRAL: Readonly<Record<string, unknown>> = {
  attention_multiplier: null,
  attn_logit_softcapping: null,
  clip_qkv: null,
  embedding_multiplier: 1,
  final_logit_softcapping: null,
  linear_use_gate: true,
  logit_scale: 1,
  logits_scaling: 1,
  mlp_bias: false,
  num_experts: 0,
  partial_rotary_factor: 1,
  quantization_config: null,
  residual_multiplier: 1,
  use_qk_norm: true,
};

const MOST_LAYERS = 1024;
const WIDEST = 2 ** 20;

/**
 * Reads and checks the text of a config.json.
 * @param where The file's name, for messages.
 * @throws {ConfigError} with every problem of the file.
 */
export function parseConfig(text: string, where = 'config.json'): OlmoHybridConfig {
  const json = parseJsonObject(text, where, ConfigError);
  return new ConfigReader(json, where).read();
}

function show(value: unknown): string {
  const text = JSON.stringify(value) ?? String(value);
  return text.length > 60 ? `${text.slice(0, 57)}...` : text;
}

class ConfigReader {
  private readonly json: Readonly<Record<string, unknown>>;
  private readonly where: string;
  private readonly problems: Problem[] = [];
  private readonly seen = new Set(['model_type']);

  constructor(json: Record<string, unknown>, where: string) {
    this.json = json;
    this.where = where;
  }

  read(): OlmoHybridConfig {
    const model_type = this.json['model_type'];
    if (model_type !== 'olmo_hybrid' && model_type !== 'olmo3') {
      this.report('model_type', '"olmo_hybrid" or "olmo3"', model_type, 'This engine runs these two architectures only.');
      throw new ConfigError(this.problems);
    }
    const hybrid = model_type === 'olmo_hybrid';
    const vocab_size = this.integer('vocab_size', 1, 2 ** 24);
    const hidden_size = this.integer('hidden_size', 1, WIDEST);
    const intermediate_size = this.integer('intermediate_size', 1, WIDEST);
    const num_hidden_layers = this.integer('num_hidden_layers', 1, MOST_LAYERS);
    const num_attention_heads = this.integer('num_attention_heads', 1, WIDEST);
    const num_key_value_heads = this.integer('num_key_value_heads', 1, WIDEST, num_attention_heads);
    const head_dim = this.integer('head_dim', 1, WIDEST, Math.floor(hidden_size / num_attention_heads));
    const max_position_embeddings = this.integer('max_position_embeddings', 1, 2 ** 30, hybrid ? 65536 : 2048);
    const linear_num_key_heads = this.integer('linear_num_key_heads', 1, WIDEST, num_attention_heads);
    const linear_num_value_heads = this.integer('linear_num_value_heads', 1, WIDEST, num_attention_heads);
    const linear_key_head_dim = this.integer('linear_key_head_dim', 1, WIDEST, Math.floor((0.75 * hidden_size) / linear_num_key_heads));
    const config: OlmoHybridConfig = {
      model_type,
      vocab_size,
      hidden_size,
      intermediate_size,
      num_hidden_layers,
      num_attention_heads,
      num_key_value_heads,
      head_dim,
      max_position_embeddings,
      rms_norm_eps: this.number('rms_norm_eps', hybrid ? 1e-6 : 1e-5),
      attention_bias: this.boolean('attention_bias', false),
      tie_word_embeddings: this.boolean('tie_word_embeddings', false),
      layer_types: this.layerTypes(hybrid, num_hidden_layers),
      sliding_window:
        this.json['sliding_window'] === null ? this.note('sliding_window', null) : this.integer('sliding_window', 1, 2 ** 30, 4096),
      rope: hybrid ? this.hybridRope() : this.olmo3Rope(),
      linear_num_key_heads,
      linear_num_value_heads,
      linear_key_head_dim,
      linear_value_head_dim: this.integer('linear_value_head_dim', 1, WIDEST, 2 * linear_key_head_dim),
      linear_conv_kernel_dim: this.integer('linear_conv_kernel_dim', 1, 64, 4),
      linear_allow_neg_eigval: this.boolean('linear_allow_neg_eigval', true),
      eos_token_id: this.tokenIds('eos_token_id', vocab_size),
      unknown_keys: [],
    };
    this.divides('num_key_value_heads', num_key_value_heads, 'num_attention_heads', num_attention_heads);
    this.divides('linear_num_key_heads', linear_num_key_heads, 'linear_num_value_heads', config.linear_num_value_heads);
    if ((config.rope.full_attention || config.rope.sliding_attention) && head_dim % 2) {
      this.report('head_dim', 'an even number, since RoPE rotates pairs', head_dim, 'Use the config.json that came with the weights.');
    }
    if (config.sliding_window === null && config.layer_types.includes('sliding_attention')) {
      this.report(
        'sliding_window',
        'a number of positions for the sliding_attention layers',
        null,
        'Add the window that the model was trained with.',
      );
    }
    const act = this.note('hidden_act', this.json['hidden_act'] ?? 'silu');
    if (act !== 'silu') this.report('hidden_act', '"silu"', act, 'Other activations are not computed here.');
    const unknown_keys = this.checkOtherKeys();
    if (this.problems.length) throw new ConfigError(this.problems);
    return { ...config, unknown_keys };
  }

  private report(key: string, expected: string, found: unknown, fix: string): void {
    this.problems.push({ where: `${this.where}: "${key}"`, expected, found: show(found), fix });
  }

  private note<T>(key: string, value: T): T {
    this.seen.add(key);
    return value;
  }

  private integer(key: string, least: number, most: number, fallback?: number): number {
    this.seen.add(key);
    const value = this.json[key] ?? fallback;
    if (typeof value === 'number' && Number.isInteger(value) && value >= least && value <= most) return value;
    if (Number.isNaN(value)) return Number.NaN;
    const fix = value === undefined ? 'Add the key.' : 'Use the config.json that came with the weights.';
    this.report(key, `an integer from ${least} to ${most}`, value === undefined ? 'nothing' : value, fix);
    return Number.NaN; // reported; what is derived from it is NaN as well and not reported again
  }

  private number(key: string, fallback: number): number {
    this.seen.add(key);
    const value = this.json[key] ?? fallback;
    if (typeof value === 'number' && value > 0 && value < 1) return value;
    this.report(key, 'a number between 0 and 1', value, 'Use the config.json that came with the weights.');
    return fallback;
  }

  private boolean(key: string, fallback: boolean): boolean {
    this.seen.add(key);
    const value = this.json[key] ?? fallback;
    if (typeof value === 'boolean') return value;
    this.report(key, 'true or false', value, 'Use the config.json that came with the weights.');
    return fallback;
  }

  private tokenIds(key: string, vocab_size: number): number[] {
    this.seen.add(key);
    const value = this.json[key] ?? [];
    const ids: unknown[] = Array.isArray(value) ? value : [value];
    if (ids.every((id) => typeof id === 'number' && Number.isInteger(id) && id >= 0 && !(id >= vocab_size))) return ids as number[];
    this.report(key, `token ids below vocab_size ${vocab_size}`, value, 'Use the config.json that came with the weights.');
    return [];
  }

  private divides(part: string, divisor: number, whole: string, value: number): void {
    if (value % divisor) {
      this.report(part, `a divisor of ${whole} ${value}`, divisor, 'Each key head serves the same number of other heads.');
    }
  }

  private layerTypes(hybrid: boolean, layers: number): readonly LayerType[] {
    this.seen.add('layer_types');
    const other: LayerType = hybrid ? 'linear_attention' : 'sliding_attention';
    const value = this.json['layer_types'];
    if (value === undefined || value === null) {
      const types = Array.from({ length: layers || 0 }, (_, i): LayerType => (i % 4 === 3 ? 'full_attention' : other));
      if (hybrid && layers < 4) types[layers - 1] = 'full_attention';
      return types;
    }
    const allowed = [other, 'full_attention'];
    if (Number.isNaN(layers)) return [];
    if (!Array.isArray(value) || value.length !== layers || !value.every((type) => allowed.includes(type))) {
      const expected = `${layers} entries (num_hidden_layers), each "${other}" or "full_attention"`;
      this.report('layer_types', expected, value, 'Use the config.json that came with the weights.');
      return [];
    }
    return value;
  }

  // A null or absent theta is NoPE. The release wrote `null`, {"rope_type": null} and {"rope_theta": null, …} for the same model;
  // transformers 5.18 takes the first two for theta 10000.
  private hybridRope(): OlmoHybridConfig['rope'] {
    this.seen.add('rope_parameters').add('rope_theta').add('rope_scaling');
    const nested = this.json['rope_parameters'] ?? {};
    if (!isObject(nested)) {
      this.report('rope_parameters', 'null or an object', nested, 'Use null for a model without position embedding.');
      return { full_attention: null, sliding_attention: null };
    }
    const theta = 'rope_theta' in nested ? nested['rope_theta'] : this.json['rope_theta'];
    const scaling = isObject(this.json['rope_scaling']) ? this.json['rope_scaling'] : {};
    const rope = theta === null || theta === undefined ? null : this.rope('rope_parameters', { ...scaling, ...nested, rope_theta: theta });
    return { full_attention: rope, sliding_attention: null };
  }

  // Released: rope_theta and rope_scaling at the top, YaRN then for the full layers only. transformers 5: nested by layer type.
  private olmo3Rope(): OlmoHybridConfig['rope'] {
    this.seen.add('rope_parameters').add('rope_theta').add('rope_scaling');
    const rope_theta = this.json['rope_theta'] ?? 500000;
    const scaling = this.json['rope_scaling'] ?? {};
    const nested = this.json['rope_parameters'] ?? {};
    if (!isObject(nested) || !isObject(scaling)) {
      this.report(
        'rope_parameters',
        'an object with full_attention and sliding_attention',
        nested,
        'Use the config.json that came with the weights.',
      );
      return { full_attention: null, sliding_attention: null };
    }
    const byType = 'full_attention' in nested || 'sliding_attention' in nested;
    const of = (type: string, top: object): RopeParameters => {
      const own = byType ? nested[type] : nested;
      return this.rope(`rope_parameters.${type}`, { rope_theta, ...top, ...(isObject(own) ? own : {}) });
    };
    return { full_attention: of('full_attention', scaling), sliding_attention: of('sliding_attention', {}) };
  }

  private rope(where: string, json: Readonly<Record<string, unknown>>): RopeParameters {
    const rope_type = json['rope_type'] ?? json['type'] ?? 'default';
    if (rope_type !== 'default' && rope_type !== 'yarn') {
      this.report(`${where}.rope_type`, '"default" or "yarn"', rope_type, 'Other kinds of RoPE are not computed here.');
    }
    const positive = (key: string, fallback: number): number => {
      const value = json[key] ?? fallback;
      if (typeof value === 'number' && Number.isFinite(value) && value > 0) return value;
      this.report(`${where}.${key}`, 'a positive number', value, 'Use the config.json that came with the weights.');
      return 1;
    };
    const yarn = rope_type === 'yarn';
    return {
      rope_type: yarn ? 'yarn' : 'default',
      rope_theta: positive('rope_theta', Number.NaN),
      factor: positive('factor', yarn ? Number.NaN : 1),
      original_max_position_embeddings: positive('original_max_position_embeddings', yarn ? Number.NaN : 1),
      beta_fast: positive('beta_fast', 32),
      beta_slow: positive('beta_slow', 1),
      attention_factor:
        json['attention_factor'] === undefined || json['attention_factor'] === null ? null : positive('attention_factor', 1),
    };
  }

  private checkOtherKeys(): string[] {
    const unknown: string[] = [];
    for (const [key, value] of Object.entries(this.json)) {
      if (this.seen.has(key)) continue;
      if (Object.hasOwn(NEUTRAL, key)) {
        const neutral = NEUTRAL[key];
        if (value !== null && value !== neutral) {
          this.report(key, `${show(neutral)} or no such key`, value, 'It changes the mathematics, and this engine does not compute it.');
        }
      } else if (!HARMLESS.has(key)) unknown.push(key);
    }
    return unknown;
  }
}
