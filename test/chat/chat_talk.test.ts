import { afterEach, describe, expect, test, vi } from 'vitest';
import { readChatTemplate } from '../../src/chat_template.ts';
import { Conversation } from '../../src/chat/conversation.ts';
import { saveSession } from '../../src/chat/session_file.ts';
import { sessionModel } from '../../src/chat/session_model.ts';
import { StateCheckpoints } from '../../src/chat/state_checkpoints.ts';
import { Talk } from '../../src/cli/chat_talk.ts';
import { loadModel } from '../../src/load.ts';
import { Tokenizer } from '../../src/tokenizer.ts';
import { EOS, writeChatModel } from '../support/chat_model.ts';
import { sharedFolder } from '../support/command_line.ts';

const folder = await sharedFolder();
const dir = await writeChatModel(folder);

/** A talk with a person, who interrupts every answer at its sixth piece, or where `pieces` says. */
async function begin(context: number) {
  const { model, plan } = await loadModel(dir, { context, prefill_chunk: 16 });
  const checkpoints = new StateCheckpoints(model, {});
  const options = { eos_token_id: EOS, temperature: 1, seed: 1 };
  const conversation = new Conversation(checkpoints, await Tokenizer.fromFolder(dir), (await readChatTemplate(dir))!, options);
  const person = { pieces: 6, controller: new AbortController() };
  let said = '';
  vi.spyOn(process.stderr, 'write').mockImplementation((text) => {
    said += text;
    return true;
  });
  let left = 0;
  const output = {
    begin: () => {
      left = person.pieces;
      if (left === 0) person.controller.abort();
    },
    push: () => {
      left -= 1;
      if (left === 0) person.controller.abort();
    },
    end: () => {},
  };
  const input = {
    forPerson: true,
    interrupted: false,
    read: async () => null,
    close: () => {},
    whileAnswering: <T>(answer: (signal: AbortSignal) => Promise<T>) => {
      person.controller = new AbortController();
      return answer(person.controller.signal);
    },
  };
  const flags = { kernels: 'wasm', mode: 'strict' } as const;
  const talk = new Talk({ conversation, input, output, dir, plan, flags, sampling: {} });
  const notes = async (what: () => Promise<void> | void) => {
    said = '';
    await what();
    return said;
  };
  const users = () => conversation.messages.filter(({ role }) => role === 'user').map(({ content }) => content);
  return { conversation, plan, talk, person, notes, users };
}

afterEach(() => vi.restoreAllMocks());

const LONG = 'word '.repeat(40).trim();

describe('/drop', () => {
  test('after an /edit that did not fit says it in place of the last message', async () => {
    const { talk, notes, users } = await begin(512);
    for (const text of ['One', 'word '.repeat(80), 'Three']) await talk.say(text);
    expect(await notes(() => talk.edit(LONG))).toContain('/drop');
    await talk.drop();
    expect(users().at(-1)).toBe(LONG);
    expect(users()).not.toContain('Three');
  });

  test('after a message that did not fit says it after the last one', async () => {
    const { talk, notes, users } = await begin(512);
    for (const text of ['One', 'word '.repeat(80), 'Three']) await talk.say(text);
    expect(await notes(() => talk.say(LONG))).toContain('/drop');
    await talk.drop();
    expect(users().slice(-2)).toEqual(['Three', LONG]);
  });

  test('says nothing that waited before another conversation was loaded', async () => {
    const { talk, conversation, plan, notes, users } = await begin(512);
    const path = `${folder}/loaded.session`;
    await talk.say('Saved');
    await saveSession(path, conversation, await sessionModel(dir, plan, 'wasm'));
    for (const text of ['word '.repeat(80), 'Three']) await talk.say(text);
    expect(await notes(() => talk.say(LONG))).toContain('/drop');
    await talk.load(path);
    await talk.drop();
    expect(users()).toEqual([]);
  });
});

test('/stats counts what was read of a prompt that was interrupted', async () => {
  const { talk, person, notes } = await begin(1024);
  const read = async () => Number(/read +(\d+)/.exec(await notes(() => talk.stats()))![1]);
  person.pieces = 0;
  await talk.say('word '.repeat(200));
  expect(await read()).toBeLessThan(100);
});
