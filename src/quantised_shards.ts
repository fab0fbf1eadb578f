import type { FileHandle } from 'node:fs/promises';
import { Checkpoint } from './checkpoint/checkpoint.ts';
import type { CheckpointFolder } from './checkpoint/checkpoint_folder.ts';
import { tensorBytes } from './checkpoint/dtype.ts';
import { packedShape } from './checkpoint/quantised.ts';
import type { SafetensorsFile, TensorEntry } from './checkpoint/safetensors.ts';
import { layoutSafetensors, type TensorLayout } from './checkpoint/safetensors_writer.ts';
import { isIgnored } from './checkpoint/tensor_names.ts';
import type { OlmoHybridConfig } from './config.ts';
import { ArgumentError } from './errors.ts';
import type { Parameter } from './model/weights.ts';
import { DTYPE_BYTES, isQuantised, type Matrix, matrixBytes, PANEL, TOGETHER, type WeightDtype } from './runtime/tensor.ts';
import { ThreadPool } from './runtime/thread_pool.ts';
import { WasmBank } from './runtime/wasm_bank.ts';

/** Most bytes of a file's tensors. */
export const SHARD_BYTES = 4e9;
/** Source bytes that are in memory at a time, or one panel if that is more. */
const CHUNK_BYTES = 1 << 24;

/** A tensor of the output: a copy of `entry`, or its blocks. */
interface Output extends TensorLayout {
  readonly entry: TensorEntry;
  readonly matrix: Matrix | null;
  readonly bytes: number;
}

/** A file of the output, made of one file of the input. */
export interface Shard {
  readonly name: string;
  readonly source: SafetensorsFile;
  readonly outputs: readonly Output[];
}

/** Reads bytes of a source; each call begins behind the one before. */
type ReadForward = (offset: number, out: Uint8Array) => Promise<void>;

/**
 * What the output holds of each tensor that the model uses, under its stored name; a tied lm_head under its own.
 * @param most_bytes of the tensors in one file; a larger tensor has its own
 * @throws {ArgumentError} when the input is quantised already
 */
export function planShards(
  where: string,
  config: OlmoHybridConfig,
  { files, tensors }: CheckpointFolder,
  parameters: readonly Parameter[],
  most_bytes: number,
): Shard[] {
  const outputs = outputsOf(where, config, tensors, parameters);
  const groups = [...files.values()].flatMap((source) => {
    const own = outputs.filter(({ entry }) => entry.source === source.source);
    return split(own, most_bytes).map((outputs) => ({ source, outputs }));
  });
  const numbered = (n: number) => String(n).padStart(5, '0');
  return groups.map((group, i) => ({
    ...group,
    name: groups.length === 1 ? 'model.safetensors' : `model-${numbered(i + 1)}-of-${numbered(groups.length)}.safetensors`,
  }));
}

/** The index of several shards. */
export function shardIndex(shards: readonly Shard[]): string {
  const total_size = shards.flatMap(({ outputs }) => outputs).reduce((sum, { bytes }) => sum + bytes, 0);
  const weight_map = Object.fromEntries(shards.flatMap(({ name, outputs }) => outputs.map((output) => [output.name, name])));
  return `${JSON.stringify({ metadata: { total_size }, weight_map }, null, 2)}\n`;
}

/** Bytes of a shard as a file. */
export function shardBytes({ outputs }: Shard, metadata: ReadonlyMap<string, string>): number {
  return layoutSafetensors(outputs, metadata).header.length + outputs.reduce((sum, { bytes }) => sum + bytes, 0);
}

const EMBEDDING = 'model.embed_tokens.weight';

function outputsOf(
  where: string,
  config: OlmoHybridConfig,
  tensors: ReadonlyMap<string, TensorEntry>,
  parameters: readonly Parameter[],
): Output[] {
  const checkpoint = new Checkpoint(config, tensors);
  if (checkpoint.isQuantised) {
    throw new ArgumentError({ where, expected: 'weights as they were trained', found: 'quantised ones', fix: 'Give the original.' });
  }
  const outputs = new Map<string, Output>();
  for (const entry of tensors.values()) {
    const { name, dtype, shape, byteLength } = entry;
    // A tied embedding may be stored as lm_head, whose name a quantised one takes.
    const kept = checkpoint.entriesOf(EMBEDDING)?.[0] === entry ? EMBEDDING : name;
    if (!isIgnored(name)) outputs.set(kept, { name: kept, dtype, shape, entry, matrix: null, bytes: byteLength });
  }
  for (const parameter of parameters) {
    if (parameter.kind !== 'matrix' || !isQuantised(parameter.weight.format)) continue;
    const { weight: matrix } = parameter;
    const [entry] = checkpoint.entriesOf(parameter.name) as [TensorEntry];
    const name = parameter.name === 'lm_head.weight' ? parameter.name : entry.name;
    const shape = packedShape(matrix);
    outputs.set(name, { name, dtype: 'U8', shape, entry, matrix, bytes: tensorBytes('U8', shape)! });
  }
  return [...outputs.values()];
}

function split(outputs: readonly Output[], most_bytes: number): Output[][] {
  const groups: Output[][] = [];
  let used = Infinity;
  for (const output of outputs) {
    if (used > 0 && used + output.bytes > most_bytes) {
      groups.push([]);
      used = 0;
    }
    groups.at(-1)!.push(output);
    used += output.bytes;
  }
  return groups;
}

/** Writes shards: the kernels of `pack` over a memory for some groups of panels of one matrix, which follow each other in the layout. */
export class ShardWriter {
  /** Parameters that hold NaN or infinite values, or in q4 some beyond 1.8 million. */
  readonly notFinite = new Set<string>();
  private readonly pool: ThreadPool;
  private readonly bank: WasmBank;
  private readonly ptr: number;

  private constructor(pool: ThreadPool, bank: WasmBank, ptr: number) {
    this.pool = pool;
    this.bank = bank;
    this.ptr = ptr;
  }

  static async create(shards: readonly Shard[], threads: number): Promise<ShardWriter> {
    let [packed, source] = [64, 64];
    for (const { entry, matrix } of shards.flatMap(({ outputs }) => outputs)) {
      if (!matrix) continue;
      const bytes = bytesAtOnce(entry, matrix);
      packed = Math.max(packed, matrixBytes(matrix.format, bytes / rowBytes(entry, matrix), matrix.K));
      source = Math.max(source, bytes);
    }
    const pool = await ThreadPool.create(threads);
    const bank = new WasmBank(pool, 1, 'strict', { persistent: packed + 64, scratch: source + 64 });
    const { ptr } = bank.tensor(1, Math.ceil(packed / 4));
    await pool.start();
    return new ShardWriter(pool, bank, ptr);
  }

  /**
   * Writes all shards that are made of one file, which is read once from its beginning to its end.
   * @param files an open file for each of the shards
   * @param onRead is called with the bytes that have been read
   */
  async write(
    files: ReadonlyMap<Shard, FileHandle>,
    metadata: ReadonlyMap<string, string>,
    read: ReadForward,
    onRead: (bytes: number) => void,
  ): Promise<void> {
    const byEntry = new Map<TensorEntry, ((bytes: Uint8Array, at: number) => Promise<void>)[]>();
    for (const [shard, file] of files) {
      const { header, tensors } = layoutSafetensors(shard.outputs, metadata);
      await writeAt(file, header, 0);
      let position = header.length;
      for (const output of tensors) {
        byEntry.set(output.entry, [...(byEntry.get(output.entry) ?? []), this.writerOf(output, file, position)]);
        position += output.bytes;
      }
    }
    const outputs = [...files.keys()].flatMap((shard) => shard.outputs);
    const matrices = new Map(outputs.flatMap(({ entry, matrix }) => (matrix ? [[entry, matrix] as const] : [])));
    for (const entry of [...byEntry.keys()].sort((a, b) => a.offset - b.offset)) {
      const matrix = matrices.get(entry);
      const buffer = matrix ? this.bank.staging : new Uint8Array(Math.min(CHUNK_BYTES, entry.byteLength));
      const step = matrix ? bytesAtOnce(entry, matrix) : buffer.length;
      for (let at = 0; at < entry.byteLength; at += step) {
        const bytes = buffer.subarray(0, Math.min(step, entry.byteLength - at));
        await read(entry.offset + at, bytes);
        for (const write of byEntry.get(entry)!) await write(bytes, at);
        onRead(bytes.length);
      }
    }
  }

  async dispose(): Promise<void> {
    await this.pool.dispose();
  }

  /** What is done with the bytes of a tensor from byte `at` on. */
  private writerOf({ name, entry, matrix }: Output, file: FileHandle, position: number) {
    if (!matrix) return async (bytes: Uint8Array, at: number) => await writeAt(file, bytes, position + at);
    let end = position;
    return async ({ length }: Uint8Array) => {
      // The bytes are where the kernel looks for them.
      const { format, K } = matrix;
      const part: Matrix = { layout: 'panels', format, N: length / rowBytes(entry, matrix), K, ptr: this.ptr, data: new Float32Array(0) };
      if (this.bank.storeRows(part, entry.dtype as WeightDtype, 0, part.N) > 0) this.notFinite.add(name);
      const packed = this.bank.packed(part);
      await writeAt(file, packed, end);
      end += packed.length;
    };
  }
}

/** All bytes; a single write may take fewer. */
async function writeAt(file: FileHandle, bytes: Uint8Array, position: number): Promise<void> {
  for (let done = 0; done < bytes.length; ) done += (await file.write(bytes, done, bytes.length - done, position + done)).bytesWritten;
}

function rowBytes({ dtype }: TensorEntry, { K }: Pick<Matrix, 'K'>): number {
  return K * DTYPE_BYTES[dtype as WeightDtype];
}

/** Bytes of a matrix that are quantised at a time: whole groups of panels. */
function bytesAtOnce(entry: TensorEntry, matrix: Pick<Matrix, 'N' | 'K'>): number {
  const bytes = TOGETHER * PANEL * rowBytes(entry, matrix);
  return Math.min(Math.max(1, Math.floor(CHUNK_BYTES / bytes)), Math.ceil(matrix.N / (TOGETHER * PANEL))) * bytes;
}
