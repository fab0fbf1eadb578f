import type { Hash } from 'node:crypto';
import type { ByteSource } from '../checkpoint/byte_source.ts';
import type { ModelFiles } from '../checkpoint/model_files.ts';
import { CheckpointError, HubError } from '../errors.ts';
import type { HubClient } from './client.ts';
import { hashFor } from './digests.ts';
import { RemoteFile } from './remote_file.ts';
import type { Repository } from './repository.ts';

const CHANGED = 'Try again later; something between here and the Hub changes the file.';

/** Reads bytes of a file; each call begins behind the one before. */
type ReadForward = (offset: number, out: Uint8Array) => Promise<void>;

export interface RemoteFiles extends ModelFiles {
  /**
   * Compares what was read of a file of weights with the same bytes of another reading.
   * @throws {HubError} when they differ
   */
  compare(name: string, read: ReadForward): Promise<void>;
}

/**
 * The files of a repository at a commit, where they lie. Weights are read by ranges, which no digest covers: what was read of them is remembered, so that
 * every look sees the same, and can be compared when the file comes in full. Other files are small: they are read in full and checked.
 */
export function remoteFiles(client: HubClient, repository: Repository): RemoteFiles {
  const seen = new Map<string, Map<number, Uint8Array>>();
  return {
    name: client.where(),
    names: [...repository.files.keys()],
    open: async (name) => {
      const remote = remoteFile(client, repository, name);
      if (!name.endsWith('.safetensors')) return checkedSource(remote);
      const ranges = seen.get(name) ?? new Map<number, Uint8Array>();
      seen.set(name, ranges);
      return rememberedSource(remote.source(), ranges);
    },
    compare: async (name, read) => {
      for (const [offset, bytes] of [...(seen.get(name) ?? [])].sort(([a], [b]) => a - b)) {
        const found = new Uint8Array(bytes.length);
        await read(offset, found);
        if (Buffer.compare(bytes, found) === 0) continue;
        const expected = `the ${bytes.length} bytes from offset ${offset} on that were read before`;
        throw new HubError({ where: client.where(name), expected, found: 'others', fix: CHANGED });
      }
    },
  };
}

function rememberedSource(source: ByteSource, ranges: Map<number, Uint8Array>): ByteSource {
  return {
    ...source,
    read: async (offset, out) => {
      const before = ranges.get(offset);
      if (before?.length === out.length) return out.set(before);
      await source.read(offset, out);
      ranges.set(offset, Uint8Array.from(out));
    },
  };
}

function checkedSource(remote: RemoteFile): ByteSource {
  return {
    name: remote.where,
    byteLength: remote.file.bytes,
    read: async (offset, out) => {
      const bytes = new Uint8Array(remote.file.bytes);
      const reader = await ForwardReader.open(remote);
      await reader.read(0, bytes);
      await reader.finish();
      out.set(bytes.subarray(offset, offset + out.length));
    },
    close: async () => {},
  };
}

/** @throws {CheckpointError} when the repository has no such file */
export function remoteFile(client: HubClient, { commit, files }: Repository, name: string): RemoteFile {
  const file = files.get(name);
  if (file) return new RemoteFile(client, commit, file);
  const fix = 'The repository is not complete: take another revision.';
  throw new CheckpointError({ where: client.where(name), expected: 'this file in the repository', found: 'no such file', fix });
}

/** A file on the Hub that is read once from its beginning to its end, and checked against its digest on the way. */
export class ForwardReader {
  readonly #remote: RemoteFile;
  readonly #pieces: AsyncGenerator<Uint8Array>;
  readonly #hash: Hash;
  #piece = new Uint8Array(0);
  /** Where in the file the piece begins. */
  #begin = 0;

  private constructor(remote: RemoteFile, hash: Hash) {
    this.#remote = remote;
    this.#pieces = remote.pieces(0);
    this.#hash = hash;
  }

  static async open(remote: RemoteFile): Promise<ForwardReader> {
    return new ForwardReader(remote, await hashFor(remote.file.oid.length, remote.file.bytes));
  }

  /** Fills `out` with the bytes from `offset` on, which is not before the end of the read before. */
  readonly read = async (offset: number, out: Uint8Array): Promise<void> => {
    for (let done = 0; done < out.length; ) {
      const at = offset + done - this.#begin;
      const bytes = this.#piece.subarray(at, at + out.length - done);
      out.set(bytes, done);
      done += bytes.length;
      if (done < out.length) await this.#next();
    }
  };

  /**
   * Reads what is left.
   * @throws {HubError} when the file was not the one that the repository lists
   */
  async finish(): Promise<void> {
    while (this.#begin + this.#piece.length < this.#remote.file.bytes) await this.#next();
    const { where, file } = this.#remote;
    const found = this.#hash.digest('hex');
    if (found === file.oid) return;
    throw new HubError({ where, expected: `a file of digest ${file.oid}`, found, fix: CHANGED });
  }

  /** Ends the connections. */
  async close(): Promise<void> {
    await this.#pieces.return(undefined);
  }

  async #next(): Promise<void> {
    this.#begin += this.#piece.length;
    const { value } = await this.#pieces.next();
    this.#piece = value as Uint8Array<ArrayBuffer>;
    this.#hash.update(this.#piece);
  }
}
