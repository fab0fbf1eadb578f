import { widenBf16, widenF16 } from '../checkpoint/dtype.ts';
import type { Bank, Mode, Tap } from './bank.ts';
import { STAGING_SLOTS } from './addressed_bank.ts';
import type { Kernels, LinearGroup, Product } from './kernels.ts';
import { type Ids, type Matrix, PANEL, type Tensor, type WeightDtype, type WeightFormat } from './tensor.ts';
import { referenceKernels } from '../reference/index.ts';

const SLOT_BYTES = 1 << 20;

/** A bank of plain arrays in float64, for kernels in TypeScript: by default the reference. */
export class ReferenceBank implements Bank {
  readonly kernels: Kernels;
  readonly rows: number;
  /** Its kernels have no faster way. */
  readonly mode: Mode = 'strict';
  tap: Tap | null = null;
  private stagingBytes = STAGING_SLOTS * SLOT_BYTES;
  private stagingArea = new Uint8Array(0);

  constructor(rows: number, kernels: Kernels = referenceKernels) {
    this.rows = rows;
    this.kernels = kernels;
  }

  tensor(rows: number, cols: number): Tensor {
    return { data: new Float64Array(rows * cols), ptr: 0, rows, cols };
  }

  tensor64(rows: number, cols: number): Tensor {
    return this.tensor(rows, cols);
  }

  scratch(rows: number, cols: number): Tensor {
    return this.tensor(rows, cols);
  }

  group(products: readonly Product[]): LinearGroup {
    return { products, table: this.ids(0) };
  }

  rounded(): Tensor {
    throw new Error('these kernels round nothing');
  }

  /** Every op keeps its own output here. */
  rewindScratch(): void {}

  ids(rows: number): Ids {
    return { data: new Int32Array(rows), ptr: 0, rows };
  }

  matrix(N: number, K: number, format: WeightFormat): Matrix {
    this.stagingBytes = Math.max(this.stagingBytes, STAGING_SLOTS * PANEL * K * 4);
    return { layout: 'panels', format, N, K, ptr: 0, data: new Float32Array(N * K) };
  }

  table(V: number, D: number, format: WeightFormat): Matrix {
    return { ...this.matrix(V, D, format), layout: 'rows' };
  }

  get staging(): Uint8Array {
    if (this.stagingArea.length < this.stagingBytes) this.stagingArea = new Uint8Array(this.stagingBytes);
    return this.stagingArea;
  }

  packed(): Uint8Array {
    throw new Error('these kernels take no quantised weights');
  }

  storeRows({ data, K }: Matrix, dtype: WeightDtype, begin: number, end: number, at = 0): number {
    const { buffer } = this.staging;
    const byteOffset = this.staging.byteOffset + at;
    const count = (end - begin) * K;
    const rows = data.subarray(begin * K, end * K);
    if (dtype === 'F32') rows.set(new Float32Array(buffer, byteOffset, count));
    else (dtype === 'BF16' ? widenBf16 : widenF16)(new Uint16Array(buffer, byteOffset, count), rows as Float32Array);
    return rows.every(Number.isFinite) ? 0 : 1;
  }
}
