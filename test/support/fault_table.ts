import { readdirSync, readFileSync } from 'node:fs';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { OlmoHybridError } from '../../src/errors.ts';
import type { HubEnvironment } from '../../src/hub/environment.ts';
import { requireModelId } from '../../src/hub/model_id.ts';
import { type Pulled, pull } from '../../src/hub/pull.ts';
import type { HubRequest } from './hub_answer.ts';
import { cacheFaults, repositoryFolder } from './hub_cache.ts';
import { filesOf, type HubRepository, hubRepository } from './hub_repository.ts';
import { goldenModel, repository } from './models.ts';
import { type HubOptions, type ScriptedHub, type Script, startScriptedHub } from './scripted_hub.ts';

export const TOKEN = 'hf_reads_all';
const RETRY_DELAY_MS = 4;
/** Long enough for a busy machine; rows with silence set their own. */
const IDLE_TIMEOUT_MS = 4000;

/** The repository of most rows: two shards, and a tokenizer that is a file of Git LFS as large ones are on the Hub. */
const SHARDS = /^(config\.json|model.*)$/;
export const files: Readonly<Record<string, Uint8Array>> = {
  ...filesOf(goldenModel('sharded'), (path) => SHARDS.test(path)),
  'tokenizer.json': readFileSync(repository('golden/tokenizer/tokenizer.json')),
  'README.md': Buffer.from('# A file that no model needs'),
};
export const model = hubRepository(
  'org/name',
  { main: files, 'stage1-step10000': files },
  { lfs: (path) => /safetensors$|^tokenizer\.json$/.test(path) },
);
export const SHARD = 'model-00003-of-00003.safetensors';
export const SHARD_BYTES = files[SHARD]!.byteLength;

/** A fault, and what must come of it. */
export interface Row {
  readonly fault: string;
  readonly must: string;
  /** The faulty answers. */
  readonly script?: (place: Place) => Script;
  readonly hub?: Partial<HubOptions>;
  readonly id?: string;
  readonly token?: string | null;
  readonly idle_timeout_ms?: number;
  /** What the cache is before. Returns why the row cannot be tried here. */
  readonly before?: (place: Place) => string | null | undefined | Promise<string | null | undefined>;
  /** What the error says. Without it the pull succeeds. */
  readonly refused?: RegExp;
  readonly check?: (outcome: Outcome) => void | Promise<void>;
  /** What is mended, beside the answers, for a second pull, which must succeed. */
  readonly mend?: (place: Place) => void | Promise<void>;
  /** There is no second pull: this is the last word. */
  readonly forGood?: true;
  readonly after?: (place: Place) => void;
}

export interface Place {
  readonly hub: ScriptedHub;
  readonly environment: HubEnvironment;
  readonly cache: string;
  /** The repository's folder in the cache. */
  readonly folder: string;
}

export interface Outcome extends Place {
  readonly pulled: Pulled | null;
  readonly error: Error | null;
  readonly ms: number;
  /** Pauses before repetitions. */
  readonly pauses_ms: readonly number[];
  /** Until the first pull had ended. */
  readonly requests: readonly HubRequest[];
}

/** What came of a row, for the table, and what is wrong with it. */
export interface Verdict {
  readonly result: string;
  readonly wrong: readonly string[];
  /** Why it could not be tried. */
  readonly skipped?: string;
}

/** Pulls under a fault, then without it. */
export async function runRow(row: Row): Promise<Verdict> {
  const outside = await mkdtemp(join(tmpdir(), 'olmo-hybrid-'));
  const cache = join(outside, 'cache'); // not there yet
  const repositories = row.hub?.repositories ?? [model];
  const hub = await startScriptedHub({ tokens: { [TOKEN]: 'reads all', hf_reads_public: 'reads public' }, ...row.hub, repositories });
  const environment: HubEnvironment = {
    endpoint: hub.endpoint,
    cache,
    assets: join(outside, 'assets'),
    token: row.token === undefined ? TOKEN : row.token,
    offline: false,
    idle_timeout_ms: row.idle_timeout_ms ?? IDLE_TIMEOUT_MS,
    retry_delay_ms: RETRY_DELAY_MS,
  };
  const place = { hub, environment, cache, folder: repositoryFolder(cache, 'org/name') };
  try {
    const skipped = await row.before?.(place);
    return skipped ? { result: '', wrong: [], skipped } : await tried(row, place, repositories);
  } finally {
    await hub.close();
    row.after?.(place);
    await rm(outside, { recursive: true });
  }
}

async function tried(row: Row, place: Place, repositories: readonly HubRepository[]): Promise<Verdict> {
  const { hub, environment, cache } = place;
  const { id = 'org/name', refused } = row;
  hub.requests.length = 0;
  hub.script = row.script?.(place);
  const begin = performance.now();
  const pauses_ms: number[] = [];
  const [pulled, error] = await pull(requireModelId(id), { environment, onRetry: (_, ms) => void pauses_ms.push(ms) }).then(
    (pulled) => [pulled, null] as const,
    (error: Error) => [null, error] as const,
  );
  const ms = performance.now() - begin;
  const requests = [...hub.requests];

  const wrong = [...cacheFaults(cache, repositories), ...tokenLeaks(hub), ...strangers(join(cache, '..'))];
  if (error !== null && !(error instanceof OlmoHybridError)) wrong.push(`no error of this project: ${error}`);
  if (refused === undefined && error !== null) wrong.push(`not pulled: ${error.message}`);
  if (refused !== undefined && !refused.test(error?.message ?? ''))
    wrong.push(`not refused with ${refused}: ${error?.message ?? 'pulled'}`);
  const failed = async () => await row.check?.({ ...place, pulled, error, ms, pauses_ms, requests });
  await failed().catch((error: Error) => wrong.push(error.message));

  const repeated = pauses_ms.length === 0 ? '' : `, ${pauses_ms.length} repeated`;
  const first = `${error === null ? 'pulled' : 'refused'}: ${requests.length} requests${repeated}`;
  if (row.forGood) return { result: first, wrong };
  hub.script = undefined;
  await row.mend?.(place);
  const again = await pull(requireModelId(id), { environment }).catch((error: Error) => error);
  if (again instanceof Error) return { result: first, wrong: [...wrong, `not pulled afterwards: ${again.message}`] };
  wrong.push(...cacheFaults(cache, repositories), ...missing(place, repositories[0]!));
  if (error === null && again.fetched > 0) wrong.push(`${again.fetched} bytes were not there after the first pull`);
  return { result: error === null ? first : `${first}; then pulled`, wrong };
}

/** The token is for the Hub alone. */
function tokenLeaks({ requests }: ScriptedHub): string[] {
  return requests
    .filter(({ host, headers }) => host !== 'hub' && /hf_/.test(JSON.stringify(headers)))
    .map(({ url }) => `the token went to ${url}`);
}

function strangers(outside: string): string[] {
  return readdirSync(outside)
    .filter((name) => name !== 'cache' && name !== 'real')
    .map((name) => `${name} was written outside of the cache`);
}

/** Files that a model needs, and that are not in the snapshot of main as the Hub has them. */
function missing({ folder }: Place, { commits, refs }: HubRepository): string[] {
  const commit = refs.get('main')!;
  const wanted = commits.get(commit)!.filter(({ path }) => /^[\w.-]+(json|safetensors)$/.test(path));
  return wanted.flatMap(({ path, content }) => {
    try {
      return readFileSync(join(folder, 'snapshots', commit, path)).equals(content) ? [] : [`${path} is not what the Hub has`];
    } catch {
      return [`${path} is missing`];
    }
  });
}

/** Bytes of a file that have left the server. */
export function sentBytes(requests: readonly HubRequest[], path: string): number {
  return requests
    .filter((request) => request.kind === 'cdn' && request.path === path && request.status < 300)
    .reduce((sum, { sent_bytes }) => sum + sent_bytes, 0);
}

/** Ranges that were asked for of a file. */
export function rangesOf(requests: readonly HubRequest[], path: string): (string | undefined)[] {
  return requests.filter((request) => request.kind === 'cdn' && request.path === path).map(({ headers }) => headers.range);
}
