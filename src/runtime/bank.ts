import type { Kernels, LinearGroup, Product } from './kernels.ts';
import type { Ids, Matrix, Tensor, WeightDtype, WeightFormat } from './tensor.ts';

/** Sees every intermediate by its HF module path; the tensor is valid during the call only. */
export type Tap = (name: string, tensor: Tensor) => void;

/**
 * Strict: the bits of a result depend on the weights and the tokens alone, not on the machine, the threads or where a prompt was cut. Fast: chunks
 * in the delta rule, integer dots where the weights are quantised, relaxed SIMD where the engine has it.
 */
export type Mode = 'strict' | 'fast';

/**
 * One memory with consecutive layers, their caches, one scratch area and the kernels that compute on it. A model lies in one bank or several;
 * only the residual stream crosses from bank to bank.
 */
export interface Bank {
  readonly kernels: Kernels;
  /** Most tokens of one forward call: the rows of scratch tensors. */
  readonly rows: number;
  readonly mode: Mode;
  tap: Tap | null;

  /** A zeroed tensor that lives as long as the model: a parameter, a cache, a table. */
  tensor(rows: number, cols: number): Tensor;
  /** A tensor of f64, for tables that are computed once. */
  tensor64(rows: number, cols: number): Tensor;
  /** A tensor that lives until the next half of a layer of this bank runs. */
  scratch(rows: number, cols: number): Tensor;
  /** Binds products of one x [T, K]: all weights have the same K. */
  group(products: readonly Product[]): LinearGroup;
  /** Room for the rows of x [rows, K] rounded to 12 or 8 bits, for quantised weights in fast mode. Shared by the ops of half a layer. */
  rounded(K: number): Tensor;
  /** Called before each half of a layer is built: its scratch takes the addresses of the half before. */
  rewindScratch(): void;
  ids(rows: number): Ids;
  /** A weight [N, K] for `linear`. */
  matrix(N: number, K: number, format: WeightFormat): Matrix;
  /** A weight [V, D] for `embedding`. */
  table(V: number, D: number, format: WeightFormat): Matrix;

  /** Where a loader puts the next rows of a file. Shares its bytes with scratch: only before the first forward call. */
  readonly staging: Uint8Array;
  /** The bytes of a quantised weight in the layout of assembly/panels.ts, for a loader that has them so. */
  packed(weight: Matrix): Uint8Array;
  /**
   * Takes rows [begin, end) of a weight from `staging`, row-major in `dtype`, begin a multiple of 16. Returns 0 if all values are finite.
   * @param at where in `staging` they are, a multiple of 64
   */
  storeRows(weight: Matrix, dtype: WeightDtype, begin: number, end: number, at?: number): number;
}
