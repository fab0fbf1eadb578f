import { ArgumentError, type Problem } from './errors.ts';
import { exp } from './exact_math.ts';
import { logSumExp } from './log_probability.ts';
import { macrotask } from './macrotask.ts';
import type { OlmoHybridForCausalLM } from './model/olmo_hybrid.ts';

export interface PerplexityOptions {
  /** Tokens of a window. Default: the model's context. */
  readonly context?: number | undefined;
  /** Tokens from one window's begin to the next one's, at least 2 and at most `context`. Default: `context`, windows that do not overlap. */
  readonly stride?: number | undefined;
  /** Ends it between two chunks of a window. */
  readonly signal?: AbortSignal | undefined;
  /** Told how many tokens of all windows have been read. */
  readonly onProgress?: ((done: number, total: number) => void) | undefined;
}

/** What a text is measured with, such as an OlmoHybridForCausalLM. */
export type WindowModel = Pick<OlmoHybridForCausalLM, 'config' | 'context' | 'prefill_chunk' | 'reset' | 'forward' | 'forwardAll'>;

/** How well a model predicts a text. */
export interface Perplexity {
  /** e^nll. */
  readonly perplexity: number;
  /** Mean of -log p(token | those before it in its window), in nats. */
  readonly nll: number;
  /** What the mean is over, see `perplexity`. */
  readonly tokens: number;
  readonly windows: number;
}

/** A piece of the text, and how many of its last tokens no earlier window had. */
interface Window {
  readonly begin: number;
  readonly end: number;
  readonly fresh: number;
}

/**
 * The perplexity of a text by the recipe of HF's documentation, "Perplexity of fixed-length models": it is read in windows, each from an empty
 * state, and a window counts for the tokens that no earlier one had. As there, a window's mean has a weight of one less than those tokens,
 * even where all of them have a token before them; for a first window and for windows that do not overlap this is their number.
 * Sums are in float64 and come from + - * / alone, so in strict mode every engine gives the same bits.
 * @param ids of the text
 * @throws {ArgumentError} for fewer than two tokens, a window or stride out of range, ids that the model does not have, or logits that are not
 * finite; an AbortError when the signal ends it
 */
export async function perplexity(
  model: WindowModel,
  ids: readonly number[],
  { context = model.context, stride = context, signal, onProgress }: PerplexityOptions = {},
): Promise<Perplexity> {
  const problems = [...perplexityProblems(ids.length, context, stride, model.context), ...idProblems(ids, model.config.vocab_size)];
  if (problems.length > 0) throw new ArgumentError(problems);
  const windows = windowsOf(ids.length, context, stride);
  const total = windows.reduce((sum, { begin, end }) => sum + end - begin, 0);
  const rows = new Float64Array(Math.min(model.prefill_chunk, context) * model.config.vocab_size);
  let [nats, tokens, read] = [0, 0, 0];
  for (const { begin, end, fresh } of windows) {
    if (fresh < 2) continue; // has no weight
    const first = Math.max(end - fresh, begin + 1); // nothing predicts a window's first token
    let sum = 0;
    model.reset();
    for (let at = begin; at < end - 1; ) {
      // The last token of a window predicts nothing of it, and only what comes before a fresh token needs logits.
      const stop = Math.min(at + model.prefill_chunk, at < first - 1 ? first - 1 : end - 1);
      const chunk = ids.slice(at, stop);
      if (at < first - 1) model.forward(chunk);
      else for (const nll of negativeLogLikelihoods(model, chunk, ids, stop, rows)) sum += nll; // one by one: the chunks change no bit
      read += stop - at;
      at = stop;
      onProgress?.(read, total);
      await macrotask();
      signal?.throwIfAborted();
    }
    read += 1;
    nats += (sum / (end - first)) * (fresh - 1);
    tokens += fresh - 1;
  }
  onProgress?.(total, total);
  const nll = nats / tokens;
  return { perplexity: nll < 0 ? exp(nll) : 1 / exp(-nll), nll, tokens, windows: windows.length };
}

/** What is wrong with the sizes of `perplexity`, each as its option is named. */
export function perplexityProblems(length: number, context: number, stride: number, most: number): Problem[] {
  const problems: Problem[] = [];
  const within = (value: number, least: number, most: number) => Number.isSafeInteger(value) && value >= least && value <= most;
  if (length < 2) {
    const fix = 'Give a longer one: nothing predicts the first token.';
    problems.push({ where: 'text', expected: 'at least 2 tokens', found: `${length}`, fix });
  }
  if (!within(context, 2, most)) {
    const fix = 'Choose a window that the model holds.';
    problems.push({ where: 'context', expected: `an integer from 2 to ${most}`, found: `${context}`, fix });
  } else if (!within(stride, 2, context)) {
    const fix = 'A larger stride would leave tokens out, and with 1 only the first window would count.';
    problems.push({ where: 'stride', expected: `an integer from 2 to ${context}, the context`, found: `${stride}`, fix });
  }
  return problems;
}

function idProblems(ids: readonly number[], vocab_size: number): Problem[] {
  const at = ids.findIndex((id) => !Number.isInteger(id) || id < 0 || id >= vocab_size);
  if (at < 0) return [];
  const [expected, fix] = [`an id from 0 to ${vocab_size - 1}`, 'Use the tokenizer that came with this model.'];
  return [{ where: `ids[${at}]`, expected, found: String(ids[at]), fix }];
}

function windowsOf(length: number, context: number, stride: number): Window[] {
  const windows: Window[] = [];
  let end = 0;
  for (let begin = 0; end < length; begin += stride) {
    const before = end;
    end = Math.min(begin + context, length);
    windows.push({ begin, end, fresh: end - before });
  }
  return windows;
}

/** -log p of the token after each one of a chunk, which ends before `stop`, in nats. */
function* negativeLogLikelihoods(
  model: WindowModel,
  chunk: readonly number[],
  ids: readonly number[],
  stop: number,
  rows: Float64Array,
): Generator<number, void, void> {
  const V = model.config.vocab_size;
  model.forwardAll(chunk, rows);
  for (let row = 0; row < chunk.length; row++) {
    const next = stop - chunk.length + row + 1;
    const logits = rows.subarray(row * V, (row + 1) * V);
    const nll = logSumExp(logits) - logits[ids[next]!]!;
    if (!Number.isFinite(nll)) throw notFinite(nll, next);
    yield nll;
  }
}

function notFinite(nll: number, next: number): ArgumentError {
  const fix = 'Find the op that gives it first by `olmo-hybrid trace`, or download the weights again.';
  const where = `logits before token ${next} of the text`;
  return new ArgumentError({ where, expected: 'finite numbers', found: Number.isNaN(nll) ? 'NaN' : 'an infinite one', fix });
}
