import { loadModel } from './load.ts';
import type { OlmoHybridForCausalLM } from './model/olmo_hybrid.ts';
import { packageFile } from './package_files.ts';
import type { FloatArray } from './runtime/tensor.ts';
import { type Golden, numbersOf, readGolden, tensorOf } from './verify_golden.ts';

/** What an op of bf16 mode must do, given PyTorch's own inputs. */
export interface Bf16Bound {
  /** Of values that have PyTorch's bits, at least. */
  readonly share: number;
  /** Relative error of the others, at most. */
  readonly error: number;
}

const U32 = 2 ** -24;
const NEIGHBOUR = 2 ** -7; // of a bfloat16, at most
const EXACT = { share: 1, error: 0 }; // a few roundings in a fixed order: elementwise ops, norms, the W terms of a convolution
const SUM = { share: 0.9998, error: NEIGHBOUR }; // PyTorch sums in float32; about one sum in 10,000 then rounds to the neighbour
const DELTA_RULE = { share: 0.999, error: 2 * NEIGHBOUR }; // sums again, through a triangular system, and some of them cancel
const ROTARY = { share: 0.999, error: NEIGHBOUR }; // with a head_dim of 10: PyTorch rounds the exponents of theta too
const FLOAT32 = { share: 0, error: 4 * U32 }; // not rounded to bfloat16; sums, exp and log1p of float32 have last bits of their own
const LAYER = { share: 0.99, error: Infinity }; // a neighbour in one op moves what follows it

/** By the last part of the op's name. `additions` are those of a layer whose other ops are PyTorch's, `layer` is all of one together. */
export const BF16_BOUNDS: Readonly<Record<string, Bf16Bound>> = {
  embed_tokens: EXACT,
  input_layernorm: EXACT,
  q_proj: SUM,
  k_proj: SUM,
  v_proj: SUM,
  a_proj: SUM,
  b_proj: SUM,
  g_proj: SUM,
  o_proj: SUM,
  q_conv1d: EXACT,
  k_conv1d: EXACT,
  v_conv1d: EXACT,
  q_l2norm: FLOAT32,
  k_l2norm: FLOAT32,
  g: FLOAT32,
  beta: EXACT,
  delta_rule: DELTA_RULE,
  o_norm: EXACT,
  q_norm: EXACT,
  k_norm: EXACT,
  rotary_q: ROTARY,
  rotary_k: ROTARY,
  attention: SUM,
  gate_proj: SUM,
  up_proj: SUM,
  down_proj: SUM, // swiglu with it
  post_attention_layernorm: EXACT,
  post_feedforward_layernorm: EXACT,
  additions: EXACT,
  layer: LAYER,
  norm: EXACT,
  lm_head: SUM,
};
/** Of logits to PyTorch's in bfloat16, over the distance of logits in float32. */
export const LARGEST_DISTANCE = 0.5;

/** An op over all golden models, each time given the inputs that it has in PyTorch. */
export interface Bf16Op {
  readonly kind: 'bf16_op';
  readonly name: string;
  readonly values: number;
  /** Values with PyTorch's bits. */
  readonly equal: number;
  /** Largest relative error of the others. */
  readonly error: number;
  readonly passed: boolean;
}

/** The logits of one golden model next to those of PyTorch in bfloat16. */
export interface Bf16Model {
  readonly kind: 'bf16_model';
  readonly name: string;
  readonly values: number;
  readonly equal: number;
  /** Root mean square. */
  readonly distance: number;
  /** The same of logits in float32. */
  readonly float32_distance: number;
  readonly ratio: number;
  readonly passed: boolean;
}

/**
 * Holds bf16 mode against the PyTorch release in bfloat16 (Node only).
 * @returns ops, then models
 * @throws {CheckpointError} when a golden cannot be read
 */
export async function* verifyBf16(): AsyncGenerator<Bf16Op | Bf16Model, void, void> {
  const { readdir } = await import('node:fs/promises');
  const names = (await readdir(packageFile('golden/bf16/models'))).sort().map((file) => file.replace('.safetensors', ''));
  const counts = new Map(Object.keys(BF16_BOUNDS).map((op) => [op, { values: 0, equal: 0, error: 0 }]));
  const models: Bf16Model[] = [];
  for (const name of names) {
    const golden = await readGolden(packageFile(`golden/bf16/models/${name}.safetensors`));
    const dir = packageFile(`golden/models/${name}`);
    const { model } = await loadModel(dir, { kernels: 'bf16' });
    models.push(compareLogits(name, golden, model, (await loadModel(dir)).model));
    compareOps(model, golden, counts);
  }
  for (const [name, count] of counts) {
    const { share, error } = BF16_BOUNDS[name]!;
    yield { kind: 'bf16_op', name, ...count, passed: count.values > 0 && count.equal >= share * count.values && count.error <= error };
  }
  yield* models;
}

function compareLogits(name: string, golden: Golden, bf16: OlmoHybridForCausalLM, float32: OlmoHybridForCausalLM): Bf16Model {
  const ids = numbersOf(golden, 'input_ids');
  const pytorch = tensorOf(golden, 'logits').data as FloatArray;
  const [ours, theirs] = [bf16, float32].map((model) => {
    const logits = new Float64Array(pytorch.length);
    model.reset();
    model.forwardAll(ids, logits);
    return logits;
  }) as [Float64Array, Float64Array];
  const equal = ours.filter((logit, i) => logit === pytorch[i]).length;
  const [distance, float32_distance] = [rms(ours, pytorch), rms(theirs, pytorch)];
  const ratio = distance / float32_distance;
  return {
    kind: 'bf16_model',
    name,
    values: ours.length,
    equal,
    distance,
    float32_distance,
    ratio,
    passed: ratio <= LARGEST_DISTANCE,
  };
}

/** Compares what each op leaves, then replaces it by what PyTorch's left, so that the next one has PyTorch's inputs. */
function compareOps(
  model: OlmoHybridForCausalLM,
  golden: Golden,
  counts: Map<string, { values: number; equal: number; error: number }>,
): void {
  const ids = numbersOf(golden, 'input_ids');
  const seen = new Map<string, number>();
  model.tap = (path, { data, rows, cols }) => {
    const { key, op } = placeOf(path, model.config.num_hidden_layers, golden);
    const begin = seen.get(key) ?? 0; // norm and lm_head come some rows at a time
    const pytorch = golden.tensors.has(key) ? (tensorOf(golden, key).data as FloatArray).subarray(begin, begin + rows * cols) : null;
    const count = counts.get(op);
    if (pytorch === null || count === undefined) return;
    pytorch.forEach((wanted, i) => {
      count.values++;
      if (data[i] === wanted) count.equal++;
      else count.error = Math.max(count.error, Math.abs(data[i]! - wanted) / Math.abs(wanted));
    });
    data.set(pytorch);
    seen.set(key, begin + rows * cols);
  };
  model.reset();
  model.forwardAll(ids, new Float64Array(ids.length * model.config.vocab_size));
  model.tap = null;
}

/** Where a golden holds what the model leaves at a path, and the op's name among the bounds. */
function placeOf(path: string, layers: number, golden: Golden): { key: string; op: string } {
  const layer = /^model\.layers\.(\d+)$/.exec(path)?.[1];
  if (layer !== undefined) {
    const op = golden.tensors.has(`${path}.mlp.down_proj`) ? 'additions' : 'layer';
    return { key: `hidden_states.${Number(layer) + 1}`, op };
  }
  const outside: Readonly<Record<string, string>> = {
    'model.embed_tokens': 'hidden_states.0',
    'model.norm': `hidden_states.${layers + 1}`,
    lm_head: 'logits',
  };
  return { key: outside[path] ?? path, op: path.split('.').at(-1)! };
}

function rms(a: FloatArray, b: FloatArray): number {
  let squares = 0;
  for (let i = 0; i < a.length; i++) squares += (a[i]! - b[i]!) ** 2;
  return Math.sqrt(squares / a.length);
}
