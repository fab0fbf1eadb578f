// x [T, K] f32 to xq, rows of whole numbers for linear_integer.ts.
//   xq: [T] rows of Kp i16 values of 2047 levels on each side of 0, S f32 scales dx, B f32 sums dx sum(xq) of blocks; in the relaxed build also B f32
//   scales of blocks and Kp i8 values, which q4 takes for few rows. Kp = 32 B, B = ceil(K / 32), S = ceil(K / 256).

import { blocks, QUANT, QUANT_BYTES } from './panels';
import { scratch } from './scratch';

/** Products that share a scale of x. */
export const SLAB: i32 = 256;
export const LEVELS: f32 = 2047;

@inline
export function slabs(K: i32): i32 {
  return (K + SLAB - 1) / SLAB;
}

@inline
export function scales_at(K: i32): usize {
  return <usize>blocks(K) * QUANT << 1;
}

@inline
export function sums_at(K: i32): usize {
  return scales_at(K) + (<usize>slabs(K) << 2);
}

/** Where the i8 values are; their scales lie before them. */
@inline
export function bytes_at(K: i32): usize {
  return sums_at(K) + (<usize>blocks(K) << 3);
}

/** Bytes of a row of xq; roundedScratch in src/runtime/kernels.ts says the same. */
@inline
export function row_bytes(K: i32): usize {
  return bytes_at(K) + <usize>blocks(K) * QUANT;
}

/** The largest of n absolute values at x, n a multiple of 32. */
@inline
function largest(x: usize, n: i32): f32 {
  let a = f32x4.splat(0), b = f32x4.splat(0);
  for (const end = x + (<usize>n << 2); x < end; x += 32) {
    a = f32x4.max(a, f32x4.abs(v128.load(x)));
    b = f32x4.max(b, f32x4.abs(v128.load(x, 16)));
  }
  a = f32x4.max(a, b);
  a = f32x4.max(a, v128.shuffle<i32>(a, a, 2, 3, 0, 1));
  return max(f32x4.extract_lane(a, 0), f32x4.extract_lane(a, 1));
}

/** Eight values times `inverse`, to the nearest i16. */
@inline
function round8(x: usize, inverse: v128): v128 {
  const a = i32x4.trunc_sat_f32x4_s(f32x4.nearest(f32x4.mul(v128.load(x), inverse)));
  return i16x8.narrow_i32x4_s(a, i32x4.trunc_sat_f32x4_s(f32x4.nearest(f32x4.mul(v128.load(x, 16), inverse))));
}

@inline
function sum16(values: v128): i32 {
  let s = i32x4.extadd_pairwise_i16x8_s(values);
  s = i32x4.add(s, v128.shuffle<i32>(s, s, 2, 3, 0, 1));
  return i32x4.extract_lane(s, 0) + i32x4.extract_lane(s, 1);
}

/** Rows [begin, end): x [T, K] f32 to xq. */
export function round_rows(xq: usize, x: usize, K: i32, begin: i32, end: i32): void {
  for (let t = begin; t < end; t++) {
    const to = xq + <usize>t * row_bytes(K);
    for (let slab = 0; slab < K; slab += SLAB) {
      const count = min(SLAB, K - slab), padded = blocks(count) * QUANT;
      let from = x + (<usize>t * K + slab << 2);
      if (count < padded) {
        memory.fill(scratch(), 0, <usize>padded << 2);
        memory.copy(scratch(), from, <usize>count << 2);
        from = scratch();
      }
      const most = largest(from, padded), scale = most / LEVELS;
      store<f32>(to + scales_at(K) + (<usize>(slab / SLAB) << 2), scale);
      const inverse = f32x4.splat(most > 0 ? LEVELS / most : 0);
      for (let k = 0; k < padded; k += QUANT) {
        const at = from + (<usize>k << 2), wide = to + (<usize>(slab + k) << 1), b = (slab + k) / QUANT;
        const v0 = round8(at, inverse), v1 = round8(at + 32, inverse), v2 = round8(at + 64, inverse), v3 = round8(at + 96, inverse);
        v128.store(wide, v0);
        v128.store(wide, v1, 16);
        v128.store(wide, v2, 32);
        v128.store(wide, v3, 48);
        let sum = scale * <f32>(sum16(v0) + sum16(v1) + sum16(v2) + sum16(v3));
        if (ASC_FEATURE_RELAXED_SIMD) sum = round_block(to + bytes_at(K) + <usize>b * QUANT, to + sums_at(K) + (<usize>(blocks(K) + b) << 2), at);
        store<f32>(to + sums_at(K) + (<usize>b << 2), sum);
      }
    }
  }
}

/** A block of 32 values to i8. Returns their sum. */
@inline
function round_block(to: usize, scale: usize, x: usize): f32 {
  const most = largest(x, QUANT);
  const inverse = f32x4.splat(most > 0 ? 127 / most : 0);
  const v0 = round8(x, inverse), v1 = round8(x + 32, inverse), v2 = round8(x + 64, inverse), v3 = round8(x + 96, inverse);
  v128.store(to, i8x16.narrow_i16x8_s(v0, v1));
  v128.store(to, i8x16.narrow_i16x8_s(v2, v3), 16);
  store<f32>(scale, most / 127);
  return most / 127 * <f32>(sum16(v0) + sum16(v1) + sum16(v2) + sum16(v3));
}
