import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { type CausalLM, type GenerateTextOptions, type Generation, generateText } from '../src/generate.ts';
import { endOf, stops, texts } from './support/stop_oracle.ts';
import { collect, expectedTokens, refusal, Script, TableModel } from './support/table_model.ts';

const encoder = new TextEncoder();

/** One token for each byte; id 256 ends the text. */
const letters = {
  vocab_size: 257,
  encode: (text: string) => [...encoder.encode(text)],
  streamingDecoder: () => {
    const decoder = new TextDecoder();
    return { push: (id: number) => decoder.decode(Uint8Array.of(id), { stream: true }), flush: () => decoder.decode() };
  },
};

/** One token for each of some pieces of text. */
function piecesTokenizer(pieces: readonly string[]) {
  return { vocab_size: pieces.length, encode: () => [0], streamingDecoder: () => ({ push: (id: number) => pieces[id]!, flush: () => '' }) };
}

async function runText(
  model: CausalLM,
  tokenizer: Parameters<typeof generateText>[1],
  text: string | readonly number[],
  options: GenerateTextOptions = {},
) {
  const { pieces, result } = await collect<string, Generation>(generateText(model, tokenizer, text, options));
  expect(pieces.join('')).toBe(result.text);
  expect(pieces).not.toContain('');
  return { pieces, ...result };
}

describe('generateText', () => {
  const say = (text: string, end: readonly number[] = []) => new Script([...encoder.encode(text), ...end], 5, 257);

  test('pieces are whole characters', async () => {
    const { pieces, tokens, finish_reason } = await runText(say('naïve 😀!'), letters, 'Hello', { temperature: 0 });
    expect(pieces).toEqual(['n', 'a', 'ï', 'v', 'e', ' ', '😀', '!']);
    expect(tokens).toEqual([...encoder.encode('naïve 😀!')]);
    expect(finish_reason).toBe('length');
  });

  test('rows of padding behind the last token of the tokenizer are never drawn', async () => {
    const padded = new Script([300, 97, 300, 98], 5, 320); // wants 300 most, which is no letter
    const { tokens } = await runText(padded, letters, [310, 1, 1, 1, 1], { temperature: 0, max_tokens: 4 });
    expect(tokens.every((id) => id < letters.vocab_size)).toBe(true);
    expect([tokens[1], tokens[3]]).toEqual([97, 98]);
  });

  test('a character cut off by max_tokens is flushed', async () => {
    expect((await runText(say('a😀'), letters, 'Hello', { temperature: 0, max_tokens: 3 })).text).toBe('a\ufffd');
  });

  test('a stop string may come with the last characters of the decoder', async () => {
    const result = await runText(say('a😀'), letters, 'Hello', { temperature: 0, max_tokens: 3, stop: ['\ufffd'] });
    expect(result).toMatchObject({ text: 'a', finish_reason: 'stop' });
  });

  test('the stop token is in the tokens and not in the text', async () => {
    const model = say('ab', [256]);
    const { tokens, text, finish_reason } = await runText(model, letters, 'Hello', { temperature: 0, eos_token_id: [256] });
    expect({ tokens, text, finish_reason }).toEqual({ tokens: [97, 98, 256], text: 'ab', finish_reason: 'stop' });
  });

  test('what was held back for a stop string comes at the end', async () => {
    const options = { temperature: 0, stop: ['END.'] };
    expect((await runText(say('the END'), letters, 'Hello', options)).pieces.at(-1)).toBe('END');
    expect((await runText(say('the EN', [256]), letters, 'Hello', { ...options, eos_token_id: [256] })).text).toBe('the EN');
    const stopped = await runText(say('the END. More'), letters, 'Hello', options);
    expect(stopped).toMatchObject({ text: 'the ', finish_reason: 'stop' });
    expect(stopped.tokens).toHaveLength(8);
  });

  test('what was held back comes on abort, too', async () => {
    const controller = new AbortController();
    const model = say('the END. More');
    model.onForward = (call) => {
      if (call === 9) controller.abort(); // the two calls of the prompt, and seven letters
    };
    const result = await runText(model, letters, 'Hello', { temperature: 0, stop: ['END.'], signal: controller.signal });
    expect(result).toMatchObject({ text: 'the END', finish_reason: 'abort' });
  });

  test('token ids are a prompt, too, and give the same text', async () => {
    const options = { seed: 4, max_tokens: 12 };
    const model = () => new TableModel({ vocab_size: 257 });
    const from_text = await runText(model(), letters, 'Hello', options);
    expect(from_text.tokens).toEqual(expectedTokens(letters.encode('Hello'), 12, options, 257));
    expect(await runText(model(), letters, letters.encode('Hello'), options)).toEqual(from_text);
  });

  test('an aborted signal gives an empty result', async () => {
    const model = say('ab');
    const result = await runText(model, letters, 'Hello', { signal: AbortSignal.abort() });
    expect(result).toEqual({ pieces: [], tokens: [], text: '', finish_reason: 'abort' });
    expect(model.calls).toEqual([]);
  });

  test('an empty text is refused', async () => {
    expect((await refusal(generateText(say('a'), letters, ''))).problems.map(({ where }) => where)).toEqual(['prompt']);
  });

  test('stop strings cut it across token edges, at the token that completes them', async () => {
    await fc.assert(
      fc.asyncProperty(texts, stops, async (pieces, stop) => {
        const script = pieces.map((_, id) => id);
        const model = new Script(script, 1, pieces.length);
        const { tokens, text, finish_reason } = await runText(model, piecesTokenizer(pieces), 'x', { stop, temperature: 0 });
        const whole = pieces.join('');
        const end = endOf(whole, stop);
        expect(text).toBe(whole.slice(0, end));
        expect(finish_reason).toBe(end === undefined ? 'length' : 'stop');
        const needed = pieces.findIndex((_, n) => endOf(pieces.slice(0, n + 1).join(''), stop) !== undefined);
        expect(tokens).toEqual(end === undefined ? script : script.slice(0, needed + 1));
      }),
      { numRuns: 300 },
    );
  });

  test('stop strings together with the rest', async () => {
    const options = { stop: ['ok', '', '\ud83d'], top_k: -1 };
    const { problems } = await refusal(generateText(new TableModel({ vocab_size: 257 }), letters, 'abc', options));
    expect(problems.map(({ where }) => where)).toEqual(['stop[1]', 'stop[2]', 'top_k']);
  });

  test('a stop string that is in no list is refused', async () => {
    const options = { stop: 'x' as unknown as string[] };
    expect((await refusal(generateText(say('a'), letters, 'abc', options))).message).toContain(
      'stop: expected a list of strings, found "x"',
    );
  });

  test("a vocab_size that is undefined is the tokenizer's, too", async () => {
    const padded = new Script([300, 97], 5, 320);
    const { tokens } = await runText(padded, letters, 'Hello', { temperature: 0, vocab_size: undefined });
    expect(tokens.every((id) => id < letters.vocab_size)).toBe(true);
  });
});
