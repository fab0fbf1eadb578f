import type { Command } from 'commander';
import { hubEnvironment } from '../hub/environment.ts';
import { requireModelId } from '../hub/model_id.ts';
import { pull } from '../hub/pull.ts';
import { withDownloadLine } from './model_folder.ts';
import { duration, interruption, note, scaled } from './terminal.ts';

export function addPull(program: Command): void {
  program
    .command('pull')
    .description('download a model from the Hugging Face Hub, or what is new in it')
    .argument('<model>', 'org/name, or org/name@revision for a branch, tag or commit')
    .addHelpText(
      'after',
      `
It goes into the cache that Python uses too (HF_HOME, HF_HUB_CACHE), and prints the folder there. A download that was broken off is taken up
where it was; every file is checked against its digest. HF_TOKEN opens private models, HF_ENDPOINT is another Hub, HF_HUB_OFFLINE=1 asks none.`,
    )
    .action(run);
}

async function run(model: string): Promise<void> {
  const id = requireModelId(model);
  const signal = interruption();
  const begin = performance.now();
  const pulled = await withDownloadLine(async (telling) => await pull(id, { environment: await hubEnvironment(), signal, ...telling }));
  const { folder, commit, files, bytes, fetched } = pulled;
  const seconds = (performance.now() - begin) / 1000;
  const how = fetched === 0 ? 'all in the cache' : `${scaled(fetched, 'B')} fetched in ${duration(seconds)}`;
  note(`${id.repository} at ${commit.slice(0, 12)}: ${files} files, ${scaled(bytes, 'B')}, ${how}`);
  process.stdout.write(`${folder}\n`);
}
