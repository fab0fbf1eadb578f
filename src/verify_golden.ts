import { openFile } from './checkpoint/byte_source.ts';
import type { TensorArray } from './checkpoint/dtype.ts';
import { quote } from './checkpoint/problem_list.ts';
import { readSafetensors, readTensor } from './checkpoint/safetensors.ts';
import { CheckpointError } from './errors.ts';

/** One file of what PyTorch computed and what is true; golden/README.md says what it holds. */
export interface Golden {
  readonly path: string;
  readonly metadata: ReadonlyMap<string, string>;
  readonly tensors: ReadonlyMap<string, GoldenTensor>;
}

export interface GoldenTensor {
  readonly shape: readonly number[];
  /** BF16 is widened. */
  readonly data: TensorArray;
  /** As stored. */
  readonly bytes: Uint8Array;
  readonly dtype: string;
}

/** How far results are from the truth, next to how far those of PyTorch are. */
export interface ErrorRatio {
  /** Largest |ours - truth|. */
  readonly error: number;
  /** Largest |PyTorch in float32 - truth|. */
  readonly pytorch_error: number;
  /** The one divided by the other; 0 when both are 0. */
  readonly ratio: number;
  /** The same of root mean squares. */
  readonly rms_ratio: number;
}

/**
 * Reads a golden (Node only).
 * @throws {CheckpointError} when it is missing or damaged
 */
export async function readGolden(path: string): Promise<Golden> {
  const source = await openFile(path);
  try {
    const { metadata, tensors } = await readSafetensors(source);
    const read = async (name: string): Promise<[string, GoldenTensor]> => {
      const entry = tensors.get(name)!;
      const bytes = new Uint8Array(entry.byteLength);
      await source.read(entry.offset, bytes);
      return [name, { shape: entry.shape, dtype: entry.dtype, data: await readTensor(entry), bytes }];
    };
    return { path, metadata, tensors: new Map(await Promise.all([...tensors.keys()].map(read))) };
  } finally {
    await source.close();
  }
}

/**
 * A tensor that a golden must have.
 * @param shape when given, the shape that it must have
 * @throws {CheckpointError} when it has none of that name and shape
 */
export function tensorOf({ path, tensors }: Golden, name: string, shape?: readonly number[]): GoldenTensor {
  const tensor = tensors.get(name);
  const expected = shape?.join(', ');
  if (tensor && (expected === undefined || tensor.shape.join(', ') === expected)) return tensor;
  throw new CheckpointError({
    where: `${path}: ${quote(name)}`,
    expected: expected === undefined ? 'a tensor' : `a tensor [${expected}]`,
    found: tensor ? `[${tensor.shape.join(', ')}]` : 'nothing',
    fix: 'Write the file for this checkpoint with golden/release/make_goldens.py.',
  });
}

/** A tensor's elements as plain numbers. */
export function numbersOf(golden: Golden, name: string): number[] {
  return Array.from<number | bigint, number>(tensorOf(golden, name).data, Number);
}

/**
 * The error ratio of some results.
 * @param ours, pytorch, truth of the same length
 */
export function errorRatio(ours: ArrayLike<number>, pytorch: ArrayLike<number>, truth: ArrayLike<number>): ErrorRatio {
  const mine = errors(ours, truth);
  const theirs = errors(pytorch, truth);
  return {
    error: mine.max,
    pytorch_error: theirs.max,
    ratio: quotient(mine.max, theirs.max),
    rms_ratio: quotient(mine.rms, theirs.rms),
  };
}

function errors(results: ArrayLike<number>, truth: ArrayLike<number>): { max: number; rms: number } {
  let max = 0;
  let squares = 0;
  for (let i = 0; i < truth.length; i++) {
    const distance = results[i] === truth[i] ? 0 : Math.abs(results[i]! - truth[i]!);
    const error = Number.isNaN(distance) ? Infinity : distance; // NaN would slip through every comparison
    max = Math.max(max, error);
    squares += error * error;
  }
  return { max, rms: Math.sqrt(squares / truth.length) };
}

function quotient(ours: number, theirs: number): number {
  return ours === 0 ? 0 : ours / theirs;
}
