import { existsSync, readdirSync, statSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as pause } from 'node:timers/promises';
import { describe, expect, onTestFinished, test } from 'vitest';
import { requireModelId } from '../src/hub/model_id.ts';
import { pull } from '../src/hub/pull.ts';
import { breakDownloads, MOMENTS, type Way } from './support/broken_downloads.ts';
import { noAnswer, script } from './support/hub_faults.ts';
import { cacheFaults, pathsBelow, repositoryFolder, snapshotOf } from './support/hub_cache.ts';
import { etagOf, hubRepository } from './support/hub_repository.ts';
import { repository, temporaryFolder } from './support/models.ts';
import { type Ended, type PullProcess, startPull } from './support/pull_process.ts';
import { type ScriptedHub, startScriptedHub } from './support/scripted_hub.ts';

const MAIN = repository('dist/cli/main.js');

describe('downloads that are broken off at random points are taken up', () => {
  const seeds = (first: number, count: number) => Array.from({ length: count }, (_, i) => first + i);

  test.concurrent('by SIGKILL, or with two processes at once', { timeout: 60_000 }, async ({ expect }) => {
    const ways: Way[] = ['killed', 'killed', 'raced'];
    const downloads = await breakDownloads({
      main: MAIN,
      seeds: seeds(1, 16),
      wayOf: (seed) => ways[seed % ways.length]!,
      bytesOf: () => 1_000_003,
      bytes_per_second: 2e6,
      parallel: 16,
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

  async function download(bytes_per_second = 2e6): Promise<Download> {
    const hub = await startScriptedHub({ repositories: [model], bytes_per_second });
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

  test.concurrent('a process that slept while another one took over: it notices, and the file is right', { timeout: 60_000 }, async ({
    expect,
  }) => {
    const { hub, cache, start } = await download(250_000);
    const first = start();
    await until(() => sent(hub) > weights.length / 10);
    first.kill('SIGSTOP');
    const begun = sent(hub);
    const second = start();
    await until(() => hub.requests.filter(({ kind, path }) => kind === 'cdn' && path === 'model.safetensors').length === 2);
    await until(() => sent(hub) > begun + weights.length / 10);
    first.kill('SIGCONT');
    const [slept, other] = await Promise.all([first.ended, second.ended]);
    expect(other).toMatchObject({ code: 0 });
    expect(slept.code === 0 || /lock/.test(slept.stderr)).toBe(true);
    expect(cacheFaults(cache, [model])).toEqual([]);
    expect(snapshotOf(cache, model)!['model.safetensors']!.equals(weights)).toBe(true);
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
