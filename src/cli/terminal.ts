import type { WriteStream } from 'node:tty';
import picocolors from 'picocolors';
import { visible } from '../checkpoint/problem_list.ts';

/** Colours for one stream: none where it is no terminal, or NO_COLOR is set. */
function coloursOf(stream: WriteStream): ReturnType<typeof picocolors.createColors> {
  // A pipe's isTTY is undefined, for which picocolors would guess by the environment: colours wherever CI is set.
  return picocolors.createColors(stream.isTTY === true && stream.hasColors());
}

export const onStdout = coloursOf(process.stdout);
export const onStderr = coloursOf(process.stderr);

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
    () => process.stderr.columns ?? Infinity,
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
  if (stream.isTTY) return new WordWrap(write, () => stream.columns);
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

// Below this nobody wonders what takes so long.
const PATIENCE_MS = 500;

/** A line on a terminal's stderr that says how far something is; nothing for what is quick, and nothing elsewhere. */
export class ProgressLine {
  readonly #doing: string;
  readonly #start = performance.now();
  #shown = false;

  constructor(doing = 'loading') {
    this.#doing = doing;
  }

  readonly update = (done: number, total: number): void => {
    const elapsed_ms = performance.now() - this.#start;
    if (!process.stderr.isTTY || elapsed_ms < PATIENCE_MS) return;
    this.#shown = true;
    const percent = Math.round((100 * done) / total);
    const text = `${this.#doing} ${scaled(done, 'B')} of ${scaled(total, 'B')}, ${percent}%, ${scaled(done / (elapsed_ms / 1000), 'B')}/s`;
    process.stderr.write(`\r\x1b[2K${onStderr.dim(text.slice(0, process.stderr.columns - 1))}`);
  };

  end(): void {
    if (this.#shown) process.stderr.write('\r\x1b[2K');
    this.#shown = false;
  }
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

/**
 * Turns Ctrl-C into a signal, so that what is begun can end in good order. A second Ctrl-C ends the process at once.
 */
export function interruption(): AbortSignal {
  const controller = new AbortController();
  process.once('SIGINT', () => controller.abort());
  return controller.signal;
}

/** The exit code of a program that Ctrl-C ended. */
export const INTERRUPTED = 130;
