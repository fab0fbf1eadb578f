import { openFile } from '../checkpoint/byte_source.ts';
import { readShardNames } from '../checkpoint/checkpoint_folder.ts';
import { INDEX, isSmall, SINGLE } from '../checkpoint/model_files.ts';
import { fileBytes } from './cache.ts';
import { readSums, SUMS } from './digests.ts';

/** What a command wants of a model: its text side alone, or what it takes to run it. */
export type Need = 'text' | 'weights';

/** The shards that the index in a folder names. @throws {CheckpointError} when it is damaged */
export async function neededShards(folder: string): Promise<string[]> {
  return await readShardNames(await openFile(`${folder}/${INDEX}`));
}

/** Whether a folder has what a command wants; a download that was broken off leaves one that has not. */
export async function hasNeeded(folder: string, need: Need): Promise<boolean> {
  const has = async (name: string) => (await fileBytes(`${folder}/${name}`)) !== null;
  if (!(await has('config.json')) || (await lostFiles(folder, need)).length > 0) return false;
  if (need === 'text') return await has('tokenizer.json');
  if (await has(SINGLE)) return true;
  if (!(await has(INDEX))) return false;
  for (const shard of await neededShards(folder)) if (!(await has(shard))) return false;
  return true;
}

/**
 * Files that a command wants and that a folder once had, as `cache verify` leaves it when it has removed damaged ones: small files of which a link is
 * left, and what SHA256SUMS lists.
 */
export async function lostFiles(folder: string, need: Need): Promise<string[]> {
  const { readdir } = await import('node:fs/promises');
  const { join, relative } = await import('node:path');
  const entries = await readdir(folder, { recursive: true, withFileTypes: true }).catch(() => []);
  const links = entries.filter((entry) => entry.isSymbolicLink()).map(({ parentPath, name }) => relative(folder, join(parentPath, name)));
  const sums = await readSums(`${folder}/${SUMS}`).catch(() => new Map<string, string>());
  const lost: string[] = [];
  for (const name of [...links.filter(isSmall), ...sums.keys()]) {
    if ((need === 'weights' || isSmall(name)) && (await fileBytes(`${folder}/${name}`)) === null) lost.push(name);
  }
  return lost;
}

/** Whether some of what a command wants was put into a snapshot, though it may be gone: Python fetches single files, such as a tokenizer. */
export async function isBegun(folder: string, need: Need): Promise<boolean> {
  const { readdir } = await import('node:fs/promises');
  const names = await readdir(folder).catch(() => []);
  return names.some((name) => (need === 'text' ? name === 'tokenizer.json' : name === SINGLE || name === INDEX));
}
