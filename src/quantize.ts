import type { FileHandle } from 'node:fs/promises';
import { writeFolderAtomically } from './atomic_file.ts';
import { Checkpoint } from './checkpoint/checkpoint.ts';
import { openCheckpointFolder } from './checkpoint/checkpoint_folder.ts';
import { tensorBytes } from './checkpoint/dtype.ts';
import { isSmall } from './checkpoint/model_files.ts';
import { packedShape, quantisedMetadata } from './checkpoint/quantised.ts';
import type { TensorEntry } from './checkpoint/safetensors.ts';
import { layoutSafetensors, type TensorLayout } from './checkpoint/safetensors_writer.ts';
import { isIgnored } from './checkpoint/tensor_names.ts';
import { digestOfWeights } from './checkpoint/weights_digest.ts';
import type { OlmoHybridConfig } from './config.ts';
import { ArgumentError } from './errors.ts';
import { planModel } from './load.ts';
import type { Parameter } from './model/weights.ts';
import { DTYPE_BYTES, isQuantised, type Matrix, matrixBytes, PANEL, type WeightDtype } from './runtime/tensor.ts';
import { ThreadPool } from './runtime/thread_pool.ts';
import { WasmBank } from './runtime/wasm_bank.ts';

/** Most bytes of a file's tensors. */
const SHARD_BYTES = 4e9;
/** Source bytes that are in memory at a time, or one panel if that is more. */
const CHUNK_BYTES = 1 << 24;
export interface QuantizeOptions {
  readonly weights: 'q8' | 'q4';
  /** Threads that share the work. They change no bit. Default 1. */
  readonly threads?: number | undefined;
  /** Most bytes of the tensors in one file; a larger tensor has its own. Default 4 GB. */
  readonly shard_bytes?: number | undefined;
  /** Ends it before the next piece, with its reason as the error; nothing is left of the output then. */
  readonly signal?: AbortSignal | undefined;
  /** Called with bytes done and bytes in all; every weight is read twice, for its digest and for its blocks. */
  readonly onProgress?: ((done: number, total: number) => void) | undefined;
}

export interface QuantizedFolder {
  readonly files: number;
  /** Of all tensors. */
  readonly bytes: number;
  readonly source_bytes: number;
  /** Parameters that hold NaN or infinite values. */
  readonly not_finite: readonly string[];
}

/** A tensor of the output: a copy of `entry`, or its blocks. */
interface Output extends TensorLayout {
  readonly entry: TensorEntry;
  readonly matrix: Matrix | null;
  readonly bytes: number;
}

/**
 * Writes a folder with the weights of another in blocks of 8 or 4 bits, as docs/quantised_format.md describes them (Node only). It loads faster than
 * the original and gives the bits that quantising on load gives. Memory does not grow with the model.
 * @param input folder of a checkpoint
 * @param output made here, with all its files or not at all
 * @throws {ArgumentError} when there is something at `output`, or the input is quantised already; {ConfigError} {CheckpointError} as loadModel
 */
export async function quantizeCheckpoint(input: string, output: string, options: QuantizeOptions): Promise<QuantizedFolder> {
  const { weights, threads = 1, shard_bytes = SHARD_BYTES, signal } = options;
  const { config, placement } = await planModel(input, { weights, context: 1, memory_limit_bytes: Infinity });
  const folder = await openCheckpointFolder(input);
  try {
    const outputs = outputsOf(input, config, folder.tensors, placement.parameters);
    const source_bytes = [...folder.tensors.values()].reduce((sum, { byteLength }) => sum + byteLength, 0);
    const total = source_bytes + outputs.reduce((sum, { entry }) => sum + entry.byteLength, 0);
    let done = 0;
    const onRead = (bytes: number) => {
      signal?.throwIfAborted();
      done += bytes;
      options.onProgress?.(done, total);
    };
    const shards = shardsOf(outputs, shard_bytes);
    const quantiser = await Quantiser.create(outputs, threads);
    try {
      await writeFolderAtomically(output, async (to) => {
        const metadata = quantisedMetadata(weights, await digestOfWeights(input, onRead, signal));
        await writeShards(to, shards, metadata, quantiser, onRead);
        await copyOthers(input, to);
      });
    } finally {
      await quantiser.dispose();
    }
    const bytes = outputs.reduce((sum, output) => sum + output.bytes, 0);
    return { files: shards.length, bytes, source_bytes, not_finite: [...quantiser.notFinite] };
  } finally {
    await folder.close();
  }
}

/** What the output holds of each tensor that the model uses, under its stored name; a tied lm_head under its own. */
function outputsOf(
  input: string,
  config: OlmoHybridConfig,
  tensors: ReadonlyMap<string, TensorEntry>,
  parameters: readonly Parameter[],
): Output[] {
  const checkpoint = new Checkpoint(config, tensors);
  if (checkpoint.isQuantised) {
    throw new ArgumentError({ where: input, expected: 'weights as they were trained', found: 'quantised ones', fix: 'Give the original.' });
  }
  const outputs = new Map<string, Output>();
  for (const entry of tensors.values()) {
    const { name, dtype, shape, byteLength } = entry;
    const unused = isIgnored(name) || (name === 'lm_head.weight' && config.tie_word_embeddings);
    if (!unused) outputs.set(name, { name, dtype, shape, entry, matrix: null, bytes: byteLength });
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

function shardsOf(outputs: readonly Output[], most_bytes: number): Output[][] {
  const shards: Output[][] = [[]];
  let used = 0;
  for (const output of outputs) {
    if (used > 0 && used + output.bytes > most_bytes) {
      shards.push([]);
      used = 0;
    }
    shards.at(-1)!.push(output);
    used += output.bytes;
  }
  return shards;
}

async function writeShards(
  to: string,
  shards: readonly (readonly Output[])[],
  metadata: ReadonlyMap<string, string>,
  quantiser: Quantiser,
  onRead: (bytes: number) => void,
): Promise<void> {
  const { open, writeFile } = await import('node:fs/promises');
  const count = String(shards.length).padStart(5, '0');
  const nameOf = (i: number) =>
    shards.length === 1 ? 'model.safetensors' : `model-${String(i + 1).padStart(5, '0')}-of-${count}.safetensors`;
  const weight_map: Record<string, string> = {};
  for (const [i, shard] of shards.entries()) {
    const { header, tensors } = layoutSafetensors(shard, metadata);
    const file = await open(`${to}/${nameOf(i)}`, 'wx');
    try {
      await file.writeFile(header);
      for (const output of tensors) {
        weight_map[output.name] = nameOf(i);
        await (output.matrix ? quantiser.write(file, output, output.matrix, onRead) : copyTensor(file, output.entry, onRead));
      }
    } finally {
      await file.close();
    }
  }
  if (shards.length === 1) return;
  const total_size = shards.flat().reduce((sum, { bytes }) => sum + bytes, 0);
  await writeFile(`${to}/model.safetensors.index.json`, `${JSON.stringify({ metadata: { total_size }, weight_map }, null, 2)}\n`);
}

async function copyTensor(file: FileHandle, { source, offset, byteLength }: TensorEntry, onRead: (bytes: number) => void): Promise<void> {
  const buffer = new Uint8Array(Math.min(CHUNK_BYTES, byteLength));
  for (let done = 0; done < byteLength; done += buffer.length) {
    const part = buffer.subarray(0, Math.min(buffer.length, byteLength - done));
    await source.read(offset + done, part);
    await file.writeFile(part);
    onRead(part.length);
  }
}

async function copyOthers(from: string, to: string): Promise<void> {
  const { copyFile, readdir } = await import('node:fs/promises');
  for (const name of await readdir(from)) if (isSmall(name)) await copyFile(`${from}/${name}`, `${to}/${name}`);
}

/** The kernels of `pack` over a memory for some panels of one matrix: panels follow each other in the layout, so that they are made in parts. */
class Quantiser {
  readonly notFinite = new Set<string>();
  private readonly pool: ThreadPool;
  private readonly bank: WasmBank;
  private readonly ptr: number;

  private constructor(pool: ThreadPool, bank: WasmBank, ptr: number) {
    this.pool = pool;
    this.bank = bank;
    this.ptr = ptr;
  }

  static async create(outputs: readonly Output[], threads: number): Promise<Quantiser> {
    let [packed, source] = [64, 64];
    for (const { entry, matrix } of outputs) {
      if (!matrix) continue;
      const rows = rowsAtOnce(entry, matrix);
      packed = Math.max(packed, matrixBytes(matrix.format, rows, matrix.K));
      source = Math.max(source, rows * rowBytes(entry, matrix));
    }
    const pool = await ThreadPool.create(threads);
    const bank = new WasmBank(pool, 1, 'strict', { persistent: packed + 64, scratch: source + 64 });
    const { ptr } = bank.tensor(1, Math.ceil(packed / 4));
    await pool.start();
    return new Quantiser(pool, bank, ptr);
  }

  async write(file: FileHandle, { name, entry }: Output, { format, N, K }: Matrix, onRead: (bytes: number) => void): Promise<void> {
    const step = rowsAtOnce(entry, { N, K });
    for (let begin = 0; begin < N; begin += step) {
      const rows = Math.min(step, N - begin);
      const bytes = rows * rowBytes(entry, { K });
      await entry.source.read(entry.offset + begin * rowBytes(entry, { K }), this.bank.staging.subarray(0, bytes));
      const part: Matrix = { layout: 'panels', format, N: rows, K, ptr: this.ptr, data: new Float32Array(0) };
      if (this.bank.storeRows(part, entry.dtype as WeightDtype, 0, rows) > 0) this.notFinite.add(name);
      await file.writeFile(this.bank.packed(part));
      onRead(bytes);
    }
  }

  async dispose(): Promise<void> {
    await this.pool.dispose();
  }
}

function rowBytes({ dtype }: TensorEntry, { K }: Pick<Matrix, 'K'>): number {
  return K * DTYPE_BYTES[dtype as WeightDtype];
}

/** Rows of a matrix that are quantised at a time: whole panels. */
function rowsAtOnce(entry: TensorEntry, matrix: Pick<Matrix, 'N' | 'K'>): number {
  const panels = Math.max(1, Math.floor(CHUNK_BYTES / (PANEL * rowBytes(entry, matrix))));
  return Math.min(panels, Math.ceil(matrix.N / PANEL)) * PANEL;
}
