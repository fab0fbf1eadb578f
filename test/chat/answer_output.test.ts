import { afterEach, describe, expect, test, vi } from 'vitest';
import { type AnswerOutput, PipedAnswer, ShownAnswer } from '../../src/cli/chat_output.ts';

afterEach(() => vi.restoreAllMocks());

/** What an answer in pieces writes, cut in any way. */
function written(output: AnswerOutput, text: string, opening: string, length: number): { stdout: string; stderr: string } {
  const taken = { stdout: '', stderr: '' };
  for (const name of ['stdout', 'stderr'] as const) {
    vi.spyOn(process[name], 'write').mockImplementation((piece) => {
      taken[name] += String(piece);
      return true;
    });
  }
  output.begin({ opening, tokens: 3, cached_tokens: 0 });
  for (let at = 0; at < text.length; at += length) output.push(text.slice(at, at + length));
  output.end();
  vi.restoreAllMocks();
  return taken;
}

const answers = [
  ['Hello there.', '', 'Hello there.', ''],
  ['It is so.\n</think>\n\nYes, it\n  is.', '<think>', 'Yes, it\n  is.', 'It is so.\n'],
  ['<think>Hm.</think>No.<think>Or so?</think> Yes.', '', 'No.Yes.', 'Hm.'],
  ['It goes on', '<think>', '', 'It goes on'],
  ['</think>At once', '<think>', 'At once', ''],
  ['a < b and <thin ice', '', 'a < b and <thin ice', ''],
] as const;

describe.each([1, 2, 5, 100])('in pieces of %i', (length) => {
  test.each(answers)('%j after %j, for a program: the answer alone is on stdout', (text, opening, answer, thought) => {
    const shown = written(new PipedAnswer(false), text, opening, length);
    expect(shown.stdout).toBe(`${answer}\n`);
    expect(shown.stderr.startsWith(thought)).toBe(true);
    expect(shown.stderr === '').toBe(thought === '');
    expect(written(new PipedAnswer(true), text, opening, length)).toEqual({ stdout: `${answer}\n`, stderr: '' });
  });

  test('for a person: thoughts and answer with an empty line between them, without spaces at their ends', () => {
    const show = (text: string, opening: string, hide = false) => written(new ShownAnswer(hide, () => 5), text, opening, length).stdout;
    expect(show('\nIt is\n so. \n\n</think>\n\nYes,\n\nit is. \n\n', '<think>')).toBe('It is\n so.\n\nYes,\n\nit is.\n');
    expect(show('It is so.</think>Yes.', '<think>')).toBe('It is so.\n\nYes.\n');
    expect(show('It is so.</think>\n\nYes.', '<think>', true)).toBe('Yes.\n');
    expect(show('It is so', '<think>', true)).toBe('');
    expect(show('', '')).toBe('');
  });
});
