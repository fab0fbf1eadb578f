#!/usr/bin/env node
import { Command } from 'commander';
import picocolors from 'picocolors';
import { ArgumentError } from '../errors.ts';
import { addBench } from './bench.ts';
import { addCache } from './cache.ts';
import { addChat } from './chat.ts';
import { addConform } from './conform.ts';
import { addDiff } from './diff.ts';
import { addGenerate } from './generate.ts';
import { addInspect } from './inspect.ts';
import { addLogits } from './logits.ts';
import { report } from './mistake.ts';
import { addPerplexity } from './perplexity.ts';
import { addPull } from './pull.ts';
import { addQuantize } from './quantize.ts';
import { addDetokenize, addTokenize } from './tokenize.ts';
import { addTrace } from './trace.ts';
import { addVerify } from './verify.ts';
import { version } from './version.ts';

const { bold, cyan } = picocolors.createColors(true); // commander takes the colours out where they do not belong

const program = new Command('olmo-hybrid')
  .description('OLMo Hybrid, a language model of attention and Gated DeltaNet layers, on WebAssembly: no Python, no GPU.')
  .version(version, '-v, --version', 'print the version')
  .option('--debug', 'print stack traces')
  .helpOption('-h, --help', 'print what a command takes')
  .helpCommand(false)
  .configureHelp({
    showGlobalOptions: true,
    subcommandTerm: (command) => [command.name(), ...command.registeredArguments.map((argument) => `[${argument.name()}]`)].join(' '),
    styleTitle: bold,
    styleCommandText: cyan,
    styleSubcommandText: cyan,
    styleOptionText: cyan,
    styleArgumentText: cyan,
  })
  .configureOutput({ outputError: () => {} }) // report() does
  .exitOverride()
  .addHelpText(
    'after',
    `
Examples:
  olmo-hybrid generate "The evening was"
  olmo-hybrid generate --model DIR --temperature 0 --max-tokens 50 "The evening was"
  olmo-hybrid inspect --model allenai/Olmo-Hybrid-7B
  olmo-hybrid chat allenai/Olmo-Hybrid-Instruct-DPO-7B --weights q4
  olmo-hybrid verify`,
  );

for (const add of [
  addGenerate,
  addChat,
  addLogits,
  addTokenize,
  addDetokenize,
  addInspect,
  addPull,
  addCache,
  addPerplexity,
  addQuantize,
  addVerify,
  addTrace,
  addDiff,
  addConform,
  addBench,
])
  add(program);

const [first, second] = process.argv.slice(2);
const verb = program.commands.find((command) => command.name() === first);
const part = verb?.commands.find((command) => command.name() === second);
const words = [program, verb, part].flatMap((command) => command?.name() ?? []).join(' ');
const tell = (error: unknown) => report(error, words, program.opts<{ debug?: true }>().debug ?? false);

for (const [where, stream] of Object.entries({ stdout: process.stdout, stderr: process.stderr })) {
  stream.on('error', (cause: NodeJS.ErrnoException) => {
    // The reader of a pipe may leave early, as `head` does, and a terminal may be closed.
    const unread = cause.code === 'EPIPE' || (cause.code === 'EIO' && stream.isTTY);
    // No result goes there: the work goes on without it.
    if (unread && where === 'stderr') return;
    const problem = { where, expected: 'a place to write to', found: cause.message, fix: 'Send the output elsewhere.' };
    if (!unread && !process.exitCode) process.exitCode = tell(new ArgumentError(problem, { cause }));
    // Who listens besides has something to keep, and ends then.
    if (stream.listenerCount('error') === 1) process.exit();
  });
}

try {
  if (first === undefined) program.outputHelp();
  else if (verb && verb.commands.length > 0 && second === undefined) verb.outputHelp();
  else await program.parseAsync();
} catch (error) {
  const code = tell(error);
  // As diff(1) has it, 1 is that two files are not the same.
  process.exitCode = code === 1 && verb?.name() === 'diff' ? 2 : code;
}
