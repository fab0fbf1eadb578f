import { isPlainName } from '../checkpoint/model_files.ts';
import { HubError } from '../errors.ts';
import { kindOf } from '../text_file.ts';
import type { HubClient } from './client.ts';
import { type ModelId, isCommit } from './model_id.ts';

/** A file of a repository. */
export interface HubFile {
  readonly name: string;
  readonly bytes: number;
  /** Its digest in hexadecimal, which names its blob in the cache: sha256, or for small files git's sha1. */
  readonly oid: string;
}

/** A model's repository at a commit. */
export interface Repository {
  readonly id: ModelId;
  readonly commit: string;
  /** By name. */
  readonly files: ReadonlyMap<string, HubFile>;
}

const MOST_FILES = 10_000;
/** Of a listing; the Hub puts 1000 entries on one. */
const MOST_PAGES = 100;

/**
 * Asks the Hub which commit a revision is, and which files it has.
 * @throws {HubError} when there is no such model or revision, it may not be read, or the answer makes no sense
 */
export async function openRepository(client: HubClient): Promise<Repository> {
  try {
    return await readRepository(client);
  } catch (error) {
    // @huggingface/hub takes any JSON for the one that it expects.
    throw error instanceof TypeError ? nonsense(client, 'a model and its files', 'other JSON', error) : error;
  }
}

async function readRepository(client: HubClient): Promise<Repository> {
  const { listFiles, modelInfo } = await import('@huggingface/hub');
  const { repository: name, revision } = client.id;
  let pages = 0;
  const fetch: typeof client.fetch = async (...request) => {
    pages += 1;
    if (pages > MOST_PAGES) throw nonsense(client, `a listing of at most ${MOST_PAGES} pages`, 'more');
    return await client.fetch(...request);
  };
  const common = { hubUrl: client.environment.endpoint, fetch };
  const { sha } = await modelInfo({ ...common, name, revision, additionalFields: ['sha'] });
  if (typeof sha !== 'string' || !isCommit(sha)) throw nonsense(client, `the commit of ${revision}`, kindOf(sha));
  if (isCommit(revision) && sha !== revision) throw nonsense(client, `the commit ${revision}`, sha);

  const files = new Map<string, HubFile>();
  let entries = 0;
  for await (const { type, path, size, oid, lfs } of listFiles({ ...common, repo: name, revision: sha, recursive: true })) {
    entries += 1;
    if (entries > MOST_FILES) throw nonsense(client, `at most ${MOST_FILES} files`, 'more');
    if (type !== 'file') continue;
    const file = { name: path, bytes: lfs?.size ?? size, oid: lfs?.oid ?? oid };
    if (!isFile(file)) throw nonsense(client, 'files with a name, a size and a digest', kindOf(file));
    // A name becomes a path on disk. One that may lead elsewhere is no model's: it is passed over, so that a harmless `run 10:20.log` keeps nobody out.
    if (!path.split('/').every(isPlainName)) continue;
    files.set(path, file);
  }
  return { id: client.id, commit: sha, files };
}

function isFile(file: { readonly [key in keyof HubFile]: unknown }): file is HubFile {
  const { name, bytes, oid } = file;
  return (
    typeof name === 'string' && Number.isSafeInteger(bytes) && (bytes as number) >= 0 && /^([0-9a-f]{40}|[0-9a-f]{64})$/.test(String(oid))
  );
}

function nonsense(client: HubClient, expected: string, found: string, cause?: Error): HubError {
  const fix = 'Check HF_ENDPOINT, and who answers there.';
  return new HubError({ where: client.where(), expected, found, fix }, { cause });
}
