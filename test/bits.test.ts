import { readdirSync, readFileSync } from 'node:fs';
import { describe, expect, test } from 'vitest';
import { bytesSource } from '../src/checkpoint/byte_source.ts';
import { readSafetensors } from '../src/checkpoint/safetensors.ts';
import { loadModel, loadModelFrom, readConfig } from '../src/load.ts';
import { digestsOf } from './engines/digest.ts';
import { goldenIds, goldenModel, repository } from './support/models.ts';

// Strict mode's bits are a contract (docs/engines.md): `npm run test:engines` holds other engines to the same digests.
const { models } = JSON.parse(readFileSync(repository('test/engines/digests.json'), 'utf8')) as { models: Record<string, string> };

test('every golden model has a digest', () => {
  expect(Object.keys(models)).toEqual(readdirSync(repository('golden/models')).sort());
});

describe('strict logits have the committed bits, however the prompt is cut', () => {
  test.each(Object.entries(models))('%s', async (name, digest) => {
    const load = async (prefill_chunk: number) => (await loadModel(goldenModel(name), { mode: 'strict', prefill_chunk })).model;
    expect(await digestsOf(await goldenIds(name), load)).toEqual({ '1': digest, '7': digest, '64': digest, all: digest });
  });
});

test('a model loaded from bytes in memory, shard by shard, has the bits of its folder', async () => {
  const dir = goldenModel('sharded');
  const config = await readConfig(dir);
  const shards = readdirSync(dir).filter((file) => /^model-.*\.safetensors$/.test(file));
  expect(shards).toHaveLength(3);
  const files = await Promise.all(shards.map((file) => readSafetensors(bytesSource(file, readFileSync(`${dir}/${file}`)))));
  const tensors = new Map(files.flatMap((file) => [...file.tensors]));
  const load = async (prefill_chunk: number) => (await loadModelFrom(config, tensors, { prefill_chunk })).model;
  expect((await digestsOf(await goldenIds('sharded'), load)).all).toBe(models.sharded);

  tensors.delete('model.norm.weight');
  await expect(loadModelFrom(config, tensors)).rejects.toThrow('checkpoint: "model.norm.weight": expected a tensor');
});
