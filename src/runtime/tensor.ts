/** Where kernels keep their numbers: f32 in a wasm memory, f64 in the reference. */
export type FloatArray = Float32Array | Float64Array;

/** A dense row-major matrix whose address never changes. Ops set `rows` to the tokens of the call, up to what was allocated. */
export interface Tensor {
  readonly data: FloatArray;
  /** Byte address in the bank's memory; 0 in the reference. */
  readonly ptr: number;
  /** Rows in use: the tokens of the running call. */
  rows: number;
  readonly cols: number;
}

/** Token ids, i32. */
export interface Ids {
  readonly data: Int32Array;
  readonly ptr: number;
  rows: number;
}

/** How a weight matrix lies in memory: as stored, except that f16 becomes f32, exactly. */
export type WeightFormat = 'F32' | 'BF16';

/** The bytes of one number in the files that hold weights. */
export const DTYPE_BYTES = { F32: 4, F16: 2, BF16: 2 } as const;
export type WeightDtype = keyof typeof DTYPE_BYTES;

/** The format that a stored dtype takes in memory. */
export function formatOf(dtype: WeightDtype): WeightFormat {
  return dtype === 'BF16' ? 'BF16' : 'F32';
}

/** A weight [N, K] in the layout of the bank's kernels: packed panels for a product, rows for the embedding. */
export interface Matrix {
  readonly layout: 'panels' | 'rows';
  readonly format: WeightFormat;
  readonly N: number;
  readonly K: number;
  readonly ptr: number;
  /** Row-major values, in the reference only. */
  readonly data: FloatArray;
}
