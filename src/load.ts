import { bf16Kernels } from './bf16/index.ts';
import { castWeights } from './bf16/weights.ts';
import { Checkpoint } from './checkpoint/checkpoint.ts';
import { openCheckpointFolder } from './checkpoint/checkpoint_folder.ts';
import type { TensorEntry } from './checkpoint/safetensors.ts';
import { type OlmoHybridConfig, parseConfig } from './config.ts';
import { ArgumentError, ConfigError, RuntimeLimitError } from './errors.ts';
import { OlmoHybridForCausalLM } from './model/olmo_hybrid.ts';
import { type Placement, placement } from './model/placement.ts';
import { type Formats, Weights } from './model/weights.ts';
import type { BankBytes } from './runtime/addressed_bank.ts';
import type { Bank, Mode } from './runtime/bank.ts';
import type { Kernels } from './runtime/kernels.ts';
import { ReferenceBank } from './runtime/reference_bank.ts';
import { BANK_LIMIT_BYTES, WasmBank } from './runtime/wasm_bank.ts';
import { ThreadPool } from './runtime/thread_pool.ts';
import { type Build, hasRelaxedSimd } from './runtime/wasm_module.ts';
import { readTextFile } from './text_file.ts';

const DEFAULT_CONTEXT = 4096;
const DEFAULT_PREFILL_CHUNK = 256;
const MOST_THREADS = 256;

export type WeightsOption = 'f32' | 'bf16' | 'q8' | 'q4';

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
  /** Default `strict`. */
  readonly mode?: Mode | undefined;
  /**
   * How the matrices lie in memory. Default: as stored (f16 as f32). `q8`, `q4`: in blocks of 32, 8.5 and 5 bits for each weight; the embedding,
   * norms, gates and convolutions stay as stored, lm_head and the projections to the gates take q8 at least.
   */
  readonly weights?: WeightsOption | undefined;
  /** Threads that share each kernel; with more than one, `dispose` ends them. They change no bit. Default 1. */
  readonly threads?: number | undefined;
  /** Most bytes of one wasm memory. Default 4 GiB, what wasm32 allows. */
  readonly bank_limit_bytes?: number | undefined;
  /** Gives what is to run in place of a bank's kernels, such as the same kernels with a clock. */
  readonly instrument?: ((kernels: Kernels) => Kernels) | undefined;
  /** Called while the weights are read, with bytes done and bytes in all. */
  readonly onProgress?: ((done: number, total: number) => void) | undefined;
}

/** What loading a folder would take: nothing but headers has been read. */
export interface ModelPlan {
  readonly config: OlmoHybridConfig;
  readonly context: number;
  readonly prefill_chunk: number;
  readonly threads: number;
  readonly mode: Mode;
  readonly placement: Placement;
  /** Bytes of the weights as stored. */
  readonly stored_bytes: number;
}

export interface LoadedModel {
  readonly model: OlmoHybridForCausalLM;
  readonly plan: ModelPlan;
  /** Parameters that hold NaN or infinite values. */
  readonly not_finite: readonly string[];
  /** Which build of the kernels runs; null where they are TypeScript. */
  readonly build: Build | null;
  /** Ends the threads, if there are any. The model can still be used, on one. */
  dispose(): Promise<void>;
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
  const { checkpoint, formats, plan } = await prepare(where, config, tensors, options);
  const { threads, mode, prefill_chunk: rows } = plan;
  const { kernels = 'wasm' } = options;
  const pool =
    kernels === 'wasm' ? await ThreadPool.create(threads, mode === 'fast' && (await hasRelaxedSimd()) ? 'relaxed' : 'strict') : null;
  const bank = (bytes: BankBytes): Bank =>
    pool
      ? new WasmBank(pool, rows, mode, bytes, options.instrument)
      : new ReferenceBank(rows, kernels === 'bf16' ? bf16Kernels : undefined);
  try {
    const weights = new Weights(formats);
    const memory = plan.placement.banks.map(bank);
    const model = new OlmoHybridForCausalLM(config, weights, memory, plan.placement.layers, { context: plan.context });
    await pool?.start();
    const not_finite = await checkpoint.load(weights.parameters, options.onProgress);
    if (kernels === 'bf16') castWeights(weights.parameters);
    model.ready();
    return { model, plan, not_finite, build: pool?.build ?? null, dispose: async () => await pool?.dispose() };
  } catch (error) {
    await pool?.dispose();
    throw error;
  }
}

/** Checks the tensors against the config, and the memory that they will take against the machine's. */
async function prepare(where: string, config: OlmoHybridConfig, tensors: Tensors, options: LoadOptions) {
  const context = inRange(
    'context',
    options.context ?? Math.min(config.max_position_embeddings, DEFAULT_CONTEXT),
    config.max_position_embeddings,
  );
  const prefill_chunk = Math.min(inRange('prefill_chunk', options.prefill_chunk ?? DEFAULT_PREFILL_CHUNK, 2 ** 20), context);
  const threads = inRange('threads', options.threads ?? 1, MOST_THREADS);
  const { kernels = 'wasm', mode = 'strict' } = options;
  if (kernels !== 'wasm' && (options.weights !== undefined || threads > 1)) {
    const found = `kernels ${kernels}, which run on one thread and take weights as stored`;
    throw new ArgumentError({ where: 'weights and threads', expected: 'kernels wasm', found, fix: 'Leave both out.' });
  }
  const checkpoint = new Checkpoint(config, tensors);
  const formats = formatsOf(checkpoint, options.weights);
  const planned = placement(config, formats, {
    rows: prefill_chunk,
    threads,
    context,
    mode,
    bank_limit_bytes: options.bank_limit_bytes ?? BANK_LIMIT_BYTES,
  });
  checkpoint.check(planned.parameters, where);
  await checkMachine(planned.total_bytes);
  let stored_bytes = 0;
  for (const entry of tensors.values()) stored_bytes += entry.byteLength;
  const plan: ModelPlan = { config, context, prefill_chunk, threads, mode, placement: planned, stored_bytes };
  return { checkpoint, formats, plan };
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

/** The format of every matrix under the option. @throws {ArgumentError} where bf16 would lose what is stored */
function formatsOf(checkpoint: Checkpoint, weights: WeightsOption | undefined): Formats {
  return (name) => {
    const stored = checkpoint.formatOf(name);
    if (weights === undefined) return stored;
    if (weights === 'f32') return 'F32';
    if (weights === 'bf16') {
      if (stored === 'BF16') return 'BF16';
      const fix = 'Leave the weights as stored, or take q8.';
      throw new ArgumentError({ where: 'weights', expected: `${name} stored in bf16`, found: 'f32 or f16', fix });
    }
    if (name === 'model.embed_tokens.weight') return stored;
    return weights === 'q8' || SENSITIVE.test(name) ? 'Q8' : 'Q4';
  };
}

/** What takes q8 where others take q4: the logits, and the projections to the gates, which are few and go through exp. */
const SENSITIVE = /^lm_head\.|\.[ab]_proj\./;

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
