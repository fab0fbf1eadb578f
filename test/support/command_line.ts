import { type ChildProcess, spawn } from 'node:child_process';
import { existsSync } from 'node:fs';
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll } from 'vitest';
import { repository } from './models.ts';

const MAIN = repository('dist/cli/main.js');
/** The same wherever the tests run: on a continuous-integration machine, whose logs are pipes. */
const { FORCE_COLOR: _, NO_COLOR: __, ...INHERITED } = process.env;
const ENV = { ...INHERITED, CI: 'true' };

/** What a process left behind. */
export interface Run {
  readonly code: number | null;
  readonly stdout: string;
  readonly stderr: string;
}

/** What a process is started with. */
export interface Surroundings {
  /** A file descriptor for its output. Default: to this process. */
  readonly stdout: number;
  /** Variables besides those of this process. */
  readonly env: Readonly<Record<string, string>>;
}

/** Starts `olmo-hybrid` as built, in the root of this package. */
export function start({ stdout, env }: Partial<Surroundings>, ...args: string[]): ChildProcess {
  if (!existsSync(MAIN)) throw new Error('there is no dist/cli/main.js: run `npm run build` before this test');
  const stdio = ['pipe', stdout ?? 'pipe', 'pipe'] as const;
  return spawn(process.execPath, [MAIN, ...args], { cwd: repository('.'), env: { ...ENV, ...env }, stdio: [...stdio] });
}

/** Waits for a process to end. */
export async function ended(child: ChildProcess): Promise<Run> {
  const output = { stdout: '', stderr: '' };
  for (const name of ['stdout', 'stderr'] as const) {
    child[name]?.setEncoding('utf8').on('data', (text: string) => {
      output[name] += text;
    });
  }
  const code = await new Promise<number | null>((resolve) => child.once('close', resolve));
  return { code, ...output };
}

/** Runs `olmo-hybrid` with nothing on its stdin. */
export async function run(...args: string[]): Promise<Run> {
  return await runWith('', ...args);
}

/** The same in an environment. */
export async function runIn(env: Surroundings['env'], ...args: string[]): Promise<Run> {
  const child = start({ env }, ...args);
  child.stdin!.end();
  return await ended(child);
}

/** Runs `olmo-hybrid` with a text on its stdin. */
export async function runWith(stdin: string, ...args: string[]): Promise<Run> {
  const child = start({}, ...args);
  child.stdin!.on('error', () => {}); // who does not read it may be gone already
  child.stdin!.end(stdin);
  return await ended(child);
}

/** A folder that lasts as long as the tests of a file. */
export async function sharedFolder(): Promise<string> {
  const folder = await mkdtemp(join(tmpdir(), 'olmo-hybrid-'));
  afterAll(() => rm(folder, { recursive: true, force: true }));
  return folder;
}

/** Writes a file of JSON, or of text, and returns its path. */
export async function fileOf(folder: string, name: string, content: unknown): Promise<string> {
  const path = join(folder, name);
  await writeFile(path, typeof content === 'string' ? content : JSON.stringify(content));
  return path;
}
