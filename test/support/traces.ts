import { join } from 'node:path';
import { openFile } from '../../src/checkpoint/byte_source.ts';
import { readSafetensors } from '../../src/checkpoint/safetensors.ts';
import { type TensorData, writeSafetensors } from '../../src/checkpoint/safetensors_writer.ts';
import { loadModel } from '../../src/load.ts';
import { type WrittenTrace, type TraceOptions, writeTrace } from '../../src/trace.ts';
import { writeFile } from 'node:fs/promises';
import { goldenIds, goldenModel } from './models.ts';

/** A trace of the first tokens of a golden model's prompt, as this project computes it. */
export async function traceOf(
  path: string,
  model: string,
  tokens: number,
  { prefill_chunk, ...options }: Partial<TraceOptions> & { readonly prefill_chunk?: number } = {},
): Promise<WrittenTrace | null> {
  const all: TraceOptions = { kernels: 'wasm', mode: 'strict', producer: 'test', ...options };
  const dir = goldenModel(model);
  const load = async () => (await loadModel(dir, { context: tokens, prefill_chunk, kernels: all.kernels, mode: all.mode })).model;
  return await writeTrace(path, dir, Array.from(await goldenIds(model)).slice(0, tokens), load, all);
}

/** Tensors and metadata of a trace, to be changed. */
export interface TraceContents {
  readonly metadata: Map<string, string>;
  readonly tensors: Map<string, TensorData>;
}

/** Writes a copy of a safetensors file with a change, and returns its path. */
export async function changed(path: string, folder: string, name: string, change: (contents: TraceContents) => void): Promise<string> {
  const source = await openFile(path);
  try {
    const file = await readSafetensors(source);
    const contents: TraceContents = { metadata: new Map(file.metadata), tensors: new Map() };
    for (const { name, dtype, shape, offset, byteLength } of file.tensors.values()) {
      const data = new Uint8Array(byteLength);
      await source.read(offset, data);
      contents.tensors.set(name, { name, dtype, shape, data });
    }
    change(contents);
    const copy = join(folder, name);
    await writeFile(copy, writeSafetensors([...contents.tensors.values()], contents.metadata));
    return copy;
  } finally {
    await source.close();
  }
}

/** The elements of an F32 tensor, shared with it. */
export function floatsOf({ data }: TensorData): Float32Array {
  return new Float32Array(data.buffer, data.byteOffset, data.byteLength / 4);
}
