import type { OlmoHybridConfig } from '../config.ts';
import { ArgumentError } from '../errors.ts';
import type { Tokenizer } from '../tokenizer.ts';
import { readTokenIds } from './input_file.ts';
import { missingTokenizer } from './loading.ts';

/** What a stranger's first text begins with: the embedded model has read novels. */
export const DEFAULT_PROMPT = 'It was a';

/** What is continued. */
export interface Prompt {
  readonly ids: readonly number[];
  /** What is printed before the continuation: who gave a prompt has it, so a program gets only what is new, a person the whole text. */
  readonly shown: string;
}

/** Where a prompt comes from: a text or `-` for stdin, a file of token ids, or neither. */
interface PromptSource {
  readonly text: string | undefined;
  readonly tokens: string | undefined;
}

/**
 * Reads the prompt.
 * @param dir the model's folder, for messages
 * @throws {ArgumentError} when it cannot be read or is no text for this model
 */
export async function readPrompt(
  source: PromptSource,
  tokenizer: Tokenizer | null,
  config: OlmoHybridConfig,
  dir: string,
): Promise<Prompt> {
  const forPerson = (text: () => string | undefined) => (process.stdout.isTTY && text()) || '';
  if (source.tokens !== undefined) {
    const ids = await readTokenIds(source.tokens, config.vocab_size);
    return { ids, shown: forPerson(() => tokenizer?.decode(ids)) };
  }
  if (tokenizer === null) throw missingTokenizer(dir, 'to take a text');
  if (source.text === undefined) return { ids: tokenizer.encode(DEFAULT_PROMPT), shown: DEFAULT_PROMPT };
  const text = source.text === '-' ? await readStdin() : source.text;
  return { ids: tokenizer.encode(text), shown: forPerson(() => text) };
}

/**
 * Checks the length of a prompt.
 * @param context tokens that there will be room for
 * @param most tokens that there can be room for
 * @throws {ArgumentError} when it is empty or too long
 */
export function checkLength({ ids }: Prompt, context: number, most: number): void {
  if (ids.length === 0) {
    throw new ArgumentError({
      where: 'prompt',
      expected: 'at least one token',
      found: 'none',
      fix: 'Give a text, or token ids by --tokens.',
    });
  }
  if (ids.length <= context) return;
  const expected = `at most ${context} tokens, ${context < most ? 'the --context' : "the model's max_position_embeddings"}`;
  const fix = context < most ? `Shorten it, or give --context up to ${most}.` : 'Shorten it.';
  throw new ArgumentError({ where: 'prompt', expected, found: `${ids.length}`, fix });
}

async function readStdin(): Promise<string> {
  const chunks: Buffer[] = [];
  for await (const chunk of process.stdin) chunks.push(chunk);
  try {
    return new TextDecoder('utf-8', { fatal: true, ignoreBOM: true }).decode(Buffer.concat(chunks)).replace(/\r?\n$/, '');
  } catch (cause) {
    throw new ArgumentError({ where: 'stdin', expected: 'UTF-8 text', found: 'other bytes', fix: 'Convert it to UTF-8.' }, { cause });
  }
}
