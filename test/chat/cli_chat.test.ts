import { mkdir, readFile, rm, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { describe, expect, test } from 'vitest';
import { isCommand, runCommand } from '../../src/cli/chat_commands.ts';
import type { Talk } from '../../src/cli/chat_talk.ts';
import { embeddedModel } from '../../src/package_files.ts';
import { writeChatModel } from '../support/chat_model.ts';
import { ended, runWith, sharedFolder, start } from '../support/command_line.ts';

const folder = await sharedFolder();
const dir = await model('model');
/** Its template begins every answer inside the thinking, and its model ends the thinking soon. */
const thinker = await model('thinker');
await writeFile(
  join(thinker, 'chat_template.jinja'),
  '{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}<think>',
);

async function model(name: string): Promise<string> {
  const dir = join(folder, name);
  await mkdir(dir);
  return await writeChatModel(dir);
}

const strict = ['--mode', 'strict', '--seed', '4'];

describe('lines from a program', () => {
  test('each line is a message; the answers, and nothing else, are on stdout', async () => {
    const talk = 'Hello\n\nHow are you?\r\n  \n/stats\nBye';
    const { code, stdout, stderr } = await runWith(talk, 'chat', dir, ...strict);
    expect(code).toBe(0);
    expect(stdout).not.toMatch(/^> /m);
    expect(stderr).toMatch(/5 Gated DeltaNet \+ 2 attention layers\n/);
    expect(stderr).toMatch(/^context {5}\d+ of 4096 tokens, 4 messages$/m);
    expect(stderr).toMatch(/^read {8}\d+ tokens, [\d.]+ tokens\/s; \d+ were in the caches already$/m);
    expect(stderr).toMatch(/^answered {4}\d+ tokens in 2 answers/m);
    expect(stderr).toMatch(/^checkpoints \d+ of the state, [\d.]+ kB of at most/m);
    expect(stderr).toMatch(/^memory {6}[\d.]+ MB resident, [\d.]+ MB planned/m);
    // The same by one line after the other, each from the state that the one before saved.
    let lines = '';
    const session = join(folder, 'lines.session');
    for (const text of ['Hello', 'How are you?', 'Bye'])
      lines += (await runWith(text, 'chat', '--model', dir, ...strict, '--session', session)).stdout;
    expect(lines).toBe(stdout);
  });

  test('a line that ends in \\ goes on, and so does what stands between """', async () => {
    const [one, two, three] = await Promise.all([
      runWith('a\\\nb\\\nc\n', 'chat', dir, ...strict),
      runWith('"""\na\nb\nc\n"""\n', 'chat', dir, ...strict),
      runWith('a\nb\nc\n', 'chat', dir, ...strict),
    ]);
    expect(two.stdout).toBe(one.stdout);
    expect(three.stdout).not.toBe(one.stdout);
  });

  test('/regenerate, /edit, /system, /clear, /drop, /save, /load and /exit', async () => {
    const session = join(folder, 'commands.session');
    const talk = `Hello\n/regenerate\n/edit Good evening\n/system Be brief.\n/system\n/save ${session}\n/clear\n/load ${session}\n/drop\nWho?\n/exit\nnever said\n`;
    const { code, stdout, stderr } = await runWith(talk, 'chat', dir, ...strict);
    expect(code).toBe(0);
    for (const line of [
      'system prompt: Be brief.\nsystem prompt: Be brief.\n',
      `${session}: 2 messages, `,
      'forgotten: all messages',
      `${session}: 2 messages, to be gone on with at once`,
      'forgotten: the oldest 2 messages',
    ])
      expect(stderr).toContain(line);
    const { stdout: hello } = await runWith('Hello\n', 'chat', dir, ...strict);
    expect(stdout.startsWith(hello)).toBe(true);
    expect(stdout.length).toBeGreaterThan(hello.length);
  });

  test('/help names every command', async () => {
    const { stderr } = await runWith('/help\n', 'chat', dir);
    for (const name of ['help', 'system [TEXT]', 'regenerate', 'edit TEXT', 'drop', 'clear', 'save FILE', 'load FILE', 'stats', 'exit'])
      expect(stderr).toContain(`\n/${name} `);
  });

  test('what a model thinks goes to stderr, or nowhere', async () => {
    const [shown, hidden] = await Promise.all([
      runWith('Hello\n', 'chat', thinker, ...strict),
      runWith('Hello\n', 'chat', thinker, ...strict, '--hide-thinking'),
    ]);
    expect([shown.stdout, hidden.stdout]).toEqual(['\n', '\n']); // it never came to an end
    expect(shown.stderr.split('\n')[1]!.length).toBeGreaterThan(3);
    expect(hidden.stderr.split('\n')[1]).toBe('');
  });

  test('Ctrl-C ends the answer in good order', async () => {
    const endless = await model('endless');
    await writeFile(join(endless, 'generation_config.json'), '{"do_sample": true, "eos_token_id": []}');
    const child = start({}, 'chat', endless, '--kernels', 'reference', '--context', '4000');
    child.stdout!.once('data', () => child.kill('SIGINT'));
    child.stdin!.write('Hello\nNever said\n');
    const { code, stdout, stderr } = await ended(child);
    expect(code).toBe(130);
    expect(stdout).toMatch(/\n$/);
    expect(stderr).toMatch(/\ninterrupted\n$/);
  });

  test('a reader that leaves early ends it without a word', async () => {
    const child = start({}, 'chat', join(folder, 'endless'), '--kernels', 'reference', '--context', '4000');
    child.stdin!.end('Hello\n');
    child.stdout!.once('data', () => child.stdout!.destroy());
    const { code, stderr } = await ended(child);
    expect(code).toBe(0);
    expect(stderr).not.toMatch(/error|EPIPE|^ +at /m);
  });
});

describe('what is refused', () => {
  const error = async (stdin: string, ...args: string[]) => {
    const { code, stderr, stdout } = await runWith(stdin, 'chat', ...args);
    expect(code).toBe(1);
    expect(stderr).not.toMatch(/^ +at /m);
    return { stderr, stdout };
  };

  test('a model without a chat template: what to do', async () => {
    expect((await error('')).stderr).toMatch(
      `error ${embeddedModel}: expected a chat template, chat_template.jinja or chat_template in tokenizer_config.json, found none: the embedded model only continues texts. Name an Instruct or Think model, such as allenai/Olmo-Hybrid-Instruct-DPO-7B`,
    );
    const bare = await model('bare');
    await rm(join(bare, 'chat_template.jinja'));
    expect((await error('', bare)).stderr).toContain(`put a template into ${join(bare, 'chat_template.jinja')}`);
    await rm(join(bare, 'tokenizer.json'));
    expect((await error('', bare)).stderr).toContain('expected a tokenizer.json, to talk, found none');
  });

  test('options, before anything is read', async () => {
    const { stderr } = await error('', dir, '--model', dir, '--temperature', '-1', '--min-p', '2');
    expect(stderr.split('\n').filter((line) => line.startsWith('error'))).toHaveLength(3);
  });

  test('an unknown command, a file that is no session, a message that does not fit', async () => {
    expect((await error('/foo\n', dir)).stderr).toContain('expected a command, found "/foo". /help lists them.');
    expect((await error('', dir, '--session', join(dir, 'config.json'))).stderr).toContain('This is not a session file, or it is damaged');
    const long = await error(`${'word '.repeat(200)}\n`, dir, '--context', '200');
    expect(long.stderr).toMatch(
      /error context: expected room for an answer of 50 tokens in a context of 200, found \d{3} tokens.*--context/,
    );
    expect(long.stdout).toBe('');
  });

  test('what looks like a command and is none, and one that wants a word more', async () => {
    const talk = {} as Talk; // nothing is done
    for (const text of ['/constructor', '/', '/Help', '/helpme', '/exit-now'])
      await expect(runCommand(talk, text)).rejects.toThrow(/expected a command, found "\/.*Put a space before a message/);
    for (const text of ['/save', '/load  ', '/edit']) await expect(runCommand(talk, text)).rejects.toThrow('found nothing. See /help.');
    expect(await runCommand(talk, '/exit')).toBe(false);
    expect(isCommand(' /etc')).toBe(false);
  });

  test('bytes that are no UTF-8', async () => {
    const child = start({}, 'chat', dir);
    child.stdin!.end(Buffer.of(0x41, 0xff, 0x0a));
    const { code, stderr } = await ended(child);
    expect(code).toBe(1);
    expect(stderr).toContain('stdin: expected UTF-8 text, found other bytes');
  });
});

test('--session keeps the conversation and its sampling, and options given come first', async () => {
  const session = join(folder, 'kept.session');
  const options = ['chat', dir, '--mode', 'strict', '--session', session];
  await runWith('Hello\n', ...options, '--seed', '4', '--temperature', '0');
  const first = await readFile(session);
  const greedy = await runWith('And?\n', ...options);
  expect(greedy.stderr).toContain(`${session}: 2 messages, to be gone on with at once`);
  await writeFile(session, first);
  expect((await runWith('And?\n', ...options, '--seed', '99')).stdout).toBe(greedy.stdout); // greedy still
  await writeFile(session, first);
  expect((await runWith('And?\n', ...options, '--temperature', '1')).stdout).not.toBe(greedy.stdout);
});
