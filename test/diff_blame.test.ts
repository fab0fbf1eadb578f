import { join } from 'node:path';
import { describe, expect, test } from 'vitest';
import { diffTraces, type TraceDifference } from '../src/diff/compare.ts';
import { attend, turned, turnsBetween } from '../src/diff/formulas.ts';
import { reportText } from '../src/diff/report_text.ts';
import type { Values } from '../src/diff/trace_file.ts';
import { loadModel } from '../src/load.ts';
import { embeddedModel } from '../src/package_files.ts';
import { quantizeCheckpoint } from '../src/quantize.ts';
import { writeTrace } from '../src/trace.ts';
import { readGolden, repository, temporaryFolder } from './support/models.ts';
import { changed, floatsOf, traceOf } from './support/traces.ts';

// What `diff` must not say: that all is well where one trace alone shows what is wrong, or that a mistake is known which is another one.

const plain = { bold: String, dim: String, good: String, bad: String };
const text = (diff: TraceDifference) => reportText(diff, plain, String);

test('a rotary embedding of what is not shown before it is found', async () => {
  const golden = repository('golden/traces/nope.rope_on.safetensors');
  const fused = await changed(golden, await temporaryFolder(), 'fused', ({ tensors }) => {
    for (const name of [...tensors.keys()]) if (/[qk]_norm$/.test(name)) tensors.delete(name);
  });
  const ours = join(await temporaryFolder(), 'ours');
  await traceOf(ours, 'nope', Number((await readGolden(golden)).metadata.get('tokens')));
  const rope_on = {
    difference: { name: 'model.layers.2.self_attn.rotary_q', verdict: 'diverges' },
    cause: { side: 'B', cause: 'rope_on' },
  };
  expect(await diffTraces(ours, fused)).toMatchObject({ outcome: 'diverged', first: rope_on });
  // Two ways to hide the same: what a NoPE layer shows as rotated, unchanged, is no difference.
  const shown = await changed(ours, await temporaryFolder(), 'shown', ({ tensors }) => {
    for (const x of ['q', 'k']) {
      const name = `model.layers.2.self_attn.${x}_norm`;
      const rotated = name.replace(`${x}_norm`, `rotary_${x}`);
      tensors.set(rotated, { ...tensors.get(name)!, name: rotated });
      tensors.delete(name);
    }
  });
  const same = await diffTraces(ours, shown);
  expect(same).toMatchObject({ outcome: 'not comparable', first: null });
  const off = { difference: { name: 'model.layers.2.self_attn.rotary_q' }, cause: { side: 'B', cause: 'rope_off' } };
  expect(await diffTraces(fused, ours)).toMatchObject({ outcome: 'diverged', first: off });
});

describe('what is no known mistake', () => {
  /** Our trace of `model`, and a copy in which an op gives what `f` makes of its layer. */
  async function withOp(model: string, op: string, f: (of: (term: string) => Values) => ArrayLike<number>): Promise<TraceDifference> {
    const dir = await temporaryFolder();
    await traceOf(join(dir, 'a'), model, 20);
    const name = (term: string) => `model.layers.3.self_attn.${term}`.replace('3', model === 'nope' ? '2' : '3');
    const b = await changed(join(dir, 'a'), dir, 'b', ({ tensors }) => {
      const of = (term: string) => ({ shape: tensors.get(name(term))!.shape, data: floatsOf(tensors.get(name(term))!) });
      floatsOf(tensors.get(name(op))!).set(f(of));
    });
    const diff = await diffTraces(join(dir, 'a'), b);
    expect(diff.first!.difference.name).toBe(name(op));
    return diff;
  }

  const times = ({ shape, data }: Values, factor: number) => ({ shape, data: data.map((value) => factor * value) });
  const qkv = (of: (term: string) => Values) => [of('q_norm'), of('k_norm'), of('v_proj')] as const;
  const onwards = ({ data }: Values, rows: number, row: number) => [...data.slice(rows * row), ...data.slice(0, rows * row)];

  test.each<[string, string, (of: (term: string) => Values) => ArrayLike<number>]>([
    ['scores that are not scaled', 'attention', (of) => (([q, k, v]) => attend(times(q, 3), k, v, 20))(qkv(of))],
    ['another scale', 'attention', (of) => (([q, k, v]) => attend(times(q, 0.4), k, v, 20))(qkv(of))],
    [
      'a mask one too short',
      'attention',
      (of) => (([q, k, v]) => onwards({ ...q, data: attend(q, k, v, 20) }, 19, q.data.length / 20))(qkv(of)),
    ],
    ['an attention sink', 'attention', (of) => times(of('attention'), 0.9).data],
  ])('%s: A is not blamed for what B is no instance of', async (_, op, f) => {
    expect((await withOp('nope', op, f)).first!.cause).toBeNull();
  });

  test.each([1, -1])('positions off by %i: A is not blamed', async (by) => {
    const theta = 500000;
    const moved = (of: (term: string) => Values) => {
      const q = of('q_norm');
      const [, , Dh] = q.shape as [number, number, number];
      const turns = Array.from({ length: (20 * Dh) / 2 }, (_, at): [number, number] => {
        const angle = (Math.floor(at / (Dh / 2)) + by) * theta ** ((-2 * (at % (Dh / 2))) / Dh);
        return [Math.cos(angle), Math.sin(angle)];
      });
      return turned(q, turns);
    };
    expect((await withOp('rope', 'rotary_q', moved)).first!.cause).toBeNull();
  });

  test('a rotation the other way: A is not blamed', async () => {
    const back = (of: (term: string) => Values) => {
      const q = of('q_norm');
      return turned(
        q,
        turnsBetween(q, of('rotary_q')).map(([re, im]) => [re, -im] as const),
      );
    };
    expect((await withOp('rope', 'rotary_q', back)).first!.cause).toBeNull();
  });

  test('a B that is far larger than A is not likely to be whatever leaves less than B itself', async () => {
    const dir = await temporaryFolder();
    await traceOf(join(dir, 'a'), 'nope', 20);
    const b = await changed(join(dir, 'a'), dir, 'b', ({ tensors }) => {
      floatsOf(tensors.get('model.layers.0.linear_attn.delta_rule')!).forEach((value, i, values) => {
        values[i] = value * (i % 2 === 0 ? 40 : -30);
      });
    });
    expect((await diffTraces(join(dir, 'a'), b)).first).toMatchObject({ cause: null });
  });
});

describe('what is not finite', () => {
  test.each(['self_attn.q_norm', 'self_attn.attention', 'post_attention_layernorm'])(
    '%s: what is not finite has no known cause',
    async (op) => {
      const dir = await temporaryFolder();
      await traceOf(join(dir, 'a'), 'nope', 5);
      const name = `model.layers.2.${op}`;
      const b = await changed(join(dir, 'a'), dir, 'b', ({ tensors }) => {
        const values = floatsOf(tensors.get(name)!);
        values[0]! *= 2;
        values.fill(Number.NaN, values.length / 5);
      });
      const diff = await diffTraces(join(dir, 'a'), b);
      expect(diff.first).toMatchObject({ difference: { name }, position: 1, cause: null });
      expect(text(diff)).toContain('B is NaN from here, first at token 1; its inputs are finite');
      expect(text(await diffTraces(b, join(dir, 'a')))).toContain('A is NaN from here, first at token 1; its inputs are finite');
    },
  );

  test('two traces of NaN are not the same without a word', async () => {
    const dir = await temporaryFolder();
    await traceOf(join(dir, 'a'), 'nope', 5);
    const none = (name: string) =>
      changed(join(dir, 'a'), dir, name, ({ tensors }) => {
        for (const tensor of [...tensors.values()].slice(3)) floatsOf(tensor).fill(Number.NaN);
      });
    const diff = await diffTraces(await none('b'), await none('c'));
    expect(diff.notices).toEqual([
      'A and B are both NaN or infinite from model.layers.0.linear_attn.k_proj on, where that counts as alike',
    ]);
    expect((await diffTraces(join(dir, 'a'), join(dir, 'a'))).notices).toEqual([]);
  });
});

describe('quantised weights', () => {
  const tokens = Array.from({ length: 60 }, (_, i) => (37 * i + 11) % 4096);

  async function trace(path: string, weights?: 'q8' | 'q4'): Promise<void> {
    const load = async () => (await loadModel(embeddedModel, { weights, mode: 'strict' })).model;
    await writeTrace(path, embeddedModel, tokens, load, { kernels: 'wasm', mode: 'strict', weights, producer: 'test' });
  }

  test.each([['q8', 127] as const, ['q4', 7.5] as const])(
    '%s: what quantising does is no divergence, a zero point off by one is',
    async (weights, steps) => {
      const dir = await temporaryFolder();
      await trace(join(dir, 'a'));
      await trace(join(dir, 'b'), weights);
      expect(await diffTraces(join(dir, 'a'), join(dir, 'b'))).toMatchObject({ outcome: 'same', precision: weights });
      const off = await changed(join(dir, 'a'), dir, 'off', ({ tensors, metadata }) => {
        metadata.set('precision', weights);
        const rows = floatsOf(tensors.get('model.embed_tokens')!);
        for (let i = 0; i < rows.length; i += 32) {
          const step = Math.max(...rows.subarray(i, i + 32).map(Math.abs)) / steps;
          for (let j = i; j < i + 32; j++) rows[j]! += step;
        }
      });
      expect((await diffTraces(join(dir, 'a'), off)).first).toMatchObject({ difference: { name: 'model.embed_tokens' } });
    },
  );

  test('a folder of quantised weights says so', async () => {
    const dir = await temporaryFolder();
    await quantizeCheckpoint(embeddedModel, join(dir, 'model'), { weights: 'q4' });
    const load = async () => (await loadModel(join(dir, 'model'))).model;
    await writeTrace(join(dir, 'trace'), join(dir, 'model'), tokens, load, { kernels: 'wasm', mode: 'strict', producer: 'test' });
    expect((await readGolden(join(dir, 'trace'))).metadata.get('precision')).toBe('q4');
  });
});
