import { existsSync, readFileSync, writeFileSync } from 'node:fs';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, beforeEach, describe, expect, test } from 'vitest';
import { verifyCached } from '../src/hub/cached_models.ts';
import { type HubEnvironment, hubEnvironment } from '../src/hub/environment.ts';
import { cachedFolder, locateModel } from '../src/hub/locate.ts';
import { pull } from '../src/hub/pull.ts';
import { pullQuantised } from '../src/hub/pull_quantised.ts';
import { runIn } from './support/command_line.ts';
import { filesOf, hubRepository } from './support/hub_repository.ts';
import { repository } from './support/models.ts';
import { type ScriptedHub, startScriptedHub } from './support/scripted_hub.ts';

// What `cache verify` leaves of a model in which a file is damaged, and how it is mended.

const id = { repository: 'org/name', revision: 'main' };
const files = { ...filesOf(repository('golden/models/sharded')), 'tokenizer.json': '{"a": 1}' };
const SHARD = 'model-00002-of-00003.safetensors';

let hub: ScriptedHub;
let home: string;
let environment: HubEnvironment;

beforeAll(async () => {
  const revisions = { main: files, other: { ...files, 'generation_config.json': '{"temperature": 0.5}' } };
  hub = await startScriptedHub({ repositories: [hubRepository('org/name', revisions)] });
});
beforeEach(async () => {
  home = await mkdtemp(join(tmpdir(), 'olmo-hybrid-hub-'));
  environment = { ...(await hubEnvironment({ HF_HOME: home, HF_ENDPOINT: hub.endpoint })), retry_delay_ms: 1 };
  return () => rm(home, { recursive: true });
});
afterAll(() => hub.close());

/** Damages a file and has it removed; returns what it was, and what is told. */
async function damaged(path: string) {
  const content = readFileSync(path);
  writeFileSync(
    path,
    content.map((byte, i) => (i === content.length - 2 ? byte ^ 1 : byte)),
  );
  const { damaged } = await verifyCached(id, environment, new AbortController().signal, () => {});
  expect(existsSync(path)).toBe(false);
  return { content, told: damaged.map(({ pull }) => pull) };
}

describe('a quantised folder', () => {
  const options = () => ({ environment, weights: 'q4' as const });

  test.each(['tokenizer.json', 'config.json', SHARD])('without %s is told, and mended by the command that is told', async (name) => {
    const { folder } = await pullQuantised(id, options());
    const path = join(folder, name);
    const { content, told } = await damaged(path);
    expect(told).toEqual(['org/name --weights q4 --only-quantised']);
    await expect(locateModel('org/name', options())).rejects.toThrow(
      `${folder}: expected ${name}, which SHA256SUMS lists, found no such file. Run \`olmo-hybrid pull org/name --weights q4 --only-quantised\`.`,
    );
    const { fetched } = await pullQuantised(id, options());
    expect(fetched).toBeGreaterThan(0);
    expect(readFileSync(path)).toEqual(content);
    expect(await cachedFolder(id, options())).toBe(folder);
    expect((await pullQuantised(id, options())).fetched).toBe(0);
  });

  test('is not missed where the original is', async () => {
    const original = await pull(id, { environment });
    const { folder } = await pullQuantised(id, options());
    await damaged(join(folder, 'tokenizer.json'));
    expect(await cachedFolder(id, options())).toBe(original.folder);
  });

  test('without its list is made anew', async () => {
    const { folder } = await pullQuantised(id, options());
    const list = readFileSync(join(folder, 'SHA256SUMS'));
    await rm(join(folder, 'SHA256SUMS'));
    await pullQuantised(id, options());
    expect(readFileSync(join(folder, 'SHA256SUMS'))).toEqual(list);
  });

  test('of another revision is named by it', async () => {
    const { folder } = await pullQuantised({ ...id, revision: 'other' }, options());
    expect((await damaged(join(folder, 'tokenizer.json'))).told).toEqual(['org/name@other --weights q4 --only-quantised']);
  });
});

describe('a snapshot', () => {
  test.each(['tokenizer.json', 'generation_config.json', SHARD])('without %s is fetched when it is needed', async (name) => {
    const { folder } = await pull({ ...id, revision: 'other' }, { environment });
    const { told } = await damaged(join(folder, name));
    expect(told).toEqual(['org/name@other']);
    expect(await cachedFolder({ ...id, revision: 'other' }, { environment })).toBeNull();
    expect(await locateModel('org/name@other', { environment })).toBe(folder);
    expect(existsSync(join(folder, name))).toBe(true);
  });

  test('without a shard is enough for text', async () => {
    const { folder } = await pull(id, { environment });
    await damaged(join(folder, SHARD));
    expect(await cachedFolder(id, { environment, need: 'text' })).toBe(folder);
  });
});

test('the command line tells what to run', async () => {
  const env = { HF_HOME: home, HF_ENDPOINT: hub.endpoint };
  const { folder } = await pullQuantised(id, { environment, weights: 'q8' });
  writeFileSync(join(folder, 'config.json'), '{}');
  const { code, stderr } = await runIn(env, 'cache', 'verify', 'org/name');
  expect(code).toBe(1);
  expect(stderr).toContain('removed. Run `olmo-hybrid pull org/name --weights q8 --only-quantised`.');
  expect((await runIn(env, 'pull', 'org/name', '--weights', 'q8', '--only-quantised')).stderr).toContain('fetched in');
  expect((await runIn(env, 'cache', 'verify', 'org/name')).code).toBe(0);
});
