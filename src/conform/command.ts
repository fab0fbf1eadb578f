import { quote } from '../checkpoint/problem_list.ts';
import { ArgumentError } from '../errors.ts';

const PLACEHOLDERS = ['model', 'tokens', 'output', 'calls'] as const;
type Placeholder = (typeof PLACEHOLDERS)[number];
const REQUIRED: readonly Placeholder[] = ['model', 'tokens', 'output'];

/** A program and its arguments, before the placeholders are filled in. */
export interface CommandLine {
  readonly words: readonly string[];
  /** Those that occur; none: the program answers requests on its stdin. */
  readonly placeholders: ReadonlySet<Placeholder>;
}

/**
 * Splits a command into words, without a shell: at spaces, but for those in single or double quotes or behind a backslash. A backslash stands
 * for itself before anything but a space, a quote or a backslash; nothing is expanded.
 * @throws {ArgumentError} when there is no program, a quote is open, or a placeholder is unknown or missing
 */
export function parseCommand(text: string): CommandLine {
  const words: string[] = [];
  let word: string | null = null;
  let open: string | null = null;
  for (let i = 0; i < text.length; i++) {
    const character = text[i]!;
    const isEscape = character === '\\' && open !== "'" && /[\s'"\\]/.test(text[i + 1] ?? '');
    if (isEscape) word = (word ?? '') + text[++i]!;
    else if (character === open) open = null;
    else if (open === null && (character === "'" || character === '"')) {
      open = character;
      word ??= '';
    } else if (open === null && /\s/.test(character)) {
      if (word !== null) words.push(word);
      word = null;
    } else word = (word ?? '') + character;
  }
  if (open !== null) throw mistaken(`a second ${open}`, quote(text), 'Close the quotes.');
  if (word !== null) words.push(word);
  if (words.length === 0) throw mistaken('a program and its arguments', 'nothing', 'Give the command that starts the runtime.');
  return { words, placeholders: placeholdersOf(words) };
}

/** The words with every placeholder replaced. */
export function filledIn({ words }: CommandLine, values: Readonly<Partial<Record<Placeholder, string>>>): string[] {
  return words.map((word) => word.replace(/\{([a-z]+)\}/g, (text, name: Placeholder) => values[name] ?? text));
}

function placeholdersOf(words: readonly string[]): ReadonlySet<Placeholder> {
  const names = words.flatMap((word) => [...word.matchAll(/\{([a-z]+)\}/g)].map((match) => match[1]!));
  const found = new Set<Placeholder>();
  for (const name of names) {
    const placeholder = PLACEHOLDERS.find((one) => one === name);
    if (placeholder === undefined) {
      throw mistaken(`{${PLACEHOLDERS.join('}, {')}}`, `{${name}}`, 'Without any of these, requests come on stdin.');
    }
    found.add(placeholder);
  }
  const missing = REQUIRED.filter((name) => !found.has(name));
  if (found.size > 0 && missing.length > 0) {
    const fix = 'Say where they go, or leave all of them out to get requests on stdin.';
    throw mistaken(`{${REQUIRED.join('}, {')}}`, `no {${missing.join('}, {')}}`, fix);
  }
  return found;
}

function mistaken(expected: string, found: string, fix: string): ArgumentError {
  return new ArgumentError({ where: '--runtime', expected, found, fix });
}
