import type { Command } from 'commander';
import { ArgumentError, type Problem } from '../errors.ts';
import { type CausalLM, type GenerateOptions, type Generation, generate, generateText } from '../generate.ts';
import { type GenerationConfig, readGenerationConfig } from '../generation_config.ts';
import { type ModelPlan, readConfig } from '../load.ts';
import { seedProblems } from '../random.ts';
import { type SamplingOptions, samplingProblems } from '../sampler.ts';
import { stopStringProblems } from '../stop_strings.ts';
import { modelFolder } from './model_folder.ts';
import { load, missingTokenizer, readTokenizer } from './loading.ts';
import { parameterCount } from './model_facts.ts';
import { addEngineOptions, addModelOption, type EngineFlags, integer, number, wideInteger } from './options.ts';
import { checkLength, DEFAULT_PROMPT, readPrompt } from './prompt.ts';
import { physicalCores } from '../runtime/cores.ts';
import { duration, INTERRUPTED, interruption, note, scaled, textOutput } from './terminal.ts';

const DEFAULT_MAX_TOKENS = 200;

const REASONS = { stop: 'the text came to its end', length: 'cut at its length', abort: 'interrupted' } as const;

/** A generation; its text is null without a tokenizer. */
type Continuation = Omit<Generation, 'text'> & { readonly text: string | null };

interface Flags extends EngineFlags {
  readonly model?: string;
  readonly tokens?: string;
  readonly maxTokens: number;
  readonly context?: number;
  readonly temperature?: number;
  readonly topK?: number;
  readonly topP?: number;
  readonly minP?: number;
  readonly repetitionPenalty?: number;
  readonly seed?: number | bigint;
  readonly stop?: readonly string[];
  readonly json?: true;
}

export function addGenerate(program: Command): void {
  const command = program.command('generate').description('continue a text');
  command
    .argument('[prompt]', `text to continue, - for stdin without its last line break (default: "${DEFAULT_PROMPT}")`)
    .option('--tokens <file>', 'continue the token ids in a JSON array instead of a text')
    .option('--json', 'print one object: tokens, text, finish_reason');
  addModelOption(command)
    .optionsGroup('Length:')
    .option('--max-tokens <n>', 'most tokens to generate', integer('--max-tokens', 0), DEFAULT_MAX_TOKENS)
    .option('--stop <text>', 'end before this text; may be given several times', (text, texts: string[] = []) => [...texts, text])
    .option('--context <n>', 'most tokens of prompt and continuation together (default: what they need)', integer('--context', 1));
  command
    .optionsGroup("Sampling (defaults: the model's generation_config.json; greedy where it says nothing):")
    .option('--temperature <x>', '0 always takes the likeliest token, 1 draws as the model does', number('--temperature'))
    .option('--top-k <n>', 'draw from this many of the likeliest tokens; 0 for all', integer('--top-k', 0))
    .option('--top-p <x>', 'draw from the likeliest tokens that have this probability together', number('--top-p'))
    .option('--min-p <x>', 'draw from tokens at least this times as likely as the likeliest', number('--min-p'))
    .option('--repetition-penalty <x>', 'above 1 makes tokens that came before less likely', number('--repetition-penalty'))
    .option('--seed <n>', 'of the random numbers; the same seed gives the same text (default: a new one)', wideInteger('--seed'));
  addEngineOptions(command, 'fast');
  command.action(run);
}

async function run(text: string | undefined, flags: Flags): Promise<void> {
  const seed = flags.seed ?? crypto.getRandomValues(new Uint32Array(1))[0]!;
  checkFlags(text, flags, seed);
  const signal = interruption();
  const dir = await modelFolder(flags.model, { weights: flags.weights, signal });
  const config = await readConfig(dir);
  const { eos_token_id, ...defaults } = await readGenerationConfig(dir, config.eos_token_id);
  const tokenizer = await readTokenizer(dir, config);
  if (tokenizer === null && flags.stop) throw missingTokenizer(dir, 'for --stop');
  const prompt = await readPrompt({ text, tokens: flags.tokens }, tokenizer, config, dir);
  const { max_position_embeddings } = config;
  const context = flags.context ?? Math.min(prompt.ids.length + flags.maxTokens, max_position_embeddings);
  checkLength(prompt, context, max_position_embeddings);

  const { model, plan, dispose } = await load(dir, context, flags, signal);
  const sampling = samplingOptions(flags, defaults);
  const options = { ...sampling, max_tokens: flags.maxTokens, stop: flags.stop, eos_token_id, seed, signal };
  const pieces = tokenizer ? generateText(model, tokenizer, prompt.ids, options) : generateIds(model, prompt.ids, options);
  const output = flags.json ? null : textOutput(process.stdout);
  if (output) note(headline(plan, flags.model ?? null));
  if (output?.forPerson) note('');
  output?.push(prompt.shown);

  const begin = performance.now();
  let first = begin;
  let step = await pieces.next();
  for (; !step.done; step = await pieces.next()) {
    if (first === begin) first = performance.now();
    output?.push(step.value);
  }
  const end = performance.now();
  await dispose();
  output?.end();
  const { tokens, text: continuation, finish_reason } = step.value;
  if (flags.json) process.stdout.write(`${JSON.stringify({ tokens, text: continuation, finish_reason })}\n`);
  if (output?.forPerson) note('');
  const speed = tokens.length > 1 ? `, ${(((tokens.length - 1) * 1000) / (end - first)).toFixed(0)} tokens/s` : '';
  const chosen = sampling.temperature === 0 ? 'greedy' : `seed ${seed}`;
  note(
    [
      `prompt of ${counted(prompt.ids)} in ${duration((first - begin) / 1000)}`,
      `${counted(tokens)}${speed}`,
      ...(await engine(plan, flags)),
      chosen,
      REASONS[finish_reason],
    ].join(' · '),
  );
  if (finish_reason === 'abort') process.exitCode = INTERRUPTED;
}

/** Generates ids as text, for a model without a tokenizer. */
async function* generateIds(
  model: CausalLM,
  prompt: readonly number[],
  options: GenerateOptions,
): AsyncGenerator<string, Continuation, void> {
  const tokens: number[] = [];
  const ids = generate(model, prompt, options);
  let step = await ids.next();
  for (; !step.done; step = await ids.next()) {
    yield tokens.length === 0 ? `${step.value}` : ` ${step.value}`;
    tokens.push(step.value);
  }
  return { tokens, text: null, finish_reason: step.value };
}

/** Everything that can be judged before a file is read. */
function checkFlags(text: string | undefined, flags: Flags, seed: number | bigint): void {
  const problems: Problem[] = [];
  if (text !== undefined && flags.tokens !== undefined) {
    const fix = 'Leave one of the two out.';
    problems.push({ where: 'generate', expected: 'a prompt or --tokens', found: 'both', fix });
  }
  const { temperature, topK: top_k, topP: top_p, minP: min_p, repetitionPenalty: repetition_penalty } = flags;
  const sampling = samplingProblems({ temperature, top_k, top_p, min_p, repetition_penalty });
  for (const problem of [...sampling, ...seedProblems(seed), ...stopStringProblems(flags.stop ?? [])]) {
    problems.push({ ...problem, where: `--${problem.where.replaceAll('_', '-')}` });
  }
  if (problems.length > 0) throw new ArgumentError(problems);
}

/** The options given, then those of the model's authors. HF: GenerationMixin, where do_sample is false unless a file says otherwise. */
function samplingOptions(flags: Flags, { do_sample = false, ...config }: Omit<GenerationConfig, 'eos_token_id'>): SamplingOptions {
  const narrowed = flags.topK !== undefined || flags.topP !== undefined || flags.minP !== undefined; // means little without drawing
  return {
    temperature: flags.temperature ?? (do_sample || narrowed ? (config.temperature ?? 1) : 0),
    top_k: flags.topK ?? config.top_k,
    top_p: flags.topP ?? config.top_p,
    min_p: flags.minP ?? config.min_p,
    repetition_penalty: flags.repetitionPenalty ?? config.repetition_penalty,
  };
}

function headline(plan: ModelPlan, model: string | null): string {
  const name = model ?? 'OLMo Hybrid, embedded demo model';
  const attention = plan.config.layer_types.filter((type) => type !== 'linear_attention').length;
  const linear = plan.config.layer_types.length - attention;
  return `${name} · ${scaled(parameterCount(plan))} parameters · ${linear} Gated DeltaNet + ${attention} attention layers`;
}

/** How the engine differs from its defaults. */
async function engine({ build, threads }: ModelPlan, { kernels, weights }: Flags): Promise<string[]> {
  const facts = kernels !== 'wasm' ? [`${kernels} kernels`] : build === 'strict' ? ['strict build'] : [];
  if (kernels === 'wasm' && threads !== (await physicalCores())) facts.push(threads === 1 ? '1 thread' : `${threads} threads`);
  if (weights !== undefined) facts.push(weights);
  return facts;
}

function counted({ length }: readonly number[]): string {
  return length === 1 ? '1 token' : `${length} tokens`;
}
