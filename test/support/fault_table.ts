import { readFileSync } from 'node:fs';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { HubError } from '../../src/errors.ts';
import type { HubEnvironment } from '../../src/hub/environment.ts';
import { requireModelId } from '../../src/hub/model_id.ts';
import { type Pulled, pull } from '../../src/hub/pull.ts';
import type { HubRequest } from './hub_answer.ts';
import { cacheFaults } from './hub_cache.ts';
import { filesOf, type HubRepository, hubRepository } from './hub_repository.ts';
import { goldenModel, repository } from './models.ts';
import { type HubOptions, type ScriptedHub, type Script, startScriptedHub } from './scripted_hub.ts';

export const TOKEN = 'hf_reads_all';
const RETRY_DELAY_MS = 4;
const IDLE_TIMEOUT_MS = 250;

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
  /** The faulty answers; they are right again for a second pull, which must succeed. */
  readonly script?: (hub: ScriptedHub) => Script;
  readonly hub?: Partial<HubOptions>;
  readonly id?: string;
  readonly token?: string | null;
  /** What the cache holds before. */
  readonly before?: (place: Place) => void | Promise<void>;
  /** What the HubError says. Without it the pull succeeds. */
  readonly refused?: RegExp;
  /** Refused by the Hub itself for good. */
  readonly forGood?: true;
  readonly check?: (outcome: Outcome) => void;
}

export interface Place {
  readonly hub: ScriptedHub;
  readonly environment: HubEnvironment;
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

/** Pulls under a fault, then without it. @returns what came of it, for the table; what is wrong with it */
export async function runRow(row: Row): Promise<{ result: string; wrong: string[] }> {
  const cache = await mkdtemp(join(tmpdir(), 'olmo-hybrid-'));
  const repositories = row.hub?.repositories ?? [model];
  const hub = await startScriptedHub({ tokens: { [TOKEN]: 'reads all', hf_reads_public: 'reads public' }, ...row.hub, repositories });
  try {
    return await runAt(row, hub, cache, repositories);
  } finally {
    await hub.close();
    await rm(cache, { recursive: true });
  }
}

async function runAt(
  row: Row,
  hub: ScriptedHub,
  cache: string,
  repositories: readonly HubRepository[],
): Promise<{ result: string; wrong: string[] }> {
  const { token = TOKEN, id = 'org/name' } = row;
  const environment: HubEnvironment = {
    endpoint: hub.endpoint,
    cache,
    assets: join(cache, 'assets'),
    token,
    offline: false,
    idle_timeout_ms: IDLE_TIMEOUT_MS,
    retry_delay_ms: RETRY_DELAY_MS,
  };
  const place = { hub, environment, folder: join(cache, 'models--org--name') };
  await row.before?.(place);
  hub.script = row.script?.(hub);

  const begin = performance.now();
  const pauses_ms: number[] = [];
  const [pulled, error] = await pull(requireModelId(id), { environment, onRetry: (_, ms) => void pauses_ms.push(ms) }).then(
    (pulled) => [pulled, null] as const,
    (error: Error) => [null, error] as const,
  );
  const ms = performance.now() - begin;
  const requests = [...hub.requests];
  const wrong = [...cacheFaults(cache, repositories), ...tokenLeaks(hub)];
  if (error !== null && !(error instanceof HubError)) wrong.push(`it is no HubError: ${error.stack}`);
  if (row.refused === undefined && error !== null) wrong.push(`not pulled: ${error.message}`);
  if (row.refused !== undefined && !row.refused.test(error?.message ?? ''))
    wrong.push(`not refused with ${row.refused}: ${error?.message ?? 'pulled'}`);
  attempt(wrong, () => row.check?.({ ...place, pulled, error, ms, pauses_ms, requests }));

  const repetitions = pauses_ms.length === 0 ? '' : `, ${pauses_ms.length} repeated`;
  const first = `${error === null ? 'pulled' : 'refused'} in ${requests.length} requests${repetitions}`;
  if (row.forGood) return { result: first, wrong };
  hub.script = undefined;
  const again = await pull(requireModelId(id), { environment }).catch((error: Error) => error);
  if (again instanceof Error) wrong.push(`not pulled afterwards: ${again.message}`);
  wrong.push(...cacheFaults(cache, repositories), ...missing(environment, repositories[0]!));
  return {
    result: again instanceof Error ? first : error === null ? `${first}; again: ${again.fetched} B` : `${first}; then pulled`,
    wrong,
  };
}

/** The token is for the Hub alone. */
function tokenLeaks({ requests }: ScriptedHub): string[] {
  return requests
    .filter(({ host, headers }) => host !== 'hub' && /hf_/.test(JSON.stringify(headers)))
    .map(({ url }) => `the token went to ${url}`);
}

function missing({ cache }: HubEnvironment, { commits, refs }: HubRepository): string[] {
  const snapshot = join(cache, 'models--org--name', 'snapshots', refs.get('main')!);
  const wanted = commits.get(refs.get('main')!)!.filter(({ path }) => path !== 'README.md' && !path.includes('/') && !path.includes('\\'));
  return wanted.flatMap(({ path, content }) => {
    try {
      return readFileSync(join(snapshot, path)).equals(content) ? [] : [`${path} is not what the Hub has`];
    } catch {
      return [`${path} is missing`];
    }
  });
}

function attempt(wrong: string[], check: () => void): void {
  try {
    check();
  } catch (error) {
    wrong.push((error as Error).message);
  }
}

/** Bytes of a file that have left the server. */
export function sentBytes(requests: readonly HubRequest[], path: string): number {
  return requests.filter((request) => request.kind === 'cdn' && request.path === path).reduce((sum, { sent_bytes }) => sum + sent_bytes, 0);
}

/** Ranges that were asked for of a file. */
export function rangesOf(requests: readonly HubRequest[], path: string): (string | undefined)[] {
  return requests.filter((request) => request.kind === 'cdn' && request.path === path).map(({ headers }) => headers.range);
}
