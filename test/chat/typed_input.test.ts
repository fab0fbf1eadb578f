import { PassThrough } from 'node:stream';
import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { readMessage } from '../../src/cli/chat_input.ts';
import { PastedText } from '../../src/cli/pasted_text.ts';

const BEGIN = '\x1b[200~';
const END = '\x1b[201~';

/** The keys that readline gets of chunks. */
async function keysOf(chunks: readonly string[], onInterrupt: (() => void) | null = null): Promise<string> {
  const source = new PassThrough();
  const pasted = new PastedText(source as unknown as NodeJS.ReadStream);
  pasted.onInterrupt = onInterrupt;
  let keys = '';
  pasted.setEncoding('utf8').on('data', (text: string) => {
    keys += text;
  });
  for (const chunk of chunks) source.write(chunk);
  source.end();
  await new Promise((resolve) => pasted.once('end', resolve));
  return keys;
}

describe('a pasted text', () => {
  test('becomes one line, in which nothing is a key', async () => {
    const keys = await keysOf([`ab${BEGIN}one\r\ntwo\n\tthree\x03\x1b[A\x04${END}c\r`]);
    expect(keys).toBe('ab' + 'one␤two␤    three[A' + 'c\r');
    const pasted = new PastedText(new PassThrough() as unknown as NodeJS.ReadStream);
    expect(pasted.restored('one␤two')).toBe('one\ntwo');
  });

  test('however it is cut into chunks', async () => {
    const text = `x${BEGIN}a\nb${END}y${BEGIN}\x1b\x1b[2é${END}\x1b[A`;
    const whole = await keysOf([text]);
    const cuts = fc.uniqueArray(
      fc
        .integer({ min: 1, max: text.length - 1 })
        .filter((at) => !text.slice(0, at).endsWith('\x1b') && !text.slice(0, at).endsWith('\x1b[')),
    );
    await fc.assert(
      fc.asyncProperty(cuts, async (inner) => {
        const at = [0, ...inner.sort((a, b) => a - b), text.length];
        expect(await keysOf(at.slice(1).map((end, i) => text.slice(at[i], end)))).toBe(whole);
      }),
    );
  });

  test('its end is found even where Escape comes alone', async () => {
    expect(await keysOf([`${BEGIN}a\x1b`, '[201~b'])).toBe('ab');
    expect(await keysOf([`${BEGIN}a`, '\x1b[', '201~', 'b'])).toBe('ab');
  });

  test('Escape and arrows go through at once', async () => {
    const source = new PassThrough();
    const pasted = new PastedText(source as unknown as NodeJS.ReadStream);
    const read: string[] = [];
    pasted.setEncoding('utf8').on('data', (text: string) => read.push(text));
    for (const key of ['\x1b', '\x1b[', 'A']) {
      source.write(key);
      await new Promise(setImmediate);
    }
    expect(read).toEqual(['\x1b', '\x1b[', 'A']);
  });
});

test('while an answer is given, Ctrl-C ends it and is no key; at other times it is', async () => {
  let interrupted = 0;
  const count = () => {
    interrupted += 1;
  };
  expect(await keysOf(['typed', 'ahead\x03', 'after'], count)).toBe('typedaheadafter');
  expect(interrupted).toBe(1);
  expect(await keysOf([`${BEGIN}\x03${END}`], count)).toBe('');
  expect(interrupted).toBe(1);
  expect(await keysOf(['a\x03b'])).toBe('a\x03b');
});

describe('a message of several lines', () => {
  const read = async (lines: readonly string[]) => {
    const asked: boolean[] = [];
    const left = [...lines];
    const messages: (string | null)[] = [];
    do {
      messages.push(
        await readMessage(async (sameMessage) => {
          asked.push(sameMessage);
          return left.shift() ?? null;
        }),
      );
    } while (messages.at(-1) !== null);
    return { messages: messages.slice(0, -1), asked };
  };

  test.each<[readonly string[], readonly string[]]>([
    [
      ['one', 'two'],
      ['one', 'two'],
    ],
    [
      ['one\\', 'two\\', '', 'three'],
      ['one\ntwo\n', 'three'],
    ],
    [['one\\'], ['one']],
    [
      ['"""one"""', 'two'],
      ['one', 'two'],
    ],
    [['"""', 'one', '', 'two\\', '"""'], ['one\n\ntwo\\']],
    [
      ['"""one', 'two"""', 'three'],
      ['one\ntwo', 'three'],
    ],
    [['"""', 'never ends'], ['never ends']],
    [['"""'], ['']],
    [['""" "', '"""'], [' "']],
    [['one """two"""'], ['one """two"""']],
    [[''], ['']],
  ])('%j: %j', async (lines, messages) => {
    expect((await read(lines)).messages).toEqual(messages);
  });

  test('who asks for lines learns whether the message goes on', async () => {
    expect((await read(['a\\', 'b', 'c'])).asked).toEqual([false, true, false, false]);
  });
});
