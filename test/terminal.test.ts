import type { WriteStream } from 'node:tty';
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { columnsOf, textOutput, WordWrap } from '../src/cli/terminal.ts';

const word = fc.string({ unit: fc.constantFrom('a', 'é', '—', '😀', '.'), minLength: 1, maxLength: 9 });
const prose = fc
  .array(fc.tuple(word, fc.constantFrom(' ', ' ', ' ', '\n', '\n\n')), { maxLength: 40 })
  .map((pairs) => pairs.flat().join(''));
const columns = fc.integer({ min: 20, max: 60 });

/** What a terminal of some width gets of a text that arrives in pieces. */
function wrapped(pieces: readonly string[], width: number): string {
  let written = '';
  const wrap = new WordWrap(
    (text) => {
      written += text;
    },
    () => width,
  );
  for (const piece of pieces) wrap.push(piece);
  wrap.end();
  return written;
}

describe('WordWrap', () => {
  it('writes every word whole, in lines that fit', () => {
    fc.assert(
      fc.property(prose, columns, (text, width) => {
        const written = wrapped([text], width);
        expect(written.split(/\s+/)).toEqual(`${text.trimEnd()}\n`.split(/\s+/));
        for (const line of written.split('\n')) expect([...line].length).toBeLessThanOrEqual(width);
      }),
    );
  });

  it('breaks a line only where the next word does not fit, and keeps the breaks of the text', () => {
    expect(wrapped(['one two three four'], 9)).toBe('one two\nthree\nfour\n');
    expect(wrapped(['one two\nthree four'], 9)).toBe('one two\nthree\nfour\n');
    expect(wrapped(['one\n\n  two'], 20)).toBe('one\n\n  two\n');
    expect(wrapped(['one two'], 7)).toBe('one two\n');
    expect(wrapped(['one two'], 6)).toBe('one\ntwo\n');
  });

  it('does not depend on the pieces', () => {
    fc.assert(
      fc.property(prose, columns, fc.array(fc.nat(200)), (text, width, cuts) => {
        const at = [0, ...cuts.map((cut) => Math.min(cut, text.length)).sort((a, b) => a - b), text.length];
        const pieces = at.slice(1).map((end, i) => text.slice(at[i], end));
        fc.pre(pieces.every((piece) => !/\p{Surrogate}/u.test(piece))); // decoders give whole characters
        expect(wrapped(pieces, width)).toBe(wrapped([text], width));
      }),
    );
  });

  it('writes a word when it is complete, and one as wide as the terminal at once', () => {
    const written: string[] = [];
    const wrap = new WordWrap(
      (text) => written.push(text),
      () => 4,
    );
    wrap.push('ab');
    expect(written).toEqual([]);
    wrap.push(' ');
    expect(written).toEqual(['ab']);
    wrap.push('一二三四五');
    expect(written.join('')).toBe('ab\n一二三四');
  });

  it('lets no control character through to the terminal', () => {
    expect(wrapped(['a\x1b[2Jb\u009bc\rd\te'], 80)).toBe('a\\u{1b}[2Jb\\u{9b}c\\u{d}d\te\n');
  });
});

it('a terminal whose size nobody has set has lines of 80 columns', () => {
  let written = '';
  const write = (text: string) => {
    written += text;
    return true;
  };
  const terminal = { isTTY: true, columns: 0, write } as unknown as WriteStream;
  const output = textOutput(terminal);
  output.push('It was a truth');
  output.end();
  expect(written).toBe('It was a truth\n');
  expect([columnsOf(terminal), columnsOf({ columns: 40 } as WriteStream)]).toEqual([80, 40]);
});
