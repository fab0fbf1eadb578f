import { cp, readdir, readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { describe, expect, test } from 'vitest';
import { cachedModels, verifyCached } from '../src/hub/cached_models.ts';
import { type HubEnvironment, hubEnvironment } from '../src/hub/environment.ts';
import { locateModel } from '../src/hub/locate.ts';
import { requireModelId } from '../src/hub/model_id.ts';
import { pull } from '../src/hub/pull.ts';
import { runIn } from './support/command_line.ts';
import { cacheFaults, pathsBelow } from './support/hub_cache.ts';
import { filesOf, hubRepository } from './support/hub_repository.ts';
import { goldenModel, repository, temporaryFolder } from './support/models.ts';
import { startScriptedHub } from './support/scripted_hub.ts';

// golden/hub_cache is as Python's huggingface_hub left it: golden/hub_cache.py.
const CACHE = repository('golden/hub_cache');
const FOLDER = join(CACHE, 'models--golden--sharded');
const REVISIONS = ['main', 'stage1-step10000'];
const SHARDED = Object.entries(filesOf(goldenModel('sharded'), (path) => path !== 'expected.safetensors'));
const TOKENIZER = ['tokenizer.json', 'tokenizer_config.json'].map(
  (name) => [name, filesOf(repository('golden/tokenizer'))[name]!] as const,
);
const CHAT = [['chat_template.jinja', filesOf(repository('golden/tokenizer'))['chat_template.jinja']!]] as const;

/** The repository that Python had before it. */
const model = hubRepository(
  'golden/sharded',
  { main: Object.fromEntries([...SHARDED, ...TOKENIZER, ...CHAT]), 'stage1-step10000': Object.fromEntries([...SHARDED, ...TOKENIZER]) },
  { lfs: (path) => path.endsWith('.safetensors') || path === 'tokenizer.json' },
);
// Port 9 is for discarding: nobody listens.
const WAYS = [
  ['HF_HUB_OFFLINE=1', { HF_HOME: '/nowhere', HF_HUB_CACHE: CACHE, HF_HUB_OFFLINE: '1' }],
  ['no Hub that answers', { HF_HOME: '/nowhere', HF_HUB_CACHE: CACHE, HF_ENDPOINT: 'http://127.0.0.1:9' }],
] as const;

/** A copy that may be written. */
async function copied(endpoint = 'http://127.0.0.1:9'): Promise<HubEnvironment> {
  const home = await temporaryFolder();
  await cp(CACHE, join(home, 'hub'), { recursive: true, verbatimSymlinks: true });
  return { ...(await hubEnvironment({ HF_HOME: home, HF_ENDPOINT: endpoint })), retry_delay_ms: 1 };
}

test('the fixture is what the repository and the layout of huggingface_hub make of it', async () => {
  expect(cacheFaults(CACHE, [model])).toEqual([]);
  for (const revision of REVISIONS) {
    const commit = model.refs.get(revision)!;
    expect(await readFile(join(FOLDER, 'refs', revision), 'utf8')).toBe(commit);
    expect((await readdir(join(FOLDER, 'snapshots', commit))).sort()).toEqual(model.commits.get(commit)!.map(({ path }) => path));
  }
});

describe.each(WAYS)("Python's cache with %s", (_, env) => {
  test.each(REVISIONS)('gives the folder of %s', async (revision) => {
    const environment = await hubEnvironment(env);
    const folder = join(FOLDER, 'snapshots', model.refs.get(revision)!);
    for (const need of ['weights', 'text'] as const)
      expect(await locateModel(`golden/sharded@${revision}`, { environment, need })).toBe(folder);
  });

  test('is what commands read', async () => {
    const [by_name, by_path] = await Promise.all([
      runIn(env, 'inspect', '--json', '--model', 'golden/sharded'),
      runIn(env, 'inspect', '--json', '--model', join(FOLDER, 'snapshots', model.refs.get('main')!)),
    ]);
    expect({ ...by_name, stdout: JSON.parse(by_name.stdout) }).toMatchObject({ code: 0, stderr: '', stdout: { parameters: 64_052 } });
    expect(JSON.parse(by_name.stdout).parameters).toBe(JSON.parse(by_path.stdout).parameters);
  });

  test('has no other revision, and says so', async () => {
    const environment = { ...(await hubEnvironment(env)), retry_delay_ms: 1 };
    await expect(locateModel('golden/sharded@stage2-step1', { environment })).rejects.toThrow('golden/sharded@stage2-step1');
  });
});

test('pull finds all of it in its place', async () => {
  const hub = await startScriptedHub({ repositories: [model] });
  try {
    const environment = await copied(hub.endpoint);
    const before = pathsBelow(environment.cache);
    for (const revision of REVISIONS)
      expect(await pull(requireModelId(`golden/sharded@${revision}`), { environment })).toMatchObject({
        fetched: 0,
        commit: model.refs.get(revision),
      });
    expect(hub.requests.map(({ kind }) => kind)).toEqual(['revision', 'tree', 'revision', 'tree']);
    expect(pathsBelow(environment.cache)).toEqual(before);
  } finally {
    await hub.close();
  }
});

test('cache ls and cache verify know all of it', async () => {
  const environment = await copied();
  const listed = await cachedModels(environment);
  expect(
    listed.map(({ repository, revisions, files }) => [repository, revisions, files]).sort((a, b) => Number(b[2]) - Number(a[2])),
  ).toEqual([
    ['golden/sharded', ['main'], 8],
    ['golden/sharded', ['stage1-step10000'], 7],
  ]);
  const bytes = model.commits.get(model.refs.get('main')!)!.reduce((sum, { content }) => sum + content.byteLength, 0);
  let read = 0;
  const { files, damaged } = await verifyCached({ repository: 'golden/sharded' }, environment, new AbortController().signal, (count) => {
    read += count;
  });
  expect({ files, damaged, read }).toEqual({ files: 8, damaged: [], read: bytes });
});
