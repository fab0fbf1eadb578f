import type { WriteStream } from 'node:tty';
import picocolors from 'picocolors';
import { visible } from '../checkpoint/problem_list.ts';

/** Colours for one stream: none where it is no terminal, or NO_COLOR is set. */
function coloursOf(stream: WriteStream): ReturnType<typeof picocolors.createColors> {
  // A pipe's isTTY is undefined, for which picocolors would guess by the environment: colours wherever CI is set.
  return picocolors.createColors(stream.isTTY === true && stream.hasColors());
}

export const onStdout = coloursOf(process.stdout);
const onStderr = coloursOf(process.stderr);

/** The columns of a terminal; one whose size nobody has set says 0. */
export function columnsOf(stream: WriteStream): number {
  return stream.columns || 80;
}

/** A quiet line beside the data, on stderr. */
export function note(text: string): void {
  process.stderr.write(onStderr.dim(wrapped(text)));
}

/** Something that the user should know, on stderr. */
export function warn(text: string): void {
  write(onStderr.yellow, 'warning', text);
}

/** Why the program ends, on stderr. */
export function fail(text: string): void {
  write((label) => onStderr.bold(onStderr.red(label)), 'error', text);
}

function write(colour: (text: string) => string, label: string, text: string): void {
  process.stderr.write(colour(label) + wrapped(`${label} ${text}`).slice(label.length));
}

/** A line for stderr, or several where the terminal is narrow. */
function wrapped(text: string): string {
  let lines = '';
  const wrap = new WordWrap(
    (piece) => {
      lines += piece;
    },
    () => (process.stderr.isTTY ? columnsOf(process.stderr) : Infinity),
  );
  wrap.push(text);
  wrap.end();
  return lines;
}

/** Where running text goes that arrives in pieces. */
export interface TextOutput {
  /** Whether it is a terminal. */
  readonly forPerson: boolean;
  push(text: string): void;
  /** Ends the last line. */
  end(): void;
}

/** For a person, text broken between words; for a program, the text. */
export function textOutput(stream: WriteStream): TextOutput {
  const write = (text: string) => void stream.write(text);
  if (stream.isTTY) return new WordWrap(write, () => columnsOf(stream));
  return { forPerson: false, push: write, end: () => write('\n') };
}

/**
 * Breaks text that arrives in pieces into lines, between words. A word is written when it is complete. Control characters other than line
 * breaks and tabs are spelled out: a terminal would obey them, and the text is a model's.
 */
export class WordWrap implements TextOutput {
  readonly forPerson = true;
  readonly #write: (text: string) => void;
  readonly #columns: () => number;
  #column = 0;
  #space = '';
  #word = '';

  /** @param columns the width of the terminal, asked anew for each word */
  constructor(write: (text: string) => void, columns: () => number) {
    this.#write = write;
    this.#columns = columns;
  }

  push(text: string): void {
    for (const character of text.replace(/[^\P{Cc}\n\t]/gu, visible)) {
      if (!/\s/u.test(character)) {
        this.#word += character;
        // Text without spaces, such as Chinese, is not held back for long.
        if (this.#word.length >= this.#columns()) this.#flush();
        continue;
      }
      this.#flush();
      if (character === '\n') this.#breakLine();
      else this.#space += character;
    }
  }

  end(): void {
    this.#flush();
    this.#breakLine();
  }

  #flush(): void {
    if (this.#word === '') return;
    const length = [...this.#space, ...this.#word].length;
    if (this.#column > 0 && this.#column + length > this.#columns()) this.#breakLine();
    this.#write(this.#space + this.#word);
    this.#column += [...this.#space, ...this.#word].length;
    this.#space = '';
    this.#word = '';
  }

  #breakLine(): void {
    this.#write('\n');
    this.#column = 0;
    this.#space = '';
  }
}

const CLEAR_LINE = '\r\x1b[2K';

/** On the terminal of stderr: a quiet line in the place of the one before, cut off where it is narrow. */
export function showLine(text: string): void {
  process.stderr.write(`${CLEAR_LINE}${onStderr.dim(text.slice(0, columnsOf(process.stderr) - 1))}`);
}

/** Takes the line away. */
export function clearLine(): void {
  process.stderr.write(CLEAR_LINE);
}

/** Below this nobody wonders what takes so long. */
export const PATIENCE_MS = 500;
/** Time between lines where there is no terminal. */
const LINE_MS = 10_000;
/** Time over which the rate is taken: what was found on disk goes faster than what comes over the network. */
const RATE_MS = 5000;
/** Columns from which on there is room for a bar. */
const WIDE = 72;
const BAR_WIDTH = 16;

/** Says on stderr how far something is: on a terminal a line that changes, elsewhere a line now and then; nothing for what is quick. */
export class ProgressLine {
  readonly #doing: string;
  readonly #amount: (count: number) => string;
  #samples: { readonly ms: number; readonly done: number }[] = [];
  #lineMs = performance.now() + PATIENCE_MS;
  #shown = false;

  /** @param amount how a count of what is done is written */
  constructor(doing = 'loading', amount = (count: number) => scaled(count, 'B')) {
    this.#doing = doing;
    this.#amount = amount;
    if (!process.stderr.isTTY) this.#lineMs += LINE_MS;
  }

  /** @param detail what is being worked on; it is cut off first where the terminal is narrow */
  readonly update = (done: number, total: number, detail = ''): void => {
    const ms = performance.now();
    this.#samples.push({ ms, done });
    while (this.#samples.length > 2 && this.#samples[1]!.ms < ms - RATE_MS) this.#samples.shift();
    if (ms < this.#lineMs) return;
    const [first] = this.#samples;
    const rate = (1000 * (done - first!.done)) / (ms - first!.ms);
    const left = rate > 0 && done < total ? `, ${timeLeft((total - done) / rate)} left, ${this.#amount(rate)}/s` : '';
    const share = total > 0 ? done / total : 1;
    const bar = process.stderr.isTTY && columnsOf(process.stderr) >= WIDE ? `${barOf(share)} ` : '';
    const text = `${this.#doing} ${bar}${this.#amount(done)} of ${this.#amount(total)}, ${Math.floor(100 * share)}%${left}`;
    this.#show(detail === '' ? text : `${text} · ${detail}`, ms);
  };

  end(): void {
    if (this.#shown) clearLine();
    this.#shown = false;
  }

  #show(text: string, ms: number): void {
    if (process.stderr.isTTY) {
      this.#shown = true;
      // Redrawn ten times a second at most.
      this.#lineMs = ms + 100;
      showLine(text);
    } else {
      this.#lineMs = ms + LINE_MS;
      note(text);
    }
  }
}

function barOf(share: number): string {
  const full = Math.round(BAR_WIDTH * share);
  return `${'━'.repeat(full)}${'─'.repeat(BAR_WIDTH - full)}`;
}

/** 75 as `1:15`, 5025 as `1:23:45`. */
function timeLeft(seconds: number): string {
  const whole = Math.ceil(seconds);
  const [hours, minutes] = [Math.floor(whole / 3600), Math.floor(whole / 60) % 60];
  const padded = (n: number) => String(n).padStart(2, '0');
  return hours > 0 ? `${hours}:${padded(minutes)}:${padded(whole % 60)}` : `${minutes}:${padded(whole % 60)}`;
}

/** 1234567 B as `1.23 MB`, and without a unit as `1.23 M`. */
export function scaled(count: number, unit = ''): string {
  const prefixes = ['', 'k', 'M', 'G', 'T'];
  const power = count < 1000 ? 0 : Math.min(Math.floor(Math.log10(count) / 3), prefixes.length - 1);
  return `${Number((count / 1000 ** power).toPrecision(3))} ${prefixes[power]}${unit}`.trimEnd();
}

/** 0.00423 as `4.2 ms`, 1.234 as `1.2 s`. */
export function duration(seconds: number): string {
  return seconds < 1 ? `${Number((seconds * 1000).toPrecision(2))} ms` : `${seconds.toFixed(1)} s`;
}

/** The signals by which a person, the system or a closed terminal ends a program, and the exit codes that shells give it then. */
const ENDINGS = { SIGINT: 130, SIGTERM: 143, SIGHUP: 129 } as const;
const SIGNALS = Object.keys(ENDINGS) as (keyof typeof ENDINGS)[];

let heard: keyof typeof ENDINGS = 'SIGINT';

/**
 * Turns Ctrl-C, and the other signals that end a program, into one of the program's, so that what is begun can end in good order. A second Ctrl-C
 * ends the process at once.
 */
export function interruption(): AbortSignal {
  const controller = new AbortController();
  for (const name of SIGNALS) {
    // While somebody listens, the library of locks leaves it to us to end.
    process.on(name, () => {
      // Not so the others: when a terminal is closed, both the system and the shell may say so.
      if (name === 'SIGINT' && controller.signal.aborted) process.exit(ENDINGS.SIGINT);
      heard = name;
      controller.abort();
    });
  }
  return controller.signal;
}

/** The exit code of a program that an `interruption` ended. */
export function interruptedCode(): number {
  return ENDINGS[heard];
}

/**
 * Runs what cannot hear an `interruption`, because it is done in one piece or waits for what another program writes. Meanwhile the signals end the
 * process by themselves, so nothing may be left to be put in order.
 */
export async function withoutInterruption<T>(work: () => T | Promise<T>): Promise<T> {
  const listeners = SIGNALS.flatMap((name) => process.rawListeners(name).map((listener) => [name, listener] as const));
  for (const name of SIGNALS) process.removeAllListeners(name);
  try {
    return await work();
  } finally {
    for (const [name, listener] of listeners) process.on(name, listener as NodeJS.SignalsListener);
  }
}
