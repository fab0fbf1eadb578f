import { HubError, type Problem } from '../errors.ts';

/** Attempts without a byte of progress before something is given up. */
const ATTEMPTS = 5;
/** A server that asks for more patience than this is not waited for. */
const LONGEST_PAUSE_MS = 120_000;

/** What may go better the next time. */
export class Transient extends Error {
  readonly problem: Problem;
  /** What the server asked for; null for the usual pause. */
  readonly retry_after_ms: number | null;

  constructor(problem: Problem, retry_after_ms: number | null = null, options?: ErrorOptions) {
    super(problem.found, options);
    this.problem = problem;
    this.retry_after_ms = retry_after_ms;
  }
}

export interface Patience {
  readonly retry_delay_ms: number;
  readonly signal: AbortSignal | undefined;
  /** Tells what is waited for, and how long. */
  readonly onRetry?: ((problem: Problem, pause_ms: number) => void) | undefined;
}

/**
 * Repeats what fails with a Transient: after the pause that the server asked for, else after pauses that double.
 * @param attempt calls `progress` when it has got further; failures are then counted anew
 * @throws {HubError} the last problem, when it has failed too often; what `attempt` throws; the signal's reason
 */
export async function retrying<T>(
  { retry_delay_ms, signal, onRetry }: Patience,
  attempt: (progress: () => void) => Promise<T>,
): Promise<T> {
  let failures = 0;
  while (true) {
    signal?.throwIfAborted();
    try {
      return await attempt(() => {
        failures = 0;
      });
    } catch (error) {
      signal?.throwIfAborted();
      if (!(error instanceof Transient)) throw error;
      failures += 1;
      // Spread, so that many who fail together do not come back together.
      const pause_ms = error.retry_after_ms ?? retry_delay_ms * 2 ** (failures - 1) * (0.75 + 0.5 * Math.random());
      if (failures === ATTEMPTS || pause_ms > LONGEST_PAUSE_MS) {
        throw new HubError(
          { ...error.problem, found: `${error.problem.found}${failures > 1 ? `, ${failures} times` : ''}` },
          { cause: error },
        );
      }
      onRetry?.(error.problem, pause_ms);
      await pause(pause_ms, signal);
    }
  }
}

/** @throws the signal's reason */
export async function pause(ms: number, signal: AbortSignal | undefined): Promise<void> {
  const { setTimeout } = await import('node:timers/promises');
  await setTimeout(ms, undefined, { signal }).catch(() => {});
  signal?.throwIfAborted();
}

/** Retry-After, in seconds or as a date; null when there is none. */
export function retryAfter(headers: Headers): number | null {
  const text = headers.get('retry-after');
  if (text === null) return null;
  const ms = /^\d+$/.test(text.trim()) ? Number(text) * 1000 : Date.parse(text) - Date.now();
  return Number.isNaN(ms) ? null : Math.max(0, ms);
}
