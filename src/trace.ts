import { writeAtomically } from './atomic_file.ts';
import { openCheckpointFolder } from './checkpoint/checkpoint_folder.ts';
import { tensorBytes } from './checkpoint/dtype.ts';
import { packedFormat } from './checkpoint/quantised.ts';
import { safetensorsHeader } from './checkpoint/safetensors_writer.ts';
import { digestOfWeights } from './checkpoint/weights_digest.ts';
import { quote } from './checkpoint/problem_list.ts';
import type { OlmoHybridConfig } from './config.ts';
import { ArgumentError } from './errors.ts';
import { readConfig } from './load.ts';
import type { Mode } from './runtime/bank.ts';
import type { OlmoHybridForCausalLM } from './model/olmo_hybrid.ts';
import type { Kernels } from './runtime/kernels.ts';
import type { FloatArray } from './runtime/tensor.ts';
import { FORMAT_VERSION, opsOf, shapeOf, type TracedOp } from './trace_format.ts';

/** What a trace says of its values: the precision that they were computed in. */
const PRECISIONS = { wasm: 'f32', reference: 'f64', bf16: 'bf16' } as const satisfies Record<Kernels['name'], string>;

export interface TraceOptions {
  /** What the model is loaded with. */
  readonly kernels: Kernels['name'];
  readonly mode: Mode;
  /** Format that the weights are loaded in. Default: as they are stored. */
  readonly weights?: 'f32' | 'bf16' | 'q8' | 'q4' | undefined;
  /** What the file says of who wrote it, such as `olmo-hybrid 0.1.0`. */
  readonly producer: string;
  /** Names to write, where `*` stands for any characters and `?` for one. Default: all. */
  readonly only?: readonly string[] | undefined;
  /** Ends the pass before its next call; no file is written then. */
  readonly signal?: AbortSignal | undefined;
}

export interface WrittenTrace {
  readonly tensors: number;
  readonly bytes: number;
}

/** Where the next rows of a tensor go in the file. */
interface Place {
  readonly end: number;
  /** `state` is not one row for each token: each call overwrites it. */
  readonly isState: boolean;
  next: number;
}

/**
 * Writes every intermediate of one forward pass to a safetensors file (Node only), as docs/trace_format.md describes it: F64 of the reference
 * kernels, else F32. All shapes follow from the config, so the values go to their places as they are computed: memory does not grow with depth.
 * @param path The file; it is there in full or not at all.
 * @param tokens [T] ids below vocab_size.
 * @param load Loads the model of `dir` with the options' kernels and mode and a context of T positions, once all else has been checked.
 * @returns null when the signal ended it.
 * @throws {ArgumentError} when something in `only` matches no name, or the file cannot be written; {CheckpointError} when the weights cannot be read.
 */
export async function writeTrace(
  path: string,
  dir: string,
  tokens: readonly number[],
  load: () => Promise<OlmoHybridForCausalLM>,
  options: TraceOptions,
): Promise<WrittenTrace | null> {
  const { writeSync } = await import('node:fs');
  const config = await readConfig(dir);
  const ops = selected(opsOf(config), options.only);
  const Floats = options.kernels === 'reference' ? Float64Array : Float32Array;
  const { header, places, end } = layout(ops, config, tokens.length, Floats, await metadataOf(dir, tokens, options));
  const complete = await writeAtomically(path, async (file) => {
    const model = await load();
    await file.writeFile(header);
    const write = (bytes: Uint8Array, position: number) => {
      for (let done = 0; done < bytes.length; ) done += writeSync(file.fd, bytes, done, bytes.length - done, position + done);
    };
    model.tap = (name, { data, rows, cols }) => {
      const place = places.get(name);
      if (place === undefined) return;
      const bytes = bytesOf(data.subarray(0, rows * cols), Floats);
      write(bytes, place.next);
      place.next += place.isState ? 0 : bytes.length;
    };
    try {
      if (!forwardAll(model, tokens, options.signal)) return false;
    } finally {
      model.tap = null;
    }
    for (const [name, place] of places) {
      if (!place.isState && place.next !== place.end) throw new Error(`${name}: ${place.end - place.next} bytes missing in the trace`);
    }
    return true;
  });
  return complete ? { tensors: ops.length, bytes: end } : null;
}

/** False when the signal ended it. */
function forwardAll(model: OlmoHybridForCausalLM, tokens: readonly number[], signal: AbortSignal | undefined): boolean {
  const chunk = Math.min(model.prefill_chunk, tokens.length);
  const logits = new Float32Array(chunk * model.config.vocab_size);
  for (let begin = 0; begin < tokens.length; begin += chunk) {
    if (signal?.aborted) return false;
    model.forwardAll(tokens.slice(begin, begin + chunk), logits);
  }
  return true;
}

function selected(ops: readonly TracedOp[], only: readonly string[] | undefined): readonly TracedOp[] {
  if (only === undefined) return ops;
  const patterns = only.map(patternOf);
  const chosen = ops.filter(({ name }) => patterns.some((pattern) => pattern.test(name)));
  const unknown = only.filter((_, i) => !ops.some(({ name }) => patterns[i]!.test(name)));
  if (chosen.length > 0 && unknown.length === 0) return chosen;
  const expected = `a name of an intermediate, such as ${ops[1]!.name}, or a pattern of names`;
  const found = unknown.map(quote).join(', ') || 'none';
  throw new ArgumentError({ where: 'only', expected, found, fix: 'docs/trace_format.md lists the names.' });
}

function patternOf(glob: string): RegExp {
  const source = glob
    .replace(/[\\^$.|+()[\]{}]/g, '\\$&')
    .replaceAll('*', '.*')
    .replaceAll('?', '.');
  return new RegExp(`^${source}$`, 's');
}

/** The header of the file, and the place of each tensor behind it. */
function layout(
  ops: readonly TracedOp[],
  config: OlmoHybridConfig,
  T: number,
  Floats: typeof Float32Array | typeof Float64Array,
  metadata: Readonly<Record<string, string>>,
): { header: Uint8Array; places: ReadonlyMap<string, Place>; end: number } {
  const dtype = Floats === Float64Array ? 'F64' : 'F32';
  const tensors = ops.map((op) => ({ name: op.name, dtype, shape: shapeOf(op, config, T), isState: op.elements === 'state' }) as const);
  const header = safetensorsHeader(tensors, new Map(Object.entries(metadata)));
  const places = new Map<string, Place>();
  let end = header.length;
  for (const { name, shape, isState } of tensors) {
    const begin = end;
    end += tensorBytes(dtype, shape)!;
    places.set(name, { end, isState, next: begin });
  }
  return { header, places, end };
}

function bytesOf(data: FloatArray, Floats: typeof Float32Array | typeof Float64Array): Uint8Array {
  const { buffer, byteOffset, byteLength } = data instanceof Floats ? data : new Floats(data);
  return new Uint8Array(buffer, byteOffset, byteLength);
}

async function metadataOf(dir: string, tokens: readonly number[], options: TraceOptions): Promise<Record<string, string>> {
  const { createHash } = await import('node:crypto');
  const { readFile } = await import('node:fs/promises');
  const sha256 = (bytes: Uint8Array) => createHash('sha256').update(bytes).digest('hex');
  return {
    format_version: FORMAT_VERSION,
    producer: options.producer,
    precision: (await quantisationOf(dir, options)) ?? PRECISIONS[options.kernels],
    mode: options.mode,
    kernels: options.kernels,
    config_sha256: sha256(await readFile(`${dir}/config.json`)),
    tokens_sha256: sha256(new Uint8Array(Int32Array.from(tokens).buffer)),
    weights_sha256: await digestOfWeights(dir),
  };
}

/** The coarsest format of weights that are loaded or stored so, or null. */
async function quantisationOf(dir: string, { weights }: TraceOptions): Promise<'q8' | 'q4' | null> {
  if (weights === 'q8' || weights === 'q4') return weights;
  const folder = await openCheckpointFolder(dir);
  await folder.close();
  const formats = [...folder.tensors.values()].map(packedFormat);
  return formats.includes('Q4') ? 'q4' : formats.includes('Q8') ? 'q8' : null;
}
