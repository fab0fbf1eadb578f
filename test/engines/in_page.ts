import { bytesSource } from '../../dist/checkpoint/byte_source.js';
import { readSafetensors, readTensor } from '../../dist/checkpoint/safetensors.js';
import { parseConfig } from '../../dist/config.js';
import { loadModelFrom } from '../../dist/load.js';
import { type Bits, type Digests, digestsOf } from './digest.ts';

/** Files of weights, below golden/models/<model>/. */
export type WeightFiles = Readonly<Record<string, readonly string[]>>;

/** The digests of the golden models in the page that calls this; the files come from the server of the page. */
export async function bitsInPage(models: WeightFiles): Promise<Bits> {
  const bits: Record<string, Digests> = {};
  for (const [name, files] of Object.entries(models)) {
    const open = async (file: string) => (await readSafetensors(bytesSource(file, await download(`${name}/${file}`)))).tensors;
    const ids = Array.from(await readTensor((await open('expected.safetensors')).get('input_ids')!), Number);
    const config = parseConfig(new TextDecoder().decode(await download(`${name}/config.json`)), 'config.json');
    const tensors = new Map((await Promise.all(files.map(open))).flatMap((shard) => [...shard]));
    bits[name] = await digestsOf(ids, (options) => loadModelFrom(config, tensors, { mode: 'strict', ...options }));
  }
  return bits;
}

async function download(path: string): Promise<Uint8Array> {
  const response = await fetch(`/golden/models/${path}`);
  if (!response.ok) throw new Error(`${path}: HTTP ${response.status}`);
  return new Uint8Array(await response.arrayBuffer());
}
