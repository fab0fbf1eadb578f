import { type CausalLM, checkAlone } from '../generate.ts';
import type { Snapshot, SnapshotOptions } from '../model/olmo_hybrid.ts';

/** A model whose state can be copied and put back. */
export interface RewindableLM extends CausalLM {
  snapshot(options?: SnapshotOptions): Snapshot;
  restore(snapshot: Snapshot): void;
}

export interface StateCheckpointOptions {
  /** Most bytes of all checkpoints together; those used longest ago go first. Default 1 GiB. */
  readonly limit_bytes?: number | undefined;
  /** Most tokens from one checkpoint to the next. Default 512, or more where those of a whole context would take over half of the bytes. */
  readonly every?: number | undefined;
}

const DEFAULT_LIMIT_BYTES = 2 ** 30;
const DEFAULT_EVERY = 512;

/**
 * A model that can go back to an earlier token. Keys and values are still there then, but a recurrent state cannot be rewound; so copies of it are
 * kept along the text, without keys and values: 56 MB each for the 7B, whatever the length.
 *
 * It is the model to `generate`: `begin` says which prompt comes next and how much of it need not be run again. Drive the model by this object alone.
 */
export class StateCheckpoints implements CausalLM {
  readonly config: CausalLM['config'];
  readonly context: number;
  readonly prefill_chunk: number;
  readonly limit_bytes: number;
  readonly every: number;
  readonly #model: RewindableLM;
  /** The tokens in the caches, as long as the model's `changes` are these. */
  #tokens: number[] = [];
  #changes = -1;
  /**
   * By the number of tokens before them, ascending. That is also the order of their last use: one that is gone back to is the last that is left.
   */
  readonly #checkpoints = new Map<number, Snapshot>();
  #bytes = 0;
  /** Where the latest one was taken. */
  #latest = 0;
  /** Where the next one is wanted whatever `every` says. */
  #mark = 0;

  /** @param model its caches are emptied */
  constructor(model: RewindableLM, { limit_bytes = DEFAULT_LIMIT_BYTES, every }: StateCheckpointOptions = {}) {
    const { config, context, prefill_chunk } = model;
    [this.config, this.context, this.prefill_chunk, this.limit_bytes] = [config, context, prefill_chunk, limit_bytes];
    this.#model = model;
    this.reset();
    const half = Math.max(1, Math.floor(limit_bytes / 2 / bytesOf(model.snapshot({ kv: false }))));
    this.every = every ?? Math.max(DEFAULT_EVERY, Math.ceil(context / half));
  }

  /** Tokens in the caches. */
  get position(): number {
    return this.#model.position;
  }

  get changes(): number {
    return this.#model.changes;
  }

  /** The tokens in the caches. */
  get tokens(): readonly number[] {
    return this.#tokens;
  }

  /** The positions of the checkpoints, ascending, and their bytes. */
  get kept(): { readonly positions: readonly number[]; readonly bytes: number } {
    return { positions: [...this.#checkpoints.keys()], bytes: this.#bytes };
  }

  /** Empties the caches and forgets the checkpoints. */
  reset(): void {
    this.#model.reset();
    this.#holds([]);
    this.#cut(0);
  }

  /**
   * Takes the caches to the longest beginning of a prompt that they can be taken to. Checkpoints beyond what the prompt shares with the tokens in the
   * caches are dropped.
   * @param mark where in the prompt to take a checkpoint besides, because one may want to come back there; `forward` cuts its tokens there
   * @returns how many tokens of the prompt the caches hold, less than all: the last one's logits are wanted
   */
  begin(prompt: readonly number[], mark = 0): number {
    if (this.changes !== this.#changes) this.reset(); // someone else drove the model
    this.#mark = mark;
    const from = this.longestPrefix(prompt);
    if (from === this.#tokens.length) return from;
    if (from === 0) {
      this.reset();
      return 0;
    }
    this.#cut(from);
    this.#model.restore(this.#checkpoints.get(from)!);
    this.#holds(this.#tokens.slice(0, from));
    return from;
  }

  /** How many tokens of a prompt `begin` would find: those that the caches hold, or the nearest checkpoint before they part from the prompt. */
  longestPrefix(prompt: readonly number[]): number {
    if (this.changes !== this.#changes) return 0;
    const most = Math.min(prompt.length - 1, this.#tokens.length);
    let shared = 0;
    while (shared < most && prompt[shared] === this.#tokens[shared]) shared += 1;
    if (shared === this.#tokens.length) return shared;
    return Math.max(0, ...[...this.#checkpoints.keys()].filter((position) => position <= shared));
  }

  forward(tokens: readonly number[] | Int32Array): Float32Array | Float64Array {
    const before = this.#mark - this.position;
    if (before <= 0 || before >= tokens.length) return this.#run(tokens);
    this.#run(tokens.slice(0, before));
    return this.#run(tokens.slice(before));
  }

  /** Takes a checkpoint of where the caches are. */
  keep(): void {
    const position = this.position;
    this.#latest = position;
    if (position === 0 || this.#checkpoints.has(position)) return;
    const snapshot = this.#model.snapshot({ kv: false });
    this.#checkpoints.set(position, snapshot);
    this.#bytes += bytesOf(snapshot);
    for (const oldest of this.#checkpoints.keys()) {
      if (this.#bytes <= this.limit_bytes) break;
      this.#drop(oldest);
    }
  }

  /** Copies all that the caches hold, to bring it back in another process by `restore`. */
  snapshot(): Snapshot {
    return this.#model.snapshot();
  }

  /**
   * Puts back what the caches held.
   * @param tokens whose snapshot it is
   * @throws {ArgumentError} as the model's `restore`; then nothing is changed
   */
  restore(snapshot: Snapshot, tokens: readonly number[]): void {
    this.#model.restore(snapshot);
    this.#holds([...tokens]);
    this.#cut(0);
    this.keep();
  }

  /** Notes what is in the caches now. */
  #holds(tokens: number[]): void {
    this.#tokens = tokens;
    this.#changes = this.changes;
  }

  #run(tokens: readonly number[] | Int32Array): Float32Array | Float64Array {
    checkAlone(this, this.#changes);
    let logits: Float32Array | Float64Array;
    try {
      logits = this.#model.forward(tokens);
    } catch (error) {
      this.reset(); // some layers may have seen the tokens
      throw error;
    }
    for (const id of tokens) this.#tokens.push(id);
    this.#changes = this.changes;
    if (this.position === this.#mark || this.position - this.#latest >= this.every) this.keep();
    return logits;
  }

  /** Drops the checkpoints beyond a position. */
  #cut(position: number): void {
    for (const other of [...this.#checkpoints.keys()]) if (other > position) this.#drop(other);
    this.#latest = position;
  }

  #drop(position: number): void {
    this.#bytes -= bytesOf(this.#checkpoints.get(position)!);
    this.#checkpoints.delete(position);
  }
}

function bytesOf({ layers }: Snapshot): number {
  return layers.flat().reduce((sum, { byteLength }) => sum + byteLength, 0);
}
