import { existsSync } from 'node:fs';
import { join } from 'node:path';
import { quote } from '../checkpoint/problem_list.ts';
import type { OlmoHybridConfig } from '../config.ts';
import { ArgumentError, TokenizerError } from '../errors.ts';
import type { GenerationConfig } from '../generation_config.ts';
import { type LoadedModel, type LoadOptions, loadModel } from '../load.ts';
import { physicalCores } from '../runtime/cores.ts';
import { Tokenizer } from '../tokenizer.ts';
import { listed } from '../words.ts';
import type { EngineFlags } from './options.ts';
import { ProgressLine, warn } from './terminal.ts';

const MOST_NAMED = 5;

/** What the options say of how a model is loaded. */
export async function loadOptions({ kernels, mode, weights, threads, prefillChunk, kv }: EngineFlags): Promise<LoadOptions> {
  // Kernels in TypeScript run on one thread; asked for more, loading refuses.
  return {
    kernels,
    mode,
    weights,
    threads: threads ?? (kernels === 'wasm' ? await physicalCores() : undefined),
    prefill_chunk: prefillChunk,
    kv,
  };
}

/**
 * Loads a model as the options say, with a line of progress where it takes long, and warns of what looks wrong.
 * @param signal ends it; the error is then an AbortError
 */
export async function load(dir: string, context: number, flags: EngineFlags, signal: AbortSignal): Promise<LoadedModel> {
  const progress = new ProgressLine();
  const options = { ...(await loadOptions(flags)), context, signal, onProgress: progress.update };
  const loaded = await loadModel(dir, options).finally(() => progress.end());
  const { unknown_keys } = loaded.plan.config;
  if (unknown_keys.length > 0) warn(`${dir}/config.json: unknown keys ${listed(unknown_keys.map(quote), MOST_NAMED)}, passed over.`);
  warnNotFinite(dir, loaded.not_finite);
  return loaded;
}

/** Warns of what the model's authors asked for and does not happen. */
export function warnNotApplied(dir: string, { not_applied = [] }: Partial<GenerationConfig>): void {
  if (not_applied.length > 0)
    warn(
      `${dir}/generation_config.json: ${listed(not_applied.map(quote), MOST_NAMED)} not applied; transformers would generate otherwise.`,
    );
}

/** Warns of parameters that hold NaN or infinite values, or in q4 such as are too large, if there are any. */
export function warnNotFinite(dir: string, names: readonly string[]): void {
  if (names.length === 0) return;
  const parameters = listed(names.map(quote), MOST_NAMED);
  const advice = 'Its output will be meaningless; download it again.';
  warn(`${dir}: NaN or infinite values in ${parameters} (in q4 also such beyond 1.8 million). ${advice}`);
}

/**
 * The tokenizer of a model folder; null when it has none.
 * @throws {TokenizerError} when it is damaged, or has ids that the model has not
 */
export async function readTokenizer(dir: string, { vocab_size }: OlmoHybridConfig): Promise<Tokenizer | null> {
  if (!existsSync(join(dir, 'tokenizer.json'))) return null;
  const tokenizer = await Tokenizer.fromFolder(dir);
  if (tokenizer.vocab_size <= vocab_size) return tokenizer;
  throw new TokenizerError({
    where: join(dir, 'tokenizer.json'),
    expected: `ids below ${vocab_size}, the vocab_size in config.json`,
    found: `ids up to ${tokenizer.vocab_size - 1}`,
    fix: 'Use the tokenizer.json and config.json of the same revision.',
  });
}

/** The error when something needs a tokenizer. */
export function missingTokenizer(dir: string, purpose: string, otherwise = ', or use token ids alone: --tokens FILE.json'): ArgumentError {
  const fix = `Copy tokenizer.json from the repository of the model${otherwise}.`;
  return new ArgumentError({ where: dir, expected: `a tokenizer.json, ${purpose}`, found: 'none', fix });
}
