import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { KV_CODES } from '../../src/runtime/kernels.ts';
import { type Build, hasRelaxedSimd, type KernelExports, kernelModule } from '../../src/runtime/wasm_module.ts';

// In the relaxed build one token widens f16 rows in registers, which is right for finite numbers alone: each row is looked at, and blocks with others take
// another way. The strict build widens blocks, with a way of its own for such rows.

const BUILDS: readonly Build[] = (await hasRelaxedSimd()) ? ['strict', 'relaxed'] : ['strict'];
const BYTES = 64 * 65536;
/** Addresses; scratch is the first. */
const [SCRATCH, Q, O, K32, V32] = [64, 1 << 19, (1 << 19) + 4096, 1 << 20, 2 << 20];
const NOT_FINITE = { 31744: Infinity, 64512: -Infinity, 32256: NaN };

const cases = fc.record({
  Dh: fc.constantFrom(16, 32, 128),
  position: fc.nat(99),
  seed: fc.integer(),
  /** Where one number is not finite. */
  bad: fc.option(fc.record({ of: fc.constantFrom('k', 'v'), at: fc.nat(), bits: fc.constantFrom(0x7c00, 0xfc00, 0x7e00) } as const)),
  /** Which cache ends with the memory. */
  last: fc.constantFrom('k', 'v'),
});

/** Of -2 to 2, normal or zero. */
function fromHalf(bits: number): number {
  const magnitude = (bits & 0x7fff) === 0 ? 0 : (1 + (bits & 1023) / 1024) * 2 ** (((bits >> 10) & 31) - 15);
  return bits & 0x8000 ? -magnitude : magnitude;
}

describe.each(BUILDS)('%s build', (build) => {
  test('one token over f16 keys and values = over the same in f32, bit for bit, and nothing behind them is read', async () => {
    const memory = new WebAssembly.Memory({ initial: BYTES / 65536, maximum: BYTES / 65536 });
    const core = new WebAssembly.Instance(await kernelModule(build), { env: { memory } }).exports as KernelExports;
    core.set_scratch(SCRATCH);
    fc.assert(
      fc.property(cases, ({ Dh, position, seed, bad, last }) => {
        let state = seed;
        const random = () => {
          state = (Math.imul(state, 1664525) + 1013904223) | 0;
          return state >>> 16;
        };
        const S = position + 1;
        const end = BYTES - 2 * S * Dh;
        const at = { k: last === 'k' ? end : end - 2 * S * Dh, v: last === 'v' ? end : end - 2 * S * Dh };
        const wide = { k: K32, v: V32 };
        for (const of of ['k', 'v'] as const) {
          const halves = new Uint16Array(memory.buffer, at[of], S * Dh).map(() => (random() & 0x83ff) | ((8 + (random() & 7)) << 10));
          const floats = Float32Array.from(halves, fromHalf);
          if (bad?.of === of) {
            halves[bad.at % (S * Dh)] = bad.bits;
            floats[bad.at % (S * Dh)] = NOT_FINITE[bad.bits];
          }
          new Uint16Array(memory.buffer, at[of], S * Dh).set(halves);
          new Float32Array(memory.buffer, wide[of], S * Dh).set(floats);
        }
        new Float32Array(memory.buffer, Q, Dh).forEach((_, i, q) => {
          q[i] = random() / 65536 - 0.5;
        });
        const attend = (k: number, v: number, format: number) => {
          core.attention(O, Q, k, v, 1, position, S, 1, 1, Dh, 2 ** 31 - 1, format, 0, 1);
          return new Float32Array(memory.buffer, O, Dh).slice();
        };
        expect(attend(at.k, at.v, KV_CODES.F16)).toEqual(attend(wide.k, wide.v, KV_CODES.F32));
      }),
      { numRuns: 600 },
    );
  });
});
