import { mkdir, open, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { shapeConfig, shapeConfigJson } from '../dist/bench/shapes.js';
import { syntheticTensors } from '../dist/bench/synthetic.js';
import type { TensorEntry } from '../dist/checkpoint/safetensors.js';
import { layoutSafetensors } from '../dist/checkpoint/safetensors_writer.js';

// node build/write_checkpoint.js SHAPE FOLDER: a checkpoint folder of random weights in shards, as large as a real one, to measure loading.
const SHARD_BYTES = 4.9e9;
const PIECE_BYTES = 1 << 24;

const [, , shape = '7b', dir = 'checkpoint'] = process.argv;
await mkdir(dir, { recursive: true });
const shards: TensorEntry[][] = [];
let room = 0;
for (const entry of syntheticTensors(shapeConfig(shape)).values()) {
  if (entry.byteLength > room) {
    shards.push([]);
    room = SHARD_BYTES;
  }
  room -= entry.byteLength;
  shards.at(-1)!.push(entry);
}
const weight_map: Record<string, string> = {};
for (const [i, shard] of shards.entries()) {
  const number = (n: number) => String(n).padStart(5, '0');
  const name = `model-${number(i + 1)}-of-${number(shards.length)}.safetensors`;
  const { header, tensors } = layoutSafetensors(shard, new Map([['format', 'pt']]));
  const file = await open(join(dir, name), 'w');
  await file.write(header);
  for (const { name: tensor, source, byteLength } of tensors) {
    weight_map[tensor] = name;
    for (let done = 0; done < byteLength; done += PIECE_BYTES) {
      const piece = new Uint8Array(Math.min(PIECE_BYTES, byteLength - done));
      await source.read(done, piece);
      await file.write(piece);
    }
  }
  await file.close();
}
const total_size = shards.flat().reduce((sum, { byteLength }) => sum + byteLength, 0);
await writeFile(join(dir, 'model.safetensors.index.json'), JSON.stringify({ metadata: { total_size }, weight_map }, null, 2));
await writeFile(join(dir, 'config.json'), shapeConfigJson(shape));
process.stdout.write(`${dir}: ${shards.length} shards, ${(total_size / 1e9).toFixed(2)} GB\n`);
