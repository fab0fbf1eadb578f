import { CHAT_WORKER } from './chat_worker.ts';
import { ArgumentError, type Problem, TokenizerError } from './errors.ts';
import { isObject, kindOf, MOST_BYTES, parseJsonObject, readTextFile } from './text_file.ts';
import { anyOf, checkWellFormed, escapeRegExp, type Tokenizer } from './tokenizer.ts';

/** The chat template of a model folder. */
export interface ChatTemplate {
  /** Jinja source by name; `default` is for all chats that no other one is for, `tool_use` for those with tools. */
  readonly sources: ReadonlyMap<string, string>;
  /** What the template may write besides: `bos_token`, `eos_token` and their like, by name. */
  readonly variables: Readonly<Record<string, string>>;
}

/** One turn. A template may look at more fields than these two, for example at `function_calls`. */
export interface ChatMessage {
  readonly role: string;
  /** Null where the turn is nothing but its `function_calls` or `tool_calls`. */
  readonly content: string | null;
  readonly [field: string]: unknown;
}

/** What is rendered. HF: PreTrainedTokenizerBase.apply_chat_template. */
export interface Chat {
  readonly messages: readonly ChatMessage[];
  /** JSON schemas of the functions that the model may call. Default: none. */
  readonly tools?: readonly unknown[] | undefined;
  /** Whether the text ends where the assistant's answer begins. */
  readonly add_generation_prompt: boolean;
}

/** A template is a program out of a model's files: it ends in time, or is ended. */
export interface RenderLimits {
  /** From start to text. Default 5000. */
  readonly deadline_ms?: number | undefined;
  /** Length of the text, in UTF-16 code units. Default 2^22. */
  readonly max_chars?: number | undefined;
}

const SPECIAL_TOKENS = ['bos_token', 'eos_token', 'unk_token', 'sep_token', 'pad_token', 'cls_token', 'mask_token'];
const MAX_HEAP_MB = 256;

/**
 * Finds the chat template of a model folder (Node only): chat_template.jinja, with more of them by name in additional_chat_templates, or else
 * `chat_template` in tokenizer_config.json. HF: PreTrainedTokenizerBase.from_pretrained.
 * @returns null when the folder has none
 * @throws {TokenizerError} with every problem of the two files
 */
export async function readChatTemplate(folder: string): Promise<ChatTemplate | null> {
  const { join } = await import('node:path');
  const configPath = join(folder, 'tokenizer_config.json');
  const configText = await readTextFile(configPath, MOST_BYTES.template, TokenizerError);
  const config = configText === null ? {} : parseJsonObject(configText, configPath, TokenizerError);
  const problems: Problem[] = [];
  const fix = 'Use the tokenizer_config.json of the release.';

  const variables: Record<string, string> = {};
  // Named tokens of the model's own: all keys in _token, and extra_special_tokens as an object. HF: special_tokens_map.
  const own = Object.entries(config).filter(
    ([name, token]) => name.endsWith('_token') && (typeof token === 'string' || isAddedToken(token)),
  );
  const extra = isObject(config.extra_special_tokens) ? config.extra_special_tokens : {};
  const standard = SPECIAL_TOKENS.map((name) => [name, config[name]]);
  for (const [name, token] of Object.entries({ ...Object.fromEntries([...own, ...standard]), ...extra })) {
    const content = isObject(token) ? token.content : token; // a serialised AddedToken, or its text
    if (typeof content === 'string') variables[name] = content;
    else if (token != null) problems.push({ where: `${configPath}: ${name}`, expected: 'the text of a token', found: kindOf(token), fix });
  }

  const sources = await readTemplateFiles(folder);
  const given = sources.size > 0 ? [] : (config.chat_template ?? []);
  for (const entry of Array.isArray(given) ? given : [{ name: 'default', template: given }]) {
    const { name, template } = isObject(entry) ? entry : {};
    if (typeof name === 'string' && typeof template === 'string') sources.set(name, template);
    else
      problems.push({
        where: `${configPath}: chat_template`,
        expected: 'a template, or a list of them with names',
        found: kindOf(given),
        fix,
      });
  }
  if (problems.length > 0) throw new TokenizerError(problems);
  return sources.size === 0 ? null : { sources, variables };
}

/** HF: AddedToken as tokenizer_config.json has it. */
function isAddedToken(token: unknown): boolean {
  return isObject(token) && token.__type === 'AddedToken';
}

/** Templates that have files of their own, by name. HF: PreTrainedTokenizerBase.save_chat_templates writes them. */
async function readTemplateFiles(folder: string): Promise<Map<string, string>> {
  const { join, parse } = await import('node:path');
  const { readdir } = await import('node:fs/promises');
  const more = 'additional_chat_templates';
  const names = await readdir(join(folder, more)).catch((): string[] => []);
  const files: [name: string, file: string][] = [['default', 'chat_template.jinja']];
  for (const name of names.sort()) if (name.endsWith('.jinja')) files.push([parse(name).name, join(more, name)]);
  const sources = new Map<string, string>();
  for (const [name, file] of files) {
    const source = await readTextFile(join(folder, file), MOST_BYTES.template, TokenizerError);
    if (source !== null) sources.set(name, source);
  }
  return sources;
}

/**
 * Writes a chat as the model's template does (Node only). In the text, a special token of the template cannot be told from the same
 * characters in a message: for ids use `encodeChat`.
 * @throws {ArgumentError} when a message has no role or content, or either is no string (content may be null beside calls)
 * @throws {TokenizerError} when the template is faulty, refuses the chat (its message is quoted), or is stopped at a limit
 */
export async function renderChat(template: ChatTemplate, chat: Chat, limits: RenderLimits = {}): Promise<string> {
  checkMessages(chat.messages);
  return await render(template, chat, limits, null);
}

/**
 * Turns a chat into the prompt of the model (Node only). Special tokens come from the template alone: one that begins inside a message, or in
 * anything else of the chat, is encoded as the characters it is made of, so no message can end its turn and begin another's.
 * For chats without such text the ids are those of HF apply_chat_template. One thing is lost when JSON is parsed: a whole number that was written
 * as 1.0 or 1e16 is printed as an integer, 1 or 10000000000000000, where Python keeps the float.
 * @returns the text, as `renderChat` gives it, and its token ids
 * @throws as `renderChat`; TokenizerError for lone surrogates
 */
export async function encodeChat(tokenizer: Tokenizer, template: ChatTemplate, chat: Chat): Promise<{ text: string; ids: number[] }> {
  const marked = await renderMarkedChat(tokenizer, template, chat);
  return { text: unmarked(marked), ids: encodeMarked(tokenizer, marked) };
}

/** What stands before each special token in a marked text: the first half of a surrogate pair without the second, which no other text holds. */
export const SPECIAL_MARK = '\uD800';

/**
 * Writes a chat as `renderChat` does, with a mark before each special token of the template (Node only): equal marked texts have equal meaning.
 *
 * Before rendering, a character that occurs nowhere is put after the first character of each special token in the chat, also of one that the
 * text breaks off at its end; afterwards it is taken out. All other text passes through the template unchanged. What this cannot see is a
 * template that itself cuts pieces out of messages and joins the rest.
 * @throws as `encodeChat`
 */
export async function renderMarkedChat(tokenizer: Tokenizer, template: ChatTemplate, chat: Chat): Promise<string> {
  const tokens = [...tokenizer.specialTokens.keys()];
  const unused = unusedCharacter(JSON.stringify([...template.sources, template.variables, chat, tokens]));
  const beginning = new RegExp(tokens.map(beginningOf).join('|') || '(?!)', 'g');
  const broken = mapStrings(chat, (text) => text.replace(beginning, `$&${unused}`));
  checkMessages(broken.messages);
  const rendered = await render(template, broken, {}, unused);
  checkWellFormed(rendered);
  const special = new RegExp(`(${anyOf(tokens)})(?!${unused})`, 'g');
  return rendered.replace(special, `${SPECIAL_MARK}$1`).replaceAll(unused, '');
}

/** A marked text without its marks. */
function unmarked(marked: string): string {
  return marked.replace(/\uD800(?![\uDC00-\uDFFF])/g, ''); // with the second half it is a character
}

/** The token ids of a marked text, or of what follows a piece of it that does not end between a mark and its token. */
export function encodeMarked(tokenizer: Tokenizer, marked: string): number[] {
  const special = new RegExp(`${SPECIAL_MARK}(${anyOf([...tokenizer.specialTokens.keys()])})`);
  const parts = marked.split(special); // text, token, text, token… text
  return parts.flatMap((part, at) => (at % 2 === 1 ? [tokenizer.specialTokens.get(part)!] : tokenizer.encodeText(part)));
}

function checkMessages(messages: readonly ChatMessage[]): void {
  const problems: Problem[] = [];
  const fix = 'Give each message a role and a content, both of them strings.';
  if (!Array.isArray(messages) || messages.length === 0) {
    throw new ArgumentError({ where: 'messages', expected: 'an array of at least one message', found: kindOf(messages), fix });
  }
  for (const [at, message] of messages.entries()) {
    const { role, content, function_calls, tool_calls }: Record<string, unknown> = isObject(message) ? message : {};
    if (typeof role !== 'string') problems.push({ where: `messages[${at}].role`, expected: 'a string', found: kindOf(role), fix });
    const callsOnly = content === null && (function_calls ?? tool_calls) != null;
    if (typeof content !== 'string' && !callsOnly)
      problems.push({ where: `messages[${at}].content`, expected: 'a string', found: kindOf(content), fix });
  }
  if (problems.length > 0) throw new ArgumentError(problems);
}

/** HF: PreTrainedTokenizerBase.get_chat_template. */
function chooseSource({ sources }: ChatTemplate, { tools }: Chat): string {
  const source = (tools && sources.get('tool_use')) ?? sources.get('default');
  if (source !== undefined) return source;
  const found = `only ${[...sources.keys()].map((name) => JSON.stringify(name)).join(', ')}`;
  const fix = 'Put the one to use into chat_template.jinja.';
  throw new TokenizerError({ where: 'chat template', expected: 'one named "default"', found, fix });
}

async function render(template: ChatTemplate, chat: Chat, limits: RenderLimits, mark: string | null): Promise<string> {
  const { messages, tools = null, add_generation_prompt } = chat;
  const variables = { ...template.variables, messages, tools, documents: null, add_generation_prompt };
  const { deadline_ms = 5000, max_chars = 2 ** 22 } = limits;
  const { Worker } = await import('node:worker_threads');
  const { createRequire } = await import('node:module');
  const jinja = createRequire(import.meta.url).resolve('@huggingface/jinja');
  const workerData = { jinja, source: chooseSource(template, chat), variables, max_chars, mark };
  const resourceLimits = { maxOldGenerationSizeMb: MAX_HEAP_MB };
  // Without the flags of this process: --input-type would make the lines a module, which has no require.
  const worker = new Worker(CHAT_WORKER, { eval: true, execArgv: [], workerData, resourceLimits });
  const fail = (expected: string, found: string, fix: string) => new TokenizerError({ where: 'chat template', expected, found, fix });
  const runaway = 'Use the template of the release; one that runs on does not end by itself.';
  const change = 'Change the messages, or use the template of the release.';

  let deadline: NodeJS.Timeout | undefined;
  const text = new Promise<string>((resolve, reject) => {
    deadline = setTimeout(() => reject(fail(`a text within ${deadline_ms} ms`, 'none yet', runaway)), deadline_ms);
    worker.once('message', (message: { text: string } | { length: number }) => {
      if ('text' in message) resolve(message.text);
      else reject(fail(`a text of at most ${max_chars} characters`, `${message.length}`, change));
    });
    worker.once('error', (error: NodeJS.ErrnoException) => {
      if (error.code === 'ERR_WORKER_OUT_OF_MEMORY') reject(fail(`a text within ${MAX_HEAP_MB} MB of memory`, 'more', runaway));
      else reject(fail('a chat that it can write', error.message, change));
    });
    worker.once('exit', () => reject(fail('a text', 'none', runaway)));
  });
  return await text.finally(() => {
    clearTimeout(deadline);
    return worker.terminate();
  });
}

/** A character of the private use area that a text does not have. */
function unusedCharacter(text: string): string {
  const used = new Set(text.match(/[\uE000-\uF8FF]/g));
  for (let code = 0xe000; code <= 0xf8ff; code++) {
    const character = String.fromCharCode(code);
    if (!used.has(character)) return character;
  }
  const fix = 'Remove some of those characters from the messages.';
  throw new ArgumentError({ where: 'messages', expected: 'a private use character that is not in them', found: 'all 6400', fix });
}

/** The source of a regular expression that finds the first character of a token where the rest of it follows, or as much as the text has left. */
function beginningOf(token: string): string {
  const [first, ...rest] = Array.from(token, escapeRegExp);
  return `${first}(?=${rest.reduceRight((after, character) => `(?:${character}${after}|$)`, '')})`;
}

/** Applies a function to every string in a JSON value, keys and all. */
function mapStrings<T>(json: T, map: (text: string) => string): T {
  const visit = (value: unknown): unknown => {
    if (typeof value === 'string') return map(value);
    if (Array.isArray(value)) return value.map(visit);
    return isObject(value) ? Object.fromEntries(Object.entries(value).map(([key, entry]) => [map(key), visit(entry)])) : value;
  };
  return visit(json) as T;
}
