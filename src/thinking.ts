const OPENING = '<think>';
const CLOSING = '</think>';

/** A part of an answer: what the model thinks to itself, or what it says. */
export interface ThinkingPiece {
  /** Never empty, and without the tags. */
  readonly text: string;
  readonly thinking: boolean;
}

/** Whether an answer to this prompt begins inside the thinking: the template of a Think variant ends with the opening tag. */
export function startsThinking(prompt: string): boolean {
  return thinkingOpening(prompt) !== '';
}

/** The opening tag that a prompt ends with, and the spaces behind it; empty when there is none. */
export function thinkingOpening(prompt: string): string {
  const length = prompt.trimEnd().length;
  return prompt.endsWith(OPENING, length) ? prompt.slice(length - OPENING.length) : '';
}

/**
 * Tells thinking from answer in a text that arrives in pieces: `<think>` begins the one and `</think>` the other; both are plain text in the
 * released tokenizers. Where a tag would change nothing it is text like any other, as is one that never becomes complete. The result, joined
 * where neighbours are of one kind, does not depend on how the text was cut into pieces.
 */
export class ThinkingText {
  #thinking: boolean;
  #held = '';

  /** @param inside whether the text begins inside the thinking, see `startsThinking` */
  constructor(inside: boolean) {
    this.#thinking = inside;
  }

  /**
   * Takes the next piece of the text.
   * @returns what is now certain: all but an ending that a tag may begin with
   */
  push(piece: string): ThinkingPiece[] {
    const pieces: ThinkingPiece[] = [];
    this.#held += piece;
    for (;;) {
      const tag = this.#thinking ? CLOSING : OPENING;
      const at = this.#held.indexOf(tag);
      pieces.push(...this.#release(at < 0 ? this.#held.length - beginningAtEnd(this.#held, tag) : at));
      if (at < 0) return pieces;
      this.#held = this.#held.slice(tag.length);
      this.#thinking = !this.#thinking;
    }
  }

  /** The text is over: returns the beginning of a tag that was held back. */
  flush(): ThinkingPiece[] {
    return this.#release(this.#held.length);
  }

  #release(length: number): ThinkingPiece[] {
    const text = this.#held.slice(0, length);
    this.#held = this.#held.slice(length);
    return text === '' ? [] : [{ text, thinking: this.#thinking }];
  }
}

/** Length of the longest ending of a text that is the beginning of a tag, but not all of it. */
function beginningAtEnd(text: string, tag: string): number {
  let length = tag.length - 1;
  while (!text.endsWith(tag.slice(0, length))) length--;
  return length;
}
