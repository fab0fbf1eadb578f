import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { ConfigError } from '../src/errors.ts';
import { parseGenerationConfig, readGenerationConfig } from '../src/generation_config.ts';

const parse = (json: unknown, fallback?: number | number[] | null) =>
  parseGenerationConfig(JSON.stringify(json), 'generation_config.json', fallback);

let folder: string;
beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), 'olmo-hybrid-'));
});
afterAll(() => rm(folder, { recursive: true }));

test('the release’s file', () => {
  const release = { _from_model_config: true, eos_token_id: [100265, 100257], pad_token_id: 100277, transformers_version: '5.3.0' };
  expect(parse({ ...release, do_sample: true, temperature: 0.6, top_p: 0.95 })).toEqual({
    eos_token_id: [100265, 100257],
    do_sample: true,
    temperature: 0.6,
    top_p: 0.95,
  });
});

test('eos_token_id is a number or a list, or that of config.json, or none', () => {
  expect(parse({ eos_token_id: 5 }, 7)).toEqual({ eos_token_id: [5] });
  expect(parse({ eos_token_id: [] }, 7)).toEqual({ eos_token_id: [] });
  expect(parse({ eos_token_id: null }, 7)).toEqual({ eos_token_id: [7] });
  expect(parse({}, [7, 8])).toEqual({ eos_token_id: [7, 8] });
  expect(parse({}, null)).toEqual({ eos_token_id: [] });
  expect(parse({})).toEqual({ eos_token_id: [] });
});

test('0 is a token, false and 0 are values, null is none', () => {
  const json = {
    eos_token_id: 0,
    do_sample: false,
    temperature: 0,
    top_k: 0,
    top_p: 1,
    min_p: 0,
    repetition_penalty: null,
  };
  expect(parse(json)).toEqual({
    eos_token_id: [0],
    do_sample: false,
    temperature: 0,
    top_k: 0,
    top_p: 1,
    min_p: 0,
  });
});

test.each([
  ['eos_token_id', ['1', 1.5, -2, true, [1, '2'], [[1]], {}]],
  ['do_sample', [1, 'true']],
  ['temperature', ['1', -0.1, true]],
  ['top_k', [1.5, -1, '50']],
  ['top_p', [0, 1.1, '1']],
  ['min_p', [-0.1, 1.1]],
  ['repetition_penalty', [0, -1, '1']],
  ['max_new_tokens', [-1, 1.5, '3']],
  ['suppress_tokens', [3, ['3'], [1.5]]],
])('%s of a wrong type or out of range', (key, values) => {
  for (const value of values as unknown[]) {
    expect(() => parse({ [key]: value })).toThrow(ConfigError);
    expect(() => parse({ [key]: value })).toThrow(`generation_config.json: ${key}: expected `);
  }
});

test('-1 is no token', () => {
  expect(parse({ eos_token_id: [-1, 4] })).toEqual({ eos_token_id: [4] });
  expect(parse({ eos_token_id: -1, pad_token_id: -1 }, 7)).toEqual({ eos_token_id: [] });
});

test('what HF would apply and this engine does not is named', () => {
  const neutral = {
    num_beams: 1,
    no_repeat_ngram_size: 0,
    bad_words_ids: null,
    typical_p: 1.0,
    max_length: 20,
    stop_strings: [],
    use_cache: true,
  };
  expect(parse(neutral)).toEqual({ eos_token_id: [] });
  const changes = { num_beams: 4, no_repeat_ngram_size: 2, bad_words_ids: [[3]], sequence_bias: [[[3], 5]], max_length: 100, top_h: 0.4 };
  expect(parse(changes).not_applied).toEqual(Object.keys(changes));
  expect(parse({ max_length: 100, max_new_tokens: 5 }).not_applied).toBeUndefined();
});

test('all problems at once', () => {
  try {
    parse({ eos_token_id: 'x', top_p: 2, unknown: {}, temperature: 'hot' });
    expect.unreachable();
  } catch (error) {
    const problems = (error as ConfigError).problems.map(({ where }) => where);
    expect(problems).toEqual(['eos_token_id', 'temperature', 'top_p'].map((key) => `generation_config.json: ${key}`));
  }
});

test('the file need not be there, but must not be damaged', async () => {
  expect(await readGenerationConfig(folder, 3)).toEqual({ eos_token_id: [3] });
  const path = join(folder, 'generation_config.json');
  await writeFile(path, '{"eos_token_id": [1, 2]}');
  expect(await readGenerationConfig(folder, 3)).toEqual({ eos_token_id: [1, 2] });
  for (const damaged of ['', '{"eos_token_id": [1, 2]', '[]', '{"top_p": NaN}', Buffer.from('{"x": "é"}', 'latin1')]) {
    await writeFile(path, damaged);
    await expect(readGenerationConfig(folder)).rejects.toThrow(ConfigError);
  }
});
