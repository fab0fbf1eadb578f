import { CheckpointError, reasonOf } from '../errors.ts';

/** Bytes that can be read at any offset: a file or a piece of memory. */
export interface ByteSource {
  /** What messages call it: for a file its path, as it was given. */
  readonly name: string;
  readonly byteLength: number;
  /**
   * Fills the whole of `out` with the bytes that begin at `offset`; reads may run side by side.
   * @throws {CheckpointError} when the range is not inside the source, or the bytes cannot be read.
   */
  read(offset: number, out: Uint8Array): Promise<void>;
  /** Gives the file back; may be called twice. */
  close(): Promise<void>;
}

// A single read of 2 GiB or more is refused by Node.
const MAX_READ_BYTES = 2 ** 30;

/**
 * Opens a regular file for reading (Node only).
 * @param path absolute, or relative to the working directory; links are followed.
 * @throws {CheckpointError} when there is no such file, it is a folder or a device, or it may not be read.
 */
export async function openFile(path: string): Promise<ByteSource> {
  const { open, stat } = await import('node:fs/promises');
  // Looked at before it is opened: opening a named pipe would wait for its writer.
  const stats = await stat(path).catch((error: unknown) => refuse(path, error));
  if (!stats.isFile()) throw notReadable(path, stats.isDirectory() ? 'a folder' : 'something that is not a regular file');
  const handle = await open(path, 'r').catch((error: unknown) => refuse(path, error));
  const byteLength = stats.size;

  return {
    name: path,
    byteLength,
    async read(offset, out) {
      checkRange(path, byteLength, offset, out.byteLength);
      for (let done = 0; done < out.byteLength; ) {
        const length = Math.min(out.byteLength - done, MAX_READ_BYTES);
        const { bytesRead } = await handle.read(out, done, length, offset + done).catch((error: unknown) => refuse(path, error));
        if (bytesRead === 0) throw shrunk(path, byteLength, offset + done);
        done += bytesRead;
      }
    },
    close: () => handle.close(),
  };
}

/**
 * Makes a source of bytes that are in memory already, without copying them.
 * @param name what messages call it.
 */
export function bytesSource(name: string, bytes: Uint8Array): ByteSource {
  return {
    name,
    byteLength: bytes.byteLength,
    async read(offset, out) {
      checkRange(name, bytes.byteLength, offset, out.byteLength);
      out.set(bytes.subarray(offset, offset + out.byteLength));
    },
    async close() {},
  };
}

function checkRange(name: string, byteLength: number, offset: number, length: number): void {
  if (Number.isSafeInteger(offset) && offset >= 0 && length <= byteLength - offset) return;
  throw new CheckpointError({
    where: name,
    expected: `${length} bytes from offset ${offset}`,
    found: `a source of ${byteLength} bytes`,
    fix: 'Read only ranges that the header describes.',
  });
}

function shrunk(path: string, byteLength: number, end: number): CheckpointError {
  return new CheckpointError({
    where: path,
    expected: `${byteLength} bytes, as when it was opened`,
    found: `the end of the file at byte ${end}`,
    fix: 'Something changed the file while it was read; wait until it is complete and try again.',
  });
}

function notReadable(path: string, found: string, cause?: unknown): CheckpointError {
  return new CheckpointError({ where: path, expected: 'a readable file', found, fix: 'Check the path and its permissions.' }, { cause });
}

function refuse(path: string, error: unknown): never {
  throw notReadable(path, reasonOf(error, 'no permission to read it'), error);
}
