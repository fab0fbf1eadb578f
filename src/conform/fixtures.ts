import { packageFile } from '../package_files.ts';
import { type Golden, numbersOf, readGolden } from '../verify_golden.ts';

/** A golden model: a checkpoint folder, a text, and what PyTorch in float32 and the truth make of it. */
export interface GoldenModel {
  readonly name: string;
  readonly dir: string;
  readonly golden: Golden;
  readonly tokens: readonly number[];
}

export async function goldenModel(name: string): Promise<GoldenModel> {
  const dir = packageFile(`golden/models/${name}`);
  const golden = await readGolden(`${dir}/expected.safetensors`);
  return { name, dir, golden, tokens: numbersOf(golden, 'input_ids') };
}

/**
 * The golden models that the release itself reads as meant. It fails on some spellings of NoPE and of tensor names; PyTorch's numbers for
 * these come from another folder, as their metadata say, so that nobody can be held to read them.
 */
export async function readableModels(): Promise<GoldenModel[]> {
  const models: GoldenModel[] = [];
  for (const name of await namesIn('golden/models')) {
    const model = await goldenModel(name);
    const params = JSON.parse(model.golden.metadata.get('params') ?? '{}') as Record<string, unknown>;
    if (!('logits_from' in params)) models.push(model);
  }
  return models;
}

/** Names in a folder of this package, sorted. */
export async function namesIn(folder: string): Promise<string[]> {
  const { readdir } = await import('node:fs/promises');
  return (await readdir(packageFile(folder))).sort();
}

/** A JSON golden of this package. */
export async function jsonGolden<T>(name: string): Promise<T> {
  const { readFile } = await import('node:fs/promises');
  return JSON.parse(await readFile(packageFile(`golden/${name}`), 'utf8')) as T;
}
