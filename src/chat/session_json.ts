import type { ChatMessage } from '../chat_template.ts';
import { type Problem, SessionError } from '../errors.ts';
import { seedProblems } from '../random.ts';
import { type SamplingOptions, samplingProblems } from '../sampler.ts';
import { isCount, isObject, kindOf } from '../text_file.ts';
import type { ConversationRecord } from './conversation.ts';
import type { SessionModel } from './session_model.ts';
import type { Passage } from './transcript.ts';

/** What the JSON object in a session file says. */
export interface Session {
  readonly weights_sha256: string;
  readonly config: Readonly<Record<string, unknown>>;
  readonly engine: Readonly<Record<string, unknown>>;
  /** Tokens in the caches. */
  readonly tokens: number;
  readonly record: ConversationRecord;
}

const SAMPLING = ['temperature', 'top_k', 'top_p', 'min_p', 'repetition_penalty'] as const;

/** Writes the JSON object of a session file. */
export function sessionJson({ seed, ...record }: ConversationRecord, model: SessionModel, tokens: number): string {
  return JSON.stringify({ ...model, tokens, record: { ...record, seed: `${seed}` } });
}

/**
 * Reads it. The file's digest says that it is as it was written, not that it was written by this library: every field is checked.
 * @param where what messages call the file
 * @throws {SessionError} with every field that is missing or of the wrong kind
 */
export function parseSession(text: string, where: string): Session {
  const fix = 'The file is damaged: take a copy of it, or begin anew.';
  const problems: Problem[] = [];
  const json = parsed(text);
  const record = isObject(json) && isObject(json.record) ? json.record : {};
  const check = (object: unknown, key: string, usable: (value: unknown) => boolean, expected: string) => {
    const value = isObject(object) ? object[key] : undefined;
    if (!usable(value)) problems.push({ where: `${where}: ${key}`, expected, found: kindOf(value), fix });
  };
  check(json, 'weights_sha256', isString, 'a string');
  check(json, 'config', isObject, 'an object');
  check(json, 'engine', isObject, 'an object');
  check(json, 'tokens', isCount, 'a count');
  check(record, 'messages', (value) => isListOf(value, isMessage), 'a list of messages');
  check(record, 'system', (value) => value === null || isString(value), 'a text or null');
  check(record, 'sampling', isSampling, 'sampling options');
  check(record, 'seed', isSeed, 'an integer as a text');
  check(record, 'answers', isCount, 'a count');
  check(record, 'passages', (value) => isListOf(value, isPassage), 'a list of passages');
  if (problems.length > 0) throw new SessionError(problems);
  const session = json as unknown as Session;
  return { ...session, record: { ...session.record, seed: BigInt(record.seed as string) } };
}

function parsed(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    return null; // every field is missing
  }
}

function isString(value: unknown): value is string {
  return typeof value === 'string';
}

function isListOf(value: unknown, isEntry: (entry: unknown) => boolean): boolean {
  return Array.isArray(value) && value.every(isEntry);
}

function isMessage(value: unknown): value is ChatMessage {
  return isObject(value) && isString(value.role) && isString(value.content);
}

function isPassage(value: unknown): value is Passage {
  return isObject(value) && isString(value.text) && isListOf(value.ids, isCount) && typeof value.generated === 'boolean';
}

function isSampling(value: unknown): value is SamplingOptions {
  if (!isObject(value) || Object.keys(value).some((key) => !SAMPLING.includes(key as (typeof SAMPLING)[number]))) return false;
  return samplingProblems(value as SamplingOptions).length === 0;
}

function isSeed(value: unknown): boolean {
  return isString(value) && /^-?\d{1,20}$/.test(value) && seedProblems(BigInt(value)).length === 0;
}
