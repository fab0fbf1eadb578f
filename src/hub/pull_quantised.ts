import type { FileHandle } from 'node:fs/promises';
import { openFile } from '../checkpoint/byte_source.ts';
import { type CheckpointFolder, openCheckpointFolder } from '../checkpoint/checkpoint_folder.ts';
import { INDEX, isSmall } from '../checkpoint/model_files.ts';
import { quantisedMetadata } from '../checkpoint/quantised.ts';
import { layoutSafetensors } from '../checkpoint/safetensors_writer.ts';
import { HubError } from '../errors.ts';
import { oneOf, planModel } from '../load.ts';
import { planShards, SHARD_BYTES, type Shard, ShardWriter, shardBytes, shardIndex } from '../quantised_shards.ts';
import { cachedRepository, cacheError, fileBytes, INCOMPLETE, writeRef } from './cache.ts';
import { HubClient } from './client.ts';
import { SUMS, writeSums } from './digests.ts';
import { type Held, withLock } from './lock.ts';
import type { ModelId } from './model_id.ts';
import { hasNeeded } from './needed_files.ts';
import type { Pulled, PullOptions } from './pull.ts';
import { ForwardReader, remoteFile, remoteFiles } from './remote_model.ts';
import { openRepository, type Repository } from './repository.ts';

export interface PullQuantisedOptions extends Omit<PullOptions, 'need'> {
  readonly weights: 'q8' | 'q4';
  /** Threads that quantise. They change no bit. Default 1. */
  readonly threads?: number | undefined;
}

export interface PulledQuantised extends Pulled {
  /** Parameters that hold NaN or infinite values, or in q4 some beyond 1.8 million, of what was quantised now. */
  readonly not_finite: readonly string[];
}

/**
 * Makes a quantised folder of a model on the Hub while it is downloaded; the original is on disk at no time (Node only). A shard is quantised as it
 * comes and checked against its digest; what ends this in the middle leaves the shards that are done, and the next call goes on behind them.
 * @throws {HubError} {ConfigError} {CheckpointError} {ArgumentError} as `pull` and `quantizeCheckpoint`
 */
export async function pullQuantised(id: ModelId, options: PullQuantisedOptions): Promise<PulledQuantised> {
  const { environment, weights, signal, onWait } = options;
  oneOf('weights', weights, ['q8', 'q4']); // the name of a folder of the cache
  const client = new HubClient(id, options);
  const repository = await openRepository(client);
  const { quantised } = cachedRepository(environment, id);
  const folder = `${quantised.snapshots}/${repository.commit}/${weights}`;
  const lock = `${quantised.locks}/${repository.commit}-${weights}.lock`;
  try {
    const pulled = await withLock(lock, { signal, onWait: () => onWait?.(weights) }, async (held) => {
      // The list is written last.
      if ((await fileBytes(`${folder}/${SUMS}`)) !== null && (await hasNeeded(folder, 'weights')))
        return { ...(await facts(folder)), fetched: 0, not_finite: [] };
      return await make(client, repository, folder, options, held);
    });
    await writeRef(quantised.refs, id.revision, repository.commit);
    return { folder, commit: repository.commit, ...pulled };
  } catch (error) {
    throw cacheError(error, environment);
  }
}

type Made = Omit<PulledQuantised, 'folder' | 'commit'>;

async function make(
  client: HubClient,
  repository: Repository,
  folder: string,
  { weights, threads = 1, onProgress }: PullQuantisedOptions,
  held: Held,
): Promise<Made> {
  const { signal } = held;
  const { mkdir, rename, rm, writeFile } = await import('node:fs/promises');
  const from = remoteFiles(client, repository);
  const { config, placement } = await planModel(from, { weights, threads, context: 1, memory_limit_bytes: Infinity });
  const checkpoint = await openCheckpointFolder(from);
  const shards = planShards(from.name, config, checkpoint, placement.parameters, SHARD_BYTES);
  const metadata = quantisedMetadata(weights, sourceOf(repository, checkpoint));
  const unfinished = `${folder}${INCOMPLETE}`;
  await rename(folder, unfinished).catch(() => {}); // where `cache verify` has taken files out of it
  await mkdir(unfinished, { recursive: true });

  const total = [...checkpoint.files.values()].reduce((sum, { source }) => sum + source.byteLength, 0);
  let [done, fetched] = [0, 0];
  const writer = await ShardWriter.create(shards, threads);
  try {
    await checkRoom(client, unfinished, shards, metadata);
    for (const [name, { source }] of checkpoint.files) {
      const ofSource = shards.filter((shard) => shard.source.source === source);
      const before = done;
      if (!(await areDone(unfinished, ofSource, metadata))) {
        const reader = await ForwardReader.open(remoteFile(client, repository, name));
        const onRead = (bytes: number) => {
          signal.throwIfAborted();
          done += bytes;
          onProgress?.(done, total, name);
        };
        await withUnfinished(unfinished, ofSource, held, async (files) => {
          await from.compare(name, reader.read); // by its header all was planned
          await writer.write(files, metadata, reader.read, onRead);
          await reader.finish();
        }).finally(() => reader.close());
        fetched += source.byteLength;
      }
      done = before + source.byteLength;
    }
  } finally {
    await writer.dispose();
  }
  const small = from.names.filter(isSmall);
  fetched += await copySmall(client, repository, small, unfinished);
  if (shards.length > 1) await writeFile(`${unfinished}/${INDEX}`, shardIndex(shards));
  const index = shards.length > 1 ? [INDEX] : [];
  await writeSums(unfinished, [...shards.map(({ name }) => name), ...index, ...small].sort(), signal);
  await held.check();
  await rm(folder, { recursive: true, force: true });
  await held.check();
  await rename(unfinished, folder);
  return { ...(await facts(folder)), fetched, not_finite: [...writer.notFinite] };
}

/** Returns the bytes of the files. */
async function copySmall(client: HubClient, repository: Repository, names: readonly string[], to: string): Promise<number> {
  const { mkdir, writeFile } = await import('node:fs/promises');
  const { dirname } = await import('node:path');
  let copied = 0;
  for (const name of names) {
    const reader = await ForwardReader.open(remoteFile(client, repository, name));
    const bytes = new Uint8Array(repository.files.get(name)!.bytes);
    await reader.read(0, bytes);
    await reader.finish();
    await mkdir(dirname(`${to}/${name}`), { recursive: true });
    await writeFile(`${to}/${name}`, bytes);
    copied += bytes.length;
  }
  return copied;
}

/** Says of what it was made: the sha256 of each file of weights, as the repository lists it. */
function sourceOf({ id, commit, files }: Repository, checkpoint: CheckpointFolder) {
  const digests = [...files.values()].filter(({ name }) => checkpoint.files.has(name));
  return {
    source_repository: id.repository,
    source_commit: commit,
    source_files_sha256: JSON.stringify(Object.fromEntries(digests.map(({ name, oid }) => [name, oid]))),
  };
}

/** Runs `work` with files that have their names only when it has succeeded. */
async function withUnfinished(
  folder: string,
  shards: readonly Shard[],
  held: Held,
  work: (files: ReadonlyMap<Shard, FileHandle>) => Promise<void>,
): Promise<void> {
  const { open, rename } = await import('node:fs/promises');
  const files = new Map<Shard, FileHandle>();
  try {
    for (const shard of shards) files.set(shard, await open(`${folder}/${shard.name}${INCOMPLETE}`, 'w'));
    await work(files);
    for (const file of files.values()) await file.datasync();
    await held.check();
  } finally {
    for (const file of files.values()) await file.close();
  }
  for (const { name } of shards) await rename(`${folder}/${name}${INCOMPLETE}`, `${folder}/${name}`);
}

/** Whether files are of the size that was planned, and begin with the header that was planned. */
async function areDone(folder: string, shards: readonly Shard[], metadata: ReadonlyMap<string, string>): Promise<boolean> {
  for (const shard of shards) {
    const path = `${folder}/${shard.name}`;
    if ((await fileBytes(path)) !== shardBytes(shard, metadata)) return false;
    const { header } = layoutSafetensors(shard.outputs, metadata);
    const found = new Uint8Array(header.length);
    const source = await openFile(path);
    await source.read(0, found).finally(() => source.close());
    if (Buffer.compare(header, found) !== 0) return false;
  }
  return true;
}

/** Refuses before the first byte what the disk cannot hold. */
async function checkRoom(
  client: HubClient,
  folder: string,
  shards: readonly Shard[],
  metadata: ReadonlyMap<string, string>,
): Promise<void> {
  const { statfs } = await import('node:fs/promises');
  let needed = 0;
  for (const shard of shards) needed += shardBytes(shard, metadata) - ((await fileBytes(`${folder}/${shard.name}`)) ?? 0);
  const { bavail, bsize } = await statfs(folder);
  if (needed <= bavail * bsize) return;
  throw new HubError({
    where: `${client.where()}, to ${client.environment.assets}`,
    expected: `room for ${(needed / 1e9).toFixed(1)} GB`,
    found: `${((bavail * bsize) / 1e9).toFixed(1)} GB`,
    fix: 'Make room, or choose another folder by HF_ASSETS_CACHE.',
  });
}

async function facts(folder: string): Promise<{ files: number; bytes: number }> {
  const { readdir } = await import('node:fs/promises');
  const names = await readdir(folder);
  let bytes = 0;
  for (const name of names) bytes += (await fileBytes(`${folder}/${name}`)) ?? 0;
  return { files: names.length, bytes };
}
