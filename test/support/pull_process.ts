import { spawn } from 'node:child_process';
import { dirname, join } from 'node:path';

/** What a process has left. */
export interface Ended {
  /** Null when a signal ended it. */
  readonly code: number | null;
  readonly signal: NodeJS.Signals | null;
  readonly stdout: string;
  readonly stderr: string;
}

/** `olmo-hybrid pull` in a process of its own. */
export interface PullProcess {
  readonly ended: Promise<Ended>;
  running(): boolean;
  kill(signal: NodeJS.Signals): void;
}

/** Nothing of the user's own settings: all that pull reads of the Hub is given. */
const KEPT = ['PATH', 'SystemRoot', 'TMPDIR'];

/**
 * @param main dist/cli/main.js
 * @param env with HF_ENDPOINT and HF_HUB_CACHE
 */
export function startPull(main: string, model: string, env: Readonly<Record<string, string>>): PullProcess {
  const inherited = Object.fromEntries(KEPT.map((name) => [name, process.env[name]]));
  // Patient: the machine may be busy.
  const defaults = { CI: 'true', HF_HOME: join(dirname(env.HF_HUB_CACHE!), 'home'), HF_HUB_DOWNLOAD_TIMEOUT: '60' };
  const child = spawn(process.execPath, [main, 'pull', model], {
    env: { ...inherited, ...defaults, ...env },
    stdio: ['ignore', 'pipe', 'pipe'],
  });
  const output = { stdout: '', stderr: '' };
  for (const name of ['stdout', 'stderr'] as const) {
    child[name].setEncoding('utf8').on('data', (text: string) => {
      output[name] += text;
    });
  }
  const ended = new Promise<Ended>((resolve) => {
    child.once('close', (code, signal) => resolve({ code, signal, ...output }));
  });
  return { ended, running: () => child.exitCode === null && child.signalCode === null, kill: (signal) => void child.kill(signal) };
}
