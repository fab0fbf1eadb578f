import type { Prompt } from '../chat/conversation.ts';
import { ThinkingText } from '../thinking.ts';
import { clearLine, columnsOf, note, onStdout, PATIENCE_MS, showLine, type TextOutput, textOutput, WordWrap } from './terminal.ts';

const REFRESH_MS = 100;

/** Where an answer goes. */
export interface AnswerOutput {
  begin(prompt: Prompt): void;
  push(piece: string): void;
  end(): void;
}

/** For a program: the answers on stdout, what the model thinks on stderr, or nowhere. */
export class PipedAnswer implements AnswerOutput {
  readonly #hideThinking: boolean;
  readonly #answer = textOutput(process.stdout);
  #thoughts: TextOutput | null = null;
  #splitter = new ThinkingText(false);
  #trim = false;

  constructor(hideThinking: boolean) {
    this.#hideThinking = hideThinking;
  }

  begin({ opening }: Prompt): void {
    this.#splitter = new ThinkingText(opening !== '');
    this.#trim = false;
  }

  push(piece: string): void {
    for (const part of this.#splitter.push(piece)) this.#write(part);
  }

  end(): void {
    for (const part of this.#splitter.flush()) this.#write(part);
    this.#endThoughts();
    this.#answer.end();
  }

  #write({ text, thinking }: { text: string; thinking: boolean }): void {
    if (thinking) {
      this.#trim = true;
      if (this.#hideThinking) return;
      this.#thoughts ??= textOutput(process.stderr);
      this.#thoughts.push(text);
      return;
    }
    this.#endThoughts();
    const shown = this.#trim ? text.trimStart() : text;
    if (shown === '') return;
    this.#trim = false;
    this.#answer.push(shown);
  }

  #endThoughts(): void {
    this.#thoughts?.end();
    this.#thoughts = null;
  }
}

/** For a person: words as they come, thoughts dim, and while there is nothing to read, what the model does. */
export class ShownAnswer implements AnswerOutput {
  readonly #hideThinking: boolean;
  readonly #position: () => number;
  readonly #status = new StatusLine();
  readonly #wrap: WordWrap;
  #dim = false;
  #splitter = new ThinkingText(false);
  #timer: NodeJS.Timeout | undefined;
  #prompt: Prompt | null = null;
  #last: 'nothing' | 'thought' | 'answer' = 'nothing';
  /** Spaces at the end of what came, which are written when more of the same kind comes. */
  #space = '';

  /** @param position how many tokens the caches hold */
  constructor(hideThinking: boolean, position: () => number) {
    this.#hideThinking = hideThinking;
    this.#position = position;
    const write = (text: string) => process.stdout.write(this.#dim ? onStdout.dim(text) : text);
    this.#wrap = new WordWrap(write, () => columnsOf(process.stdout));
  }

  begin(prompt: Prompt): void {
    this.#prompt = prompt;
    this.#splitter = new ThinkingText(prompt.opening !== '');
    this.#last = 'nothing';
    this.#space = '';
    const started = performance.now();
    this.#timer = setInterval(() => {
      if (performance.now() - started < PATIENCE_MS) return;
      this.#status.show(`reading, ${this.#position() - prompt.cached_tokens} of ${prompt.tokens - prompt.cached_tokens} tokens`);
    }, REFRESH_MS);
  }

  push(piece: string): void {
    this.#endReading();
    for (const part of this.#splitter.push(piece)) this.#write(part);
  }

  end(): void {
    this.#endReading();
    for (const part of this.#splitter.flush()) this.#write(part);
    this.#status.clear();
    if (this.#last !== 'nothing') this.#wrap.end();
    this.#dim = false;
  }

  #write({ text, thinking }: { text: string; thinking: boolean }): void {
    if (thinking && this.#hideThinking) {
      const tokens = this.#position() - (this.#prompt?.tokens ?? 0) + 1;
      this.#status.show(`thinking… ${tokens} tokens`);
      return;
    }
    const kind = thinking ? 'thought' : 'answer';
    const full = this.#last === kind ? this.#space + text : text.trimStart();
    const shown = full.trimEnd();
    if (shown === '' && this.#last !== kind) return;
    this.#space = full.slice(shown.length);
    this.#status.clear();
    if (this.#last !== kind) {
      if (this.#last !== 'nothing') this.#wrap.push('\n\n'); // also writes the last word as it is, dim or not
      this.#dim = thinking;
      this.#last = kind;
    }
    this.#wrap.push(shown);
  }

  #endReading(): void {
    clearInterval(this.#timer);
    if (this.#timer) this.#status.clear();
    this.#timer = undefined;
  }
}

/** A line on a terminal that says what goes on, until there is something to read. */
class StatusLine {
  #shown = 0;

  show(text: string): void {
    if (!process.stderr.isTTY || performance.now() - this.#shown < REFRESH_MS) return;
    this.#shown = performance.now();
    showLine(text);
  }

  clear(): void {
    if (this.#shown > 0) clearLine();
    this.#shown = 0;
  }
}

/** Quiet lines for a person, with names in a column. */
export function notes(rows: readonly (readonly [name: string, text: string])[]): void {
  for (const [name, text] of rows) note(`${name.padEnd(12)}${text}`);
}
