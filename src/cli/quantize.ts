import type { Command } from 'commander';
import { checkFolderWritable } from '../atomic_file.ts';
import { quantizeCheckpoint } from '../quantize.ts';
import { physicalCores } from '../runtime/cores.ts';
import { warnNotFinite } from './loading.ts';
import { modelFolder } from './model_folder.ts';
import { integer, oneOf } from './options.ts';
import { duration, interruption, note, ProgressLine, scaled } from './terminal.ts';

interface Flags {
  readonly weights: 'q8' | 'q4';
  readonly threads?: number;
}

export function addQuantize(program: Command): void {
  program
    .command('quantize')
    .description('write a folder with the weights of another in blocks of 8 or 4 bits')
    .argument('<in>', 'folder with config.json and model.safetensors, or org/name[@revision] on the Hub')
    .argument('<out>', 'folder to make')
    .requiredOption('--weights <format>', 'q8 (8.5 bits for each weight) or q4 (4.5 bits)', oneOf('--weights', ['q8', 'q4']))
    .option('--threads <n>', 'threads that share the work (default: the physical cores)', integer('--threads', 1))
    .action(run);
}

async function run(input: string, output: string, { weights, threads }: Flags): Promise<void> {
  await checkFolderWritable(output);
  const begin = performance.now();
  const progress = new ProgressLine('quantising');
  const signal = interruption();
  const dir = await modelFolder(input, { signal });
  const options = { weights, threads: threads ?? (await physicalCores()), signal, onProgress: progress.update };
  const { files, bytes, source_bytes, not_finite } = await quantizeCheckpoint(dir, output, options).finally(() => progress.end());
  warnNotFinite(input, not_finite);
  const seconds = (performance.now() - begin) / 1000;
  const shards = files === 1 ? '' : ` in ${files} files`;
  note(`${output}: ${scaled(bytes, 'B')}${shards} from ${scaled(source_bytes, 'B')}, ${weights}, in ${duration(seconds)}`);
}
