import { ArgumentError, type Problem } from './errors.ts';
import { macrotask } from './macrotask.ts';
import { Random, seedProblems } from './random.ts';
import { Sampler, type SamplingOptions, samplingProblems } from './sampler.ts';
import { isCount } from './text_file.ts';
import { StopStrings, stopStringProblems } from './stop_strings.ts';

/** What generation asks of a model. */
export interface CausalLM {
  readonly config: { readonly vocab_size: number };
  /** Most tokens that the caches hold. */
  readonly context: number;
  /** Tokens already in the caches. */
  readonly position: number;
  /** Counts the calls that change what the caches hold: so who uses the model sees whether someone else did meanwhile. */
  readonly changes: number;
  /** Most tokens of one forward call. */
  readonly prefill_chunk: number;
  /** Empties the caches. */
  reset(): void;
  /**
   * Runs tokens after those in the caches.
   * @param tokens [T], at most `prefill_chunk`
   * @returns the logits of the last token, [V]: a view, valid until the next call
   */
  forward(tokens: readonly number[] | Int32Array): Float32Array | Float64Array;
}

/** What text generation asks of a tokenizer. */
export interface TextTokenizer {
  /** One more than the largest id. */
  readonly vocab_size: number;
  /** Token ids of a text. */
  encode(text: string): number[];
  /** A decoder for one text, whose pieces end at whole characters. */
  streamingDecoder(): { push(id: number): string; flush(): string };
}

/** Why a generation ended: a stop token or stop string came; max_tokens or the context is used up; the signal was aborted. */
export type FinishReason = 'stop' | 'length' | 'abort';

/** Tokens that are not drawn. HF: GenerationConfig. */
export interface SuppressionOptions {
  /** Never drawn. Default: none. */
  readonly suppress_tokens?: readonly number[] | undefined;
  /** Not drawn as the first token. Default: none. */
  readonly begin_suppress_tokens?: readonly number[] | undefined;
  /** Before this many tokens, none of `eos_token_id` is drawn. Default 0. */
  readonly min_new_tokens?: number | undefined;
}

export interface GenerateOptions extends SamplingOptions, SuppressionOptions {
  /** Most tokens to generate. Default: as many as the context has room for. */
  readonly max_tokens?: number | undefined;
  /** Tokens that end the generation; the one that came is generated, too. Default: none. */
  readonly eos_token_id?: readonly number[] | undefined;
  /** Of the random numbers: a safe integer or a bigint of 64 bits. The same seed gives the same tokens. Default 0. */
  readonly seed?: number | bigint | undefined;
  /**
   * How many tokens of the prompt, from its first, the caches hold already: they are then gone on from instead of emptied, and the last token of the
   * prompt is not among them. That they are these tokens is for the caller to know. Default 0.
   */
  readonly cached?: number | undefined;
  /** Ids from here on are never drawn: models have rows of padding behind the last token of their tokenizer. Default: the model's vocab_size. */
  readonly vocab_size?: number | undefined;
  /** Ends the generation within one forward call. */
  readonly signal?: AbortSignal | undefined;
}

export interface GenerateTextOptions extends GenerateOptions {
  /** The text ends before the first of these strings. Default: none. */
  readonly stop?: readonly string[] | undefined;
}

/** What a text generation has produced. */
export interface Generation {
  /** The generated token ids, with the stop token or the tokens of the stop string that ended them. */
  readonly tokens: number[];
  /** The generated text, without them. */
  readonly text: string;
  readonly finish_reason: FinishReason;
}

/**
 * Generates token ids after a prompt. Empties the caches, unless they hold the prompt's beginning, and runs the rest in chunks, then one token at a
 * time; prompt and generated tokens together never exceed the context. Lets the event loop run after every forward call.
 * @param prompt token ids, at least one
 * @returns an async iterator of ids, whose return value says why it ended
 * @throws {ArgumentError} at the first step when an argument is out of range, before the model runs; when a logit is NaN; when another
 *   generation on the same model began before this one ended
 */
export async function* generate(
  model: CausalLM,
  prompt: readonly number[],
  options: GenerateOptions = {},
): AsyncGenerator<number, FinishReason, void> {
  const problems = generateProblems(model, prompt, options);
  if (problems.length > 0) throw new ArgumentError(problems);
  const { max_tokens = model.context, eos_token_id = [], seed = 0, cached = 0, signal } = options;
  const limit = Math.min(model.context, prompt.length + max_tokens);
  const tokens = new Int32Array(limit);
  let length = prompt.length;
  if (signal?.aborted) return 'abort';
  if (length === limit) return 'length';

  tokens.set(prompt);
  const V = Math.min(options.vocab_size ?? Infinity, model.config.vocab_size);
  const sampler = new Sampler(V, options, new Random(seed));
  for (const id of prompt) if (id < V) sampler.observe(id);
  if (cached === 0) model.reset();
  while (true) {
    // The prompt is not special: each round runs the tokens that the caches do not hold yet, which after it is one.
    const end = Math.min(length, model.position + model.prefill_chunk);
    const logits = model.forward(tokens.subarray(model.position, end));
    const { changes } = model;
    await macrotask();
    if (signal?.aborted) return 'abort';
    checkAlone(model, changes);
    if (end < length) continue;

    const id = sampler.sample(V === logits.length ? logits : logits.subarray(0, V), suppressed(options, length - prompt.length));
    sampler.observe(id);
    tokens[length] = id;
    length += 1;
    yield id;
    if (eos_token_id.includes(id)) return 'stop';
    if (length === limit) return 'length';
    if (signal?.aborted) return 'abort';
    checkAlone(model, changes);
  }
}

/**
 * Generates text after a prompt.
 * @param prompt a text, or its token ids
 * @returns an async iterator of pieces of text, none of them empty, which joined are the `text` of its return value
 * @throws {ArgumentError} as `generate` does, and for stop strings; TokenizerError when the tokenizer cannot take the prompt
 */
export async function* generateText(
  model: CausalLM,
  tokenizer: TextTokenizer,
  prompt: string | readonly number[],
  options: GenerateTextOptions = {},
): AsyncGenerator<string, Generation, void> {
  const { stop = [], eos_token_id = [] } = options;
  const prompt_ids = typeof prompt === 'string' ? tokenizer.encode(prompt) : prompt;
  const problems = [...stopStringProblems(stop), ...generateProblems(model, prompt_ids, options)];
  if (problems.length > 0) throw new ArgumentError(problems);

  const decoder = tokenizer.streamingDecoder();
  const stop_strings = new StopStrings(stop);
  const tokens: number[] = [];
  let text = '';
  const ids = generate(model, prompt_ids, { ...options, vocab_size: options.vocab_size ?? tokenizer.vocab_size });
  let step = await ids.next();
  for (; !step.done; step = await ids.next()) {
    tokens.push(step.value);
    if (eos_token_id.includes(step.value)) continue;
    const piece = stop_strings.push(decoder.push(step.value));
    text += piece;
    if (piece !== '') yield piece;
    if (stop_strings.found) return { tokens, text, finish_reason: 'stop' };
  }
  const rest = stop_strings.push(decoder.flush()) + stop_strings.flush();
  text += rest;
  if (rest !== '') yield rest;
  return { tokens, text, finish_reason: stop_strings.found ? 'stop' : step.value };
}

function suppressed(options: GenerateOptions, generated: number): number[] {
  const { suppress_tokens = [], begin_suppress_tokens = [], min_new_tokens = 0, eos_token_id = [] } = options;
  return [...suppress_tokens, ...(generated === 0 ? begin_suppress_tokens : []), ...(generated < min_new_tokens ? eos_token_id : [])];
}

function generateProblems(model: CausalLM, prompt: readonly number[], options: GenerateOptions): Problem[] {
  const { max_tokens = 0, eos_token_id = [], seed = 0, cached = 0, vocab_size = 1 } = options;
  if (!Array.isArray(prompt) && !ArrayBuffer.isView(prompt)) {
    const fix = 'Make the tokens with the tokenizer of the same model.';
    return [{ where: 'prompt', expected: 'a list of token ids', found: String(prompt), fix }];
  }
  const problems = [...promptProblems(model, prompt), ...samplingProblems(options), ...seedProblems(seed)];
  if (!isCount(max_tokens)) {
    const [found, fix] = [String(max_tokens), 'Leave it out to generate until the context is full.'];
    problems.push({ where: 'max_tokens', expected: 'an integer of at least 0', found, fix });
  }
  problems.push(...eosProblems(eos_token_id));
  if (!isCount(vocab_size) || vocab_size < 1) {
    const [found, fix] = [String(vocab_size), 'Leave it out, or take the vocab_size of the tokenizer.'];
    problems.push({ where: 'vocab_size', expected: 'an integer of at least 1', found, fix });
  }
  const { suppress_tokens = [], begin_suppress_tokens = [], min_new_tokens = 0 } = options;
  if (!isCount(min_new_tokens)) {
    const fix = 'Leave it out, and the text may end with its first token.';
    problems.push({ where: 'min_new_tokens', expected: 'an integer of at least 0', found: String(min_new_tokens), fix });
  }
  for (const [where, ids] of Object.entries({ suppress_tokens, begin_suppress_tokens })) {
    if (Array.isArray(ids) && ids.every(Number.isInteger)) continue;
    problems.push({ where, expected: 'a list of token ids', found: String(ids), fix: 'Leave it out to suppress none.' });
  }
  if (cached !== 0 && !(isCount(cached) && cached < prompt.length && cached === model.position)) {
    const expected = `0, or the ${model.position} tokens in the caches if the prompt is longer than them`;
    const fix = 'Leave it out to run the whole prompt.';
    problems.push({ where: 'cached', expected, found: `${cached} of a prompt of ${prompt.length}`, fix });
  }
  return problems;
}

/** What is wrong with a list of stop tokens, as a caller gave it: one problem, or none. */
export function eosProblems(eos_token_id: unknown): Problem[] {
  if (Array.isArray(eos_token_id) && eos_token_id.every(isCount)) return [];
  const fix = 'Take the eos_token_id of generation_config.json, as a list.';
  return [{ where: 'eos_token_id', expected: 'a list of token ids', found: String(eos_token_id), fix }];
}

function promptProblems({ config: { vocab_size }, context }: CausalLM, prompt: readonly number[]): Problem[] {
  const problems: Problem[] = [];
  if (prompt.length === 0) {
    const fix = 'This model has no token that begins every text: give a text, or a token to start from, such as an eos_token_id.';
    problems.push({ where: 'prompt', expected: 'at least one token', found: 'none', fix });
  }
  if (prompt.length > context) {
    const fix = 'Shorten the prompt, or load the model with a longer context.';
    problems.push({ where: 'prompt', expected: `at most the ${context} tokens of the context`, found: `${prompt.length} tokens`, fix });
  }
  const isToken = (id: unknown) => isCount(id) && id < vocab_size;
  const at = prompt.findIndex((id) => !isToken(id));
  if (at >= 0) {
    const count = prompt.filter((id) => !isToken(id)).length;
    const id: unknown = prompt[at];
    const found = `${typeof id === 'string' ? JSON.stringify(id) : String(id)}${count > 1 ? ` and ${count - 1} more such` : ''}`;
    const fix = 'Make the tokens with the tokenizer of the same model.';
    problems.push({ where: `prompt[${at}]`, expected: `a token id, an integer in [0, ${vocab_size})`, found, fix });
  }
  return problems;
}

/**
 * Refuses to go on with caches that someone else has changed.
 * @param changes the model's, when its caches were left
 * @throws {ArgumentError}
 */
export function checkAlone(model: Pick<CausalLM, 'changes'>, changes: number): void {
  if (model.changes === changes) return;
  const found = 'another that began on the same model before this one ended';
  const fix = 'Take all tokens of one generation before the next begins, or load the model once for each.';
  throw new ArgumentError({ where: 'model', expected: 'one generation at a time', found, fix });
}
