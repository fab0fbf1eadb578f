// How weights lie in memory: W [N, K] in panels of 16 outputs that lie side by side, so that a lane is an output.
//
// f32, bf16: [ceil(N / 64)][ceil(K / 128)][4][128][16]: four panels lie together, slab by slab of K; the last slab is shorter, the last group has
//   fewer panels, zeros after N. So decoding reads memory forward in long streams, whatever panels a thread takes (with each slab of all panels
//   side by side a fifth slower, for a stream that begins anew costs a microsecond). And slabs of 8 KiB are read in one piece, since rows of whole
//   panels lie a multiple of 4 KiB apart in real models and push each other out of the L1 cache (2x slower). A bf16 row of a panel holds
//   n0 n8 n1 n9 … n7 n15: `shl 16` gives outputs 0-7 and the upper halves outputs 8-15, eight neighbours each (simd.ts says why).
// q8, q4: [ceil(N / 64)][ceil(K / 256)][4][8] blocks of 16 outputs by 32 weights, together as above, fewer at the ends, zeros after N and K; a weight is
//   about d q, q from -127 to 127, or in q4 d (4 q - z), q and z without sign, which is from -63 to 60. So 256 numbers of x stay in the L1 cache for
//   four panels (with whole panels one after the other, K = 3840 was read from memory at 19 GB/s instead of 22, and K = 11008 at 18). Scales lie in
//   the order of a bf16 row.
//   q8: 544 bytes: i8 q [8 fours of k][16][4], bf16 d [16]
//   q4: 288 bytes: u4 q [8 fours of k][8][4], a byte with outputs 0-7 in its lower half and 8-15 in the upper; u16 [16], in its lower 6 bits z, in the
//   upper 10 those of d as an f32 has them: 4 of the fraction, 6 of the exponent, from 2^-49 to 31 * 2^10

import { constants } from './scratch';
import { store8 } from './simd';

export const F32: i32 = 0;
export const BF16: i32 = 1;
export const Q8: i32 = 2;
export const Q4: i32 = 3;

export const PANEL: i32 = 16;
export const SLAB: i32 = 128;
/** Panels that lie together. */
export const TOGETHER: i32 = 4;
/** Panels that four rows of x meet before the next four come. */
export const GROUP: i32 = 32;
/** Weights that share a scale. */
export const BLOCK: i32 = 32;
/** Blocks of a panel that lie together. */
export const SLAB_BLOCKS: i32 = 8;
/** Weights of a panel of q8 or q4 that lie together; the numbers of x that meet them share a scale where they have 12 bits. */
export const BLOCK_SLAB: i32 = SLAB_BLOCKS * BLOCK;
/** Their bytes in f32. */
export const F32_BLOCK_BYTES: usize = 128;
export const Q8_BYTES: usize = 544;
export const Q4_BYTES: usize = 288;
export const Q8_SCALES: usize = 512;
export const Q4_SCALES: usize = 256;
/** The least scale of q4, 2^-49, as the bits of an f32. */
export const Q4_LEAST: u32 = 78 << 23;
/** Where the bits of a scale of q4 are in those of an f32. */
export const Q4_MASK: u32 = 0x1ff80000;

/** Bytes of `count` products of a panel, of f32 or bf16. */
@inline
export function slab_bytes(format: i32, count: i32): usize {
  return <usize>count * PANEL * (format == BF16 ? 2 : 4);
}

/** Where panel `p` of f32 or bf16 has its slab that begins at `k`, in bytes. */
@inline
export function panel_slab(format: i32, p: i32, k: i32, K: i32, N: i32): usize {
  const first = p / TOGETHER * TOGETHER, together = min(TOGETHER, (N + PANEL - 1) / PANEL - first);
  return <usize>first * slab_bytes(format, K) + <usize>together * slab_bytes(format, k) + <usize>(p - first) * slab_bytes(format, min(SLAB, K - k));
}

/** Blocks of a row of K quantised weights. */
@inline
export function blocks(K: i32): i32 {
  return (K + BLOCK - 1) / BLOCK;
}

/** Where panel `p` of any format has its slab that begins at `k`, in bytes. */
export function panel_at(format: i32, p: i32, k: i32, K: i32, N: i32): usize {
  if (format == F32 || format == BF16) return panel_slab(format, p, k, K, N);
  return block_index(p, k / BLOCK, K, N) * (format == Q8 ? Q8_BYTES : Q4_BYTES);
}

/** Where panel `p` of q8 or q4 has its block `b`, counted in blocks; up to the next multiple of SLAB_BLOCKS, the others follow. */
@inline
export function block_index(p: i32, b: i32, K: i32, N: i32): usize {
  const first = p / TOGETHER * TOGETHER, together = min(TOGETHER, (N + PANEL - 1) / PANEL - first);
  const slab = b / SLAB_BLOCKS * SLAB_BLOCKS;
  return <usize>first * blocks(K) + <usize>(together * slab + (p - first) * min(SLAB_BLOCKS, blocks(K) - slab) + (b - slab));
}

/** Where output n of 16 lies in a row of bf16. */
@inline
export function lane(n: i32): i32 {
  return ((n & 7) << 1) | (n >> 3);
}

// What follows takes vectors of a block as they lie in memory: `upper` means those of outputs 8 to 15.

/** Four scales as f32, exact. */
@inline
function scales_of(format: i32, upper: bool, v: v128): v128 {
  if (format == Q8) return upper ? v128.and(v, i32x4.splat(0xffff0000)) : i32x4.shl(v, 16);
  return i32x4.add(v128.and(upper ? i32x4.shr_u(v, 3) : i32x4.shl(v, 13), i32x4.splat(Q4_MASK)), i32x4.splat(Q4_LEAST));
}

/** Four offsets z of q4, each in all four bytes of its lane; zeros of q8. */
@inline
function offsets_of(format: i32, upper: bool, v: v128): v128 {
  if (format == Q8) return i32x4.splat(0);
  return i32x4.mul(v128.and(upper ? i32x4.shr_u(v, 16) : v, i32x4.splat(63)), i32x4.splat(0x01010101));
}

/** 16 weights q, in q4 4 q - z, a byte each. */
@inline
function bytes_of(format: i32, upper: bool, v: v128, z: v128): v128 {
  if (format == Q8) return v;
  return i8x16.sub(i16x8.shl(v128.and(upper ? i16x8.shr_u(v, 4) : v, i8x16.splat(15)), 2), z);
}

/** Where a block has its scales. */
@inline
function scales_at(format: i32, block: usize): usize {
  return block + (format == Q8 ? Q8_SCALES : Q4_SCALES);
}

/** The scales d of the outputs o to o + 3 of a block. */
@inline
export function scales4(format: i32, block: usize, o: i32): v128 {
  return scales_of(format, (o & 8) != 0, v128.load(scales_at(format, block) + (<usize>(o & 4) << 2)));
}

/** Their offsets z, in q4. */
@inline
export function offsets4(format: i32, block: usize, o: i32): v128 {
  return offsets_of(format, (o & 8) != 0, v128.load(scales_at(format, block) + (<usize>(o & 4) << 2)));
}

/** Four weights of each of them, for the products k to k + 3, an output in each lane. @param z what offsets4 says */
@inline
export function fours(format: i32, block: usize, o: i32, k: i32, z: v128): v128 {
  const at = format == Q8 ? block + (<usize>k << 4) + (<usize>o << 2) : block + (<usize>k << 3) + (<usize>(o & 4) << 2);
  return bytes_of(format, (o & 8) != 0, v128.load(at), z);
}

/** Writes the slab of a panel that begins at `k` as f32 [128][16] to `to`. */
export function widen(format: i32, to: usize, w: usize, p: i32, k: i32, K: i32, N: i32, mask: v128): void {
  const count = min(SLAB, K - k);
  if (format == F32) {
    memory.copy(to, w + panel_slab(F32, p, k, K, N), slab_bytes(F32, count));
    return;
  }
  if (format == BF16) {
    let from = w + panel_slab(BF16, p, k, K, N);
    for (const end = to + slab_bytes(F32, count); to < end; to += 64) {
      const low = v128.load(from), high = v128.load(from, 16);
      store8(to, i32x4.shl(low, 16), i32x4.shl(high, 16));
      store8(to + 32, v128.and(low, mask), v128.and(high, mask));
      from += 32;
    }
    return;
  }
  for (let b = 0; b < count; b += BLOCK) {
    const at = w + panel_at(format, p, k + b, K, N);
    const n = min(BLOCK, count - b);
    if (format == Q8) widen_q8(to + slab_bytes(F32, b), at, n);
    else widen_q4(to + slab_bytes(F32, b), at, n);
  }
}

/** Weight i of such fours, as f32. */
@inline
export function byte_of(q: v128, i: i32): v128 {
  return f32x4.convert_i32x4_s(i32x4.shr_s(i32x4.shl(q, 24 - (i << 3)), 24));
}

/** n <= 32 rows of a block as f32 [n][16]; of the last four rows all. */
@inline
function widen_block(format: i32, to: usize, block: usize, n: i32): void {
  widen_half(format, false, to, block, n);
  widen_half(format, true, to + 32, format == Q8 ? block + 32 : block, n);
}

// Functions of their own, or the optimiser makes one piece of code of both, with a choice at every vector.
function widen_q8(to: usize, block: usize, n: i32): void {
  widen_block(Q8, to, block, n);
}

function widen_q4(to: usize, block: usize, n: i32): void {
  widen_block(Q4, to, block, n);
}

/** Eight outputs of such rows; the weights of the first four begin at `from`. Scales and offsets go through memory, since V8 joins no others here. */
@inline
function widen_half(format: i32, upper: bool, to: usize, from: usize, n: i32): void {
  const scales = scales_at(format, format == Q8 && upper ? from - 32 : from), s = v128.load(scales), t = v128.load(scales, 16);
  const d = constants(), z = d + 32;
  store8(d, scales_of(format, upper, s), scales_of(format, upper, t));
  if (format == Q4) store8(z, offsets_of(format, upper, s), offsets_of(format, upper, t));
  for (let k = 0; k < n; k += 4) {
    const q = bytes_of(format, upper, v128.load(from), v128.load(z)), r = bytes_of(format, upper, v128.load(from, 16), v128.load(z, 16));
    widen8(to, d, q, r, 0);
    to += 64;
    widen8(to, d, q, r, 1);
    to += 64;
    widen8(to, d, q, r, 2);
    to += 64;
    widen8(to, d, q, r, 3);
    to += 64;
    from += format == Q8 ? 64 : 32;
  }
}

/** Weight i of each of eight fours. */
@inline
function widen8(to: usize, d: usize, q: v128, r: v128, i: i32): void {
  const a = f32x4.mul(v128.load(d), byte_of(q, i)), b = f32x4.mul(v128.load(d, 16), byte_of(r, i));
  store8(to, a, b);
}
