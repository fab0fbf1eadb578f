import { type ChildProcess, spawn, spawnSync } from 'node:child_process';
import { existsSync } from 'node:fs';
import { mkdir, readFile, rm, stat, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { setTimeout as pause } from 'node:timers/promises';
import { describe, expect, type TestContext, test } from 'vitest';
import { writeChatModel } from '../support/chat_model.ts';
import { ended, runWith, sharedFolder, start } from '../support/command_line.ts';
import { repository } from '../support/models.ts';

const LONG = { timeout: 60_000 };
const folder = await sharedFolder();
const dir = await model('model');
/** Its answers have no end. */
const endless = await model('endless');
await writeFile(join(endless, 'generation_config.json'), '{"do_sample": true, "eos_token_id": []}');
const slow = ['chat', endless, '--kernels', 'reference', '--context', '4000'];

async function model(name: string): Promise<string> {
  const dir = join(folder, name);
  await mkdir(dir);
  return await writeChatModel(dir);
}

/** How many messages a session holds. */
async function messagesIn(session: string): Promise<number> {
  const bytes = await readFile(session);
  const header = JSON.parse(bytes.subarray(8, 8 + Number(bytes.readBigUInt64LE())).toString()) as { __metadata__: { session: string } };
  return (JSON.parse(header.__metadata__.session) as { record: { messages: unknown[] } }).record.messages.length;
}

describe('--session', () => {
  test.concurrent('is refused before the model is loaded where it cannot be written, or is none', LONG, async () => {
    const none = join(dir, 'config.json');
    for (const [session, found] of [
      [join(folder, 'no', 's'), 'found no such folder'],
      [folder, 'found a folder'],
      [none, 'This is not a session file'],
    ] as const) {
      const { code, stderr } = await runWith('Hello\n', 'chat', dir, '--session', session);
      expect(code).toBe(1);
      expect(stderr).toContain(found);
      expect(stderr).not.toContain('Gated DeltaNet'); // the model's first line
    }
  });

  test.concurrent('keeps what was said before a mistake, for the user alone', LONG, async () => {
    const session = join(folder, 'mistake');
    const { code, stderr } = await runWith('Hello\n/foo\nBye\n', 'chat', dir, '--session', session);
    expect(code).toBe(1);
    expect(stderr).toContain('found "/foo"');
    expect(await messagesIn(session)).toBe(2);
    expect((await stat(session)).mode & 0o077).toBe(0);
    const before = await readFile(session);
    expect((await runWith('/foo\n', 'chat', dir, '--session', session)).code).toBe(1);
    expect((await readFile(session)).equals(before)).toBe(true); // nothing was said
  });

  test.concurrent.each([
    ['SIGINT', 130],
    ['SIGTERM', 143],
    ['SIGHUP', 129],
  ] as const)('keeps what was said until %s', LONG, async (signal, status) => {
    const session = join(folder, signal);
    const child = start({}, ...slow, '--session', session);
    child.stdin!.write('Hello\n');
    child.stdout!.once('data', () => child.kill(signal));
    expect((await ended(child)).code).toBe(status);
    expect(await messagesIn(session)).toBe(2);

    const waiting = start({}, 'chat', dir, '--session', `${session}.waiting`);
    waiting.stdin!.write('Hello\n');
    waiting.stdout!.on('data', (text: Buffer) => text.includes('\n') && setTimeout(() => waiting.kill(signal), 300));
    expect((await ended(waiting)).code).toBe(status);
    expect(await messagesIn(`${session}.waiting`)).toBe(2);
  });

  test.concurrent('keeps what was said until nobody reads it', LONG, async () => {
    const session = join(folder, 'unread');
    const child = start({}, ...slow, '--session', session);
    child.stdin!.write('Hello\n');
    child.stdout!.once('data', () => child.stdout!.destroy());
    const { code, stderr } = await ended(child);
    expect(code).toBe(0);
    expect(stderr).not.toMatch(/error|EPIPE|^ +at /m);
    expect(await messagesIn(session)).toBe(2);
  });
});

/** A person at a terminal, played by Python's pty. */
function typing(
  { onTestFinished }: TestContext,
  ...args: string[]
): { child: ChildProcess; says: (text: string) => Promise<void>; type: (keys: string) => void } {
  const play = 'import os, pty, sys; sys.exit(os.waitstatus_to_exitcode(pty.spawn(sys.argv[1:])))';
  const child = spawn('python3', ['-c', play, process.execPath, repository('dist/cli/main.js'), ...args], { stdio: 'pipe' });
  onTestFinished(() => void child.kill('SIGKILL'));
  let screen = '';
  child.stdout.setEncoding('utf8').on('data', (text: string) => {
    screen += text;
  });
  const says = async (text: string) => {
    while (!screen.includes(text) && child.exitCode === null) await pause(5);
    expect(screen).toContain(text);
    screen = screen.slice(screen.indexOf(text) + text.length);
  };
  return { child, says, type: (keys) => void child.stdin.write(keys) };
}

describe.skipIf(spawnSync('python3', ['--version']).status !== 0)('--session, for a person', () => {
  test.concurrent('a file that cannot be written in the end: the prompt comes back', LONG, async (context) => {
    const gone = join(folder, 'gone');
    await mkdir(gone);
    const { child, says, type } = typing(context, 'chat', dir, '--session', join(gone, 's'));
    await says('/help lists');
    await rm(gone, { recursive: true });
    await says('> ');
    type('Hello\r');
    await says('> ');
    type('\x04');
    await says('no such folder');
    await says('> ');
    type(`/save ${join(folder, 'elsewhere')}\r`);
    await says('2 messages');
    await says('> ');
    type('/exit\r');
    await says('no such folder');
    expect((await ended(child)).code).toBe(1);
    expect(await messagesIn(join(folder, 'elsewhere'))).toBe(2);
  });

  test.concurrent('a terminal that is closed: what was said is kept', LONG, async (context) => {
    const session = join(folder, 'closed');
    const { child, says, type } = typing(context, ...slow, '--session', session);
    await says('> ');
    type('Hello\r');
    await says('\n');
    await pause(1500);
    child.kill('SIGKILL');
    while (!existsSync(session)) await pause(5);
    expect(await messagesIn(session)).toBe(2);
  });
});
