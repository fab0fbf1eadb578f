import { readdirSync, readFileSync } from 'node:fs';
import { describe, expect, test } from 'vitest';
import { bytesSource } from '../src/checkpoint/byte_source.ts';
import { readSafetensors } from '../src/checkpoint/safetensors.ts';
import { loadModel, loadModelFrom, readConfig } from '../src/load.ts';
import { digestsOf, WAYS } from './engines/digest.ts';
import { goldenIds, goldenModel, repository } from './support/models.ts';

// Strict mode's bits are a contract (docs/engines.md): `npm run test:engines` holds other engines to the same digests.
const { models } = JSON.parse(readFileSync(repository('test/engines/digests.json'), 'utf8')) as { models: Record<string, string> };

test('every golden model has a digest', () => {
  expect(Object.keys(models)).toEqual(readdirSync(repository('golden/models')).sort());
});

describe('strict logits have the committed bits, however the prompt is cut and shared', () => {
  test.each(Object.entries(models))('%s', async (name, digest) => {
    const digests = await digestsOf(await goldenIds(name), (options) => loadModel(goldenModel(name), { mode: 'strict', ...options }));
    expect(digests).toEqual(Object.fromEntries(Object.keys(WAYS).map((way) => [way, digest])));
  });
});

test('a model loaded from bytes in memory, shard by shard, has the bits of its folder', async () => {
  const dir = goldenModel('sharded');
  const config = await readConfig(dir);
  const shards = readdirSync(dir).filter((file) => /^model-.*\.safetensors$/.test(file));
  expect(shards).toHaveLength(3);
  const files = await Promise.all(shards.map((file) => readSafetensors(bytesSource(file, readFileSync(`${dir}/${file}`)))));
  const tensors = new Map(files.flatMap((file) => [...file.tensors]));
  const digests = await digestsOf(await goldenIds('sharded'), (options) => loadModelFrom(config, tensors, options));
  expect(digests.all).toBe(models.sharded);

  tensors.delete('model.norm.weight');
  await expect(loadModelFrom(config, tensors)).rejects.toThrow('checkpoint: "model.norm.weight": expected a tensor');
});
