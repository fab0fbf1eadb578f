import type { Hash } from 'node:crypto';
import type { ModelFiles } from '../checkpoint/model_files.ts';
import { CheckpointError, HubError } from '../errors.ts';
import type { HubClient } from './client.ts';
import { hashFor } from './digests.ts';
import { RemoteFile } from './remote_file.ts';
import type { Repository } from './repository.ts';

/** The files of a repository at a commit, read by ranges where they lie. */
export function remoteFiles(client: HubClient, repository: Repository): ModelFiles {
  return {
    name: client.where(),
    names: [...repository.files.keys()],
    open: async (name) => remoteFile(client, repository, name).source(),
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
    const fix = 'Try again later; something between here and the Hub changes the file.';
    throw new HubError({ where, expected: `a file of digest ${file.oid}`, found, fix });
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
