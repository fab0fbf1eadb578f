import type { OlmoHybridConfig } from '../config.ts';
import type { Parameter } from '../model/weights.ts';
import { STAGING_SLOTS } from '../runtime/addressed_bank.ts';
import { DTYPE_BYTES, formatOf, isQuantised, type Matrix, PANEL, type WeightDtype, type WeightFormat } from '../runtime/tensor.ts';
import type { Dtype } from './dtype.ts';
import { ProblemList, quote } from './problem_list.ts';
import { BLOCK_BYTES, packedFormat, packedShape, spoiltBlocks } from './quantised.ts';
import { readTensor, type TensorEntry } from './safetensors.ts';
import { candidates, convolutionParts, isIgnored } from './tensor_names.ts';

const REVISION = 'Use the config.json from the same revision as the weights.';

/** Bytes of a quantised matrix that are read at a time, straight into its place. */
const PACKED_BYTES = 1 << 22;

/** A part of a matrix on its way from the file, from byte `offset` on, to memory. */
interface Piece {
  readonly name: string;
  readonly source: TensorEntry['source'];
  readonly offset: number;
  readonly room: Uint8Array;
  /** Called when it has been read; returns 0 if all values are finite. */
  readonly store: () => number;
}

/** How a checkpoint is read. */
interface Reading {
  readonly onProgress?: ((done: number, total: number) => void) | undefined;
  readonly signal?: AbortSignal | undefined;
}

/** The stored tensors of a model's parameters, found and checked by name, shape and dtype; nothing is read yet. */
export class Checkpoint {
  private readonly config: OlmoHybridConfig;
  private readonly tensors: ReadonlyMap<string, TensorEntry>;

  constructor(config: OlmoHybridConfig, tensors: ReadonlyMap<string, TensorEntry>) {
    this.config = config;
    this.tensors = tensors;
  }

  /** In which format a matrix lies in memory if it is taken as stored; one that is missing counts as f32 until `check` reports it. */
  formatOf = (name: string): WeightFormat => {
    const [entry] = this.entriesOf(name) ?? [];
    if (entry === undefined) return 'F32';
    return packedFormat(entry) ?? (isWeightDtype(entry.dtype) ? formatOf(entry.dtype) : 'F32');
  };

  /** Whether matrices are stored in a quantised format. */
  get isQuantised(): boolean {
    return [...this.tensors.values()].some((entry) => packedFormat(entry) !== null);
  }

  /**
   * Compares the checkpoint with what the model declares.
   * @throws {CheckpointError} with every missing, unexpected or unfit tensor.
   */
  check(parameters: readonly Parameter[], where: string): void {
    const problems = new ProblemList(where);
    const used = new Set<string>();
    const { isQuantised } = this; // looks at all tensors
    for (const parameter of parameters) {
      const entries = this.entriesOf(parameter.name);
      if (!entries) {
        const expected = `a tensor [${parameter.shape.join(', ')}]`;
        problems.add({ where: `${where}: ${quote(parameter.name)}`, expected, found: 'nothing', fix: REVISION });
        continue;
      }
      for (const entry of entries) {
        used.add(entry.name);
        const mayBePacked = parameter.kind === 'matrix' && parameter.weight.layout === 'panels';
        if (mayBePacked && packedFormat(entry) !== null) continue;
        if (mayBePacked && isQuantised) {
          // Also a tied head, which the embedding would stand in for with other bits than its own.
          const [expected, found] = ['a quantised tensor, as the others are', `${entry.dtype} in ${quote(entry.name)}`];
          problems.add({ where: `${where}: ${quote(parameter.name)}`, expected, found, fix: 'Quantise the original again.' });
          continue;
        }
        if (isWeightDtype(entry.dtype)) continue;
        const fix = 'Save the model in one of these.';
        problems.add({ where: `${entry.source.name}: ${quote(entry.name)}`, expected: 'BF16, F16 or F32', found: entry.dtype, fix });
      }
      const expected = `[${this.storedShape(parameter).join(', ')}]`;
      const found = `[${stackedShape(entries)}]`;
      if (found === expected) continue;
      const name = entries.map((entry) => quote(entry.name)).join(' + ');
      problems.add({ where: `${entries[0]!.source.name}: ${name}`, expected, found, fix: REVISION });
    }
    for (const [name, entry] of this.tensors) {
      if (used.has(name) || isIgnored(name)) continue;
      problems.add({
        where: `${entry.source.name}: ${quote(name)}`,
        expected: 'no such tensor in this model',
        found: 'one',
        fix: REVISION,
      });
    }
    problems.throwIfAny();
  }

  /**
   * Reads every parameter into its place.
   * @param onProgress Called after each piece with bytes done and bytes in all.
   * @param signal Ends it before the next piece, with its reason as the error.
   * @returns The names of parameters that hold NaN or infinite values.
   * @throws {CheckpointError} when the files cannot be read, or have changed since they were opened.
   */
  async load(parameters: readonly Parameter[], { onProgress, signal }: Reading = {}): Promise<string[]> {
    const bad = new Set<string>();
    const total = parameters.reduce((sum, parameter) => sum + this.bytesOf(parameter), 0);
    let done = 0;
    for (const parameter of parameters) {
      if (parameter.kind === 'matrix') continue;
      signal?.throwIfAborted();
      if ((await this.loadSmall(parameter)) > 0) bad.add(parameter.name);
      done += this.bytesOf(parameter);
    }
    // While one piece is stored by all threads, the next ones are read.
    const reading: { piece: Piece; read: Promise<void> }[] = [];
    const store = async () => {
      const { piece, read } = reading.shift()!;
      await read;
      if (piece.store() > 0) bad.add(piece.name);
      done += piece.room.length;
      onProgress?.(done, total);
    };
    try {
      for (const piece of this.pieces(parameters)) {
        signal?.throwIfAborted();
        if (reading.length === STAGING_SLOTS) await store();
        reading.push({ piece, read: piece.source.read(piece.offset, piece.room) });
      }
      while (reading.length > 0) await store();
    } finally {
      await Promise.allSettled(reading.map(({ read }) => read));
    }
    return parameters.filter(({ name }) => bad.has(name)).map(({ name }) => name);
  }

  /** All matrices in pieces of as many rows as a slot of the bank's staging area holds, each in the slot after the one before. */
  private *pieces(parameters: readonly Parameter[]): Generator<Piece> {
    let count = 0;
    for (const parameter of parameters) {
      if (parameter.kind !== 'matrix') continue;
      const { bank, weight, name } = parameter;
      const entry = this.entriesOf(name)![0]!;
      const { source } = entry;
      if (packedFormat(entry)) {
        yield* packedPieces(name, entry, weight, bank.packed(weight));
        continue;
      }
      const dtype = entry.dtype as WeightDtype;
      const rowBytes = weight.K * DTYPE_BYTES[dtype];
      const slotBytes = Math.floor(bank.staging.length / STAGING_SLOTS / 64) * 64;
      const rows = Math.floor(slotBytes / rowBytes / PANEL) * PANEL;
      for (let begin = 0; begin < weight.N; begin += rows) {
        const end = Math.min(begin + rows, weight.N);
        const at = (count++ % STAGING_SLOTS) * slotBytes;
        const room = bank.staging.subarray(at, at + (end - begin) * rowBytes);
        const store = () => bank.storeRows(weight, dtype, begin, end, at);
        yield { name, source, offset: entry.offset + begin * rowBytes, room, store };
      }
    }
  }

  private bytesOf({ name, shape }: Parameter): number {
    const [entry] = this.entriesOf(name)!;
    if (packedFormat(entry!)) return entry!.byteLength;
    return shape.reduce((product, n) => product * n, DTYPE_BYTES[entry!.dtype as WeightDtype]);
  }

  private async loadSmall({ name, shape, kind, tensor }: Parameter & { kind: 'vector' | 'convolution' }): Promise<number> {
    const entries = this.entriesOf(name)!;
    const parts = await Promise.all(entries.map(readTensor));
    const stored = new Float32Array(parts.reduce((sum, part) => sum + part.length, 0));
    let at = 0;
    for (const part of parts) {
      stored.set(part as Float32Array, at);
      at += part.length;
    }
    if (kind === 'vector') tensor.data.set(stored);
    else {
      const [C, , W] = shape as [number, number, number];
      const first = this.firstChannel(name);
      for (let c = 0; c < C; c++) for (let j = 0; j < W; j++) tensor.data[j * C + c] = stored[(first + c) * W + j]!;
    }
    let bad = 0;
    for (const value of tensor.data) bad += Number.isFinite(value) ? 0 : 1;
    return bad;
  }

  /** The stored tensors that hold a parameter: one, or the parts of the three convolutions. */
  entriesOf(name: string): TensorEntry[] | null {
    const ways = convolutionParts(name) ?? candidates(name, this.config.layer_types, this.config.tie_word_embeddings).map((one) => [one]);
    for (const names of ways) {
      const entries = names.map((one) => this.tensors.get(one)).filter((entry) => entry !== undefined);
      if (entries.length === names.length) return entries;
    }
    return null;
  }

  /** Of a convolution, the rows of q, k and v together. */
  private storedShape(parameter: Parameter): readonly number[] {
    const { shape, kind } = parameter;
    if (kind === 'matrix' && isQuantised(this.formatOf(parameter.name))) return packedShape(parameter.weight);
    const { key, value } = this.widths();
    return kind === 'convolution' ? [2 * key + value, ...shape.slice(1)] : shape;
  }

  private firstChannel(name: string): number {
    const { key } = this.widths();
    return name.endsWith('q_conv1d.weight') ? 0 : name.endsWith('k_conv1d.weight') ? key : 2 * key;
  }

  private widths(): { key: number; value: number } {
    const c = this.config;
    return { key: c.linear_num_key_heads * c.linear_key_head_dim, value: c.linear_num_value_heads * c.linear_value_head_dim };
  }
}

/** A quantised matrix in pieces of whole blocks. */
function* packedPieces(name: string, { source, offset }: TensorEntry, { format }: Matrix, bytes: Uint8Array): Generator<Piece> {
  const block = BLOCK_BYTES[format as 'Q8' | 'Q4'];
  const step = Math.floor(PACKED_BYTES / block) * block;
  for (let at = 0; at < bytes.length; at += step) {
    const room = bytes.subarray(at, at + step);
    yield { name, source, offset: offset + at, room, store: () => spoiltBlocks(room, format) };
  }
}

function isWeightDtype(dtype: Dtype): dtype is WeightDtype {
  return dtype in DTYPE_BYTES;
}

/** The shape of the entries one below the other. */
function stackedShape(entries: readonly TensorEntry[]): string {
  const [first] = entries;
  const rest = first!.shape.slice(1).join(', ');
  if (entries.length === 1) return first!.shape.join(', ');
  if (entries.some((entry) => entry.shape.slice(1).join(', ') !== rest))
    return entries.map((entry) => entry.shape.join(', ')).join('] and [');
  return [entries.reduce((rows, entry) => rows + (entry.shape[0] ?? 0), 0), rest].join(', ');
}
