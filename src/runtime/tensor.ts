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

/**
 * How a weight matrix lies in memory: as stored, except that f16 becomes f32, exactly; or in blocks of 32 along K, 8 or 4 bits for each weight, and
 * 16 for each block: a bf16 scale, in Q4 a scale of 10 bits and an offset of 6. assembly/panels.ts has the layouts.
 */
export type WeightFormat = 'F32' | 'BF16' | 'Q8' | 'Q4';

/** Numbers by which the kernels know formats and dtypes: assembly/panels.ts, assembly/pack.ts. */
export const FORMAT_CODES = { F32: 0, BF16: 1, Q8: 2, Q4: 3 } as const;
export const DTYPE_CODES = { F32: 0, BF16: 1, F16: 2 } as const;

export const PANEL = 16;
/** Panels that lie together: TOGETHER of assembly/panels.ts. */
export const TOGETHER = 4;
const BLOCK = 32;

/** Bytes of a matrix [N, K] in memory. */
export function matrixBytes(format: WeightFormat, N: number, K: number): number {
  const panels = Math.ceil(N / PANEL);
  if (format === 'Q8') return panels * Math.ceil(K / BLOCK) * 544;
  if (format === 'Q4') return panels * Math.ceil(K / BLOCK) * 288;
  return panels * PANEL * K * (format === 'BF16' ? 2 : 4);
}

/** The bytes of one number in the files that hold weights. */
export const DTYPE_BYTES = { F32: 4, F16: 2, BF16: 2 } as const;
export type WeightDtype = keyof typeof DTYPE_BYTES;

/** The format that a stored dtype takes in memory. */
export function formatOf(dtype: WeightDtype): 'F32' | 'BF16' {
  return dtype === 'BF16' ? 'BF16' : 'F32';
}

export function isQuantised(format: WeightFormat): boolean {
  return format === 'Q8' || format === 'Q4';
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
