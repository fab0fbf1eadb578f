import type { Command } from 'commander';
import type { Problem } from '../errors.ts';
import type { SuppressionOptions } from '../generate.ts';
import type { GenerationConfig } from '../generation_config.ts';
import { seedProblems } from '../random.ts';
import { type SamplingOptions, samplingProblems } from '../sampler.ts';
import { integer, number, wideInteger } from './options.ts';

/** HF: GenerationConfig._get_default_generation_params. */
const HF_TOP_K = 50;

/** What the options of `addSamplingOptions` become. */
export interface SamplingFlags {
  readonly temperature?: number;
  readonly topK?: number;
  readonly topP?: number;
  readonly minP?: number;
  readonly repetitionPenalty?: number;
  readonly seed?: number | bigint;
}

/** Adds the options that say how tokens are chosen. */
export function addSamplingOptions(command: Command): Command {
  return command
    .optionsGroup("Sampling (defaults: the model's generation_config.json; greedy where it says nothing):")
    .option('--temperature <x>', '0 always takes the likeliest token, 1 draws as the model does', number('--temperature'))
    .option(
      '--top-k <n>',
      'draw from this many of the likeliest tokens; 0 for all; 50 where the file has do_sample without it',
      integer('--top-k', 0),
    )
    .option('--top-p <x>', 'draw from the likeliest tokens that have this probability together', number('--top-p'))
    .option('--min-p <x>', 'draw from tokens at least this times as likely as the likeliest', number('--min-p'))
    .option('--repetition-penalty <x>', 'above 1 makes tokens that came before less likely', number('--repetition-penalty'))
    .option('--seed <n>', 'of the random numbers; the same seed gives the same text (default: a new one)', wideInteger('--seed'));
}

/** A seed that nobody chose. */
export function newSeed(): number {
  return crypto.getRandomValues(new Uint32Array(1))[0]!;
}

/** What is wrong with them, and with other options that were judged. */
export function flagProblems(flags: SamplingFlags, others: readonly Problem[] = []): Problem[] {
  const sampling = samplingProblems(givenSampling(flags));
  return [...sampling, ...seedProblems(flags.seed ?? 0), ...others].map((problem) => ({
    ...problem,
    where: `--${problem.where.replaceAll('_', '-')}`,
  }));
}

/** The options that were given. */
export function givenSampling(flags: SamplingFlags): SamplingOptions {
  const { temperature, topK: top_k, topP: top_p, minP: min_p, repetitionPenalty: repetition_penalty } = flags;
  const given = { temperature, top_k, top_p, min_p, repetition_penalty };
  return Object.fromEntries(Object.entries(given).filter(([, value]) => value !== undefined));
}

/** Tokens that the model's authors do not let it draw. */
export function suppressionOptions({
  suppress_tokens,
  begin_suppress_tokens,
  min_new_tokens,
}: Partial<GenerationConfig>): SuppressionOptions {
  return { suppress_tokens, begin_suppress_tokens, min_new_tokens };
}

/** The options given, then those of the model's authors. HF: GenerationMixin, where do_sample is false unless a file says otherwise. */
export function samplingOptions(
  flags: SamplingFlags,
  { do_sample = false, ...config }: Omit<GenerationConfig, 'eos_token_id'>,
): SamplingOptions {
  const narrowed = flags.topK !== undefined || flags.topP !== undefined || flags.minP !== undefined; // means little without drawing
  return {
    temperature: flags.temperature ?? (do_sample || narrowed ? (config.temperature ?? 1) : 0),
    top_k: flags.topK ?? config.top_k ?? (do_sample ? HF_TOP_K : undefined),
    top_p: flags.topP ?? config.top_p,
    min_p: flags.minP ?? config.min_p,
    repetition_penalty: flags.repetitionPenalty ?? config.repetition_penalty,
  };
}
