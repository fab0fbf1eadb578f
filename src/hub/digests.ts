import type { Hash } from 'node:crypto';

/** The list of digests beside quantised files, as sha256sum writes and reads it. */
export const SUMS = 'SHA256SUMS';

/** The digest by which the Hub knows a file of so many bytes: sha256 where it has 64 digits, or git's sha1 of a blob. */
export async function hashFor(digits: number, bytes: number): Promise<Hash> {
  const { createHash } = await import('node:crypto');
  return digits === 64 ? createHash('sha256') : createHash('sha1').update(`blob ${bytes}\0`);
}

/** Digest of a file on disk. @throws the signal's reason */
export async function digestOfFile(
  path: string,
  digits: number,
  signal: AbortSignal,
  onRead: (bytes: number) => void = () => {},
): Promise<string> {
  const { createReadStream } = await import('node:fs');
  const { stat } = await import('node:fs/promises');
  const hash = await hashFor(digits, (await stat(path)).size);
  try {
    for await (const piece of createReadStream(path, { highWaterMark: 1 << 22, signal })) {
      hash.update(piece as Uint8Array);
      onRead((piece as Uint8Array).length);
    }
  } catch (error) {
    signal.throwIfAborted(); // a stream ends by an error of its own
    throw error;
  }
  return hash.digest('hex');
}

/** Writes SHA256SUMS of the files in a folder. */
export async function writeSums(folder: string, names: readonly string[], signal: AbortSignal): Promise<void> {
  const { writeFile } = await import('node:fs/promises');
  let text = '';
  for (const name of names) text += `${await digestOfFile(`${folder}/${name}`, 64, signal)}  ${name}\n`;
  await writeFile(`${folder}/${SUMS}`, text);
}

/** Digests by name; names that lead out of the folder are passed over. */
export async function readSums(path: string): Promise<Map<string, string>> {
  const { readFile } = await import('node:fs/promises');
  const lines = (await readFile(path, 'utf8')).matchAll(/^([0-9a-f]{64}) [ *](\w[\w.-]*(?:\/\w[\w.-]*)?)$/gm);
  return new Map([...lines].map(([, digest, name]) => [name!, digest!]));
}
