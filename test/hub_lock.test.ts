import { mkdirSync, utimesSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as pause } from 'node:timers/promises';
import { expect, onTestFinished, test } from 'vitest';
import { withLock } from '../src/hub/lock.ts';
import { cacheFaults, snapshotOf } from './support/hub_cache.ts';
import { hubRepository } from './support/hub_repository.ts';
import { repository, temporaryFolder } from './support/models.ts';
import { startPull } from './support/pull_process.ts';
import { startScriptedHub } from './support/scripted_hub.ts';

const patient = { signal: undefined, onWait: () => {} };

test('one at a time has the lock, and all come to it', async () => {
  const path = join(await temporaryFolder(), 'a', 'b.lock');
  let inside = 0;
  const turns = Array.from({ length: 5 }, (_, i) =>
    withLock(path, patient, async () => {
      inside += 1;
      await pause(20);
      expect(inside).toBe(1);
      inside -= 1;
      return i;
    }),
  );
  expect(await Promise.all(turns)).toEqual([0, 1, 2, 3, 4]);
});

test('what is thrown under the lock is thrown, and the lock is free', async () => {
  const path = join(await temporaryFolder(), 'a.lock');
  const failing = withLock(path, patient, async () => {
    throw new Error('of the work');
  });
  await expect(failing).rejects.toThrow('of the work');
  expect(await withLock(path, patient, async ({ signal }) => signal.aborted)).toBe(false);
});

test('a lock that nobody has touched for a while is taken over; one that is touched is waited for until the caller gives up', async () => {
  const path = join(await temporaryFolder(), 'a.lock');
  mkdirSync(path);
  utimesSync(path, new Date(), new Date(Date.now() - 6000));
  expect(await withLock(path, patient, async () => 'taken over')).toBe('taken over');
  mkdirSync(path);
  const waits: string[] = [];
  const waiting = withLock(path, { signal: AbortSignal.timeout(500), onWait: () => void waits.push('once') }, async () => 'never');
  await expect(waiting).rejects.toThrow(expect.objectContaining({ name: 'TimeoutError' }));
  expect(waits).toEqual(['once']);
});

test('a process that slept while another took over writes nothing more, and the file is right', async () => {
  const weights = new Uint8Array(2_000_003).map((_, i) => i * i);
  const model = hubRepository('org/name', { main: { 'config.json': '{}', 'model.safetensors': weights } });
  const hub = await startScriptedHub({ repositories: [model], bytes_per_second: 500_000 });
  onTestFinished(hub.close);
  const cache = join(await temporaryFolder(), 'cache');
  const start = () => startPull(repository('dist/cli/main.js'), 'org/name', { HF_ENDPOINT: hub.endpoint, HF_HUB_CACHE: cache });
  const bodies = () => hub.requests.filter(({ kind }) => kind === 'cdn');
  const until = async (condition: () => boolean) => {
    while (!condition()) await pause(5);
  };

  const first = start();
  await until(() => bodies().some(({ sent_bytes }) => sent_bytes > weights.length / 10));
  first.kill('SIGSTOP');
  const second = start();
  await until(() => bodies()[1] !== undefined && bodies()[1]!.sent_bytes > weights.length / 10);
  first.kill('SIGCONT');
  expect((await Promise.all([first.ended, second.ended])).map(({ code, stderr }) => [code, /another process/.test(stderr)])).toEqual([
    [0, true],
    [0, true],
  ]);
  expect(cacheFaults(cache, [model])).toEqual([]);
  expect(snapshotOf(cache, model)!['model.safetensors']!.equals(weights)).toBe(true);
});
