import { ThreadPool } from '../dist/runtime/thread_pool.js';
import { WasmBank } from '../dist/runtime/wasm_bank.js';
import { hasWideVectors } from '../dist/runtime/wasm_module.js';

/** What this machine can do at most with one thread; assembly/limits.ts. */
export interface Limits {
  /** Runs the multiply-and-add chains; returns floating point operations. */
  f32_peak(): number;
  /** Reads the memory once; returns bytes. */
  memory_read(): number;
}

// Far more than any cache.
const PIECES = 256;
const PIECE_BYTES = 2 ** 20;
const STEPS = 2_000_000;

export async function machineLimits(): Promise<Limits> {
  const bank = new WasmBank(await ThreadPool.create(1), 1, 'strict', { persistent: (PIECES + 1) * PIECE_BYTES, scratch: 0 });
  const sink = bank.tensor(1, PIECES).ptr;
  const memory = bank.tensor(PIECES, PIECE_BYTES / 4);
  memory.data.fill(1); // untouched pages would all be one zero page
  return {
    f32_peak() {
      bank.run('f32_peak', 1, 1, sink, STEPS, 0.999, 0.001);
      return STEPS * (hasWideVectors() ? 192 : 96);
    },
    memory_read() {
      bank.run('memory_read', PIECES, PIECES, sink, memory.ptr, PIECE_BYTES);
      return PIECES * PIECE_BYTES;
    },
  };
}
