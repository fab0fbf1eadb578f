import { join } from 'node:path';
import { OlmoHybridError } from '../errors.ts';
import { configLevel } from './config_level.ts';
import { layerLevel } from './layer_level.ts';
import { decodeLevel, prefillDecodeLevel, prefillLevel, stateLevel } from './logits_levels.ts';
import { opLevel } from './op_level.ts';
import { type Case, failed, type Judgement, LEVELS, type Level, type LevelName, type Runtime, type Status } from './protocol.ts';
import { samplerLevel } from './sampler_level.ts';
import { templateLevel, tokenizerLevel } from './text_levels.ts';

const ALL: Readonly<Record<LevelName, Level>> = {
  config: configLevel,
  tokenizer: tokenizerLevel,
  template: templateLevel,
  op: opLevel,
  layer: layerLevel,
  prefill: prefillLevel,
  decode: decodeLevel,
  prefill_decode: prefillDecodeLevel,
  state: stateLevel,
  sampler: samplerLevel,
};

export interface CaseResult extends Judgement {
  readonly name: string;
  readonly seconds: number;
}

export interface LevelResult {
  readonly level: LevelName;
  /** `failed` when one case has; `not supported` when no case was answered. */
  readonly status: Status;
  readonly measure: Level['measure'];
  readonly cases: readonly CaseResult[];
  readonly seconds: number;
}

interface ConformOptions {
  /** Called before each case. */
  readonly onCase?: ((level: LevelName, done: number, total: number) => void) | undefined;
  /** Ends it after the case that is running. */
  readonly signal?: AbortSignal | undefined;
}

export interface Conformance {
  readonly runtime: string;
  /** No level failed, and at least one passed. */
  readonly conforms: boolean;
  /** The highest level that passed while none below it failed; null for none. */
  readonly reached: LevelName | null;
  readonly levels: readonly LevelResult[];
}

/**
 * Asks a runtime level by level and judges its answers (Node only).
 * @param levels those to try, in any order
 * @param folder an empty one, for the files that are handed over
 * @throws {ArgumentError} when the runtime cannot be started
 */
export async function* conform(
  runtime: Runtime,
  levels: readonly LevelName[],
  folder: string,
  { onCase, signal }: ConformOptions = {},
): AsyncGenerator<LevelResult, void, void> {
  for (const name of LEVELS.filter((level) => levels.includes(level))) {
    const level = ALL[name];
    const begun = performance.now();
    const cases: CaseResult[] = [];
    let slow: string | null = null;
    const asked = await level.cases(folder);
    for (const [i, one] of asked.entries()) {
      if (signal?.aborted) return;
      onCase?.(name, i, asked.length);
      const { timed_out, ...result } = await tried(runtime, level, one, join(folder, `${name}.${i}.safetensors`), slow);
      if (timed_out) slow ??= result.name;
      cases.push(result);
    }
    yield { level: name, status: statusOf(cases), measure: level.measure, cases, seconds: (performance.now() - begun) / 1000 };
  }
}

/** What the levels say together. */
export function summarized(runtime: string, levels: readonly LevelResult[]): Conformance {
  const failure = levels.findIndex(({ status }) => status === 'failed');
  const good = (failure < 0 ? levels : levels.slice(0, failure)).filter(({ status }) => status === 'passed');
  return { runtime, conforms: failure < 0 && good.length > 0, reached: good.at(-1)?.level ?? null, levels };
}

/** @param slow a case of this level that took too long: after it, no other one is asked, or the wait would have no end */
async function tried(
  runtime: Runtime,
  level: Level,
  { request, judge }: Case,
  output: string,
  slow: string | null,
): Promise<CaseResult & { readonly timed_out: boolean }> {
  const begun = performance.now();
  const end = ({ status, measured, said }: Judgement, timed_out = false) => {
    return { name: request.case, status, measured, said, seconds: (performance.now() - begun) / 1000, timed_out };
  };
  if (slow !== null) return end({ status: 'failed', measured: null, said: `not asked, since "${slow}" took too long` });
  const answer = await runtime.ask(level.writes ? { ...request, output } : request);
  if (answer.status === 'answered') return end(await judged(judge, answer.fields, output));
  const timed_out = answer.status === 'timed out';
  return end({ status: timed_out ? 'failed' : answer.status, measured: null, said: answer.why }, timed_out);
}

/** A file that cannot be read is the runtime's failure, not the user's. */
async function judged(judge: Case['judge'], fields: Readonly<Record<string, unknown>>, output: string): Promise<Judgement> {
  try {
    return await judge(fields, output);
  } catch (error) {
    if (!(error instanceof OlmoHybridError)) throw error;
    const { expected, found, where } = error.problems[0]!;
    return failed(where.startsWith(output) ? expected : `${where}: ${expected}`, found);
  }
}

function statusOf(cases: readonly CaseResult[]): Status {
  if (cases.some(({ status }) => status === 'failed')) return 'failed';
  return cases.some(({ status }) => status === 'passed') ? 'passed' : 'not supported';
}
