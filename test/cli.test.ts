import { readFile } from 'node:fs/promises';
import { describe, expect, it } from 'vitest';
import { changedModel, goldenModel, repository } from './support/models.ts';
import { fileOf, run, sharedFolder } from './support/command_line.ts';

const folder = await sharedFolder();

describe('help', () => {
  it('is what the program prints when it is asked for nothing', async () => {
    const [none, help] = await Promise.all([run(), run('--help')]);
    expect(none).toEqual(help);
    expect(help).toMatchObject({ code: 0, stderr: '' });
    for (const command of ['generate', 'logits', 'tokenize', 'detokenize', 'inspect', 'verify', 'trace', 'diff', 'conform'])
      expect(help.stdout).toContain(`  ${command}`);
    expect(help.stdout).not.toContain('\x1b');
  });

  it('is what a command of several prints when it is asked for nothing', async () => {
    const [none, help] = await Promise.all([run('cache'), run('cache', '--help')]);
    expect(none).toEqual(help);
    expect(help).toMatchObject({ code: 0, stderr: '' });
  });

  it('shows the options of a command', async () => {
    const { code, stdout } = await run('generate', '--help');
    const options =
      'model tokens max-tokens temperature top-k top-p min-p repetition-penalty seed stop context json kernels mode prefill-chunk debug';
    for (const option of options.split(' ')) expect(stdout).toContain(`--${option} `);
    expect(code).toBe(0);
  });

  it('tells the version', async () => {
    const { version } = JSON.parse(await readFile(repository('package.json'), 'utf8')) as { version: string };
    expect(await run('--version')).toEqual({ code: 0, stdout: `${version}\n`, stderr: '' });
  });
});

describe('tokenize and detokenize', () => {
  it('give the ids of HF tokenizers, and the texts back', async () => {
    const { texts } = JSON.parse(await readFile(repository('golden/tokenizer/texts.json'), 'utf8')) as {
      texts: { text: string; ids: number[] }[];
    };
    const model = ['--model', repository('golden/tokenizer'), '--json', '--input'];
    const there = await run(
      'tokenize',
      ...model,
      await fileOf(
        folder,
        'texts.json',
        texts.map(({ text }) => text),
      ),
    );
    expect(JSON.parse(there.stdout)).toEqual(texts.map(({ ids }) => ids));
    const back = await run('detokenize', ...model, await fileOf(folder, 'ids.json', there.stdout));
    expect(JSON.parse(back.stdout)).toEqual(texts.map(({ text }) => text));
    expect([there.code, there.stderr, back.code, back.stderr]).toEqual([0, '', 0, '']);
  });

  it('take nothing and give nothing', async () => {
    const none = await fileOf(folder, 'none.json', []);
    for (const command of ['tokenize', 'detokenize'])
      expect(await run(command, '--input', none, '--json')).toEqual({ code: 0, stdout: '[]\n', stderr: '' });
    const empty = await fileOf(folder, 'empty.json', ['', []]);
    expect((await run('tokenize', '--input', await fileOf(folder, 'empty_text.json', ['']), '--json')).stdout).toBe('[[]]\n');
    expect((await run('detokenize', '--input', await fileOf(folder, 'empty_ids.json', [[]]), '--json')).stdout).toBe('[""]\n');
    expect((await run('tokenize', '--input', empty)).code).toBe(1);
  });

  it('print a line for each text without --json', async () => {
    const texts = await fileOf(folder, 'two.json', ['It was', 'a truth']);
    const ids = (await run('tokenize', '--input', texts)).stdout;
    expect(ids).toMatch(/^\d+( \d+)*\n\d+( \d+)*\n$/);
    const lists = ids
      .trim()
      .split('\n')
      .map((line) => line.split(' ').map(Number));
    expect((await run('detokenize', '--input', await fileOf(folder, 'lists.json', lists))).stdout).toBe('It was\na truth\n');
  });
});

describe('inspect', () => {
  it.each([
    ['nope', /layers +7: linear x2, full, linear x2, full, linear\n/, /position +NoPE/],
    ['rope', /layers/, /position +RoPE, theta \d+\n/],
    ['nope_null', /layers/, /position +NoPE/],
    ['olmo3_yarn', /layers +4: sliding x3, full\n/, /YaRN factor 8 .*; RoPE.* in layers that see 11 tokens/],
  ])('%s: shows the layers and says whether there is RoPE', async (name, ...lines) => {
    const { code, stdout } = await run('inspect', '--model', goldenModel(name));
    for (const line of lines) expect(stdout).toMatch(line);
    expect(code).toBe(0);
  });

  it('counts what is in the files, and plans the memory of a context', async () => {
    const { stdout } = await run('inspect', '--json');
    const short = JSON.parse((await run('inspect', '--json', '--context', '64')).stdout) as { memory: { total_bytes: number } };
    const facts = JSON.parse(stdout) as {
      parameters: number;
      stored_bytes: number;
      memory: { context: number; total_bytes: number; banks: object[] };
    };
    // The embedded model is tied and all in BF16: what is stored is two bytes for each parameter.
    expect(facts).toMatchObject({
      layer_pattern: 'linear x3, full',
      dtypes: { BF16: expect.any(Number) },
      parameters: facts.stored_bytes / 2,
    });
    expect(facts.memory).toMatchObject({ context: 2048, prefill_chunk: 256, banks: [{ layers: [0, 1, 2, 3] }] });
    expect(short.memory.total_bytes).toBeLessThan(facts.memory.total_bytes);
  });

  it('finds the period of layers, and names the keys that it does not know', async () => {
    const periodic = await run('inspect', '--model', goldenModel('layer_order'), '--json');
    const { layer_pattern, config } = JSON.parse(periodic.stdout) as { layer_pattern: string; config: { layer_types: string[] } };
    expect(spelledOut(layer_pattern)).toEqual(config.layer_types.map((type) => type.replace('_attention', '')));
    const dir = await changedModel('nope', (contents) => {
      contents.config.colour_of_the_sky = 'blue';
    });
    expect((await run('inspect', '--model', dir)).stdout).toMatch(/notice .*colour_of_the_sky/);
  });
});

/** `2 x [linear x3, full]` as a list. */
function spelledOut(pattern: string): string[] {
  const [, times = '1', inner = pattern] = /^(\d+) x \[(.*)\]$/.exec(pattern) ?? [];
  const once = inner.split(', ').flatMap((run) => {
    const [type, count = '1'] = run.split(' x');
    return Array.from({ length: Number(count) }, () => type!);
  });
  return Array.from({ length: Number(times) }, () => once).flat();
}
