import { mkdirSync, utimesSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as pause } from 'node:timers/promises';
import { expect, test } from 'vitest';
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
