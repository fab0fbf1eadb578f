import { existsSync, readdirSync, statSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as pause } from 'node:timers/promises';
import { describe, expect, onTestFinished, test } from 'vitest';
import { requireModelId } from '../src/hub/model_id.ts';
import { pull } from '../src/hub/pull.ts';
import { breakDownloads, MOMENTS, type Way } from './support/broken_downloads.ts';
import { noAnswer, script } from './support/hub_faults.ts';
import { cacheFaults, pathsBelow, repositoryFolder, snapshotOf } from './support/hub_cache.ts';
import { etagOf, filesOf, hubRepository } from './support/hub_repository.ts';
import { goldenModel, repository, temporaryFolder } from './support/models.ts';
import { type Ended, type PullProcess, startPull } from './support/pull_process.ts';
import { type ScriptedHub, startScriptedHub } from './support/scripted_hub.ts';

const MAIN = repository('dist/cli/main.js');
const KILLS = 4;

describe('downloads that are broken off at random points are taken up', () => {
  const seeds = (first: number, count: number) => Array.from({ length: count }, (_, i) => first + i);

  test.concurrent('by SIGKILL, or with two processes at once', { timeout: 60_000 }, async ({ expect }) => {
    const ways: Way[] = ['killed', 'killed', 'raced'];
    const downloads = await breakDownloads({
      main: MAIN,
      seeds: seeds(1, 12),
      wayOf: (seed) => ways[seed % ways.length]!,
      bytesOf: () => 1_000_003,
      bytes_per_second: 2e6,
      parallel: 12,
    });
    expect(downloads.filter(({ wrong }) => wrong.length > 0)).toEqual([]);
    const moments = downloads.flatMap(({ moments }) => moments);
    expect(moments.filter((moment) => moment === MOMENTS[1]).length).toBeGreaterThan(moments.length / 4);
  });

  test.concurrent('by a server that cuts', { timeout: 60_000 }, async ({ expect }) => {
    const downloads = await breakDownloads({
      main: MAIN,
      seeds: seeds(1001, 60),
      wayOf: () => 'cut',
      bytesOf: (seed) => (seed % 20 === 0 ? 40_000_003 : 300_007),
      bytes_per_second: 400e6,
      parallel: 6,
      pull: async (endpoint, cache, id) => {
        const given = { endpoint, cache, assets: join(cache, 'assets'), token: null, offline: false };
        await pull(requireModelId(id), { environment: { ...given, idle_timeout_ms: 10_000, retry_delay_ms: 1 } });
      },
    });
    expect(downloads.filter(({ wrong }) => wrong.length > 0)).toEqual([]);
    expect(downloads.reduce((sum, { cuts }) => sum + cuts, 0)).toBeGreaterThan(60);
  });
});

test('a model that is quantised on its way is there in full or not at all, wherever it was killed', { timeout: 60_000 }, async () => {
  const sharded = hubRepository('org/name', { main: filesOf(goldenModel('sharded'), (path) => path !== 'expected.safetensors') });
  const bytes = [...sharded.commits.values()][0]!.reduce((sum, { content }) => sum + content.byteLength, 0);
  const hub = await startScriptedHub({ repositories: [sharded], bytes_per_second: 100_000 });
  onTestFinished(hub.close);
  const work = await temporaryFolder();
  const at = (name: string) => ({
    HF_ENDPOINT: hub.endpoint,
    HF_HUB_CACHE: join(work, name, 'cache'),
    HF_ASSETS_CACHE: join(work, name, 'assets'),
  });
  const begin = (name: string) => startPull(MAIN, 'org/name', at(name), '--weights', 'q4', '--only-quantised');
  const made = (name: string) => {
    const folder = join(work, name, 'assets', 'olmo-hybrid', 'models--org--name', 'snapshots', sharded.refs.get('main')!, 'q4');
    return existsSync(folder) ? filesOf(folder) : null;
  };
  const sent = () => hub.requests.filter(({ kind }) => kind === 'cdn').reduce((sum, { sent_bytes }) => sum + sent_bytes, 0);
  expect((await begin('whole').ended).code).toBe(0);
  const whole = made('whole');
  expect(Object.keys(whole!)).toContain('model-00003-of-00003.safetensors');

  const broken = Array.from({ length: KILLS }, async (_, i) => {
    const process = begin(`${i}`);
    const [before, share] = [sent(), (i + 0.5) / KILLS];
    // All are sent to at the same time.
    while (process.running() && sent() - before < KILLS * share * bytes) await pause(2);
    process.kill('SIGKILL');
    const { code } = await process.ended;
    if (code === null) expect([null, whole]).toContainEqual(made(`${i}`));
    expect((await begin(`${i}`).ended).code).toBe(0);
    expect(made(`${i}`)).toEqual(whole);
    expect(pathsBelow(join(work, `${i}`, 'cache'))).toEqual([]);
  });
  await Promise.all(broken);
});

describe('a signal in a download', () => {
  const weights = new Uint8Array(2_000_003).map((_, i) => i * i);
  const model = hubRepository('org/name', { main: { 'config.json': '{}', 'model.safetensors': weights } });
  const sent = ({ requests }: ScriptedHub) =>
    requests.filter(({ kind }) => kind === 'cdn').reduce((sum, { sent_bytes }) => sum + sent_bytes, 0);

  interface Download {
    readonly hub: ScriptedHub;
    readonly cache: string;
    start(): PullProcess;
  }

  async function download(): Promise<Download> {
    const hub = await startScriptedHub({ repositories: [model], bytes_per_second: 2e6 });
    onTestFinished(hub.close);
    const cache = join(await temporaryFolder(), 'cache');
    return { hub, cache, start: () => startPull(MAIN, 'org/name', { HF_ENDPOINT: hub.endpoint, HF_HUB_CACHE: cache }) };
  }

  async function until(condition: () => boolean): Promise<void> {
    while (!condition()) await pause(5);
  }

  /** A process that a signal ends when a quarter has come. */
  async function interrupted({ hub, start }: Download, ...signals: NodeJS.Signals[]): Promise<Ended> {
    const process = start();
    await until(() => sent(hub) > weights.length / 4);
    for (const signal of signals) process.kill(signal);
    return await process.ended;
  }

  /** Locks that are held; of those who are gone too. */
  const locks = (cache: string) =>
    readdirSync(join(cache, '.locks'), { recursive: true, encoding: 'utf8' }).filter((name) => name.endsWith('.lock'));
  const kept = (cache: string) => {
    const [, file] = [...model.commits.values()][0]!;
    const path = join(repositoryFolder(cache, 'org/name'), 'blobs', `${etagOf(file!)}.olmo-hybrid.incomplete`);
    return existsSync(path) ? statSync(path).size : 0;
  };

  /** The rest is fetched at once. */
  async function takenUp({ hub, cache, start }: Download): Promise<void> {
    const [before, there] = [sent(hub), kept(cache)];
    expect(cacheFaults(cache, [model])).toEqual([]);
    expect(there).toBeGreaterThan(0);
    const { code, stderr } = await start().ended;
    expect({ code, waited: stderr.includes('another process') }).toEqual({ code: 0, waited: false });
    expect(sent(hub) - before).toBe(weights.length - there);
    expect(snapshotOf(cache, model)!['model.safetensors']!.equals(weights)).toBe(true);
    expect(cacheFaults(cache, [model])).toEqual([]);
  }

  test('Ctrl-C: exit code 130, nothing on stdout, no stack trace, no lock, and the next call goes on', async () => {
    const running = await download();
    const { code, signal, stdout, stderr } = await interrupted(running, 'SIGINT');
    expect({ code, signal, stdout }).toEqual({ code: 130, signal: null, stdout: '' });
    expect(stderr).not.toMatch(/\n\s+at |Error|mistake/);
    expect(locks(running.cache)).toEqual([]);
    await takenUp(running);
  });

  test('two Ctrl-C: it ends at once, and the next call goes on', async () => {
    const running = await download();
    const { code, signal, stdout, stderr } = await interrupted(running, 'SIGINT', 'SIGINT');
    expect(code === 130 || signal === 'SIGINT').toBe(true);
    expect(stdout).toBe('');
    expect(stderr).not.toMatch(/\n\s+at |Error|mistake/);
    await takenUp(running);
  });

  test('SIGTERM: ended by it, no stack trace, no lock, and the next call goes on', async () => {
    const running = await download();
    const { code, signal, stdout, stderr } = await interrupted(running, 'SIGTERM');
    expect(code === 143 || signal === 'SIGTERM').toBe(true);
    expect([stdout, stderr]).toEqual(['', '']);
    expect(locks(running.cache)).toEqual([]);
    await takenUp(running);
  });

  test('Ctrl-C while the Hub is silent, and while another process has the lock: ended within a second', async () => {
    const silent = await download();
    silent.hub.script = script({ fault: noAnswer('silence') });
    const asking = silent.start();
    await until(() => silent.hub.requests.length > 0);

    const busy = await download();
    const first = busy.start();
    await until(() => sent(busy.hub) > 0);
    const second = busy.start();
    await until(() => busy.hub.requests.filter(({ kind }) => kind === 'tree').length === 2);
    await pause(300);

    const begin = performance.now();
    asking.kill('SIGINT');
    second.kill('SIGINT');
    expect([(await asking.ended).code, (await second.ended).code]).toEqual([130, 130]);
    expect(performance.now() - begin).toBeLessThan(1000);
    expect((await first.ended).code).toBe(0);
    expect(pathsBelow(silent.cache)).toEqual([]);
  });
});
