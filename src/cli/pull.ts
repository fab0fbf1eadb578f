import type { Command } from 'commander';
import { ArgumentError } from '../errors.ts';
import { hubEnvironment } from '../hub/environment.ts';
import { type ModelId, requireModelId } from '../hub/model_id.ts';
import { type Pulled, pull } from '../hub/pull.ts';
import { pullQuantised } from '../hub/pull_quantised.ts';
import { physicalCores } from '../runtime/cores.ts';
import { warnNotFinite } from './loading.ts';
import { withDownloadLine } from './model_folder.ts';
import { integer, oneOf } from './options.ts';
import { duration, interruption, note, scaled } from './terminal.ts';

interface Flags {
  readonly weights?: 'q8' | 'q4';
  readonly onlyQuantised?: true;
  readonly threads?: number;
}

export function addPull(program: Command): void {
  program
    .command('pull')
    .description('download a model from the Hugging Face Hub, or what is new in it')
    .argument('<model>', 'org/name, or org/name@revision for a branch, tag or commit')
    .option('--weights <format>', 'with --only-quantised: q8 (8.5 bits for each weight) or q4 (4.5 bits)', oneOf('--weights', ['q8', 'q4']))
    .option('--only-quantised', 'quantise on the way: the original weights never lie on disk')
    .option('--threads <n>', 'threads that quantise (default: the physical cores)', integer('--threads', 1))
    .addHelpText(
      'after',
      `
It goes into the cache that Python uses too (HF_HOME, HF_HUB_CACHE), quantised weights beside it (HF_ASSETS_CACHE), and the folder is printed.
What was broken off is taken up where it was; every file is checked against its digest. HF_TOKEN opens private models, HF_ENDPOINT is another
Hub, HF_HUB_OFFLINE=1 asks none. Afterwards every command takes the model by the same name.`,
    )
    .action(run);
}

async function run(model: string, flags: Flags): Promise<void> {
  const id = requireModelId(model);
  if ((flags.weights === undefined) !== (flags.onlyQuantised === undefined)) {
    const found = flags.weights === undefined ? '--only-quantised alone' : '--weights alone';
    const fix = 'Weights are quantised when they are loaded, or on the way with both of them.';
    throw new ArgumentError({ where: 'pull', expected: '--weights with --only-quantised', found, fix });
  }
  const begin = performance.now();
  const { folder, commit, files, bytes, fetched } = await download(id, flags);
  const seconds = (performance.now() - begin) / 1000;
  const how = fetched === 0 ? 'all in the cache' : `${scaled(fetched, 'B')} fetched in ${duration(seconds)}`;
  note(`${id.repository} at ${commit.slice(0, 12)}: ${files} files, ${scaled(bytes, 'B')}, ${how}`);
  process.stdout.write(`${folder}\n`);
}

async function download(id: ModelId, { weights, threads }: Flags): Promise<Pulled> {
  const environment = await hubEnvironment();
  const signal = interruption();
  if (weights === undefined) return await withDownloadLine(async (telling) => await pull(id, { environment, signal, ...telling }));
  const pulled = await withDownloadLine(
    async (telling) => await pullQuantised(id, { environment, signal, weights, threads: threads ?? (await physicalCores()), ...telling }),
  );
  warnNotFinite(id.repository, pulled.not_finite);
  return pulled;
}
