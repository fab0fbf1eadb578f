import { CheckpointError } from '../errors.ts';
import { type ByteSource, openFile } from './byte_source.ts';
import { JsonScanner } from './json_scanner.ts';
import { ProblemList, quote } from './problem_list.ts';
import { readSafetensors, type SafetensorsFile, type TensorEntry } from './safetensors.ts';

/** The open weight files of a checkpoint folder. */
export interface CheckpointFolder {
  /** Every tensor, file by file and in the order of their bytes. */
  readonly tensors: ReadonlyMap<string, TensorEntry>;
  /** `model.safetensors` alone, or the shards. */
  readonly files: readonly SafetensorsFile[];
  /** Closes all files. */
  close(): Promise<void>;
}

const SINGLE = 'model.safetensors';
const INDEX = 'model.safetensors.index.json';
const LARGEST_INDEX = 100_000_000; // bytes, the limit that the format sets for a header

const SAME_REVISION = 'Download the index and all its shards again, from the same revision.';

/**
 * Opens the weights in a folder (Node only): `model.safetensors`, or else the shards that `model.safetensors.index.json` names,
 * in the order of HF: PreTrainedModel.from_pretrained. Only headers are read.
 * @param dir path of the folder.
 * @throws CheckpointError with every problem of the index and of all shards; then no file is left open.
 */
export async function openCheckpointFolder(dir: string): Promise<CheckpointFolder> {
  const { join } = await import('node:path');
  const names = await listFolder(dir);
  const sources: ByteSource[] = [];
  const open = async (name: string) => {
    const source = await openFile(join(dir, name));
    sources.push(source);
    return readSafetensors(source);
  };
  const close = async () => {
    await Promise.all(sources.map((source) => source.close()));
  };

  try {
    if (!names.includes(SINGLE) && !names.includes(INDEX)) throw noWeights(dir, names);
    const files = names.includes(SINGLE) ? [await open(SINGLE)] : await openShards(join(dir, INDEX), open);
    return { tensors: new Map(files.flatMap((file) => [...file.tensors])), files, close };
  } catch (error) {
    await close();
    throw error;
  }
}

async function listFolder(dir: string): Promise<string[]> {
  const { readdir } = await import('node:fs/promises');
  return await readdir(dir).catch((cause: NodeJS.ErrnoException) => {
    const reasons: Record<string, string> = { ENOENT: 'nothing there', ENOTDIR: 'a file', EACCES: 'no permission to read it' };
    const found = reasons[cause.code ?? ''] ?? cause.message;
    throw new CheckpointError(
      { where: dir, expected: 'a checkpoint folder', found, fix: `Give the folder that holds ${SINGLE}.` },
      { cause },
    );
  });
}

function noWeights(dir: string, names: readonly string[]): CheckpointError {
  const present = names.slice(0, 10).map(quote).join(', ');
  return new CheckpointError({
    where: dir,
    expected: `${SINGLE} or ${INDEX}`,
    found: names.length === 0 ? 'an empty folder' : `only ${present}${names.length > 10 ? ` and ${names.length - 10} more` : ''}`,
    fix: 'Download the weights in the safetensors format, or give the folder that holds them.',
  });
}

/** Opens every shard of an index and checks that together they hold each tensor where the index says, once, and no others. */
async function openShards(index: string, open: (name: string) => Promise<SafetensorsFile>): Promise<SafetensorsFile[]> {
  const problems = new ProblemList(index);
  const weightMap = await readIndex(index, problems);
  const shards = new Map<string, SafetensorsFile>();
  for (const shard of [...new Set(weightMap.values())].sort()) {
    if (!isPlainName(shard)) {
      const expected = 'the name of a .safetensors file in the same folder';
      problems.add({ where: index, expected, found: quote(shard), fix: 'Do not use this checkpoint unless you trust where it came from.' });
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
  return [...shards.values()];
}

/** Reads `weight_map`, from tensor to shard. */
async function readIndex(index: string, problems: ProblemList): Promise<ReadonlyMap<string, string>> {
  const source = await openFile(index);
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

/** A shard lies beside its index: a name with any way out of the folder, on any system, is refused. */
function isPlainName(shard: string): boolean {
  return /^[^/\\:\p{C}]+\.safetensors$/u.test(shard);
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
