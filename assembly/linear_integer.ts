// y = x W^T (+ bias) for quantised W in integer dots, with x rounded to 12 bits as well.            Fast mode; linear.ts has the product in f32.
//   y[t, n] = sum over slabs of 256 of dx[t] sum over blocks of 32 of (d[n] q[n] . xq[t] + m[n] sum(xq[t]))
//   xq: of round_rows.ts
//
// Dots of i16 take no longer than those of i8 would: both are widened to i16 (SIMD has no wider dot that every engine gets right: V8 of Node 20 gets
// i32x4.relaxed_dot_i8x16_i7x16_add_s wrong in its baseline compiler, and 7-bit dots with pairwise sums need as many multiplications).
// For many rows the weights of a slab are brought to a common scale for each output, in 2047 levels too: 2047 * 2047 * 256 fits i32, so that the
// scales come in once for 256 products.

import { add_bias, turn } from './linear';
import {
  block_index, blocks, GROUP, levels_q4, PANEL, Q4, Q4_BYTES, Q4_MINS, Q4_SCALES, Q8, Q8_BYTES, Q8_SCALES, QUANT, scales4, SLAB_BLOCKS, TOGETHER,
} from './panels';
import { bytes_at, LEVELS, ROUND, row_bytes, SLAB, scales_at, sums_at, TINY } from './round_rows';
import { scratch } from './scratch';
import { madd } from './simd';

/** A slab of a panel in scratch, i16 [128 pairs][16][2], and behind all of them the scales of their outputs, f32 [16]. */
const WIDE_BYTES: usize = <usize>SLAB * PANEL * 2;
const GROUP_WIDE: i32 = GROUP - 1;
const SCALES_AT: usize = <usize>GROUP_WIDE * WIDE_BYTES;
/** Behind them: four rows of x, turned; a pair of numbers is 32 bits as one of f32 is. */
const ROWS_AT: usize = <usize>GROUP * WIDE_BYTES;

/** One row, `count` blocks of one slab of a panel of q8: decode. Each load widens 8 weights. */
@inline
function row_q8(y: usize, x: usize, dx: usize, w: usize, count: i32, first: bool, mask: v128): void {
  let t0 = f32x4.splat(0), t1 = f32x4.splat(0), t2 = f32x4.splat(0), t3 = f32x4.splat(0);
  for (; count > 0; count--) {
    let a0 = i32x4.splat(0), a1 = i32x4.splat(0), a2 = i32x4.splat(0), a3 = i32x4.splat(0);
    for (const end = w + Q8_SCALES; w < end; w += 32) {
      const xk = v128.load32_splat(x);
      a0 = i32x4.add(a0, i32x4.dot_i16x8_s(v128.load8x8_s(w), xk));
      a1 = i32x4.add(a1, i32x4.dot_i16x8_s(v128.load8x8_s(w, 8), xk));
      a2 = i32x4.add(a2, i32x4.dot_i16x8_s(v128.load8x8_s(w, 16), xk));
      a3 = i32x4.add(a3, i32x4.dot_i16x8_s(v128.load8x8_s(w, 24), xk));
      x += 4;
    }
    const d0 = v128.load(w), d1 = v128.load(w, 16);
    t0 = madd(t0, i32x4.shl(d0, 16), f32x4.convert_i32x4_s(a0));
    t1 = madd(t1, v128.and(d0, mask), f32x4.convert_i32x4_s(a1));
    t2 = madd(t2, i32x4.shl(d1, 16), f32x4.convert_i32x4_s(a2));
    t3 = madd(t3, v128.and(d1, mask), f32x4.convert_i32x4_s(a3));
    w += Q8_BYTES - Q8_SCALES;
  }
  const scale = v128.load32_splat(dx);
  v128.store(y, madd(sum_so_far(y, first), scale, t0));
  v128.store(y + 16, madd(sum_so_far(y + 16, first), scale, t1));
  v128.store(y + 32, madd(sum_so_far(y + 32, first), scale, t2));
  v128.store(y + 48, madd(sum_so_far(y + 48, first), scale, t3));
}

@inline
function sum_so_far(y: usize, first: bool): v128 {
  return first ? f32x4.splat(0) : v128.load(y);
}

/** Sums of neighbours: of a, then of b. */
@inline
function neighbours(a: v128, b: v128): v128 {
  return i32x4.add(v128.shuffle<i32>(a, b, 0, 2, 4, 6), v128.shuffle<i32>(a, b, 1, 3, 5, 7));
}

/** The same of q4. x, dx and the sums of blocks are those of the slab; in the relaxed build x in i8, with a scale for each block. */
@inline
function row_q4(y: usize, x: usize, dx: usize, sums: usize, w: usize, count: i32, first: bool, low: v128, mask: v128): void {
  let s0 = sum_so_far(y, first), s1 = sum_so_far(y + 16, first), s2 = sum_so_far(y + 32, first), s3 = sum_so_far(y + 48, first);
  for (; count > 0; count--) {
    let a0 = i32x4.splat(0), a1 = i32x4.splat(0), a2 = i32x4.splat(0), a3 = i32x4.splat(0);
    if (ASC_FEATURE_RELAXED_SIMD) {
      // The weights, at most 15, are the 7-bit operand: exact. A block's eight sums of two products fit i16: 8 * 2 * 15 * 127.
      let c0 = i16x8.splat(0), c1 = i16x8.splat(0), c2 = i16x8.splat(0), c3 = i16x8.splat(0);
      for (const end = w + Q4_SCALES; w < end; w += 32) {
        const q = v128.load(w), r = v128.load(w, 16), xk = v128.load32_splat(x);
        c0 = i16x8.add(c0, i16x8.relaxed_dot_i8x16_i7x16_s(xk, v128.and(q, low)));
        c1 = i16x8.add(c1, i16x8.relaxed_dot_i8x16_i7x16_s(xk, v128.and(i16x8.shr_u(q, 4), low)));
        c2 = i16x8.add(c2, i16x8.relaxed_dot_i8x16_i7x16_s(xk, v128.and(r, low)));
        c3 = i16x8.add(c3, i16x8.relaxed_dot_i8x16_i7x16_s(xk, v128.and(i16x8.shr_u(r, 4), low)));
        x += 4;
      }
      a0 = i32x4.extadd_pairwise_i16x8_s(c0);
      a1 = i32x4.extadd_pairwise_i16x8_s(c1);
      a2 = i32x4.extadd_pairwise_i16x8_s(c2);
      a3 = i32x4.extadd_pairwise_i16x8_s(c3);
    } else {
      let c0 = a0, c1 = a0, c2 = a0, c3 = a0, c4 = a0, c5 = a0, c6 = a0, c7 = a0;
      for (const end = w + Q4_SCALES; w < end; w += 32) {
        const q = v128.load(w), r = v128.load(w, 16), xk = v128.load64_splat(x);
        let four = v128.and(q, low);
        c0 = i32x4.add(c0, i32x4.dot_i16x8_s(i16x8.extend_low_i8x16_u(four), xk));
        c1 = i32x4.add(c1, i32x4.dot_i16x8_s(i16x8.extend_high_i8x16_u(four), xk));
        four = v128.and(i16x8.shr_u(q, 4), low);
        c2 = i32x4.add(c2, i32x4.dot_i16x8_s(i16x8.extend_low_i8x16_u(four), xk));
        c3 = i32x4.add(c3, i32x4.dot_i16x8_s(i16x8.extend_high_i8x16_u(four), xk));
        four = v128.and(r, low);
        c4 = i32x4.add(c4, i32x4.dot_i16x8_s(i16x8.extend_low_i8x16_u(four), xk));
        c5 = i32x4.add(c5, i32x4.dot_i16x8_s(i16x8.extend_high_i8x16_u(four), xk));
        four = v128.and(i16x8.shr_u(r, 4), low);
        c6 = i32x4.add(c6, i32x4.dot_i16x8_s(i16x8.extend_low_i8x16_u(four), xk));
        c7 = i32x4.add(c7, i32x4.dot_i16x8_s(i16x8.extend_high_i8x16_u(four), xk));
        x += 8;
      }
      a0 = neighbours(c0, c1);
      a1 = neighbours(c2, c3);
      a2 = neighbours(c4, c5);
      a3 = neighbours(c6, c7);
    }
    const scale = v128.load32_splat(dx), sum = v128.load32_splat(sums);
    const d0 = v128.load(w), d1 = v128.load(w, 16), m0 = v128.load(w, 32), m1 = v128.load(w, 48);
    s0 = madd(madd(s0, f32x4.mul(scale, i32x4.shl(d0, 16)), f32x4.convert_i32x4_s(a0)), sum, i32x4.shl(m0, 16));
    s1 = madd(madd(s1, f32x4.mul(scale, v128.and(d0, mask)), f32x4.convert_i32x4_s(a1)), sum, v128.and(m0, mask));
    s2 = madd(madd(s2, f32x4.mul(scale, i32x4.shl(d1, 16)), f32x4.convert_i32x4_s(a2)), sum, i32x4.shl(m1, 16));
    s3 = madd(madd(s3, f32x4.mul(scale, v128.and(d1, mask)), f32x4.convert_i32x4_s(a3)), sum, v128.and(m1, mask));
    w += Q4_BYTES - Q4_SCALES;
    sums += 4;
    if (ASC_FEATURE_RELAXED_SIMD) dx += 4;
  }
  v128.store(y, s0);
  v128.store(y + 16, s1);
  v128.store(y + 32, s2);
  v128.store(y + 48, s3);
}

/** One row xq, `count` blocks of a panel from block `slab` on, of which `width` outputs exist. */
@inline
function row(format: i32, y: usize, xq: usize, w: usize, slab: i32, count: i32, width: i32, K: i32, low: v128, mask: v128): void {
  const at = width < PANEL ? scratch() : y;
  if (width < PANEL) memory.copy(at, y, <usize>width << 2);
  const sums = xq + sums_at(K) + (<usize>slab << 2);
  if (format == Q4 && ASC_FEATURE_RELAXED_SIMD) {
    row_q4(at, xq + bytes_at(K) + <usize>slab * QUANT, sums + (<usize>blocks(K) << 2), sums, w, count, slab == 0, low, mask);
  } else {
    const x = xq + (<usize>slab * QUANT << 1), dx = xq + scales_at(K) + (<usize>(slab / SLAB_BLOCKS) << 2);
    if (format == Q8) row_q8(at, x, dx, w, count, slab == 0, mask);
    else row_q4(at, x, dx, sums, w, count, slab == 0, low, mask);
  }
  if (width < PANEL) memory.copy(y, at, <usize>width << 2);
}

/** The largest magnitudes that blocks can stand for, of 4 outputs from `o` on. */
@inline
function reach(format: i32, w: usize, o: i32, count: i32): v128 {
  let most = f32x4.splat(0);
  for (let b = 0; b < count; b++) {
    if (format == Q8) {
      most = f32x4.max(most, f32x4.mul(scales4(w + Q8_SCALES, o), f32x4.splat(127)));
      w += Q8_BYTES;
    } else {
      const m = scales4(w + Q4_MINS, o), top = f32x4.add(m, f32x4.mul(scales4(w + Q4_SCALES, o), f32x4.splat(15)));
      most = f32x4.max(most, f32x4.max(f32x4.abs(m), f32x4.abs(top)));
      w += Q4_BYTES;
    }
  }
  return most;
}

/** q factor + offset to the nearest integer, in the lower half of each lane. */
@inline
function levelled(q: v128, factor: v128, offset: v128): v128 {
  return f32x4.add(f32x4.add(f32x4.mul(f32x4.convert_i32x4_s(q), factor), offset), f32x4.splat(ROUND));
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
      const scales_of = block + (format == Q8 ? Q8_SCALES : Q4_SCALES);
      const factor = f32x4.mul(scales4(scales_of, o), inverse);
      const offset = format == Q8 ? f32x4.splat(0) : f32x4.mul(scales4(scales_of + (Q4_MINS - Q4_SCALES), o), inverse);
      if (format == Q8) for (let k = 0; k < QUANT; k += 2) {
        const pairs = v128.load8x8_s(block + (<usize>k << 4) + (<usize>o << 1)); // i16: n0k0 n0k1 n1k0 n1k1 …
        put_pair(out, levelled(i32x4.shr_s(i32x4.shl(pairs, 16), 16), factor, offset), levelled(i32x4.shr_s(pairs, 16), factor, offset));
        out += 64;
      } else for (let k = 0; k < QUANT; k += 4) {
        const q = levels_q4(block, o, k);
        put_pair(out, levelled(v128.and(q, i32x4.splat(15)), factor, offset), levelled(v128.and(i32x4.shr_u(q, 8), i32x4.splat(15)), factor, offset));
        out += 64;
        put_pair(out, levelled(v128.and(i32x4.shr_u(q, 16), i32x4.splat(15)), factor, offset), levelled(i32x4.shr_u(q, 24), factor, offset));
        out += 64;
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

/** Four turned rows, half a levelled panel, one slab: prefill. 8 sums, 2 weights and 4 splats live at a time. */
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

@inline
function linear(format: i32, y: usize, xq: usize, w: usize, bias: usize, T: i32, K: i32, N: i32, begin: i32, end: i32): void {
  const low = i8x16.splat(15), mask = i32x4.splat(0xffff0000);
  const B = blocks(K);
  const ldx = row_bytes(K), ldy = <usize>N << 2;
  const block_bytes = format == Q8 ? Q8_BYTES : Q4_BYTES;
  const rows = scratch() + ROWS_AT;
  const whole = min(end, N / PANEL); // panels [begin, whole) have 16 outputs
  const T4 = T & ~3;
  for (let group = begin; group < whole && T4 > 0; group += GROUP_WIDE) {
    const group_end = min(group + GROUP_WIDE, whole);
    for (let slab = 0; slab < B; slab += SLAB_BLOCKS) {
      const count = min(SLAB_BLOCKS, B - slab), pairs = count * QUANT / 2;
      for (let p = group; p < group_end; p++) {
        const i = <usize>(p - group), from = w + block_index(p, slab, K, N) * block_bytes;
        level(format, scratch() + i * WIDE_BYTES, scratch() + SCALES_AT + (i << 6), from, count);
      }
      for (let t = 0; t < T4; t += 4) {
        const xt = xq + <usize>t * ldx, dx = xt + scales_at(K) + (<usize>(slab / SLAB_BLOCKS) << 2);
        turn(rows, xt + (<usize>slab * QUANT << 1), ldx, pairs);
        for (let p = group; p < group_end; p++) {
          const yt = y + <usize>t * ldy + <usize>p * PANEL * 4;
          const i = <usize>(p - group), wide = scratch() + i * WIDE_BYTES, d = scratch() + SCALES_AT + (i << 6);
          rows_half_panel(yt, ldy, rows, pairs, wide, d, dx, ldx, slab == 0);
          rows_half_panel(yt + 32, ldy, rows, pairs, wide + 32, d + 32, dx, ldx, slab == 0);
        }
      }
    }
  }
  // The rows after the last four, and the last panel of an N that 16 does not divide.
  for (let group = begin, group_end = begin; group < end; group = group_end) {
    group_end = min((group / TOGETHER + 1) * TOGETHER, end);
    for (let slab = 0; slab < B; slab += SLAB_BLOCKS) {
      const count = min(SLAB_BLOCKS, B - slab);
      let wp = w + block_index(group, slab, K, N) * block_bytes;
      for (let p = group; p < group_end; p++) {
        for (let t = p < whole ? T4 : 0; t < T; t++) {
          row(format, y + <usize>t * ldy + <usize>p * PANEL * 4, xq + <usize>t * ldx, wp, slab, count, N - p * PANEL, K, low, mask);
        }
        wp += <usize>count * block_bytes;
      }
    }
  }
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
