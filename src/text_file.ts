import { type ConfigError, reasonOf, type TokenizerError } from './errors.ts';

/** The class of the errors of a file, by what the file is for. */
type Failure = typeof ConfigError | typeof TokenizerError;

/** Most bytes of a file, by what it is for: far more than any real one has, and little enough to be read in full. */
export const MOST_BYTES = { config: 2 ** 20, template: 2 ** 24, tokenizer: 2 ** 28 } as const;

/**
 * Reads a regular UTF-8 file (Node only).
 * @param path absolute, or relative to the working directory; links are followed
 * @param most bytes; a larger file is not read
 * @returns null when there is no such file
 * @throws {Failure} when it cannot be read, is too large or is not UTF-8
 */
export async function readTextFile(path: string, most: number, Failure: Failure): Promise<string | null> {
  const { readFile, stat } = await import('node:fs/promises');
  try {
    // Looked at before it is opened: a named pipe would wait for its writer, and a device has no end.
    const stats = await stat(path);
    if (!stats.isFile()) {
      const found = stats.isDirectory() ? 'a folder' : 'something that is not a regular file';
      throw new Failure({ where: path, expected: 'a readable file', found, fix: 'Check the path and its permissions.' });
    }
    checkSize(stats.size, most, path, Failure);
    return decodeUtf8(await readFile(path), path, Failure);
  } catch (error) {
    if (error instanceof Failure) throw error;
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return null;
    const found = reasonOf(error, 'no permission to read it');
    throw new Failure({ where: path, expected: 'a readable file', found, fix: 'Check the path and its permissions.' }, { cause: error });
  }
}

/** @throws {Failure} when a file has more bytes than its kind may have */
export function checkSize(bytes: number, most: number, where: string, Failure: Failure): void {
  if (bytes <= most) return;
  const expected = `a file of at most ${most / 2 ** 20} MiB`;
  throw new Failure({ where, expected, found: `${bytes} bytes`, fix: 'This is no such file of a model: check what lies there.' });
}

/**
 * Decodes UTF-8 strictly; a byte order mark stays, as in Python.
 * @param where what messages call the bytes
 * @throws {Failure} when the bytes are not UTF-8
 */
export function decodeUtf8(bytes: Uint8Array, where: string, Failure: Failure): string {
  try {
    return new TextDecoder('utf-8', { fatal: true, ignoreBOM: true }).decode(bytes);
  } catch (cause) {
    throw new Failure({ where, expected: 'UTF-8 text', found: 'other bytes', fix: 'The file is damaged: download it again.' }, { cause });
  }
}

/**
 * Parses JSON that must be one object.
 * @param where what messages call the text
 * @throws {Failure} when it is not JSON, or not an object
 */
export function parseJsonObject(text: string, where: string, Failure: Failure): Record<string, unknown> {
  let json: unknown;
  try {
    json = JSON.parse(text);
  } catch (cause) {
    const found = text.trim() === '' ? 'an empty file' : (cause as Error).message;
    throw new Failure({ where, expected: 'JSON', found, fix: 'The file is damaged: download it again.' }, { cause });
  }
  if (!isObject(json))
    throw new Failure({ where, expected: 'a JSON object', found: kindOf(json), fix: 'The file is damaged: download it again.' });
  return json;
}

/** Whether a JSON value is an object, not an array and not null. */
export function isObject(value: unknown): value is Record<string, unknown> {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}

/** Whether a value is an integer of at least 0: a count, or the id of a token. */
export function isCount(value: unknown): value is number {
  return Number.isSafeInteger(value) && (value as number) >= 0;
}

/** What a message calls a value, most often of JSON: a short one in full, else its kind. */
export function kindOf(value: unknown): string {
  if (value === undefined) return 'nothing';
  const text = typeof value === 'bigint' ? undefined : JSON.stringify(value);
  if (text === undefined) return `a ${typeof value}`;
  if (text.length <= 60) return text;
  return Array.isArray(value) ? `an array of ${value.length}` : typeof value === 'string' ? `"${value.slice(0, 50)}…"` : 'an object';
}
