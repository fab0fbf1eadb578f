import { bf16Kernels } from './bf16/index.ts';
import { castWeights } from './bf16/weights.ts';
import { Checkpoint } from './checkpoint/checkpoint.ts';
import { openCheckpointFolder } from './checkpoint/checkpoint_folder.ts';
import type { ModelFiles } from './checkpoint/model_files.ts';
import { checkQuantisedFiles } from './checkpoint/quantised.ts';
import type { TensorEntry } from './checkpoint/safetensors.ts';
import { type OlmoHybridConfig, parseConfig } from './config.ts';
import { ArgumentError, ConfigError, type Problem, RuntimeLimitError } from './errors.ts';
import { machineBytes, tooLarge } from './memory_limit.ts';
import { OlmoHybridForCausalLM } from './model/olmo_hybrid.ts';
import { type Placement, placement } from './model/placement.ts';
import { type Formats, Weights } from './model/weights.ts';
import { referenceKernels } from './reference/index.ts';
import type { BankBytes } from './runtime/addressed_bank.ts';
import type { Bank, Mode } from './runtime/bank.ts';
import { type Kernels, MOST_NARROW_DH } from './runtime/kernels.ts';
import { ReferenceBank } from './runtime/reference_bank.ts';
import { BANK_LIMIT_BYTES, WasmBank } from './runtime/wasm_bank.ts';
import { ThreadPool } from './runtime/thread_pool.ts';
import { type Build, buildFor } from './runtime/wasm_module.ts';
import type { WeightFormat } from './runtime/tensor.ts';
import { checkSize, decodeUtf8, MOST_BYTES, readTextFile } from './text_file.ts';

const DEFAULT_CONTEXT = 4096;
const DEFAULT_PREFILL_CHUNK = 256;
const MOST_THREADS = 256;
export const KV_FORMATS = { f32: 'F32', f16: 'F16', q8: 'Q8' } as const;

export type WeightsOption = 'f32' | 'bf16' | 'q8' | 'q4';
export type KVOption = 'f32' | 'f16' | 'q8';

const KERNELS: readonly Kernels['name'][] = ['wasm', 'reference', 'bf16'];
const MODES: readonly Mode[] = ['strict', 'fast'];
const WEIGHTS: readonly WeightsOption[] = ['f32', 'bf16', 'q8', 'q4'];
const KVS = Object.keys(KV_FORMATS) as KVOption[];

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
   * How the matrices lie in memory. Default: as stored (f16 as f32). `q8`, `q4`: in blocks of 32, 8.5 and 4.5 bits for each weight; the embedding,
   * norms, gates and convolutions stay as stored, lm_head and the projections to the gates take q8 at least.
   */
  readonly weights?: WeightsOption | undefined;
  /**
   * How keys and values are kept: 4, 2 or about 1 byte for each number (f16: up to 65504, infinite beyond; q8: 8 bits, and a
   * scale for each position of a head). Default f32, in fast mode f16. Strict mode's bits are then those of the rounded keys and values, still the
   * same however a prompt is cut.
   */
  readonly kv?: KVOption | undefined;
  /** Threads that share each kernel; with more than one, `dispose` ends them. They change no bit. Default 1. */
  readonly threads?: number | undefined;
  /** Most bytes of one wasm memory. Default 4 GiB, what wasm32 allows. */
  readonly bank_limit_bytes?: number | undefined;
  /** Gives what is to run in place of a bank's kernels, such as the same kernels with a clock. */
  readonly instrument?: ((kernels: Kernels) => Kernels) | undefined;
  /** Most bytes of all memories together. Default: the memory of the machine, where it can be asked. */
  readonly memory_limit_bytes?: number | undefined;
  /** Ends loading before the next piece of a file; the error is then the signal's reason. */
  readonly signal?: AbortSignal | undefined;
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
  /** Which build of the kernels runs; null where they are TypeScript. */
  readonly build: Build | null;
  readonly kv: KVOption;
  readonly placement: Placement;
  /** Bytes of the weights as stored. */
  readonly stored_bytes: number;
  /** That the machine cannot hold it, and what it can; null if it can. */
  readonly too_large: Problem | null;
}

export interface LoadedModel {
  readonly model: OlmoHybridForCausalLM;
  readonly plan: ModelPlan;
  /** Parameters that hold NaN or infinite values, or in q4 some beyond 1.8 million. */
  readonly not_finite: readonly string[];
  /** Ends the threads, if there are any. The model can still be used, on one. */
  dispose(): Promise<void>;
}

/**
 * Reads config.json of a model.
 * @param from path of its folder (Node only), or its files
 * @throws {ConfigError} when it is missing or not of an architecture that this engine runs.
 */
export async function readConfig(from: string | ModelFiles): Promise<OlmoHybridConfig> {
  const where = typeof from === 'string' ? `${from}/config.json` : `${from.name}: config.json`;
  const text = typeof from === 'string' ? await readTextFile(where, MOST_BYTES.config, ConfigError) : await readConfigOf(from, where);
  if (text !== null) return parseConfig(text, where);
  throw new ConfigError({
    where,
    expected: 'a file',
    found: 'nothing',
    fix: 'Give the folder that holds config.json and model.safetensors.',
  });
}

async function readConfigOf(files: ModelFiles, where: string): Promise<string | null> {
  if (!files.names.includes('config.json')) return null;
  const source = await files.open('config.json');
  try {
    checkSize(source.byteLength, MOST_BYTES.config, where, ConfigError);
    const bytes = new Uint8Array(source.byteLength);
    await source.read(0, bytes);
    return decodeUtf8(bytes, where, ConfigError);
  } finally {
    await source.close();
  }
}

/** The stored tensors of a checkpoint by name, from one file or all its shards. */
export type Tensors = ReadonlyMap<string, TensorEntry>;

/**
 * Checks a checkpoint against its config and plans the memory, also where the machine has too little. Only headers are read.
 * @param from path of its folder (Node only), or its files
 * @throws {ConfigError} {CheckpointError} {ArgumentError}; {RuntimeLimitError} when a layer exceeds a bank
 */
export async function planModel(from: string | ModelFiles, options: LoadOptions = {}): Promise<ModelPlan> {
  const where = typeof from === 'string' ? from : from.name;
  return await withFolder(from, async (config, tensors) => (await prepare(where, config, tensors, options)).plan);
}

/** The same from what has been read already: a config of `parseConfig` and tensors of `readSafetensors`. */
export async function planModelFrom(config: OlmoHybridConfig, tensors: Tensors, options: LoadOptions = {}): Promise<ModelPlan> {
  return (await prepare('checkpoint', config, tensors, options)).plan;
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
  if (plan.too_large) throw new RuntimeLimitError(plan.too_large);
  const { threads, mode, build, prefill_chunk: rows } = plan;
  const { kernels, onProgress, signal } = options;
  const pool = build && (await ThreadPool.create(threads, build));
  const bank = (bytes: BankBytes): Bank => {
    if (pool) return new WasmBank(pool, rows, mode, bytes, options.instrument);
    const own = kernels === 'bf16' ? bf16Kernels : referenceKernels;
    return new ReferenceBank(rows, options.instrument?.(own) ?? own);
  };
  try {
    const weights = new Weights(formats);
    const memory = plan.placement.banks.map(bank);
    const model = new OlmoHybridForCausalLM(config, weights, memory, plan.placement.layers, {
      context: plan.context,
      kv: KV_FORMATS[plan.kv],
    });
    await pool?.start();
    const not_finite = await checkpoint.load(weights.parameters, { onProgress, signal });
    if (kernels === 'bf16') castWeights(weights.parameters);
    model.ready();
    return { model, plan, not_finite, dispose: async () => await pool?.dispose() };
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
  oneOf('kernels', kernels, KERNELS);
  oneOf('mode', mode, MODES);
  if (options.weights !== undefined) oneOf('weights', options.weights, WEIGHTS);
  const { kv = kernels === 'wasm' && mode === 'fast' && config.head_dim <= MOST_NARROW_DH ? 'f16' : 'f32' } = options;
  oneOf('kv', kv, KVS);
  if (kernels !== 'wasm' && (options.weights !== undefined || threads > 1 || kv !== 'f32')) {
    const found = `kernels ${kernels}, which run on one thread, take weights as stored and keep keys and values as they are`;
    throw new ArgumentError({ where: 'weights, kv and threads', expected: 'kernels wasm', found, fix: 'Leave them out.' });
  }
  if (kv !== 'f32' && config.head_dim > MOST_NARROW_DH) {
    const found = `head_dim ${config.head_dim}`;
    throw new ArgumentError({ where: 'kv', expected: `heads of at most ${MOST_NARROW_DH}`, found, fix: 'Keep keys and values in f32.' });
  }
  const checkpoint = new Checkpoint(config, tensors);
  if (kernels !== 'wasm' && checkpoint.isQuantised) {
    const fix = 'Use kernels wasm, or the folder that was quantised.';
    throw new ArgumentError({ where, expected: `weights that kernels ${kernels} can read`, found: 'quantised ones', fix });
  }
  const formats = formatsOf(checkpoint, options.weights);
  const planFor = (weights: WeightsOption | undefined, context: number) => {
    const rows = Math.min(prefill_chunk, context);
    const bank_limit_bytes = options.bank_limit_bytes ?? BANK_LIMIT_BYTES;
    return placement(config, formatsOf(checkpoint, weights), { rows, threads, context, kv: KV_FORMATS[kv], mode, bank_limit_bytes });
  };
  const planned = planFor(options.weights, context);
  checkpoint.check(planned.parameters, where);
  const limit = options.memory_limit_bytes ?? (await machineBytes());
  const request = { weights: options.weights, context, quantisable: kernels === 'wasm' && !checkpoint.isQuantised };
  const too_large = tooLarge(limit, planned, request, planFor);
  let stored_bytes = 0;
  for (const entry of tensors.values()) stored_bytes += entry.byteLength;
  const build = kernels === 'wasm' ? await buildFor(mode) : null;
  const plan: ModelPlan = { config, context, prefill_chunk, threads, mode, kv, build, placement: planned, stored_bytes, too_large };
  return { checkpoint, formats, plan };
}

async function withFolder<T>(from: string | ModelFiles, use: (config: OlmoHybridConfig, tensors: Tensors) => Promise<T>): Promise<T> {
  const config = await readConfig(from);
  const folder = await openCheckpointFolder(from);
  try {
    checkQuantisedFiles(folder.files);
    return await use(config, folder.tensors);
  } finally {
    await folder.close();
  }
}

/** The format of every matrix under the option. @throws {ArgumentError} where bf16 would lose what is stored */
function formatsOf(checkpoint: Checkpoint, weights: WeightsOption | undefined): Formats {
  const { isQuantised } = checkpoint; // looks at all tensors
  return (name) => {
    const stored = checkpoint.formatOf(name);
    if (weights === undefined) return stored;
    if (isQuantised) return asQuantised(name, stored, weights);
    if (weights === 'f32') return 'F32';
    if (weights === 'bf16') {
      if (stored === 'BF16') return 'BF16';
      const fix = 'Leave the weights as stored, or take q8.';
      throw new ArgumentError({ where: 'weights', expected: `${name} stored in bf16`, found: 'f32 or f16', fix });
    }
    if (name === 'model.embed_tokens.weight') return stored;
    return quantised(name, weights)!;
  };
}

/** Quantised weights are taken as they are. @throws {ArgumentError} where others are asked for */
function asQuantised(name: string, stored: WeightFormat, weights: WeightsOption): WeightFormat {
  const wanted = name === 'model.embed_tokens.weight' ? stored : quantised(name, weights);
  if (stored === wanted) return stored;
  const fix = 'Leave the option out, or quantise the original again.';
  throw new ArgumentError({ where: 'weights', expected: `those that are stored, ${name} in ${stored.toLowerCase()}`, found: weights, fix });
}

function quantised(name: string, weights: WeightsOption): WeightFormat | null {
  if (weights !== 'q8' && weights !== 'q4') return null;
  return weights === 'q8' || SENSITIVE.test(name) ? 'Q8' : 'Q4';
}

/** What takes q8 where others take q4: the logits, and the projections to the gates, which are few and go through exp. */
const SENSITIVE = /^lm_head\.|\.[ab]_proj\./;

/** @throws {ArgumentError} when an option is no integer from 1 to `most` */
export function inRange(where: string, value: number, most: number): number {
  if (Number.isInteger(value) && value >= 1 && value <= most) return value;
  throw new ArgumentError({ where, expected: `an integer from 1 to ${most}`, found: shown(value), fix: 'Choose a value in this range.' });
}

/** What types say already, for callers in JavaScript. @throws {ArgumentError} when an option is none of its values */
export function oneOf<T extends string>(where: string, value: T, values: readonly T[]): T {
  if (values.includes(value)) return value;
  throw new ArgumentError({ where, expected: values.join(' or '), found: shown(value), fix: 'Choose one of these.' });
}

function shown(value: unknown): string {
  return typeof value === 'string' ? JSON.stringify(value) : String(value);
}
