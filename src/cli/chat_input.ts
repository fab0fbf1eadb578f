import { createInterface, type Interface } from 'node:readline';
import { ArgumentError } from '../errors.ts';
import { PastedText, PASTE_OFF, PASTE_ON } from './pasted_text.ts';
import { interruption, note } from './terminal.ts';

/** What a person or a program says. */
export interface ChatInput {
  /** Whether it is a person at a terminal. */
  readonly forPerson: boolean;
  /** The next message or command, empty if it was given up on the way; null when there are no more. */
  read(): Promise<string | null>;
  /** Runs what Ctrl-C ends. */
  whileAnswering<T>(answer: (signal: AbortSignal) => Promise<T>): Promise<T>;
  /** Whether Ctrl-C or another signal ended the program. */
  readonly interrupted: boolean;
  close(): void;
}

const QUOTES = '"""';

/** Signals that count as leaving. */
const LEAVING = ['SIGTERM', 'SIGHUP'] as const;

/** A line; `gaveUp` where the person left a message unfinished; null at the end. */
type Line = string | typeof gaveUp | null;
const gaveUp = Symbol();

/**
 * Puts a message together from lines: one that ends in `\` goes on in the next, and so does what stands between `"""`.
 * @param next the next line, of the same message or of a new one
 */
export async function readMessage(next: (sameMessage: boolean) => Promise<Line>): Promise<string | null> {
  const first = await next(false);
  if (first === null) return null;
  if (first === gaveUp) return '';
  const quoted = first.startsWith(QUOTES);
  const goesOn = (text: string) => (quoted ? text.length < 2 * QUOTES.length || !text.endsWith(QUOTES) : text.endsWith('\\'));
  let text = first;
  while (goesOn(text)) {
    const line = await next(true);
    if (line === gaveUp) return '';
    if (line === null) break;
    text = `${quoted ? text : text.slice(0, -1)}\n${line}`;
  }
  if (!quoted) return text.endsWith('\\') ? text.slice(0, -1) : text;
  return text
    .slice(QUOTES.length, text.endsWith(QUOTES) && text.length >= 2 * QUOTES.length ? -QUOTES.length : undefined)
    .replace(/^\n|\n$/g, '');
}

/** Lines of stdin that a program writes. */
export class PipedInput implements ChatInput {
  readonly forPerson = false;
  readonly #interruption = interruption();
  readonly #unread = new AbortController();
  readonly #signal = AbortSignal.any([this.#interruption, this.#unread.signal]);
  readonly #lines = linesOf(process.stdin);
  readonly #end = new Promise<null>((resolve) => this.#signal.addEventListener('abort', () => resolve(null)));

  constructor() {
    process.stdout.on('error', () => this.#unread.abort());
  }

  read(): Promise<string | null> {
    return readMessage(async () => {
      if (this.#signal.aborted) return null;
      const line = this.#lines.next();
      line.catch(() => {}); // of one that comes too late
      const read = await Promise.race([line, this.#end]);
      return read === null || read.done ? null : read.value;
    });
  }

  whileAnswering<T>(answer: (signal: AbortSignal) => Promise<T>): Promise<T> {
    return answer(this.#signal);
  }

  get interrupted(): boolean {
    return this.#interruption.aborted;
  }

  close(): void {
    process.stdin.destroy();
  }
}

async function* linesOf(stream: NodeJS.ReadStream): AsyncGenerator<string, void, void> {
  const decoder = new TextDecoder('utf-8', { fatal: true, ignoreBOM: true });
  const decode = (bytes?: Buffer) => {
    try {
      return decoder.decode(bytes, { stream: bytes !== undefined });
    } catch (cause) {
      throw new ArgumentError({ where: 'stdin', expected: 'UTF-8 text', found: 'other bytes', fix: 'Convert it to UTF-8.' }, { cause });
    }
  };
  let rest = '';
  for await (const chunk of stream) {
    const lines = (rest + decode(chunk as Buffer)).split(/\r?\n/);
    rest = lines.pop()!;
    yield* lines;
  }
  rest += decode();
  if (rest !== '') yield rest;
}

/**
 * Lines that a person types, with a history in memory. Ctrl-C ends an answer, gives up a line that was begun, and on an empty one leaves when it is
 * pressed again; so does Ctrl-D at once. Who asks for another line after that opens the input anew.
 */
export class TypedInput implements ChatInput {
  readonly forPerson = true;
  interrupted = false;
  readonly #input = new PastedText(process.stdin);
  #readline = this.#open();
  /** Lines that came while nobody asked. */
  readonly #waiting: Line[] = [];
  #take: ((line: Line) => void) | null = null;
  #sameMessage = false;
  #leaving = false;
  #closed = false;
  /** Whether nothing more can come. */
  #left = false;

  constructor() {
    process.stdout.write(PASTE_ON);
    process.once('exit', () => process.stdout.write(PASTE_OFF));
    for (const stream of [process.stdin, process.stdout]) stream.on('error', this.#leave);
    for (const name of LEAVING) process.on(name, this.#told);
    process.on('SIGINT', this.#signalled);
  }

  read(): Promise<string | null> {
    return readMessage((sameMessage) => {
      this.#sameMessage = sameMessage;
      if (this.#waiting.length > 0 && !this.#left) return Promise.resolve(this.#waiting.shift()!);
      if (this.#left || this.#input.readableEnded) return Promise.resolve(null);
      if (this.#closed) this.#readline = this.#open();
      this.#closed = false;
      this.#readline.setPrompt(sameMessage ? '… ' : '> ');
      const line = new Promise<Line>((resolve) => {
        this.#take = resolve;
      });
      this.#readline.prompt();
      return line;
    });
  }

  async whileAnswering<T>(answer: (signal: AbortSignal) => Promise<T>): Promise<T> {
    const controller = new AbortController();
    this.#readline.pause();
    this.#input.onInterrupt = () => controller.abort();
    if (this.#left) controller.abort();
    try {
      return await answer(controller.signal);
    } finally {
      this.#input.onInterrupt = null;
    }
  }

  close(): void {
    process.off('SIGINT', this.#signalled);
    for (const name of LEAVING) process.off(name, this.#told);
    this.#readline.close();
    this.#input.close();
  }

  #open(): Interface {
    const options = { terminal: true, historySize: 500, removeHistoryDuplicates: true };
    const readline = createInterface({ input: this.#input, output: process.stdout, ...options });
    readline.on('line', (line) => this.#give(this.#input.restored(line)));
    readline.on('SIGINT', () => this.#interrupt());
    readline.on('close', () => {
      this.#closed = true;
      this.#give(null);
    });
    return readline;
  }

  #give(line: Line): void {
    if (line !== null) this.#leaving = false;
    const take = this.#take;
    this.#take = null;
    if (take) take(line);
    else this.#waiting.push(line);
  }

  #interrupt(): void {
    if (this.#readline.line !== '' || this.#sameMessage) {
      this.#readline.write(null, { ctrl: true, name: 'e' });
      this.#readline.write(null, { ctrl: true, name: 'u' });
      process.stdout.write('\n');
      this.#give(gaveUp);
    } else if (this.#leaving) {
      process.stdout.write('\n');
      this.#give(null);
    } else {
      this.#leaving = true;
      process.stdout.write('\n');
      note('Ctrl-C again, Ctrl-D or /exit to leave');
      this.#readline.prompt();
    }
  }

  /** The terminal is gone. */
  readonly #leave = (): void => {
    this.#left = true;
    this.#input.onInterrupt?.();
    this.#give(null);
  };

  readonly #told = (): void => {
    this.interrupted = true;
    this.#leave();
  };

  /** By another process: at a terminal in raw mode Ctrl-C is a key. */
  readonly #signalled = (): void => {
    if (this.#input.onInterrupt) this.#input.onInterrupt();
    else this.#give(null);
  };
}
