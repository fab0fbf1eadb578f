import { HubError } from '../errors.ts';
import { cachedRepository, fileBytes, folderName, INCOMPLETE } from './cache.ts';
import { digestOfFile, readSums, SUMS } from './digests.ts';
import type { HubEnvironment } from './environment.ts';
import { ifFree } from './lock.ts';
import { DEFAULT_REVISION, formatModelId, isCommit, type ModelId } from './model_id.ts';
import { hasNeeded } from './needed_files.ts';

/** A snapshot in the cache, or a quantised model made of one. */
interface CachedModel {
  readonly repository: string;
  readonly commit: string;
  /** Branches and tags that were this commit when they were last asked for. */
  readonly revisions: readonly string[];
  /** How it was quantised; null for the files of the Hub. */
  readonly weights: string | null;
  readonly folder: string;
  readonly files: number;
  /** Of its files; snapshots of one repository may share some. */
  readonly bytes: number;
  /** Bytes of downloads of this repository that are not complete. */
  readonly incomplete_bytes: number;
}

/** A file whose content is not what its name in the cache says. */
interface DamagedFile {
  readonly path: string;
  readonly expected: string;
  readonly found: string;
  /** What `olmo-hybrid pull` takes to make it anew. */
  readonly pull: string;
}

/** Models in the cache, by name, whoever downloaded them (Node only). */
export async function cachedModels({ cache, assets }: HubEnvironment): Promise<CachedModel[]> {
  const models: CachedModel[] = [];
  for (const name of await entries(cache)) {
    if (!name.startsWith('models--')) continue;
    const root = `${cache}/${name}`;
    const revisions = await revisionsOf(`${root}/refs`);
    const incomplete_bytes = await incompleteBytes(`${root}/blobs`);
    const own = `${assets}/olmo-hybrid/${name}`;
    for (const commit of await entries(`${root}/snapshots`)) {
      models.push(await model(name, commit, revisions, null, `${root}/snapshots/${commit}`, incomplete_bytes));
    }
    if ((await entries(`${root}/snapshots`)).length === 0 && incomplete_bytes > 0) {
      models.push({ ...(await model(name, '', new Map(), null, root, incomplete_bytes)), files: 0, bytes: 0 });
    }
    models.push(...(await quantisedModels(name, own)));
  }
  for (const name of await entries(`${assets}/olmo-hybrid`)) {
    if (models.some(({ repository }) => folderName({ repository }) === name)) continue;
    models.push(...(await quantisedModels(name, `${assets}/olmo-hybrid/${name}`)));
  }
  return models;
}

/**
 * Reads all files of a repository and compares them with their digests: a blob's is its name, those of what was quantised are in SHA256SUMS. What is
 * damaged is removed, so that `pull` makes it anew; and so is the beginning of a file that someone else has finished.
 * @param onRead is called with the bytes that were read
 */
export async function verifyCached(
  id: Pick<ModelId, 'repository'>,
  environment: HubEnvironment,
  signal: AbortSignal,
  onRead: (bytes: number) => void,
): Promise<{ files: number; damaged: DamagedFile[] }> {
  const { rm } = await import('node:fs/promises');
  const { cache, assets } = environment;
  const models = (await cachedModels(environment)).filter(({ repository }) => repository === id.repository);
  const damaged: DamagedFile[] = [];
  let files = 0;
  const blobs = `${cache}/${folderName(id)}/blobs`;
  for (const name of await entries(blobs)) {
    if (name.endsWith(INCOMPLETE) && (await fileBytes(`${blobs}/${name.slice(0, -INCOMPLETE.length)}`)) !== null)
      await rm(`${blobs}/${name}`);
  }
  for await (const { path, expected } of digestsOf(blobs, `${assets}/olmo-hybrid/${folderName(id)}`)) {
    files += 1;
    const found = await digestOfFile(path, expected.length, signal, onRead).catch((error: NodeJS.ErrnoException) => {
      if (error.code !== 'ENOENT') throw error;
      return 'no file';
    });
    if (found === expected) continue;
    damaged.push({ path, expected, found, pull: (await pullOf(path, models)) ?? id.repository });
    await rm(path, { force: true });
  }
  return { files, damaged };
}

/** What `pull` takes to bring back a file: the model that holds it, or one that links to it, by the revision that it is. */
async function pullOf(path: string, models: readonly CachedModel[]): Promise<string | null> {
  const { realpath } = await import('node:fs/promises');
  const real = await realpath(path).catch(() => path);
  for (const { repository, commit, revisions, weights, folder } of models) {
    const held = await Promise.all((await filesBelow(folder)).map((file) => realpath(file).catch(() => file)));
    if (!path.startsWith(`${folder}/`) && !held.includes(real)) continue;
    const revision = revisions.includes(DEFAULT_REVISION) ? DEFAULT_REVISION : (revisions[0] ?? commit);
    return `${formatModelId({ repository, revision })}${weights === null ? '' : ` --weights ${weights} --only-quantised`}`;
  }
  return null;
}

/** Files and the digests that they should have. */
async function* digestsOf(blobs: string, quantised: string): AsyncGenerator<{ path: string; expected: string }> {
  for (const expected of await entries(blobs)) {
    if (/^([0-9a-f]{40}|[0-9a-f]{64})$/.test(expected)) yield { path: `${blobs}/${expected}`, expected };
  }
  for (const list of (await filesBelow(quantised)).filter((path) => path.endsWith(`/${SUMS}`) && !path.includes(INCOMPLETE))) {
    for (const [name, expected] of await readSums(list)) yield { path: list.replace(SUMS, name), expected };
  }
}

/** Bytes of all files of a repository. */
export async function cachedBytes(id: Pick<ModelId, 'repository'>, { cache, assets }: HubEnvironment): Promise<number> {
  return await treeBytes([`${cache}/${folderName(id)}/blobs`, `${assets}/olmo-hybrid/${folderName(id)}`]);
}

/**
 * Removes a repository from the cache, with all that was quantised from it; with a revision, only its snapshot, what was quantised from that, and what
 * no other one uses. What another process is at work on stays then.
 * @param revision null for all
 * @returns bytes that are free now
 * @throws {HubError} when it is not there, or another process quantises it
 */
export async function removeCached(id: Pick<ModelId, 'repository'>, revision: string | null, environment: HubEnvironment): Promise<number> {
  const { rm } = await import('node:fs/promises');
  const mine = (await cachedModels(environment)).filter(({ repository }) => repository === id.repository);
  const chosen = mine.filter(({ commit, revisions }) => revision === null || commit === revision || revisions.includes(revision));
  if (chosen.length === 0) {
    const fix = '`olmo-hybrid cache ls` lists what is there.';
    const where = revision === null ? id.repository : `${id.repository}@${revision}`;
    throw new HubError({ where, expected: `it in the cache, ${environment.cache}`, found: 'it not there', fix });
  }
  const name = folderName(id);
  const { blobs, refs, snapshots, locks, quantised } = cachedRepository(environment, id);
  const roots = [`${environment.cache}/${name}`, locks, `${environment.assets}/olmo-hybrid/${name}`];
  let freed = 0;
  const remove = async (path: string) => {
    freed += (await fileBytes(path)) ?? (await treeBytes([path]));
    await rm(path, { recursive: true, force: true });
  };
  if (revision === null) {
    for (const root of roots) await remove(root);
    return freed;
  }
  for (const { commit, weights, folder } of chosen) {
    if (weights === null) continue;
    const free = await ifFree(`${quantised.locks}/${commit}-${weights}.lock`, async () => {
      for (const path of [folder, `${folder}${INCOMPLETE}`]) await remove(path);
    });
    if (free) continue;
    const fix = 'Wait for its end, or end it.';
    throw new HubError({ where: folder, expected: 'no other process at work on it', found: `one that quantises to ${weights}`, fix });
  }
  const [gone, others] = [true, false].map((isChosen) => mine.filter((one) => one.weights === null && chosen.includes(one) === isChosen));
  const unused = gone!.length === 0 ? [] : await unusedBlobs(blobs, foldersOf(gone!), foldersOf(others!));
  for (const folder of foldersOf(gone!)) await remove(folder);
  for (const path of unused) {
    await ifFree(`${locks}/${path.slice(blobs.length + 1).replace(INCOMPLETE, '')}.olmo-hybrid.lock`, async () => await remove(path));
  }
  const commits = chosen.map(({ commit }) => commit);
  for (const folder of [refs, quantised.refs]) {
    for (const [ref, commit] of await revisionsOf(folder)) if (commits.includes(commit)) await rm(`${folder}/${ref}`);
  }
  const left = await Promise.all([blobs, snapshots, quantised.snapshots].map(filesBelow));
  if (left.flat().length === 0 && !(await entries(locks)).some((lock) => lock.endsWith('.olmo-hybrid.lock'))) {
    for (const root of roots) await remove(root);
  }
  return freed;
}

/**
 * What no longer serves when some snapshots go: blobs that they link to and others do not. What is linked nowhere, such as the beginning of a file, may
 * be of any snapshot that is not complete; it goes when no such other one is left. Unfinished files of Python stay, whose locks are of another kind.
 */
async function unusedBlobs(blobs: string, gone: readonly string[], others: readonly string[]): Promise<string[]> {
  // In this order: what is linked while this looks is seen as linked.
  const complete = await Promise.all(others.map((folder) => hasNeeded(folder, 'weights').catch(() => false)));
  const names = await entries(blobs);
  const linked = await linkedBlobs(gone);
  const used = await linkedBlobs(others);
  const unused = (name: string) => {
    const oid = name.replace(INCOMPLETE, '');
    return !used.has(oid) && !oid.endsWith('.incomplete') && (linked.has(oid) || complete.every(Boolean));
  };
  return names.filter(unused).map((name) => `${blobs}/${name}`);
}

/** Names of the blobs that snapshots link to, also of those that are not there. */
async function linkedBlobs(snapshots: readonly string[]): Promise<Set<string>> {
  const { readlink } = await import('node:fs/promises');
  const { basename } = await import('node:path');
  const names = new Set<string>();
  for (const folder of snapshots) for (const file of await filesBelow(folder)) names.add(basename(await readlink(file).catch(() => '')));
  return names;
}

function foldersOf(models: readonly CachedModel[]): string[] {
  return models.map(({ folder }) => folder);
}

async function quantisedModels(name: string, own: string): Promise<CachedModel[]> {
  const revisions = await revisionsOf(`${own}/refs`);
  const models: CachedModel[] = [];
  for (const commit of await entries(`${own}/snapshots`)) {
    const formats = await entries(`${own}/snapshots/${commit}`);
    for (const weights of ['q8', 'q4']) {
      const incomplete = formats.includes(`${weights}${INCOMPLETE}`) ? `${own}/snapshots/${commit}/${weights}${INCOMPLETE}` : null;
      if (!formats.includes(weights) && incomplete === null) continue;
      const unfinished = incomplete === null ? 0 : await treeBytes([incomplete]);
      models.push(await model(name, commit, revisions, weights, `${own}/snapshots/${commit}/${weights}`, unfinished));
    }
  }
  return models;
}

async function model(
  name: string,
  commit: string,
  refs: ReadonlyMap<string, string>,
  weights: string | null,
  folder: string,
  incomplete_bytes: number,
): Promise<CachedModel> {
  const files = await filesBelow(folder);
  let bytes = 0;
  for (const file of files) bytes += (await fileBytes(file)) ?? 0;
  const revisions = [...refs].filter(([, of]) => of === commit).map(([revision]) => revision);
  const repository = name.slice('models--'.length).replace('--', '/');
  return { repository, commit, revisions, weights, folder, files: files.length, bytes, incomplete_bytes };
}

async function revisionsOf(refs: string): Promise<Map<string, string>> {
  const { readFile } = await import('node:fs/promises');
  const revisions = new Map<string, string>();
  for (const file of await filesBelow(refs)) {
    const commit = (await readFile(file, 'utf8')).trim();
    if (isCommit(commit)) revisions.set(file.slice(refs.length + 1), commit);
  }
  return revisions;
}

async function incompleteBytes(blobs: string): Promise<number> {
  let bytes = 0;
  for (const name of await entries(blobs)) if (name.endsWith('.incomplete')) bytes += (await fileBytes(`${blobs}/${name}`)) ?? 0;
  return bytes;
}

/** Names in a folder; none when there is no such folder. */
async function entries(folder: string): Promise<string[]> {
  const { readdir } = await import('node:fs/promises');
  return (await readdir(folder).catch(() => [])).sort();
}

/** Paths of all files and links below a folder. */
async function filesBelow(folder: string): Promise<string[]> {
  const { readdir } = await import('node:fs/promises');
  const found = await readdir(folder, { withFileTypes: true, recursive: true }).catch(() => []);
  return found
    .filter((entry) => !entry.isDirectory())
    .map((entry) => `${entry.parentPath}/${entry.name}`)
    .sort();
}

async function treeBytes(roots: readonly string[]): Promise<number> {
  const { lstat } = await import('node:fs/promises');
  let bytes = 0;
  for (const root of roots) for (const file of await filesBelow(root)) bytes += (await lstat(file)).size;
  return bytes;
}
