import { describe, expect, test } from 'vitest';
import { SPECIAL_MARK } from '../../src/chat_template.ts';
import { idsOf, type Passage, weave } from '../../src/chat/transcript.ts';
import { Tokenizer } from '../../src/tokenizer.ts';
import { repository } from '../support/models.ts';

const tokenizer = await Tokenizer.fromFolder(repository('golden/tokenizer'));
const END = `${SPECIAL_MARK}<|im_end|>`;
const asked: Passage = { text: `Q:${SPECIAL_MARK}<|im_start|>`, ids: [81, 25, 1505], generated: false };
/** Letter by letter, as the tokenizer would not. */
const answer = (text: string): Passage => ({ text, ids: [...text].flatMap((letter) => tokenizer.encode(letter)), generated: true });
const woven = (said: string, now: string) =>
  weave(tokenizer, [asked, answer(said)], asked.text + now).map(({ text, generated }) => [text, generated]);

describe('an answer keeps its ids', () => {
  test.each([
    ['as it was', 'the man', `the man${END}`, END],
    ['where the template trims its end', 'the man \n', `the man${END}`, END],
    ['where the template trims both ends', ' the man \n', `the man${END}`, END],
    ['where all of it is spaces', ' \n', `${END}`, END],
    ['where it is empty', '', `${END}`, END],
    ['where more was added', 'the', `the man${END}`, ` man${END}`],
  ])('%s', (_, said, now, rest) => {
    expect(woven(said, now)).toEqual([
      [asked.text, false],
      [said, true],
      [rest, false],
    ]);
    expect(idsOf(weave(tokenizer, [asked, answer(said)], asked.text + now))).toEqual([
      ...asked.ids,
      ...answer(said).ids,
      ...tokenizer.encode(rest.replaceAll(SPECIAL_MARK, '')),
    ]);
  });
});

describe('and is encoded anew', () => {
  test.each([
    ['where it was changed', 'the man', `the men${END}`],
    ['where spaces were trimmed and words added', 'the ', `the_man${END}`],
    ['where it was trimmed, and what follows may be part of it', ' the', `the man${END}`],
    ['where it was left out', 'the man', `${END}`],
    ['where a token of the template stands for its text', 'the <|im_end|>', `the ${END}`],
  ])('%s', (_, said, now) => {
    expect(woven(said, now)).toEqual([
      [asked.text, false],
      [now, false],
    ]);
  });

  test('with all that follows a passage that was changed', () => {
    expect(woven('a', 'b').length).toBe(2);
    expect(weave(tokenizer, [asked, answer('a')], `P${asked.text}a${END}`)).toHaveLength(1);
  });
});

test('what ends with a passage is encoded, so that there is something to run', () => {
  expect(woven('the man', 'the man')).toEqual([
    [asked.text, false],
    ['the man', false],
  ]);
  expect(weave(tokenizer, [asked], asked.text)).toEqual([{ ...asked, ids: tokenizer.encode('Q:<|im_start|>') }]);
});
