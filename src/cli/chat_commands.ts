import { ArgumentError } from '../errors.ts';
import { notes } from './chat_output.ts';
import type { Talk } from './chat_talk.ts';
import { note } from './terminal.ts';

/** What may be said to the program instead of the model. */
interface ChatCommand {
  readonly usage: string;
  readonly help: string;
  run(talk: Talk, argument: string): Promise<void> | void;
}

const COMMANDS: Readonly<Record<string, ChatCommand>> = {
  '/help': { usage: '', help: 'this list', run: help },
  '/system': { usage: '[TEXT]', help: 'show the system prompt, or set it; all is read again then', run: system },
  '/regenerate': { usage: '', help: 'answer the last message anew', run: (talk) => talk.regenerate() },
  '/edit': {
    usage: 'TEXT',
    help: 'say this in place of the last message',
    run: (talk, text) => talk.edit(needed(text, '/edit', 'a text')),
  },
  '/drop': { usage: '', help: 'forget the oldest messages', run: (talk) => talk.drop() },
  '/clear': { usage: '', help: 'forget all messages; the system prompt stays', run: (talk) => talk.clear() },
  '/save': {
    usage: 'FILE',
    help: 'keep the conversation and the state of the model',
    run: (talk, path) => talk.save(needed(path, '/save', 'a file')),
  },
  '/load': { usage: 'FILE', help: 'go on with one that was saved', run: (talk, path) => talk.load(needed(path, '/load', 'a file')) },
  '/stats': { usage: '', help: 'tokens, speed, memory', run: (talk) => talk.stats() },
  '/exit': { usage: '', help: 'leave', run: () => {} },
};

/** Whether a text is for the program. A message that begins with a slash is written after a space. */
export function isCommand(text: string): boolean {
  return text.startsWith('/');
}

/**
 * Does what a command says.
 * @returns whether the conversation goes on
 * @throws {ArgumentError} when there is no such command, or it wants a word more
 */
export async function runCommand(talk: Talk, text: string): Promise<boolean> {
  const [, name, argument] = /^(\S+)\s*(.*)$/s.exec(text)!;
  const command = Object.hasOwn(COMMANDS, name!) ? COMMANDS[name!] : undefined;
  if (!command) {
    const fix = '/help lists them. Put a space before a message that begins with a slash.';
    throw new ArgumentError({ where: 'chat', expected: 'a command', found: JSON.stringify(name), fix });
  }
  await command.run(talk, argument!.trim());
  return name !== '/exit';
}

function help(): void {
  notes(Object.entries(COMMANDS).map(([name, { usage, help }]) => [`${name} ${usage}`.padEnd(15), help]));
  note('A line that ends in \\ goes on in the next one; so does what stands between """. Ctrl-C ends an answer, Ctrl-D leaves.');
}

function system({ conversation }: Talk, text: string): void {
  if (text !== '') conversation.system = text;
  note(conversation.system === null ? "system prompt: the template's own" : `system prompt: ${conversation.system}`);
}

function needed(argument: string, command: string, what: string): string {
  if (argument !== '') return argument;
  throw new ArgumentError({ where: command, expected: what, found: 'nothing', fix: 'See /help.' });
}
