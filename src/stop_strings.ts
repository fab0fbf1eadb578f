import type { Problem } from './errors.ts';
import { kindOf } from './text_file.ts';

/**
 * What is wrong with stop strings.
 * @param stop as a caller gave them
 * @returns every problem found
 */
export function stopStringProblems(stop: readonly string[]): Problem[] {
  if (!Array.isArray(stop)) {
    return [{ where: 'stop', expected: 'a list of strings', found: kindOf(stop), fix: 'Give a list, also of one string.' }];
  }
  return stop.flatMap((text, index) => {
    // \p{Surrogate} matches halves only: such a stop string would cut a character in two.
    if (typeof text === 'string' && text !== '' && !/\p{Surrogate}/u.test(text)) return [];
    const found = typeof text === 'string' ? JSON.stringify(text) : String(text);
    return [{ where: `stop[${index}]`, expected: 'a string of at least one whole character', found, fix: 'Leave it out.' }];
  });
}

/**
 * Ends a text that arrives in pieces before the first stop string in it. The first is the one that is complete first, and of several
 * complete at the same character the longest, so the result does not depend on how the text was cut into pieces.
 */
export class StopStrings {
  readonly #stop: readonly string[];
  #held = '';
  #found = false;

  /** @param stop strings that end the text, none of them empty */
  constructor(stop: readonly string[]) {
    this.#stop = stop;
  }

  /** Whether a stop string has come; the text ends there, and nothing may be pushed after. */
  get found(): boolean {
    return this.#found;
  }

  /**
   * Takes the next piece of the text.
   * @returns what is now certain to be part of the text: all but an ending that a stop string may begin with
   */
  push(piece: string): string {
    this.#held += piece;
    const match = this.#firstMatch();
    this.#found = match !== undefined;
    return this.#release(match ?? this.#beginningOfStop());
  }

  /** The text is over: returns the ending that was held back, nothing when a stop string has come. */
  flush(): string {
    return this.#found ? '' : this.#release(this.#held.length);
  }

  #release(length: number): string {
    const text = this.#held.slice(0, length);
    this.#held = this.#held.slice(length);
    return text;
  }

  /** Where the first stop string begins in the held text. */
  #firstMatch(): number | undefined {
    let [begin, end] = [0, Infinity];
    for (const stop of this.#stop) {
      const at = this.#held.indexOf(stop);
      if (at < 0) continue;
      if (at + stop.length < end || (at + stop.length === end && at < begin)) [begin, end] = [at, at + stop.length];
    }
    return end === Infinity ? undefined : begin;
  }

  /** Where the longest ending of the held text begins that is the beginning of a stop string; its length when there is none. */
  #beginningOfStop(): number {
    const { length } = this.#held;
    const longest = Math.max(0, ...this.#stop.map((stop) => stop.length - 1));
    for (let at = Math.max(0, length - longest); at < length; at++) {
      if (this.#stop.some((stop) => stop.startsWith(this.#held.slice(at)))) return at;
    }
    return length;
  }
}
