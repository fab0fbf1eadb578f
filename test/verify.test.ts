import { readdirSync } from 'node:fs';
import { cp, mkdir, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { openFile } from '../src/checkpoint/byte_source.ts';
import { readSafetensors } from '../src/checkpoint/safetensors.ts';
import { type TensorData, writeSafetensors } from '../src/checkpoint/safetensors_writer.ts';
import { CheckpointError } from '../src/errors.ts';
import { loadModel } from '../src/load.ts';
import { hasRelaxedSimd } from '../src/runtime/wasm_module.ts';
import { type Accuracy, type Verification, verify } from '../src/verify.ts';
import { run, runIn } from './support/command_line.ts';
import { type Contents, changedModel, goldenModel, logitsOf, readGolden, repository, temporaryFolder } from './support/models.ts';

/** Verifies a folder. */
async function verifyFolder(model: string): Promise<Accuracy> {
  const results = await collect(verify({ model }));
  expect(results).toHaveLength(1);
  return results[0] as Accuracy;
}

async function collect(results: AsyncIterable<Verification>): Promise<Verification[]> {
  const all: Verification[] = [];
  for await (const result of results) all.push(result);
  return all;
}

/** A golden model with its weights changed, and the golden as it was. */
async function withWeights(change: (contents: Contents) => void): Promise<string> {
  const dir = await changedModel('gqa', change);
  await cp(join(goldenModel('gqa'), 'expected.safetensors'), join(dir, 'expected.safetensors'));
  return dir;
}

/** A golden model as it is, and its golden with the bytes of some tensors changed, or without them. */
async function withGolden(change: (name: string, bytes: DataView) => boolean): Promise<string> {
  const dir = await temporaryFolder();
  await cp(goldenModel('gqa'), dir, { recursive: true });
  const source = await openFile(join(dir, 'expected.safetensors'));
  const tensors: TensorData[] = [];
  for (const { name, dtype, shape, offset, byteLength } of (await readSafetensors(source)).tensors.values()) {
    const data = new DataView(new ArrayBuffer(byteLength));
    await source.read(offset, new Uint8Array(data.buffer));
    if (change(name, data)) tensors.push({ name, dtype, shape, data });
  }
  await source.close();
  await writeFile(join(dir, 'expected.safetensors'), Buffer.concat(writeSafetensors(tensors)));
  return dir;
}

it('the kernels run in the mode that is asked for', async () => {
  const kernels = async (mode: 'strict' | 'fast') => {
    const found: Accuracy[] = [];
    for await (const result of verify({ mode })) {
      if (result.kind !== 'kernel') break;
      found.push(result);
    }
    return found;
  };
  const [strict, fast] = [await kernels('strict'), await kernels('fast')];
  expect(fast.map(({ name }) => name)).toEqual(strict.map(({ name }) => name));
  expect(fast.filter(({ passed }) => !passed)).toEqual([]);
  const unlike = fast.filter(({ error }, i) => error !== strict[i]!.error).length;
  if (await hasRelaxedSimd()) expect(unlike).toBeGreaterThan(20);
  else expect(unlike).toBe(0);
});

describe('a model folder', () => {
  it('gets the ratios that a plain comparison gives', async () => {
    const { arrays } = await readGolden(join(goldenModel('gqa'), 'expected.safetensors'));
    const { model } = await loadModel(goldenModel('gqa'));
    const ours = logitsOf(model, arrays.get('input_ids')!, 256);
    const [pytorch, truth] = [arrays.get('logits')!, arrays.get('logits.truth')!];
    const errors = (of: Float64Array) => [...of].map((value, i) => Math.abs(value - truth[i]!));
    const [mine, theirs] = [errors(ours), errors(pytorch)];
    const sum = (values: number[]) => values.reduce((a, b) => a + b * b, 0);
    const result = await verifyFolder(goldenModel('gqa'));
    expect(result).toMatchObject({ kind: 'model', error: Math.max(...mine), pytorch_error: Math.max(...theirs), passed: true });
    expect(result.ratio).toBeCloseTo(Math.max(...mine) / Math.max(...theirs), 12);
    expect(result.rms_ratio).toBeCloseTo(Math.sqrt(sum(mine) / sum(theirs)), 12);
    expect(result.greedy).toEqual({ agreed: 24, compared: 24 });
  });

  it('fails when a weight is off by a ten thousandth', async () => {
    const dir = await withWeights(({ tensors }) => {
      const { data } = tensors.get('model.norm.weight')!;
      const bits = new DataView(data.buffer, data.byteOffset, data.byteLength);
      for (let i = 0; i < data.byteLength; i += 2) bits.setUint16(i, bits.getUint16(i, true) ^ 1, true); // the last bit of each bf16
    });
    expect(await verifyFolder(dir)).toMatchObject({ passed: false, ratio: expect.toSatisfy((ratio: number) => ratio > 100) });
  });

  it('fails above twice the error of PyTorch', async () => {
    const { error } = await verifyFolder(goldenModel('gqa'));
    const { arrays } = await readGolden(join(goldenModel('gqa'), 'expected.safetensors'));
    const truth = arrays.get('logits.truth')!;
    const small = truth.findIndex((logit) => Math.abs(logit) < 0.05); // where f32 is fine enough to be exact about an error
    const withError = (pytorch_error: number) =>
      withGolden((name, bytes) => {
        if (name !== 'logits') return true;
        for (const [i, logit] of truth.entries()) bytes.setFloat32(4 * i, logit + (i === small ? pytorch_error : 0), true);
        return true;
      });
    expect(await verifyFolder(await withError(error / 2.02))).toMatchObject({ passed: false, ratio: expect.closeTo(2.02, 1) });
    expect(await verifyFolder(await withError(error / 1.98))).toMatchObject({ passed: true, ratio: expect.closeTo(1.98, 1) });
  });

  it('fails when logits are NaN', async () => {
    const dir = await withWeights(({ tensors }) => {
      const { data } = tensors.get('model.norm.weight')!;
      new DataView(data.buffer, data.byteOffset).setUint16(0, 0x7fc0, true);
    });
    expect(await verifyFolder(dir)).toMatchObject({ passed: false, error: Infinity, ratio: Infinity });
  });

  it('fails at a clear greedy token that differs, and passes over an unclear one', async () => {
    const other = (name: string, bytes: DataView) => {
      if (name === 'greedy') bytes.setInt32(4 * 23, (bytes.getInt32(4 * 23, true) + 1) % 97, true);
      return true;
    };
    expect(await verifyFolder(await withGolden(other))).toMatchObject({ passed: false, greedy: { agreed: 23, compared: 24 } });
    const unclear = await withGolden((name, bytes) => {
      if (name === 'greedy_margins') bytes.setFloat32(4 * 23, 0.01, true);
      return other(name, bytes);
    });
    expect(await verifyFolder(unclear)).toMatchObject({ passed: true, greedy: { agreed: 23, compared: 23 } });
  });

  it('is refused without a golden, or with one that lacks something', async () => {
    await expect(verifyFolder(await changedModel('gqa', () => {}))).rejects.toThrow(CheckpointError);
    const lacking = await withGolden((name) => name !== 'logits.truth');
    await expect(verifyFolder(lacking)).rejects.toThrow(/"logits\.truth": expected a tensor \[\d+, 97\], found nothing/);
    await cp(join(goldenModel('odd_sizes'), 'expected.safetensors'), join(lacking, 'expected.safetensors'));
    await expect(verifyFolder(lacking)).rejects.toThrow(/"logits": expected a tensor \[\d+, 97\], found \[\d+, \d+\]/);
  });
});

describe('what comes with the package', () => {
  const folders = (name: string) => readdirSync(repository(`golden/${name}`));
  const cases = folders('kernels').flatMap((kernel) =>
    folders(`kernels/${kernel}`).map((file) => `${kernel}/${file.replace('.safetensors', '')}`),
  );

  it('holds: every kernel, every model, and the perplexity of the embedded model', { timeout: 300_000 }, async () => {
    const results = await collect(verify());
    const names = (kind: string) => results.filter((result) => result.kind === kind).map(({ name }) => name);
    expect(names('kernel').sort()).toEqual(cases.sort());
    expect(names('model').sort()).toEqual(folders('models').sort());
    expect(results.filter(({ passed }) => !passed)).toEqual([]);
    const { arrays } = await readGolden(repository('golden/demo/expected.safetensors'));
    const clear = [...arrays]
      .filter(([name]) => name.endsWith('_margins'))
      .flatMap(([, margins]) => [...margins.filter((margin) => margin > 0.02)]);
    const [heldOut] = results.filter((result) => result.kind === 'held-out');
    expect(heldOut!.greedy).toEqual({ agreed: clear.length, compared: clear.length });
    expect(heldOut!.perplexity.toPrecision(6)).toBe(heldOut!.pytorch_perplexity.toPrecision(6));
  });
});

describe('the command', () => {
  it('prints a table, and one array with --json', async () => {
    const { code, stdout, stderr } = await run('verify', '--model', goldenModel('gqa'));
    expect(stdout).toMatch(
      /^ +error +PyTorch +ratio +rms +greedy\nmodels\n {2}.*gqa( +\d+\.\de-\d+){2}( +\d+\.\d\d){2} +24\/24\nall 1 hold\n$/,
    );
    expect([code, stderr]).toEqual([0, '']);
    const json = await run('verify', '--model', goldenModel('gqa'), '--json', '--kernels', 'reference');
    const [result] = JSON.parse(json.stdout) as Accuracy[];
    expect(result!.ratio).toBeLessThan(1e-6);
  });

  it('keeps its columns apart whatever is in them', async () => {
    const { stdout } = await run('verify', '--model', goldenModel('gqa'), '--weights', 'q4');
    expect(stdout).toMatch(/gqa( +\d\.\de[+-]\d){4} +\d+\/24 {2}fails\n/);
  });

  it('takes the name of a model in the cache', async () => {
    const home = await temporaryFolder();
    const root = join(home, 'hub/models--org--name');
    await mkdir(join(root, 'refs'), { recursive: true });
    const commit = '0123456789'.repeat(4);
    await writeFile(join(root, 'refs/main'), commit);
    await cp(goldenModel('gqa'), join(root, 'snapshots', commit), { recursive: true });
    const { code, stdout } = await runIn({ HF_HOME: home, HF_HUB_OFFLINE: '1' }, 'verify', '--model', 'org/name');
    expect(stdout).toMatch(/24\/24\nall 1 hold\n$/);
    expect(code).toBe(0);
  });

  it('exits with 1 when a bound is exceeded', async () => {
    const dir = await withGolden((name, bytes) => {
      if (name === 'greedy') bytes.setInt32(0, (bytes.getInt32(0, true) + 1) % 97, true);
      return true;
    });
    const { code, stdout, stderr } = await run('verify', '--model', dir);
    expect(stdout).toMatch(/ 13\/24 {2}fails\n1 of 1 fail\n$/);
    expect([code, stderr]).toEqual([1, '']);
  });
});
