import { Transform, type TransformCallback } from 'node:stream';

/** A terminal that is told this sends marks around what is pasted. */
export const PASTE_ON = '\x1b[?2004h';
export const PASTE_OFF = '\x1b[?2004l';

const BEGIN = '\x1b[200~';
const END = '\x1b[201~';
const CTRL_C = '\x03';
/** What stands for a line break while a pasted text is edited in one line. */
const LINE_BREAK = '\u2424';

/**
 * The keys of a terminal, for readline. A pasted text becomes one line, in which a sign stands for each line break, and nothing in it is a key. While an
 * answer is given, Ctrl-C goes to who wants to end it; what else is typed then waits until it is read.
 */
export class PastedText extends Transform {
  readonly isTTY = true;
  onInterrupt: (() => void) | null = null;
  readonly #source: NodeJS.ReadStream;
  #held = '';
  #inPaste = false;

  constructor(source: NodeJS.ReadStream) {
    super({ decodeStrings: false });
    this.#source = source;
    source.setEncoding('utf8');
    source.pipe(this);
  }

  /** What readline asks of a terminal. */
  setRawMode(raw: boolean): this {
    this.#source.setRawMode?.(raw);
    return this;
  }

  /** A line with the line breaks that were pasted. */
  restored(line: string): string {
    return line.replaceAll(LINE_BREAK, '\n');
  }

  close(): void {
    this.#source.unpipe(this);
    this.#source.pause();
  }

  override _transform(chunk: string, _: BufferEncoding, done: TransformCallback): void {
    let keys = this.#keysOf(chunk);
    if (this.onInterrupt && keys.includes(CTRL_C)) {
      this.onInterrupt();
      keys = keys.replaceAll(CTRL_C, '');
    }
    if (keys !== '') this.push(keys);
    done();
  }

  #keysOf(chunk: string): string {
    let text = this.#held + chunk;
    let keys = '';
    for (;;) {
      const mark = this.#inPaste ? END : BEGIN;
      const at = text.indexOf(mark);
      if (at < 0) break;
      keys += this.#part(text.slice(0, at));
      text = text.slice(at + mark.length);
      this.#inPaste = !this.#inPaste;
    }
    // The beginning of a mark waits for the rest; outside of a paste Escape alone, or with a bracket, is a key.
    const mark = this.#inPaste ? END : BEGIN;
    let length = mark.length - 1;
    while (!text.endsWith(mark.slice(0, length))) length--;
    if (!this.#inPaste && length < 3) length = 0;
    this.#held = text.slice(text.length - length);
    return keys + this.#part(text.slice(0, text.length - length));
  }

  #part(text: string): string {
    if (!this.#inPaste) return text;
    return text
      .replace(/\r\n|\r|\n/g, LINE_BREAK)
      .replace(/\t/g, '    ')
      .replace(/\p{Cc}/gu, '');
  }
}
