import { spawn } from 'node:child_process';
import { writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { visible } from '../checkpoint/problem_list.ts';
import { ArgumentError, reasonOf } from '../errors.ts';
import { type Child, endGroup, endGroupAtExit, ownGroup } from '../process_group.ts';
import { isObject } from '../text_file.ts';
import { type CommandLine, filledIn } from './command.ts';
import { ANSWER_FIELDS, type Answer, type LevelName, type Request, type Runtime } from './protocol.ts';

/** Of what a program says besides its answers, the last lines are shown when it fails. */
const LINES_KEPT = 8;
/** How long a program may take to end when there are no more requests. */
const PARTING_SECONDS = 5;

/** How a program ended, or was ended. */
interface Ending {
  /** The exit status, or the signal. */
  readonly how: string;
  readonly said: string;
  readonly timed_out: boolean;
  readonly last_words: string;
}

const GOOD_ORDER = 'exit status 0';

/**
 * A runtime in a process of its own (Node only), as docs/conformance.md describes it.
 * @param folder for the files that are handed over
 * @param signal ends the program at once, and what it has started
 */
export function startRuntime(command: CommandLine, folder: string, timeout_seconds: number, signal?: AbortSignal): Runtime {
  const limits = { timeout_seconds, signal };
  return command.placeholders.size === 0 ? new Session(command, limits) : new RunPerCase(command, folder, limits);
}

interface Limits {
  readonly timeout_seconds: number;
  readonly signal: AbortSignal | undefined;
}

/** One process that answers line by line; started again when it has ended. */
class Session implements Runtime {
  private readonly command: CommandLine;
  private readonly limits: Limits;
  private program: Program | null = null;

  constructor(command: CommandLine, limits: Limits) {
    this.command = command;
    this.limits = limits;
  }

  async ask(request: Request): Promise<Answer> {
    const isFresh = this.program === null;
    this.program ??= await Program.start(this.command.words, this.limits);
    const program = this.program;
    program.write(`${JSON.stringify(request)}\n`);
    const answer = await program.next(this.limits.timeout_seconds, (line) => answerIn(line, request.level));
    if ('line' in answer) return answerOf(answer.line);
    this.program = null;
    if (answer.how === GOOD_ORDER && !isFresh) return await this.ask(request); // it had ended before it was asked
    return failure(answer, ' before it answered');
  }

  async close(): Promise<void> {
    const program = this.program;
    this.program = null;
    program?.write(null);
    await program?.next(PARTING_SECONDS, () => null);
  }
}

/** One process for each case. What it is not told about is not supported. */
class RunPerCase implements Runtime {
  private readonly command: CommandLine;
  private readonly folder: string;
  private readonly limits: Limits;

  constructor(command: CommandLine, folder: string, limits: Limits) {
    this.command = command;
    this.folder = folder;
    this.limits = limits;
  }

  async ask({ level, model, tokens, calls, output }: Request): Promise<Answer> {
    const needsCalls = level === 'decode' || level === 'prefill_decode';
    const levels: readonly LevelName[] = ['layer', 'prefill', 'decode', 'prefill_decode'];
    if (!levels.includes(level)) return { status: 'not supported', why: 'the command takes no requests on stdin' };
    if (needsCalls && !this.command.placeholders.has('calls')) return { status: 'not supported', why: 'the command has no {calls}' };
    const file = join(this.folder, 'tokens.json');
    await writeFile(file, JSON.stringify(tokens));
    const values = { model: model!, tokens: file, output: output!, calls: (calls ?? [tokens!.length]).join(',') };
    const program = await Program.start(filledIn(this.command, values), this.limits);
    program.write(null);
    const end = (await program.next(this.limits.timeout_seconds, () => null)) as Ending;
    return end.how === GOOD_ORDER ? { status: 'answered', fields: {} } : failure(end, '');
  }

  async close(): Promise<void> {}
}

class Program {
  private readonly child: Child;
  private readonly lines: string[] = [];
  private readonly kept: string[] = [];
  private how: string | null = null;
  private wake: () => void = () => {};

  /** @throws {ArgumentError} when there is no such program */
  static async start(words: readonly string[], { signal }: Limits): Promise<Program> {
    const child = spawn(words[0]!, words.slice(1), { stdio: 'pipe', ...ownGroup() });
    await new Promise<void>((resolve, reject) => {
      child.once('spawn', resolve);
      child.once('error', (cause) => {
        const found = `${words[0]}: ${reasonOf(cause, 'no permission to run it', { ENOENT: 'no such program' })}`;
        const fix = 'The words of the command are split at spaces, without a shell: quote what holds spaces.';
        reject(new ArgumentError({ where: '--runtime', expected: 'a program that can be run', found, fix }, { cause }));
      });
    });
    endGroupAtExit(child);
    const end = () => endGroup(child);
    if (signal?.aborted) end();
    signal?.addEventListener('abort', end);
    child.once('close', () => signal?.removeEventListener('abort', end));
    return new Program(child);
  }

  private constructor(child: Child) {
    this.child = child;
    child.on('error', () => {}); // a kill that comes too late
    child.stdin.on('error', () => {}); // who does not read it may be gone already
    createInterface({ input: child.stderr }).on('line', (line) => this.keep(line));
    createInterface({ input: child.stdout }).on('line', (line) => {
      this.lines.push(line);
      this.wake();
    });
    child.once('close', (code, signal) => {
      this.how = code === null ? `signal ${signal}` : `exit status ${code}`;
      this.wake();
    });
  }

  /** null: there is nothing more to come. */
  write(text: string | null): void {
    if (text === null) this.child.stdin.end();
    else this.child.stdin.write(text);
  }

  /**
   * Waits for a line of stdout that is accepted; what is not is chatter. After so many seconds the program is ended.
   * @param accept null: the line is not
   */
  async next<T>(seconds: number, accept: (line: string) => T | null): Promise<{ readonly line: T } | Ending> {
    const deadline = performance.now() + 1000 * seconds;
    for (;;) {
      for (let line = this.lines.shift(); line !== undefined; line = this.lines.shift()) {
        const accepted = accept(line);
        if (accepted !== null) return { line: accepted };
        this.keep(line);
      }
      if (this.how !== null) return this.ending(`the program ended with ${this.how}`, false);
      if (performance.now() >= deadline) {
        endGroup(this.child);
        return this.ending(`${seconds} seconds passed`, true);
      }
      await new Promise<void>((resolve) => {
        const timer = setTimeout(resolve, Math.max(0, deadline - performance.now()));
        this.wake = () => {
          clearTimeout(timer);
          resolve();
        };
      });
    }
  }

  private keep(line: string): void {
    this.kept.push(line);
    if (this.kept.length > LINES_KEPT) this.kept.shift();
  }

  private ending(said: string, timed_out: boolean): Ending {
    const last_words = this.kept.length === 0 ? '' : `. It said:\n${this.kept.map(visible).join('\n')}`;
    return { how: this.how ?? '', said, timed_out, last_words };
  }
}

function failure({ said, timed_out, last_words }: Ending, when: string): Answer {
  return { status: timed_out ? 'timed out' : 'failed', why: `${said}${when}${last_words}` };
}

/** null: the line is no answer, such as one of a log in JSON. An empty object is one, however little it says. */
function answerIn(line: string, level: LevelName): Record<string, unknown> | null {
  if (!line.trimStart().startsWith('{')) return null;
  try {
    const json: unknown = JSON.parse(line);
    if (!isObject(json)) return null;
    const isAnswer = (key: string) => key === 'error' || key === 'not_supported' || ANSWER_FIELDS[level]?.includes(key);
    const keys = Object.keys(json);
    return keys.length === 0 || keys.some(isAnswer) ? json : null;
  } catch {
    return null;
  }
}

function answerOf(fields: Record<string, unknown>): Answer {
  if ('error' in fields) return { status: 'failed', why: `the runtime says: ${String(fields.error)}` };
  if ('not_supported' in fields) return { status: 'not supported', why: String(fields.not_supported) };
  return { status: 'answered', fields };
}
