import { readdirSync } from 'node:fs';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, beforeEach, expect, test } from 'vitest';
import { cachedModels, removeCached } from '../src/hub/cached_models.ts';
import { type HubEnvironment, hubEnvironment } from '../src/hub/environment.ts';
import { cachedFolder } from '../src/hub/locate.ts';
import { type Pulled, pull } from '../src/hub/pull.ts';
import { pullQuantised } from '../src/hub/pull_quantised.ts';
import { slow, script } from './support/hub_faults.ts';
import { pathsBelow } from './support/hub_cache.ts';
import { filesOf, hubRepository } from './support/hub_repository.ts';
import { repository } from './support/models.ts';
import { type ScriptedHub, startScriptedHub } from './support/scripted_hub.ts';

// `cache rm` of one revision beside others that are there, that were broken off and that are on their way.

const files = filesOf(repository('golden/models/sharded'));
const THIRD = 'model-00003-of-00003.safetensors';
/** The same weights but for the last shard. */
const other = { ...files, [THIRD]: files[THIRD]!.map((byte, i, all) => (i === all.length - 1 ? byte ^ 1 : byte)) };
const model = hubRepository('org/name', { a: files, b: other });
const id = { repository: 'org/name' };
const A = model.refs.get('a')!;

let hub: ScriptedHub;
let home: string;
let environment: HubEnvironment;

beforeAll(async () => {
  hub = await startScriptedHub({ repositories: [model] });
});
beforeEach(async () => {
  home = await mkdtemp(join(tmpdir(), 'olmo-hybrid-hub-'));
  environment = { ...(await hubEnvironment({ HF_HOME: home, HF_ENDPOINT: hub.endpoint })), retry_delay_ms: 1 };
  hub.script = undefined;
  return () => rm(home, { recursive: true });
});
afterAll(() => hub.close());

const blobs = () => readdirSync(join(home, 'hub/models--org--name/blobs'));
const unfinished = () => blobs().filter((name) => name.endsWith('.incomplete'));
const brokenOff = (error: Error) => expect(error.name).toBe('AbortError');

/** Pulls until some of the last shard has come, and then does something. */
async function pulledUntil(revision: string, then: () => Promise<void> | void, signal?: AbortSignal): Promise<Pulled> {
  let done: Promise<void> | undefined;
  const onProgress = (_done: number, _total: number, file: string) => {
    if (file === THIRD) done ??= Promise.resolve(then());
  };
  const pulled = await pull({ ...id, revision }, { environment, signal, onProgress });
  await done;
  return pulled;
}

async function broken(revision: string): Promise<void> {
  const controller = new AbortController();
  await pulledUntil(revision, () => controller.abort(), controller.signal).then(() => expect.unreachable(), brokenOff);
}

test('a format that was begun goes with its revision, and what is freed is what is gone', async () => {
  await pull({ ...id, revision: 'a' }, { environment });
  await pull({ ...id, revision: 'b' }, { environment });
  const controller = new AbortController();
  const options = { environment, weights: 'q4' as const, signal: controller.signal, onProgress: () => controller.abort() };
  await pullQuantised({ ...id, revision: 'a' }, options).then(() => expect.unreachable(), brokenOff);
  expect((await cachedModels(environment)).map(({ revisions, weights }) => [revisions, weights])).toContainEqual([[], 'q4']);
  expect(await removeCached(id, A, environment)).toBeGreaterThan(files[THIRD]!.length);
  expect((await cachedModels(environment)).map(({ revisions }) => revisions)).toEqual([['b']]);
  expect(pathsBelow(join(home, 'assets'))).toEqual([]);
  expect(await cachedFolder({ ...id, revision: 'b' }, { environment })).not.toBeNull();
});

test('what another revision has fetched so far stays', async () => {
  await pull({ ...id, revision: 'a' }, { environment });
  await broken('b');
  expect(unfinished()).toHaveLength(1);
  await removeCached(id, 'a', environment);
  expect(unfinished()).toHaveLength(1);
  const { fetched } = await pull({ ...id, revision: 'b' }, { environment });
  expect(fetched).toBe(other[THIRD]!.length);
});

test('what this revision has fetched so far goes, where the others are complete', async () => {
  await pull({ ...id, revision: 'a' }, { environment });
  await broken('b');
  await removeCached(id, model.refs.get('b')!, environment);
  expect(unfinished()).toEqual([]);
  expect(await cachedFolder({ ...id, revision: 'a' }, { environment })).not.toBeNull();
});

test('a revision that is on its way comes in full', async () => {
  await pull({ ...id, revision: 'a' }, { environment });
  const { folder } = await pulledUntil('b', async () => void (await removeCached(id, 'a', environment)));
  expect(await cachedFolder({ ...id, revision: 'b' }, { environment })).toBe(folder);
});

test('the file on its way is left, also where all others are complete', async () => {
  await pull({ ...id, revision: 'a' }, { environment });
  hub.script = script({ kind: 'cdn', path: THIRD, fault: slow(20_000) });
  const controller = new AbortController();
  const removed = async () => {
    await removeCached(id, model.refs.get('b')!, environment);
    expect(unfinished()).toHaveLength(1);
    controller.abort();
  };
  await pulledUntil('b', removed, controller.signal).then(() => expect.unreachable(), brokenOff);
});

test('a format that another process makes is not removed', async () => {
  let refused: Promise<unknown> | undefined;
  const onProgress = () => {
    refused ??= removeCached(id, A, environment).catch((error: Error) => error.message);
  };
  const { folder } = await pullQuantised({ ...id, revision: 'a' }, { environment, weights: 'q8', onProgress });
  expect(await refused).toContain(`${folder}: expected no other process at work on it, found one that quantises to q8.`);
  expect(await cachedFolder({ ...id, revision: 'a' }, { environment, weights: 'q8' })).toBe(folder);
});

test('the last revision leaves nothing', async () => {
  await pull({ ...id, revision: 'a' }, { environment });
  await pullQuantised({ ...id, revision: 'a' }, { environment, weights: 'q8' });
  await removeCached(id, 'a', environment);
  expect(pathsBelow(home)).toEqual([]);
  expect(await cachedModels(environment)).toEqual([]);
});
