import { bf16Kernels } from './bf16/index.ts';
import { castWeights } from './bf16/weights.ts';
import { Checkpoint } from './checkpoint/checkpoint.ts';
import { openCheckpointFolder } from './checkpoint/checkpoint_folder.ts';
import type { TensorEntry } from './checkpoint/safetensors.ts';
import { type OlmoHybridConfig, parseConfig } from './config.ts';
import { ArgumentError, ConfigError, RuntimeLimitError } from './errors.ts';
import type { Mode } from './model/nn.ts';
import { OlmoHybridForCausalLM } from './model/olmo_hybrid.ts';
import { type Placement, placement } from './model/placement.ts';
import { Weights } from './model/weights.ts';
import type { BankBytes } from './runtime/addressed_bank.ts';
import type { Bank } from './runtime/bank.ts';
import type { Kernels } from './runtime/kernels.ts';
import { ReferenceBank } from './runtime/reference_bank.ts';
import { BANK_LIMIT_BYTES, WasmBank } from './runtime/wasm_bank.ts';
import { kernelModule } from './runtime/wasm_module.ts';
import { readTextFile } from './text_file.ts';

const DEFAULT_CONTEXT = 4096;
const DEFAULT_PREFILL_CHUNK = 256;

export interface LoadOptions {
  /** Tokens that the caches hold. Default: the config's max_position_embeddings, at most 4096. */
  readonly context?: number | undefined;
  /** Most tokens of one forward call. Default 256, or the context if that is less. */
  readonly prefill_chunk?: number | undefined;
  /**
   * `wasm`: f32 SIMD. `reference`: plain TypeScript in float64, slow and exact. `bf16`: the same, rounded to bfloat16 wherever PyTorch rounds
   * when it runs in bfloat16. Default `wasm`.
   */
  readonly kernels?: Kernels['name'] | undefined;
  /** `strict`: the bits do not depend on where the prompt is cut. `fast`: chunked delta rule in prefill. Default `strict`. */
  readonly mode?: Mode | undefined;
  /** Most bytes of one wasm memory. Default 4 GiB, what wasm32 allows. */
  readonly bank_limit_bytes?: number | undefined;
  /** Called while the weights are read, with bytes done and bytes in all. */
  readonly onProgress?: ((done: number, total: number) => void) | undefined;
}

/** What loading a folder would take: nothing but headers has been read. */
export interface ModelPlan {
  readonly config: OlmoHybridConfig;
  readonly context: number;
  readonly prefill_chunk: number;
  readonly placement: Placement;
  /** Bytes of the weights as stored. */
  readonly stored_bytes: number;
}

export interface LoadedModel {
  readonly model: OlmoHybridForCausalLM;
  readonly plan: ModelPlan;
  /** Parameters that hold NaN or infinite values. */
  readonly not_finite: readonly string[];
}

/**
 * Reads config.json of a checkpoint folder.
 * @throws {ConfigError} when it is missing or not of an architecture that this engine runs.
 */
export async function readConfig(dir: string): Promise<OlmoHybridConfig> {
  const path = `${dir}/config.json`;
  const text = await readTextFile(path, ConfigError);
  if (text !== null) return parseConfig(text, path);
  throw new ConfigError({
    where: path,
    expected: 'a file',
    found: 'nothing',
    fix: 'Give the folder that holds config.json and model.safetensors.',
  });
}

/** The stored tensors of a checkpoint by name, from one file or all its shards. */
type Tensors = ReadonlyMap<string, TensorEntry>;

/**
 * Checks a checkpoint folder against its config and plans the memory.
 * @throws {ConfigError} {CheckpointError} {ArgumentError} {RuntimeLimitError}
 */
export async function planModel(dir: string, options: LoadOptions = {}): Promise<ModelPlan> {
  return await withFolder(dir, async (config, tensors) => (await prepare(dir, config, tensors, options)).plan);
}

/**
 * Loads a model from a folder with config.json and model.safetensors, or its shards and index (Node only).
 * Everything is checked before memory is taken.
 * @throws {ConfigError} {CheckpointError} with every problem of the files; {ArgumentError} for options out of range;
 * {RuntimeLimitError} when the machine cannot hold the model.
 */
export async function loadModel(dir: string, options: LoadOptions = {}): Promise<LoadedModel> {
  return await withFolder(dir, async (config, tensors) => await load(dir, config, tensors, options));
}

/**
 * The same from what has been read already, in any engine: a config of `parseConfig` and tensors of `readSafetensors`.
 * @param tensors Those of all shards; their sources stay open.
 * @throws {CheckpointError} {ArgumentError} {RuntimeLimitError} as loadModel
 */
export async function loadModelFrom(config: OlmoHybridConfig, tensors: Tensors, options: LoadOptions = {}): Promise<LoadedModel> {
  return await load('checkpoint', config, tensors, options);
}

async function load(where: string, config: OlmoHybridConfig, tensors: Tensors, options: LoadOptions): Promise<LoadedModel> {
  const { checkpoint, plan } = await prepare(where, config, tensors, options);
  const { banks, layers } = plan.placement;
  const rows = plan.prefill_chunk;
  const module = await kernelModule();
  const bank = {
    wasm: (bytes: BankBytes) => new WasmBank(module, rows, bytes),
    reference: () => new ReferenceBank(rows),
    bf16: () => new ReferenceBank(rows, bf16Kernels),
  }[options.kernels ?? 'wasm'];
  const memory = banks.map((bytes): Bank => bank(bytes));
  const weights = new Weights(checkpoint.formatOf);
  const model = new OlmoHybridForCausalLM(config, weights, memory, layers, { context: plan.context, mode: options.mode ?? 'strict' });
  const not_finite = await checkpoint.load(weights.parameters, options.onProgress);
  if (options.kernels === 'bf16') castWeights(weights.parameters);
  model.ready();
  return { model, plan, not_finite };
}

/** Checks the tensors against the config, and the memory that they will take against the machine's. */
async function prepare(where: string, config: OlmoHybridConfig, tensors: Tensors, options: LoadOptions) {
  const context = inRange(
    'context',
    options.context ?? Math.min(config.max_position_embeddings, DEFAULT_CONTEXT),
    config.max_position_embeddings,
  );
  const prefill_chunk = Math.min(inRange('prefill_chunk', options.prefill_chunk ?? DEFAULT_PREFILL_CHUNK, 2 ** 20), context);
  const checkpoint = new Checkpoint(config, tensors);
  const planned = placement(config, checkpoint.formatOf, {
    rows: prefill_chunk,
    context,
    mode: options.mode ?? 'strict',
    bank_limit_bytes: options.bank_limit_bytes ?? BANK_LIMIT_BYTES,
  });
  checkpoint.check(planned.parameters, where);
  await checkMachine(planned.total_bytes);
  let stored_bytes = 0;
  for (const entry of tensors.values()) stored_bytes += entry.byteLength;
  const plan: ModelPlan = { config, context, prefill_chunk, placement: planned, stored_bytes };
  return { checkpoint, plan };
}

async function withFolder<T>(dir: string, use: (config: OlmoHybridConfig, tensors: Tensors) => Promise<T>): Promise<T> {
  const config = await readConfig(dir);
  const folder = await openCheckpointFolder(dir);
  try {
    return await use(config, folder.tensors);
  } finally {
    await folder.close();
  }
}

function inRange(where: string, value: number, most: number): number {
  if (Number.isInteger(value) && value >= 1 && value <= most) return value;
  throw new ArgumentError({ where, expected: `an integer from 1 to ${most}`, found: String(value), fix: 'Choose a value in this range.' });
}

// A page cannot ask for the machine's memory: there the allocation itself is the check.
async function checkMachine(bytes: number): Promise<void> {
  if (typeof process === 'undefined') return;
  const { totalmem } = await import('node:os');
  if (bytes <= totalmem()) return;
  throw new RuntimeLimitError({
    where: 'memory',
    expected: `${(bytes / 1e9).toFixed(1)} GB for weights, caches and scratch`,
    found: `${(totalmem() / 1e9).toFixed(1)} GB in this machine`,
    fix: 'Ask for a shorter context, or use a machine with more memory.',
  });
}
