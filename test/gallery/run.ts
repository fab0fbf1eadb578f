import { writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { Checkpoint } from '../../src/checkpoint/checkpoint.ts';
import { openCheckpointFolder } from '../../src/checkpoint/checkpoint_folder.ts';
import { writeSafetensors } from '../../src/checkpoint/safetensors_writer.ts';
import { diffTraces, type TraceDifference } from '../../src/diff/compare.ts';
import { readConfig } from '../../src/load.ts';
import { OlmoHybridForCausalLM } from '../../src/model/olmo_hybrid.ts';
import { Weights } from '../../src/model/weights.ts';
import { referenceKernels } from '../../src/reference/index.ts';
import { ReferenceBank } from '../../src/runtime/reference_bank.ts';
import type { Tensor } from '../../src/runtime/tensor.ts';
import { FORMAT_VERSION, opsOf, shapeOf } from '../../src/trace_format.ts';
import { goldenModel, readGolden } from '../support/models.ts';
import type { Mutant } from './mutant.ts';

/** What a mistake does to the logits of a golden prompt. */
export interface Effect {
  /** Largest change of a logit, against the float64 truth. */
  readonly max_change: number;
  /** The same over the error of PyTorch in float32. */
  readonly times_float32_error: number;
  /** Positions whose likeliest next token is another, and positions in all. */
  readonly flipped: number;
  readonly positions: number;
}

/** A trace, and its logits [T, V]. */
interface Run {
  readonly path: string;
  readonly logits: Float64Array;
}

const RIGHT: Pick<Mutant, 'kernels' | 'config' | 'model_change' | 'run'> = {};
const rightRuns = new Map<string, Promise<Run>>();

/** Runs a golden prompt with a mistake: what `diff` says of it, and what it does to the logits. */
export async function runMutant(mutant: Mutant, folder: string): Promise<{ diff: TraceDifference; effect: Effect }> {
  const right = rightRuns.get(mutant.model) ?? traced(mutant.model, RIGHT, join(folder, mutant.model));
  rightRuns.set(mutant.model, right);
  const wrong = await traced(mutant.model, mutant, join(folder, mutant.name));
  const { arrays } = await readGolden(join(goldenModel(mutant.model), 'expected.safetensors'));
  const [truth, pytorch] = [arrays.get('logits.truth')!, arrays.get('logits')!];
  const T = arrays.get('input_ids')!.length;
  const max_change = furthest(wrong.logits, truth);
  const flipped = Array.from({ length: T }, (_, t) => t).filter((t) => likeliest(wrong.logits, t, T) !== likeliest(truth, t, T)).length;
  const effect = { max_change, times_float32_error: max_change / furthest(pytorch, truth), flipped, positions: T };
  return { diff: await diffTraces((await right).path, wrong.path), effect };
}

/** How far the same run without a mistake is from the truth. */
export async function rightError(model: string, folder: string): Promise<number> {
  const { logits } = await traced(model, RIGHT, join(folder, `${model}.right`));
  const { arrays } = await readGolden(join(goldenModel(model), 'expected.safetensors'));
  return furthest(logits, arrays.get('logits.truth')!);
}

/** A golden prompt on the reference kernels, float64 throughout, with what a mutant changes. */
async function traced(name: string, mutant: typeof RIGHT, path: string): Promise<Run> {
  const dir = goldenModel(name);
  const config = (mutant.config ?? ((right) => right))(await readConfig(dir));
  const { arrays } = await readGolden(join(dir, 'expected.safetensors'));
  const ids = [...arrays.get('input_ids')!];
  const context = ids.length + 8; // room for padding

  const checkpointFolder = await openCheckpointFolder(dir);
  const checkpoint = new Checkpoint(config, checkpointFolder.tensors);
  const weights = new Weights(checkpoint.formatOf);
  const nameOf = (tensor: Tensor) => weights.parameters.find((parameter) => 'tensor' in parameter && parameter.tensor === tensor)?.name;
  const bank = new ReferenceBank(context, { ...referenceKernels, ...mutant.kernels?.(referenceKernels, nameOf, config) });
  const everyLayer = Array.from({ length: config.num_hidden_layers + 1 }, () => 0);
  const model = new OlmoHybridForCausalLM(config, weights, [bank], everyLayer, { context });
  await checkpoint.load(weights.parameters);
  await checkpointFolder.close();
  model.ready();
  mutant.model_change?.(model);

  const rows = new Map<string, number[]>();
  const see = (tokens: readonly number[]) => {
    model.tap = (op, { data, rows: count, cols }) => {
      const values = Array.from(data.subarray(0, count * cols));
      rows.set(op, op.endsWith('.state') ? values : [...(rows.get(op) ?? []), ...values]);
    };
    model.forwardAll(tokens, new Float64Array(tokens.length * config.vocab_size));
    model.tap = null;
  };
  (mutant.run ?? (({ ids: all }) => see(all)))({ model, config, ids, see });

  const tensors = opsOf(config).map((op) => {
    return { name: op.name, dtype: 'F64' as const, shape: shapeOf(op, config, ids.length), data: Float64Array.from(rows.get(op.name)!) };
  });
  const metadata = { format_version: FORMAT_VERSION, precision: 'f64', tokens_sha256: name };
  await writeFile(path, writeSafetensors(tensors, new Map(Object.entries(metadata))));
  return { path, logits: Float64Array.from(rows.get('lm_head')!) };
}

function furthest(a: Float64Array, b: Float64Array): number {
  return a.reduce((most, value, i) => Math.max(most, Math.abs(value - b[i]!)), 0);
}

function likeliest(logits: Float64Array, t: number, T: number): number {
  const V = logits.length / T;
  const row = logits.subarray(t * V, (t + 1) * V);
  return row.indexOf(Math.max(...row));
}
