import type { Command } from 'commander';
import { ArgumentError } from '../errors.ts';
import { readConfig } from '../load.ts';
import { perplexity, perplexityProblems } from '../perplexity.ts';
import { counted } from '../words.ts';
import { readText } from './input_file.ts';
import { modelFolder } from './model_folder.ts';
import { load, missingTokenizer, readTokenizer } from './loading.ts';
import { addEngineOptions, addModelOption, type EngineFlags, integer } from './options.ts';
import { duration, interruption, note, ProgressLine, withoutInterruption } from './terminal.ts';

const DEFAULT_CONTEXT = 4096;

interface Flags extends EngineFlags {
  readonly model?: string;
  readonly file: string;
  readonly context?: number;
  readonly stride?: number;
  readonly json?: true;
}

export function addPerplexity(program: Command): void {
  const command = program.command('perplexity').description('measure how well a model predicts a text');
  addModelOption(command)
    .requiredOption('--file <text>', 'UTF-8 file to measure')
    .option('--context <n>', `tokens of a window (default: those of the model, at most ${DEFAULT_CONTEXT})`, integer('--context', 2))
    .option('--stride <n>', 'tokens from one window to the next (default: the context)', integer('--stride', 2))
    .option('--json', 'print one object: perplexity, nll, tokens, windows, context, stride');
  addEngineOptions(command, 'strict').action(run);
  command.addHelpText(
    'after',
    `
The text is read in windows of --context tokens that begin --stride apart, each from an empty state; a window counts for the tokens that
no earlier one had. This is the recipe "Perplexity of fixed-length models" of the Hugging Face documentation, to the number of tokens. By
default windows do not overlap, so each token is read once. The recipe's example takes half the context: past the first window every token
then has the other half before it, the figure is lower, and reading takes context / stride times as long.`,
  );
}

async function run(flags: Flags): Promise<void> {
  const signal = interruption();
  const dir = await modelFolder(flags.model, { weights: flags.weights, signal });
  const config = await readConfig(dir);
  const tokenizer = await readTokenizer(dir, config);
  if (tokenizer === null) throw missingTokenizer(dir, 'for the text', '');
  const ids = await withoutInterruption(async () => tokenizer.encode(await readText(flags.file, 'a text in UTF-8')));
  const context = flags.context ?? Math.min(config.max_position_embeddings, DEFAULT_CONTEXT);
  const stride = flags.stride ?? context;
  const problems = perplexityProblems(ids.length, context, stride, config.max_position_embeddings);
  if (problems.length > 0) {
    throw new ArgumentError(
      problems.map((problem) => ({ ...problem, where: problem.where === 'text' ? flags.file : `--${problem.where}` })),
    );
  }

  const room = Math.min(context, ids.length); // of a shorter text there is one window
  const { model, dispose } = await load(dir, room, flags, signal);
  const begin = performance.now();
  const progress = new ProgressLine('reading tokens', (count) => count.toFixed(0));
  const windows = { context: room, stride: Math.min(stride, room) };
  const result = await perplexity(model, ids, { ...windows, signal, onProgress: progress.update }).finally(async () => {
    progress.end();
    await dispose();
  });
  if (flags.json) process.stdout.write(`${JSON.stringify({ ...result, context, stride })}\n`);
  else
    process.stdout.write(
      `perplexity ${result.perplexity.toFixed(4)} over ${result.tokens} tokens in ${counted(result.windows, 'window')}\n`,
    );
  note(`windows of ${context} tokens, ${stride} apart · ${duration((performance.now() - begin) / 1000)}`);
}
