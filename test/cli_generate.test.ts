import { cp, readFile, rm, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { beforeAll, describe, expect, it } from 'vitest';
import { embeddedModel } from '../src/package_files.ts';
import { Tokenizer } from '../src/tokenizer.ts';
import { ended, fileOf, run, runWith, sharedFolder, start } from './support/command_line.ts';
import { changedModel, goldenModel, readGolden, repository } from './support/models.ts';

const folder = await sharedFolder();
const demo = await readGolden(repository('golden/demo/expected.safetensors'));
const prompts = JSON.parse(demo.metadata.get('prompts')!) as string[];

interface Printed {
  readonly tokens: number[];
  readonly text: string | null;
  readonly finish_reason: string;
}

/** The object that --json prints. */
async function generated(...args: string[]): Promise<Printed> {
  const { code, stdout, stderr } = await run('generate', ...args, '--json');
  expect(stderr).not.toContain('error');
  expect(code).toBe(0);
  expect(stdout.trim().split('\n')).toHaveLength(1);
  return JSON.parse(stdout) as Printed;
}

/** Input ids of a golden model as a file, and its greedy continuation. */
async function greedyOf(name: string): Promise<{ file: string; ids: number[]; greedy: number[] }> {
  const { arrays } = await readGolden(join(goldenModel(name), 'expected.safetensors'));
  const ids = [...arrays.get('input_ids')!];
  return { ids, file: await fileOf(folder, `${name}.json`, ids), greedy: [...arrays.get('greedy')!] };
}

describe('token ids in, token ids out', () => {
  it.each(['nope', 'bf16', 'olmo3_yarn'])("%s: gives PyTorch's greedy continuation as JSON", async (name) => {
    const { file, greedy } = await greedyOf(name);
    const args = ['--model', goldenModel(name), '--tokens', file, '--max-tokens', '24', '--temperature', '0', '--seed', '1'];
    expect(await generated(...args)).toEqual({ tokens: greedy, text: null, finish_reason: 'length' });
    expect(await generated(...args, '--kernels', 'reference', '--prefill-chunk', '7')).toMatchObject({ tokens: greedy });
    expect(await generated(...args, '--mode', 'strict')).toMatchObject({ tokens: greedy });
  });

  it('prints the ids in a line, and nothing else, on stdout', async () => {
    const { file, greedy } = await greedyOf('nope');
    const { code, stdout, stderr } = await run('generate', '--model', goldenModel('nope'), '--tokens', file, '--max-tokens', '24');
    expect(stdout).toBe(`${greedy.join(' ')}\n`); // greedy, since no generation_config.json says otherwise
    expect(stderr).toMatch(/24 tokens, \d+ tokens\/s · greedy/);
    expect(code).toBe(0);
  });

  it("takes the model's max_new_tokens, and says which of its settings it does not apply", async () => {
    const { file, greedy } = await greedyOf('nope');
    const dir = await changedModel('nope', () => {});
    const nope = ['--model', dir, '--tokens', file];
    await writeFile(join(dir, 'generation_config.json'), JSON.stringify({ max_new_tokens: 3, num_beams: 4, no_repeat_ngram_size: 2 }));
    const { stdout, stderr } = await run('generate', ...nope);
    expect(stdout).toBe(`${greedy.slice(0, 3).join(' ')}\n`);
    expect(stderr).toContain(`warning ${dir}/generation_config.json: "num_beams", "no_repeat_ngram_size" not applied`);
    expect((await generated(...nope, '--max-tokens', '5')).tokens).toEqual(greedy.slice(0, 5)); // the option wins
    await writeFile(join(dir, 'generation_config.json'), JSON.stringify({ suppress_tokens: greedy.slice(0, 1) }));
    expect((await generated(...nope, '--max-tokens', '5')).tokens).not.toContain(greedy[0]);
  });

  it('ends at max_tokens 0, where the context is full, and at the end of text', async () => {
    const { file, ids, greedy } = await greedyOf('nope');
    const args = ['--tokens', file, '--temperature', '0'];
    const nope = ['--model', goldenModel('nope')];
    expect(await generated(...nope, ...args, '--max-tokens', '0')).toEqual({ tokens: [], text: null, finish_reason: 'length' });
    const full = await generated(...nope, ...args, '--context', `${ids.length + 5}`);
    expect(full).toEqual({ tokens: greedy.slice(0, 5), text: null, finish_reason: 'length' });
    const dir = await changedModel('nope', ({ config }) => {
      config.eos_token_id = greedy[3];
    });
    const end = greedy.indexOf(greedy[3]!) + 1;
    expect(await generated('--model', dir, ...args)).toEqual({ tokens: greedy.slice(0, end), text: null, finish_reason: 'stop' });
  });
});

describe('text in, text out, by the embedded model', () => {
  it.each([0, 7])("continues as PyTorch's greedy text does", async (i) => {
    const margins = demo.arrays.get(`prompt_${i}_margins`)!;
    const greedy = [...demo.arrays.get(`prompt_${i}_greedy`)!];
    const unclear = margins.findIndex((margin) => margin <= 0.02);
    const clear = greedy.slice(0, unclear < 0 ? greedy.length : unclear);
    const { tokens, text } = await generated(prompts[i]!, '--max-tokens', '64', '--temperature', '0');
    expect(tokens.slice(0, clear.length)).toEqual(clear.slice(0, tokens.length));
    expect(tokens.length).toBeGreaterThan(3);
    const tokenizer = await Tokenizer.fromFolder(embeddedModel);
    expect(text).toBe(tokenizer.decode(tokens.filter((id) => id !== 0))); // 0 ends the text and is no part of it
  });

  it('prints what is new after a prompt given, and the whole text after its own', async () => {
    const args = ['--max-tokens', '20', '--seed', '7'];
    const { text } = await generated('It was a', ...args);
    expect((await run('generate', 'It was a', ...args)).stdout).toBe(`${text}\n`);
    expect((await runWith('It was a\n', 'generate', '-', ...args)).stdout).toBe(`${text}\n`);
    expect((await run('generate', ...args)).stdout).toBe(`It was a${text}\n`);
  });

  it('tells the seed, which gives the same text again', async () => {
    const first = await run('generate', '--max-tokens', '30');
    const seed = /seed (\d+)/.exec(first.stderr)?.[1];
    expect((await run('generate', '--max-tokens', '30', '--seed', seed!)).stdout).toBe(first.stdout);
    expect((await run('generate', '--max-tokens', '30')).stdout).not.toBe(first.stdout);
  });

  it("samples as the model's generation_config.json says, and an option comes first", async () => {
    const dir = join(folder, 'configured');
    await cp(embeddedModel, dir, { recursive: true });
    const configured = async (config: object, ...args: string[]) => {
      await writeFile(join(dir, 'generation_config.json'), JSON.stringify(config));
      return (await generated('--model', dir, '--seed', '3', '--max-tokens', '40', ...args)).tokens;
    };
    const options = ['--temperature', '0.8', '--top-k', '40', '--top-p', '0.9', '--min-p', '0.01', '--repetition-penalty', '1.2'];
    const [temperature, top_k, top_p, min_p, repetition_penalty] = [0.8, 40, 0.9, 0.01, 1.2];
    const config = { do_sample: true, temperature, top_k, top_p, min_p, repetition_penalty };
    const wanted = await configured({}, ...options);
    expect(await configured(config)).toEqual(wanted);
    expect(await configured({ do_sample: true, temperature: 5, top_p: 0.1 }, ...options)).toEqual(wanted);
    // Each of them matters.
    for (const key of ['temperature', 'top_k', 'top_p', 'repetition_penalty'])
      expect(await configured({ ...config, [key]: undefined })).not.toEqual(wanted);
    const greedy = await configured({}, '--temperature', '0');
    expect(await configured({})).toEqual(greedy);
    expect(await configured({ ...config, repetition_penalty: undefined, do_sample: false })).toEqual(greedy);
    expect(await configured({}, '--top-p', '1')).not.toEqual(greedy);
  });

  it('ends before a stop string, whichever comes first', async () => {
    const args = ['It was a', '--max-tokens', '40', '--seed', '7'];
    const { text } = await generated(...args);
    const [one, two] = [text!.slice(12, 15), text!.slice(30, 33)];
    const stopped = await generated(...args, '--stop', two, '--stop', one);
    expect(stopped).toMatchObject({ text: text!.slice(0, text!.indexOf(one)), finish_reason: 'stop' });
  });

  it('takes token ids and gives text, and warns of what looks wrong', async () => {
    const dir = join(folder, 'odd');
    await cp(embeddedModel, dir, { recursive: true });
    await rm(join(dir, 'generation_config.json'));
    const config = JSON.parse(await readFile(join(dir, 'config.json'), 'utf8')) as object;
    await writeFile(join(dir, 'config.json'), JSON.stringify({ ...config, colour_of_the_sky: 'blue' }));
    const ids = await fileOf(folder, 'demo.json', [...demo.arrays.get('prompt_0_ids')!]);
    const fromIds = await run('generate', '--model', dir, '--tokens', ids, '--max-tokens', '9');
    const fromText = await run('generate', '--model', dir, prompts[0]!, '--max-tokens', '9');
    expect(fromIds.stdout).toBe(fromText.stdout);
    expect(fromIds.stderr).toMatch(/^warning .*"colour_of_the_sky"/m);
    expect(fromIds.code).toBe(0);
  });

  it('warns of weights that are not finite', async () => {
    const dir = await changedModel('nope', ({ tensors }) => {
      const { data } = tensors.get('model.embed_tokens.weight')!;
      new DataView(data.buffer, data.byteOffset).setFloat32(40 * 4 * 50, Number.NaN, true); // row 50 of width 40
    });
    const clean = await fileOf(folder, 'clean.json', [1, 2, 3]);
    const { stderr, code } = await run('generate', '--model', dir, '--tokens', clean, '--max-tokens', '1');
    expect(stderr).toMatch(/^warning .*NaN or infinite values in "model\.embed_tokens\.weight"/m);
    expect(code).toBe(0);
    const touched = await run('generate', '--model', dir, '--tokens', await fileOf(folder, 'touched.json', [1, 50]), '--max-tokens', '1');
    expect(touched.stderr).toMatch(/^error logits: expected finite numbers/m);
    expect(touched.code).toBe(1);
  });
});

describe('while the text streams', () => {
  // The reference kernels take their time and the text has no end, so that there is something to interrupt.
  const endless = join(folder, 'endless');
  const slow = ['generate', '--model', endless, '--kernels', 'reference', '--max-tokens', '2000'];
  beforeAll(async () => {
    await cp(embeddedModel, endless, { recursive: true });
    await writeFile(join(endless, 'generation_config.json'), '{"do_sample": true, "eos_token_id": []}');
  });

  it('Ctrl-C ends it in good order with exit code 130', async () => {
    const child = start({}, ...slow);
    let words = 0;
    child.stdout!.on('data', () => {
      words += 1;
      if (words === 5) child.kill('SIGINT');
    });
    const { code, stdout, stderr } = await ended(child);
    expect(code).toBe(130);
    expect(stdout).toMatch(/^It was a.*\n$/s);
    expect(stderr).toMatch(/tokens\/s · reference kernels · seed \d+ · interrupted\n$/);
    expect(stderr).not.toMatch(/^ +at /m);
  });

  it('Ctrl-C leaves one object with --json', async () => {
    const child = start({}, ...slow, '--json');
    setTimeout(() => child.kill('SIGINT'), 1500);
    const { code, stdout } = await ended(child);
    if (stdout === '')
      expect(code === null || code === 130).toBe(true); // the machine was so slow that the program or the model was still being loaded
    else expect([code, (JSON.parse(stdout) as Printed).finish_reason]).toEqual([130, 'abort']);
  });

  it('a reader that leaves early ends it without a word', async () => {
    const child = start({}, ...slow);
    child.stdout!.once('data', () => child.stdout!.destroy());
    const { code, stderr } = await ended(child);
    expect(code).toBe(0);
    expect(stderr).not.toMatch(/error|EPIPE|^ +at /m);
    expect(stderr).not.toContain('tokens/s'); // it did not go on
  });
});
