import { ConfigError, type Problem } from './errors.ts';
import { type RopeByLayerType, RopeReader } from './rope_config.ts';
import { parseJsonObject } from './text_file.ts';

export type { RopeByLayerType, RopeParameters } from './rope_config.ts';

export type LayerType = 'linear_attention' | 'full_attention' | 'sliding_attention';

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
  readonly rope: RopeByLayerType;
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
  quantization_config: null,
  residual_multiplier: 1,
  use_qk_norm: true,
};

/** Keys that HF lets be null, for their default. */
const NULLABLE = new Set(
  'num_key_value_heads linear_num_key_heads linear_num_value_heads linear_key_head_dim linear_value_head_dim layer_types'.split(' '),
);

/** What older configs of olmo_hybrid call a layer. HF: _LEGACY_LAYER_TYPE_REMAP. */
const LEGACY_LAYER_TYPES: Readonly<Record<string, LayerType>> = { attention: 'full_attention', mamba: 'linear_attention' };

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
  private readonly unknown: string[] = [];

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
      rms_norm_eps: this.notNegative('rms_norm_eps', hybrid ? 1e-6 : 1e-5),
      attention_bias: this.boolean('attention_bias', false),
      tie_word_embeddings: this.boolean('tie_word_embeddings', false),
      layer_types: this.layerTypes(hybrid, num_hidden_layers),
      sliding_window: this.slidingWindow(hybrid),
      rope: this.ropeOf(hybrid, max_position_embeddings),
      linear_num_key_heads,
      linear_num_value_heads,
      linear_key_head_dim,
      linear_value_head_dim: this.integer('linear_value_head_dim', 1, WIDEST, 2 * linear_key_head_dim),
      linear_conv_kernel_dim: this.integer('linear_conv_kernel_dim', 1, 64, 4),
      linear_allow_neg_eigval: this.boolean('linear_allow_neg_eigval', true),
      eos_token_id: this.eosTokenId(vocab_size),
      unknown_keys: [],
    };
    this.checkPadTokenId(vocab_size);
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
    const act = this.given('hidden_act', 'silu');
    if (act !== 'silu' && act !== 'swish') this.report('hidden_act', '"silu"', act, 'Other activations are not computed here.');
    this.checkOtherKeys();
    if (this.problems.length) throw new ConfigError(this.problems);
    return { ...config, unknown_keys: this.unknown };
  }

  private readonly report = (key: string, expected: string, found: unknown, fix: string): void => {
    this.problems.push({ where: `${this.where}: "${key}"`, expected, found: show(found), fix });
  };

  /** A key's value, or the fallback where the key is absent, or null and HF lets it be. */
  private given(key: string, fallback: unknown): unknown {
    this.seen.add(key);
    const value = this.json[key];
    return value === undefined || (value === null && NULLABLE.has(key)) ? fallback : value;
  }

  private integer(key: string, least: number, most: number, fallback?: number): number {
    const value = this.given(key, fallback);
    if (typeof value === 'number' && Number.isInteger(value) && value >= least && value <= most) return value;
    if (Number.isNaN(value)) return Number.NaN;
    const fix = value === undefined ? 'Add the key.' : 'Use the config.json that came with the weights.';
    this.report(key, `an integer from ${least} to ${most}`, value === undefined ? 'nothing' : value, fix);
    return Number.NaN; // reported; what is derived from it is NaN as well and not reported again
  }

  private notNegative(key: string, fallback: number): number {
    const value = this.given(key, fallback);
    if (typeof value === 'number' && Number.isFinite(value) && value >= 0) return value;
    this.report(key, 'a number of at least 0', value, 'Use the config.json that came with the weights.');
    return fallback;
  }

  private boolean(key: string, fallback: boolean): boolean {
    const value = this.given(key, fallback);
    if (typeof value === 'boolean') return value;
    this.report(key, 'true or false', value, 'Use the config.json that came with the weights.');
    return fallback;
  }

  /** Only OLMo 3 has sliding layers; a hybrid model's is not read. */
  private slidingWindow(hybrid: boolean): number | null {
    const value = this.given('sliding_window', 4096);
    return hybrid || value === null ? null : this.integer('sliding_window', 1, 2 ** 30, 4096);
  }

  /** Without ids that no model of this vocabulary draws, such as -1: HF warns of them, and no text ends with one. */
  private eosTokenId(vocab_size: number): number[] {
    const key = 'eos_token_id';
    const ids = [this.given(key, []) ?? []].flat() as unknown[];
    if (ids.every((id) => Number.isInteger(id))) return (ids as number[]).filter((id) => id >= 0 && !(id >= vocab_size));
    this.report(key, 'a token id or a list of them', this.json[key], 'Use the config.json that came with the weights.');
    return [];
  }

  /** HF gives it to torch.nn.Embedding, which counts a negative one from the end; nothing computed depends on it. */
  private checkPadTokenId(vocab_size: number): void {
    const key = 'pad_token_id';
    const id = this.given(key, null);
    if (id === null || (typeof id === 'number' && Number.isInteger(id) && id >= -vocab_size && id < vocab_size)) return;
    this.report(key, `null or a token id below vocab_size ${vocab_size}`, id, 'Use the config.json that came with the weights.');
  }

  private divides(part: string, divisor: number, whole: string, value: number): void {
    if (value % divisor) {
      this.report(part, `a divisor of ${whole} ${value}`, divisor, 'Each key head serves the same number of other heads.');
    }
  }

  private layerTypes(hybrid: boolean, layers: number): readonly LayerType[] {
    const other: LayerType = hybrid ? 'linear_attention' : 'sliding_attention';
    const given = this.given('layer_types', null);
    if (given === null) {
      const types = Array.from({ length: layers || 0 }, (_, i): LayerType => (i % 4 === 3 ? 'full_attention' : other));
      if (hybrid && layers < 4) types[layers - 1] = 'full_attention';
      return types;
    }
    // Layers of one kind are taken, which HF refuses in a hybrid: the benchmark compares with a transformer of the same parts.
    const value: unknown = hybrid && Array.isArray(given) ? given.map((type) => LEGACY_LAYER_TYPES[String(type)] ?? type) : given;
    const allowed: readonly unknown[] = [other, 'full_attention'];
    if (Number.isNaN(layers)) return [];
    if (!Array.isArray(value) || value.length !== layers || !value.every((type) => allowed.includes(type))) {
      const expected = `${layers} entries (num_hidden_layers), each "${other}" or "full_attention"`;
      this.report('layer_types', expected, given, 'Use the config.json that came with the weights.');
      return [];
    }
    return value;
  }

  private ropeOf(hybrid: boolean, max_position_embeddings: number): RopeByLayerType {
    // The last two are read for YaRN only; with another RoPE, HF passes them over.
    for (const key of ['rope_parameters', 'rope_theta', 'rope_scaling', 'partial_rotary_factor', 'original_max_position_embeddings']) {
      this.seen.add(key);
    }
    const reader = new RopeReader(this.json, max_position_embeddings, this.report);
    const rope = hybrid ? reader.hybrid() : reader.olmo3();
    this.unknown.push(...reader.unknown_keys);
    return rope;
  }

  private checkOtherKeys(): void {
    for (const [key, value] of Object.entries(this.json)) {
      if (this.seen.has(key)) continue;
      if (Object.hasOwn(NEUTRAL, key)) {
        const neutral = NEUTRAL[key];
        if (value !== null && value !== neutral) {
          this.report(key, `${show(neutral)} or no such key`, value, 'It changes the mathematics, and this engine does not compute it.');
        }
      } else if (!HARMLESS.has(key)) this.unknown.push(key);
    }
  }
}
