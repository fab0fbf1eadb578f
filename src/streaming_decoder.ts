/**
 * Turns tokens into text one by one. What it gives out ends with a whole character: bytes that may be the beginning of one wait for the rest,
 * and bytes that cannot be UTF-8 become U+FFFD as soon as that is certain. All that it gives out, joined, is `Tokenizer.decode` of all tokens;
 * a token costs only its own bytes.
 */
export class StreamingDecoder {
  readonly #bytesOf: (id: number) => Uint8Array;
  // A byte order mark is text like any other.
  readonly #utf8 = new TextDecoder('utf-8', { ignoreBOM: true });

  /** @param bytesOf gives the bytes of a token, empty for one that is no text */
  constructor(bytesOf: (id: number) => Uint8Array) {
    this.#bytesOf = bytesOf;
  }

  /**
   * Takes the next token.
   * @param id of a token
   * @returns the text that is complete with it, often all of the token, sometimes nothing
   * @throws {TokenizerError} when there is no such token
   */
  push(id: number): string {
    return this.#utf8.decode(this.#bytesOf(id), { stream: true });
  }

  /**
   * Ends the text; afterwards the decoder is ready for another one.
   * @returns U+FFFD for a character that was left incomplete, else nothing
   */
  flush(): string {
    return this.#utf8.decode();
  }
}
