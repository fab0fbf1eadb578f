import { pause } from './retries.ts';

/** A lock that was not touched for so long is of a process that was killed. */
const STALE_MS = 5000;
/** How often it is touched, and looked at whether another process has touched it. */
const TOUCH_MS = STALE_MS / 5;
const LOOK_MS = 200;

interface LockOptions {
  readonly signal: AbortSignal | undefined;
  /** Called once, when another process has the lock. */
  readonly onWait: () => void;
}

/** A lock for as long as it is held. */
export interface Held {
  /** Aborted when the lock is lost, and when the caller's signal is. */
  readonly signal: AbortSignal;
  /**
   * To be called before each write: a process that slept may have lost the lock before it is told so.
   * @throws the signal's reason
   */
  check(): Promise<void>;
}

/**
 * Runs `work` while this process alone has the lock at `path`, and waits for it while another one has. When the lock is lost, for example because this
 * process was stopped, `work` ends, by the reason of its signal or another error, and is run anew under the lock.
 */
export async function withLock<T>(path: string, { signal, onWait }: LockOptions, work: (held: Held) => Promise<T>): Promise<T> {
  const { mkdir } = await import('node:fs/promises');
  const { dirname } = await import('node:path');
  const { lock } = (await import('proper-lockfile')).default;
  await mkdir(dirname(path), { recursive: true });
  for (let waiting = false; ; waiting = true) {
    const lost = new AbortController();
    const onCompromised = () => lost.abort(new Error(`the lock ${path} is lost`));
    try {
      const release = await lock(path, { realpath: false, lockfilePath: path, stale: STALE_MS, update: TOUCH_MS, onCompromised });
      const watch = new SleepWatch(signal ? AbortSignal.any([signal, lost.signal]) : lost.signal);
      try {
        return await work(watch);
      } catch (error) {
        // It may come of what another process does that has the lock by now.
        await watch.check();
        throw error;
      } finally {
        watch.end();
        // A lock that was lost is not ours to release.
        if (!lost.signal.aborted) await release();
      }
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code !== 'ELOCKED' && !lost.signal.aborted) throw error;
      if (!waiting) onWait();
      await pause(LOOK_MS, signal);
    }
  }
}

/** Runs `work` under the lock at `path`, unless another process has it. @returns whether it has run */
export async function ifFree(path: string, work: () => Promise<void>): Promise<boolean> {
  const { mkdir } = await import('node:fs/promises');
  const { dirname } = await import('node:path');
  const { lock } = (await import('proper-lockfile')).default;
  await mkdir(dirname(path), { recursive: true });
  const options = { realpath: false, lockfilePath: path, stale: STALE_MS, update: TOUCH_MS, onCompromised: () => {} };
  const release = await lock(path, options).catch((error: NodeJS.ErrnoException) => {
    if (error.code !== 'ELOCKED') throw error;
    return null;
  });
  if (release === null) return false;
  await work().finally(() => release().catch(() => {}));
  return true;
}

/** Knows when this process has slept so long that its lock was stale; then it lets pass the time in which the lock is looked at. */
class SleepWatch implements Held {
  readonly signal: AbortSignal;
  readonly #timer = setInterval(() => this.#look(), TOUCH_MS);
  #awake = Date.now();
  #doubt = 0;

  constructor(signal: AbortSignal) {
    this.signal = signal;
  }

  async check(): Promise<void> {
    this.#look();
    if (Date.now() < this.#doubt) await pause(this.#doubt - Date.now(), this.signal);
    this.signal.throwIfAborted();
  }

  end(): void {
    clearInterval(this.#timer);
  }

  #look(): void {
    const now = Date.now();
    if (now - this.#awake >= STALE_MS - TOUCH_MS) this.#doubt = now + 2 * TOUCH_MS;
    this.#awake = now;
  }
}
