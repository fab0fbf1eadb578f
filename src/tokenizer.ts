import { Tokenizer as HuggingFaceTokenizer } from '@huggingface/tokenizers';
import { BYTE_ALPHABET, BytePairEncoding } from './byte_pair_encoding.ts';
import { TokenizerError } from './errors.ts';
import { StreamingDecoder } from './streaming_decoder.ts';
import { decodeUtf8, MOST_BYTES, readTextFile } from './text_file.ts';
import { type PreTokenizerJson, parseTokenizerJson, type TokenizerJson } from './tokenizer_json.ts';

/** How ids become text. */
export interface DecodeOptions {
  /** Leaves out special tokens such as `<|im_end|>`. Default false. */
  readonly skip_special_tokens?: boolean | undefined;
}

/** Cuts text into words in the byte alphabet. Spelled out because the library's own types do not resolve under NodeNext. */
interface PreTokenizer {
  pre_tokenize(text: string): string[];
}

const BYTES: ReadonlyMap<string, number> = new Map(BYTE_ALPHABET.map((character, byte) => [character, byte]));

/**
 * Text to token ids and back, as a tokenizer.json of byte-level BPE says. It adds no tokens of its own and never tidies up spaces, so
 * `decode(encode(text))` is the text. HF: tokenizers.Tokenizer, `encode(text, add_special_tokens=False)` and `decode(ids, skip_special_tokens=False)`.
 *
 * Lone surrogates are refused, as in HF: they are not text, have no UTF-8, and could only come back as something else.
 * A letter newer than the Unicode of this Node may be cut off its word where HF keeps it, and the other way round.
 */
export class Tokenizer {
  /** One more than the largest id: what a row of logits must hold at least. */
  readonly vocab_size: number;
  /** Ids of the special tokens by their text. */
  readonly specialTokens: ReadonlyMap<string, number>;
  readonly specialIds: ReadonlySet<number>;
  readonly #ids: ReadonlyMap<string, number>;
  readonly #tokens: ReadonlyMap<number, string>;
  /** First those that are not `normalized`, over the whole text, then the others, in what is left. HF: AddedVocabulary. */
  readonly #addedTokens: readonly RegExp[];
  readonly #words: PreTokenizer;
  readonly #bytePairs: BytePairEncoding;

  private constructor({ ids, tokens, added_tokens, bytes, merges, wholeWords, pre_tokenizer }: TokenizerJson, where: string) {
    this.#ids = ids;
    this.#tokens = tokens;
    this.vocab_size = 1 + [...tokens.keys()].reduce((a, b) => Math.max(a, b));
    this.specialTokens = new Map(added_tokens.filter(({ special }) => special).map(({ content, id }) => [content, id]));
    this.specialIds = new Set(this.specialTokens.values());
    this.#addedTokens = [false, true].map((pass) => {
      const contents = added_tokens.filter(({ normalized }) => normalized === pass).map(({ content }) => content);
      return new RegExp(anyOf(contents), 'g');
    });
    this.#words = preTokenizer(pre_tokenizer, where);
    this.#bytePairs = new BytePairEncoding(bytes, merges, wholeWords);
  }

  /**
   * Reads the tokenizer.json of a model folder (Node only).
   * @throws {TokenizerError} as `fromJson` does, and when there is no such file
   */
  static async fromFolder(folder: string): Promise<Tokenizer> {
    const { join } = await import('node:path');
    const path = join(folder, 'tokenizer.json');
    const json = await readTextFile(path, MOST_BYTES.tokenizer, TokenizerError);
    if (json !== null) return Tokenizer.fromJson(json, path);
    const fix = 'Copy it from the repository of the model, or give token ids instead of text.';
    throw new TokenizerError({ where: path, expected: 'a tokenizer', found: 'no such file', fix });
  }

  /**
   * Makes a tokenizer of the content of a tokenizer.json.
   * @param json text, or its UTF-8 bytes
   * @param where what messages call it
   * @throws {TokenizerError} with every problem found: it is damaged, or not of the kind that OLMo has
   */
  static fromJson(json: string | Uint8Array, where = 'tokenizer.json'): Tokenizer {
    const text = typeof json === 'string' ? json : decodeUtf8(json, where, TokenizerError);
    return new Tokenizer(parseTokenizerJson(text, where), where);
  }

  /**
   * The ids of a text. The text of a special token becomes that token; use `encodeText` for what a user wrote.
   * @throws {TokenizerError} for a lone surrogate
   */
  encode(text: string): number[] {
    return this.#encode(text, () => true);
  }

  /**
   * The ids of a text in which nothing is special: the text of a special token is encoded as the characters it is made of.
   * HF: tokenizers.Tokenizer with `encode_special_tokens`.
   * @throws {TokenizerError} for a lone surrogate
   */
  encodeText(text: string): number[] {
    return this.#encode(text, (token) => !this.specialTokens.has(token));
  }

  /**
   * The text of ids. Bytes that are not UTF-8 become U+FFFD.
   * @throws {TokenizerError} for an id without a token
   */
  decode(ids: Iterable<number>, options: DecodeOptions = {}): string {
    const bytes: number[] = [];
    for (const id of ids) for (const byte of this.#bytesOf(id, options)) bytes.push(byte);
    return new TextDecoder('utf-8', { ignoreBOM: true }).decode(Uint8Array.from(bytes));
  }

  /** A decoder for one text whose ids come one by one. */
  streamingDecoder(options: DecodeOptions = {}): StreamingDecoder {
    return new StreamingDecoder((id) => this.#bytesOf(id, options));
  }

  /** The id of a token by its text, for a word in the byte alphabet; undefined if it has none. */
  idOf(token: string): number | undefined {
    return this.#ids.get(token);
  }

  #encode(text: string, isToken: (added: string) => boolean): number[] {
    checkWellFormed(text);
    const ids: number[] = [];
    const encode = (part: string, [pattern, ...later]: readonly RegExp[]) => {
      if (pattern === undefined) {
        for (const word of this.#words.pre_tokenize(part)) for (const id of this.#bytePairs.encode(word)) ids.push(id);
        return;
      }
      let start = 0;
      for (const { 0: token, index } of part.matchAll(pattern)) {
        if (!isToken(token)) continue; // text, in which HF finds no token that overlaps it
        encode(part.slice(start, index), later);
        ids.push(this.#ids.get(token)!);
        start = index + token.length;
      }
      encode(part.slice(start), later);
    };
    encode(text, this.#addedTokens);
    return ids;
  }

  /** HF: tokenizers ByteLevel decoder. A token that has a character outside the byte alphabet stands for its own UTF-8. */
  #bytesOf(id: number, { skip_special_tokens = false }: DecodeOptions): Uint8Array {
    const token = this.#tokens.get(id);
    if (token === undefined) throw unknownId(id, this.vocab_size);
    if (skip_special_tokens && this.specialIds.has(id)) return new Uint8Array();
    const bytes = Array.from(token, (character) => BYTES.get(character) ?? -1);
    return bytes.includes(-1) ? new TextEncoder().encode(token) : Uint8Array.from(bytes);
  }
}

/** The library's reading of `pre_tokenizer`, most of all its pattern, which is written for another engine of regular expressions. */
function preTokenizer(pre_tokenizer: PreTokenizerJson, where: string): PreTokenizer {
  const model = { type: 'BPE', vocab: {}, merges: [] };
  const rest = { normalizer: null, model, added_tokens: [], post_processor: null, decoder: null };
  try {
    return new HuggingFaceTokenizer({ ...rest, pre_tokenizer }, { clean_up_tokenization_spaces: false }).pre_tokenizer;
  } catch (cause) {
    const expected = 'a regular expression that this engine can run';
    const fix = 'Use the tokenizer.json of an OLMo release.';
    throw new TokenizerError({ where: `${where}: pre_tokenizer`, expected, found: (cause as Error).message, fix }, { cause });
  }
}

/** The source of a regular expression that finds any of the given texts; where several begin, the longest. */
export function anyOf(texts: readonly string[]): string {
  const longestFirst = [...texts].sort((a, b) => b.length - a.length);
  return longestFirst.map(escapeRegExp).join('|') || '(?!)'; // (?!) is found nowhere
}

/** The source of a regular expression that finds a text. */
export function escapeRegExp(text: string): string {
  return text.replace(/[\\^$.*+?()[\]{}|/]/g, '\\$&');
}

/** @throws {TokenizerError} for a lone surrogate */
export function checkWellFormed(text: string): void {
  const index = text.search(/\p{Surrogate}/u);
  if (index === -1) return;
  const found = `the lone surrogate U+${text.charCodeAt(index).toString(16).toUpperCase()} at index ${index}`;
  const fix = 'A character was cut in half; do not cut text between surrogates.';
  throw new TokenizerError({ where: 'text', expected: 'well-formed Unicode', found, fix });
}

function unknownId(id: number, vocab_size: number): TokenizerError {
  const expected = `ids of tokens, integers in [0, ${vocab_size})`;
  return new TokenizerError({ where: 'token ids', expected, found: String(id), fix: 'Use ids that were made with this tokenizer.' });
}
