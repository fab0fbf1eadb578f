import { expect, test } from 'vitest';
import { ArgumentError } from '../src/errors.ts';
import { type LoadOptions, loadModel, planModel } from '../src/load.ts';
import { goldenModel } from './support/models.ts';

// What the types refuse, as a caller in JavaScript may give it.
test.each<[options: object, message: string]>([
  [{ kernels: 'foo' }, 'kernels: expected wasm or reference or bf16, found "foo"'],
  [{ kernels: 'Reference' }, 'kernels: expected wasm or reference or bf16, found "Reference"'],
  [{ mode: 'quick' }, 'mode: expected strict or fast, found "quick"'],
  [{ weights: 'q5' }, 'weights: expected f32 or bf16 or q8 or q4, found "q5"'],
  [{ weights: null }, 'weights: expected f32 or bf16 or q8 or q4, found null'],
  [{ kv: 'F16' }, 'kv: expected f32 or f16 or q8, found "F16"'],
  [{ kv: 'toString' }, 'kv: expected f32 or f16 or q8, found "toString"'],
  [{ context: '12' }, 'context: expected an integer from 1 to 4096, found "12"'],
])('%j is refused', async (options, message) => {
  for (const use of [loadModel, planModel]) {
    const error: unknown = await use(goldenModel('bf16'), options as LoadOptions).catch((error: unknown) => error);
    expect(error).toBeInstanceOf(ArgumentError);
    expect((error as Error).message).toContain(message);
  }
});

test.each(['wasm', 'reference', 'bf16'] as const)('an instrument sees the kernels %s', async (name) => {
  let calls = 0;
  const instrument: LoadOptions['instrument'] = (kernels) => {
    expect(kernels.name).toBe(name);
    const add: typeof kernels.add = (...args) => {
      calls += 1;
      kernels.add(...args);
    };
    return { ...kernels, add };
  };
  const { model } = await loadModel(goldenModel('bf16'), { kernels: name, instrument });
  model.forward([1]);
  expect(calls).toBe(2 * model.config.num_hidden_layers);
});
