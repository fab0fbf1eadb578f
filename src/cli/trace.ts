import type { Command } from 'commander';
import { ArgumentError } from '../errors.ts';
import { readConfig } from '../load.ts';
import { writeTrace } from '../trace.ts';
import { readTokenIds } from './input_file.ts';
import { load } from './loading.ts';
import { modelFolder } from './model_folder.ts';
import { addEngineOptions, addModelOption, type EngineFlags } from './options.ts';
import { duration, INTERRUPTED, interruption, note, scaled } from './terminal.ts';
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
    .requiredOption('--output <file>', 'safetensors file to write, as docs/trace_format.md describes it')
    .option('--only <name...>', 'write these intermediates; * stands for any characters, ? for one (default: all)');
  addEngineOptions(command, 'strict').action(run);
}

async function run({ model, tokens, output, only, ...flags }: Flags): Promise<void> {
  const signal = interruption();
  const dir = await modelFolder(model, { weights: flags.weights, signal });
  const config = await readConfig(dir);
  const ids = await readTokenIds(tokens, config.vocab_size);
  if (ids.length > config.max_position_embeddings) {
    const expected = `at most ${config.max_position_embeddings} token ids, the model's max_position_embeddings`;
    throw new ArgumentError({ where: tokens, expected, found: `${ids.length}`, fix: 'Shorten the list.' });
  }

  const begun = performance.now();
  const { kernels, mode, weights } = flags;
  const options = { kernels, mode, weights, producer: `olmo-hybrid ${version}`, only, signal };
  const file = await writeTrace(output, dir, ids, async () => (await load(dir, ids.length, flags, signal)).model, options);
  if (file === null) {
    process.exitCode = INTERRUPTED;
    return;
  }
  const seconds = (performance.now() - begun) / 1000;
  note(`${output}: ${file.tensors} intermediates of ${ids.length} tokens, ${scaled(file.bytes, 'B')}, in ${duration(seconds)}`);
}
