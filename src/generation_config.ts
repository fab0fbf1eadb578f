import { ConfigError, type Problem } from './errors.ts';
import { isCount, kindOf, MOST_BYTES, parseJsonObject, readTextFile } from './text_file.ts';

/** How a model's authors mean it to generate. HF: GenerationConfig, the keys that this engine knows; what the file leaves open is absent. */
export interface GenerationConfig {
  /** Each of these ends the text; empty when nothing does. */
  readonly eos_token_id: readonly number[];
  /** Draw tokens; otherwise the likeliest is taken. */
  readonly do_sample?: boolean;
  readonly temperature?: number;
  /** Where it is absent, HF draws from 50, and so does the command line. */
  readonly top_k?: number;
  readonly top_p?: number;
  readonly min_p?: number;
  readonly repetition_penalty?: number;
  readonly max_new_tokens?: number;
  readonly min_new_tokens?: number;
  readonly suppress_tokens?: readonly number[];
  readonly begin_suppress_tokens?: readonly number[];
  /** Keys of the file by which HF would generate another text, and which this engine does not apply; absent where there is none. */
  readonly not_applied?: readonly string[];
}

const isNumber = (value: unknown): value is number => typeof value === 'number' && Number.isFinite(value);

const isIds = (value: unknown) => Array.isArray(value) && value.every((id) => Number.isSafeInteger(id));

// The ranges are the sampler's; JSON null means that the key is absent.
const OPTIONS: Readonly<Record<string, [isUsable: (value: unknown) => boolean, expected: string]>> = {
  do_sample: [(value) => typeof value === 'boolean', 'true or false'],
  temperature: [(value) => isNumber(value) && value >= 0, 'a number of at least 0'],
  top_k: [isCount, 'an integer of at least 0'],
  top_p: [(value) => isNumber(value) && value > 0 && value <= 1, 'a number in (0, 1]'],
  min_p: [(value) => isNumber(value) && value >= 0 && value <= 1, 'a number in [0, 1]'],
  repetition_penalty: [(value) => isNumber(value) && value > 0, 'a number above 0'],
  max_new_tokens: [isCount, 'an integer of at least 0'],
  min_new_tokens: [isCount, 'an integer of at least 0'],
  suppress_tokens: [isIds, 'an array of token ids'],
  begin_suppress_tokens: [isIds, 'an array of token ids'],
};

/** Keys that change what HF generates and are not applied here, with the values that change nothing. HF: GenerationMixin.generate. */
const NOT_APPLIED: Readonly<Record<string, readonly unknown[]>> = {
  assistant_ensemble_weight: [],
  bad_words_ids: [],
  constraints: [],
  diversity_penalty: [0],
  dola_layers: [],
  encoder_no_repeat_ngram_size: [0],
  encoder_repetition_penalty: [1],
  epsilon_cutoff: [0, 1],
  eta_cutoff: [0, 1],
  exponential_decay_length_penalty: [],
  force_words_ids: [],
  forced_bos_token_id: [],
  forced_eos_token_id: [],
  guidance_scale: [1],
  max_length: [20],
  max_time: [],
  min_length: [0],
  no_repeat_ngram_size: [0],
  num_beam_groups: [1],
  num_beams: [1],
  num_return_sequences: [1],
  penalty_alpha: [0],
  sequence_bias: [],
  stop_strings: [],
  token_healing: [],
  top_h: [],
  typical_p: [1],
  watermarking_config: [],
};

/** HF takes null, false and an empty list for no such key. */
function changesText(key: string, value: unknown): boolean {
  const isNone = value === null || value === false || (Array.isArray(value) && value.length === 0);
  return Object.hasOwn(NOT_APPLIED, key) && !isNone && !NOT_APPLIED[key]!.includes(value);
}

/**
 * Reads the generation_config.json of a model folder (Node only), which need not be there.
 * @param fallback `eos_token_id` of config.json, for when this file has none. HF falls back to it only where there is no such file, and would
 *   otherwise run on to the end of the length.
 * @throws {ConfigError} as `parseGenerationConfig` does, and when the file cannot be read
 */
export async function readGenerationConfig(folder: string, fallback?: number | readonly number[] | null): Promise<GenerationConfig> {
  const { join } = await import('node:path');
  const path = join(folder, 'generation_config.json');
  const text = await readTextFile(path, MOST_BYTES.config, ConfigError);
  return parseGenerationConfig(text ?? '{}', path, fallback);
}

/**
 * Checks the content of a generation_config.json; unknown keys are passed over.
 * @param where what messages call it
 * @throws {ConfigError} with every key of the wrong type or out of range
 */
export function parseGenerationConfig(text: string, where: string, fallback?: number | readonly number[] | null): GenerationConfig {
  const json = parseJsonObject(text, where, ConfigError);
  const problems: Problem[] = [];
  const fix = 'Use the generation_config.json of the release, or remove the key.';

  const ids = [json.eos_token_id ?? fallback ?? []].flat();
  const eos_token_id = ids.filter((id) => id !== -1); // no token, and no text ends with it
  if (!eos_token_id.every(isCount)) {
    problems.push({
      where: `${where}: eos_token_id`,
      expected: 'a token id or an array of them',
      found: kindOf(json.eos_token_id ?? fallback),
      fix,
    });
  }
  const config: Record<string, unknown> = { eos_token_id };
  for (const [key, [isUsable, expected]] of Object.entries(OPTIONS)) {
    const value = json[key];
    if (value == null) continue;
    if (isUsable(value)) config[key] = value;
    else problems.push({ where: `${where}: ${key}`, expected, found: kindOf(value), fix });
  }
  if (problems.length > 0) throw new ConfigError(problems);
  // The lengths with the prompt in them count only where those without are not given.
  const idle = [...(json.max_new_tokens == null ? [] : ['max_length']), ...(json.min_new_tokens == null ? [] : ['min_length'])];
  const not_applied = Object.keys(json).filter((key) => changesText(key, json[key]) && !idle.includes(key));
  if (not_applied.length > 0) config.not_applied = not_applied;
  return config as unknown as GenerationConfig;
}
