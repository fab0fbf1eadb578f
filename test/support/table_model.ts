import { expect } from 'vitest';
import { ArgumentError } from '../../src/errors.ts';
import type { CausalLM, GenerateOptions } from '../../src/generate.ts';
import { Random } from '../../src/random.ts';
import { Sampler } from '../../src/sampler.ts';

/** A model whose logits depend on every token in its caches and their order, and that refuses what a real one could not do. */
export class TableModel implements CausalLM {
  readonly config: { readonly vocab_size: number };
  readonly context: number;
  readonly prefill_chunk: number;
  changes = 0;
  resets = 0;
  readonly calls: number[][] = [];
  /** Runs inside every forward call, before its logits are made. */
  onForward: (call: number) => void = () => {};
  #cached: number[] = [];
  #logits: Float32Array;

  constructor({ vocab_size = 23, context = 64, prefill_chunk = 4 } = {}) {
    this.config = { vocab_size };
    this.context = context;
    this.prefill_chunk = prefill_chunk;
    this.#logits = new Float32Array(vocab_size);
  }

  get position(): number {
    return this.#cached.length;
  }

  reset(): void {
    this.changes += 1;
    this.resets += 1;
    this.#cached = [];
  }

  forward(tokens: readonly number[] | Int32Array): Float32Array {
    if (tokens.length === 0 || tokens.length > this.prefill_chunk) throw new Error(`${tokens.length} tokens in one call`);
    if (this.position + tokens.length > this.context) throw new Error('the caches are full');
    this.changes += 1;
    this.calls.push([...tokens]);
    this.#cached.push(...tokens);
    this.onForward(this.calls.length);
    const last = this.#logits;
    last.fill(Number.NaN); // whoever still holds the last call's view finds out
    this.#logits = tableLogits(this.#cached, this.config.vocab_size);
    return this.#logits;
  }
}

function tableLogits(history: readonly number[], vocab_size: number): Float32Array {
  let hash = 17;
  for (const id of history) hash = (hash * 31 + id + 1) % 65_521;
  return Float32Array.from({ length: vocab_size }, (_, id) => ((hash * (id + 3) * 7919) % 1009) / 100);
}

/** A model whose likeliest tokens after a prompt of some length are the given ones, which fill its context. */
export class Script extends TableModel {
  readonly #script: readonly number[];
  readonly #prompt_length: number;

  constructor(script: readonly number[], prompt_length: number, vocab_size: number) {
    super({ vocab_size, context: prompt_length + script.length });
    this.#script = script;
    this.#prompt_length = prompt_length;
  }

  override forward(tokens: readonly number[] | Int32Array): Float32Array {
    const logits = super.forward(tokens);
    const next = this.#script[Math.max(0, this.position - this.#prompt_length)]!;
    return logits.fill(0).fill(1, next, next + 1);
  }
}

/** The ids by the definition: all logits from the whole history, no caches, no chunks. */
export function expectedTokens(prompt: readonly number[], count: number, options: GenerateOptions, vocab_size = 23): number[] {
  const sampler = new Sampler(vocab_size, options, new Random(options.seed ?? 0));
  const history = [...prompt];
  for (const id of prompt) sampler.observe(id);
  for (let n = 0; n < count; n++) {
    const id = sampler.sample(tableLogits(history, vocab_size));
    sampler.observe(id);
    history.push(id);
  }
  return history.slice(prompt.length);
}

/** All that a generation gives, piece by piece, and its return value. */
export async function collect<Piece, Result>(pieces: AsyncGenerator<Piece, Result, void>): Promise<{ pieces: Piece[]; result: Result }> {
  const taken: Piece[] = [];
  for (;;) {
    const step = await pieces.next();
    if (step.done) return { pieces: taken, result: step.value };
    taken.push(step.value);
  }
}

/** The error of a generation's next step. */
export async function refusal(action: AsyncGenerator<unknown, unknown, void>): Promise<ArgumentError> {
  const error = await action.next().then(
    () => undefined,
    (reason: unknown) => reason,
  );
  expect(error).toBeInstanceOf(ArgumentError);
  return error as ArgumentError;
}
