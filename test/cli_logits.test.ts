import { cp, readdir, readFile, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { fileOf, run, sharedFolder } from './support/command_line.ts';
import { assertErrorRatio, assertRelative } from './support/assert_close.ts';
import { goldenModel, readGolden } from './support/models.ts';

const folder = await sharedFolder();

/** Runs `logits` over the input ids of a golden model. */
async function logits(name: string, ...options: string[]) {
  const golden = await readGolden(join(goldenModel(name), 'expected.safetensors'));
  const tokens = await fileOf(folder, `${name}.json`, [...golden.arrays.get('input_ids')!]);
  const output = join(folder, `${name}${options.join('')}.safetensors`);
  const { code, stdout, stderr } = await run('logits', '--model', goldenModel(name), '--tokens', tokens, '--output', output, ...options);
  expect(stderr).not.toContain('error');
  expect([code, stdout]).toEqual([0, '']);
  const [truth, pytorch] = [golden.arrays.get('logits.truth')!, golden.arrays.get('logits')!];
  return { output, written: await readGolden(output), truth, pytorch };
}

describe('logits', () => {
  it.each(['nope', 'rope', 'sharded'])('%s: errs at most twice as much as PyTorch', async (name) => {
    const { written, truth, pytorch } = await logits(name);
    assertErrorRatio(written.arrays.get('logits')!, pytorch, truth);
    expect(Object.fromEntries(written.metadata)).toEqual({
      producer: expect.stringMatching(/^olmo-hybrid \d/),
      kernels: 'wasm',
      mode: 'strict',
    });
  });

  it('writes the same bits however the text is cut, F32 [T, V]', async () => {
    const [whole, cut] = [await logits('nope'), await logits('nope', '--prefill-chunk', '11')];
    expect((await readFile(cut.output)).equals(await readFile(whole.output))).toBe(true);
    const file = await readFile(whole.output);
    const header = JSON.parse(file.subarray(8, 8 + Number(file.readBigUInt64LE())).toString()) as Record<string, unknown>;
    expect(header.logits).toEqual({ dtype: 'F32', shape: [70, 97], data_offsets: [0, 70 * 97 * 4] });
    expect(file.readBigUInt64LE() % 8n).toBe(0n);
  });

  it('takes the chunked delta rule with --mode fast', async () => {
    const { written, truth, pytorch } = await logits('nope', '--mode', 'fast', '--kv', 'f32');
    assertErrorRatio(written.arrays.get('logits')!, pytorch, truth);
    expect(written.metadata.get('mode')).toBe('fast');
  });

  it('is the truth in F32 with --kernels reference', async () => {
    const { written, truth } = await logits('nope', '--kernels', 'reference');
    assertRelative(written.arrays.get('logits')!, truth, 2 ** -24);
    expect(written.metadata.get('kernels')).toBe('reference');
  });

  it('gives logits in bfloat16 with --kernels bf16', async () => {
    const { written, truth } = await logits('nope', '--kernels', 'bf16');
    expect(written.metadata.get('kernels')).toBe('bf16');
    const ours = written.arrays.get('logits')!;
    expect(ours.every((logit) => (new Uint32Array(Float32Array.of(logit).buffer)[0]! & 0xffff) === 0)).toBe(true);
    expect(() => assertRelative(ours, truth, 2 ** -24)).toThrow();
  });

  it('replaces a file that is there, and leaves it alone and nothing besides when it fails', async () => {
    const output = await fileOf(folder, 'kept.safetensors', 'what was there before');
    const damaged = join(folder, 'damaged');
    await cp(goldenModel('nope'), damaged, { recursive: true });
    await writeFile(join(damaged, 'model.safetensors'), 'damaged');
    const tokens = await fileOf(folder, 'few.json', [1, 2]);
    expect(await run('logits', '--model', damaged, '--tokens', tokens, '--output', output)).toMatchObject({ code: 1 });
    expect(await readFile(output, 'utf8')).toBe('what was there before');
    expect(await run('logits', '--model', goldenModel('nope'), '--tokens', tokens, '--output', output)).toMatchObject({ code: 0 });
    expect((await readGolden(output)).arrays.get('logits')).toHaveLength(2 * 97);
    expect((await readdir(folder)).filter((name) => name.endsWith('.tmp'))).toEqual([]);
  });
});
