import { existsSync } from 'node:fs';
import { join } from 'node:path';
import type { Command } from 'commander';
import { checkWritable } from '../atomic_file.ts';
import { Conversation } from '../chat/conversation.ts';
import { checkSession } from '../chat/session_file.ts';
import { StateCheckpoints } from '../chat/state_checkpoints.ts';
import { readChatTemplate } from '../chat_template.ts';
import { ArgumentError } from '../errors.ts';
import { readGenerationConfig } from '../generation_config.ts';
import { readConfig } from '../load.ts';
import { embeddedModel } from '../package_files.ts';
import { isCommand, runCommand } from './chat_commands.ts';
import { type ChatInput, PipedInput, TypedInput } from './chat_input.ts';
import { PipedAnswer, ShownAnswer } from './chat_output.ts';
import { explain, Talk } from './chat_talk.ts';
import { load, missingTokenizer, readTokenizer, warnNotApplied } from './loading.ts';
import { headline } from './model_facts.ts';
import { modelFolder } from './model_folder.ts';
import { addEngineOptions, addModelOption, type EngineFlags, integer, named } from './options.ts';
import {
  addSamplingOptions,
  flagProblems,
  givenSampling,
  newSeed,
  type SamplingFlags,
  samplingOptions,
  suppressionOptions,
} from './sampling.ts';
import { interruptedCode, interruption, note } from './terminal.ts';

const DEFAULT_CONTEXT = 4096;
/** Ctrl-C is heard between two passes: of 256 tokens one takes the 7B half a minute. 64 read a sixth slower (q4, 0.3b: 2.1 s for 512 tokens, 1.8). */
const DEFAULT_PREFILL_CHUNK = 64;
/** Most bytes of the checkpoints, and most of what the model takes. */
const CHECKPOINTS = { bytes: 2 ** 30, share: 0.25 };

interface Flags extends EngineFlags, SamplingFlags {
  readonly model?: string;
  readonly system?: string;
  readonly session?: string;
  readonly context?: number;
  readonly hideThinking?: true;
}

export function addChat(program: Command): void {
  const command = program.command('chat').description('talk with a model; /help lists what can be said to the program');
  command.argument('[model]', 'the same as --model', named('chat'));
  addModelOption(command, 'the embedded model, which has no chat template')
    .option('--system <text>', "what the model is told before the first message (default: the template's own)")
    .option('--session <file>', 'go on with the conversation in this file if there is one, and keep it there when leaving')
    .option(
      '--context <n>',
      `most tokens of the conversation (default: all that the model knows, at most ${DEFAULT_CONTEXT})`,
      integer('--context', 1),
    )
    .option('--hide-thinking', 'leave out what the model thinks before it answers');
  addSamplingOptions(command);
  addEngineOptions(command, 'fast', DEFAULT_PREFILL_CHUNK).action(run);
}

async function run(model: string | undefined, flags: Flags): Promise<void> {
  checkFlags(model, flags);
  const name = model ?? flags.model;
  if (flags.session !== undefined) {
    await checkWritable(flags.session);
    if (existsSync(flags.session)) await checkSession(flags.session);
  }
  const signal = interruption();
  const dir = await modelFolder(name, { weights: flags.weights, signal });
  const config = await readConfig(dir);
  const { eos_token_id, ...defaults } = await readGenerationConfig(dir, config.eos_token_id);
  warnNotApplied(dir, defaults);
  const tokenizer = await readTokenizer(dir, config);
  if (tokenizer === null) throw missingTokenizer(dir, 'to talk');
  const template = (await readChatTemplate(dir)) ?? missingTemplate(dir);
  const context = flags.context ?? Math.min(config.max_position_embeddings, DEFAULT_CONTEXT);

  const { model: loaded, plan, dispose } = await load(dir, context, { prefillChunk: DEFAULT_PREFILL_CHUNK, ...flags }, signal);
  const limit_bytes = Math.min(CHECKPOINTS.bytes, Math.floor(CHECKPOINTS.share * plan.placement.total_bytes));
  const checkpoints = new StateCheckpoints(loaded, { limit_bytes });
  const rules = { ...samplingOptions(flags, defaults), ...suppressionOptions(defaults), eos_token_id, max_tokens: defaults.max_new_tokens };
  const options = { ...rules, system: flags.system, seed: flags.seed ?? newSeed() };
  const conversation = new Conversation(checkpoints, tokenizer, template, options);
  const forPerson = process.stdin.isTTY && process.stdout.isTTY;
  const input = forPerson ? new TypedInput() : new PipedInput();
  const hide = flags.hideThinking ?? false;
  const output = forPerson ? new ShownAnswer(hide, () => checkpoints.position) : new PipedAnswer(hide);
  const talk = new Talk({ conversation, input, output, dir, plan, flags, sampling: givenSampling(flags) });
  try {
    note(headline(plan, name));
    if (flags.session !== undefined && existsSync(flags.session)) await talk.load(flags.session);
    if (flags.system !== undefined) conversation.system = flags.system;
    if (forPerson) note('/help lists what can be said to the program.');
    if (flags.session === undefined) await converse(talk, input);
    else await converseAndKeep(talk, input, flags.session);
  } finally {
    input.close();
    await dispose();
  }
  if (input.interrupted) process.exitCode = interruptedCode();
}

/** Keeps the conversation when it ends, also by a mistake. @throws as `converse`, and {ArgumentError} when it cannot be kept */
async function converseAndKeep(talk: Talk, input: ChatInput, path: string): Promise<void> {
  const { conversation } = talk;
  const before = conversation.messages;
  let lost: typeof before | null = null;
  for (;;) {
    try {
      await converse(talk, input);
    } catch (error) {
      if (conversation.messages !== before) await talk.save(path).catch(explain);
      throw error;
    }
    try {
      await talk.save(path);
      return;
    } catch (error) {
      if (!input.forPerson || input.interrupted || conversation.messages === lost) throw error;
      explain(error);
      lost = conversation.messages;
      note('/save FILE keeps it in another file. To leave now is to lose it.');
    }
  }
}

/** Until there is nothing more to say. @throws {OlmoHybridError} where nobody can be told */
async function converse(talk: Talk, input: ChatInput): Promise<void> {
  for (;;) {
    if (input.forPerson) process.stdout.write('\n');
    const text = await input.read();
    if (text === null) return;
    if (text.trim() === '') continue;
    try {
      if (!isCommand(text)) await talk.say(text);
      else if (!(await runCommand(talk, text))) return;
    } catch (error) {
      if (!input.forPerson) throw error;
      explain(error);
    }
  }
}

function checkFlags(model: string | undefined, flags: Flags): void {
  const problems = flagProblems(flags);
  if (model !== undefined && flags.model !== undefined) {
    problems.push({ where: 'chat', expected: 'a model or --model', found: 'both', fix: 'Leave one of the two out.' });
  }
  if (problems.length > 0) throw new ArgumentError(problems);
}

function missingTemplate(dir: string): never {
  const found = dir === embeddedModel ? 'none: the embedded model only continues texts' : 'none';
  const fix = `Take an Instruct or Think model, or put a template into ${join(dir, 'chat_template.jinja')}; \`olmo-hybrid generate\` needs none.`;
  throw new ArgumentError({
    where: dir,
    expected: 'a chat template, chat_template.jinja or chat_template in tokenizer_config.json',
    found,
    fix:
      dir === embeddedModel
        ? 'Name an Instruct or Think model, such as allenai/Olmo-Hybrid-Instruct-DPO-7B; `olmo-hybrid generate` continues texts.'
        : fix,
  });
}
