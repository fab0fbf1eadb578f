import { Arena } from './arena.ts';
import type { Bank, Tap } from './bank.ts';
import type { Kernels } from './kernels.ts';
import type { FloatArray, Ids, Matrix, Tensor, WeightDtype, WeightFormat } from './tensor.ts';

/** Where every bank keeps the scratch of `linear`: 8 KiB, behind 64 bytes that no buffer takes, so that an address of 0 can mean "none". */
export const LINEAR_SCRATCH = 64;
const RESERVED = LINEAR_SCRATCH + 8192;
const PANEL = 16;
/** Room for the rows that a loader reads at a time; wide matrices take 16 rows if those are more. */
const STAGING_BYTES = 1 << 20;

/** What a bank needs: the bytes of parameters and caches, and the bytes of scratch behind them. */
export interface BankBytes {
  readonly persistent: number;
  readonly scratch: number;
}

/** A bank whose buffers are byte ranges of one linear memory. The subclass says what stands behind an address. */
export abstract class AddressedBank implements Bank {
  abstract readonly kernels: Kernels;
  abstract readonly staging: Uint8Array;
  abstract storeRows(weight: Matrix, dtype: WeightDtype, begin: number, end: number): number;
  protected abstract floats(ptr: number, length: number): Float32Array;
  protected abstract doubles(ptr: number, length: number): Float64Array;
  protected abstract ints(ptr: number, length: number): Int32Array;

  readonly rows: number;
  tap: Tap | null = null;
  protected readonly persistentArena: Arena;
  protected readonly scratchArena: Arena;
  protected stagingBytes = STAGING_BYTES;

  /** @param rows Most tokens of one forward call. @param persistent Bytes of parameters and caches, which come first. */
  protected constructor(rows: number, persistent: number) {
    this.rows = rows;
    this.persistentArena = new Arena(RESERVED);
    this.scratchArena = new Arena(RESERVED + persistent);
  }

  tensor(rows: number, cols: number): Tensor {
    const ptr = this.persistentArena.take(rows * cols * 4);
    return { data: this.floats(ptr, rows * cols), ptr, rows, cols };
  }

  tensor64(rows: number, cols: number): Tensor {
    const ptr = this.persistentArena.take(rows * cols * 8);
    return { data: this.doubles(ptr, rows * cols) satisfies FloatArray, ptr, rows, cols };
  }

  scratch(rows: number, cols: number): Tensor {
    const ptr = this.scratchArena.take(rows * cols * 4);
    return { data: this.floats(ptr, rows * cols), ptr, rows, cols };
  }

  rewindScratch(): void {
    this.scratchArena.rewind();
  }

  ids(rows: number): Ids {
    const ptr = this.persistentArena.take(rows * 4);
    return { data: this.ints(ptr, rows), ptr, rows };
  }

  matrix(N: number, K: number, format: WeightFormat): Matrix {
    const bytes = Math.ceil(N / PANEL) * PANEL * K * (format === 'BF16' ? 2 : 4);
    this.stagingBytes = Math.max(this.stagingBytes, PANEL * K * 4);
    return { layout: 'panels', format, N, K, ptr: this.persistentArena.take(bytes), data: NO_FLOATS };
  }

  table(V: number, D: number, format: WeightFormat): Matrix {
    this.stagingBytes = Math.max(this.stagingBytes, PANEL * D * 4);
    return { layout: 'rows', format, N: V, K: D, ptr: this.persistentArena.take(V * D * (format === 'BF16' ? 2 : 4)), data: NO_FLOATS };
  }
}

const NO_FLOATS = new Float32Array(0);
