// x [T, K] f32 to xq, rows of whole numbers for linear_integer.ts.
//   xq: [T] rows of Kp i16 values of 2047 levels on each side of 0, S f32 scales dx, B i32 sums of blocks; in the relaxed build, for dots of
//   bytes, also B f32 scales of blocks, B i32 sums of what is below zero, as magnitudes, and Kp i8 values of 127 levels on each side, whose sums the
//   sums are then. Kp = 32 B, B = ceil(K / 32), S = ceil(K / 256).

import { byte_dot_kind, SATURATES } from './byte_dots';
import { BLOCK, BLOCK_SLAB, blocks } from './panels';
import { scratch } from './scratch';

export const LEVELS: f32 = 2047;
/** Smaller values count as zeros: the reciprocal of their step would be infinite. */
export const TINY: f32 = 1e-30;

/**
 * 1.5 * 2^23: added to a number below 2^22 it rounds it to the nearest integer, ties to even, and leaves that in the low bits. nearest and trunc_sat
 * take seven instructions.
 */
export const ROUND: f32 = 12582912;

@inline
function slabs(K: i32): i32 {
  return (K + BLOCK_SLAB - 1) / BLOCK_SLAB;
}

@inline
export function scales_at(K: i32): usize {
  return <usize>blocks(K) * BLOCK << 1;
}

@inline
export function sums_at(K: i32): usize {
  return scales_at(K) + (<usize>slabs(K) << 2);
}

/** Where the scales of blocks are. */
@inline
export function block_scales_at(K: i32): usize {
  return sums_at(K) + (<usize>blocks(K) << 2);
}

/** Where the sums of what is below zero are. */
@inline
export function below_at(K: i32): usize {
  return block_scales_at(K) + (<usize>blocks(K) << 2);
}

/** Where the i8 values are. */
@inline
export function bytes_at(K: i32): usize {
  return below_at(K) + (<usize>blocks(K) << 2);
}

/** Bytes of a row of xq; roundedScratch in src/runtime/kernels.ts says the same. */
@inline
export function row_bytes(K: i32): usize {
  return bytes_at(K) + <usize>blocks(K) * BLOCK;
}

/** The largest of n absolute values at x, n a multiple of 32. As bits they are ordered as integers are, NaN above all; f32x4.max takes eight instructions. */
@inline
function largest(x: usize, n: i32): f32 {
  const magnitude = i32x4.splat(0x7fffffff);
  let a = i32x4.splat(0), b = i32x4.splat(0);
  for (const end = x + (<usize>n << 2); x < end; x += 32) {
    a = i32x4.max_s(a, v128.and(v128.load(x), magnitude));
    b = i32x4.max_s(b, v128.and(v128.load(x, 16), magnitude));
  }
  a = i32x4.max_s(a, b);
  a = i32x4.max_s(a, v128.shuffle<i32>(a, a, 2, 3, 0, 1));
  return reinterpret<f32>(max(i32x4.extract_lane(a, 0), i32x4.extract_lane(a, 1)));
}

/** What one of the levels stands for: NaN where not all values are finite, since an infinite one rounds to nothing that could say so. */
@inline
function step(most: f32, levels: f32): f32 {
  return most / levels + (most - most);
}

/** Eight values times `inverse`, to the nearest i16. */
@inline
function round8(x: usize, inverse: v128): v128 {
  const round = f32x4.splat(ROUND);
  const a = i32x4.sub(f32x4.add(f32x4.mul(v128.load(x), inverse), round), round);
  return i16x8.narrow_i32x4_s(a, i32x4.sub(f32x4.add(f32x4.mul(v128.load(x, 16), inverse), round), round));
}

@inline
function sum16(values: v128): i32 {
  let s = i32x4.extadd_pairwise_i16x8_s(values);
  s = i32x4.add(s, v128.shuffle<i32>(s, s, 2, 3, 0, 1));
  return i32x4.extract_lane(s, 0) + i32x4.extract_lane(s, 1);
}

@inline
function negative(values: v128): v128 {
  return i16x8.min_s(values, i16x8.splat(0));
}

/** Rows [begin, end): x [T, K] f32 to xq. */
export function round_rows(xq: usize, x: usize, K: i32, begin: i32, end: i32): void {
  const bytes = byte_dot_kind() != SATURATES; // then nothing takes 12 bits
  for (let t = begin; t < end; t++) {
    const to = xq + <usize>t * row_bytes(K);
    for (let slab = 0; slab < K; slab += BLOCK_SLAB) {
      const count = min(BLOCK_SLAB, K - slab), padded = blocks(count) * BLOCK;
      let from = x + (<usize>t * K + slab << 2);
      if (count < padded) {
        memory.fill(scratch(), 0, <usize>padded << 2);
        memory.copy(scratch(), from, <usize>count << 2);
        from = scratch();
      }
      if (!bytes) round_slab(to, slab, padded, K, from);
      if (ASC_FEATURE_RELAXED_SIMD) {
        for (let k = 0; k < padded; k += BLOCK) round_block(to, (slab + k) / BLOCK, K, from + (<usize>k << 2));
      }
    }
  }
}

/** A slab of a row, n values at x, to 12 bits; in the strict build also the sums of its blocks. */
@inline
function round_slab(row: usize, slab: i32, n: i32, K: i32, x: usize): void {
  const most = largest(x, n), scale = step(most, LEVELS);
  store<f32>(row + scales_at(K) + (<usize>(slab / BLOCK_SLAB) << 2), scale);
  const inverse = f32x4.splat(most > TINY ? LEVELS / most : 0);
  for (let k = 0; k < n; k += BLOCK) {
    const at = x + (<usize>k << 2), wide = row + (<usize>(slab + k) << 1);
    const v0 = round8(at, inverse), v1 = round8(at + 32, inverse), v2 = round8(at + 64, inverse), v3 = round8(at + 96, inverse);
    v128.store(wide, v0);
    v128.store(wide, v1, 16);
    v128.store(wide, v2, 32);
    v128.store(wide, v3, 48);
    if (ASC_FEATURE_RELAXED_SIMD) continue;
    store<i32>(row + sums_at(K) + (<usize>((slab + k) / BLOCK) << 2), sum16(v0) + sum16(v1) + sum16(v2) + sum16(v3));
  }
}

/** Block b of a row, 32 values at x, to what dots of bytes take. */
@inline
function round_block(row: usize, b: i32, K: i32, x: usize): void {
  const most = largest(x, BLOCK);
  const inverse = f32x4.splat(most > TINY ? 127 / most : 0);
  const v0 = round8(x, inverse), v1 = round8(x + 32, inverse), v2 = round8(x + 64, inverse), v3 = round8(x + 96, inverse);
  const at = <usize>b << 2, bytes = row + bytes_at(K) + <usize>b * BLOCK;
  v128.store(bytes, i8x16.narrow_i16x8_s(v0, v1));
  v128.store(bytes, i8x16.narrow_i16x8_s(v2, v3), 16);
  store<f32>(row + block_scales_at(K) + at, step(most, 127));
  store<i32>(row + below_at(K) + at, -(sum16(negative(v0)) + sum16(negative(v1)) + sum16(negative(v2)) + sum16(negative(v3))));
  store<i32>(row + sums_at(K) + at, sum16(v0) + sum16(v1) + sum16(v2) + sum16(v3));
}
