/** The levels of conformance, in order: what each needs of a runtime, the ones before it have shown already. */
export const LEVELS = [
  'config',
  'tokenizer',
  'template',
  'op',
  'layer',
  'prefill',
  'decode',
  'prefill_decode',
  'state',
  'sampler',
] as const;
export type LevelName = (typeof LEVELS)[number];

/** Fields of an answer, of which a JSON object must have one to be taken for it; where there are none, the answer is a file and {}. */
export const ANSWER_FIELDS: Readonly<Partial<Record<LevelName, readonly string[]>>> = {
  config: ['vocab_size', 'hidden_size', 'layer_types'],
  tokenizer: ['ids', 'texts'],
  template: ['text'],
  sampler: ['ids', 'probabilities', 'drawn'],
};

/** What a runtime is asked: one JSON object, on a line of its own. docs/conformance.md lists the fields of each level. */
export interface Request {
  readonly level: LevelName;
  /** Name of the case within its level, for logs. */
  readonly case: string;
  /** Folder of a checkpoint, or of a tokenizer. */
  readonly model?: string;
  /** Token ids, [T]. */
  readonly tokens?: readonly number[];
  /** Tokens of each call, in order; their sum is T. */
  readonly calls?: readonly number[];
  /** safetensors file to write; not there where the answer is JSON alone. */
  readonly output?: string;
  readonly [field: string]: unknown;
}

/** What a runtime made of a request. */
export type Answer =
  | { readonly status: 'answered'; readonly fields: Readonly<Record<string, unknown>> }
  | { readonly status: 'not supported'; readonly why: string }
  | { readonly status: 'failed' | 'timed out'; readonly why: string };

/** Something that answers requests, one at a time. */
export interface Runtime {
  ask(request: Request): Promise<Answer>;
  close(): Promise<void>;
}

export type Status = 'passed' | 'failed' | 'not supported';

/** How one answer was found. */
export interface Judgement {
  readonly status: Status;
  /** What was measured, in the unit of the level, to be at most the bound of the level; null where answers are equal or not. */
  readonly measured: number | null;
  /** Of a failure, what was expected and found; of what is not supported, why; else what is worth knowing, or nothing. */
  readonly said: string;
}

/** One thing to ask, and how to judge the answer. */
export interface Case {
  readonly request: Request;
  /** @param fields of the JSON answer @param output the file that the request named */
  judge(fields: Readonly<Record<string, unknown>>, output: string): Promise<Judgement>;
}

export interface Level {
  /** What is measured, and the most that passes; null where answers are equal or not. */
  readonly measure: { readonly unit: string; readonly bound: number } | null;
  /** Whether cases of this level are answered by a file. */
  readonly writes: boolean;
  /** @param folder for files that the cases need; it outlives them. */
  cases(folder: string): Promise<readonly Case[]>;
}

export function passed(measured: number | null = null, said = ''): Judgement {
  return { status: 'passed', measured, said };
}

export function failed(expected: string, found: string, measured: number | null = null): Judgement {
  return { status: 'failed', measured, said: `expected ${expected}, found ${found}` };
}
