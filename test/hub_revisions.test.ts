import { mkdirSync, utimesSync, writeFileSync } from 'node:fs';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, beforeEach, describe, expect, test } from 'vitest';
import { type HubEnvironment, hubEnvironment } from '../src/hub/environment.ts';
import { cachedFolder, type LocateOptions, locateModel } from '../src/hub/locate.ts';
import { pull } from '../src/hub/pull.ts';
import { pullQuantised } from '../src/hub/pull_quantised.ts';
import { filesOf, hubRepository } from './support/hub_repository.ts';
import { repository } from './support/models.ts';
import { type ScriptedHub, startScriptedHub } from './support/scripted_hub.ts';

// A branch that moves on, and what of it is in the cache.

const id = { repository: 'org/name', revision: 'main' };
const files = { ...filesOf(repository('golden/models/sharded')), 'tokenizer.json': '{}' };
const model = hubRepository('org/name', { old: files, new: { ...files, 'generation_config.json': '{"temperature": 0.5}' } });
const [OLD, NEW] = [model.refs.get('old')!, model.refs.get('new')!];

let hub: ScriptedHub;
let home: string;
let environment: HubEnvironment;

const move = (commit: string) => (model.refs as Map<string, string>).set('main', commit);
beforeAll(async () => {
  hub = await startScriptedHub({ repositories: [model] });
});
beforeEach(async () => {
  home = await mkdtemp(join(tmpdir(), 'olmo-hybrid-hub-'));
  environment = { ...(await hubEnvironment({ HF_HOME: home, HF_ENDPOINT: hub.endpoint })), retry_delay_ms: 1 };
  move(OLD);
  return () => rm(home, { recursive: true });
});
afterAll(() => hub.close());

const original = async () => await pull(id, { environment });
const quantised = async (weights: 'q8' | 'q4' = 'q4') => await pullQuantised(id, { environment, weights });
const found = async (options: Partial<LocateOptions> = {}) => await cachedFolder(id, { environment, ...options });
const ref = (which: 'hub' | 'assets/olmo-hybrid') => join(home, which, 'models--org--name', 'refs', 'main');
/** As if the refs had been written so long ago. */
const aged = (path: string, seconds: number) => utimesSync(path, new Date(), new Date(Date.now() - 1000 * seconds));

describe('of two revisions, the one that was asked for last is found', () => {
  test('the original after what was quantised, which is quantised on load then', async () => {
    await quantised();
    aged(ref('assets/olmo-hybrid'), 1);
    move(NEW);
    const { folder, commit } = await original();
    expect(commit).toBe(NEW);
    for (const weights of ['q4', 'q8', 'bf16', undefined]) expect(await found({ weights })).toBe(folder);
    expect(await found({ need: 'text' })).toBe(folder);
  });

  test('what was quantised after the original', async () => {
    const old = await original();
    aged(ref('hub'), 1);
    move(NEW);
    const { folder } = await quantised();
    for (const weights of ['q4', undefined]) expect(await found({ weights })).toBe(folder);
    for (const weights of ['q8', 'bf16']) expect(await found({ weights })).toBe(old.folder);
  });

  test('a revision that the branch went back to', async () => {
    const { folder } = await original();
    move(NEW);
    await quantised();
    for (const which of ['hub', 'assets/olmo-hybrid'] as const) aged(ref(which), 1);
    move(OLD);
    expect((await original()).fetched).toBe(0);
    expect(await found({ weights: 'q4' })).toBe(folder);
  });

  test('of one revision, what is quantised as it is asked for', async () => {
    const [there, made] = [await original(), await quantised()];
    expect(await found({ weights: 'q4' })).toBe(made.folder);
    for (const weights of ['q8', undefined]) expect(await found({ weights })).toBe(there.folder);
  });
});

describe('a newer revision of which not all is there', () => {
  const newer = (...names: string[]) => {
    const folder = join(home, 'hub/models--org--name');
    mkdirSync(join(folder, 'snapshots', NEW), { recursive: true });
    mkdirSync(join(folder, 'refs'), { recursive: true });
    for (const name of names) writeFileSync(join(folder, 'snapshots', NEW, name), (files as Record<string, Uint8Array | string>)[name]!);
    writeFileSync(ref('hub'), NEW);
    aged(ref('assets/olmo-hybrid'), 1);
  };

  test('the older one is found where Python has fetched config.json alone', async () => {
    const { folder } = await quantised();
    newer('config.json');
    expect(await found({ weights: 'q4' })).toBe(folder);
    expect(await found({ need: 'text' })).toBe(folder);
  });

  test('the rest is fetched where its weights were begun', async () => {
    await quantised();
    newer('config.json', 'model.safetensors.index.json');
    expect(await found({ weights: 'q4' })).toBeNull();
    move(NEW);
    expect(await locateModel('org/name', { environment, weights: 'q4' })).toContain(NEW);
  });
});
