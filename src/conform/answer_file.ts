import { openFile } from '../checkpoint/byte_source.ts';
import { quote } from '../checkpoint/problem_list.ts';
import { readSafetensors, readTensor } from '../checkpoint/safetensors.ts';
import type { FloatArray } from '../runtime/tensor.ts';
import { failed, type Judgement } from './protocol.ts';

/** A tensor that an answer must hold: its values, or why they cannot be judged. */
type Found = { readonly values: FloatArray } | { readonly failure: Judgement };

/**
 * Reads a tensor of floats from the file of an answer.
 * @param names the first of these that it holds
 * @throws {CheckpointError} when the file is missing or no sound safetensors file
 */
export async function readAnswer(path: string, names: readonly string[], shape: readonly number[]): Promise<Found> {
  const source = await openFile(path);
  try {
    const { tensors } = await readSafetensors(source);
    const wanted = `a tensor ${quote(names[0]!)} of floats [${shape.join(', ')}]`;
    const entry = names.map((name) => tensors.get(name)).find((found) => found !== undefined);
    if (!entry) return { failure: failed(wanted, [...tensors.keys()].slice(0, 6).map(quote).join(', ') || 'an empty file') };
    const values = await readTensor(entry);
    if (!(values instanceof Float32Array || values instanceof Float64Array) || entry.shape.join() !== shape.join()) {
      return { failure: failed(wanted, `${entry.dtype} [${entry.shape.join(', ')}]`) };
    }
    return { values };
  } finally {
    await source.close();
  }
}
