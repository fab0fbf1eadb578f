import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { ArgumentError, RuntimeLimitError } from '../src/errors.ts';
import { loadModel, planModel } from '../src/load.ts';
import { threadScratch } from '../src/runtime/addressed_bank.ts';
import { goldenIds, goldenModel, logitsOf } from './support/models.ts';

const KERNELS = ['wasm', 'reference'] as const;

describe.each(KERNELS)('%s', (kernels) => {
  test('forward gives the last row of forwardAll', async () => {
    const ids = await goldenIds('gqa');
    const { model } = await loadModel(goldenModel('gqa'), { kernels });
    const V = model.config.vocab_size;
    const all = logitsOf(model, ids, model.prefill_chunk);
    model.reset();
    expect(Float64Array.from(model.forward(ids))).toEqual(all.slice(-V));
  });

  test('forwardAll with too little room for its logits runs nothing', async () => {
    const { model } = await loadModel(goldenModel('gqa'), { kernels });
    const V = model.config.vocab_size;
    model.forward([1]);
    expect(() => model.forwardAll([2, 3], new Float32Array(2 * V - 1))).toThrow(
      new ArgumentError({
        where: 'out',
        expected: `room for 2 rows of ${V} logits`,
        found: `room for ${2 * V - 1} numbers`,
        fix: 'Make it longer, or pass fewer tokens.',
      }),
    );
    expect(model.position).toBe(1);
    expect(() => model.stretch(2.5)).toThrow(/^position: expected an integer from 1 to \d+, .*found 2\.5/);
  });

  test('a snapshot brings back the logits after it, also in another model of the same weights', async () => {
    const ids = await goldenIds('rope');
    const { model } = await loadModel(goldenModel('rope'), { kernels });
    const { model: other } = await loadModel(goldenModel('rope'), { kernels, context: 1000 });
    model.forward(ids.slice(0, 20));
    const snapshot = model.snapshot();
    const first = Float64Array.from(model.forward(ids.slice(20, 31)));
    model.forward(ids.slice(31, 40));
    model.restore(snapshot);
    expect(model.position).toBe(20);
    expect(Float64Array.from(model.forward(ids.slice(20, 31)))).toEqual(first);
    other.forward(ids.slice(5, 60));
    other.restore(snapshot);
    expect(Float64Array.from(other.forward(ids.slice(20, 31)))).toEqual(first);
  });

  test('reset forgets', async () => {
    const ids = await goldenIds('nope');
    const { model } = await loadModel(goldenModel('nope'), { kernels });
    const first = Float64Array.from(model.forward(ids));
    model.reset();
    expect(model.position).toBe(0);
    expect(Float64Array.from(model.forward(ids))).toEqual(first);
  });
});

test('any cut of the prompt gives the same bits in strict mode', async () => {
  const ids = await goldenIds('few_key_heads');
  const { model } = await loadModel(goldenModel('few_key_heads'));
  const whole = logitsOf(model, ids, model.prefill_chunk);
  const V = model.config.vocab_size;
  const cuts = fc.uniqueArray(fc.integer({ min: 1, max: ids.length - 1 }), { maxLength: 12 });
  fc.assert(
    fc.property(cuts, (inner) => {
      model.reset();
      const edges = [0, ...inner.sort((a, b) => a - b), ids.length];
      for (let i = 0; i + 1 < edges.length; i++) {
        const [begin, end] = [edges[i]!, edges[i + 1]!];
        const out = new Float64Array((end - begin) * V);
        model.forwardAll(ids.slice(begin, end), out);
        expect(out).toEqual(whole.slice(begin * V, end * V));
      }
    }),
    { numRuns: 30 },
  );
});

describe('banks', () => {
  // The tiny models need about a megabyte for a layer's scratch and staging.
  const plan = async (bank_limit_bytes: number) =>
    (await planModel(goldenModel('rope'), { bank_limit_bytes, prefill_chunk: 64 })).placement;

  test('several memories give the same bits as one', async () => {
    const ids = await goldenIds('rope');
    const options = { prefill_chunk: 64, context: 128 };
    const one = await loadModel(goldenModel('rope'), options);
    const [{ persistent, scratch }] = one.plan.placement.banks as [{ persistent: number; scratch: number }];
    const limit = threadScratch(1) + scratch + Math.ceil(persistent * 0.6);
    const several = await loadModel(goldenModel('rope'), { ...options, bank_limit_bytes: limit });
    expect(one.plan.placement.banks.length).toBe(1);
    expect(several.plan.placement.banks.length).toBeGreaterThan(1);
    expect(logitsOf(several.model, ids, 64)).toEqual(logitsOf(one.model, ids, 64));
    const snapshot = several.model.snapshot();
    one.model.restore(snapshot);
    expect(one.model.forward([1])).toEqual(several.model.forward([1]));
  });

  test('a layer that no memory can hold is refused before anything is allocated', async () => {
    await expect(plan(1 << 20)).rejects.toThrow(RuntimeLimitError);
    await expect(plan(1 << 20)).rejects.toThrow(/embed_tokens|model\.layers\.\d/);
  });
});

describe('bad arguments', () => {
  test.each([
    ['no tokens', []],
    ['an id past the vocabulary', [1, 97]],
    ['a negative id', [-1]],
    ['a fraction', [1.5]],
    ['NaN', [Number.NaN]],
    ['more than prefill_chunk', new Array<number>(17).fill(1)],
  ])('%s is refused and changes nothing', async (_, tokens) => {
    const { model } = await loadModel(goldenModel('nope'), { prefill_chunk: 16 });
    model.forward([3, 4]);
    const before = model.snapshot();
    expect(() => model.forward(tokens)).toThrow(ArgumentError);
    expect(model.snapshot()).toEqual(before);
  });

  test('more tokens than the context holds', async () => {
    const { model } = await loadModel(goldenModel('nope'), { context: 5 });
    model.forward([1, 2, 3, 4]);
    expect(() => model.forward([1, 2])).toThrow(/1 to 1 of them .* 1 positions of the context left/);
    model.forward([1]);
    expect(() => model.forward([1])).toThrow(ArgumentError);
  });

  test.each([{ context: 0 }, { context: 4097 }, { context: 1.5 }, { prefill_chunk: 0 }])('%o', async (options) => {
    await expect(loadModel(goldenModel('nope'), options)).rejects.toThrow(ArgumentError);
  });

  test('a snapshot of another model', async () => {
    const { model } = await loadModel(goldenModel('nope'));
    const { model: other } = await loadModel(goldenModel('long'));
    const small = await loadModel(goldenModel('nope'), { context: 3 });
    model.forward([1, 2, 3, 4]);
    expect(() => other.restore({ position: 1, layers: [] })).toThrow(ArgumentError);
    expect(() => small.model.restore(model.snapshot())).toThrow(/at most 3 tokens/);
  });
});

test('decoding allocates nothing that stays: the heap is flat over 1,000 tokens', async () => {
  const { model } = await loadModel(goldenModel('nope'));
  for (let t = 0; t < 1000; t++) model.forward([t % 97]); // compiled and warm
  model.reset();
  // Without a forced collection the heap may hold garbage, so the least of several readings counts.
  const least = () => Math.min(...Array.from({ length: 5 }, () => process.memoryUsage().heapUsed));
  const before = least();
  for (let t = 0; t < 1000; t++) model.forward([t % 97]);
  expect(least() - before).toBeLessThan(2 ** 20); // 1 KiB a token: views and arrays of the test itself
});

test('the tap sees every intermediate by its HF name, in the order of computation', async () => {
  const { model } = await loadModel(goldenModel('rope'));
  const names: string[] = [];
  model.tap = (name) => names.push(name);
  model.forward([1, 2, 3]);
  const of = (layer: string) =>
    names.filter((name) => name.startsWith(`model.layers.${layer}.`)).map((name) => name.split('.').slice(3).join('.'));
  const linear = model.config.layer_types.indexOf('linear_attention');
  const full = model.config.layer_types.indexOf('full_attention');
  expect(of(`${linear}`)).toEqual([
    'input_layernorm',
    ...['q', 'k', 'v', 'a', 'b', 'g'].map((x) => `linear_attn.${x}_proj`),
    ...['q', 'k'].flatMap((x) => [`linear_attn.${x}_conv1d`, `linear_attn.${x}_l2norm`]),
    ...['v_conv1d', 'g', 'beta', 'delta_rule', 'state', 'o_norm', 'o_proj'].map((x) => `linear_attn.${x}`),
    'post_attention_layernorm',
    ...['gate_proj', 'up_proj', 'down_proj'].map((x) => `mlp.${x}`),
    'mlp',
  ]);
  expect(of(`${full}`)).toEqual([
    ...['q_proj', 'k_proj', 'v_proj', 'q_norm', 'rotary_q', 'k_norm', 'rotary_k', 'attention', 'o_proj'].map((x) => `self_attn.${x}`),
    'post_attention_layernorm',
    ...['gate_proj', 'up_proj', 'down_proj'].map((x) => `mlp.${x}`),
    'mlp',
    'post_feedforward_layernorm',
  ]);
  expect(names[0]).toBe('model.embed_tokens');
  expect(names.slice(-3)).toEqual([`model.layers.${model.config.num_hidden_layers - 1}`, 'model.norm', 'lm_head']);
});
