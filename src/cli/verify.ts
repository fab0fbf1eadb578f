import { existsSync } from 'node:fs';
import { join } from 'node:path';
import type { Command } from 'commander';
import { median } from '../bench/limits.ts';
import { ArgumentError } from '../errors.ts';
import { hubEnvironment } from '../hub/environment.ts';
import { cachedFolder, idOf } from '../hub/locate.ts';
import { type Accuracy, type Agreement, type Verification, verify } from '../verify.ts';
import { bf16Heading, bf16Line } from './verify_bf16.ts';
import { loadOptions } from './loading.ts';
import { addEngineOptions, addModelOption, type EngineFlags } from './options.ts';
import { onStdout } from './terminal.ts';

const NAME_WIDTH = 32;
const GOLDEN = 'expected.safetensors';

interface Flags extends EngineFlags {
  readonly model?: string;
  readonly json?: true;
}

export function addVerify(program: Command): void {
  const command = program.command('verify').description("compare this machine's results with PyTorch's and with a float64 truth");
  addModelOption(command, 'the kernels, models and text that come with this package').option('--json', 'print one array of all results');
  addEngineOptions(command, 'strict').action(run);
  command.addHelpText(
    'after',
    `
error    largest distance of a result from the truth
PyTorch  the same for PyTorch in float32
ratio    the one divided by the other; above 2 fails
rms      the same ratio of root mean squares
greedy   clear steps of PyTorch's greedy continuation that are taken here as well; one missing fails

With --kernels bf16: the share of values that have the bits of PyTorch in bfloat16, op by op from PyTorch's inputs, and how far the logits are
from PyTorch's, over how far logits in float32 are; above 0.5 fails. docs/accuracy.md explains all of it.

Keys and values are kept in f32 unless --kv says otherwise, in fast mode as well.

A folder given by --model holds, besides the model, an expected.safetensors as golden/README.md describes it.`,
  );
}

async function run({ model, json, ...flags }: Flags): Promise<void> {
  const results: Verification[] = [];
  const print = (line: string) => void (json || process.stdout.write(`${line}\n`));
  let group = '';
  // In bfloat16 none is taken, and refused with its name.
  const folder = model === undefined || flags.kernels === 'bf16' ? model : await goldenFolder(model, flags.weights);
  for await (const result of verify({ model: folder, ...(await loadOptions(flags)) })) {
    if (results.length === 0 && flags.kernels !== 'bf16') print(onStdout.bold(line('', 'error', 'PyTorch', 'ratio', 'rms', 'greedy')));
    results.push(result);
    const heading = headingOf(result);
    if (heading !== group) print(onStdout.bold(heading));
    group = heading;
    print(result.passed ? lineOf(result) : onStdout.red(`${lineOf(result)}  fails`));
  }
  for (const kind of ['kernel', 'model'] as const) {
    const rows = results.filter((result): result is Accuracy => result.kind === kind);
    const of = (key: 'ratio' | 'rms_ratio') => times(median(rows.map((row) => row[key])));
    if (rows.length > 1) print(onStdout.bold(line(`median of ${rows.length} ${kind}s`, '', '', of('ratio'), of('rms_ratio'), '')));
  }
  const failed = results.filter(({ passed }) => !passed);
  if (json) process.stdout.write(`${JSON.stringify(results, null, 2)}\n`);
  print(failed.length === 0 ? onStdout.green(`all ${results.length} hold`) : onStdout.red(`${failed.length} of ${results.length} fail`));
  if (failed.length > 0) process.exitCode = 1;
}

/** The folder of a model, which must have been run through PyTorch. What the Hub has was not, so nothing is downloaded. */
async function goldenFolder(model: string, weights: string | undefined): Promise<string> {
  const id = await idOf(model);
  const folder = id === null ? model : await cachedFolder(id, { environment: await hubEnvironment(), weights });
  if (folder !== null && existsSync(join(folder, GOLDEN))) return folder;
  throw new ArgumentError({
    where: folder ?? model,
    expected: `${GOLDEN}, the results of PyTorch`,
    found: folder === null ? 'no such model in the cache' : 'no such file',
    fix: 'golden/release/README.md in the repository says how it is made; without --model what comes with this package is verified.',
  });
}

function headingOf({ kind, name }: Verification): string {
  if (kind === 'bf16_op' || kind === 'bf16_model') return bf16Heading(kind);
  if (kind === 'held-out') return line('embedded model, held-out text', 'here', 'PyTorch', '', '', 'greedy');
  return kind === 'kernel' ? name.split('/')[0]! : 'models';
}

function lineOf(result: Verification): string {
  if (result.kind === 'bf16_op' || result.kind === 'bf16_model') return bf16Line(result);
  if (result.kind === 'held-out') {
    return line(
      '  perplexity of each token',
      result.perplexity.toFixed(4),
      result.pytorch_perplexity.toFixed(4),
      '',
      '',
      fraction(result.greedy),
    );
  }
  const { name, error, pytorch_error, ratio, rms_ratio, greedy } = result;
  const numbers = [error.toExponential(1), pytorch_error.toExponential(1), times(ratio), times(rms_ratio)] as const;
  return line(`  ${result.kind === 'kernel' ? name.split('/')[1] : name}`, ...numbers, fraction(greedy));
}

/** In seven characters. */
function times(ratio: number): string {
  if (ratio < 1e4) return ratio.toFixed(2);
  return Number.isFinite(ratio) ? ratio.toExponential(1) : `${ratio}`.slice(0, 3);
}

function line(name: string, ...[error, pytorch, ratio, rms, greedy]: readonly [string, string, string, string, string]): string {
  const columns = [error.padStart(9), pytorch.padStart(9), ratio.padStart(8), rms.padStart(8), greedy.padStart(9)];
  return `${name.padEnd(NAME_WIDTH)}${columns.join('')}`.trimEnd();
}

function fraction(greedy: Agreement | null): string {
  return greedy === null ? '' : `${greedy.agreed}/${greedy.compared}`;
}
