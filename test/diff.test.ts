import { readdirSync } from 'node:fs';
import { readFile } from 'node:fs/promises';
import { basename, join } from 'node:path';
import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { diffTraces, type TraceDifference } from '../src/diff/compare.ts';
import { measure, ulpDistance } from '../src/diff/measure.ts';
import { reportHtml } from '../src/diff/report_html.ts';
import { reportText } from '../src/diff/report_text.ts';
import { CheckpointError } from '../src/errors.ts';
import { fileOf, run } from './support/command_line.ts';
import { goldenIds, goldenModel, readGolden, repository, temporaryFolder } from './support/models.ts';
import { changed, floatsOf, traceOf } from './support/traces.ts';

const TRACES = repository('golden/traces');
const plain = { bold: String, dim: String, good: String, bad: String };
const text = (diff: TraceDifference) => reportText(diff, plain, String);

/** Our trace of the tokens that a golden trace is of, in its precision. */
async function ourTraceFor(golden: string): Promise<string> {
  const path = join(await temporaryFolder(), 'ours.safetensors');
  const { metadata } = await readGolden(golden);
  const kernels = metadata.get('precision') === 'f64' ? 'reference' : 'wasm';
  await traceOf(path, basename(golden).split('.')[0]!, Number(metadata.get('tokens')), { kernels });
  return path;
}

describe('PyTorch as released', () => {
  test.each(['nope', 'rope', 'gqa'])('%s: the traces are the same', async (model) => {
    const golden = join(TRACES, `${model}.safetensors`);
    const ours = join(await temporaryFolder(), 'ours.safetensors');
    const { metadata, arrays } = await readGolden(golden);
    await traceOf(ours, model, Number(metadata.get('tokens')), { only: [...arrays.keys()] });
    const diff = await diffTraces(ours, golden);
    expect(diff.ops.filter(({ verdict }) => verdict === 'diverges')).toEqual([]);
    expect(diff).toMatchObject({ outcome: 'same', precision: 'f32', problems: [], notices: [], first: null });
    expect(diff.ops.length).toBe(arrays.size);
    expect(text(diff)).toMatch(/^same: \d+ intermediates agree/m);
  });

  test('what is computed in bfloat16 agrees with float32 within the bounds of bfloat16', async () => {
    const dir = await temporaryFolder();
    await traceOf(join(dir, 'f32'), 'nope', 30);
    await traceOf(join(dir, 'bf16'), 'nope', 30, { kernels: 'bf16' });
    expect(await diffTraces(join(dir, 'f32'), join(dir, 'bf16'))).toMatchObject({ outcome: 'same', precision: 'bf16' });
    await traceOf(join(dir, 'f64'), 'nope', 30, { kernels: 'reference' });
    expect(await diffTraces(join(dir, 'f64'), join(dir, 'f32'))).toMatchObject({ outcome: 'same', precision: 'f32' });
  });
});

// Where something small is normalised, an error that came in grows far beyond twice its size.
test.each(['attention_bias', 'few_key_heads', 'conv3', 'olmo3_sliding'])(
  '%s: an error that grows in an op is not the fault of the op',
  async (model) => {
    const dir = await temporaryFolder();
    for (const kernels of ['reference', 'wasm', 'bf16'] as const) await traceOf(join(dir, kernels), model, 5, { kernels });
    for (const [a, b] of [['reference', 'wasm'] as const, ['wasm', 'bf16'] as const]) {
      const diff = await diffTraces(join(dir, a), join(dir, b));
      expect(diff, `${a}, ${b}`).toMatchObject({ outcome: 'same', first: null });
      const follow = diff.ops.filter(({ verdict }) => verdict === 'follows').length;
      const said = `same: ${diff.ops.length - follow} intermediates agree within the tolerance`;
      expect(text(diff)).toContain(follow === 0 ? `${said};` : `${said}, ${follow} follow from their inputs;`);
    }
  },
);

/** The op where each mistake of golden/release_mistakes.py shows first, and its cause. */
const MISTAKES: Readonly<Record<string, readonly [op: string, cause: string]>> = {
  rope_on: ['model.layers.2.self_attn.rotary_q', 'rope_on'],
  rope_off: ['model.layers.3.self_attn.rotary_q', 'rope_off'],
  rope_theta_10000: ['model.layers.3.self_attn.rotary_q', 'rope_theta'],
  rope_interleaved: ['model.layers.3.self_attn.rotary_q', 'rope_interleaved'],
  yarn_on_every_layer: ['model.layers.0.self_attn.rotary_q', 'rope_of_another_layer'],
  window_one_longer: ['model.layers.0.self_attn.attention', 'window'],
  kv_heads_tiled: ['model.layers.3.self_attn.attention', 'kv_heads_tiled'],
  qk_norm_per_head: ['model.layers.2.self_attn.q_norm', 'qk_norm_per_head'],
  'rms_norm_eps_1e-5': ['model.layers.0.input_layernorm', 'rms_norm_eps'],
  'o_norm_eps_1e-6': ['model.layers.0.linear_attn.o_norm', 'o_norm_eps'],
  gate_before_norm: ['model.layers.0.linear_attn.o_norm', 'gate_before_norm'],
  post_norm_in_gdn_block: ['model.layers.0.input_layernorm', 'post_norm_in_gdn_block'],
  pre_norm_in_attention_block: ['model.layers.2.self_attn.q_proj', 'pre_norm_in_attention_block'],
  no_l2_norm: ['model.layers.0.linear_attn.q_l2norm', 'no_l2_norm'],
  l2_eps_on_mean: ['model.layers.0.linear_attn.q_l2norm', 'l2_eps_on_mean'],
  l2_eps_on_norm: ['model.layers.0.linear_attn.q_l2norm', 'l2_eps_on_norm'],
  'l2_norm_eps_1e-5': ['model.layers.0.linear_attn.q_l2norm', 'l2_norm_eps'],
  beta_without_2: ['model.layers.0.linear_attn.beta', 'beta_without_2'],
  beta_with_2: ['model.layers.0.linear_attn.beta', 'beta_with_2'],
  decay_after_read: ['model.layers.0.linear_attn.delta_rule', 'decay_after_read'],
  output_before_write: ['model.layers.0.linear_attn.delta_rule', 'output_before_write'],
  state_in_bf16: ['model.layers.0.linear_attn.delta_rule', 'state_in_bf16'],
  no_q_scale: ['model.layers.0.linear_attn.delta_rule', 'no_q_scale'],
  key_heads_tiled: ['model.layers.0.linear_attn.delta_rule', 'key_heads_tiled'],
  shifted_conv: ['model.layers.0.linear_attn.q_conv1d', 'shifted_conv'],
  reversed_conv: ['model.layers.0.linear_attn.q_conv1d', 'reversed_conv'],
  conv_without_activation: ['model.layers.0.linear_attn.q_conv1d', 'conv_without_activation'],
  conv_state_after_activation: ['model.layers.0.linear_attn.q_conv1d', 'conv_state_after_activation'],
  conv_state_lost: ['model.layers.0.linear_attn.q_conv1d', 'conv_state_lost'],
  padding_in_state: ['model.layers.0.linear_attn.q_conv1d', 'foreign_inputs_in_state'],
  state_of_another_text: ['model.layers.0.linear_attn.q_conv1d', 'state_of_another_text'],
};

describe('a mistake made in PyTorch', () => {
  const files = readdirSync(TRACES).filter((name) => name.split('.').length === 3);

  test('is known to this test for every trace', () => {
    expect(files.map((name) => name.split('.')[1]).sort()).toEqual(Object.keys(MISTAKES).sort());
  });

  test.each(files)('%s: op, layer and cause are named', async (name) => {
    const golden = join(TRACES, name);
    const diff = await diffTraces(await ourTraceFor(golden), golden);
    const [op, cause] = MISTAKES[name.split('.')[1]!]!;
    expect(diff.outcome).toBe('diverged');
    expect(diff.first).toMatchObject({ difference: { name: op, verdict: 'diverges' }, cause: { side: 'B', cause, confirmed: true } });
  });

  test.each(['decay_after_read', 'o_norm_eps_1e-6', 'gate_before_norm', 'qk_norm_per_head'])(
    '%s: is found in A as well',
    async (mistake) => {
      const golden = join(TRACES, `nope.${mistake}.safetensors`);
      const diff = await diffTraces(golden, await ourTraceFor(golden));
      const [op, cause] = MISTAKES[mistake]!;
      expect(diff.first).toMatchObject({ difference: { name: op }, cause: { side: 'A', cause, confirmed: true } });
    },
  );

  test('the place is that of the largest difference of the first token beyond the bound', async () => {
    const golden = join(TRACES, 'nope.conv_state_lost.safetensors');
    const ours = await ourTraceFor(golden);
    const first = (await diffTraces(ours, golden)).first!;
    const op = 'model.layers.0.linear_attn.q_conv1d'; // [T, 3, 9], cut before token 11
    const [a, b] = await Promise.all([ours, golden].map(async (path) => (await readGolden(path)).arrays.get(op)!));
    const errors = Array.from(a!.slice(11 * 27, 12 * 27), (value, i) => Math.abs(value - b![11 * 27 + i]!));
    const at = errors.indexOf(Math.max(...errors));
    expect(first).toMatchObject({ position: 11, head: Math.floor(at / 9), element: at % 9, a: a![11 * 27 + at], b: b![11 * 27 + at] });
    expect(first.by_position.flatMap((error, t) => (error > first.difference.bound ? [t] : []))).toEqual([11, 12, 13]);
  });

  test('a rotary embedding that is not shown is found in the attention', async () => {
    const golden = join(TRACES, 'nope.rope_on.safetensors');
    const hidden = await changed(golden, await temporaryFolder(), 'hidden', ({ tensors }) => {
      for (const name of [...tensors.keys()]) if (name.includes('rotary')) tensors.delete(name);
    });
    const diff = await diffTraces(await ourTraceFor(golden), hidden);
    expect(diff.first).toMatchObject({
      difference: { name: 'model.layers.2.self_attn.attention' },
      cause: { cause: 'rope_on', confirmed: true },
    });
    expect(diff.first!.cause!.what).toContain('theta 10000');
  });

  test('a difference that no known mistake explains is named without a cause', async () => {
    const dir = await temporaryFolder();
    await traceOf(join(dir, 'a'), 'nope', 20);
    const b = await changed(join(dir, 'a'), dir, 'b', ({ tensors }) => {
      floatsOf(tensors.get('model.layers.1.mlp.up_proj')!).forEach((value, i, values) => {
        values[i] = value * (i % 2 === 0 ? 1.01 : 0.99);
      });
    });
    const diff = await diffTraces(join(dir, 'a'), b);
    expect(diff.first).toMatchObject({
      difference: { name: 'model.layers.1.mlp.up_proj', relative_rms: expect.closeTo(0.01, 6) },
      cause: null,
    });
    expect(text(diff)).toContain('none of the known mistakes');
  });

  test('a trace that is right is not blamed: a mistake too small to tell from none would explain it', async () => {
    const dir = await temporaryFolder();
    await traceOf(join(dir, 'a'), 'nope', 20);
    const b = await changed(join(dir, 'a'), dir, 'b', ({ tensors }) => {
      floatsOf(tensors.get('model.layers.0.linear_attn.delta_rule')!).forEach((value, i, values) => {
        values[i] = value * (i % 2 === 0 ? 3 : -2);
      });
    });
    const { first } = await diffTraces(join(dir, 'a'), b);
    expect(first).toMatchObject({ difference: { name: 'model.layers.0.linear_attn.delta_rule' }, cause: null });
  });

  test('NaN is a divergence wherever it comes from', async () => {
    const dir = await temporaryFolder();
    await traceOf(join(dir, 'a'), 'nope', 5);
    const b = await changed(join(dir, 'a'), dir, 'b', ({ tensors }) => {
      floatsOf(tensors.get('model.layers.3.linear_attn.g')!)[7] = Number.NaN;
    });
    const first = (await diffTraces(join(dir, 'a'), b)).first!;
    expect(first).toMatchObject({
      difference: { name: 'model.layers.3.linear_attn.g', relative_rms: Infinity },
      position: 2,
      head: 1,
      element: 0,
      b: NaN,
      not_finite: { side: 'B', inputs_finite: true },
      cause: null,
    });
  });
});

describe('not comparable', () => {
  const alike = async (change: Parameters<typeof changed>[3]) => {
    const dir = await temporaryFolder();
    await traceOf(join(dir, 'a'), 'nope', 5);
    return await diffTraces(join(dir, 'a'), await changed(join(dir, 'a'), dir, 'b', change));
  };

  test.each([
    ['another version', 'format_version', '2', /b: format_version: expected 1, found "2"/],
    ['other tokens', 'tokens_sha256', 'ff', /expected the tokens of .*found other tokens/],
    ['an unknown precision', 'precision', 'fp8', /precision: expected f64, f32, bf16, q8, q4, found "fp8"/],
    ['no precision', 'precision', null, /precision: expected .* found nothing/],
  ])('%s', async (_, key, value, message) => {
    const diff = await alike(({ metadata }) => void (value === null ? metadata.delete(key) : metadata.set(key, value)));
    expect(diff).toMatchObject({ outcome: 'not comparable', ops: [], first: null });
    expect(text(diff)).toMatch(message);
  });

  test('names that are missing, or not of the format', async () => {
    const diff = await alike(({ tensors }) => {
      tensors.set('softmax', { ...tensors.get('lm_head')!, name: 'softmax' });
      tensors.delete('model.layers.4.linear_attn.state');
    });
    expect(diff.outcome).toBe('not comparable');
    expect(diff.problems.map(({ found }) => found)).toEqual(['no model.layers.4.linear_attn.state', '"softmax"']);
    expect(text(diff)).toContain('not comparable in full; of what both hold, 150 intermediates agree');
  });

  test('another shape; of a transposed state it is said', async () => {
    const diff = await alike(({ tensors }) => {
      const state = tensors.get('model.layers.0.linear_attn.state')!;
      tensors.set(state.name, { ...state, shape: [3, 14, 9] });
      const norm = tensors.get('model.norm')!;
      tensors.set(norm.name, { ...norm, shape: [1, 5, 40] });
    });
    expect(diff.outcome).toBe('not comparable');
    expect(diff.unlike_shapes).toEqual([
      { name: 'model.layers.0.linear_attn.state', a: [3, 9, 14], b: [3, 14, 9] },
      { name: 'model.norm', a: [5, 40], b: [1, 5, 40] },
    ]);
    expect(text(diff)).toContain('state: expected [3, 9, 14], as in A, found [3, 14, 9] in B. B has the state transposed.');
    expect(text(diff)).toContain('model.norm: expected [5, 40], as in A, found [1, 5, 40] in B.');
  });

  test('other weights are told of, and compared', async () => {
    const diff = await alike(({ metadata }) => void metadata.set('weights_sha256', 'ff'));
    expect(diff).toMatchObject({ outcome: 'same', notices: ['A and B differ in the weights, by weights_sha256'] });
  });

  test('a file that is no trace', async () => {
    const path = goldenModel('nope');
    await expect(diffTraces(join(path, 'config.json'), join(path, 'config.json'))).rejects.toThrow(CheckpointError);
    expect((await diffTraces(join(path, 'model.safetensors'), join(path, 'model.safetensors'))).outcome).toBe('not comparable');
  });
});

test('a state that is transposed and square is found', async () => {
  const dir = await temporaryFolder();
  const [T, H, D] = [2, 2, 3];
  await traceOf(join(dir, 'a'), 'nope', T, { only: ['model.layers.0.linear_attn.state', 'model.layers.0.linear_attn.delta_rule'] });
  const values = Float32Array.from({ length: H * D * D }, (_, i) => Math.sin(i));
  const square = (name: string, data: Float32Array) =>
    changed(join(dir, 'a'), dir, name, ({ tensors }) => {
      tensors.set('model.layers.0.linear_attn.state', { name: 'model.layers.0.linear_attn.state', dtype: 'F32', shape: [H, D, D], data });
    });
  const transposed = values.slice();
  for (const h of [0, 1]) for (const i of [0, 1, 2]) for (const j of [0, 1, 2]) transposed[h * 9 + i * 3 + j] = values[h * 9 + j * 3 + i]!;
  const diff = await diffTraces(await square('right', values), await square('wrong', transposed));
  expect(diff.first).toMatchObject({ position: null, cause: { cause: 'state_transposed', confirmed: true } });
});

describe('measures', () => {
  test('neighbours are one ulp apart', () => {
    const bits = new Uint32Array(1);
    const float = new Float32Array(bits.buffer);
    fc.assert(
      fc.property(fc.integer({ min: 1, max: 0x7f7ffffe }), (pattern) => {
        bits[0] = pattern;
        const x = float[0]!;
        bits[0] = pattern + 1;
        expect(Math.round(ulpDistance(x, float[0]!, 'f32'))).toBe(1);
        expect(Math.round(ulpDistance(-x, -float[0]!, 'f32'))).toBe(1);
      }),
    );
    expect(ulpDistance(1, 1 + 2 ** -52, 'f64')).toBe(1);
    expect(ulpDistance(1, 1 + 2 ** -7, 'bf16')).toBe(1);
    expect(ulpDistance(0, -0, 'f32')).toBe(0);
    expect(ulpDistance(Number.NaN, Number.NaN, 'f32')).toBe(0);
    expect(ulpDistance(Infinity, Infinity, 'f32')).toBe(0);
    expect(ulpDistance(1, Number.NaN, 'f32')).toBe(Infinity);
    expect(ulpDistance(1, -Infinity, 'f32')).toBe(Infinity);
  });

  test('every element counts once, in its token and its head', () => {
    const a = { shape: [2, 2, 3], data: Float32Array.from([1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1]) };
    const b = { shape: [2, 2, 3], data: Float32Array.from([1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1 + 2 ** -22, 4]) };
    const error = Math.sqrt(9 + 2 ** -44);
    const measured = measure(a, b, 1, 'f32');
    expect(measured.relative_rms).toBeCloseTo(error / Math.sqrt(12), 12);
    expect(measured.by_position).toEqual([0, expect.closeTo(error / Math.sqrt(6), 12)]);
    expect(measured.by_head).toEqual([0, expect.closeTo(error / Math.sqrt(6), 12)]);
    expect(measured.max_ulp).toBe(3 * 2 ** 21);
    expect(measured.ulp_histogram.slice(0, 3)).toEqual([10, 0, 1]);
    expect(measured.ulp_histogram.reduce((sum, count) => sum + count, 0)).toBe(12);
    const ofState = measure(a, b, 0, 'f32');
    expect([ofState.by_position, ofState.by_head]).toEqual([[], [0, expect.closeTo(error / Math.sqrt(6), 12)]]);
  });
});

describe('reports', () => {
  test('the page needs nothing else, and obeys no name from a file', async () => {
    const golden = join(TRACES, 'nope.decay_after_read.safetensors');
    const evil = '"><script>alert(1)</script>\u001b[2J';
    const b = await changed(golden, await temporaryFolder(), 'b', ({ tensors, metadata }) => {
      metadata.set('producer', evil);
      tensors.set(evil, { ...tensors.get('model.layers.0')!, name: evil });
    });
    const page = reportHtml(await diffTraces(await ourTraceFor(golden), b));
    expect(page).not.toContain('<script');
    expect(page).toContain('&#60;script&#62;');
    expect(page).not.toMatch(/(?:src|href)=|url\(|@import|https?:/);
    expect(page).toContain('First divergence: model.layers.0.linear_attn.delta_rule');
    for (const tag of ['table', 'svg', 'div', 'tr', 'td', 'th', 'dl', 'details']) {
      expect(page.split(`<${tag}>`).length + page.split(`<${tag} `).length, tag).toBe(page.split(`</${tag}>`).length + 1);
    }
  });

  test('the command tells by its exit status', async () => {
    const dir = await temporaryFolder();
    const golden = join(TRACES, 'gqa.safetensors');
    const tokens = await fileOf(dir, 'tokens.json', (await goldenIds('gqa')).slice(0, 17));
    const ours = join(dir, 'ours.safetensors');
    const traced = await run('trace', '--model', goldenModel('gqa'), '--tokens', tokens, '--output', ours);
    expect(traced).toMatchObject({ code: 0, stdout: '' });
    expect(traced.stderr).toContain('89 intermediates of 17 tokens');

    expect(await run('diff', ours, golden)).toMatchObject({ code: 0, stderr: '' });
    const html = join(dir, 'page.html');
    const diverged = await run('diff', ours, join(TRACES, 'gqa.kv_heads_tiled.safetensors'), '--json', '--html', html);
    expect(diverged.code).toBe(2); // of 20 tokens
    const other = join(dir, 'other.safetensors');
    const longer = await fileOf(dir, 'longer.json', (await goldenIds('gqa')).slice(0, 20));
    await run('trace', '--model', goldenModel('gqa'), '--tokens', longer, '--output', other, '--only', 'model.layers.?', '*.self_attn.*');
    const found = await run('diff', other, join(TRACES, 'gqa.kv_heads_tiled.safetensors'), '--json', '--html', html);
    expect(found).toMatchObject({ code: 1, stderr: '' });
    expect(JSON.parse(found.stdout)).toMatchObject({ outcome: 'diverged', first: { cause: { cause: 'kv_heads_tiled' } } });
    expect(await readFile(html, 'utf8')).toContain('<!doctype html>');
    expect(await run('diff', ours, join(dir, 'none'))).toMatchObject({ code: 2, stdout: '' });
  });
});
