import type { FileHandle } from 'node:fs/promises';
import { ArgumentError, reasonOf } from './errors.ts';

const NEW_FOLDER = 'a folder that can be made';

/** What is at a path that is to be written. */
interface Target {
  /** Where links lead. */
  readonly path: string;
  /** Permissions of the file that is there; null where there is none. */
  readonly mode: number | null;
  /** A device or a pipe: what comes into it cannot be taken back, and a file must not take its place. */
  readonly isDevice: boolean;
}

/**
 * Writes a file that is there in full or not at all (Node only). A file that is there keeps its permissions, and a link leads to the new one; into a
 * device or a pipe it is written at once.
 * @param write writes it; false discards it
 * @param mode permissions of a file that was not there
 * @returns what `write` returned
 * @throws {ArgumentError} when it cannot be written
 */
export async function writeAtomically(path: string, write: (file: FileHandle) => Promise<boolean>, mode = 0o666): Promise<boolean> {
  const { open, rename } = await import('node:fs/promises');
  let file: FileHandle | undefined;
  let discard = () => {};
  try {
    const target = await targetOf(path);
    const temporary = target.isDevice ? target.path : beside(target.path);
    file = await open(temporary, target.isDevice ? 'w' : 'wx', target.mode ?? mode);
    if (!target.isDevice) discard = await discardedAtExit(temporary);
    if (!target.isDevice && target.mode !== null) await file.chmod(target.mode); // whatever the umask is
    const complete = await write(file);
    await file.close();
    if (complete && !target.isDevice) await rename(temporary, target.path);
    return complete;
  } catch (error) {
    throw isSystemError(error) ? unwritable(path, error) : error;
  } finally {
    await file?.close();
    discard();
  }
}

/**
 * Finds out whether a file can be written, before the work whose result it will hold (Node only). Nothing is left of the attempt.
 * @throws {ArgumentError} when it cannot
 */
export async function checkWritable(path: string): Promise<void> {
  const { access, constants } = await import('node:fs/promises');
  try {
    if ((await targetOf(path)).isDevice) await access(path, constants.W_OK);
    else await writeAtomically(path, async () => false);
  } catch (error) {
    throw isSystemError(error) ? unwritable(path, error) : error;
  }
}

/**
 * Removes a file or folder when the process exits (Node only), as it does on a second Ctrl-C.
 * @returns removes it at once
 */
export async function discardedAtExit(path: string): Promise<() => void> {
  const { rmSync } = await import('node:fs');
  const discard = () => {
    process.off('exit', discard);
    try {
      rmSync(path, { recursive: true, force: true });
    } catch {} // what went wrong before must not be hidden by this
  };
  process.on('exit', discard);
  return discard;
}

/**
 * Makes a folder that is there with all its files or not at all (Node only).
 * @param write writes the files into the folder that it is given
 * @throws {ArgumentError} when there is something at `path` already, or it cannot be written
 */
export async function writeFolderAtomically(path: string, write: (folder: string) => Promise<void>): Promise<void> {
  const { mkdir, rename } = await import('node:fs/promises');
  await refuseExisting(path);
  const temporary = beside(path.replace(/[/\\]+$/, ''));
  let discard = () => {};
  try {
    await mkdir(temporary);
    discard = await discardedAtExit(temporary);
    await write(temporary);
    await rename(temporary, path);
  } catch (error) {
    throw isSystemError(error) ? unwritable(path, error, NEW_FOLDER) : error;
  } finally {
    discard();
  }
}

/**
 * Finds out whether a folder can be made, before the work whose results it will hold (Node only).
 * @throws {ArgumentError} when it cannot
 */
export async function checkFolderWritable(path: string): Promise<void> {
  const { access, constants } = await import('node:fs/promises');
  const { dirname } = await import('node:path');
  await refuseExisting(path);
  await access(dirname(path), constants.W_OK).catch((error: NodeJS.ErrnoException) => {
    throw unwritable(path, error, NEW_FOLDER);
  });
}

async function refuseExisting(path: string): Promise<void> {
  const { lstat } = await import('node:fs/promises');
  const there = await lstat(path).catch((error: NodeJS.ErrnoException) => {
    if (error.code !== 'ENOENT') throw unwritable(path, error, NEW_FOLDER);
    return null;
  });
  if (there) {
    const found = there.isDirectory() ? 'a folder' : 'a file';
    throw new ArgumentError({
      where: path,
      expected: 'nothing, for it would be overwritten',
      found,
      fix: 'Choose another path, or remove it.',
    });
  }
}

/** A name of one call alone: the process id is none, for two calls may overlap, and in containers it is that of a run that was killed. */
function beside(path: string): string {
  return `${path}.${crypto.randomUUID().slice(0, 8)}.tmp`;
}

async function targetOf(path: string): Promise<Target> {
  const { lstat, realpath, stat } = await import('node:fs/promises');
  const orNothing = (error: NodeJS.ErrnoException) => {
    if (error.code !== 'ENOENT') throw error;
    return null;
  };
  const there = await stat(path).catch(orNothing);
  if (there === null) {
    if (await lstat(path).catch(orNothing)) throw refusal(path, 'a link that leads nowhere');
    return { path, mode: null, isDevice: false };
  }
  if (there.isDirectory()) throw refusal(path, 'a folder');
  // The path of a pipe may lead to no file, as that of /dev/stdout.
  if (!there.isFile()) return { path, mode: null, isDevice: true };
  return { path: await realpath(path), mode: there.mode & 0o777, isDevice: false };
}

function isSystemError(error: unknown): error is NodeJS.ErrnoException {
  return error instanceof Error && 'syscall' in error;
}

function unwritable(path: string, cause: NodeJS.ErrnoException, expected?: string): ArgumentError {
  const words = {
    ENOENT: 'no such folder',
    ENOTDIR: 'a file in the place of a folder',
    ENAMETOOLONG: 'too long a name',
    EPIPE: 'a pipe that nobody reads',
    EROFS: 'a disk that can only be read',
    ESPIPE: 'a pipe, in which nothing has a place',
    EEXIST: 'something that came there meanwhile',
    ENOTEMPTY: 'something that came there meanwhile',
  };
  return refusal(path, reasonOf(cause, 'no permission to write it', words), expected, { cause });
}

function refusal(where: string, found: string, expected = 'a file that can be written', options?: ErrorOptions): ArgumentError {
  return new ArgumentError({ where, expected, found, fix: 'Choose another path.' }, options);
}
