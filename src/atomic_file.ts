import type { FileHandle } from 'node:fs/promises';
import { ArgumentError, reasonOf } from './errors.ts';

/**
 * Writes a file that is there in full or not at all (Node only).
 * @param write writes it; false discards it
 * @returns what `write` returned
 * @throws {ArgumentError} when it cannot be written
 */
export async function writeAtomically(path: string, write: (file: FileHandle) => Promise<boolean>): Promise<boolean> {
  const { open, rename, rm } = await import('node:fs/promises');
  const temporary = `${path}.${process.pid}.tmp`;
  let file: FileHandle | undefined;
  try {
    file = await open(temporary, 'wx');
    const complete = await write(file);
    await file.close();
    if (complete) await rename(temporary, path);
    return complete;
  } catch (error) {
    throw isSystemError(error) ? unwritable(path, error) : error;
  } finally {
    await file?.close();
    await rm(temporary, { force: true });
  }
}

/**
 * Makes a folder that is there with all its files or not at all (Node only).
 * @param write writes the files into the folder that it is given
 * @throws {ArgumentError} when there is something at `path` already, or it cannot be written
 */
export async function writeFolderAtomically(path: string, write: (folder: string) => Promise<void>): Promise<void> {
  const { lstat, mkdir, rename, rm } = await import('node:fs/promises');
  const there = await lstat(path).catch(() => null);
  if (there) {
    const found = there.isDirectory() ? 'a folder' : 'a file';
    throw new ArgumentError({
      where: path,
      expected: 'nothing, for it would be overwritten',
      found,
      fix: 'Choose another path, or remove it.',
    });
  }
  const temporary = `${path.replace(/[/\\]+$/, '')}.${process.pid}.tmp`;
  try {
    await mkdir(temporary);
    await write(temporary);
    await rename(temporary, path);
  } catch (error) {
    throw isSystemError(error) ? unwritable(path, error, 'a folder that can be made') : error;
  } finally {
    await rm(temporary, { recursive: true, force: true });
  }
}

function isSystemError(error: unknown): error is NodeJS.ErrnoException {
  return error instanceof Error && 'syscall' in error;
}

function unwritable(path: string, cause: NodeJS.ErrnoException, expected = 'a file that can be written'): ArgumentError {
  const words = { ENOENT: 'no such folder', ENOTDIR: 'a file in the place of a folder' };
  const found = reasonOf(cause, 'no permission to write it', words);
  return new ArgumentError({ where: path, expected, found, fix: 'Choose another path.' }, { cause });
}
