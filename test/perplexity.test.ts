import { readFileSync } from 'node:fs';
import { cp, rm, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import fc from 'fast-check';
import { afterAll, beforeAll, describe, expect, it, test } from 'vitest';
import { ArgumentError } from '../src/errors.ts';
import { type LoadedModel, loadModel, parseConfig } from '../src/index.ts';
import { log } from '../src/exact_math.ts';
import { logSumExp } from '../src/log_probability.ts';
import { embeddedModel } from '../src/package_files.ts';
import { perplexity, type WindowModel } from '../src/perplexity.ts';
import { Tokenizer } from '../src/tokenizer.ts';
import { ended, fileOf, run, sharedFolder, start } from './support/command_line.ts';
import { goldenModel, repository } from './support/models.ts';

interface GoldenCase {
  readonly context: number;
  readonly stride: number;
  readonly characters: number;
  readonly tokens: number;
  readonly windows: number;
  readonly perplexity: number;
  readonly truth: number;
}

const { cases } = JSON.parse(readFileSync(repository('golden/demo/perplexity.json'), 'utf8')) as { cases: GoldenCase[] };
const heldout = readFileSync(repository('golden/demo/heldout.txt'), 'utf8');
const tokenizer = await Tokenizer.fromFolder(embeddedModel);
const idsOf = (characters: number) => tokenizer.encode([...heldout].slice(0, characters).join(''));

describe('the recipe over the embedded model', () => {
  let strict: LoadedModel;
  beforeAll(async () => {
    strict = await loadModel(embeddedModel, { context: 512 });
  });
  afterAll(() => strict.dispose());

  // PyTorch takes each window's mean in float32, which moves these figures by up to 4e-7; here they are sums in float64.
  test.each(cases)('PyTorch: windows of $context, $stride apart', async ({ context, stride, characters, ...golden }) => {
    const result = await perplexity(strict.model, idsOf(characters), { context, stride });
    expect(result).toMatchObject({ tokens: golden.tokens, windows: golden.windows });
    expect(Math.abs(result.perplexity / golden.perplexity - 1)).toBeLessThan(1e-6);
    // What is left is the rounding of logits to float32, some 1e-6 of one that is predicted, over hundreds of tokens of either sign.
    expect(Math.abs(result.perplexity / golden.truth - 1)).toBeLessThan(1e-7);
    expect(Math.log(result.perplexity)).toBeCloseTo(result.nll, 14);
  });

  test('the chunks of a window change no bit', async () => {
    const ids = idsOf(1000);
    const options = { context: 100, stride: 33 };
    const whole = await perplexity(strict.model, ids, options);
    for (const prefill_chunk of [1, 7, 31]) {
      const { model, dispose } = await loadModel(embeddedModel, { context: 100, prefill_chunk });
      expect(await perplexity(model, ids, options)).toEqual(whole);
      await dispose();
    }
  });

  test('the reference gives the truth', async () => {
    const { context, stride, characters, truth } = cases.at(-1)!;
    const { model } = await loadModel(embeddedModel, { kernels: 'reference', context });
    // Both are float64 throughout.
    expect(Math.abs((await perplexity(model, idsOf(characters), { context, stride })).perplexity / truth - 1)).toBeLessThan(1e-13);
  });
});

const V = 5;

/** A model whose logits are a hash of all tokens since the last reset, which it counts. */
class HashModel implements WindowModel {
  readonly config = { ...parseConfig(readFileSync(`${goldenModel('nope')}/config.json`, 'utf8')), vocab_size: V };
  readonly context: number;
  readonly prefill_chunk: number;
  readonly #special: number;
  #seen: number[] = [];

  /** @param special a logit in place of the first one, of the row after 3 tokens */
  constructor(context: number, prefill_chunk: number, special = 0) {
    this.context = context;
    this.prefill_chunk = prefill_chunk;
    this.#special = special;
  }

  static logits(seen: readonly number[]): number[] {
    const hash = seen.reduce((sum, id) => (sum * 31 + id + 7) % 10007, 1);
    return Array.from({ length: V }, (_, id) => Math.sin(hash * (id + 1)) * 3);
  }

  reset(): void {
    this.#seen = [];
  }

  forward(ids: readonly number[]): Float64Array {
    expect(ids.length).toBeGreaterThan(0);
    expect(ids.length).toBeLessThanOrEqual(this.prefill_chunk);
    this.#seen.push(...ids);
    expect(this.#seen.length).toBeLessThanOrEqual(this.context);
    return Float64Array.from(HashModel.logits(this.#seen));
  }

  forwardAll(ids: readonly number[], out: Float64Array): void {
    ids.forEach((id, row) => {
      out.set(this.forward([id]), row * V);
      if (this.#special !== 0 && this.#seen.length === 3) out[row * V] = this.#special;
    });
  }
}

/** The recipe as it is documented, labels shifted and masked; a window without labels counts for nothing. */
function recipe(ids: readonly number[], context: number, stride: number) {
  let [nll, tokens, windows, previous] = [0, 0, 0, 0];
  for (let begin = 0; begin < ids.length; begin += stride) {
    const end = Math.min(begin + context, ids.length);
    const window = ids.slice(begin, end);
    const labels = window.map((id, i) => (i < window.length - (end - previous) ? -100 : id));
    const losses = labels.slice(1).flatMap((label, i) => {
      if (label === -100) return [];
      const logits = HashModel.logits(window.slice(0, i + 1));
      return [Math.log(logits.reduce((sum, logit) => sum + Math.exp(logit), 0)) - logits[label]!];
    });
    const counted = labels.filter((label) => label !== -100).length - 1;
    if (losses.length > 0) nll += (losses.reduce((a, b) => a + b) / losses.length) * counted;
    tokens += counted;
    windows += 1;
    previous = end;
    if (end === ids.length) break;
  }
  return { nll: nll / tokens, tokens, windows };
}

describe('windows', () => {
  const ids = fc.array(fc.nat(V - 1), { minLength: 2, maxLength: 40 });

  test('any text, window, stride and chunk: as the recipe', async () => {
    await fc.assert(
      fc.asyncProperty(
        ids,
        fc.integer({ min: 2, max: 16 }),
        fc.nat(),
        fc.integer({ min: 1, max: 9 }),
        async (text, context, any, chunk) => {
          const stride = 2 + (any % (context - 1));
          const seen: [number, number][] = [];
          const onProgress = (done: number, total: number) => void seen.push([done, total]);
          const result = await perplexity(new HashModel(context, chunk), text, { context, stride, onProgress });
          const expected = recipe(text, context, stride);
          expect(result).toMatchObject({ tokens: expected.tokens, windows: expected.windows });
          expect(result.nll).toBeCloseTo(expected.nll, 12);
          expect(seen).toEqual([...seen].sort(([a], [b]) => a - b));
          expect(seen.at(-1)![0]).toBe(seen.at(-1)![1]);
        },
      ),
      { numRuns: 300 },
    );
  });

  test('by default as large as the model holds, and side by side', async () => {
    const text = Array.from({ length: 23 }, (_, i) => i % V);
    const { nll } = await perplexity(new HashModel(10, 4), text);
    expect(nll).toBeCloseTo(recipe(text, 10, 10).nll, 12);
  });

  test.each([V, -1, 0.5, Number.NaN])('an id that the model does not have is refused before it runs, also as the last: %d', async (id) => {
    const model = new HashModel(8, 4);
    model.forward = () => expect.fail('the model ran');
    const refused = perplexity(model, [0, 1, 2, id]);
    await expect(refused).rejects.toThrow(`ids[3]: expected an id from 0 to ${V - 1}, found ${id}. `);
    await expect(refused).rejects.toThrow(ArgumentError);
  });

  test('a signal ends it after a chunk', async () => {
    const controller = new AbortController();
    let calls = 0;
    const onProgress = () => {
      if (++calls === 3) controller.abort();
    };
    const running = perplexity(new HashModel(10, 1), new Array<number>(50).fill(1), { signal: controller.signal, onProgress });
    await expect(running).rejects.toThrow(expect.objectContaining({ name: 'AbortError' }));
    expect(calls).toBe(3);
  });

  test.each([Number.NaN, Infinity])('a logit of %f is refused, with its place', async (special) => {
    await expect(perplexity(new HashModel(10, 4, special), [0, 1, 2, 3, 4])).rejects.toThrow(
      'logits before token 3 of the text: expected finite numbers, found NaN',
    );
    await expect(perplexity(new HashModel(10, 4, special), [0, 1, 2, 3, 4])).rejects.toThrow(ArgumentError);
  });

  test.each([
    [[1], {}, 'text: expected at least 2 tokens, found 1'],
    [[], {}, 'text: expected at least 2 tokens, found 0'],
    [[1, 2], { context: 11 }, 'context: expected an integer from 2 to 10, found 11'],
    [[1, 2], { context: 1 }, 'context: expected an integer from 2 to 10, found 1'],
    [[1, 2], { context: 8, stride: 9 }, 'stride: expected an integer from 2 to 8, the context, found 9'],
    [[1, 2], { stride: 1 }, 'stride: expected an integer from 2 to 10, the context, found 1'],
  ])('%j with %j', async (text, options, message) => {
    await expect(perplexity(new HashModel(10, 4), text, options)).rejects.toThrow(message);
  });
});

describe('logSumExp', () => {
  test('log is that of Math to 2 ulp', () => {
    fc.assert(
      fc.property(fc.double({ min: 1, max: 2 ** 30, noNaN: true }), (x) => {
        expect(Math.abs(log(x) - Math.log(x))).toBeLessThanOrEqual(4e-16 * Math.max(1, Math.log(x)));
      }),
    );
    expect(log(1)).toBe(0);
  });

  test('logits of any size, and what is no number', () => {
    expect(logSumExp(Float64Array.of(1000, 1000))).toBeCloseTo(1000 + Math.LN2, 12);
    expect(logSumExp(Float64Array.of(-5000, -Infinity))).toBe(-5000);
    expect(logSumExp(Float64Array.of(0, Number.NaN))).toBeNaN();
    expect(logSumExp(Float64Array.of(0, Infinity))).toBeNaN();
  });
});

describe('olmo-hybrid perplexity', async () => {
  const folder = await sharedFolder();
  const text = await fileOf(folder, 'text.txt', [...heldout].slice(0, cases[4]!.characters).join(''));

  it('prints a line, or an object', async () => {
    const options = ['--file', text, '--context', '512', '--stride', '128'];
    const line = await run('perplexity', ...options);
    const printed = /^perplexity (\d+\.\d{4}) over 276 tokens in 1 window\n$/.exec(line.stdout);
    expect(Math.abs(Number(printed?.[1]) - cases[4]!.truth)).toBeLessThan(1e-4);
    const { code, stdout } = await run('perplexity', ...options, '--json');
    expect(code).toBe(0);
    expect(JSON.parse(stdout)).toMatchObject({ tokens: 276, windows: 1, context: 512, stride: 128 });
  });

  it('says what is wrong with the file, the model and the sizes', async () => {
    const mute = join(folder, 'mute');
    await cp(embeddedModel, mute, { recursive: true });
    await rm(join(mute, 'tokenizer.json'));
    const binary = join(folder, 'binary');
    await writeFile(binary, Uint8Array.of(0x80));
    const refused: [string[], string][] = [
      [['--file', await fileOf(folder, 'empty.txt', '')], 'empty.txt: expected at least 2 tokens, found 0.'],
      [['--file', await fileOf(folder, 'one.txt', 'a')], 'one.txt: expected at least 2 tokens, found 1.'],
      [['--file', binary], 'binary: expected a text in UTF-8, found bytes that are not UTF-8.'],
      [['--file', text, '--model', mute], 'mute: expected a tokenizer.json, for the text, found none.'],
      [['--file', text, '--context', '9', '--stride', '10'], '--stride: expected an integer from 2 to 9, the context, found 10.'],
    ];
    for (const [options, message] of refused) {
      const { code, stdout, stderr } = await run('perplexity', ...options);
      expect([code, stdout]).toEqual([1, '']);
      expect(stderr).toContain(message);
      expect(stderr).not.toContain('    at ');
    }
  });

  it('ends at Ctrl-C', async () => {
    const child = start({}, 'perplexity', '--file', repository('golden/demo/heldout.txt'), '--prefill-chunk', '1', '--threads', '1');
    setTimeout(() => child.kill('SIGINT'), 1500);
    const { code, stdout, stderr } = await ended(child);
    expect([stdout, stderr]).toEqual(['', '']);
    expect(code === 130 || code === null).toBe(true); // null: the machine was so slow that the program was still starting
  });
});
