import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { startsThinking, type ThinkingPiece, ThinkingText } from '../src/thinking.ts';

/** Everything that comes of pieces, neighbours of one kind joined. */
function split(inside: boolean, pieces: readonly string[]): ThinkingPiece[] {
  const splitter = new ThinkingText(inside);
  return joined([...pieces.flatMap((piece) => splitter.push(piece)), ...splitter.flush()]);
}

function joined(pieces: readonly ThinkingPiece[]): ThinkingPiece[] {
  const all: ThinkingPiece[] = [];
  for (const { text, thinking } of pieces) {
    const last = all.at(-1);
    if (last?.thinking === thinking) all[all.length - 1] = { text: last.text + text, thinking };
    else all.push({ text, thinking });
  }
  return all;
}

/** The same of a whole text, by a regular expression: what lies between the tags, a tag that changes nothing being text. */
function oracle(inside: boolean, text: string): ThinkingPiece[] {
  const whole = (inside ? '<think>' : '') + text;
  const parts = whole.matchAll(/<think>(?<thinking>.*?)(?:<\/think>|$)|(?<answer>.+?)(?=<think>|$)/gs);
  return joined(
    Array.from(parts, ({ groups }) => ({ text: groups!.thinking ?? groups!.answer!, thinking: groups!.thinking !== undefined })).filter(
      (piece) => piece.text !== '',
    ),
  );
}

/** Texts of tags, their parts and other text. */
const texts = fc
  .array(fc.constantFrom('<think>', '</think>', '<', '</', '<thi', '</thin', 'nk>', 'think', '>', 'a', '\n', '😀', ' '), { maxLength: 14 })
  .map((parts) => parts.join(''));

describe('ThinkingText', () => {
  test('thinking, then an answer', () => {
    const said = { text: '\n\n4.', thinking: false };
    const thought = { text: 'Two and two.', thinking: true };
    expect(split(true, ['Two and two.</think>\n\n4.'])).toEqual([thought, said]);
    expect(split(false, ['<think>Two and two.</think>\n\n4.'])).toEqual([thought, said]);
    expect(split(false, ['\n\n4.'])).toEqual([said]);
    expect(split(true, ['Two and two.'])).toEqual([thought]);
  });

  test('any cut into pieces gives what the whole text gives', () => {
    fc.assert(
      fc.property(texts, fc.boolean(), fc.array(fc.nat(80), { maxLength: 30 }), (text, inside, cuts) => {
        const ends = [0, ...cuts.filter((cut) => cut < text.length).sort((a, b) => a - b), text.length];
        const pieces = ends.slice(1).map((end, i) => text.slice(ends[i], end));
        expect(split(inside, pieces)).toEqual(oracle(inside, text));
        expect(split(inside, text.split(''))).toEqual(oracle(inside, text));
      }),
      { numRuns: 2000 },
    );
  });

  test('holds back no more than the beginning of the tag that may come', () => {
    fc.assert(
      fc.property(texts, fc.boolean(), (text, inside) => {
        const splitter = new ThinkingText(inside);
        splitter.push(text);
        for (const { text: held, thinking } of splitter.flush()) {
          const tag = thinking ? '</think>' : '<think>';
          expect(held.length).toBeLessThan(tag.length);
          expect(tag.startsWith(held)).toBe(true);
        }
      }),
    );
  });

  test('gives no empty pieces, and nothing twice', () => {
    const splitter = new ThinkingText(false);
    expect(splitter.push('')).toEqual([]);
    expect(splitter.push('<think></think><thi')).toEqual([]);
    expect(splitter.flush()).toEqual([{ text: '<thi', thinking: false }]);
    expect(splitter.flush()).toEqual([]);
  });
});

test('a prompt that ends with the opening tag', () => {
  expect(startsThinking('<|im_start|>assistant\n<think>')).toBe(true);
  expect(startsThinking('<|im_start|>assistant\n<think>\n')).toBe(true);
  expect(startsThinking('<|im_start|>assistant\n')).toBe(false);
  expect(startsThinking('<|im_start|>user\n<think><|im_end|>\n<|im_start|>assistant\n')).toBe(false);
  expect(startsThinking('<think></think>')).toBe(false);
});
