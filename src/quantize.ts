import type { FileHandle } from 'node:fs/promises';
import { writeFolderAtomically } from './atomic_file.ts';
import { openCheckpointFolder } from './checkpoint/checkpoint_folder.ts';
import { INDEX, isSmall } from './checkpoint/model_files.ts';
import { quantisedMetadata } from './checkpoint/quantised.ts';
import { digestOfWeights } from './checkpoint/weights_digest.ts';
import { inRange, oneOf, planModel } from './load.ts';
import { planShards, SHARD_BYTES, type Shard, ShardWriter, shardIndex } from './quantised_shards.ts';

export interface QuantizeOptions {
  readonly weights: 'q8' | 'q4';
  /** Threads that share the work. They change no bit. Default 1. */
  readonly threads?: number | undefined;
  /** Most bytes of the tensors in one file; a larger tensor has its own. A file holds tensors of one file of the input. Default 4 GB. */
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
  /** Parameters that hold NaN or infinite values, or in q4 some beyond 1.8 million. */
  readonly not_finite: readonly string[];
}

/**
 * Writes a folder with the weights of another in blocks of 8 or 4 bits, as docs/quantised_format.md describes them (Node only). It loads faster than
 * the original and gives the bits that quantising on load gives. Memory does not grow with the model.
 * @param input folder of a checkpoint
 * @param output made here, with all its files or not at all
 * @throws {ArgumentError} when there is something at `output`, the input is quantised already, or an option is out of range; {ConfigError}
 *   {CheckpointError} as loadModel
 */
export async function quantizeCheckpoint(input: string, output: string, options: QuantizeOptions): Promise<QuantizedFolder> {
  const { weights, threads = 1, shard_bytes = SHARD_BYTES, signal } = options;
  oneOf('weights', weights, ['q8', 'q4']);
  inRange('shard_bytes', shard_bytes, Number.MAX_SAFE_INTEGER);
  const { config, placement } = await planModel(input, { weights, threads, context: 1, memory_limit_bytes: Infinity });
  const folder = await openCheckpointFolder(input);
  try {
    const shards = planShards(input, config, folder, placement.parameters, shard_bytes);
    const small = await smallFiles(input);
    const source_bytes = [...folder.tensors.values()].reduce((sum, { byteLength }) => sum + byteLength, 0);
    let done = 0;
    const onRead = (bytes: number) => {
      signal?.throwIfAborted();
      done += bytes;
      options.onProgress?.(done, 2 * source_bytes);
    };
    const writer = await ShardWriter.create(shards, threads);
    try {
      await writeFolderAtomically(output, async (to) => {
        const metadata = quantisedMetadata(weights, { source_weights_sha256: await digestOfWeights(input, onRead, signal) });
        for (const { source } of folder.files.values()) {
          const ofSource = shards.filter((shard) => shard.source.source === source);
          await withFiles(to, ofSource, async (files) => await writer.write(files, metadata, source.read, onRead));
        }
        await copySmall(input, to, small, shards);
      });
    } finally {
      await writer.dispose();
    }
    const bytes = shards.flatMap(({ outputs }) => outputs).reduce((sum, output) => sum + output.bytes, 0);
    return { files: shards.length, bytes, source_bytes, not_finite: [...writer.notFinite] };
  } finally {
    await folder.close();
  }
}

/** Runs `work` with a new file for each shard. */
async function withFiles(
  folder: string,
  shards: readonly Shard[],
  work: (files: ReadonlyMap<Shard, FileHandle>) => Promise<void>,
): Promise<void> {
  const { open } = await import('node:fs/promises');
  const files = new Map<Shard, FileHandle>();
  try {
    for (const shard of shards) files.set(shard, await open(`${folder}/${shard.name}`, 'wx'));
    await work(files);
  } finally {
    for (const file of files.values()) await file.close();
  }
}

/** Names of the files that belong to a model beside its weights; folders of such names, and links to nothing, do not. */
async function smallFiles(folder: string): Promise<string[]> {
  const { readdir, stat } = await import('node:fs/promises');
  const names: string[] = [];
  for (const name of await readdir(folder, { recursive: true }))
    if (isSmall(name) && (await stat(`${folder}/${name}`).catch(() => null))?.isFile()) names.push(name);
  return names;
}

async function copySmall(from: string, to: string, names: readonly string[], shards: readonly Shard[]): Promise<void> {
  const { cp, writeFile } = await import('node:fs/promises');
  for (const name of names) await cp(`${from}/${name}`, `${to}/${name}`, { dereference: true });
  if (shards.length > 1) await writeFile(`${to}/${INDEX}`, shardIndex(shards));
}
