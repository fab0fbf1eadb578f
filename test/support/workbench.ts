import type { Bank } from '../../src/runtime/bank.ts';
import type { Kernels } from '../../src/runtime/kernels.ts';
import { ReferenceBank } from '../../src/runtime/reference_bank.ts';
import { type FloatArray, formatOf, type Ids, type Matrix, type Tensor, type WeightDtype } from '../../src/runtime/tensor.ts';
import { WasmBank } from '../../src/runtime/wasm_bank.ts';
import { ThreadPool } from '../../src/runtime/thread_pool.ts';
import type { Values } from './arbitraries.ts';
import { U32, U64 } from './assert_close.ts';

const GUARD = 0x5afe5afe;
const GUARD_BYTES = 64;
const PERSISTENT_BYTES = 96 << 20;
const STAGING_BYTES = 4 << 20;

/** A weight as the bits of a file. */
export interface StoredWeight {
  readonly bits: Uint16Array;
  readonly rows: number;
  readonly cols: number;
}

/** The kernels of one table, and a memory for the arrays of one call. */
export class Workbench {
  readonly kernels: Kernels;
  readonly bank: Bank;
  /** What `storeRows` has said of the weights so far: 0 if all are finite. */
  notFinite = 0;
  private readonly guards: () => void;
  private readonly inputs = new Map<Tensor, FloatArray>();

  constructor(bank: Bank, guards: () => void) {
    this.bank = bank;
    this.kernels = bank.kernels;
    this.guards = guards;
  }

  /** A copy of an array, 16-byte aligned. */
  put({ data, rows, cols }: Values): Tensor {
    const tensor = this.bank.tensor(rows, cols);
    tensor.data.set(data);
    this.inputs.set(tensor, tensor.data.slice());
    return tensor;
  }

  /** The same of f64, one row. */
  put64(data: Float64Array): Tensor {
    const tensor = this.bank.tensor64(1, data.length);
    tensor.data.set(data);
    this.inputs.set(tensor, data);
    return tensor;
  }

  /** Room for an output, full of NaN: what a kernel leaves out shows. */
  room(rows: number, cols: number): Tensor {
    const tensor = this.bank.tensor(rows, cols);
    tensor.data.fill(Number.NaN);
    return tensor;
  }

  ids(tokens: readonly number[]): Ids {
    const ids = this.bank.ids(tokens.length);
    ids.data.set(tokens);
    return ids;
  }

  /** A weight [N, K] for `linear`, handed over `rowsAtOnce` rows at a time, a multiple of 16. */
  matrix(w: Values | StoredWeight, dtype: WeightDtype = 'F32', rowsAtOnce = 1 << 30): Matrix {
    return this.store(this.bank.matrix(w.rows, w.cols, formatOf(dtype)), w, dtype, rowsAtOnce);
  }

  /** A weight [V, D] for `embedding`. */
  table(w: Values | StoredWeight, dtype: WeightDtype = 'F32', rowsAtOnce = 1 << 30): Matrix {
    return this.store(this.bank.table(w.rows, w.cols, formatOf(dtype)), w, dtype, rowsAtOnce);
  }

  /**
   * Ends a call: the outputs, copied out; nothing else may have changed.
   * @throws {Error} when an input or the space between two arrays has been written to.
   */
  take(...outputs: Tensor[]): Values[] {
    this.guards();
    for (const [tensor, before] of this.inputs) {
      if (outputs.includes(tensor)) continue;
      const changed = before.findIndex((value, i) => !Object.is(tensor.data[i], value));
      if (changed >= 0) throw new Error(`element ${changed} of an input [${tensor.rows}, ${tensor.cols}] has been overwritten`);
    }
    return outputs.map(({ data, rows, cols }) => ({ data: data.slice(0, rows * cols), rows, cols }));
  }

  private store(weight: Matrix, w: Values | StoredWeight, dtype: WeightDtype, rowsAtOnce: number): Matrix {
    const bytes = new Uint8Array('bits' in w ? w.bits.slice().buffer : stored(w.data, dtype));
    const row = bytes.length / w.rows;
    for (let begin = 0; begin < w.rows; begin += rowsAtOnce) {
      const end = Math.min(begin + rowsAtOnce, w.rows);
      this.bank.staging.set(bytes.subarray(begin * row, end * row));
      this.notFinite += this.bank.storeRows(weight, dtype, begin, end);
    }
    return weight;
  }
}

/** The bytes of f32 values; in bf16 of those that it can represent. */
function stored(data: FloatArray, dtype: WeightDtype): ArrayBuffer {
  const f32 = Float32Array.from(data);
  if (dtype === 'F32') return f32.buffer;
  if (dtype === 'F16') throw new Error('give f16 weights as bits');
  return Uint16Array.from(new Uint32Array(f32.buffer), (bits) => bits >>> 16).buffer;
}

/** A wasm bank with guard words behind every array, used again for each call. */
class GuardedBank extends WasmBank {
  private readonly guarded: Int32Array[] = [];

  clear(): void {
    this.persistentArena.rewind();
    this.guarded.length = 0;
  }

  checkGuards(): void {
    for (const words of this.guarded) {
      const broken = words.findIndex((word) => word !== GUARD);
      if (broken >= 0) throw new Error(`word ${broken} behind an array has been overwritten`);
    }
  }

  override tensor(rows: number, cols: number): Tensor {
    return this.guardedFrom(super.tensor(rows, cols), rows * cols * 4);
  }

  override tensor64(rows: number, cols: number): Tensor {
    return this.guardedFrom(super.tensor64(rows, cols), rows * cols * 8);
  }

  override ids(rows: number): Ids {
    return this.guardedFrom(super.ids(rows), rows * 4);
  }

  override matrix(N: number, K: number, format: 'F32' | 'BF16'): Matrix {
    const weight = super.matrix(N, K, format);
    return this.guardedFrom(weight, this.persistentArena.end - weight.ptr);
  }

  override table(V: number, D: number, format: 'F32' | 'BF16'): Matrix {
    return this.guardedFrom(super.table(V, D, format), V * D * (format === 'BF16' ? 2 : 4));
  }

  private guardedFrom<A extends { readonly ptr: number }>(array: A, bytes: number): A {
    this.persistentArena.take(GUARD_BYTES);
    const begin = array.ptr + Math.ceil(bytes / 4) * 4;
    const words = this.ints(begin, (this.persistentArena.end - begin) / 4);
    words.fill(GUARD);
    this.guarded.push(words);
    return array;
  }
}

/** One of the two tables of kernels, as the argument of a test body. */
export interface Implementation {
  readonly name: 'wasm' | 'reference';
  /** Unit roundoff of the numbers that it stores. */
  readonly u: number;
  /** An empty workbench; the one before must be done with. */
  readonly bench: () => Workbench;
}

const guardedBank = new GuardedBank(await ThreadPool.create(1), 1, 'strict', { persistent: PERSISTENT_BYTES, scratch: STAGING_BYTES });

export const wasm: Implementation = {
  name: 'wasm',
  u: U32,
  bench() {
    guardedBank.clear();
    return new Workbench(guardedBank, () => guardedBank.checkGuards());
  },
};

export const reference: Implementation = {
  name: 'reference',
  u: U64,
  bench: () => new Workbench(new ReferenceBank(1), () => {}),
};

/** The argument of `describe.each` for laws that both tables obey. */
export const implementations: readonly Implementation[] = [reference, wasm];
