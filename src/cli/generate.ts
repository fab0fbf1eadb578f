import type { Command } from 'commander';
import { ArgumentError, type Problem } from '../errors.ts';
import { type CausalLM, type GenerateOptions, type Generation, generate, generateText } from '../generate.ts';
import { readGenerationConfig } from '../generation_config.ts';
import { readConfig } from '../load.ts';
import { stopStringProblems } from '../stop_strings.ts';
import { counted } from '../words.ts';
import { modelFolder } from './model_folder.ts';
import { load, missingTokenizer, readTokenizer, warnNotApplied } from './loading.ts';
import { engine, headline } from './model_facts.ts';
import { addEngineOptions, addModelOption, type EngineFlags, integer } from './options.ts';
import { checkLength, DEFAULT_PROMPT, readPrompt } from './prompt.ts';
import { addSamplingOptions, flagProblems, newSeed, type SamplingFlags, samplingOptions, suppressionOptions } from './sampling.ts';
import { duration, interruptedCode, interruption, note, textOutput, withoutInterruption } from './terminal.ts';

const DEFAULT_MAX_TOKENS = 200;

const REASONS = { stop: 'the text came to its end', length: 'cut at its length', abort: 'interrupted' } as const;

/** A generation; its text is null without a tokenizer. */
type Continuation = Omit<Generation, 'text'> & { readonly text: string | null };

interface Flags extends EngineFlags, SamplingFlags {
  readonly model?: string;
  readonly tokens?: string;
  readonly maxTokens?: number;
  readonly context?: number;
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
    .option(
      '--max-tokens <n>',
      `most tokens to generate (default: ${DEFAULT_MAX_TOKENS}, or the model's max_new_tokens if that is less)`,
      integer('--max-tokens', 0),
    )
    .option('--stop <text>', 'end before this text; may be given several times', (text, texts: string[] = []) => [...texts, text])
    .option('--context <n>', 'most tokens of prompt and continuation together (default: what they need)', integer('--context', 1));
  addSamplingOptions(command);
  addEngineOptions(command, 'fast');
  command.action(run);
}

async function run(text: string | undefined, flags: Flags): Promise<void> {
  const seed = flags.seed ?? newSeed();
  checkFlags(text, flags);
  const signal = interruption();
  const dir = await modelFolder(flags.model, { weights: flags.weights, signal });
  const config = await readConfig(dir);
  const { eos_token_id, ...defaults } = await readGenerationConfig(dir, config.eos_token_id);
  warnNotApplied(dir, defaults);
  const max_tokens = flags.maxTokens ?? Math.min(DEFAULT_MAX_TOKENS, defaults.max_new_tokens ?? Infinity);
  const tokenizer = await readTokenizer(dir, config);
  if (tokenizer === null && flags.stop) throw missingTokenizer(dir, 'for --stop');
  const prompt = await withoutInterruption(() => readPrompt({ text, tokens: flags.tokens }, tokenizer, config, dir));
  const { max_position_embeddings } = config;
  const context = flags.context ?? Math.min(prompt.ids.length + max_tokens, max_position_embeddings);
  checkLength(prompt, context, max_position_embeddings);

  const { model, plan, dispose } = await load(dir, context, flags, signal);
  const sampling = samplingOptions(flags, defaults);
  const options = { ...sampling, ...suppressionOptions(defaults), max_tokens, stop: flags.stop, eos_token_id, seed, signal };
  const pieces = tokenizer ? generateText(model, tokenizer, prompt.ids, options) : generateIds(model, prompt.ids, options);
  const output = flags.json ? null : textOutput(process.stdout);
  if (output) note(headline(plan, flags.model));
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
      `prompt of ${counted(prompt.ids.length)} in ${duration((first - begin) / 1000)}`,
      `${counted(tokens.length)}${speed}`,
      ...(await engine(plan, flags)),
      chosen,
      REASONS[finish_reason],
    ].join(' · '),
  );
  if (finish_reason === 'abort') process.exitCode = interruptedCode();
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
function checkFlags(text: string | undefined, flags: Flags): void {
  const problems: Problem[] = [];
  if (text !== undefined && flags.tokens !== undefined) {
    const fix = 'Leave one of the two out.';
    problems.push({ where: 'generate', expected: 'a prompt or --tokens', found: 'both', fix });
  }
  problems.push(...flagProblems(flags, stopStringProblems(flags.stop ?? [])));
  if (problems.length > 0) throw new ArgumentError(problems);
}
