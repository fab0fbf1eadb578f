import { existsSync, readFileSync } from 'node:fs';
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { Tokenizer as HuggingFaceTokenizer } from '@huggingface/tokenizers';
import fc from 'fast-check';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { TokenizerError } from '../src/errors.ts';
import { StreamingDecoder } from '../src/streaming_decoder.ts';
import { Tokenizer } from '../src/tokenizer.ts';

interface Encoded {
  readonly text: string;
  readonly ids: number[];
}

interface Golden {
  readonly texts: Encoded[];
  readonly plain: Encoded[];
  readonly sequences: { readonly ids: number[]; readonly decoded: string; readonly skipped: string }[];
  readonly byte_level?: Encoded[];
}

interface Json {
  added_tokens: Record<string, unknown>[];
  pre_tokenizer: unknown;
  decoder: unknown;
  normalizer: unknown;
  model: Record<string, unknown> & { vocab: Record<string, unknown>; merges: unknown[] };
}

const root = fileURLToPath(new URL('..', import.meta.url));
const read = (path: string) => readFileSync(join(root, path), 'utf8');
const fixture = read('golden/tokenizer/tokenizer.json');
const golden: Golden = JSON.parse(read('golden/tokenizer/texts.json'));
const tokenizer = Tokenizer.fromJson(fixture);

/** The fixture with a change. */
function changed(change: (json: Json) => void): string {
  const json: Json = JSON.parse(fixture);
  change(json);
  return JSON.stringify(json);
}

/** Whether a round trip and both encodings are HF's, by text, so that a failure names the texts. */
function disagreements(subject: Tokenizer, { texts, plain, sequences }: Golden): unknown[] {
  const same = (a: readonly number[], b: readonly number[]) => a.length === b.length && a.every((id, at) => id === b[at]);
  return [
    ...texts.filter(({ text, ids }) => !same(subject.encode(text), ids) || subject.decode(ids) !== text),
    ...plain.filter(({ text, ids }) => !same(subject.encodeText(text), ids)),
    ...sequences.filter(
      ({ ids, decoded, skipped }) => subject.decode(ids) !== decoded || subject.decode(ids, { skip_special_tokens: true }) !== skipped,
    ),
  ];
}

describe('HF tokenizers', () => {
  test('added tokens that are normalized are looked for in what the others leave', () => {
    interface Case {
      readonly added_tokens: Record<string, unknown>[];
      readonly texts: [text: string, ids: number[], plain: number[]][];
    }
    const { cases } = JSON.parse(read('golden/tokenizer/added_tokens.json')) as { cases: Case[] };
    for (const { added_tokens, texts } of cases) {
      const subject = Tokenizer.fromJson(changed((json) => void json.added_tokens.push(...added_tokens)));
      expect(texts.map(([text]) => [text, subject.encode(text), subject.encodeText(text)])).toEqual(texts);
    }
  });

  test('a tokenizer of the release’s shape gives the same ids and texts', async () => {
    expect(golden.texts.length).toBeGreaterThan(300);
    expect(disagreements(await Tokenizer.fromFolder(join(root, 'golden/tokenizer')), golden)).toEqual([]);
  });

  test.runIf(existsSync(join(root, 'src/embedded/tokenizer.json')))('so does the embedded one', async () => {
    const embedded: Golden = JSON.parse(read('golden/tokenizer/embedded_texts.json'));
    expect(embedded.texts.length).toBeGreaterThan(300);
    expect(disagreements(await Tokenizer.fromFolder(join(root, 'src/embedded')), embedded)).toEqual([]);
  });

  test('the other spellings of the same tokenizer mean the same', () => {
    const isolated = changed(({ pre_tokenizer }) => {
      Object.assign((pre_tokenizer as { pretokenizers: object[] }).pretokenizers[0]!, { behavior: 'Isolated', invert: false });
    });
    expect(disagreements(Tokenizer.fromJson(isolated), golden)).toEqual([]);
    const joinedMerges = changed(({ model }) => {
      model.merges = model.merges.map((pair) => (pair as string[]).join(' '));
    });
    expect(disagreements(Tokenizer.fromJson(joinedMerges), golden)).toEqual([]);
  });

  test('ByteLevel alone splits by its own pattern', () => {
    const byte_level = changed((json) => {
      json.pre_tokenizer = { type: 'ByteLevel', add_prefix_space: false, trim_offsets: true, use_regex: true };
    });
    const texts = golden.byte_level!;
    expect(texts.length).toBeGreaterThan(100);
    expect(disagreements(Tokenizer.fromJson(byte_level), { texts, plain: [], sequences: [] })).toEqual([]);
  });

  test('ignore_merges takes a whole word where it is a token', () => {
    const merges = changed(({ model }) => {
      model.merges = model.merges.slice(0, 10);
    });
    const word = 'Ġthe';
    expect(Tokenizer.fromJson(merges).encode(' the').length).toBeGreaterThan(1);
    const json: Json = JSON.parse(merges);
    json.model.ignore_merges = true;
    const whole = Tokenizer.fromJson(JSON.stringify(json));
    expect(whole.encode(' the')).toEqual([whole.idOf(word)]);

    json.added_tokens.push({ id: json.model.vocab[word], content: word, special: true });
    expect(Tokenizer.fromJson(JSON.stringify(json)).encodeText(' the').length).toBeGreaterThan(1);
  });
});

describe('laws', () => {
  const pieces = fc.constantFrom(...golden.texts.map(({ text }) => text).filter((text) => text.length < 40));
  const anyText = fc.oneof(
    fc.string({ unit: 'binary', maxLength: 60 }),
    fc.string({ unit: 'grapheme', maxLength: 60 }),
    fc.array(pieces, { maxLength: 6 }).map((parts) => parts.join('')),
    fc.array(fc.constantFrom(' ', '  ', 'a', 'e', 't', 'th', '\n', '=', 'é', '漢'), { maxLength: 200 }).map((parts) => parts.join('')),
  );
  const anyIds = fc.array(
    fc.oneof(fc.nat(tokenizer.vocab_size - 1), fc.nat(255), fc.constantFrom(...tokenizer.specialIds)), // the first 256 are single bytes
    { maxLength: 40 },
  );

  test('decode gives back what was encoded, special or not', () => {
    fc.assert(
      fc.property(anyText, (text) => {
        expect(tokenizer.decode(tokenizer.encode(text))).toBe(text);
        expect(tokenizer.decode(tokenizer.encodeText(text))).toBe(text);
      }),
      { numRuns: 300 },
    );
  });

  test('the merges are those of the library, which are those of HF', () => {
    const library = new HuggingFaceTokenizer(JSON.parse(fixture), { clean_up_tokenization_spaces: false });
    fc.assert(
      fc.property(anyText, (text) => {
        fc.pre(!/'ſ/.test(text)); // here the library's split is not HF's, see the goldens
        expect(tokenizer.encode(text)).toEqual(library.encode(text, { add_special_tokens: false }).ids);
      }),
      { numRuns: 300 },
    );
  });

  test('no text has special ids when encoded as plain text', () => {
    const hostile = fc.array(fc.constantFrom(...tokenizer.specialTokens.keys(), '<|', '|>', 'im_end', ' ', 'a'), { maxLength: 12 });
    fc.assert(
      fc.property(hostile, (parts) => {
        const ids = tokenizer.encodeText(parts.join(''));
        expect(ids.filter((id) => tokenizer.specialIds.has(id))).toEqual([]);
      }),
    );
  });

  test('the streamed text is the decoded text, and only an unfinished character is ever held back', () => {
    fc.assert(
      fc.property(anyIds, fc.boolean(), (ids, skip_special_tokens) => {
        const decoder = tokenizer.streamingDecoder({ skip_special_tokens });
        let streamed = '';
        for (const [at, id] of ids.entries()) {
          const piece = decoder.push(id);
          expect(piece).not.toMatch(/\p{Surrogate}/u);
          streamed += piece;
          const sofar = tokenizer.decode(ids.slice(0, at + 1), { skip_special_tokens });
          expect([streamed, `${streamed}\uFFFD`]).toContain(sofar);
        }
        streamed += decoder.flush();
        expect(streamed).toBe(tokenizer.decode(ids, { skip_special_tokens }));
      }),
      { numRuns: 500 },
    );
  });

  test('every text streams without a replacement character that it does not have', () => {
    for (const { text, ids } of golden.texts) {
      const decoder = tokenizer.streamingDecoder();
      const pieces = ids.map((id) => decoder.push(id));
      expect(pieces.join('') + decoder.flush()).toBe(text);
      if (!text.includes('\uFFFD')) expect(pieces.join('')).not.toContain('\uFFFD');
    }
  });
});

test('streaming looks at each token once', () => {
  const asked: number[] = [];
  const decoder = new StreamingDecoder((id) => {
    asked.push(id);
    return Uint8Array.of(0xe6, 0xbc, 0xa2).subarray(id, id + 1); // 漢
  });
  expect([0, 1, 2, 0, 1, 2].map((id) => decoder.push(id))).toEqual(['', '', '漢', '', '', '漢']);
  expect(decoder.push(0) + decoder.flush()).toBe('\uFFFD');
  expect(decoder.flush()).toBe('');
  expect(asked).toEqual([0, 1, 2, 0, 1, 2, 0]);
});

test('what it says of itself', () => {
  expect(tokenizer.vocab_size).toBe(1513);
  expect(tokenizer.idOf('<|im_end|>')).toBe(tokenizer.specialTokens.get('<|im_end|>'));
  expect([...tokenizer.specialTokens.keys()]).toEqual([
    '<|endoftext|>',
    '<|fim_prefix|>',
    '<|fim_suffix|>',
    '<|im_start|>',
    '<|im_end|>',
    '<|endofprompt|>',
    '<|pad|>',
    '<|über uns|>',
  ]);
  expect(tokenizer.idOf('no such token')).toBeUndefined();
});

/** Processor time, which other processes on the machine do not lengthen. */
function cpu_ms(): number {
  const { user, system } = process.cpuUsage();
  return (user + system) / 1000;
}

describe('length', () => {
  // Spaces are the worst for the merge loop of the library, where 1 MB takes the better part of a minute.
  const words = { spaces: ' ', 'mixed letters': 'thequickbrownfoxjumpsoverthelazydog' };

  test.each(Object.entries(words))('a single word of 2 MB of %s takes time in proportion', (_, unit) => {
    const time_ms = (length: number): number => {
      const text = unit.repeat(length / unit.length);
      const start = cpu_ms();
      const ids = tokenizer.encode(text);
      const elapsed = cpu_ms() - start;
      expect(tokenizer.decode(ids)).toBe(text);
      return elapsed;
    };
    time_ms(100_000);
    const quarter = time_ms(500_000);
    // Four times as long: n log n takes 4.5 times the time, n^2 takes 16 times. The rest is for the garbage collector.
    expect(time_ms(2_000_000) / quarter).toBeLessThan(10);
  });

  test('a run of spaces has the tokens it has in any length', () => {
    const longest = tokenizer.encode(' '.repeat(16));
    expect(longest).toHaveLength(1);
    expect(tokenizer.encode(' '.repeat(16 * 50_000))).toEqual(Array(50_000).fill(longest[0]));
  });
});

describe('what is refused', () => {
  test.each([
    ['a lone high surrogate', 'ab\uD83D', 'U+D83D at index 2'],
    ['a lone low surrogate', '\uDE42 ', 'U+DE42 at index 0'],
    ['surrogates in the wrong order', 'x\uDE42\uD83D', 'U+DE42 at index 1'],
  ])('%s', (_, text, message) => {
    expect(() => tokenizer.encode(text)).toThrow(TokenizerError);
    expect(() => tokenizer.encodeText(text)).toThrow(message);
  });

  test.each([[-1], [1513], [1e9], [0.5], [Number.NaN]])('the id %d, of no token', (id) => {
    expect(() => tokenizer.decode([0, id])).toThrow(TokenizerError);
    expect(() => tokenizer.decode([id], { skip_special_tokens: true })).toThrow(`found ${id}`);
    expect(() => tokenizer.streamingDecoder().push(id)).toThrow(TokenizerError);
  });

  test('no ids are no text', () => {
    expect(tokenizer.decode([])).toBe('');
    expect(tokenizer.encode('')).toEqual([]);
  });

  test('a tokenizer.json cut anywhere, in under 50 ms', () => {
    const start = cpu_ms();
    let cuts = 0;
    for (let end = 0; end < fixture.trimEnd().length; end += 997, cuts++) {
      expect(() => Tokenizer.fromJson(fixture.slice(0, end))).toThrow(TokenizerError);
    }
    expect((cpu_ms() - start) / cuts).toBeLessThan(50);
  });

  test('bytes that are not UTF-8, a byte order mark, JSON that is no object', () => {
    const latin1 = Buffer.from(fixture.replace('"version": "1.0"', '"version": "é"'), 'latin1');
    expect(() => Tokenizer.fromJson(latin1)).toThrow('tokenizer.json: expected UTF-8 text');
    for (const json of [Uint8Array.of(0xff, 0xfe), '\uFEFF{}', '[]', 'null', '3', '"{}"']) {
      expect(() => Tokenizer.fromJson(json)).toThrow(TokenizerError);
    }
  });

  const added = (change: Record<string, unknown>) => (json: Json) => {
    Object.assign(json.added_tokens[1]!, change);
  };
  const model = (change: (model: Json['model']) => void) => (json: Json) => change(json.model);
  const split = (change: Record<string, unknown>) => (json: Json) => {
    Object.assign((json.pre_tokenizer as { pretokenizers: object[] }).pretokenizers[0]!, change);
  };
  const wrong: [name: string, change: (json: Json) => void, message: string][] = [
    ['no model', (json) => Object.assign(json, { model: undefined }), 'model: expected type "BPE", found nothing'],
    ['another model', model((m) => Object.assign(m, { type: 'Unigram' })), 'found "Unigram"'],
    ['a normalizer', (json) => Object.assign(json, { normalizer: { type: 'NFC' } }), 'normalizer: expected null'],
    ['another decoder', (json) => Object.assign(json, { decoder: { type: 'Metaspace' } }), 'decoder: expected type "ByteLevel"'],
    ['no decoder', (json) => Object.assign(json, { decoder: null }), 'decoder: expected type "ByteLevel", found null'],
    ['no pre-tokenizer', (json) => Object.assign(json, { pre_tokenizer: null }), 'pre_tokenizer, step 1'],
    [
      'a prefix space',
      (json) => Object.assign(json, { pre_tokenizer: { type: 'ByteLevel', add_prefix_space: true } }),
      'without add_prefix_space',
    ],
    ['a split that merges', split({ behavior: 'MergedWithNext', invert: false }), 'pre_tokenizer, step 1'],
    ['a split that removes', split({ invert: false }), 'pre_tokenizer, step 1'],
    ['a faulty pattern', split({ pattern: { Regex: '(' } }), 'regular expression'],
    ['dropout', model((m) => Object.assign(m, { dropout: 0.1 })), 'model.dropout: expected null, found 0.1'],
    ['a suffix', model((m) => Object.assign(m, { end_of_word_suffix: '</w>' })), 'model.end_of_word_suffix'],
    ['no vocab', model((m) => Object.assign(m, { vocab: [] })), 'model.vocab: expected an object'],
    ['an id of the wrong type', model(({ vocab }) => Object.assign(vocab, { zz: '7' })), 'found "7" for "zz"'],
    ['a negative id', model(({ vocab }) => Object.assign(vocab, { zz: -1 })), 'found -1 for "zz"'],
    ['an id twice', model(({ vocab }) => Object.assign(vocab, { zz: 3 })), 'found 3 for both "$" and "zz"'],
    ['a byte without a token', model(({ vocab }) => Reflect.deleteProperty(vocab, 'q')), 'found 255, without "q"'],
    ['no merges', model((m) => Object.assign(m, { merges: {} })), 'model.merges: expected an array'],
    ['a merge of three', model(({ merges }) => merges.push(['a', 'b', 'c'], 'x')), 'found ["a","b","c"] and 1 more'],
    ['a merge of no tokens', model(({ merges }) => merges.push(['a', '\u{1F642}'])), 'found ["a","\u{1F642}"]'],
    ['a merge to no token', model(({ merges }) => merges.push(['q', 'z'])), 'found ["q","z"]'],
    ['added tokens of the wrong type', (json) => Object.assign(json, { added_tokens: {} }), 'added_tokens: expected an array'],
    ['an added token without an id', added({ id: null }), 'added_tokens: expected an id'],
    ['an added token without a text', added({ content: '' }), 'added_tokens: expected an id'],
    ['an added token with the id of another', added({ id: 3 }), 'found 3 for "<|endoftext|>"'],
    ['an added token with the text of another', added({ content: '<|extra_id_0|>' }), 'found 1501 for "<|extra_id_0|>"'],
    ['an added token with the text of a word', added({ content: 'Ġthe' }), 'found 1501 for "Ġthe"'],
    ['an added token twice', ({ added_tokens }) => added_tokens.push(added_tokens[0]!), 'found 1500 for "<|extra_id_0|>"'],
    ['an added token that takes spaces', added({ lstrip: true }), 'found lstrip for "<|endoftext|>"'],
    ['a special token that is a byte', added({ content: 'q', id: 80 }), 'found 255, without "q"'],
  ];

  test.each(wrong)('%s', (_, change, message) => {
    expect(() => Tokenizer.fromJson(changed(change), 'the/file')).toThrow(TokenizerError);
    expect(() => Tokenizer.fromJson(changed(change), 'the/file')).toThrow(message);
    expect(() => Tokenizer.fromJson(changed(change), 'the/file')).toThrow('the/file: ');
  });

  test('a special token that merges make: no plain text may become it', () => {
    const json = changed((json) => {
      const id = json.model.vocab.Ġthe;
      json.added_tokens.push({ id, content: 'Ġthe', special: true });
    });
    expect(() => Tokenizer.fromJson(json)).toThrow('pairs of tokens that join to a token, none of them special');
  });

  test('all problems at once', () => {
    const json = changed((json) => {
      for (const [, change] of wrong.filter(([name]) => ['dropout', 'no merges', 'a normalizer'].includes(name))) change(json);
    });
    try {
      Tokenizer.fromJson(json);
      expect.unreachable();
    } catch (error) {
      expect((error as TokenizerError).problems.map(({ where }) => where)).toEqual([
        'tokenizer.json: normalizer',
        'tokenizer.json: model.dropout',
        'tokenizer.json: model.merges',
      ]);
    }
  });

  describe('folders', () => {
    let folder: string;
    beforeAll(async () => {
      folder = await mkdtemp(join(tmpdir(), 'olmo-hybrid-'));
    });
    afterAll(() => rm(folder, { recursive: true }));

    test('without a tokenizer.json, with a damaged one, and those that are none', async () => {
      await expect(Tokenizer.fromFolder(folder)).rejects.toThrow(/tokenizer\.json: expected a tokenizer, found no such file/);
      await writeFile(join(folder, 'tokenizer.json'), fixture.slice(0, 5000));
      await expect(Tokenizer.fromFolder(folder)).rejects.toThrow(/tokenizer\.json: expected JSON, found /);
      await expect(Tokenizer.fromFolder(join(folder, 'tokenizer.json'))).rejects.toThrow(TokenizerError);
      await expect(Tokenizer.fromFolder(join(folder, 'none'))).rejects.toThrow(TokenizerError);
    });
  });
});
