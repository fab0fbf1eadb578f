import type { FileHandle } from 'node:fs/promises';
import { HubError } from '../errors.ts';
import { INCOMPLETE } from './cache.ts';
import { hashFor } from './digests.ts';
import type { Held } from './lock.ts';
import type { RemoteFile } from './remote_file.ts';

const HASHED_AT_ONCE = 1 << 22; // bytes

/**
 * Fetches a file to `path`, which is there in full and with the right digest or not at all. What has come so far lies in a file beside it that is
 * always a beginning of the whole, so whatever ends this, the next call goes on from there.
 * @param onBytes is called with the bytes that have come, those of an earlier call included; with less than 0 when they were of no use
 * @throws {HubError} when the file cannot be had, or twice in a row is not what the repository lists; then nothing is kept
 */
export async function download(remote: RemoteFile, path: string, held: Held, onBytes: (count: number) => void): Promise<void> {
  const { constants, open, rename, rm } = await import('node:fs/promises');
  const incomplete = `${path}${INCOMPLETE}`;
  const file = await open(incomplete, constants.O_RDWR | constants.O_CREAT | constants.O_APPEND, 0o644);
  try {
    let digest = await fetchRest(remote, file, held, onBytes);
    if (digest !== remote.file.oid) {
      await file.truncate(0);
      onBytes(-remote.file.bytes);
      digest = await fetchRest(remote, file, held, onBytes);
    }
    if (digest !== remote.file.oid) {
      await rm(incomplete);
      const fix = 'Try again later; something between here and the Hub changes the file.';
      throw new HubError({ where: remote.where, expected: `a file of digest ${remote.file.oid}`, found: digest, fix });
    }
    await file.datasync();
    await held.check();
  } finally {
    await file.close();
  }
  await rename(incomplete, path);
}

/** Takes up what is there and fetches the rest; returns the digest of the whole. */
async function fetchRest(remote: RemoteFile, file: FileHandle, held: Held, onBytes: (count: number) => void): Promise<string> {
  const hash = await hashFor(remote.file.oid.length, remote.file.bytes);
  let at = (await file.stat()).size;
  if (at > remote.file.bytes) {
    await file.truncate(0);
    at = 0;
  }
  const buffer = new Uint8Array(Math.min(HASHED_AT_ONCE, at));
  for (let done = 0; done < at; ) {
    await held.check();
    const { bytesRead } = await file.read(buffer, 0, Math.min(buffer.length, at - done), done);
    if (bytesRead === 0) throw shrunk(remote);
    hash.update(buffer.subarray(0, bytesRead));
    done += bytesRead;
    onBytes(bytesRead);
  }
  for await (const piece of remote.pieces(at)) {
    await held.check();
    // A process that was stopped with a piece in its hands writes it when it goes on, before it knows that it has lost the lock.
    if ((await file.stat()).size > at) await file.truncate(at);
    hash.update(piece);
    await file.appendFile(piece);
    at += piece.length;
    onBytes(piece.length);
  }
  // What came between that look and the next piece did not go through the hash.
  const { size } = await file.stat();
  return size === remote.file.bytes ? hash.digest('hex') : `none of ${size} bytes`;
}

function shrunk({ where }: RemoteFile): HubError {
  const fix = 'Something else writes into the cache; run this again.';
  return new HubError({ where, expected: 'what had been fetched before', found: 'less of it', fix });
}
