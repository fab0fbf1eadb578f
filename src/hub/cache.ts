import { HubError, reasonOf } from '../errors.ts';
import type { HubEnvironment } from './environment.ts';
import { isCommit, type ModelId } from './model_id.ts';

// The layout of Python's huggingface_hub: blobs/ by digest, snapshots/COMMIT/ of links to them, refs/REVISION with a commit in it. What this package
// makes of a repository lies beside it, in the folder that huggingface_hub sets apart for a library, in the same layout.

/** What the name of a file that is not complete ends with. Python's own are called otherwise: it would take up what lies in them. */
export const INCOMPLETE = '.olmo-hybrid.incomplete';

/** Folders of a repository in the cache. */
interface CachedRepository {
  readonly blobs: string;
  readonly refs: string;
  readonly snapshots: string;
  readonly locks: string;
  /** Of what was quantised: refs, and snapshots/COMMIT/WEIGHTS. */
  readonly quantised: { readonly refs: string; readonly snapshots: string; readonly locks: string };
}

/** Name of a repository's folder. HF: huggingface_hub.file_download.repo_folder_name. */
export function folderName({ repository }: Pick<ModelId, 'repository'>): string {
  return `models--${repository.replace('/', '--')}`;
}

export function cachedRepository({ cache, assets }: HubEnvironment, id: Pick<ModelId, 'repository'>): CachedRepository {
  const name = folderName(id);
  const own = `${assets}/olmo-hybrid/${name}`;
  return {
    blobs: `${cache}/${name}/blobs`,
    refs: `${cache}/${name}/refs`,
    snapshots: `${cache}/${name}/snapshots`,
    locks: `${cache}/.locks/${name}`,
    quantised: { refs: `${own}/refs`, snapshots: `${own}/snapshots`, locks: `${own}/locks` },
  };
}

/** The commit that a revision was when it was last asked for; null when it never was. */
export async function readRef(refs: string, revision: string): Promise<string | null> {
  if (isCommit(revision)) return revision;
  const { readFile } = await import('node:fs/promises');
  const text = await readFile(`${refs}/${revision}`, 'utf8').catch(() => '');
  return isCommit(text.trim()) ? text.trim() : null;
}

/**
 * The commits that a revision was by several folders of refs, the one that was asked for last first. It is told by the time of the file, which Python
 * writes too; where it is the same, the folder that is named first counts as the later one.
 */
export async function readRefs(folders: readonly string[], revision: string): Promise<string[]> {
  const { stat } = await import('node:fs/promises');
  const known: { readonly commit: string; readonly ms: number }[] = [];
  for (const refs of folders) {
    const commit = await readRef(refs, revision);
    const ms = await stat(`${refs}/${revision}`).then(
      ({ mtimeMs }) => mtimeMs,
      () => 0,
    );
    if (commit !== null) known.push({ commit, ms });
  }
  return [...new Set(known.sort((a, b) => b.ms - a.ms).map(({ commit }) => commit))];
}

/** Notes the commit of a revision, and that it was asked for now; a commit needs no note. */
export async function writeRef(refs: string, revision: string, commit: string): Promise<void> {
  if (revision === commit) return;
  const { mkdir, rename, utimes, writeFile } = await import('node:fs/promises');
  const { dirname } = await import('node:path');
  const path = `${refs}/${revision}`;
  if ((await readRef(refs, revision)) === commit) {
    const now = new Date();
    await utimes(path, now, now).catch(() => {}); // a cache that is read only is enough
    return;
  }
  await mkdir(dirname(path), { recursive: true });
  const temporary = temporaryBeside(refs);
  await writeFile(temporary, commit);
  await rename(temporary, path);
}

/** Puts a file into a snapshot: a relative link to its blob, or a copy on systems that let nobody make links. */
export async function linkBlob(snapshot: string, name: string, blob: string): Promise<void> {
  const { copyFile, mkdir, readlink, rename, rm, symlink } = await import('node:fs/promises');
  const { dirname, relative } = await import('node:path');
  const path = `${snapshot}/${name}`;
  const target = relative(dirname(path), blob);
  if ((await readlink(path).catch(() => null)) === target) return;
  await mkdir(dirname(path), { recursive: true });
  const temporary = temporaryBeside(dirname(snapshot));
  await rm(temporary, { force: true });
  await symlink(target, temporary).catch(() => copyFile(blob, temporary));
  await rename(temporary, path);
}

let temporaries = 0;

/** A name outside of a folder, where nobody takes for a part of it what a process that was killed has left. */
function temporaryBeside(folder: string): string {
  temporaries += 1;
  return `${folder}.${process.pid}-${temporaries}${INCOMPLETE}`;
}

/** Size of a file; null when there is none. */
export async function fileBytes(path: string): Promise<number | null> {
  const { stat } = await import('node:fs/promises');
  const stats = await stat(path).catch(() => null);
  return stats?.isFile() ? stats.size : null;
}

/** What keeps the cache from being written, in the words of this project; other errors as they are. */
export function cacheError(error: unknown, { cache }: HubEnvironment): unknown {
  if (!(error instanceof Error) || !('syscall' in error)) return error;
  const { path } = error as NodeJS.ErrnoException;
  const found = reasonOf(error, 'no permission to write');
  const fix = 'Make room or mend the permissions, or choose another folder by HF_HUB_CACHE; what has been fetched is kept.';
  return new HubError({ where: path ?? cache, expected: 'to write there', found, fix }, { cause: error });
}
