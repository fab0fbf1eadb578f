import { CheckpointError, reasonOf } from '../errors.ts';
import { type ByteSource, openFile } from './byte_source.ts';
import { listed } from '../words.ts';
import { quote } from './problem_list.ts';

/** The files of a model: a folder on disk, or a repository on the Hub. */
export interface ModelFiles {
  /** What messages call it. */
  readonly name: string;
  readonly names: readonly string[];
  /** @throws {CheckpointError} when there is no such file, or it cannot be read */
  open(name: string): Promise<ByteSource>;
}

export const SINGLE = 'model.safetensors';
export const INDEX = 'model.safetensors.index.json';

/** Of the files of a folder without weights, how many are named. */
const MOST_NAMED = 10;

const SMALL =
  /^(config|generation_config|tokenizer|tokenizer_config|special_tokens_map|added_tokens|vocab)\.json$|^merges\.txt$|^chat_template\.(jinja|json)$|^additional_chat_templates\/[\w-]+\.jinja$|^LICENSE[\w.-]*$/;

/** Whether a file belongs to a model without being of its weights. */
export function isSmall(name: string): boolean {
  return SMALL.test(name);
}

/** A name with no way out of its folder, on any system. */
export function isPlainName(name: string): boolean {
  return /^[^/\\:\p{C}]+$/u.test(name) && name !== '.' && name !== '..';
}

/**
 * Lists a folder (Node only).
 * @param dir path of the folder
 * @throws {CheckpointError} when it cannot be listed
 */
export async function folderFiles(dir: string): Promise<ModelFiles> {
  const { readdir } = await import('node:fs/promises');
  const { join } = await import('node:path');
  const names = await readdir(dir).catch((cause: unknown) => {
    const found = reasonOf(cause, 'no permission to read it', { ENOENT: 'nothing there', ENOTDIR: 'a file' });
    throw new CheckpointError(
      {
        where: dir,
        expected: 'a checkpoint folder',
        found,
        fix: `Give the folder that holds ${SINGLE}, or a model of the Hub as org/name.`,
      },
      { cause },
    );
  });
  return { name: dir, names, open: (name) => openFile(join(dir, name)) };
}

/** @throws {CheckpointError} with what is there instead */
export function requireWeights({ name, names }: ModelFiles): void {
  if (names.includes(SINGLE) || names.includes(INDEX)) return;
  throw new CheckpointError({
    where: name,
    expected: `${SINGLE} or ${INDEX}`,
    found: names.length === 0 ? 'an empty folder' : `only ${listed(names.map(quote), MOST_NAMED)}`,
    fix: 'Download the weights in the safetensors format, or give the folder that holds them.',
  });
}
