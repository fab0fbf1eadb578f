import { createHash } from 'node:crypto';
import { existsSync, lstatSync, readdirSync, readFileSync, readlinkSync, realpathSync, statSync } from 'node:fs';
import { dirname, join, relative, resolve } from 'node:path';
import { etagOf, type HubFile, type HubRepository } from './hub_repository.ts';

/** Folder of a repository in a cache. HF: huggingface_hub.file_download.repo_folder_name. */
export function repositoryFolder(cache: string, id: string): string {
  return join(cache, `models--${id.replace('/', '--')}`);
}

/** What a revision's snapshot holds, by path; null when there is none. */
export function snapshotOf(cache: string, { id, refs }: HubRepository, revision = 'main'): Record<string, Buffer> | null {
  const folder = join(repositoryFolder(cache, id), 'snapshots', refs.get(revision)!);
  if (!existsSync(folder)) return null;
  return Object.fromEntries(pathsBelow(folder).map((path) => [path, readFileSync(join(folder, path))]));
}

/** The ends of names that only files under way have. */
const UNDER_WAY = '.olmo-hybrid.incomplete';

/**
 * What is wrong in a cache, whatever has happened to who wrote it: each blob is the file that its name says, what is under way is a beginning of it,
 * and all that is seen in snapshots and refs is complete.
 */
export function cacheFaults(cache: string, repositories: readonly HubRepository[]): string[] {
  const names = existsSync(cache) && statSync(cache).isDirectory() ? readdirSync(cache) : [];
  const ours = repositories.map(({ id }) => relative(cache, repositoryFolder(cache, id)));
  const strangers = names
    .filter((name) => ![...ours, '.locks', 'CACHEDIR.TAG'].includes(name))
    .map((name) => `${name} does not belong here`);
  return [...strangers, ...repositories.flatMap((repository) => repositoryFaults(repositoryFolder(cache, repository.id), repository))];
}

function repositoryFaults(folder: string, { commits }: HubRepository): string[] {
  const blobs = new Map([...commits.values()].flat().map((file) => [etagOf(file), file]));
  return pathsBelow(folder).flatMap((path) => {
    const [kind, ...rest] = path.split('/');
    const name = rest.join('/');
    if (kind === 'blobs') return blobFaults(folder, name, blobs);
    if (rest.length === 0 && path.endsWith(UNDER_WAY)) return []; // beside what is seen
    if (kind === 'trees' || kind === '.no_exist') return []; // of Python, for its own use
    if (kind === 'refs')
      return commits.has(readFileSync(join(folder, path), 'utf8')) && !name.endsWith(UNDER_WAY) ? [] : [`${path} names no commit`];
    if (kind === 'snapshots') return snapshotFaults(folder, name, commits);
    return [`${path} does not belong here`];
  });
}

function blobFaults(folder: string, name: string, blobs: ReadonlyMap<string, HubFile>): string[] {
  const content = readFileSync(join(folder, 'blobs', name));
  const file = blobs.get(name.replace(UNDER_WAY, ''));
  if (!file) return [`blobs/${name} is of no file`];
  const whole = Buffer.from(file.content);
  if (name.endsWith(UNDER_WAY))
    return whole.subarray(0, content.length).equals(content) ? [] : [`blobs/${name} is no beginning of ${file.path}`];
  return digest(content) === digest(whole) ? [] : [`blobs/${name} is not ${file.path}`];
}

function snapshotFaults(folder: string, name: string, commits: HubRepository['commits']): string[] {
  const [commit = '', ...rest] = name.split('/');
  const path = join(folder, 'snapshots', name);
  const file = commits.get(commit)?.find((file) => file.path === rest.join('/'));
  if (!file) return [`snapshots/${name} is of no file`];
  if (lstatSync(path).isSymbolicLink()) {
    const target = readlinkSync(path);
    const blob = join(folder, 'blobs', etagOf(file));
    if (target.startsWith('/') || resolve(dirname(path), target) !== blob) return [`snapshots/${name} leads to ${target}`];
    if (!existsSync(path)) return [`snapshots/${name} leads to nothing`];
    if (realpathSync(path) !== realpathSync(blob)) return [`snapshots/${name} leads elsewhere`];
  }
  return digest(readFileSync(path)) === digest(file.content) ? [] : [`snapshots/${name} is not complete`];
}

/** Files and links below a folder, by their paths in it. */
export function pathsBelow(folder: string): string[] {
  if (!existsSync(folder)) return [];
  return readdirSync(folder, { withFileTypes: true }).flatMap((entry) =>
    entry.isDirectory() ? pathsBelow(join(folder, entry.name)).map((path) => `${entry.name}/${path}`) : [entry.name],
  );
}

function digest(content: Uint8Array): string {
  return createHash('sha256').update(content).digest('hex');
}
