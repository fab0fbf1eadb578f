import { mkdirSync, rmSync, utimesSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as pause } from 'node:timers/promises';
import { expect, onTestFinished, test, vi } from 'vitest';
import { digestOfFile } from '../src/hub/digests.ts';
import { withLock } from '../src/hub/lock.ts';
import { temporaryFolder } from './support/models.ts';

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

test('after a sleep in which the lock was lost, an error of the work is no error: it is run anew', async () => {
  const path = join(await temporaryFolder(), 'a.lock');
  const clock = Date.now.bind(Date);
  onTestFinished(() => void vi.restoreAllMocks());
  let runs = 0;
  const result = await withLock(path, patient, async () => {
    runs += 1;
    if (runs > 1) return 'anew';
    rmSync(path, { recursive: true }); // another process has taken it over and is done
    vi.spyOn(Date, 'now').mockImplementation(() => clock() + 6000);
    throw new Error('what the other process has moved is not there');
  });
  expect({ result, runs }).toEqual({ result: 'anew', runs: 2 });
});

test('whatever ends the work when the lock is lost, it is run anew', async () => {
  const path = join(await temporaryFolder(), 'a.lock');
  let runs = 0;
  const result = await withLock(path, patient, async ({ signal }) => {
    runs += 1;
    if (runs > 1) return 'anew';
    rmSync(path, { recursive: true });
    while (!signal.aborted) await pause(20);
    throw new Error('of a stream');
  });
  expect({ result, runs }).toEqual({ result: 'anew', runs: 2 });
});

test('a digest ends by the reason of the signal', async () => {
  const path = join(await temporaryFolder(), 'large');
  writeFileSync(path, new Uint8Array(3 << 22));
  const controller = new AbortController();
  const reading = digestOfFile(path, 64, controller.signal, () => controller.abort());
  await expect(reading).rejects.toSatisfy((error) => error === controller.signal.reason);
  await expect(digestOfFile(path, 64, controller.signal)).rejects.toBeInstanceOf(DOMException);
  await expect(digestOfFile(`${path}.not`, 64, new AbortController().signal)).rejects.toThrow('ENOENT');
});
