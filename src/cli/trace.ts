import type { Command } from 'commander';
import { readConfig } from '../load.ts';
import { writeTrace } from '../trace.ts';
import { readPassTokenIds } from './input_file.ts';
import { load } from './loading.ts';
import { modelFolder } from './model_folder.ts';
import { addEngineOptions, addModelOption, type EngineFlags, named } from './options.ts';
import { checkOutput } from './output_file.ts';
import { duration, interruptedCode, interruption, note, scaled } from './terminal.ts';
import { version } from './version.ts';

interface Flags extends EngineFlags {
  readonly model?: string;
  readonly tokens: string;
  readonly output: string;
  readonly only?: readonly string[];
}

export function addTrace(program: Command): void {
  const command = program.command('trace').description('write every intermediate of one forward pass, to be compared by diff');
  addModelOption(command)
    .requiredOption('--tokens <file>', 'JSON array of token ids')
    .requiredOption('--output <file>', 'safetensors file to write, as docs/trace_format.md describes it', named('--output'))
    .option('--only <name...>', 'write these intermediates; * stands for any characters, ? for one (default: all)');
  addEngineOptions(command, 'strict').action(run);
}

async function run({ model, tokens, output, only, ...flags }: Flags): Promise<void> {
  const signal = interruption();
  await checkOutput('--output', output, [tokens, model]);
  const dir = await modelFolder(model, { weights: flags.weights, signal });
  const config = await readConfig(dir);
  const ids = await readPassTokenIds(tokens, config);

  const begun = performance.now();
  const { kernels, mode, weights } = flags;
  const options = { kernels, mode, weights, producer: `olmo-hybrid ${version}`, only, signal };
  const file = await writeTrace(output, dir, ids, async () => (await load(dir, ids.length, flags, signal)).model, options);
  if (file === null) {
    process.exitCode = interruptedCode();
    return;
  }
  const seconds = (performance.now() - begun) / 1000;
  note(`${output}: ${file.tensors} intermediates of ${ids.length} tokens, ${scaled(file.bytes, 'B')}, in ${duration(seconds)}`);
}
