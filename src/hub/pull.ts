import { INDEX, isSmall, SINGLE } from '../checkpoint/model_files.ts';
import { HubError, type Problem } from '../errors.ts';
import { gigabytes } from '../words.ts';
import { cachedRepository, cacheError, fileBytes, INCOMPLETE, linkBlob, writeRef } from './cache.ts';
import { HubClient, type HubOptions } from './client.ts';
import { download } from './download.ts';
import { withLock } from './lock.ts';
import { formatModelId, type ModelId } from './model_id.ts';
import { type Need, neededShards } from './needed_files.ts';
import { RemoteFile } from './remote_file.ts';
import { type HubFile, openRepository, type Repository } from './repository.ts';

export interface PullOptions extends HubOptions {
  /** `weights`, the default: all that running the model takes. `text`: all but the weights. */
  readonly need?: Need | undefined;
  /** Called with bytes done and bytes in all of what was not in the cache, and the file that is being fetched. */
  readonly onProgress?: ((done: number, total: number, file: string) => void) | undefined;
  /** Called when another process fetches the file already, and this one waits for it. */
  readonly onWait?: ((file: string) => void) | undefined;
}

export interface Pulled {
  /** The snapshot. */
  readonly folder: string;
  readonly commit: string;
  readonly files: number;
  /** Of all files. */
  readonly bytes: number;
  /** Bytes that were not in the cache. */
  readonly fetched: number;
}

/**
 * Downloads a model into the cache that Python's huggingface_hub uses, as far as it is not there, and checks the digest of each file on its way
 * (Node only). HF: huggingface_hub.snapshot_download.
 * @throws {HubError} when it cannot be had; what has come is kept, and the next call goes on from there
 */
export async function pull(id: ModelId, options: PullOptions): Promise<Pulled> {
  const client = new HubClient(id, options);
  const repository = await openRepository(client);
  try {
    return await new Pull(client, repository, options).run();
  } catch (error) {
    throw cacheError(error, options.environment);
  }
}

class Pull {
  readonly #client: HubClient;
  readonly #repository: Repository;
  readonly #options: PullOptions;
  readonly #cached;
  readonly #snapshot: string;
  #total = 0;
  #done = 0;

  constructor(client: HubClient, repository: Repository, options: PullOptions) {
    this.#client = client;
    this.#repository = repository;
    this.#options = options;
    this.#cached = cachedRepository(options.environment, repository.id);
    this.#snapshot = `${this.#cached.snapshots}/${repository.commit}`;
  }

  async run(): Promise<Pulled> {
    const { mkdir } = await import('node:fs/promises');
    const { commit, files, id } = this.#repository;
    const { need = 'weights' } = this.#options;
    if (!files.has('config.json')) {
      const fix = 'Take the repository of a model.';
      throw new HubError({ where: this.#client.where(), expected: 'config.json in the repository', found: 'no such file', fix });
    }
    await mkdir(this.#cached.blobs, { recursive: true });
    const small = [...files.values()].filter(({ name }) => isSmall(name) || (name === INDEX && !files.has(SINGLE)));
    await this.#fetch(small);
    const weights = need === 'weights' ? await this.#weights() : [];
    await this.#fetch(weights);
    await writeRef(this.#cached.refs, id.revision, commit);
    const all = [...small, ...weights];
    return { folder: this.#snapshot, commit, files: all.length, bytes: sum(all), fetched: this.#total };
  }

  /** model.safetensors, or the shards of its index, which is in the snapshot by now. */
  async #weights(): Promise<HubFile[]> {
    const { files } = this.#repository;
    const single = files.get(SINGLE);
    if (single) return [single];
    if (!files.has(INDEX)) {
      const fix = 'Take a model that is published in the safetensors format.';
      throw new HubError({ where: this.#client.where(), expected: `${SINGLE} or ${INDEX}`, found: 'neither', fix });
    }
    const problems: Problem[] = [];
    const shards = (await neededShards(this.#snapshot)).flatMap((name) => {
      const file = files.get(name);
      if (file) return [file];
      const fix = 'The repository is not complete: take another revision.';
      problems.push({ where: this.#client.where(INDEX), expected: `${name} in the repository`, found: 'no such file', fix });
      return [];
    });
    if (problems.length > 0) throw new HubError(problems);
    return shards;
  }

  async #fetch(files: readonly HubFile[]): Promise<void> {
    const missing: HubFile[] = [];
    for (const file of files) if ((await fileBytes(this.#blob(file))) !== file.bytes) missing.push(file);
    this.#total += sum(missing);
    await this.#checkRoom(missing);
    for (const file of files) {
      const removed = !missing.includes(file) && (await fileBytes(this.#blob(file))) !== file.bytes; // by `cache rm`, since it was looked at
      if (removed) this.#total += file.bytes;
      if (removed || missing.includes(file)) await this.#fetchOne(file);
      await linkBlob(this.#snapshot, file.name, this.#blob(file));
    }
  }

  async #fetchOne(file: HubFile): Promise<void> {
    const { rm } = await import('node:fs/promises');
    const { signal, onProgress, onWait } = this.#options;
    const blob = this.#blob(file);
    const begin = this.#done;
    const onBytes = (count: number) => {
      this.#done += count;
      onProgress?.(this.#done, this.#total, file.name);
    };
    await withLock(`${this.#cached.locks}/${file.oid}.olmo-hybrid.lock`, { signal, onWait: () => onWait?.(file.name) }, async (held) => {
      const bytes = await fileBytes(blob);
      if (bytes === file.bytes) return; // another process was faster
      if (bytes !== null) await rm(blob);
      await download(new RemoteFile(this.#client, this.#repository.commit, file), blob, held, onBytes);
    });
    onBytes(begin + file.bytes - this.#done);
  }

  /** Refuses before the first byte what the disk cannot hold. */
  async #checkRoom(missing: readonly HubFile[]): Promise<void> {
    const { statfs } = await import('node:fs/promises');
    let needed = 0;
    for (const file of missing) needed += file.bytes - ((await fileBytes(`${this.#blob(file)}${INCOMPLETE}`)) ?? 0);
    const { bavail, bsize } = await statfs(this.#cached.blobs);
    if (needed <= bavail * bsize) return;
    const { cache } = this.#options.environment;
    throw new HubError({
      where: `${formatModelId(this.#repository.id)}, to ${cache}`,
      expected: `room for ${gigabytes(needed)}`,
      found: gigabytes(bavail * bsize),
      fix: 'Make room, or choose another folder by HF_HUB_CACHE.',
    });
  }

  #blob({ oid }: HubFile): string {
    return `${this.#cached.blobs}/${oid}`;
  }
}

function sum(files: readonly HubFile[]): number {
  return files.reduce((total, { bytes }) => total + bytes, 0);
}
