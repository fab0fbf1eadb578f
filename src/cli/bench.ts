import type { Command } from 'commander';
import type { Limits } from '../bench/limits.ts';
import { type BenchResult, runBench } from '../bench/run.ts';
import { SHAPES, shapeConfig } from '../bench/shapes.ts';
import { syntheticTensors } from '../bench/synthetic.ts';
import { ArgumentError } from '../errors.ts';
import { loadModel, loadModelFrom, readConfig } from '../load.ts';
import { physicalCores } from '../runtime/cores.ts';
import { modelFolder } from './model_folder.ts';
import { addModelOption, addPlanOptions, integer, oneOf, type PlanFlags } from './options.ts';
import { duration, note, onStdout, scaled } from './terminal.ts';

interface Flags extends PlanFlags {
  readonly model?: string;
  readonly shape?: string;
  readonly context: readonly number[];
  readonly rounds: number;
  readonly profile?: true;
  readonly json?: true;
}

export function addBench(program: Command): void {
  const command = program.command('bench').description('measure how fast a model runs here, beside what this machine can do');
  addModelOption(command).option('--shape <name>', `a model of random weights instead: ${SHAPES.join(', ')}`, oneOf('--shape', SHAPES));
  addPlanOptions(command, 'fast')
    .option('--context <n,n,…>', 'measure decoding up to so many positions as well, each at least 576', positions, [])
    .option('--rounds <n>', 'most measurements of each figure', integer('--rounds', 1), 5)
    .option('--profile', 'print the share of every kernel')
    .option('--json', 'print one object')
    .action(async ({ model, shape, context, json, profile, ...flags }: Flags) => {
      if (model !== undefined && shape !== undefined) {
        throw new ArgumentError({ where: 'bench', expected: '--model or --shape', found: 'both', fix: 'Leave one of the two out.' });
      }
      const folder = await modelFolder(model, { weights: flags.weights });
      const config = shape === undefined ? await readConfig(folder) : shapeConfig(shape);
      const result = await runBench({
        ...flags,
        positions: config.max_position_embeddings,
        weights: flags.weights,
        kv: flags.kv,
        threads: flags.threads ?? (await physicalCores()),
        shape: shape ?? model ?? 'embedded',
        contexts: context,
        onStep: (step) => process.stderr.isTTY && note(`${step} …\n`),
        load: async (options) =>
          shape === undefined ? await loadModel(folder, options) : await loadModelFrom(config, syntheticTensors(config), options),
      });
      process.stdout.write(json ? `${JSON.stringify(result, null, 2)}\n` : page(result, profile === true));
    });
}

function positions(text: string): number[] {
  return text.split(',').map((part) => integer('--context', 576)(part));
}

function page(result: BenchResult, profile: boolean): string {
  const { limits, prefill, decode, contexts, kernels } = result;
  const share = (rate: number, limit: number) => `${((100 * rate) / limit).toFixed(0)}%`;
  const decoding = ({ tokens_per_second, gbps, bytes_per_token, memory_read_gbps }: BenchResult['decode']) =>
    `${digits(tokens_per_second)} tokens/s   ${gbps.toFixed(1)} GB/s, ${share(gbps, memory_read_gbps)} of memory read; ${scaled(bytes_per_token, 'B')} a token`;
  const build = result.build === null ? '' : `, ${result.build} build`;
  const rows: [string, string][] = [
    ['model', `${result.shape}, weights ${result.weights}, KV ${result.kv}, ${result.mode} mode${build}, ${result.threads} threads`],
    ['limits', limitsRow(limits)],
    ['load', `${duration(result.load_seconds)}, peak ${scaled(result.peak_rss_bytes, 'B')}, planned ${scaled(result.planned_bytes, 'B')}`],
    ...Object.entries(prefill).map(([T, { tokens_per_second, gflops }]): [string, string] => [
      `prefill ${T}`,
      `${digits(tokens_per_second)} tokens/s   ${gflops.toFixed(0)} GFLOP/s`,
    ]),
    ['first token', `${duration(result.time_to_first_token_seconds)} after a prompt of 512`],
    ['decode 512', decoding(decode)],
    ...Object.entries(contexts).map(([position, at]): [string, string] => [`decode ${position}`, decoding(at)]),
  ];
  let text = rows.map(([name, value]) => `${onStdout.dim(name.padEnd(14))}${value}\n`).join('');
  if (profile) {
    text += `\n${onStdout.bold('kernel'.padEnd(28))}${onStdout.bold(' prefill   decode')}\n`;
    const percent = (value = 0) => `${(100 * value).toFixed(1)}%`.padStart(8);
    for (const name of new Set([...Object.keys(kernels.prefill), ...Object.keys(kernels.decode)])) {
      text += `${name.padEnd(28)}${percent(kernels.prefill[name])} ${percent(kernels.decode[name])}\n`;
    }
  }
  return text;
}

/** Three of them, without an exponent. */
function digits(rate: number): string {
  return String(Number(rate.toPrecision(3)));
}

function limitsRow({ memory_read_gbps, f32_gflops, i16_gops, i8_gops }: Limits): string {
  const bytes = i8_gops === null ? '' : `, of bytes ${i8_gops.toFixed(0)}`;
  return `memory read ${memory_read_gbps.toFixed(1)} GB/s, f32 ${f32_gflops.toFixed(0)} GFLOP/s, i16 dots ${i16_gops.toFixed(0)} GOP/s${bytes}`;
}
