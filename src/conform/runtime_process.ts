import { type ChildProcessByStdio, spawn } from 'node:child_process';
import { writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import type { Readable, Writable } from 'node:stream';
import { visible } from '../checkpoint/problem_list.ts';
import { ArgumentError } from '../errors.ts';
import { isObject } from '../text_file.ts';
import { type CommandLine, filledIn } from './command.ts';
import type { Answer, LevelName, Request, Runtime } from './protocol.ts';

/** Of what a program says besides its answers, the last lines are shown when it fails. */
const LINES_KEPT = 8;
/** How long a program may take to end when there are no more requests. */
const PARTING_SECONDS = 5;

type Child = ChildProcessByStdio<Writable, Readable, Readable>;

/** Ends a wait: a line of stdout, the end of the program, or the end of patience. */
type Event = { readonly is: 'line'; readonly text: string } | { readonly is: 'end'; readonly how: string } | { readonly is: 'timeout' };

/**
 * A runtime in a process of its own (Node only), as docs/conformance.md describes it.
 * @param folder for the files that are handed over
 */
export function startRuntime(command: CommandLine, folder: string, timeout_seconds: number): Runtime {
  return command.placeholders.size === 0 ? new Session(command, timeout_seconds) : new RunPerCase(command, folder, timeout_seconds);
}

/** One process that answers line by line; started again when it has ended. */
class Session implements Runtime {
  private readonly command: CommandLine;
  private readonly timeout_seconds: number;
  private program: Program | null = null;

  constructor(command: CommandLine, timeout_seconds: number) {
    this.command = command;
    this.timeout_seconds = timeout_seconds;
  }

  async ask(request: Request): Promise<Answer> {
    this.program ??= await Program.start([...this.command.words]);
    const { program } = this;
    program.write(`${JSON.stringify(request)}\n`);
    const deadline = performance.now() + 1000 * this.timeout_seconds;
    for (;;) {
      const event = await program.next(deadline);
      if (event.is === 'line') {
        const fields = objectOf(event.text);
        if (fields) return answerOf(fields);
        program.keep(event.text); // chatter
        continue;
      }
      this.program = null;
      program.kill();
      return failure(event, `${ending(event, this.timeout_seconds)} before it answered${program.lastWords()}`);
    }
  }

  async close(): Promise<void> {
    const { program } = this;
    this.program = null;
    program?.write(null);
    await program?.end(PARTING_SECONDS);
  }
}

/** One process for each case. What it is not told about is not supported. */
class RunPerCase implements Runtime {
  private readonly command: CommandLine;
  private readonly folder: string;
  private readonly timeout_seconds: number;

  constructor(command: CommandLine, folder: string, timeout_seconds: number) {
    this.command = command;
    this.folder = folder;
    this.timeout_seconds = timeout_seconds;
  }

  async ask({ level, model, tokens, calls, output }: Request): Promise<Answer> {
    const needsCalls = level === 'decode' || level === 'prefill_decode';
    const levels: readonly LevelName[] = ['layer', 'prefill', 'decode', 'prefill_decode'];
    if (!levels.includes(level)) return { status: 'not supported', why: 'the command takes no requests on stdin' };
    if (needsCalls && !this.command.placeholders.has('calls')) return { status: 'not supported', why: 'the command has no {calls}' };
    const file = join(this.folder, 'tokens.json');
    await writeFile(file, JSON.stringify(tokens));
    const values = { model: model!, tokens: file, output: output!, calls: (calls ?? [tokens!.length]).join(',') };
    const program = await Program.start(filledIn(this.command, values));
    program.write(null);
    const deadline = performance.now() + 1000 * this.timeout_seconds;
    for (;;) {
      const event = await program.next(deadline);
      if (event.is === 'line') {
        program.keep(event.text);
        continue;
      }
      program.kill();
      if (event.is === 'end' && event.how === 'exit status 0') return { status: 'answered', fields: {} };
      return failure(event, `${ending(event, this.timeout_seconds)}${program.lastWords()}`);
    }
  }

  async close(): Promise<void> {}
}

class Program {
  private readonly child: Child;
  private readonly events: Event[] = [];
  private readonly kept: string[] = [];
  private wake: (() => void) | null = null;

  /** @throws {ArgumentError} when there is no such program */
  static async start(words: readonly string[]): Promise<Program> {
    const child = spawn(words[0]!, words.slice(1), { stdio: 'pipe' });
    await new Promise<void>((resolve, reject) => {
      child.once('spawn', resolve);
      child.once('error', (cause: NodeJS.ErrnoException) => {
        const reasons: Record<string, string> = { ENOENT: 'no such program', EACCES: 'no permission to run it' };
        const found = `${words[0]}: ${reasons[cause.code ?? ''] ?? cause.message}`;
        const fix = 'The words of the command are split at spaces, without a shell: quote what holds spaces.';
        reject(new ArgumentError({ where: '--runtime', expected: 'a program that can be run', found, fix }, { cause }));
      });
    });
    return new Program(child);
  }

  private constructor(child: Child) {
    this.child = child;
    child.on('error', () => {}); // a kill that comes too late
    child.stdin.on('error', () => {}); // who does not read it may be gone already
    createInterface({ input: child.stdout }).on('line', (text) => this.push({ is: 'line', text }));
    createInterface({ input: child.stderr }).on('line', (text) => this.keep(text));
    child.once('close', (code, signal) => this.push({ is: 'end', how: code === null ? `signal ${signal}` : `exit status ${code}` }));
  }

  /** null: there is nothing more to come. */
  write(text: string | null): void {
    if (text === null) this.child.stdin.end();
    else this.child.stdin.write(text);
  }

  /** The next event, at the latest when performance.now() is the deadline. */
  async next(deadline: number): Promise<Event> {
    if (this.events.length === 0) {
      await new Promise<void>((resolve) => {
        const timer = setTimeout(resolve, Math.max(0, deadline - performance.now()));
        this.wake = () => {
          clearTimeout(timer);
          resolve();
        };
      });
      this.wake = null;
    }
    return this.events.shift() ?? { is: 'timeout' };
  }

  keep(line: string): void {
    this.kept.push(line);
    if (this.kept.length > LINES_KEPT) this.kept.shift();
  }

  lastWords(): string {
    return this.kept.length === 0 ? '' : `. It said:\n${this.kept.map(visible).join('\n')}`;
  }

  /** Waits for the program to end by itself; after some seconds, ends it. */
  async end(seconds: number): Promise<void> {
    const deadline = performance.now() + 1000 * seconds;
    for (let event: Event | null = null; event?.is !== 'end' && event?.is !== 'timeout'; ) event = await this.next(deadline);
    this.kill();
  }

  kill(): void {
    this.child.kill('SIGKILL');
  }

  private push(event: Event): void {
    this.events.push(event);
    this.wake?.();
  }
}

function failure(event: Exclude<Event, { is: 'line' }>, why: string): Answer {
  return { status: event.is === 'timeout' ? 'timed out' : 'failed', why };
}

function ending(event: Exclude<Event, { is: 'line' }>, timeout_seconds: number): string {
  return event.is === 'end' ? `the program ended with ${event.how}` : `${timeout_seconds} seconds passed`;
}

/** null: the line is no answer. */
function objectOf(line: string): Record<string, unknown> | null {
  if (!line.trimStart().startsWith('{')) return null;
  try {
    const json: unknown = JSON.parse(line);
    return isObject(json) ? json : null;
  } catch {
    return null;
  }
}

function answerOf(fields: Record<string, unknown>): Answer {
  if ('error' in fields) return { status: 'failed', why: `the runtime says: ${String(fields.error)}` };
  if ('not_supported' in fields) return { status: 'not supported', why: String(fields.not_supported) };
  return { status: 'answered', fields };
}
