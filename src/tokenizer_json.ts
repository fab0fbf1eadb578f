import { BYTE_ALPHABET, ID_LIMIT, type Merge } from './byte_pair_encoding.ts';
import { type Problem, TokenizerError } from './errors.ts';
import { isCount, isObject, kindOf, parseJsonObject } from './text_file.ts';

/** A token that is found in a text before the text is cut into words. */
export interface AddedToken {
  readonly id: number;
  readonly content: string;
  /** It steers the model, as `<|im_end|>` does, and is no part of what it says. */
  readonly special: boolean;
  /** It is looked for after those that are not, in what they leave. HF looks there in the normalised text; this kind has no normaliser. */
  readonly normalized: boolean;
}

/** How the text between added tokens is cut into words and these are written in the byte alphabet, as `pre_tokenizer` says it. */
export interface PreTokenizerJson {
  readonly type: 'Sequence';
  readonly pretokenizers: readonly Readonly<Record<string, unknown>>[];
}

/** What a checked tokenizer.json says, as far as ids and texts depend on it. */
export interface TokenizerJson {
  /** The id of every token, and the token of every id. */
  readonly ids: ReadonlyMap<string, number>;
  readonly tokens: ReadonlyMap<number, string>;
  readonly added_tokens: readonly AddedToken[];
  /** The ids of the byte alphabet. Neither they nor the tokens that merges make are special. */
  readonly bytes: ReadonlyMap<string, number>;
  readonly merges: readonly Merge[];
  /** The words that need no merges: with `ignore_merges` all tokens that are not special, else none. */
  readonly wholeWords: ReadonlyMap<string, number>;
  readonly pre_tokenizer: PreTokenizerJson;
}

const DAMAGED = 'The file is damaged: download it again, from the same revision as the weights.';
const UNSUPPORTED = 'Use the tokenizer.json of an OLMo release, or one of the same kind: byte-level BPE.';

// What ByteLevel splits by itself unless told not to. HF: tokenizers `pre_tokenizers::byte_level::RE`.
const BYTE_LEVEL_SPLIT = String.raw`'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+`;

/**
 * Reads and checks a tokenizer.json: byte-level BPE with added tokens, the only kind that OLMo has. What the file says beyond that is refused
 * where it would change ids or text (normalizer, lstrip, dropout…), and passed over where it would not (truncation, padding, post_processor:
 * no tokens are ever added here).
 * @param where what messages call the text
 * @throws {TokenizerError} with every problem found
 */
export function parseTokenizerJson(text: string, where: string): TokenizerJson {
  const json = parseJsonObject(text, where, TokenizerError);
  const problems: Problem[] = [];
  const report = (part: string, expected: string, found: string, fix: string) => {
    problems.push({ where: `${where}: ${part}`, expected, found, fix });
  };

  if (json.normalizer != null) report('normalizer', 'null', kindOf(json.normalizer), UNSUPPORTED);
  const decoder = isObject(json.decoder) ? json.decoder.type : json.decoder;
  if (decoder !== 'ByteLevel') report('decoder', 'type "ByteLevel"', kindOf(decoder), UNSUPPORTED);
  const pre_tokenizer = readPreTokenizer(json.pre_tokenizer, report);

  const model = isObject(json.model) ? json.model : {};
  if (model.type !== 'BPE') report('model', 'type "BPE"', kindOf(isObject(json.model) ? model.type : json.model), UNSUPPORTED);
  for (const key of ['dropout', 'continuing_subword_prefix', 'end_of_word_suffix']) {
    if (model[key]) report(`model.${key}`, 'null', kindOf(model[key]), UNSUPPORTED);
  }
  const { ids, tokens } = readVocab(model.vocab, report);
  const words = model.ignore_merges === true ? new Map(ids) : new Map<string, number>();
  const added_tokens = readAddedTokens(json.added_tokens, ids, tokens, report);
  const special = new Set(added_tokens.filter((token) => token.special).map(({ id }) => id));
  for (const { content } of added_tokens.filter((token) => token.special)) words.delete(content);

  const bytes = new Map(BYTE_ALPHABET.map((byte) => [byte, ids.get(byte) ?? -1]));
  const missing = BYTE_ALPHABET.filter((byte) => !ids.has(byte) || special.has(ids.get(byte)!));
  if (missing.length > 0) {
    const found = `${256 - missing.length}, without ${kindOf(missing[0])}`;
    const fix = 'Train the tokenizer with the whole byte alphabet.';
    report('model.vocab', 'a token that is not special for each of the 256 bytes', found, fix);
  }
  const merges = readMerges(model.merges, ids, special, report);

  if (problems.length > 0) throw new TokenizerError(problems);
  return { ids, tokens, added_tokens, bytes, merges, wholeWords: words, pre_tokenizer };
}

type Report = (part: string, expected: string, found: string, fix: string) => void;

const isId = (value: unknown): value is number => isCount(value) && value < ID_LIMIT;

function readVocab(json: unknown, report: Report): { ids: Map<string, number>; tokens: Map<number, string> } {
  const ids = new Map<string, number>();
  const tokens = new Map<number, string>();
  if (!isObject(json)) report('model.vocab', 'an object of tokens and ids', kindOf(json), DAMAGED);
  const faults = new Faults();
  for (const [token, id] of Object.entries(isObject(json) ? json : {})) {
    if (!isId(id)) faults.add(`${kindOf(id)} for ${kindOf(token)}`);
    else if (tokens.has(id)) faults.add(`${id} for both ${kindOf(tokens.get(id))} and ${kindOf(token)}`);
    else {
      ids.set(token, id);
      tokens.set(id, token);
    }
  }
  faults.report('model.vocab', `ids that are integers in [0, ${ID_LIMIT}), each once`, DAMAGED, report);
  return { ids, tokens };
}

/** Adds them to the tokens of the vocabulary, where they may be already. */
function readAddedTokens(json: unknown, ids: Map<string, number>, tokens: Map<number, string>, report: Report): AddedToken[] {
  const added = new Map<string, AddedToken>();
  if (!Array.isArray(json) && json != null) report('added_tokens', 'an array', kindOf(json), DAMAGED);
  const malformed = new Faults();
  const taken = new Faults();
  const unsupported = new Faults();
  for (const entry of Array.isArray(json) ? json : []) {
    const { id, content, special = false, normalized = !special, ...options }: Record<string, unknown> = isObject(entry) ? entry : {};
    const flagged = typeof special === 'boolean' && typeof normalized === 'boolean';
    if (!isId(id) || typeof content !== 'string' || content === '' || !flagged) {
      malformed.add(kindOf(entry));
      continue;
    }
    if (added.has(content) || (tokens.get(id) ?? content) !== content || (ids.get(content) ?? id) !== id) {
      taken.add(`${id} for ${kindOf(content)}`);
    }
    for (const key of ['lstrip', 'rstrip', 'single_word']) if (options[key]) unsupported.add(`${key} for ${kindOf(content)}`);
    ids.set(content, id);
    tokens.set(id, content);
    added.set(content, { id, content, special, normalized });
  }
  malformed.report('added_tokens', 'an id, a content and whether it is special and normalized', DAMAGED, report);
  taken.report('added_tokens', 'ids and contents that nothing else has', DAMAGED, report);
  unsupported.report('added_tokens', 'no lstrip, rstrip or single_word', UNSUPPORTED, report);
  return [...added.values()];
}

function readMerges(json: unknown, ids: ReadonlyMap<string, number>, special: ReadonlySet<number>, report: Report): Merge[] {
  if (!Array.isArray(json)) report('model.merges', 'an array of pairs of tokens', kindOf(json), DAMAGED);
  const merges: Merge[] = [];
  const faults = new Faults();
  for (const entry of Array.isArray(json) ? json : []) {
    const halves: unknown = typeof entry === 'string' ? entry.split(' ') : entry; // "a b" before tokenizers 0.20, ["a", "b"] since
    const [left, right] = Array.isArray(halves) && halves.length === 2 ? halves : [];
    const merge = [ids.get(left), ids.get(right), ids.get(left + right)];
    if (merge.some((id) => id === undefined || special.has(id))) faults.add(kindOf(entry));
    else merges.push(merge as [number, number, number]);
  }
  faults.report('model.merges', 'pairs of tokens that join to a token, none of them special', DAMAGED, report);
  return merges;
}

/** Brings the forms in which ByteLevel and its splits occur to one: a sequence of splits by a pattern, then the byte alphabet. */
function readPreTokenizer(json: unknown, report: Report): PreTokenizerJson {
  const steps: unknown = isObject(json) && json.type === 'Sequence' ? json.pretokenizers : [json];
  const pretokenizers: Record<string, unknown>[] = [];
  const entries: unknown[] = Array.isArray(steps) ? steps : [steps];
  for (const [at, step] of entries.entries()) {
    const fields = isObject(step) ? step : {};
    const pattern = isObject(fields.pattern) ? fields.pattern : {};
    const { behavior, invert } = fields;
    const keepsText = (behavior === 'Isolated' && invert === false) || (behavior === 'Removed' && invert === true);
    const isLast = at === entries.length - 1;
    if (isLast && fields.type === 'ByteLevel' && fields.add_prefix_space === false) {
      const pattern = { Regex: BYTE_LEVEL_SPLIT };
      if (fields.use_regex !== false) pretokenizers.push({ type: 'Split', pattern, behavior: 'Isolated', invert: false });
      pretokenizers.push({ type: 'ByteLevel', add_prefix_space: false, use_regex: false });
    } else if (!isLast && fields.type === 'Split' && keepsText && typeof pattern.Regex === 'string') {
      // Caseless s is also the long s. The library, which spells caselessness out, has the ASCII letters only.
      const Regex = pattern.Regex.replaceAll("(?i:'s|", "(?i:'[sſ]|");
      pretokenizers.push({ type: 'Split', pattern: { Regex }, behavior, invert });
    } else {
      const expected = isLast ? '"ByteLevel" without add_prefix_space' : '"Split" by a Regex, either "Isolated" or "Removed" and inverted';
      report(`pre_tokenizer, step ${at + 1}`, expected, kindOf(step), UNSUPPORTED);
    }
  }
  return { type: 'Sequence', pretokenizers };
}

/** Many faults of one kind: the first of them and their number make one problem. */
class Faults {
  #first = '';
  #count = 0;

  add(found: string): void {
    if (this.#count++ === 0) this.#first = found;
  }

  report(part: string, expected: string, fix: string, report: Report): void {
    if (this.#count > 0) report(part, expected, this.#count === 1 ? this.#first : `${this.#first} and ${this.#count - 1} more`, fix);
  }
}
