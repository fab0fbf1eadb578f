import { isObject } from './text_file.ts';

/** Rotary position embedding of one layer type. HF: `rope_parameters`. */
export interface RopeParameters {
  readonly rope_type: 'default' | 'yarn';
  readonly rope_theta: number;
  /** YaRN only, arXiv:2309.00071. */
  readonly factor: number;
  readonly original_max_position_embeddings: number;
  readonly beta_fast: number;
  readonly beta_slow: number;
  /** Scale of cos and sin; null: from `factor`, and `mscale` and `mscale_all_dim` where there are both. */
  readonly attention_factor: number | null;
  readonly mscale?: number;
  readonly mscale_all_dim?: number;
  /** Whether the ramp begins and ends at whole dimensions. Default true. */
  readonly truncate?: boolean;
}

/** By layer type; null: no position embedding at all (NoPE), as in the released OLMo Hybrid. */
export interface RopeByLayerType {
  readonly full_attention: RopeParameters | null;
  readonly sliding_attention: RopeParameters | null;
}

type Json = Readonly<Record<string, unknown>>;
type Report = (key: string, expected: string, found: unknown, fix: string) => void;

const OF_ANY = 'rope_type type rope_theta partial_rotary_factor'.split(' ');
const OF_YARN = 'factor original_max_position_embeddings beta_fast beta_slow attention_factor mscale mscale_all_dim truncate'.split(' ');
const OF_WEIGHTS = 'Use the config.json that came with the weights.';

/**
 * Reads the rotary position embedding out of a config.json, from the places where transformers 5.18 looks for it.
 * HF: RotaryEmbeddingConfigMixin, Olmo3Config.convert_rope_params_to_dict, _compute_yarn_parameters.
 */
export class RopeReader {
  /** Keys that this reader passed over, as HF does. */
  readonly unknown_keys: string[] = [];
  private readonly json: Json;
  private readonly max_position_embeddings: number;
  private readonly report: Report;

  constructor(json: Json, max_position_embeddings: number, report: Report) {
    this.json = json;
    this.max_position_embeddings = max_position_embeddings;
    this.report = report;
  }

  // One of the two objects, never both; its own theta, then the one at the top, then 10000. A null theta is NoPE.
  // The release wrote `null`, {"rope_type": null} and {"rope_theta": null, …} for the same model, and NoPE is what it was trained with;
  // transformers 5.18 takes the first for theta 10000 and stumbles over the second.
  hybrid(): RopeByLayerType {
    const none = { full_attention: null, sliding_attention: null };
    const scaling = this.objectAt('rope_scaling');
    const isGiven = Object.keys(scaling).length > 0;
    const given = isGiven ? scaling : this.objectAt('rope_parameters');
    const where = isGiven ? 'rope_scaling' : 'rope_parameters';
    // HF nests theta with the rest here, and then looks for it at the top.
    if ('full_attention' in given || 'linear_attention' in given) {
      this.noteUnknown(where, given, []);
      return none;
    }
    const isSilent = (given['rope_type'] ?? given['type'] ?? null) === null;
    const top = 'rope_theta' in this.json ? this.json['rope_theta'] : isSilent ? null : 10000;
    const rope_theta = 'rope_theta' in given ? given['rope_theta'] : top;
    if (rope_theta === null) {
      this.noteUnknown(where, given, [...OF_ANY, ...OF_YARN]);
      return none;
    }
    const original = 'original_max_position_embeddings';
    const merged =
      // The one at the top wins.
      original in this.json && (given['rope_type'] ?? given['type']) === 'yarn' ? { ...given, [original]: this.json[original] } : given;
    return { ...none, full_attention: this.rope(where, { ...merged, rope_theta }, given['truncate']) };
  }

  // Nested by layer type; what is not nested is not read, but for `truncate`, which is read nowhere else. rope_scaling, as released, is of the
  // full layers and goes over what is nested. So is rope_theta at the top: the sliding layers keep 500000.
  olmo3(): RopeByLayerType {
    const scaling = this.json['rope_scaling'] == null ? null : this.objectAt('rope_scaling');
    const given = this.objectAt('rope_parameters');
    const where = 'rope_parameters';
    for (const key of Object.keys(given)) {
      if (!['full_attention', 'sliding_attention', 'truncate'].includes(key)) this.unknown_keys.push(`${where}.${key}`);
    }
    const of = (type: 'full_attention' | 'sliding_attention', more: Json, theta: unknown): RopeParameters => {
      const nested = given[type] ?? {};
      if (!isObject(nested)) this.report(`${where}.${type}`, 'an object or null', nested, OF_WEIGHTS);
      const own = isObject(nested) ? { ...nested, ...more } : more;
      return this.rope(`${where}.${type}`, { rope_theta: theta, ...own }, given['truncate']);
    };
    if (scaling !== null && this.json[where] != null && !isObject(given['full_attention'])) {
      this.report(`${where}.full_attention`, 'an object, which rope_scaling adds to', given['full_attention'] ?? null, OF_WEIGHTS);
    }
    const full_attention = of('full_attention', scaling ?? {}, 'rope_theta' in this.json ? this.json['rope_theta'] : 500000);
    return { full_attention, sliding_attention: of('sliding_attention', {}, 500000) };
  }

  private objectAt(key: string): Json {
    const value = this.json[key] ?? {};
    if (isObject(value)) return value;
    this.report(key, 'null or an object', value, 'Use null for a model without position embedding.');
    return {};
  }

  private noteUnknown(where: string, json: Json, known: readonly string[]): void {
    for (const key of Object.keys(json)) if (!known.includes(key)) this.unknown_keys.push(`${where}.${key}`);
  }

  private rope(where: string, json: Json, truncate: unknown): RopeParameters {
    const rope_type = 'rope_type' in json ? json['rope_type'] : 'type' in json ? json['type'] : 'default';
    if (rope_type !== 'default' && rope_type !== 'yarn') {
      this.report(`${where}.rope_type`, '"default" or "yarn"', rope_type, 'Other kinds of RoPE are not computed here.');
    }
    this.noteUnknown(where, json, rope_type === 'yarn' ? [...OF_ANY, ...OF_YARN] : OF_ANY);
    const number = (key: string, isUsable: (value: number) => boolean, expected: string, fallback: unknown): number => {
      const value = json[key] === undefined ? fallback : json[key];
      if (typeof value === 'number' && Number.isFinite(value) && isUsable(value)) return value;
      if (Number.isNaN(value)) return 1; // follows from what is reported elsewhere
      this.report(`${where}.${key}`, expected, value === undefined ? 'nothing' : value, OF_WEIGHTS);
      return 1;
    };
    const positive = (key: string, fallback?: unknown) => number(key, (value) => value > 0, 'a positive number', fallback);
    const optional = (key: string) => (json[key] == null ? null : number(key, () => true, 'a number or null', null));
    const rope_theta = positive('rope_theta');
    const unused = { factor: 1, original_max_position_embeddings: 1, beta_fast: 32, beta_slow: 1, attention_factor: null };
    // HF reads nothing but theta here, whatever stands beside it.
    if (rope_type !== 'yarn') return { rope_type: 'default', rope_theta, ...unused };

    if (rope_theta === 1) this.report(`${where}.rope_theta`, 'not 1, whose logarithm YaRN divides by', 1, OF_WEIGHTS);
    const partial = 'partial_rotary_factor' in json ? json['partial_rotary_factor'] : (this.json['partial_rotary_factor'] ?? 1);
    if (partial !== 1) {
      this.report(`${where}.partial_rotary_factor`, '1 or no such key', partial, 'Heads that are rotated in part are not computed here.');
    }
    if (truncate != null && typeof truncate !== 'boolean') {
      this.report('rope_parameters.truncate', 'true or false', truncate, OF_WEIGHTS);
    }
    const original_max_position_embeddings = positive('original_max_position_embeddings', this.max_position_embeddings);
    const mscale = optional('mscale'); // 0 and null count as absent
    const mscale_all_dim = optional('mscale_all_dim');
    const ratio = this.max_position_embeddings / original_max_position_embeddings;
    return {
      rope_type: 'yarn',
      rope_theta,
      factor: json['factor'] === null ? ratio : positive('factor'),
      original_max_position_embeddings,
      beta_fast: json['beta_fast'] ? positive('beta_fast') : 32, // 0 means the default as well
      beta_slow: json['beta_slow'] ? positive('beta_slow') : 1,
      attention_factor: optional('attention_factor'),
      ...(mscale && mscale_all_dim ? { mscale, mscale_all_dim } : {}),
      ...(truncate === undefined || truncate === true ? {} : { truncate: false }), // null is false
    };
  }
}
