import type { Command } from 'commander';
import { visible } from '../checkpoint/problem_list.ts';
import { HubError } from '../errors.ts';
import { cachedBytes, cachedModels, removeCached, verifyCached } from '../hub/cached_models.ts';
import { type HubEnvironment, hubEnvironment } from '../hub/environment.ts';
import { requireModelId } from '../hub/model_id.ts';
import { fail, interruption, note, onStdout, ProgressLine, scaled } from './terminal.ts';

export function addCache(program: Command): void {
  const cache = program.command('cache').description('list, check or remove downloaded models').helpCommand(false);
  cache
    .command('ls')
    .description('list the models in the cache that Python uses too, and what was quantised of them')
    .option('--json', 'print a JSON array')
    .action(list);
  cache
    .command('verify')
    .description('compare every file with its digest; what is damaged is removed, and pull fetches it again')
    .argument('[model]', 'org/name (default: all)')
    .action(verify);
  cache
    .command('rm')
    .description('remove a model, or one revision of it')
    .argument('<model>', 'org/name, or org/name@revision')
    .action(remove);
}

async function list({ json }: { readonly json?: true }): Promise<void> {
  const environment = await hubEnvironment();
  const models = await cachedModels(environment);
  if (json) {
    process.stdout.write(`${JSON.stringify(models, null, 2)}\n`);
    return;
  }
  if (models.length === 0) note(noModels(environment));
  for (const { repository, commit, revisions, weights, files, bytes, incomplete_bytes } of models) {
    const facts = [
      commit.slice(0, 12) + (revisions.length > 0 ? ` (${revisions.join(', ')})` : ''),
      weights ?? '',
      files > 0 ? `${files} files, ${scaled(bytes, 'B')}` : '',
      incomplete_bytes > 0 ? `${scaled(incomplete_bytes, 'B')} of unfinished downloads` : '',
    ].filter((fact) => fact !== '');
    process.stdout.write(`${onStdout.bold(visible(repository))}  ${visible(facts.join('  '))}\n`);
  }
}

function noModels({ cache }: HubEnvironment): string {
  return `No models in ${cache}.`;
}

async function verify(model: string | undefined): Promise<void> {
  const environment = await hubEnvironment();
  const id = model === undefined ? null : requireModelId(model);
  const models = (await cachedModels(environment)).filter(({ repository }) => id === null || repository === id.repository);
  if (models.length === 0 && id !== null) {
    const expected = `it in the cache, ${environment.cache}`;
    throw new HubError({ where: id.repository, expected, found: 'it not there', fix: '`olmo-hybrid cache ls` lists what is there.' });
  }
  if (models.length === 0) note(noModels(environment));
  const repositories = [...new Set(models.map(({ repository }) => repository))];
  const signal = interruption();
  const progress = new ProgressLine('checking');
  let total = 0;
  for (const repository of repositories) total += await cachedBytes({ repository }, environment);
  let done = 0;
  for (const repository of repositories) {
    const onRead = (bytes: number) => {
      done += bytes;
      progress.update(done, total);
    };
    const { files, damaged } = await verifyCached({ repository }, environment, signal, onRead).finally(() => progress.end());
    for (const { path, expected, found, pull } of damaged) {
      fail(visible(`${path}: expected content of digest ${expected}, found ${found}; removed. Run \`olmo-hybrid pull ${pull}\`.`));
    }
    process.stdout.write(`${visible(repository)}: ${files - damaged.length} of ${files} files are as they should be\n`);
    if (damaged.length > 0) process.exitCode = 1;
  }
}

async function remove(model: string): Promise<void> {
  const environment = await hubEnvironment();
  const id = requireModelId(model);
  const freed = await removeCached(id, model.includes('@') ? id.revision : null, environment);
  note(`${model}: removed, ${scaled(freed, 'B')} freed`);
}
