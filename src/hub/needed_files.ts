import { openFile } from '../checkpoint/byte_source.ts';
import { readShardNames } from '../checkpoint/checkpoint_folder.ts';
import { INDEX, SINGLE } from '../checkpoint/model_files.ts';
import { fileBytes } from './cache.ts';

/** What a command wants of a model: its text side alone, or what it takes to run it. */
export type Need = 'text' | 'weights';

/** The shards that the index in a folder names. @throws {CheckpointError} when it is damaged */
export async function neededShards(folder: string): Promise<string[]> {
  return await readShardNames(await openFile(`${folder}/${INDEX}`));
}

/** Whether a folder has what a command wants; a download that was broken off leaves one that has not. */
export async function hasNeeded(folder: string, need: Need): Promise<boolean> {
  const has = async (name: string) => (await fileBytes(`${folder}/${name}`)) !== null;
  if (!(await has('config.json'))) return false;
  if (need === 'text') return await has('tokenizer.json');
  if (await has(SINGLE)) return true;
  if (!(await has(INDEX))) return false;
  for (const shard of await neededShards(folder)) if (!(await has(shard))) return false;
  return true;
}

/** Whether some of what a command wants was put into a snapshot, though it may be gone: Python fetches single files, such as a tokenizer. */
export async function isBegun(folder: string, need: Need): Promise<boolean> {
  const { readdir } = await import('node:fs/promises');
  const names = await readdir(folder).catch(() => []);
  return names.some((name) => (need === 'text' ? name === 'tokenizer.json' : name === SINGLE || name === INDEX));
}
