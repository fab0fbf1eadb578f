import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { onTestFinished } from 'vitest';
import { openFile } from '../../src/checkpoint/byte_source.ts';
import { openCheckpointFolder } from '../../src/checkpoint/checkpoint_folder.ts';
import { readSafetensors, readTensor, type TensorEntry } from '../../src/checkpoint/safetensors.ts';
import { type TensorData, writeSafetensors } from '../../src/checkpoint/safetensors_writer.ts';
import type { OlmoHybridForCausalLM } from '../../src/model/olmo_hybrid.ts';

/** Path of a file or folder of the repository. */
export function repository(path: string): string {
  return fileURLToPath(new URL(`../../${path}`, import.meta.url));
}

/** Folder of a golden model. */
export function goldenModel(name: string): string {
  return repository(`golden/models/${name}`);
}

/** Logits [T, V] of a text, `chunk` tokens at a time, from empty caches. */
export function logitsOf(model: OlmoHybridForCausalLM, ids: ArrayLike<number>, chunk: number): Float64Array {
  const V = model.config.vocab_size;
  const out = new Float64Array(ids.length * V);
  model.reset();
  for (let t = 0; t < ids.length; t += chunk) {
    const part = Array.prototype.slice.call(ids, t, t + chunk) as number[];
    model.forwardAll(part, out.subarray(t * V, (t + part.length) * V));
  }
  return out;
}

/** An empty folder that is removed when the test has ended. */
export async function temporaryFolder(): Promise<string> {
  const dir = await mkdtemp(join(tmpdir(), 'olmo-hybrid-'));
  onTestFinished(() => rm(dir, { recursive: true, force: true }));
  return dir;
}

/** What a change of a checkpoint may do: the tensors by name, to be added, replaced or taken away, and the config's keys. */
export interface Contents {
  readonly tensors: Map<string, TensorData>;
  readonly config: Record<string, unknown>;
}

/** A copy of a golden model with a change, for as long as the test runs. */
export async function changedModel(name: string, change: (contents: Contents) => void): Promise<string> {
  const dir = await temporaryFolder();
  await writeChangedModel(dir, name, change);
  return dir;
}

/** Writes a copy of a golden model with a change. */
export async function writeChangedModel(dir: string, name: string, change: (contents: Contents) => void): Promise<void> {
  const folder = await openCheckpointFolder(goldenModel(name));
  try {
    const read = async ({ name, dtype, shape, source, offset, byteLength }: TensorEntry): Promise<[string, TensorData]> => {
      const data = new Uint8Array(byteLength);
      await source.read(offset, data);
      return [name, { name, dtype, shape, data }];
    };
    const tensors = new Map(await Promise.all([...folder.tensors.values()].map(read)));
    const config = JSON.parse(await readFile(join(goldenModel(name), 'config.json'), 'utf8')) as Record<string, unknown>;
    change({ tensors, config });
    await writeFile(join(dir, 'config.json'), JSON.stringify(config));
    await writeFile(join(dir, 'model.safetensors'), writeSafetensors([...tensors.values()]));
  } finally {
    await folder.close();
  }
}

/** A file of goldens: its arrays by name, and what it says of itself. */
export interface Golden {
  readonly metadata: ReadonlyMap<string, string>;
  readonly arrays: ReadonlyMap<string, Float64Array>;
}

/** Reads all tensors of a safetensors file as numbers. */
export async function readGolden(path: string): Promise<Golden> {
  const source = await openFile(path);
  try {
    const { metadata, tensors } = await readSafetensors(source);
    const read = async (entry: TensorEntry): Promise<[string, Float64Array]> => [
      entry.name,
      Float64Array.from(await readTensor(entry), Number),
    ];
    return { metadata, arrays: new Map(await Promise.all([...tensors.values()].map(read))) };
  } finally {
    await source.close();
  }
}

/** Input ids of a golden model. */
export async function goldenIds(name: string): Promise<number[]> {
  const { arrays } = await readGolden(join(goldenModel(name), 'expected.safetensors'));
  return [...arrays.get('input_ids')!];
}
