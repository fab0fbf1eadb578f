import { readdirSync } from 'node:fs';
import fc from 'fast-check';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { bf16Kernels } from '../src/bf16/index.ts';
import { bf16 } from '../src/bf16/rounding.ts';
import type { RopeParameters } from '../src/config.ts';
import { loadModel } from '../src/load.ts';
import { rotaryTable } from '../src/model/rotary.ts';
import { ReferenceBank } from '../src/runtime/reference_bank.ts';
import { BF16_BOUNDS, type Bf16Model, type Bf16Op, LARGEST_DISTANCE, verifyBf16 } from '../src/verify_bf16.ts';
import { assertClose, assertSame, U32 } from './support/assert_close.ts';
import { type Golden, goldenModel, logitsOf, readGolden, repository } from './support/models.ts';

interface Agreement {
  values: number;
  equal: number;
  /** Largest relative error of the others. */
  error: number;
}

const names = readdirSync(repository('golden/bf16/models')).map((file) => file.replace('.safetensors', ''));
const goldens = new Map<string, Golden>();
const figures: string[] = [];
const verified: (Bf16Op | Bf16Model)[] = [];

beforeAll(async () => {
  for (const name of names) goldens.set(name, await readGolden(repository(`golden/bf16/models/${name}.safetensors`)));
});
afterAll(() => console.log(figures.join('\n')));

async function load(name: string, kernels: 'bf16' | 'wasm') {
  const { model } = await loadModel(goldenModel(name), { kernels });
  const { arrays } = goldens.get(name)!;
  return { model, arrays, ids: arrays.get('input_ids')!, pytorch: arrays.get('logits')! };
}

function percent(share: number): string {
  return `${(100 * share).toFixed(3)}%`;
}

describe('a value', () => {
  test.each([
    [1 + 2 ** -8, 1], // ties to even: down
    [1 + 3 * 2 ** -8, 1 + 2 ** -6], // and up
    [1 + 2 ** -8 + 2 ** -23, 1 + 2 ** -7],
    [1 + 2 ** -8 + 2 ** -40, 1], // by way of float32
    [2 ** 128 - 2 ** 119, Infinity], // halfway between the largest bfloat16 and what would follow
    [-(2 ** 128 - 2 ** 120), -(2 ** 128 - 2 ** 120)], // the largest
    [2 ** -133, 2 ** -133], // the smallest
    [2 ** -134, 0],
    [-0, -0],
    [-Infinity, -Infinity],
    [Number.NaN, Number.NaN],
  ])('%d becomes %d', (x, y) => expect(bf16(x)).toBe(y));

  test('becomes the nearer of the two bfloat16 around it', () => {
    fc.assert(
      fc.property(fc.float({ noNaN: true, noDefaultInfinity: true, min: -(2 ** 127), max: 2 ** 127 }), (x) => {
        const bytes = new DataView(new ArrayBuffer(4));
        bytes.setFloat32(0, x);
        bytes.setUint16(2, 0);
        const inner = bytes.getFloat32(0);
        bytes.setUint16(0, bytes.getUint16(0) + 1);
        const outer = bytes.getFloat32(0);
        const [toInner, toOuter] = [Math.abs(x - inner), Math.abs(outer - x)];
        expect(toInner === toOuter ? [inner, outer] : [toInner < toOuter ? inner : outer]).toContain(bf16(x));
      }),
    );
  });
});

describe('an op, given the inputs that it has in PyTorch', () => {
  const agreements = new Map<string, Agreement>();

  // What an op leaves is compared, then replaced by what PyTorch's left.
  beforeAll(async () => {
    for (const name of names) {
      const { model, arrays, ids, pytorch: logits } = await load(name, 'bf16');
      const compared = new Map<string, number>();
      model.tap = (path, { data, rows, cols }) => {
        const { key, op } = placeOf(path, model.config.num_hidden_layers, arrays);
        const begin = compared.get(key) ?? 0; // norm and lm_head come some rows at a time
        const pytorch = arrays.get(key)?.subarray(begin, begin + rows * cols);
        if (!pytorch) return;
        compare(op, data, pytorch);
        data.set(pytorch);
        compared.set(key, begin + rows * cols);
      };
      model.forwardAll([...ids], new Float64Array(logits.length));
      for (const [key, { length }] of arrays) if (key !== 'input_ids') expect(compared.get(key), `${name}: ${key}`).toBe(length);
    }
    for (const [op, { values, equal, error }] of agreements) {
      figures.push(`${op.padEnd(26)} ${percent(equal / values)} of ${values} equal, others within ${error.toExponential(1)}`);
    }
  });

  /** Where a golden holds what the model leaves at a path, and the op's name in BF16_BOUNDS. */
  function placeOf(path: string, layers: number, arrays: Golden['arrays']): { key: string; op: string } {
    const i = /^model\.layers\.(\d+)$/.exec(path)?.[1];
    if (i !== undefined) {
      return { key: `hidden_states.${Number(i) + 1}`, op: arrays.has(`${path}.mlp.down_proj`) ? 'additions' : 'layer' };
    }
    const op = path.split('.').at(-1)!;
    const outside: Record<string, string> = {
      'model.embed_tokens': 'hidden_states.0',
      'model.norm': `hidden_states.${layers + 1}`,
      lm_head: 'logits',
    };
    return { key: outside[path] ?? path, op };
  }

  function compare(op: string, ours: ArrayLike<number>, pytorch: Float64Array): void {
    const agreement = agreements.get(op) ?? { values: 0, equal: 0, error: 0 };
    agreements.set(op, agreement);
    pytorch.forEach((wanted, i) => {
      agreement.values++;
      if (ours[i] === wanted) agreement.equal++;
      else agreement.error = Math.max(agreement.error, Math.abs(ours[i]! - wanted) / Math.abs(wanted));
    });
  }

  test.each(Object.keys(BF16_BOUNDS))('%s leaves the bits that PyTorch leaves', (op) => {
    const { values, equal, error } = agreements.get(op)!;
    expect(equal / values, 'share of equal bits').toBeGreaterThanOrEqual(BF16_BOUNDS[op]!.share);
    expect(error, 'relative error of the others').toBeLessThanOrEqual(BF16_BOUNDS[op]!.error);
  });

  test('gets the same figures from `verify`', async () => {
    for await (const result of verifyBf16()) verified.push(result);
    const ops = verified.filter((result): result is Bf16Op => result.kind === 'bf16_op');
    const figures = ops.map(({ name, values, equal, error }) => [name, { values, equal, error }] as const);
    expect(new Map(figures)).toEqual(agreements);
    expect(ops.every(({ passed }) => passed)).toBe(true);
  });

  test('has a bound', () => expect(Object.keys(BF16_BOUNDS)).toEqual(expect.arrayContaining([...agreements.keys()])));
});

describe.each(names)('%s', (name) => {
  test('logits are nearer to those of PyTorch in bfloat16 than logits in float32 are', async () => {
    const { model, ids, pytorch } = await load(name, 'bf16');
    const logits = logitsOf(model, ids, ids.length);
    const float32 = logitsOf((await load(name, 'wasm')).model, ids, ids.length);
    const distance = rms(logits, pytorch) / rms(float32, pytorch);
    const equal = logits.filter((x, i) => x === pytorch[i]).length / logits.length;
    figures.push(`${name.padEnd(26)} ${percent(equal)} of the logits equal, distance ${distance.toFixed(3)} of float32's`);
    assertSame(logits, logits.map(bf16));
    expect(distance).toBeLessThanOrEqual(LARGEST_DISTANCE);
    const fromVerify = verified.find((result): result is Bf16Model => result.kind === 'bf16_model' && result.name === name)!;
    expect(fromVerify.ratio).toBeCloseTo(distance, 12);
    expect(fromVerify.equal / fromVerify.values).toBe(equal);
  });

  test('the cut of the prompt changes no bit', async () => {
    const { model, ids } = await load(name, 'bf16');
    const prompt = ids.slice(0, 70);
    assertSame(logitsOf(model, prompt, 7), logitsOf(model, prompt, prompt.length));
  });

  function rms(a: Float64Array, b: Float64Array): number {
    return Math.sqrt(a.reduce((sum, x, i) => sum + (x - b[i]!) ** 2, 0) / a.length);
  }
});

test('rotary tables have the angles of PyTorch at far positions too', async () => {
  const { arrays, metadata } = await readGolden(repository('golden/bf16/rotary_table.safetensors'));
  const { head_dim: Dh, ...rope } = JSON.parse(metadata.get('params')!) as RopeParameters & { head_dim: number };
  const positions = [...arrays.get('positions')!];
  const { cos, sin, fill } = rotaryTable(new ReferenceBank(1, bf16Kernels), rope, Math.max(...positions) + 1, Dh);
  fill();
  const rows = ({ data }: typeof cos) => positions.flatMap((p) => [...data.subarray((p * Dh) / 2, ((p + 1) * Dh) / 2)]);
  // PyTorch's cosine is within one ulp; an angle off by its last bit would move it by up to 1e-3.
  assertClose(rows(cos), arrays.get('cos')!, { relative: 2 * U32, absolute: U32 });
  assertClose(rows(sin), arrays.get('sin')!, { relative: 2 * U32, absolute: U32 });
});
