import { ArgumentError } from './errors.ts';
import { kernelNames } from './kernel_calls.ts';
import { type LoadOptions, loadModel } from './load.ts';
import type { OlmoHybridForCausalLM } from './model/olmo_hybrid.ts';
import { embeddedModel, packageFile } from './package_files.ts';
import { perplexity as textPerplexity } from './perplexity.ts';
import type { Bank } from './runtime/bank.ts';
import { ReferenceBank } from './runtime/reference_bank.ts';
import type { FloatArray } from './runtime/tensor.ts';
import { WasmBank } from './runtime/wasm_bank.ts';
import { ThreadPool } from './runtime/thread_pool.ts';
import { buildFor } from './runtime/wasm_module.ts';
import { type Bf16Model, type Bf16Op, verifyBf16 } from './verify_bf16.ts';
import { type ErrorRatio, errorRatio, type Golden, numbersOf, readGolden, tensorOf } from './verify_golden.ts';
import { verifyKernel } from './verify_kernels.ts';

/** The largest error that passes, in units of PyTorch's own. */
const LARGEST_RATIO = 2;
/** Where the two largest logits are closer than this, rounding may put either first. */
const CLEAR_MARGIN = 0.02;
/** Perplexities closer than this agree to four digits. */
const PERPLEXITY_TOLERANCE = 5e-5;
const BF16_FIX = 'In bfloat16 the goldens of this package are verified; of another model, compare its trace with one of PyTorch.';
/** The held-out text is read in windows of so many tokens, each from an empty state. */
const WINDOW = 512;

/** How many greedy tokens of PyTorch with a clear margin this engine would choose as well, given those before. */
export interface Agreement {
  readonly agreed: number;
  readonly compared: number;
}

/** The outputs of a kernel or the logits of a model, held against the truth. */
export interface Accuracy extends ErrorRatio {
  readonly kind: 'kernel' | 'model';
  readonly name: string;
  readonly greedy: Agreement | null;
  readonly passed: boolean;
}

/** The perplexity of a text that the model was not trained on, for each token. */
export interface HeldOut {
  readonly kind: 'held-out';
  readonly name: string;
  readonly perplexity: number;
  readonly pytorch_perplexity: number;
  readonly greedy: Agreement;
  readonly passed: boolean;
}

export type Verification = Accuracy | HeldOut | Bf16Op | Bf16Model;

export interface VerifyOptions extends Pick<LoadOptions, 'kernels' | 'mode' | 'prefill_chunk' | 'weights' | 'threads' | 'kv'> {
  /** Folder of a checkpoint and its expected.safetensors. Default: everything that comes with this package. */
  readonly model?: string | undefined;
}

/**
 * Holds kernels, models and the embedded model against PyTorch and the truth in float64 (Node only). A case passes when its error is at most
 * twice that of PyTorch in float32, every clear greedy token is PyTorch's, and the perplexity is PyTorch's to four digits. The bf16 kernels
 * are held against PyTorch in bfloat16 instead, bit by bit: `verifyBf16`.
 * @returns the results one by one: kernels, models, embedded model
 * @throws {ConfigError} {CheckpointError} {ArgumentError} {RuntimeLimitError} when a model or its golden cannot be read
 */
export async function* verify(options: VerifyOptions = {}): AsyncGenerator<Verification, void, void> {
  if (options.kernels === 'bf16') {
    if (options.model === undefined) yield* verifyBf16();
    else throw new ArgumentError({ where: 'verify', expected: 'no model of its own', found: options.model, fix: BF16_FIX });
    return;
  }
  if (options.model !== undefined) {
    yield await verifyModel(options.model, options.model, options);
    return;
  }
  const { bank, dispose } = await kernelBank(options);
  for (const kernel of kernelNames) {
    for (const file of await list(`golden/kernels/${kernel}`)) {
      const ratio = verifyKernel(bank, kernel, await readGolden(packageFile(`golden/kernels/${kernel}/${file}`)));
      const name = `${kernel}/${file.replace('.safetensors', '')}`;
      yield { kind: 'kernel', name, ...ratio, greedy: null, passed: ratio.ratio <= LARGEST_RATIO };
    }
  }
  await dispose();
  for (const name of await list('golden/models')) yield await verifyModel(packageFile(`golden/models/${name}`), name, options);
  yield await verifyEmbedded(options);
}

async function list(folder: string): Promise<string[]> {
  const { readdir } = await import('node:fs/promises');
  const path = packageFile(folder);
  const names = await readdir(path).catch((cause: unknown) => {
    const problem = { where: path, expected: 'the goldens of this package', found: 'no such folder', fix: 'Install the package again.' };
    throw new ArgumentError(problem, { cause });
  });
  return names.sort();
}

/** A bank for the buffers of all kernel cases; the longest rotary table takes 33 MB of it. */
async function kernelBank({ kernels, mode = 'strict', threads = 1 }: VerifyOptions): Promise<{ bank: Bank; dispose: () => Promise<void> }> {
  if (kernels === 'reference') return { bank: new ReferenceBank(1), dispose: async () => {} };
  const pool = await ThreadPool.create(threads, await buildFor(mode));
  const bank = new WasmBank(pool, 1, mode, { persistent: 2 ** 26, scratch: 2 ** 20 });
  await pool.start();
  return { bank, dispose: async () => await pool.dispose() };
}

async function verifyModel(dir: string, name: string, options: VerifyOptions): Promise<Accuracy> {
  const golden = await readGolden(`${dir}/expected.safetensors`);
  const ids = numbersOf(golden, 'input_ids');
  const positions = golden.tensors.has('positions') ? numbersOf(golden, 'positions') : ids.map((_, t) => t);
  const { model, dispose } = await loadModel(dir, loadOptions(options));
  const V = model.config.vocab_size;
  const shape = [positions.length, V];
  const [pytorch, truth] = [tensorOf(golden, 'logits', shape), tensorOf(golden, 'logits.truth', shape)];

  const all = allLogits(model, ids);
  const ours = new Float64Array(positions.length * V);
  positions.forEach((t, row) => {
    ours.set(all.subarray(t * V, (t + 1) * V), row * V);
  });
  const ratio = errorRatio(ours, pytorch.data as FloatArray, truth.data as FloatArray);
  const greedy = agreement(model, all.subarray(-V), golden, 'greedy', 'greedy_margins');
  await dispose();
  return { kind: 'model', name, ...ratio, greedy, passed: ratio.ratio <= LARGEST_RATIO && greedy.agreed === greedy.compared };
}

/** The perplexity of the embedded model on its held-out text, and its greedy continuations. */
export async function verifyEmbedded(options: VerifyOptions): Promise<HeldOut> {
  const golden = await readGolden(packageFile('golden/demo/expected.safetensors'));
  const { model, dispose } = await loadModel(embeddedModel, loadOptions(options));
  const ids = numbersOf(golden, 'heldout_ids');
  const { perplexity } = await textPerplexity(model, ids, { context: WINDOW });
  const pytorch_perplexity = Math.exp(numbersOf(golden, 'heldout_nll')[0]!);

  const greedy = { agreed: 0, compared: 0 };
  for (let i = 0; golden.tensors.has(`prompt_${i}_ids`); i++) {
    const logits = allLogits(model, numbersOf(golden, `prompt_${i}_ids`));
    const { agreed, compared } = agreement(
      model,
      logits.subarray(-model.config.vocab_size),
      golden,
      `prompt_${i}_greedy`,
      `prompt_${i}_margins`,
    );
    greedy.agreed += agreed;
    greedy.compared += compared;
  }
  await dispose();
  const passed = Math.abs(perplexity / pytorch_perplexity - 1) < PERPLEXITY_TOLERANCE && greedy.agreed === greedy.compared;
  return { kind: 'held-out', name: 'embedded model', perplexity, pytorch_perplexity, greedy, passed };
}

/** Keys and values are kept in f32, in fast mode as well: results are held against float32. */
function loadOptions({ model: _, kv = 'f32', ...options }: VerifyOptions): LoadOptions {
  return { ...options, kv };
}

/** Logits [T, V] of a text, from an empty state. */
export function allLogits(model: OlmoHybridForCausalLM, ids: readonly number[]): Float64Array {
  const V = model.config.vocab_size;
  const logits = new Float64Array(ids.length * V);
  model.reset();
  for (let begin = 0; begin < ids.length; begin += model.prefill_chunk) {
    const chunk = ids.slice(begin, begin + model.prefill_chunk);
    model.forwardAll(chunk, logits.subarray(begin * V, (begin + chunk.length) * V));
  }
  return logits;
}

/** Decodes along PyTorch's greedy continuation, so that one unclear step does not end the comparison. */
function agreement(model: OlmoHybridForCausalLM, logits: FloatArray, golden: Golden, greedy: string, margins: string): Agreement {
  const tokens = numbersOf(golden, greedy);
  const clear = numbersOf(golden, margins).map((margin) => margin > CLEAR_MARGIN);
  let agreed = 0;
  tokens.forEach((token, step) => {
    if (clear[step] && likeliest(logits) === token) agreed++;
    if (step + 1 < tokens.length) logits = model.forward([token]);
  });
  return { agreed, compared: clear.filter(Boolean).length };
}

function likeliest(logits: FloatArray): number {
  let best = 0;
  for (let id = 1; id < logits.length; id++) if (logits[id]! > logits[best]!) best = id;
  return best;
}
