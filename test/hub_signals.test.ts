import { existsSync, readdirSync, readlinkSync, statSync } from 'node:fs';
import { mkdir, mkdtemp, open, rm, symlink } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as pause } from 'node:timers/promises';
import { describe, expect, type TestContext, test } from 'vitest';
import { ended, start } from './support/command_line.ts';
import { noAnswer, script } from './support/hub_faults.ts';
import { cacheFaults, pathsBelow, repositoryFolder, snapshotOf } from './support/hub_cache.ts';
import { etagOf, hubRepository } from './support/hub_repository.ts';
import { repository } from './support/models.ts';
import { type Ended, type PullProcess, startPull } from './support/pull_process.ts';
import { type ScriptedHub, startScriptedHub } from './support/scripted_hub.ts';

const MAIN = repository('dist/cli/main.js');
const LONG = { timeout: 60_000 };

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

  async function download({ onTestFinished }: TestContext, bytes_per_second = 2e6): Promise<Download> {
    const hub = await startScriptedHub({ repositories: [model], bytes_per_second });
    const folder = await mkdtemp(join(tmpdir(), 'olmo-hybrid-'));
    onTestFinished(async () => {
      await hub.close();
      await rm(folder, { recursive: true });
    });
    const cache = join(folder, 'cache');
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

  test.concurrent('Ctrl-C: exit code 130, nothing on stdout, no stack trace, no lock, and the next call goes on', LONG, async (context) => {
    const running = await download(context);
    const { code, signal, stdout, stderr } = await interrupted(running, 'SIGINT');
    expect({ code, signal, stdout }).toEqual({ code: 130, signal: null, stdout: '' });
    expect(stderr).not.toMatch(/\n\s+at |Error|mistake/);
    expect(locks(running.cache)).toEqual([]);
    await takenUp(running);
  });

  test.concurrent('two Ctrl-C: it ends at once, and the next call goes on', LONG, async (context) => {
    const running = await download(context);
    const { code, signal, stdout, stderr } = await interrupted(running, 'SIGINT', 'SIGINT');
    expect(code === 130 || signal === 'SIGINT').toBe(true);
    expect(stdout).toBe('');
    expect(stderr).not.toMatch(/\n\s+at |Error|mistake/);
    await takenUp(running);
  });

  test.concurrent('SIGTERM: exit code 143, no stack trace, no lock, and the next call goes on', LONG, async (context) => {
    const running = await download(context);
    const { code, signal, stdout, stderr } = await interrupted(running, 'SIGTERM');
    expect({ code, signal, stdout }).toEqual({ code: 143, signal: null, stdout: '' });
    expect(stderr).not.toMatch(/\n\s+at |Error|mistake/);
    expect(locks(running.cache)).toEqual([]);
    await takenUp(running);
  });

  test.concurrent(
    'Ctrl-C while the Hub is silent, and while another process has the lock: ended within a second',
    LONG,
    async (context) => {
      const silent = await download(context);
      silent.hub.script = script({ fault: noAnswer('silence') });
      const asking = silent.start();
      await until(() => silent.hub.requests.length > 0);

      const busy = await download(context, 200_000);
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
      expect(first.running()).toBe(true);
      first.kill('SIGKILL');
      await first.ended;
      expect(pathsBelow(silent.cache)).toEqual([]);
    },
  );

  test.concurrent('Ctrl-C while the cache is checked: exit code 130 and no complaint', LONG, async ({ onTestFinished, skip }) => {
    skip(process.platform !== 'linux', 'looks into /proc');
    const home = await mkdtemp(join(tmpdir(), 'olmo-hybrid-'));
    onTestFinished(() => rm(home, { recursive: true }));
    const blobs = join(home, 'hub/models--org--name/blobs');
    await mkdir(blobs, { recursive: true });
    const blob = await open(join(blobs, 'a'.repeat(64)), 'w');
    await blob.truncate(2 ** 36); // holes, enough of them
    await blob.close();
    const snapshot = join(home, 'hub/models--org--name/snapshots', 'c'.repeat(40));
    await mkdir(snapshot, { recursive: true });
    await symlink(join(blobs, 'a'.repeat(64)), join(snapshot, 'model.safetensors'));
    const checking = start({ env: { HF_HOME: home } }, 'cache', 'verify', 'org/name');
    const end = ended(checking);
    const files = `/proc/${checking.pid}/fd`;
    // One may be closed between the look and the reading.
    const path = (fd: string) => {
      try {
        return readlinkSync(`${files}/${fd}`);
      } catch {
        return '';
      }
    };
    await until(() => readdirSync(files).some((fd) => path(fd).startsWith(blobs)));
    checking.kill('SIGINT');
    const { code, stdout, stderr } = await end;
    expect({ code, stdout }).toEqual({ code: 130, stdout: '' });
    expect(stderr).not.toMatch(/\n\s+at |Error|mistake/);
  });

  test.concurrent('SIGSTOP, until another process has taken over: it writes nothing more, and the file is right', LONG, async (context) => {
    const { hub, cache, start } = await download(context, 500_000);
    const bodies = () => hub.requests.filter(({ kind }) => kind === 'cdn');
    const first = start();
    await until(() => bodies().some(({ sent_bytes }) => sent_bytes > weights.length / 10));
    first.kill('SIGSTOP');
    const second = start();
    await until(() => bodies()[1] !== undefined && bodies()[1]!.sent_bytes > weights.length / 10);
    first.kill('SIGCONT');
    const taken_over = await second.ended;
    expect(cacheFaults(cache, [model])).toEqual([]);
    const ends = [await first.ended, taken_over];
    const waited = { code: 0, stderr: expect.stringContaining('another process') };
    expect(ends).toEqual([expect.objectContaining(waited), expect.objectContaining(waited)]);
    expect(bodies()).toHaveLength(2);
    expect(cacheFaults(cache, [model])).toEqual([]);
    expect(snapshotOf(cache, model)!['model.safetensors']!.equals(weights)).toBe(true);
  });
});
