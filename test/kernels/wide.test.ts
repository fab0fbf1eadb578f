import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { DTYPE_CODES, FORMAT_CODES, type WeightFormat } from '../../src/runtime/tensor.ts';
import { type Build, hasRelaxedSimd, type KernelExports, kernelModule } from '../../src/runtime/wasm_module.ts';

// Tiles of eight rows are for engines that join vectors; any engine can run them, and no bit may depend on it.

const KERNELS = [
  { kernel: 'linear_f32', format: 'F32', rounded: false },
  { kernel: 'linear_bf16', format: 'BF16', rounded: false },
  { kernel: 'linear_q8', format: 'Q8', rounded: false },
  { kernel: 'linear_q4', format: 'Q4', rounded: false },
  { kernel: 'linear_q8_integer', format: 'Q8', rounded: true },
  { kernel: 'linear_q4_integer', format: 'Q4', rounded: true },
] as const satisfies readonly { kernel: keyof KernelExports; format: WeightFormat; rounded: boolean }[];

const BUILDS: readonly Build[] = (await hasRelaxedSimd()) ? ['strict', 'relaxed'] : ['strict'];
/** Addresses; scratch is the first. */
const [SCRATCH, SOURCE, X, ROUNDED, W, Y] = [64, 1 << 19, 2 << 19, 3 << 19, 4 << 19, 6 << 19];

const sizes = fc.record({
  T: fc.integer({ min: 8, max: 27 }),
  K: fc.integer({ min: 1, max: 300 }),
  N: fc.integer({ min: 16, max: 100 }),
  seed: fc.integer(),
});

describe.each(BUILDS)('%s build', (build) => {
  test.each(KERNELS)('$kernel has the same bits with tiles of eight rows', async ({ kernel, format, rounded }) => {
    const memory = new WebAssembly.Memory({ initial: 64 });
    const core = new WebAssembly.Instance(await kernelModule(build), { env: { memory } }).exports as KernelExports;
    core.set_scratch(SCRATCH);
    fc.assert(
      fc.property(sizes, ({ T, K, N, seed }) => {
        let state = seed;
        const fill = (at: number, length: number) => {
          const values = new Float32Array(memory.buffer, at, length);
          for (let i = 0; i < length; i++) {
            state = (Math.imul(state, 1664525) + 1013904223) | 0;
            values[i] = state / 2 ** 31;
          }
          // Where f32 becomes bf16, its lower half is no part of a value.
          if (format === 'BF16' && at === SOURCE)
            new Uint16Array(memory.buffer, at, length).set(new Uint16Array(values.slice().buffer).filter((_, i) => i % 2 === 1));
        };
        fill(SOURCE, N * K);
        fill(X, T * K);
        const panels = Math.ceil(N / 16);
        core.pack(W, SOURCE, DTYPE_CODES[format === 'BF16' ? 'BF16' : 'F32'], FORMAT_CODES[format], 0, K, N, 0, panels);
        if (rounded) core.round_rows(ROUNDED, X, K, 0, T);
        const run = (wide: boolean) => {
          const y = new Uint32Array(memory.buffer, Y, T * N).fill(0x7fc00000);
          core.set_wide(Number(wide));
          core[kernel](Y, rounded ? ROUNDED : X, W, 0, T, K, N, 0, panels);
          return y.slice();
        };
        const narrow = run(false);
        expect(run(true)).toEqual(narrow);
        expect(narrow).not.toContain(0x7fc00000);
      }),
      { numRuns: 60 },
    );
  });
});
