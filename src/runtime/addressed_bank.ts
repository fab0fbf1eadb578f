import { Arena } from './arena.ts';
import type { Bank, Mode, Tap } from './bank.ts';
import { roundedScratch, type Kernels, type LinearGroup, type Product } from './kernels.ts';
import {
  FORMAT_CODES,
  type FloatArray,
  type Ids,
  type Matrix,
  matrixBytes,
  PANEL,
  TOGETHER,
  type Tensor,
  type WeightDtype,
  type WeightFormat,
} from './tensor.ts';

/** What each thread has for itself in every bank: SCRATCH_BYTES of assembly/scratch.ts, and a word behind them. */
export const THREAD_SCRATCH_BYTES = 32 * 128 * 16 * 4 + 8192 + 64;
const THREAD_BYTES = THREAD_SCRATCH_BYTES + 64;
/** No buffer lies at the beginning, so that an address of 0 can mean "none". */
const NULL_BYTES = 64;
/** Pieces of a file that a loader reads side by side. */
export const STAGING_SLOTS = 4;
/** Room for the rows of one; wide matrices take 16 rows if those are more. */
const SLOT_BYTES = 1 << 20;

/** What a bank needs: the bytes of parameters and caches, and the bytes of scratch behind them. */
export interface BankBytes {
  readonly persistent: number;
  readonly scratch: number;
}

/** How a bank is used. */
export interface BankUse {
  /** Most tokens of one forward call. */
  readonly rows: number;
  /** Threads that compute on it. */
  readonly threads: number;
  readonly mode: Mode;
}

/** Where a thread's own scratch lies in a bank. */
export function threadScratch(thread: number): number {
  return NULL_BYTES + thread * THREAD_BYTES;
}

/** A bank whose buffers are byte ranges of one linear memory. The subclass says what stands behind an address. */
export abstract class AddressedBank implements Bank {
  abstract readonly kernels: Kernels;
  abstract readonly staging: Uint8Array;
  abstract packed(weight: Matrix): Uint8Array;
  abstract storeRows(weight: Matrix, dtype: WeightDtype, begin: number, end: number, at?: number): number;
  protected abstract floats(ptr: number, length: number): Float32Array;
  protected abstract doubles(ptr: number, length: number): Float64Array;
  protected abstract ints(ptr: number, length: number): Int32Array;

  readonly rows: number;
  readonly mode: Mode;
  tap: Tap | null = null;
  protected readonly persistentArena: Arena;
  protected readonly scratchArena: Arena;
  protected stagingBytes = STAGING_SLOTS * SLOT_BYTES;

  private readonly roundedRooms = new Map<number, Tensor>();

  /** @param persistent Bytes of parameters and caches, which come first. */
  protected constructor({ rows, threads, mode }: BankUse, persistent: number) {
    this.rows = rows;
    this.mode = mode;
    this.persistentArena = new Arena(threadScratch(threads));
    this.scratchArena = new Arena(threadScratch(threads) + persistent);
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

  group(products: readonly Product[]): LinearGroup {
    // Small ones come last, so that parts of the others begin where panels that lie together do.
    const whole = products.filter(({ w }) => w.N % (TOGETHER * PANEL) === 0);
    const entries = [...whole, ...products.filter((product) => !whole.includes(product))].flatMap(({ y, w, bias }) => {
      return [y.ptr, w.ptr, bias?.ptr ?? 0, w.N, FORMAT_CODES[w.format], Math.ceil(w.N / PANEL)];
    });
    const table = this.ids(entries.length);
    if (table.data.length > 0) table.data.set(entries); // a plan has no memory
    return { products, table };
  }

  rounded(K: number): Tensor {
    const room = this.roundedRooms.get(K) ?? this.scratch(this.rows, roundedScratch(K));
    this.roundedRooms.set(K, room);
    return room;
  }

  rewindScratch(): void {
    this.scratchArena.rewind();
    this.roundedRooms.clear();
  }

  ids(rows: number): Ids {
    const ptr = this.persistentArena.take(rows * 4);
    return { data: this.ints(ptr, rows), ptr, rows };
  }

  matrix(N: number, K: number, format: WeightFormat): Matrix {
    this.stagingBytes = Math.max(this.stagingBytes, STAGING_SLOTS * PANEL * K * 4);
    return { layout: 'panels', format, N, K, ptr: this.persistentArena.take(matrixBytes(format, N, K)), data: NO_FLOATS };
  }

  table(V: number, D: number, format: WeightFormat): Matrix {
    this.stagingBytes = Math.max(this.stagingBytes, STAGING_SLOTS * PANEL * D * 4);
    return { layout: 'rows', format, N: V, K: D, ptr: this.persistentArena.take(V * D * (format === 'BF16' ? 2 : 4)), data: NO_FLOATS };
  }
}

const NO_FLOATS = new Float32Array(0);
