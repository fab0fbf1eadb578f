import { CheckpointError, type Problem } from '../errors.ts';
import type { ByteSource } from './byte_source.ts';
import { JsonScanner } from './json_scanner.ts';
import { folderFiles, INDEX, isPlainName, type ModelFiles, requireWeights, SINGLE } from './model_files.ts';
import { ProblemList, quote } from './problem_list.ts';
import { readSafetensors, type SafetensorsFile, type TensorEntry } from './safetensors.ts';

/** The open weight files of a checkpoint folder. */
export interface CheckpointFolder {
  /** Every tensor, file by file and in the order of their bytes. */
  readonly tensors: ReadonlyMap<string, TensorEntry>;
  /** `model.safetensors` alone, or the shards, by their names in the folder. */
  readonly files: ReadonlyMap<string, SafetensorsFile>;
  /** Closes all files. */
  close(): Promise<void>;
}

const LARGEST_INDEX = 100_000_000; // bytes, the limit that the format sets for a header

const SAME_REVISION = 'Download the index and all its shards again, from the same revision.';

/**
 * Opens the weights of a model: `model.safetensors`, or else the shards that `model.safetensors.index.json` names, in the order of HF:
 * PreTrainedModel.from_pretrained. Only headers are read.
 * @param from path of a folder (Node only), or its files.
 * @throws {CheckpointError} with every problem of the index and of all shards; then no file is left open.
 */
export async function openCheckpointFolder(from: string | ModelFiles): Promise<CheckpointFolder> {
  const model = typeof from === 'string' ? await folderFiles(from) : from;
  const sources: ByteSource[] = [];
  const open = async (name: string) => {
    const source = await model.open(name);
    sources.push(source);
    return readSafetensors(source);
  };
  const close = async () => {
    await Promise.all(sources.map((source) => source.close()));
  };

  try {
    requireWeights(model);
    const files = model.names.includes(SINGLE) ? new Map([[SINGLE, await open(SINGLE)]]) : await openShards(await model.open(INDEX), open);
    return { tensors: new Map([...files.values()].flatMap((file) => [...file.tensors])), files, close };
  } catch (error) {
    await close();
    throw error;
  }
}

/** Opens every shard of an index and checks that together they hold each tensor where the index says, once, and no others. */
async function openShards(
  source: ByteSource,
  open: (name: string) => Promise<SafetensorsFile>,
): Promise<ReadonlyMap<string, SafetensorsFile>> {
  const index = source.name;
  const problems = new ProblemList(index);
  const weightMap = await readIndex(source, problems);
  const shards = new Map<string, SafetensorsFile>();
  for (const shard of [...new Set(weightMap.values())].sort()) {
    if (!isShardName(shard)) {
      problems.add(outside(index, shard));
      continue;
    }
    try {
      shards.set(shard, await open(shard));
    } catch (error) {
      if (!(error instanceof CheckpointError)) throw error;
      for (const problem of error.problems) problems.add(problem);
    }
  }
  comparePlaces(index, weightMap, shards, problems);
  problems.throwIfAny();
  return shards;
}

/**
 * Reads the shards that an index names.
 * @param source the index; it is closed
 * @throws {CheckpointError} when it is damaged, or names anything but safetensors files beside it
 */
export async function readShardNames(source: ByteSource): Promise<string[]> {
  const problems = new ProblemList(source.name);
  const names = [...new Set((await readIndex(source, problems)).values())].sort();
  for (const name of names) if (!isShardName(name)) problems.add(outside(source.name, name));
  problems.throwIfAny();
  return names;
}

/** Reads `weight_map`, from tensor to shard, and closes the source. */
async function readIndex(source: ByteSource, problems: ProblemList): Promise<ReadonlyMap<string, string>> {
  const index = source.name;
  try {
    if (source.byteLength > LARGEST_INDEX) {
      const found = `${source.byteLength} bytes`;
      throw new CheckpointError({ where: index, expected: `an index of at most ${LARGEST_INDEX} bytes`, found, fix: SAME_REVISION });
    }
    const bytes = new Uint8Array(source.byteLength);
    await source.read(0, bytes);

    const weightMap = new Map<string, string>();
    const scanner = new JsonScanner(index, bytes, 0, problems);
    scanner.object('index', 'an object', (key) => {
      if (key !== 'weight_map') return scanner.skip();
      scanner.object('weight_map', 'an object of strings', (name) => {
        const shard = scanner.string(name, 'the name of a shard as a string');
        if (shard !== null) weightMap.set(name, shard);
      });
    });
    scanner.end();
    if (weightMap.size === 0)
      problems.add({ where: index, expected: 'a weight_map that names tensors', found: 'none', fix: SAME_REVISION });
    return weightMap;
  } finally {
    await source.close();
  }
}

/** A shard lies beside its index. */
function isShardName(shard: string): boolean {
  return isPlainName(shard) && /.\.safetensors$/.test(shard);
}

function outside(index: string, shard: string): Problem {
  const expected = 'the name of a .safetensors file in the same folder';
  return { where: index, expected, found: quote(shard), fix: 'Do not use this checkpoint unless you trust where it came from.' };
}

function comparePlaces(
  index: string,
  weightMap: ReadonlyMap<string, string>,
  shards: ReadonlyMap<string, SafetensorsFile>,
  problems: ProblemList,
): void {
  const places = new Map<string, string[]>([...weightMap.keys()].map((name) => [name, []]));
  for (const [shard, { tensors }] of shards) {
    for (const name of tensors.keys()) {
      const found = places.get(name);
      if (found === undefined) places.set(name, [shard]);
      else found.push(shard);
    }
  }
  for (const [name, found] of places) {
    const said = weightMap.get(name);
    if (found.length === 1 && found[0] === said) continue;
    // A shard that could not be read is one problem, not one for each of its tensors.
    if (found.length === 0 && said !== undefined && !shards.has(said)) continue;
    problems.add({
      where: `${index}: ${quote(name)}`,
      expected:
        said === undefined ? 'this tensor in no shard, for the index does not name it' : `this tensor in ${quote(said)} and no other shard`,
      found: found.length === 0 ? 'it in none that could be read' : `it in ${found.map(quote).join(' and ')}`,
      fix: SAME_REVISION,
    });
  }
}
