import { RuntimeLimitError } from '../errors.ts';
import { AddressedBank, type BankBytes, THREAD_SCRATCH_BYTES, threadScratch } from './addressed_bank.ts';
import type { Mode } from './bank.ts';
import type { Kernels } from './kernels.ts';
import { DTYPE_CODES, FORMAT_CODES, type Matrix, matrixBytes, PANEL, type WeightDtype } from './tensor.ts';
import type { RunKernel, ThreadPool } from './thread_pool.ts';
import { wasmKernels } from './wasm_kernels.ts';

const PAGE = 65536;
/** A wasm32 memory ends here. */
export const BANK_LIMIT_BYTES = 65536 * PAGE;
/** Rows, and panels, that a thread stores at a time. */
const STORED_ROWS = 32;

/** One wasm memory and the kernels over it, on all threads of a pool. Its size is fixed when it is made: views stay valid for life. */
export class WasmBank extends AddressedBank {
  readonly kernels: Kernels;
  readonly staging: Uint8Array;
  private readonly memory: WebAssembly.Memory;
  readonly run: RunKernel;
  /** Of each thread, how many of the values that it stored are not finite. */
  private readonly notFinite: readonly Int32Array[];

  /**
   * @param bytes From the plan that the same constructors made on a PlanBank.
   * @param instrument What is to run in place of the kernels, such as the same kernels with a clock.
   * @throws {RuntimeLimitError} when the engine cannot give that much memory.
   */
  constructor(pool: ThreadPool, rows: number, mode: Mode, bytes: BankBytes, instrument = (kernels: Kernels) => kernels) {
    super({ rows, threads: pool.threads, mode }, bytes.persistent);
    const { memory, core, run } = addMemory(pool, Math.ceil((this.scratchArena.begin + bytes.scratch) / PAGE));
    this.memory = memory;
    this.run = run;
    this.kernels = instrument(wasmKernels(run, core));
    this.staging = new Uint8Array(memory.buffer, this.scratchArena.begin, bytes.scratch);
    this.notFinite = Array.from({ length: pool.threads }, (_, i) => this.ints(threadScratch(i) + THREAD_SCRATCH_BYTES, 1));
  }

  storeRows({ layout, format, N, K, ptr }: Matrix, dtype: WeightDtype, begin: number, end: number, at = 0): number {
    const from = this.scratchArena.begin + at;
    for (const count of this.notFinite) count[0] = 0;
    if (layout === 'rows') this.run('store_rows', end - begin, STORED_ROWS, ptr, from, DTYPE_CODES[dtype], FORMAT_CODES[format], begin, K);
    else this.run('pack', Math.ceil((end - begin) / PANEL), 1, ptr, from, DTYPE_CODES[dtype], FORMAT_CODES[format], begin, K, N);
    return this.notFinite.reduce((sum, count) => sum + count[0]!, 0);
  }

  packed({ format, N, K, ptr }: Matrix): Uint8Array {
    return new Uint8Array(this.memory.buffer, ptr, matrixBytes(format, N, K));
  }

  protected floats(ptr: number, length: number): Float32Array {
    return new Float32Array(this.memory.buffer, ptr, length);
  }

  protected doubles(ptr: number, length: number): Float64Array {
    return new Float64Array(this.memory.buffer, ptr, length);
  }

  protected ints(ptr: number, length: number): Int32Array {
    return new Int32Array(this.memory.buffer, ptr, length);
  }
}

function addMemory(pool: ThreadPool, pages: number): ReturnType<ThreadPool['addMemory']> {
  try {
    return pool.addMemory(pages, threadScratch);
  } catch (cause) {
    throw new RuntimeLimitError(
      {
        where: 'memory of a bank',
        expected: `${((pages * PAGE) / 2 ** 20).toFixed(0)} MiB`,
        found: cause instanceof Error ? cause.message : String(cause),
        fix: 'Ask for a shorter context, or close what else uses memory.',
      },
      { cause },
    );
  }
}
