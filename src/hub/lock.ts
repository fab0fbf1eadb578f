import { HubError } from '../errors.ts';
import { pause } from './retries.ts';

/** A lock that was not touched for so long is of a process that was killed. */
const STALE_MS = 5000;
const LOOK_MS = 200;

export interface LockOptions {
  readonly signal: AbortSignal | undefined;
  /** Called once, when another process has the lock. */
  readonly onWait: () => void;
}

/**
 * Runs `work` while this process alone has the lock at `path`, and waits for it while another one has.
 * @param work is given a signal that is aborted when the lock is lost, for example because the machine slept; or when `signal` is
 */
export async function withLock<T>(path: string, { signal, onWait }: LockOptions, work: (signal: AbortSignal) => Promise<T>): Promise<T> {
  const { mkdir } = await import('node:fs/promises');
  const { dirname } = await import('node:path');
  const { lock } = (await import('proper-lockfile')).default;
  await mkdir(dirname(path), { recursive: true });
  const lost = new AbortController();
  const options = {
    realpath: false,
    lockfilePath: path,
    stale: STALE_MS,
    update: STALE_MS / 5,
    onCompromised: () => {
      const fix = 'Another process has taken over; run this again.';
      lost.abort(new HubError({ where: path, expected: 'this lock to be held', found: 'it lost', fix }));
    },
  };
  for (let waiting = false; ; waiting = true) {
    try {
      const release = await lock(path, options);
      try {
        return await work(signal ? AbortSignal.any([signal, lost.signal]) : lost.signal);
      } finally {
        // A lock that was lost is not ours to release.
        if (!lost.signal.aborted) await release();
      }
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code !== 'ELOCKED') throw error;
      if (!waiting) onWait();
      await pause(LOOK_MS, signal);
    }
  }
}
