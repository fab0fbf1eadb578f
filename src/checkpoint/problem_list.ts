import { CheckpointError, type Problem } from '../errors.ts';

// People read the first few. A file with a thousand problems is something else altogether: the check ends there, in bounded time and memory.
const LISTED_PROBLEMS = 20;
const MOST_PROBLEMS = 1000;
const LONGEST_QUOTE = 120;

/** What to do about a file whose content contradicts itself. */
export const DAMAGED = 'The file is damaged: download it again, or save the model again.';

/** Collects what is wrong with a file or folder so that all of it is reported at once: the first 20 problems in full, the rest as a count. */
export class ProblemList {
  readonly #where: string;
  readonly #listed: Problem[] = [];
  #count = 0;

  /** @param where the file or folder that is checked. */
  constructor(where: string) {
    this.#where = where;
  }

  /** @throws {CheckpointError} when this is the thousandth problem. */
  add(problem: Problem): void {
    this.#count++;
    if (this.#listed.length < LISTED_PROBLEMS) this.#listed.push(problem);
    if (this.#count === MOST_PROBLEMS) throw this.toError();
  }

  /** @throws {CheckpointError} when a problem was added. */
  throwIfAny(): void {
    if (this.#count > 0) throw this.toError();
  }

  /** The error that reports what was added. */
  toError(): CheckpointError {
    const unlisted = this.#count - this.#listed.length;
    if (unlisted === 0) return new CheckpointError(this.#listed);
    const found = `${unlisted} more${this.#count === MOST_PROBLEMS ? ', where the check ended' : ''}`;
    return new CheckpointError([
      ...this.#listed,
      { where: this.#where, expected: 'no more problems', found, fix: 'Look at the first ones.' },
    ]);
  }
}

/** Shows text from a file in a message: in quotes and at most 120 characters of it. */
export function quote(text: string): string {
  return visible(JSON.stringify(text.length > LONGEST_QUOTE ? `${text.slice(0, LONGEST_QUOTE)}…` : text));
}

/** Spells out the characters that a terminal would act on instead of showing them. */
export function visible(text: string): string {
  return text.replace(/\p{C}/gu, (character) => `\\u{${character.codePointAt(0)!.toString(16)}}`);
}
