import { readFile } from 'node:fs/promises';
import type { OlmoHybridConfig } from '../config.ts';
import { isCount, kindOf } from '../text_file.ts';
import { ArgumentError, type Problem, reasonOf } from '../errors.ts';
import { withoutInterruption } from './terminal.ts';

const MOST_LISTED = 10;

/** The error when a file does not hold what it should. */
function unusable(path: string, expected: string, found: string, cause?: unknown): ArgumentError {
  return new ArgumentError({ where: path, expected, found, fix: 'Check the path and what the file holds.' }, { cause });
}

/**
 * Reads a UTF-8 file.
 * @param expected what the file is, for messages
 * @throws {ArgumentError} when it cannot be read or is not UTF-8
 */
export async function readText(path: string, expected: string, ignoreBOM = true): Promise<string> {
  try {
    return new TextDecoder('utf-8', { fatal: true, ignoreBOM }).decode(await withoutInterruption(() => readFile(path)));
  } catch (cause) {
    const words = { ERR_ENCODING_INVALID_ENCODED_DATA: 'bytes that are not UTF-8' };
    throw unusable(path, expected, reasonOf(cause, 'no permission to read it', words), cause);
  }
}

/**
 * Reads a file with a JSON array.
 * @param elements what the array must hold, for messages
 * @throws {ArgumentError} when the file cannot be read or holds anything else
 */
export async function readJsonArray(path: string, elements: string): Promise<unknown[]> {
  const expected = `a file with a JSON array of ${elements}`;
  const text = await readText(path, expected, false);
  const fail = (found: string, cause?: unknown) => unusable(path, expected, found, cause);
  if (text.trim() === '') throw fail('an empty file');
  let json: unknown;
  try {
    json = JSON.parse(text);
  } catch (cause) {
    throw fail((cause as Error).message, cause);
  }
  if (!Array.isArray(json)) throw fail(kindOf(json));
  return json;
}

/**
 * Reads token ids from a file with a JSON array of them.
 * @param vocab_size what every id must be below
 * @throws {ArgumentError} when there is no such file, none in it, or ids out of range
 */
export async function readTokenIds(path: string, vocab_size: number): Promise<number[]> {
  const ids = await readJsonArray(path, 'token ids');
  if (ids.length === 0) {
    const fix = 'A model predicts the token after at least one other.';
    throw new ArgumentError({ where: path, expected: 'at least one token id', found: 'an empty array', fix });
  }
  const isToken = (id: unknown): id is number => isCount(id) && id < vocab_size;
  checkEach(path, ids, isToken, `a token id, an integer in [0, ${vocab_size})`, 'Make the ids with the tokenizer of the same model.');
  return ids as number[];
}

/**
 * Reads the token ids of one forward pass as `readTokenIds` does.
 * @throws {ArgumentError} also when there are more than the model has positions
 */
export async function readPassTokenIds(path: string, { vocab_size, max_position_embeddings }: OlmoHybridConfig): Promise<number[]> {
  const ids = await readTokenIds(path, vocab_size);
  if (ids.length <= max_position_embeddings) return ids;
  const expected = `at most ${max_position_embeddings} token ids, the model's max_position_embeddings`;
  throw new ArgumentError({ where: path, expected, found: `${ids.length}`, fix: 'Shorten the list.' });
}

/**
 * Checks the elements of an array from a file.
 * @throws {ArgumentError} with the first ten that are not usable
 */
export function checkEach(
  path: string,
  json: readonly unknown[],
  isUsable: (value: unknown) => boolean,
  expected: string,
  fix: string,
): void {
  const problems: Problem[] = [];
  for (let i = 0; i < json.length && problems.length < MOST_LISTED; i++) {
    if (!isUsable(json[i])) problems.push({ where: `${path}: [${i}]`, expected, found: kindOf(json[i]), fix });
  }
  if (problems.length > 0) throw new ArgumentError(problems);
}
