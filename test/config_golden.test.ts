import { readFileSync } from 'node:fs';
import { copyFile, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { describe, expect, test } from 'vitest';
import { samplingOptions, suppressionOptions } from '../src/cli/sampling.ts';
import { generate } from '../src/generate.ts';
import { parseGenerationConfig } from '../src/generation_config.ts';
import { loadModel } from '../src/load.ts';
import { changedModel, goldenModel, logitsOf, readGolden, repository, temporaryFolder } from './support/models.ts';

interface Case {
  readonly case: string;
  readonly model: string;
  readonly change: Readonly<Record<string, unknown>>;
  readonly absent: readonly string[];
  readonly runs: boolean;
  readonly without_tensor?: string;
}

// golden/configs.py: what transformers makes of each change of config.json.
interface Golden {
  readonly tokens: number;
  readonly cases: Case[];
  readonly generation: { prompt: number[]; results: { settings: object; ids: number[] }[]; top_k: number };
}
const { tokens, cases, generation }: Golden = JSON.parse(readFileSync(repository('golden/configs/cases.json'), 'utf8'));
const { arrays } = await readGolden(repository('golden/configs/expected.safetensors'));

async function folderOf({ model, change, absent, without_tensor }: Case): Promise<string> {
  const json = JSON.parse(readFileSync(join(goldenModel(model), 'config.json'), 'utf8')) as Record<string, unknown>;
  const config = Object.fromEntries(Object.entries({ ...json, ...change }).filter(([key]) => !absent.includes(key)));
  const dir = without_tensor ? await changedModel(model, ({ tensors }) => void tensors.delete(without_tensor)) : await temporaryFolder();
  if (!without_tensor) await copyFile(join(goldenModel(model), 'model.safetensors'), join(dir, 'model.safetensors'));
  await writeFile(join(dir, 'config.json'), JSON.stringify(config));
  return dir;
}

describe('config.json means what it means to HF', () => {
  test.each(cases.filter(({ runs }) => runs))('$case', async (one) => {
    const { model } = await loadModel(await folderOf(one), { kernels: 'reference', context: tokens, prefill_chunk: tokens });
    const V = model.config.vocab_size;
    const ids = Array.from({ length: tokens }, (_, i) => (i * 7 + 3) % V);
    const expected = arrays.get(one.case)!;
    const ours = logitsOf(model, ids, tokens).slice(-expected.length);
    const largest = expected.reduce((most, value) => Math.max(most, Math.abs(value)), 0);
    // As in golden.test.ts: float64 in another order of the sums, and PyTorch's powers of theta.
    expected.forEach((value, i) => {
      expect(Math.abs(ours[i]! - value) / largest).toBeLessThan(1e-11);
    });
  });

  test.each(cases.filter(({ runs }) => !runs))('$case is refused', async (one) => {
    await expect(loadModel(await folderOf(one), { kernels: 'reference', context: tokens })).rejects.toThrow(/config\.json: "/);
  });
});

test('generation_config.json changes what is generated as it does in HF', async () => {
  const { prompt, results, top_k } = generation;
  const { model } = await loadModel(goldenModel('nope_theta_null'), { kernels: 'reference', context: 20 });
  for (const { settings, ids } of results) {
    const { max_new_tokens: max_tokens = 12, ...config } = parseGenerationConfig(JSON.stringify(settings), 'generation_config.json');
    const options = { ...samplingOptions({}, config), ...suppressionOptions(config), eos_token_id: config.eos_token_id, max_tokens };
    const ours: number[] = [];
    for await (const id of generate(model, prompt, options)) ours.push(id);
    expect(ours, JSON.stringify(settings)).toEqual(ids);
  }
  expect(samplingOptions({}, parseGenerationConfig('{"do_sample": true}', '')).top_k).toBe(top_k);
});
