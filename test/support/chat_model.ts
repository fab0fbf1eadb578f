import { copyFile, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import type { CausalLM } from '../../src/generate.ts';
import type { OlmoHybridForCausalLM } from '../../src/model/olmo_hybrid.ts';
import { Random } from '../../src/random.ts';
import type { RewindableLM } from '../../src/chat/state_checkpoints.ts';
import { repository, writeChangedModel } from './models.ts';

const TOKENS = 1513; // of golden/tokenizer
const D = 40; // of golden/models/nope

/** End of text and of a turn. */
export const EOS = [1501, 1506];

/**
 * Writes a folder that can be chatted with: golden/models/nope with random embeddings for golden/tokenizer's vocabulary, the tokenizer and its chat
 * template. About one token in ten ends an answer.
 * @param padding rows of the vocabulary behind the tokenizer's last token
 */
export async function writeChatModel(dir: string, seed = 1, padding = 0): Promise<string> {
  const V = TOKENS + padding;
  const random = new Random(seed);
  const matrix = (scale: number) => Float32Array.from({ length: V * D }, () => scale * (random.uniform() - 0.5));
  await writeChangedModel(dir, 'nope', ({ tensors, config }) => {
    config.vocab_size = V;
    for (const [name, scale] of [['model.embed_tokens.weight', 2] as const, ['lm_head.weight', 1] as const])
      tensors.set(name, { name, dtype: 'F32', shape: [V, D], data: matrix(scale) });
  });
  for (const file of ['tokenizer.json', 'tokenizer_config.json', 'chat_template.jinja'])
    await copyFile(repository(`golden/tokenizer/${file}`), join(dir, file));
  const eos_token_id = [...EOS, ...Array.from({ length: V }, (_, id) => id).filter((id) => id > 256 && id < 1500 && id % 8 === 0)];
  await writeFile(join(dir, 'generation_config.json'), JSON.stringify({ do_sample: true, eos_token_id }));
  return dir;
}

/** A model that counts what it runs, token by token. */
export class CountingModel implements RewindableLM {
  readonly config: CausalLM['config'];
  readonly context: number;
  readonly prefill_chunk: number;
  /** Tokens of every forward call. */
  calls: number[] = [];
  /** Runs before every forward call. */
  onForward: () => void = () => {};
  readonly #model: OlmoHybridForCausalLM;

  constructor(model: OlmoHybridForCausalLM) {
    [this.config, this.context, this.prefill_chunk] = [model.config, model.context, model.prefill_chunk];
    this.#model = model;
  }

  /** Tokens that were run since the last time this was asked. */
  counted(): number {
    return this.calls.splice(0).reduce((sum, count) => sum + count, 0);
  }

  get position(): number {
    return this.#model.position;
  }

  get changes(): number {
    return this.#model.changes;
  }

  reset(): void {
    this.#model.reset();
  }

  forward(tokens: readonly number[] | Int32Array): Float32Array | Float64Array {
    this.onForward();
    this.calls.push(tokens.length);
    return this.#model.forward(tokens);
  }

  snapshot: RewindableLM['snapshot'] = (options) => this.#model.snapshot(options);
  restore: RewindableLM['restore'] = (snapshot) => this.#model.restore(snapshot);
}
