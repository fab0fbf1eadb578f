import { DAMAGED, type ProblemList, quote, visible } from './problem_list.ts';

const TAB = 0x09;
const LINE_FEED = 0x0a;
const CARRIAGE_RETURN = 0x0d;
const SPACE = 0x20;
const QUOTE = 0x22;
const COMMA = 0x2c;
const ZERO = 0x30;
const NINE = 0x39;
const COLON = 0x3a;
const OPEN_BRACKET = 0x5b;
const BACKSLASH = 0x5c;
const CLOSE_BRACKET = 0x5d;
const OPEN_BRACE = 0x7b;
const CLOSE_BRACE = 0x7d;

const NUMBER_BYTES: ReadonlySet<number | undefined> = new Set(new TextEncoder().encode('+-.0123456789eE'));
const NUMBER = /^-?(?:0|[1-9]\d*)(?:\.\d+)?(?:[eE][+-]?\d+)?$/;
const LONGEST_NUMBER = 64;
const LITERALS: ReadonlySet<string> = new Set(['true', 'false', 'null']);
const DEEPEST_NESTING = 64;
const EXCERPT_BYTES = 40;

/**
 * Reads JSON whose structure is known beforehand, from its bytes, in one pass and without building what was not asked for.
 * Unlike JSON.parse it sees duplicate keys, tells 1000 from 1e3, and knows the byte offset of every fault. A value of the wrong kind
 * or a duplicate key is added to the problems and passed over; what is not JSON ends the scan.
 */
export class JsonScanner {
  readonly #file: string;
  readonly #bytes: Uint8Array;
  /** One character a byte, so that offsets are the same; only its ASCII is right. Cutting it is ten times faster than decoding bytes (Node 20). */
  readonly #ascii: string;
  readonly #start: number;
  readonly #problems: ProblemList;
  readonly #utf8 = new TextDecoder('utf-8', { fatal: true, ignoreBOM: true });
  #at = 0;

  /**
   * @param file the name for messages.
   * @param bytes UTF-8; one JSON value with whitespace around it.
   * @param start where `bytes` begins in the file, in bytes.
   * @param problems receives what is wrong.
   */
  constructor(file: string, bytes: Uint8Array, start: number, problems: ProblemList) {
    this.#file = file;
    this.#bytes = bytes;
    this.#ascii = new TextDecoder('latin1').decode(bytes);
    this.#start = start;
    this.#problems = problems;
  }

  /**
   * Reads an object; of a key that occurs twice the first value counts.
   * @param subject what the object describes, for messages.
   * @param member reads or skips the value of `key`.
   * @returns the keys, or null for a value that is not an object.
   * @throws {CheckpointError} when the text is not JSON, as all methods here do.
   */
  object(subject: string, expected: string, member: (key: string) => void): ReadonlySet<string> | null {
    if (this.#next() !== OPEN_BRACE) return this.#reject(subject, expected);
    const keys = new Set<string>();
    this.#members((key) => {
      if (keys.has(key)) {
        this.#report(this.#at, subject, `the key ${quote(key)} once`, 'it again');
        this.skip();
      } else {
        keys.add(key);
        member(key);
      }
    });
    return keys;
  }

  /** Reads a string; null for a value of another kind. */
  string(subject: string, expected: string): string | null {
    return this.#next() === QUOTE ? this.#text() : this.#reject(subject, expected);
  }

  /** Reads an array of whole numbers from 0 to 2^53 - 1, written as digits only; null when it is anything else. */
  integers(subject: string, expected: string): number[] | null {
    if (this.#next() !== OPEN_BRACKET) return this.#reject(subject, expected);
    const integers: number[] = [];
    let sound = true;
    this.#items(CLOSE_BRACKET, () => {
      const integer = this.#integer();
      if (integer !== null) integers.push(integer);
      else if (sound) this.#reject(subject, expected);
      else this.skip();
      sound &&= integer !== null;
    });
    return sound ? integers : null;
  }

  /**
   * Passes over a value of any kind.
   * @param nesting how many levels it may have.
   */
  skip(nesting = DEEPEST_NESTING): void {
    const first = this.#next();
    if (nesting === 0) this.#fail(`at most ${DEEPEST_NESTING} levels of nesting`);
    if (first === QUOTE) this.#text();
    else if (first === OPEN_BRACE) this.#members(() => this.skip(nesting - 1));
    else if (first === OPEN_BRACKET) this.#items(CLOSE_BRACKET, () => this.skip(nesting - 1));
    else if (NUMBER_BYTES.has(first)) this.#number();
    else this.#literal();
  }

  /** Requires that nothing but whitespace is left. */
  end(): void {
    this.#next();
    if (this.#at < this.#bytes.length) this.#fail('nothing after the last brace');
  }

  /** Passes over a value that should have been something else, and reports it. */
  #reject(subject: string, expected: string): null {
    this.#next();
    const at = this.#at;
    this.skip();
    this.#report(at, subject, expected, this.#excerpt(at, this.#at));
    return null;
  }

  /** The first byte of what follows the whitespace. */
  #next(): number | undefined {
    let byte = this.#bytes[this.#at];
    while (byte === SPACE || byte === TAB || byte === LINE_FEED || byte === CARRIAGE_RETURN) byte = this.#bytes[++this.#at];
    return byte;
  }

  #members(member: (key: string) => void): void {
    this.#items(CLOSE_BRACE, () => {
      if (this.#next() !== QUOTE) this.#fail('a key in double quotes');
      const key = this.#text();
      if (this.#next() !== COLON) this.#fail('a colon');
      this.#at++;
      member(key);
    });
  }

  /** Reads from an opening bracket to `close`; `item` reads one value. */
  #items(close: number, item: () => void): void {
    this.#at++;
    if (this.#next() === close) {
      this.#at++;
      return;
    }
    for (;;) {
      item();
      const separator = this.#next();
      if (separator !== COMMA && separator !== close) this.#fail(`a comma or "${String.fromCharCode(close)}"`);
      this.#at++;
      if (separator === close) return;
    }
  }

  #text(): string {
    const begin = ++this.#at;
    let ascii = true;
    let escaped = false;
    for (; this.#bytes[this.#at] !== QUOTE; this.#at++) {
      const byte = this.#bytes[this.#at];
      if (byte === undefined) this.#fail('the closing quote of a string');
      if (byte < SPACE) this.#fail('control characters in a string to be escaped');
      if (byte >= 0x80) ascii = false;
      if (byte === BACKSLASH) {
        escaped = true;
        this.#at++; // an escaped quote does not close the string
      }
    }
    const text = ascii && !escaped ? this.#ascii.slice(begin, this.#at) : this.#decoded(begin);
    this.#at++;
    return text;
  }

  #decoded(begin: number): string {
    try {
      const text: string = JSON.parse(`"${this.#utf8.decode(this.#bytes.subarray(begin, this.#at))}"`);
      if (!/\p{Surrogate}/u.test(text)) return text;
    } catch {
      // Both decoders say only that they failed, which the message below does.
    }
    this.#at = begin;
    return this.#fail('a string in UTF-8 with valid escapes');
  }

  /** A whole number that is written as digits only; otherwise null, and nothing is consumed. */
  #integer(): number | null {
    const first = this.#next();
    const begin = this.#at;
    let value = 0;
    let byte = first;
    while (byte !== undefined && byte >= ZERO && byte <= NINE) {
      value = value * 10 + (byte - ZERO);
      byte = this.#bytes[++this.#at];
    }
    const digits = this.#at - begin;
    if (digits === 1 || (digits > 1 && first !== ZERO)) {
      if (!NUMBER_BYTES.has(byte) && Number.isSafeInteger(value)) return value;
    }
    this.#at = begin;
    return null;
  }

  #number(): void {
    const begin = this.#at;
    while (NUMBER_BYTES.has(this.#bytes[this.#at])) this.#at++;
    const length = this.#at - begin;
    this.#at = begin;
    if (length > LONGEST_NUMBER || !NUMBER.test(this.#ascii.slice(begin, begin + length))) this.#fail('a JSON number');
    this.#at += length;
  }

  #literal(): void {
    let end = this.#at;
    while (end - this.#at < 6 && this.#bytes[end]! >= 0x61 && this.#bytes[end]! <= 0x7a) end++;
    if (!LITERALS.has(this.#ascii.slice(this.#at, end))) this.#fail('a JSON value');
    this.#at = end;
  }

  #excerpt(begin: number, end: number): string {
    const shown = new TextDecoder().decode(this.#bytes.subarray(begin, Math.min(end, begin + EXCERPT_BYTES)));
    return visible(end - begin > EXCERPT_BYTES ? `${shown}…` : shown);
  }

  #report(at: number, subject: string, expected: string, found: string): void {
    this.#problems.add({ where: `${this.#file}: ${quote(subject)} at byte ${this.#start + at}`, expected, found, fix: DAMAGED });
  }

  #fail(expected: string): never {
    const found = this.#at < this.#bytes.length ? this.#excerpt(this.#at, this.#bytes.length) : 'the end of the text';
    this.#problems.add({ where: `${this.#file}: JSON at byte ${this.#start + this.#at}`, expected, found, fix: DAMAGED });
    throw this.#problems.toError();
  }
}
