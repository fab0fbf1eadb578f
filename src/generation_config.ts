import { ConfigError, type Problem } from './errors.ts';
import { isCount, kindOf, MOST_BYTES, parseJsonObject, readTextFile } from './text_file.ts';

/** How a model's authors mean it to generate. HF: GenerationConfig, the keys that this engine knows; what the file leaves open is absent. */
export interface GenerationConfig {
  /** Each of these ends the text; empty when nothing does. */
  readonly eos_token_id: readonly number[];
  /** Draw tokens; otherwise the likeliest is taken. */
  readonly do_sample?: boolean;
  readonly temperature?: number;
  /** HF takes 50 where it is absent. */
  readonly top_k?: number;
  readonly top_p?: number;
  readonly min_p?: number;
  readonly repetition_penalty?: number;
}

const isNumber = (value: unknown): value is number => typeof value === 'number' && Number.isFinite(value);

// The ranges are the sampler's; JSON null means that the key is absent.
const OPTIONS: Readonly<Record<string, [isUsable: (value: unknown) => boolean, expected: string]>> = {
  do_sample: [(value) => typeof value === 'boolean', 'true or false'],
  temperature: [(value) => isNumber(value) && value >= 0, 'a number of at least 0'],
  top_k: [isCount, 'an integer of at least 0'],
  top_p: [(value) => isNumber(value) && value > 0 && value <= 1, 'a number in (0, 1]'],
  min_p: [(value) => isNumber(value) && value >= 0 && value <= 1, 'a number in [0, 1]'],
  repetition_penalty: [(value) => isNumber(value) && value > 0, 'a number above 0'],
};

/**
 * Reads the generation_config.json of a model folder (Node only), which need not be there.
 * @param fallback `eos_token_id` of config.json, for when this file has none
 * @throws ConfigError as `parseGenerationConfig` does, and when the file cannot be read
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
 * @throws ConfigError with every key of the wrong type or out of range
 */
export function parseGenerationConfig(text: string, where: string, fallback?: number | readonly number[] | null): GenerationConfig {
  const json = parseJsonObject(text, where, ConfigError);
  const problems: Problem[] = [];
  const fix = 'Use the generation_config.json of the release, or remove the key.';

  const eos_token_id = [json.eos_token_id ?? fallback ?? []].flat();
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
  return config as unknown as GenerationConfig;
}
