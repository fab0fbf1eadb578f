// y = x W^T (+ bias) for quantised W in integer dots, with x rounded as well: xq of round_rows.ts.   Fast mode; linear.ts has the product in f32.
//   y[t, n] = sum over slabs of 256 of dx[t] sum over blocks of 32 of d[n] q[n] . xq[t], where q[n] is of whole numbers, in q4 what panels.ts calls 4 q - z
//
// Here is what many rows take in i16, with x in 12 bits. linear_bytes.ts has it in dots of bytes, for engines that make one instruction of them (for
// others i16 is as fast: 7-bit dots with pairwise sums need as many multiplications); linear_row_blocks.ts has the rows that are left.
// The weights of a slab are brought to a common scale for each output, in 2047 levels too: 2047 * 2047 * 256 fits i32, so that the scales come in once
// for 256 products.

import { byte_dot_kind } from './byte_dots';
import { add_bias, transpose } from './linear';
import { linear_bytes } from './linear_bytes';
import { linear_rows } from './linear_rows';
import {
  BLOCK, BLOCK_SLAB, block_index, blocks, byte_of, fours, GROUP, offsets4, PANEL, Q4, Q4_BYTES, Q8, Q8_BYTES, scales4, SLAB_BLOCKS,
} from './panels';
import { LEVELS, ROUND, row_bytes, scales_at, TINY } from './round_rows';
import { scratch } from './scratch';
import { madd } from './simd';

/** A slab of a panel in scratch, i16 [128 pairs][16][2], and behind all of them the scales of their outputs, f32 [16]. */
const WIDE_BYTES: usize = <usize>BLOCK_SLAB * PANEL * 2;
const GROUP_WIDE: i32 = GROUP - 1;
const SCALES_AT: usize = <usize>GROUP_WIDE * WIDE_BYTES;
/** Behind them: four rows of x, transposed; a pair of numbers is 32 bits as one of f32 is. */
const ROWS_AT: usize = <usize>GROUP * WIDE_BYTES;

/** The largest magnitudes that blocks can stand for, of 4 outputs from `o` on. */
@inline
function reach(format: i32, w: usize, o: i32, count: i32): v128 {
  let most = f32x4.splat(0);
  for (let b = 0; b < count; b++) {
    let largest = i32x4.splat(127);
    if (format != Q8) {
      const z = i32x4.shr_u(offsets4(format, w, o), 24); // what 4 q - z reaches below zero, and above
      largest = i32x4.max_s(z, i32x4.sub(i32x4.splat(60), z));
    }
    most = f32x4.max(most, f32x4.mul(scales4(format, w, o), f32x4.convert_i32x4_s(largest)));
    w += format == Q8 ? Q8_BYTES : Q4_BYTES;
  }
  return most;
}

/** q factor to the nearest integer, in the lower half of each lane. */
@inline
function levelled(q: v128, factor: v128): v128 {
  return f32x4.add(f32x4.mul(q, factor), f32x4.splat(ROUND));
}

/** The lower halves of the lanes, even before odd. */
@inline
function put_pair(to: usize, even: v128, odd: v128): void {
  v128.store(to, v128.or(v128.and(even, i32x4.splat(0xffff)), i32x4.shl(odd, 16)));
}

/** Brings `count` blocks of a panel to one scale for each output: i16 [pairs][16][2] at `to`, the scales f32 [16] at `scales`. */
function level(format: i32, to: usize, scales: usize, w: usize, count: i32): void {
  for (let o = 0; o < PANEL; o += 4) {
    const most = reach(format, w, o, count);
    v128.store(scales + (<usize>o << 2), f32x4.mul(most, f32x4.splat(1 / LEVELS)));
    const inverse = v128.and(f32x4.div(f32x4.splat(LEVELS), most), f32x4.gt(most, f32x4.splat(TINY)));
    let block = w, out = to + (<usize>o << 2);
    for (let b = 0; b < count; b++) {
      const factor = f32x4.mul(scales4(format, block, o), inverse), z = offsets4(format, block, o);
      for (let k = 0; k < BLOCK; k += 4) {
        const q = fours(format, block, o, k, z);
        put_pair(out, levelled(byte_of(q, 0), factor), levelled(byte_of(q, 1), factor));
        put_pair(out + 64, levelled(byte_of(q, 2), factor), levelled(byte_of(q, 3), factor));
        out += 128;
      }
      block += format == Q8 ? Q8_BYTES : Q4_BYTES;
    }
  }
}

/** y += dx d sum for 4 outputs. */
@inline
function scaled(y: usize, sum: v128, d: v128, dx: usize, first: bool): void {
  v128.store(y, madd(first ? f32x4.splat(0) : v128.load(y), f32x4.mul(v128.load32_splat(dx), d), f32x4.convert_i32x4_s(sum)));
}

/** Four transposed rows, half a levelled panel, one slab: prefill. 8 sums, 2 weights and 4 splats live at a time. */
@inline
function rows_half_panel(y: usize, ldy: usize, x: usize, pairs: i32, w: usize, d: usize, dx: usize, ldx: usize, first: bool): void {
  let a0 = i32x4.splat(0), a1 = i32x4.splat(0), b0 = i32x4.splat(0), b1 = i32x4.splat(0);
  let c0 = i32x4.splat(0), c1 = i32x4.splat(0), d0 = i32x4.splat(0), d1 = i32x4.splat(0);
  for (const end = x + (<usize>pairs << 4); x < end; x += 16) {
    const w0 = v128.load(w), w1 = v128.load(w, 16);
    let xk = v128.load32_splat(x);
    a0 = i32x4.add(a0, i32x4.dot_i16x8_s(w0, xk));
    a1 = i32x4.add(a1, i32x4.dot_i16x8_s(w1, xk));
    xk = v128.load32_splat(x, 4);
    b0 = i32x4.add(b0, i32x4.dot_i16x8_s(w0, xk));
    b1 = i32x4.add(b1, i32x4.dot_i16x8_s(w1, xk));
    xk = v128.load32_splat(x, 8);
    c0 = i32x4.add(c0, i32x4.dot_i16x8_s(w0, xk));
    c1 = i32x4.add(c1, i32x4.dot_i16x8_s(w1, xk));
    xk = v128.load32_splat(x, 12);
    d0 = i32x4.add(d0, i32x4.dot_i16x8_s(w0, xk));
    d1 = i32x4.add(d1, i32x4.dot_i16x8_s(w1, xk));
    w += 64;
  }
  const e0 = v128.load(d), e1 = v128.load(d, 16);
  scaled(y, a0, e0, dx, first);
  scaled(y + 16, a1, e1, dx, first);
  scaled(y + ldy, b0, e0, dx + ldx, first);
  scaled(y + ldy + 16, b1, e1, dx + ldx, first);
  scaled(y + 2 * ldy, c0, e0, dx + 2 * ldx, first);
  scaled(y + 2 * ldy + 16, c1, e1, dx + 2 * ldx, first);
  scaled(y + 3 * ldy, d0, e0, dx + 3 * ldx, first);
  scaled(y + 3 * ldy + 16, d1, e1, dx + 3 * ldx, first);
}

/** Rows [0, T4) of y, T4 a multiple of 4, and panels [begin, whole), which have 16 outputs. */
function linear_i16(format: i32, y: usize, xq: usize, w: usize, T4: i32, K: i32, N: i32, begin: i32, whole: i32): void {
  const B = blocks(K);
  const ldx = row_bytes(K), ldy = <usize>N << 2;
  const block_bytes = format == Q8 ? Q8_BYTES : Q4_BYTES;
  const rows = scratch() + ROWS_AT;
  for (let group = begin; group < whole; group += GROUP_WIDE) {
    const group_end = min(group + GROUP_WIDE, whole);
    for (let slab = 0; slab < B; slab += SLAB_BLOCKS) {
      const count = min(SLAB_BLOCKS, B - slab), pairs = count * BLOCK / 2;
      for (let p = group; p < group_end; p++) {
        const i = <usize>(p - group), from = w + block_index(p, slab, K, N) * block_bytes;
        level(format, scratch() + i * WIDE_BYTES, scratch() + SCALES_AT + (i << 6), from, count);
      }
      for (let t = 0; t < T4; t += 4) {
        const xt = xq + <usize>t * ldx, dx = xt + scales_at(K) + (<usize>(slab / SLAB_BLOCKS) << 2);
        transpose(rows, xt + (<usize>slab * BLOCK << 1), ldx, pairs);
        for (let p = group; p < group_end; p++) {
          const yt = y + <usize>t * ldy + <usize>p * PANEL * 4;
          const i = <usize>(p - group), wide = scratch() + i * WIDE_BYTES, d = scratch() + SCALES_AT + (i << 6);
          rows_half_panel(yt, ldy, rows, pairs, wide, d, dx, ldx, slab == 0);
          rows_half_panel(yt + 32, ldy, rows, pairs, wide + 32, d + 32, dx, ldx, slab == 0);
        }
      }
    }
  }
}

/** Rows [from, T) of panels [begin, end): linear_rows.ts. */
export function rows_q8(y: usize, xq: usize, w: usize, from: i32, T: i32, K: i32, N: i32, begin: i32, end: i32): void {
  linear_rows(Q8, Q8, true, false, y, xq, w, from, T, K, N, begin, end);
}

export function rows_q4(y: usize, xq: usize, w: usize, from: i32, T: i32, K: i32, N: i32, begin: i32, end: i32): void {
  linear_rows(Q4, Q4, true, false, y, xq, w, from, T, K, N, begin, end);
}

export function rows_q4_bytes(y: usize, xq: usize, w: usize, from: i32, T: i32, K: i32, N: i32, begin: i32, end: i32): void {
  linear_rows(Q4, Q4, true, true, y, xq, w, from, T, K, N, begin, end);
}

@inline
function linear(format: i32, y: usize, xq: usize, w: usize, bias: usize, T: i32, K: i32, N: i32, begin: i32, end: i32): void {
  const whole = min(end, N / PANEL), T4 = T & ~3, kind = byte_dot_kind();
  if (T4 > 0) {
    if (ASC_FEATURE_RELAXED_SIMD && kind) linear_bytes(format, kind, y, xq, w, T4, K, N, begin, whole);
    else linear_i16(format, y, xq, w, T4, K, N, begin, whole);
  }
  if (format == Q8) rows_q8(y, xq, w, T4, T, K, N, begin, end);
  else if (kind) rows_q4_bytes(y, xq, w, T4, T, K, N, begin, end);
  else rows_q4(y, xq, w, T4, T, K, N, begin, end);
  add_bias(y, bias, T, N, begin, end);
}

/** Panels [begin, end) of ceil(N / 16), q8 weights. */
export function linear_q8_integer(y: usize, xq: usize, w: usize, bias: usize, T: i32, K: i32, N: i32, begin: i32, end: i32): void {
  linear(Q8, y, xq, w, bias, T, K, N, begin, end);
}

/** The same with q4 weights. */
export function linear_q4_integer(y: usize, xq: usize, w: usize, bias: usize, T: i32, K: i32, N: i32, begin: i32, end: i32): void {
  linear(Q4, y, xq, w, bias, T, K, N, begin, end);
}
