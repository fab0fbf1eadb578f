import { openFile } from '../checkpoint/byte_source.ts';
import { readSafetensors, readTensor } from '../checkpoint/safetensors.ts';
import { CheckpointError } from '../errors.ts';

/** One intermediate: its elements row-major, bf16 and f16 widened. */
export interface Values {
  readonly shape: readonly number[];
  readonly data: Float32Array | Float64Array;
}

/** An open trace; tensors are read when they are asked for. */
export interface TraceFile {
  readonly path: string;
  readonly metadata: ReadonlyMap<string, string>;
  readonly shapes: ReadonlyMap<string, readonly number[]>;
  /** @throws {CheckpointError} when the file holds none of that name, or not of floats. */
  read(name: string): Promise<Values>;
  close(): Promise<void>;
}

/**
 * Opens a trace (Node only).
 * @throws {CheckpointError} when it is no sound safetensors file.
 */
export async function openTrace(path: string): Promise<TraceFile> {
  const source = await openFile(path);
  try {
    const { metadata, tensors } = await readSafetensors(source);
    return {
      path,
      metadata,
      shapes: new Map([...tensors].map(([name, { shape }]) => [name, shape])),
      async read(name) {
        const entry = tensors.get(name);
        const data = entry && (await readTensor(entry));
        if (data instanceof Float32Array || data instanceof Float64Array) return { shape: entry!.shape, data };
        const found = entry?.dtype ?? 'nothing';
        throw new CheckpointError({ where: `${path}: ${name}`, expected: 'F64, F32, F16 or BF16', found, fix: 'Write the trace again.' });
      },
      close: () => source.close(),
    };
  } catch (error) {
    await source.close();
    throw error;
  }
}
