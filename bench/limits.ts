import { readFile } from 'node:fs/promises';

/** What this machine can do at most with one thread, measured by assembly/limits.ts. */
export interface Limits {
  /** Runs the multiply-and-add chains; returns floating point operations. */
  f32_peak(): number;
  /** Reads the memory once; returns bytes. */
  memory_read(): number;
}

// Far more than any cache.
const BYTES = 256 * 2 ** 20;
const STEPS = 2_000_000;
const FLOPS_PER_STEP = 12 * 2 * 4;

export async function machineLimits(): Promise<Limits> {
  const memory = new WebAssembly.Memory({ initial: BYTES / 65536 });
  new Uint8Array(memory.buffer).fill(1); // untouched pages would all be one zero page
  const bytes = await readFile(new URL('./limits.wasm', import.meta.url));
  const { instance } = await WebAssembly.instantiate(bytes, { env: { memory } });
  const core = instance.exports as Record<'f32_peak' | 'memory_read', (...args: number[]) => number>;
  return {
    f32_peak() {
      core.f32_peak(STEPS, 0.999, 0.001);
      return STEPS * FLOPS_PER_STEP;
    },
    memory_read() {
      core.memory_read(0, BYTES);
      return BYTES;
    },
  };
}
