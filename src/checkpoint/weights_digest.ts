import { openCheckpointFolder } from './checkpoint_folder.ts';

const HASHED_AT_ONCE = 1 << 24; // bytes

/**
 * Digest of a checkpoint's tensors, whatever files they are spread over: for each, in the order of names, a line with name, dtype and shape,
 * then its bytes (Node only).
 * @param onRead Called with the number of bytes that have been read.
 * @param signal Ends it before the next read, with its reason as the error.
 * @returns sha256 in hexadecimal
 * @throws {CheckpointError} when the files cannot be read
 */
export async function digestOfWeights(dir: string, onRead: (bytes: number) => void = () => {}, signal?: AbortSignal): Promise<string> {
  const { createHash } = await import('node:crypto');
  const hash = createHash('sha256');
  const folder = await openCheckpointFolder(dir);
  const buffer = new Uint8Array(HASHED_AT_ONCE);
  try {
    for (const { name, dtype, shape, source, offset, byteLength } of [...folder.tensors.values()].sort((a, b) =>
      a.name < b.name ? -1 : 1,
    )) {
      hash.update(`${name} ${dtype} [${shape.join(', ')}]\n`);
      for (let done = 0; done < byteLength; done += buffer.length) {
        signal?.throwIfAborted();
        const part = buffer.subarray(0, Math.min(buffer.length, byteLength - done));
        await source.read(offset + done, part);
        hash.update(part);
        onRead(part.length);
      }
    }
    return hash.digest('hex');
  } finally {
    await folder.close();
  }
}
