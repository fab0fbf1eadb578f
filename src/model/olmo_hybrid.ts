import type { LayerType, OlmoHybridConfig } from '../config.ts';
import { ArgumentError, type Problem } from '../errors.ts';
import type { Bank, Tap } from '../runtime/bank.ts';
import type { KVFormat } from '../runtime/kernels.ts';
import type { FloatArray, Ids, Matrix, Tensor } from '../runtime/tensor.ts';
import { AttentionDecoderLayer } from './attention.ts';
import type { LayerSnapshot } from './cache.ts';
import { LinearAttentionDecoderLayer } from './gated_delta_net.ts';
import { linear, type Op, rms_norm } from './nn.ts';
import { type RotaryTable, rotaryTable } from './rotary.ts';
import type { Weights } from './weights.ts';

/** Rows of logits that are computed at a time: [16, vocab_size] floats of scratch. */
const LOGIT_ROWS = 16;

export type DecoderLayer = LinearAttentionDecoderLayer | AttentionDecoderLayer;

export interface ModelOptions {
  /** Tokens that the caches hold. */
  readonly context: number;
  /** How the attention layers keep keys and values. Default F32. */
  readonly kv?: KVFormat | undefined;
}

/** What a model remembers after some tokens; only for a model of the same weights. */
export interface Snapshot {
  readonly position: number;
  /** Empty for the attention layers of a snapshot without keys and values. */
  readonly layers: readonly LayerSnapshot[];
}

export interface SnapshotOptions {
  /**
   * Whether keys and values are copied. Without them a snapshot has the size of the recurrent state whatever the position, and is good for as long as
   * the caches begin with the same tokens: a position's keys and values are not touched by later ones. Default true.
   */
  readonly kv?: boolean | undefined;
}

/** The rotary tables of each layer type, made once for each bank. */
export class RotaryTables {
  private readonly tables = new Map<Bank, Map<LayerType, RotaryTable>>();
  private readonly config: OlmoHybridConfig;
  private readonly context: number;

  constructor(config: OlmoHybridConfig, context: number) {
    this.config = config;
    this.context = context;
  }

  /** null: the layers of this type have no position embedding. */
  of(m: Bank, type: 'full_attention' | 'sliding_attention'): RotaryTable | null {
    const rope = this.config.rope[type];
    if (!rope) return null;
    const ofBank = this.tables.get(m) ?? new Map<LayerType, RotaryTable>();
    this.tables.set(m, ofBank);
    const table = ofBank.get(type) ?? rotaryTable(m, rope, this.context, this.config.head_dim);
    ofBank.set(type, table);
    return table;
  }

  fill(): void {
    for (const ofBank of this.tables.values()) for (const table of ofBank.values()) table.fill();
  }
}

/** Layer `i` of the model, its buffers taken from bank m. */
export function decoderLayer(
  cfg: OlmoHybridConfig,
  w: Weights,
  m: Bank,
  tables: RotaryTables,
  options: ModelOptions,
  i: number,
): DecoderLayer {
  m.rewindScratch();
  const type = cfg.layer_types[i]!;
  const weights = w.scope(`model.layers.${i}`);
  if (type === 'linear_attention') return new LinearAttentionDecoderLayer(cfg, weights, m);
  const { context, kv = 'F32' } = options;
  const window = type === 'sliding_attention' ? Math.min(cfg.sliding_window!, context) : context;
  return new AttentionDecoderLayer(cfg, weights, m, { context, window, kv, table: tables.of(m, type) });
}

/**
 * OLMo Hybrid, and OLMo 3 from the same parts: embed_tokens -> layers -> norm -> lm_head. HF: OlmoHybridForCausalLM, Olmo3ForCausalLM.
 *
 * One sequence at a time: `forward` runs tokens after those already in the caches. Calls must not overlap.
 */
export class OlmoHybridForCausalLM {
  readonly config: OlmoHybridConfig;
  /** Most tokens that the caches hold. */
  readonly context: number;
  /** Most tokens of one forward call. */
  readonly prefill_chunk: number;
  private readonly embed_tokens: Matrix;
  private readonly layers: readonly DecoderLayer[];
  private readonly norm: Op;
  private readonly lm_head: Op;

  private readonly banks: readonly Bank[];
  /** Bank of each layer, and of norm and lm_head behind the last. */
  private readonly placement: readonly Bank[];
  /** The residual stream [T, D], one buffer for each bank. */
  private readonly residual: ReadonlyMap<Bank, Tensor>;
  private readonly ids: Ids;
  /** Rows of the residual stream on their way to norm and lm_head, [LOGIT_ROWS, D]. */
  private readonly headRows: Tensor;
  private readonly tables: RotaryTables;
  private tokensSoFar = 0;
  private changesSoFar = 0;
  /** Positions from the first whose keys and values are of one text: `tokensSoFar`, and after a restore up to where the text had come before. */
  private tokensKept = 0;

  /**
   * Declares every parameter to `w` and takes every buffer from the banks; a loader then fills the parameters and calls `ready`.
   * @param placement For each layer, and for norm and lm_head behind them, which of `banks` holds it; embed_tokens is in the first.
   */
  constructor(cfg: OlmoHybridConfig, w: Weights, banks: readonly Bank[], placement: readonly number[], options: ModelOptions) {
    this.config = cfg;
    this.context = options.context;
    this.prefill_chunk = banks[0]!.rows;
    this.banks = banks;
    this.placement = placement.map((i) => banks[i]!);
    this.tables = new RotaryTables(cfg, options.context);
    const { vocab_size: V, hidden_size: D, num_hidden_layers } = cfg;

    this.residual = new Map(banks.map((m) => [m, m.tensor(m.rows, D)]));
    this.ids = banks[0]!.ids(this.prefill_chunk);
    this.embed_tokens = w.table(banks[0]!, 'model.embed_tokens.weight', V, D);
    this.layers = Array.from({ length: num_hidden_layers }, (_, i) => decoderLayer(cfg, w, this.placement[i]!, this.tables, options, i));

    const head = this.placement[num_hidden_layers]!;
    head.rewindScratch();
    this.headRows = head.scratch(LOGIT_ROWS, D);
    this.norm = rms_norm(head, w, 'model.norm', D, cfg.rms_norm_eps);
    this.lm_head = linear(head, w, 'lm_head', V, D, { rows: Math.min(LOGIT_ROWS, head.rows) });
  }

  /** Called once, when the parameters are filled. */
  ready(): void {
    this.tables.fill();
    this.reset();
  }

  /** Tokens in the caches. */
  get position(): number {
    return this.tokensSoFar;
  }

  /** Calls so far that have changed what the caches hold. */
  get changes(): number {
    return this.changesSoFar;
  }

  /** Sees every intermediate by its HF module path, in the order of computation; null for none. */
  set tap(tap: Tap | null) {
    for (const m of this.banks) m.tap = tap;
  }

  /**
   * Runs tokens after those in the caches.
   * @param tokens [T] ids below vocab_size, 1 <= T <= prefill_chunk
   * @returns logits of the last token, [vocab_size]: a view, valid until the next call
   * @throws {ArgumentError} for an id out of range, too many tokens or none; the caches are then unchanged
   */
  forward(tokens: readonly number[] | Int32Array): FloatArray {
    const x = this.runLayers(tokens);
    return this.logitsOf(x, x.rows - 1, 1).data.subarray(0, this.config.vocab_size);
  }

  /**
   * The same with the logits of every token.
   * @param out [T, vocab_size], or longer
   * @throws {ArgumentError} as forward, and when `out` is too short
   */
  forwardAll(tokens: readonly number[] | Int32Array, out: FloatArray): void {
    const V = this.config.vocab_size;
    if (out.length < tokens.length * V) {
      const [expected, found] = [`room for ${tokens.length} rows of ${V} logits`, `room for ${out.length} numbers`];
      throw new ArgumentError({ where: 'out', expected, found, fix: 'Make it longer, or pass fewer tokens.' });
    }
    const x = this.runLayers(tokens);
    for (let row = 0; row < x.rows; row += LOGIT_ROWS) {
      const rows = Math.min(LOGIT_ROWS, x.rows - row);
      out.set(this.logitsOf(x, row, rows).data.subarray(0, rows * V), row * V);
    }
  }

  /** Empties the caches. */
  reset(): void {
    this.changesSoFar++;
    for (const layer of this.layers) layer.cache.reset();
    this.tokensSoFar = 0;
    this.tokensKept = 0;
  }

  /** Copies what the caches hold. A recurrent state cannot be rewound: this is the way back to it. */
  snapshot({ kv = true }: SnapshotOptions = {}): Snapshot {
    const position = this.tokensSoFar;
    return { position, layers: this.layers.map(({ cache }) => (kv || !cache.appendOnly ? cache.snapshot(position) : [])) };
  }

  /**
   * Puts back what the caches held. A snapshot without keys and values needs those of its tokens in the caches still: what can be seen of that is
   * checked, that they are of the same tokens is for the caller to know.
   * @throws {ArgumentError} before anything is changed, when the snapshot is of a model with other layers or sizes, or holds more tokens than the context
   */
  restore({ position, layers }: Snapshot): void {
    const refuse = (expected: string, found: string) => {
      const fix = 'Restore it into the model that it was taken from.';
      throw new ArgumentError({ where: 'snapshot', expected, found, fix });
    };
    if (layers.length !== this.layers.length || position > this.context) {
      const expected = `${this.layers.length} layers and at most ${this.context} tokens`;
      refuse(expected, `${layers.length} layers and ${position} tokens`);
    }
    const left = layers.map((saved, i) => saved.length === 0 && this.layers[i]!.cache.appendOnly);
    for (const [i, { cache }] of this.layers.entries()) {
      const [expected, found] = [cache.lengths(position), layers[i]!.map(({ length }) => length)];
      if (!left[i] && `${expected}` !== `${found}`) refuse(`arrays of ${expected} numbers for layer ${i}`, `${found}` || 'none');
    }
    if (left.includes(true) && position > this.tokensKept) {
      refuse(`the keys and values of its ${position} tokens in the caches`, `those of ${this.tokensKept}`);
    }
    this.changesSoFar++;
    this.layers.forEach(({ cache }, i) => {
      if (!left[i]) cache.restore(layers[i]!, position);
    });
    this.tokensSoFar = position;
    if (!left.includes(true)) this.tokensKept = position;
  }

  /**
   * Fills the caches up to `position` with copies of what they hold, to measure at a long context without reading a long text.
   * @throws {ArgumentError} when they are empty, hold more or cannot hold so many
   */
  stretch(position: number): void {
    if (this.tokensSoFar < 1 || position < this.tokensSoFar || position > this.context || !Number.isInteger(position)) {
      const expected = `an integer from ${Math.max(1, this.tokensSoFar)} to ${this.context}, after at least one token`;
      throw new ArgumentError({ where: 'position', expected, found: `${position}`, fix: 'Load the model with a larger context.' });
    }
    this.changesSoFar++;
    for (const layer of this.layers) layer.cache.stretch(this.tokensSoFar, position);
    this.tokensSoFar = position;
    this.tokensKept = position;
  }

  private runLayers(tokens: readonly number[] | Int32Array): Tensor {
    this.check(tokens);
    this.changesSoFar++;
    const T = tokens.length;
    let m = this.banks[0]!;
    let x = this.residual.get(m)!; // [T, D]
    this.ids.data.set(tokens);
    this.ids.rows = T;
    x.rows = T;
    m.kernels.embedding(x, this.ids, this.embed_tokens);
    m.tap?.('model.embed_tokens', x);
    for (let i = 0; i < this.layers.length; i++) {
      if (this.placement[i] !== m) {
        const next = this.residual.get(this.placement[i]!)!;
        copyRows(next, x, 0, T);
        m = this.placement[i]!;
        x = next;
      }
      this.layers[i]!.forward(x, this.tokensSoFar);
      m.tap?.(`model.layers.${i}`, x);
    }
    this.tokensSoFar += T;
    this.tokensKept = this.tokensSoFar;
    return x;
  }

  private logitsOf(x: Tensor, row: number, rows: number): Tensor {
    copyRows(this.headRows, x, row, rows);
    return this.lm_head(this.norm(this.headRows)); // [rows, V]
  }

  private check(tokens: readonly number[] | Int32Array): void {
    const { vocab_size } = this.config;
    const problems: Problem[] = [];
    const most = Math.min(this.prefill_chunk, this.context - this.tokensSoFar);
    if (tokens.length < 1 || tokens.length > most) {
      problems.push({
        where: 'tokens',
        expected: `1 to ${most} of them (prefill_chunk ${this.prefill_chunk}, ${this.context - this.tokensSoFar} positions of the context left)`,
        found: `${tokens.length}`,
        fix: 'Pass fewer at a time, or load the model with a larger context.',
      });
    }
    for (let t = 0; t < tokens.length; t++) {
      const id = tokens[t]!;
      if (!Number.isInteger(id) || id < 0 || id >= vocab_size) {
        const fix = 'Use the tokenizer that came with this model.';
        problems.push({ where: `tokens[${t}]`, expected: `an id from 0 to ${vocab_size - 1}`, found: `${id}`, fix });
        break;
      }
    }
    if (problems.length) throw new ArgumentError(problems);
  }
}

// A plain loop: subarray and set would allocate a view for each token.
function copyRows(to: Tensor, from: Tensor, row: number, rows: number): void {
  const D = from.cols;
  to.rows = rows;
  for (let i = 0; i < rows * D; i++) to.data[i] = from.data[row * D + i]!;
}
