import { existsSync, readdirSync, readFileSync } from 'node:fs';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import fc from 'fast-check';
import { afterAll, beforeAll, beforeEach, describe, expect, test } from 'vitest';
import { type HubEnvironment, hubEnvironment } from '../src/hub/environment.ts';
import { verifyCached } from '../src/hub/cached_models.ts';
import { cachedFolder, locateModel, modelFiles } from '../src/hub/locate.ts';
import { formatModelId, parseModelId } from '../src/hub/model_id.ts';
import { pull } from '../src/hub/pull.ts';
import { pullQuantised } from '../src/hub/pull_quantised.ts';
import { planModel } from '../src/load.ts';
import { quantizeCheckpoint } from '../src/quantize.ts';
import { fileOf, runIn } from './support/command_line.ts';
import { flippedBit, script } from './support/hub_faults.ts';
import { filesOf, hubRepository } from './support/hub_repository.ts';
import { repository } from './support/models.ts';
import { type ScriptedHub, startScriptedHub } from './support/scripted_hub.ts';

const SHARDED = repository('golden/models/sharded');
const EMBEDDED = repository('src/embedded');
const TOOL_USE = 'additional_chat_templates/tool_use.jinja';
const id = { repository: 'org/sharded', revision: 'main' };
const extra = {
  'README.md': 'Hello.',
  'pytorch_model.bin': 'not wanted',
  'training/log.txt': 'nor this',
};

let hub: ScriptedHub;
let home: string;
let environment: HubEnvironment;
let env: Record<string, string>;

beforeAll(async () => {
  const sharded = hubRepository('org/sharded', { main: { ...filesOf(SHARDED), ...extra }, 'stage1-step10000': filesOf(SHARDED) });
  hub = await startScriptedHub({
    repositories: [
      sharded,
      hubRepository('org/demo', { main: filesOf(EMBEDDED) }),
      hubRepository('org/templates', { main: { ...filesOf(SHARDED), [TOOL_USE]: 'of tools' } }),
    ],
  });
});
beforeEach(async () => {
  home = await mkdtemp(join(tmpdir(), 'olmo-hybrid-hub-'));
  env = { HF_HOME: home, HF_ENDPOINT: hub.endpoint };
  environment = { ...(await hubEnvironment(env)), retry_delay_ms: 1 };
  hub.requests.length = 0;
  hub.script = undefined;
  return () => rm(home, { recursive: true });
});
afterAll(() => hub.close());

const fileNames = (folder: string) => readdirSync(folder).sort();

describe('names of models', () => {
  test.each([
    ['allenai/Olmo-Hybrid-7B', 'allenai/Olmo-Hybrid-7B', 'main'],
    ['allenai/Olmo-Hybrid-7B@stage1-step10000', 'allenai/Olmo-Hybrid-7B', 'stage1-step10000'],
    ['a/b@refs/pr/1', 'a/b', 'refs/pr/1'],
    ['a/b.c_d-e@0123456789abcdef0123456789abcdef01234567', 'a/b.c_d-e', '0123456789abcdef0123456789abcdef01234567'],
  ])('%s', (text, repository, revision) => {
    expect(parseModelId(text)).toEqual({ repository, revision });
    expect(formatModelId({ repository, revision })).toBe(text);
  });

  test.each([
    'model',
    '/a/b',
    './a/b',
    '../a',
    'a/b/c',
    'a//b',
    'a/',
    '/b',
    'a/..',
    '../b',
    'a/b@',
    'a/b@x@y',
    'a/b@../c',
    'a/b@/c',
    'a/b@.',
    'a/b@c/./d',
    'a/b@c/.d',
    'a/b@c//d',
    'a--b/c',
    'a/b.git',
    'a/b c',
    'ä/b',
    'a\\b',
    '.a/b',
    'a/b-',
    '',
    '@',
    'a/b@x\n',
  ])('%j is none', (text) => {
    expect(parseModelId(text)).toBeNull();
  });

  test('no text leads out of the cache', () => {
    fc.assert(
      fc.property(fc.stringMatching(/^[a-zA-Z0-9._@/\\-]{0,40}$/), (text) => {
        const parsed = parseModelId(text);
        if (parsed === null) return;
        expect(join('/cache', `models--${parsed.repository.replace('/', '--')}`, 'refs', parsed.revision)).toMatch(
          /^\/cache\/models--[^/]+\/refs\/[^/]/,
        );
      }),
      { numRuns: 5000 },
    );
  });
});

describe('the environment', () => {
  test.each([
    [{ HF_HOME: '/h' }, { cache: '/h/hub', assets: '/h/assets', token: null, offline: false, endpoint: 'https://huggingface.co' }],
    [
      { HF_HOME: '/h', HF_HUB_CACHE: '/c', HF_ASSETS_CACHE: '/a' },
      { cache: '/c', assets: '/a' },
    ],
    [{ XDG_CACHE_HOME: '/x' }, { cache: '/x/huggingface/hub' }],
    [
      { HF_HOME: '/h', HF_TOKEN: ' hf_x\n', HF_HUB_OFFLINE: 'yes' },
      { token: 'hf_x', offline: true },
    ],
    [{ HF_HOME: '/h', HF_TOKEN: 'hf_x', HF_HUB_DISABLE_IMPLICIT_TOKEN: '1' }, { token: null }],
    [
      { HF_HOME: '/h', HF_ENDPOINT: 'http://127.0.0.1:1234/', HF_HUB_DOWNLOAD_TIMEOUT: '3' },
      { endpoint: 'http://127.0.0.1:1234', idle_timeout_ms: 3000 },
    ],
  ])('%j', async (variables, expected) => {
    expect(await hubEnvironment(variables)).toMatchObject(expected);
  });

  test('a token file', async () => {
    expect(await hubEnvironment({ HF_HOME: home, HF_TOKEN_PATH: repository('LICENSE') }).catch(String)).toContain(
      'HF_TOKEN: expected a token',
    );
    expect((await hubEnvironment({ HF_TOKEN_PATH: '/nowhere', HF_HOME: home })).token).toBeNull();
  });

  test.each([{ HF_ENDPOINT: 'huggingface.co' }, { HF_ENDPOINT: 'file:///etc' }])('%j is refused', async (variables) => {
    await expect(hubEnvironment(variables)).rejects.toThrow('HF_ENDPOINT: expected an http or https URL');
  });
});

describe('finding a model', () => {
  test('a folder is itself, whatever its name', async () => {
    expect(await locateModel(SHARDED, { environment })).toBe(SHARDED);
    expect(await locateModel('golden/models', { environment })).toBe('golden/models');
    expect(await locateModel('./not/there', { environment })).toBe('./not/there');
    expect(hub.requests).toEqual([]);
  });

  test('what is not in the cache is fetched, only the files that are needed, and the next time nothing is asked', async () => {
    const folder = await locateModel('org/sharded', { environment });
    expect(fileNames(folder)).toEqual(
      readdirSync(SHARDED)
        .filter((name) => name !== 'expected.safetensors')
        .sort(),
    );
    for (const name of readdirSync(folder)) expect(readFileSync(join(folder, name))).toEqual(readFileSync(join(SHARDED, name)));
    const asked = hub.requests.length;
    expect(await locateModel('org/sharded', { environment: { ...environment, endpoint: 'http://127.0.0.1:9' } })).toBe(folder);
    expect(await locateModel('org/sharded', { environment: { ...environment, offline: true } })).toBe(folder);
    expect(hub.requests.length).toBe(asked);
  });

  test('for text alone the weights are left where they are, and come when they are needed', async () => {
    const folder = await locateModel('org/demo', { environment, need: 'text' });
    expect(fileNames(folder)).toEqual(['config.json', 'generation_config.json', 'tokenizer.json', 'tokenizer_config.json']);
    expect(await cachedFolder({ repository: 'org/demo', revision: 'main' }, { environment })).toBeNull();
    expect(await locateModel('org/demo', { environment })).toBe(folder);
    expect(fileNames(folder)).toContain('model.safetensors');
    expect(hub.requests.filter(({ path }) => path === 'tokenizer.json').length).toBe(2); // a redirect, and the file: once
  });

  test('chat templates in a folder of their own come along, also when the model is quantised', async () => {
    const templates = { repository: 'org/templates', revision: 'main' };
    const { folder } = await pull(templates, { environment });
    await quantizeCheckpoint(folder, join(home, 'q8'), { weights: 'q8' });
    const onTheWay = await pullQuantised(templates, { environment, weights: 'q8' });
    for (const one of [folder, join(home, 'q8'), onTheWay.folder]) expect(readFileSync(join(one, TOOL_USE), 'utf8')).toBe('of tools');
    const { files, damaged } = await verifyCached(templates, environment, new AbortController().signal, () => {});
    expect({ files, damaged }).toEqual({ files: 12, damaged: [] }); // six and six
  });

  test('a revision has a snapshot of its own and shares the blobs', async () => {
    const main = await pull(id, { environment });
    const stage = await pull({ ...id, revision: 'stage1-step10000' }, { environment });
    expect(stage.commit).not.toBe(main.commit);
    expect(stage.fetched).toBe(0);
    expect(await locateModel(`org/sharded@${stage.commit}`, { environment: { ...environment, offline: true } })).toBe(stage.folder);
  });

  test('offline, what is not there is said without a request', async () => {
    const offline = { ...environment, offline: true };
    await expect(locateModel('org/sharded', { environment: offline })).rejects.toThrow('org/sharded: expected it in the cache');
    await expect(pull(id, { environment: offline })).rejects.toThrow('Unset HF_HUB_OFFLINE');
    expect(hub.requests).toEqual([]);
  });
});

describe('a look before fetching', () => {
  test('reads headers by ranges, plans as for the folder, and leaves nothing behind', async () => {
    const files = await modelFiles('org/sharded', { environment });
    const remote = await planModel(files, { weights: 'q4' });
    const local = await planModel(SHARDED, { weights: 'q4' });
    expect(remote.placement.total_bytes).toBe(local.placement.total_bytes);
    expect(remote.stored_bytes).toBe(local.stored_bytes);
    const read = hub.requests.filter(({ path }) => path.startsWith('model-'));
    expect(read.every(({ headers }) => headers.range !== undefined)).toBe(true);
    const sent = read.reduce((sum, { sent_bytes }) => sum + sent_bytes, 0);
    expect(sent).toBeGreaterThan(0);
    expect(sent).toBeLessThan(remote.stored_bytes / 4);
    expect(readdirSync(home)).toEqual([]);
  });
});

describe('quantised on the way', () => {
  const options = { weights: 'q4' as const, threads: 2 };
  const here = () => ({ ...options, environment });

  test('gives the tensors of quantize, and the original is on disk at no time', async () => {
    let looks = 0;
    const onProgress = () => {
      looks += 1;
      expect(readdirSync(home), 'nothing beside what is made of it').toEqual(['assets']);
    };
    const { folder, fetched } = await pullQuantised(id, { ...here(), onProgress });
    expect(looks).toBeGreaterThan(3);
    const trusted = join(home, 'trusted');
    await quantizeCheckpoint(SHARDED, trusted, options);
    const shards = fileNames(trusted).filter((name) => name.endsWith('.safetensors'));
    expect(fileNames(folder)).toEqual([...fileNames(trusted), 'SHA256SUMS'].sort());
    for (const name of shards) expect(dataOf(join(folder, name))).toEqual(dataOf(join(trusted, name)));
    expect(fetched).toBeGreaterThan(0);
    expect(existsSync(environment.cache)).toBe(false);
    expect(await locateModel('org/sharded', { environment: { ...environment, offline: true }, weights: 'q4' })).toBe(folder);
    expect(await locateModel('org/sharded', { environment: { ...environment, offline: true } })).toBe(folder);
    await expect(locateModel('org/sharded', { environment: { ...environment, offline: true }, weights: 'q8' })).rejects.toThrow(
      'the cache',
    );
    hub.requests.length = 0;
    expect((await pullQuantised(id, here())).fetched).toBe(0);
    expect(hub.requests.map(({ kind }) => kind)).toEqual(['revision', 'tree']);
  });

  test('options that types would refuse are refused before a file of weights is asked for', async () => {
    for (const [options, message] of [
      [{ weights: '../q4' as 'q4' }, /^weights: expected q8 or q4, found "\.\.\/q4"/],
      [{ threads: 400 }, /^threads: expected an integer from 1 to 256, found 400/],
    ] as const)
      await expect(pullQuantised(id, { ...here(), ...options })).rejects.toThrow(message);
    expect(hub.requests.filter(({ sent_bytes }) => sent_bytes > 20_000)).toEqual([]);
  });

  test('is taken up behind the shards that are done', async () => {
    const controller = new AbortController();
    const stopped = pullQuantised(id, {
      ...here(),
      signal: controller.signal,
      onProgress: (_done, _total, file) => file.startsWith('model-00003') && controller.abort(),
    });
    await expect(stopped).rejects.toThrow(expect.objectContaining({ name: 'AbortError' }));
    hub.requests.length = 0;
    await pullQuantised(id, here());
    const bodies = hub.requests.filter(({ path, sent_bytes, host }) => host === 'cdn' && path.startsWith('model-') && sent_bytes > 20_000);
    expect(bodies.map(({ path }) => path)).toEqual(['model-00003-of-00003.safetensors']);
  });

  test('a wrong bit in a shard is found, and nothing of it is kept', async () => {
    hub.script = script({ path: 'model-00002-of-00003.safetensors', when: ({ host }) => host === 'cdn', fault: flippedBit(30_000) });
    await expect(pullQuantised(id, here())).rejects.toThrow(
      /model-00002-of-00003\.safetensors: expected a file of digest [0-9a-f]{64}, found/,
    );
    expect(await cachedFolder(id, { environment, weights: 'q4' })).toBeNull();
    hub.script = undefined;
    const { folder } = await pullQuantised(id, here());
    await quantizeCheckpoint(SHARDED, join(home, 'trusted'), options);
    const name = 'model-00002-of-00003.safetensors';
    expect(dataOf(join(folder, name))).toEqual(dataOf(join(home, 'trusted', name)));
  });
});

/** The bytes behind the header, whose metadata says where the weights came from. */
function dataOf(path: string): Buffer {
  const bytes = readFileSync(path);
  return bytes.subarray(8 + Number(bytes.readBigUInt64LE()));
}

describe('on the command line', () => {
  test('generate, tokenize and inspect take a model by its name', async () => {
    const looked = await runIn(env, 'inspect', '--model', 'org/demo');
    expect(looked.stdout).toContain('from          the Hub, by its headers alone; nothing was downloaded');
    expect(looked.stdout).toMatch(/q4 +[\d.]+ MB, fits here/);
    expect(readdirSync(home)).toEqual([]);
    const words = await runIn(env, 'generate', '--model', 'org/demo', '--temperature', '0', '--max-tokens', '5', '--json', 'It was');
    const trusted = await runIn(env, 'generate', '--model', EMBEDDED, '--temperature', '0', '--max-tokens', '5', '--json', 'It was');
    expect(words).toEqual({ ...trusted, stderr: words.stderr });
    expect(words.code).toBe(0);
    const asked = hub.requests.length;
    const input = await fileOf(home, 'texts.json', ['It was']);
    const offline = { ...env, HF_HUB_OFFLINE: '1' };
    expect((await runIn(offline, 'tokenize', '--model', 'org/demo', '--input', input)).stdout).toBe(
      (await runIn(offline, 'tokenize', '--input', input)).stdout,
    );
    expect(hub.requests.length).toBe(asked);
  });

  test('pull prints the folder; cache lists, checks, mends and removes', async () => {
    const pulled = await runIn(env, 'pull', 'org/sharded');
    const folder = pulled.stdout.trim();
    expect(pulled.code).toBe(0);
    expect(existsSync(join(folder, 'model-00002-of-00003.safetensors'))).toBe(true);
    expect(pulled.stderr).toMatch(/^org\/sharded at [0-9a-f]{12}: 5 files, 142 kB, 142 kB fetched in .* ms\n$/);
    await runIn(env, 'pull', 'org/sharded', '--weights', 'q8', '--only-quantised');
    const listed = await runIn(env, 'cache', 'ls', '--json');
    expect(JSON.parse(listed.stdout)).toMatchObject([
      { repository: 'org/sharded', revisions: ['main'], weights: null, files: 5, bytes: 141663, incomplete_bytes: 0, folder },
      { repository: 'org/sharded', revisions: ['main'], weights: 'q8', incomplete_bytes: 0 },
    ]);
    // Blobs, and five quantised files.
    expect((await runIn(env, 'cache', 'verify')).stdout).toBe('org/sharded: 10 of 10 files are as they should be\n');
    const blob = join(folder, 'model-00001-of-00003.safetensors');
    const { writeFile } = await import('node:fs/promises');
    const bytes = readFileSync(blob);
    bytes[1000]! ^= 4;
    await writeFile(blob, bytes);
    const damaged = await runIn(env, 'cache', 'verify', 'org/sharded');
    expect(damaged).toMatchObject({ code: 1, stdout: 'org/sharded: 9 of 10 files are as they should be\n' });
    expect(damaged.stderr).toContain('olmo-hybrid pull org/sharded');
    expect((await runIn(env, 'pull', 'org/sharded')).stderr).toContain('46.7 kB fetched');
    const [oid] = readdirSync(join(environment.cache, 'models--org--sharded/blobs'));
    const begun = await fileOf(join(environment.cache, 'models--org--sharded/blobs'), `${oid}.olmo-hybrid.incomplete`, 'of who was slower');
    expect((await runIn(env, 'cache', 'verify', 'org/sharded')).code).toBe(0);
    expect(existsSync(begun)).toBe(false);
    const [, quantised] = JSON.parse(listed.stdout) as { folder: string }[];
    const shard = join(quantised!.folder, 'model-00003-of-00003.safetensors');
    const made = readFileSync(shard);
    await writeFile(
      shard,
      Uint8Array.from(made, (byte, i) => byte ^ (i === 9000 ? 1 : 0)),
    );
    expect((await runIn(env, 'cache', 'verify')).code).toBe(1);
    await runIn(env, 'pull', 'org/sharded', '--weights', 'q8', '--only-quantised');
    expect(readFileSync(shard)).toEqual(made);
    expect((await runIn(env, 'cache', 'rm', 'org/sharded')).stderr).toMatch(/^org\/sharded: removed, .* freed\n$/);
    for (const command of ['ls', 'verify'])
      expect(await runIn(env, 'cache', command)).toEqual({ code: 0, stdout: '', stderr: `No models in ${environment.cache}.\n` });
    for (const command of ['rm', 'verify'])
      expect((await runIn(env, 'cache', command, 'org/sharded')).stderr).toContain('expected it in the cache');
  });

  test('one revision is removed without what another one uses', async () => {
    await pull(id, { environment });
    const stage = await pull({ ...id, revision: 'stage1-step10000' }, { environment });
    expect((await runIn(env, 'cache', 'rm', 'org/sharded@main')).code).toBe(0);
    expect(JSON.parse((await runIn(env, 'cache', 'ls', '--json')).stdout)).toMatchObject([
      { commit: stage.commit, revisions: ['stage1-step10000'] },
    ]);
    expect((await runIn(env, 'cache', 'verify')).stdout).toBe('org/sharded: 5 of 5 files are as they should be\n');
    expect(fileNames(stage.folder)).toContain('model-00001-of-00003.safetensors');
  });

  test.each([
    [['pull', 'golden'], 'expected org/name or org/name@revision, found "golden"'],
    [['pull', 'org/none'], 'found status 401 from'],
    [['pull', 'org/demo@v9'], 'expected a branch, tag or commit of it, found no v9'],
    [['pull', 'org/demo', '--weights', 'q4'], 'expected --weights with --only-quantised, found --weights alone'],
    [['generate', '--model', 'org/none', 'x'], 'no folder here has this name either'],
  ])('%j', async (args, message) => {
    const { code, stdout, stderr } = await runIn(env, ...args);
    expect({ code, stdout }).toEqual({ code: 1, stdout: '' });
    expect(stderr).toContain(message);
    expect(stderr.trim().split('\n')).toHaveLength(1);
  });
});
