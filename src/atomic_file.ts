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
  const temporary = beside(path);
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
    if (file) {
      await file.close();
      await rm(temporary, { force: true });
    }
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
  const temporary = beside(path.replace(/[/\\]+$/, ''));
  let made = false;
  try {
    await mkdir(temporary);
    made = true;
    await write(temporary);
    await rename(temporary, path);
  } catch (error) {
    throw isSystemError(error) ? unwritable(path, error, 'a folder that can be made') : error;
  } finally {
    if (made) await rm(temporary, { recursive: true, force: true });
  }
}

/** A name of one call alone: the process id is none, for two calls may overlap, and in containers it is that of a run that was killed. */
function beside(path: string): string {
  return `${path}.${crypto.randomUUID().slice(0, 8)}.tmp`;
}

function isSystemError(error: unknown): error is NodeJS.ErrnoException {
  return error instanceof Error && 'syscall' in error;
}

function unwritable(path: string, cause: NodeJS.ErrnoException, expected = 'a file that can be written'): ArgumentError {
  const words = {
    ENOENT: 'no such folder',
    ENOTDIR: 'a file in the place of a folder',
    EEXIST: 'something that came there meanwhile',
    ENOTEMPTY: 'something that came there meanwhile',
  };
  const found = reasonOf(cause, 'no permission to write it', words);
  return new ArgumentError({ where: path, expected, found, fix: 'Choose another path.' }, { cause });
}
