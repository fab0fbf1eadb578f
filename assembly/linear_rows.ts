// y = x W^T row by row, for few rows: decode, which reads every weight once.                     linear.ts, linear_integer.ts say what is computed
//
// A row meets four panels, or two, by turns, from places that lie as far apart as the thread's part of W allows: long streams through memory. One
// thread reads a quarter to a half more of four of them than of one, or of short ones (Emerald Rapids, Node 20). The turns are about a kilobyte long:
// sums lie in scratch meanwhile. Two panels take a turn together, so that the splats of x serve twice.

import {
  apart, BF16, blocks, F32, PANEL, panel_at, Q4, Q4_BYTES, Q4_SCALES, Q8, Q8_BYTES, Q8_SCALES, QUANT, SLAB, SLAB_BLOCKS, streams, TOGETHER, widen,
} from './panels';
import { bytes_at, row_bytes, scales_at, sums_at } from './round_rows';
import { scratch } from './scratch';
import { madd } from './simd';

/** Products of f32 that are summed from zero before they come to the others. */
export const BLOCK: i32 = 32;
/** A slab of a panel in f32. */
const WIDE: usize = <usize>SLAB * PANEL * 4;

@inline
function sum_so_far(y: usize, first: bool): v128 {
  return first ? f32x4.splat(0) : v128.load(y);
}

/** Adds to the sums of a panel. */
@inline
function add_sums(sums: usize, a: v128, b: v128, c: v128, d: v128): void {
  v128.store(sums, f32x4.add(v128.load(sums), a));
  v128.store(sums, f32x4.add(v128.load(sums, 16), b), 16);
  v128.store(sums, f32x4.add(v128.load(sums, 32), c), 32);
  v128.store(sums, f32x4.add(v128.load(sums, 48), d), 48);
}

/** Adds `count` products of two panels of f32 or bf16, at w and `far` behind it, to their sums. */
@inline
function row_float(format: i32, sums: usize, x: usize, w: usize, far: usize, count: i32, mask: v128): void {
  const end = x + (<usize>count << 2);
  let v = w + far;
  while (x < end) {
    const block_end = min(x + (BLOCK << 2), end);
    let a0 = f32x4.splat(0), a1 = f32x4.splat(0), a2 = f32x4.splat(0), a3 = f32x4.splat(0);
    let a4 = f32x4.splat(0), a5 = f32x4.splat(0), a6 = f32x4.splat(0), a7 = f32x4.splat(0);
    while (x < block_end) {
      const xk = v128.load32_splat(x);
      if (format == BF16) {
        let p = v128.load(w);
        a0 = madd(a0, xk, i32x4.shl(p, 16));
        a1 = madd(a1, xk, v128.and(p, mask));
        p = v128.load(w, 16);
        a2 = madd(a2, xk, i32x4.shl(p, 16));
        a3 = madd(a3, xk, v128.and(p, mask));
        p = v128.load(v);
        a4 = madd(a4, xk, i32x4.shl(p, 16));
        a5 = madd(a5, xk, v128.and(p, mask));
        p = v128.load(v, 16);
        a6 = madd(a6, xk, i32x4.shl(p, 16));
        a7 = madd(a7, xk, v128.and(p, mask));
        w += PANEL * 2;
        v += PANEL * 2;
      } else {
        a0 = madd(a0, xk, v128.load(w));
        a1 = madd(a1, xk, v128.load(w, 16));
        a2 = madd(a2, xk, v128.load(w, 32));
        a3 = madd(a3, xk, v128.load(w, 48));
        a4 = madd(a4, xk, v128.load(v));
        a5 = madd(a5, xk, v128.load(v, 16));
        a6 = madd(a6, xk, v128.load(v, 32));
        a7 = madd(a7, xk, v128.load(v, 48));
        w += PANEL * 4;
        v += PANEL * 4;
      }
      x += 4;
    }
    add_sums(sums, a0, a1, a2, a3);
    add_sums(sums + 64, a4, a5, a6, a7);
  }
}

/** The same of `count` blocks of q8. Each load widens 8 weights. */
@inline
function row_q8(sums: usize, x: usize, w: usize, far: usize, count: i32, mask: v128): void {
  let t0 = v128.load(sums), t1 = v128.load(sums, 16), t2 = v128.load(sums, 32), t3 = v128.load(sums, 48);
  let t4 = v128.load(sums, 64), t5 = v128.load(sums, 80), t6 = v128.load(sums, 96), t7 = v128.load(sums, 112);
  for (; count > 0; count--) {
    let a0 = i32x4.splat(0), a1 = i32x4.splat(0), a2 = i32x4.splat(0), a3 = i32x4.splat(0);
    let a4 = i32x4.splat(0), a5 = i32x4.splat(0), a6 = i32x4.splat(0), a7 = i32x4.splat(0);
    let v = w + far;
    for (const end = w + Q8_SCALES; w < end; w += 32) {
      const xk = v128.load32_splat(x);
      a0 = i32x4.add(a0, i32x4.dot_i16x8_s(v128.load8x8_s(w), xk));
      a4 = i32x4.add(a4, i32x4.dot_i16x8_s(v128.load8x8_s(v), xk));
      a1 = i32x4.add(a1, i32x4.dot_i16x8_s(v128.load8x8_s(w, 8), xk));
      a5 = i32x4.add(a5, i32x4.dot_i16x8_s(v128.load8x8_s(v, 8), xk));
      a2 = i32x4.add(a2, i32x4.dot_i16x8_s(v128.load8x8_s(w, 16), xk));
      a6 = i32x4.add(a6, i32x4.dot_i16x8_s(v128.load8x8_s(v, 16), xk));
      a3 = i32x4.add(a3, i32x4.dot_i16x8_s(v128.load8x8_s(w, 24), xk));
      a7 = i32x4.add(a7, i32x4.dot_i16x8_s(v128.load8x8_s(v, 24), xk));
      x += 4;
      v += 32;
    }
    let d = v128.load(w), e = v128.load(w, 16);
    t0 = madd(t0, i32x4.shl(d, 16), f32x4.convert_i32x4_s(a0));
    t1 = madd(t1, v128.and(d, mask), f32x4.convert_i32x4_s(a1));
    t2 = madd(t2, i32x4.shl(e, 16), f32x4.convert_i32x4_s(a2));
    t3 = madd(t3, v128.and(e, mask), f32x4.convert_i32x4_s(a3));
    d = v128.load(v);
    e = v128.load(v, 16);
    t4 = madd(t4, i32x4.shl(d, 16), f32x4.convert_i32x4_s(a4));
    t5 = madd(t5, v128.and(d, mask), f32x4.convert_i32x4_s(a5));
    t6 = madd(t6, i32x4.shl(e, 16), f32x4.convert_i32x4_s(a6));
    t7 = madd(t7, v128.and(e, mask), f32x4.convert_i32x4_s(a7));
    w += Q8_BYTES - Q8_SCALES;
  }
  v128.store(sums, t0);
  v128.store(sums, t1, 16);
  v128.store(sums, t2, 32);
  v128.store(sums, t3, 48);
  v128.store(sums, t4, 64);
  v128.store(sums, t5, 80);
  v128.store(sums, t6, 96);
  v128.store(sums, t7, 112);
}

/** s + d dots + m sum. */
@inline
function add_block(s: v128, d: v128, dots: v128, m: v128, sum: v128): v128 {
  return madd(madd(s, d, f32x4.convert_i32x4_s(dots)), sum, m);
}

/**
 * The same of q4 in the relaxed build, with x in i8 and a scale for each of its blocks. The weights, at most 15, are the 7-bit operand: exact. A block's
 * eight sums of two products fit i16: 8 * 2 * 15 * 127.
 */
@inline
function row_q4(sums: usize, x: usize, dx: usize, sums_x: usize, w: usize, far: usize, count: i32, low: v128, mask: v128): void {
  let s0 = v128.load(sums), s1 = v128.load(sums, 16), s2 = v128.load(sums, 32), s3 = v128.load(sums, 48);
  let s4 = v128.load(sums, 64), s5 = v128.load(sums, 80), s6 = v128.load(sums, 96), s7 = v128.load(sums, 112);
  for (; count > 0; count--) {
    let c0 = i16x8.splat(0), c1 = i16x8.splat(0), c2 = i16x8.splat(0), c3 = i16x8.splat(0);
    let c4 = i16x8.splat(0), c5 = i16x8.splat(0), c6 = i16x8.splat(0), c7 = i16x8.splat(0);
    let v = w + far;
    for (const end = w + Q4_SCALES; w < end; w += 32) {
      const xk = v128.load32_splat(x);
      let q = v128.load(w);
      c0 = i16x8.add(c0, i16x8.relaxed_dot_i8x16_i7x16_s(xk, v128.and(q, low)));
      c1 = i16x8.add(c1, i16x8.relaxed_dot_i8x16_i7x16_s(xk, v128.and(i16x8.shr_u(q, 4), low)));
      q = v128.load(v);
      c4 = i16x8.add(c4, i16x8.relaxed_dot_i8x16_i7x16_s(xk, v128.and(q, low)));
      c5 = i16x8.add(c5, i16x8.relaxed_dot_i8x16_i7x16_s(xk, v128.and(i16x8.shr_u(q, 4), low)));
      q = v128.load(w, 16);
      c2 = i16x8.add(c2, i16x8.relaxed_dot_i8x16_i7x16_s(xk, v128.and(q, low)));
      c3 = i16x8.add(c3, i16x8.relaxed_dot_i8x16_i7x16_s(xk, v128.and(i16x8.shr_u(q, 4), low)));
      q = v128.load(v, 16);
      c6 = i16x8.add(c6, i16x8.relaxed_dot_i8x16_i7x16_s(xk, v128.and(q, low)));
      c7 = i16x8.add(c7, i16x8.relaxed_dot_i8x16_i7x16_s(xk, v128.and(i16x8.shr_u(q, 4), low)));
      x += 4;
      v += 32;
    }
    const scale = v128.load32_splat(dx), sum = v128.load32_splat(sums_x);
    let d = v128.load(w), m = v128.load(w, 32);
    s0 = add_block(s0, f32x4.mul(scale, i32x4.shl(d, 16)), i32x4.extadd_pairwise_i16x8_s(c0), i32x4.shl(m, 16), sum);
    s1 = add_block(s1, f32x4.mul(scale, v128.and(d, mask)), i32x4.extadd_pairwise_i16x8_s(c1), v128.and(m, mask), sum);
    d = v128.load(w, 16);
    m = v128.load(w, 48);
    s2 = add_block(s2, f32x4.mul(scale, i32x4.shl(d, 16)), i32x4.extadd_pairwise_i16x8_s(c2), i32x4.shl(m, 16), sum);
    s3 = add_block(s3, f32x4.mul(scale, v128.and(d, mask)), i32x4.extadd_pairwise_i16x8_s(c3), v128.and(m, mask), sum);
    d = v128.load(v);
    m = v128.load(v, 32);
    s4 = add_block(s4, f32x4.mul(scale, i32x4.shl(d, 16)), i32x4.extadd_pairwise_i16x8_s(c4), i32x4.shl(m, 16), sum);
    s5 = add_block(s5, f32x4.mul(scale, v128.and(d, mask)), i32x4.extadd_pairwise_i16x8_s(c5), v128.and(m, mask), sum);
    d = v128.load(v, 16);
    m = v128.load(v, 48);
    s6 = add_block(s6, f32x4.mul(scale, i32x4.shl(d, 16)), i32x4.extadd_pairwise_i16x8_s(c6), i32x4.shl(m, 16), sum);
    s7 = add_block(s7, f32x4.mul(scale, v128.and(d, mask)), i32x4.extadd_pairwise_i16x8_s(c7), v128.and(m, mask), sum);
    w += Q4_BYTES - Q4_SCALES;
    sums_x += 4;
    dx += 4;
  }
  v128.store(sums, s0);
  v128.store(sums, s1, 16);
  v128.store(sums, s2, 32);
  v128.store(sums, s3, 48);
  v128.store(sums, s4, 64);
  v128.store(sums, s5, 80);
  v128.store(sums, s6, 96);
  v128.store(sums, s7, 112);
}

/** Sums of neighbours: of a, then of b. */
@inline
function neighbours(a: v128, b: v128): v128 {
  return i32x4.add(v128.shuffle<i32>(a, b, 0, 2, 4, 6), v128.shuffle<i32>(a, b, 1, 3, 5, 7));
}

/** One panel of q4 in the strict build, with x in 12 bits and a scale for the slab. */
@inline
function row_q4_strict(sums: usize, x: usize, dx: usize, sums_x: usize, w: usize, count: i32, low: v128, mask: v128): void {
  let s0 = v128.load(sums), s1 = v128.load(sums, 16), s2 = v128.load(sums, 32), s3 = v128.load(sums, 48);
  const scale = v128.load32_splat(dx);
  for (; count > 0; count--) {
    let c0 = i32x4.splat(0), c1 = c0, c2 = c0, c3 = c0, c4 = c0, c5 = c0, c6 = c0, c7 = c0;
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
    const sum = v128.load32_splat(sums_x);
    const d = v128.load(w), e = v128.load(w, 16), m = v128.load(w, 32), n = v128.load(w, 48);
    s0 = add_block(s0, f32x4.mul(scale, i32x4.shl(d, 16)), neighbours(c0, c1), i32x4.shl(m, 16), sum);
    s1 = add_block(s1, f32x4.mul(scale, v128.and(d, mask)), neighbours(c2, c3), v128.and(m, mask), sum);
    s2 = add_block(s2, f32x4.mul(scale, i32x4.shl(e, 16)), neighbours(c4, c5), i32x4.shl(n, 16), sum);
    s3 = add_block(s3, f32x4.mul(scale, v128.and(e, mask)), neighbours(c6, c7), v128.and(n, mask), sum);
    w += Q4_BYTES - Q4_SCALES;
    sums_x += 4;
  }
  v128.store(sums, s0);
  v128.store(sums, s1, 16);
  v128.store(sums, s2, 32);
  v128.store(sums, s3, 48);
}

/** Products that a pair of panels takes in a turn. */
@inline
function turn_length(format: i32, integer: bool): i32 {
  return integer ? (format == Q8 ? 2 : 4) * QUANT : (format == BF16 ? 2 : 1) * BLOCK;
}

/** Their bytes in a panel. */
@inline
function turn_bytes(format: i32, integer: bool): usize {
  if (!integer) return <usize>turn_length(format, false) * PANEL * (format == BF16 ? 2 : 4);
  return <usize>(turn_length(format, true) / QUANT) * (format == Q8 ? Q8_BYTES : Q4_BYTES);
}

/** One turn: adds the products from k on of a row of round_rows.ts with two panels of q8 or q4, but for the scale of x of q8. */
@inline
function turn_integer(format: i32, sums: usize, x: usize, w: usize, far: usize, k: i32, K: i32, low: v128, mask: v128): void {
  const block = k / QUANT, count = min(turn_length(format, true) / QUANT, blocks(K) - block);
  const xk = x + (<usize>k << 1), dx = scale_at(x, k, K), sums_x = x + sums_at(K) + (<usize>block << 2);
  if (format == Q8) {
    row_q8(sums, xk, w, far, count, mask);
  } else if (ASC_FEATURE_RELAXED_SIMD) {
    row_q4(sums, x + bytes_at(K) + <usize>k, sums_x + (<usize>blocks(K) << 2), sums_x, w, far, count, low, mask);
  } else {
    row_q4_strict(sums, xk, dx, sums_x, w, count, low, mask);
    row_q4_strict(sums + 64, xk, dx, sums_x, w + far, count, low, mask);
  }
}

/** Where a row of round_rows.ts has the scale of its slab that begins at k or before. */
@inline
function scale_at(x: usize, k: i32, K: i32): usize {
  return x + scales_at(K) + (<usize>(k / (SLAB_BLOCKS * QUANT)) << 2);
}

/** y + scale sums to y, a panel. */
@inline
function add_slab(y: usize, sums: usize, scale: v128, first: bool): void {
  v128.store(y, madd(sum_so_far(y, first), scale, v128.load(sums)));
  v128.store(y, madd(sum_so_far(y + 16, first), scale, v128.load(sums, 16)), 16);
  v128.store(y, madd(sum_so_far(y + 32, first), scale, v128.load(sums, 32)), 32);
  v128.store(y, madd(sum_so_far(y + 48, first), scale, v128.load(sums, 48)), 48);
}

/** Sums of a panel: zeros, or what y has. */
@inline
function begin_sums(sums: usize, y: usize, go_on: bool): void {
  v128.store(sums, sum_so_far(y, !go_on));
  v128.store(sums, sum_so_far(y + 16, !go_on), 16);
  v128.store(sums, sum_so_far(y + 32, !go_on), 32);
  v128.store(sums, sum_so_far(y + 48, !go_on), 48);
}

/**
 * Panels [begin, end) of rows [from, T), and of all rows for the last panel of an N that 16 does not divide.
 * @param integer whether x is of round_rows.ts, and f32 otherwise: then q8 and q4 are widened to f32 in scratch
 */
@inline
export function linear_rows(
  format: i32, integer: bool, y: usize, x: usize, w: usize, from: i32, T: i32, K: i32, N: i32, begin: i32, end: i32,
): void {
  // V8 of Node 24 rebuilds v128 constants at every use inside a loop (4x slower), so the masks are passed along.
  const low = i8x16.splat(15), mask = i32x4.splat(0xffff0000), one = f32x4.splat(1);
  const widened = !integer && (format == Q8 || format == Q4);
  const with_scales = integer && format == Q4; // its sums go on from slab to slab: every block has a scale of x
  const ldx = integer ? row_bytes(K) : <usize>K << 2, ldy = <usize>N << 2;
  const step = integer ? SLAB_BLOCKS * QUANT : SLAB;
  const sums = scratch(), room = sums + 4 * PANEL * 4, wide = room + PANEL * 4;
  const whole = min(end, N / PANEL); // panels [begin, whole) have 16 outputs
  for (let first = begin, next = begin; first < end; first = next) {
    const ways = streams(whole - first), distance = apart(whole - first, ways), y_apart = <usize>distance * PANEL << 2;
    next = first + ways * distance;
    for (let group = first, group_end = first; group < first + distance; group = group_end) {
      group_end = min((group / TOGETHER + 1) * TOGETHER, first + distance);
      for (let k = 0; k < K; k += step) {
        const k_end = min(k + step, K);
        for (let p = group; p < group_end; p++) {
          let at = w + panel_at(format, p, k, K, N), far = ways > 1 ? w + panel_at(format, p + distance, k, K, N) - at : 0;
          if (widened) {
            at = wide;
            far = ways > 1 ? WIDE : 0;
            for (let i = 0; i < ways; i++) widen(format, at + <usize>i * far, w, p + i * distance, k, K, N, mask);
          }
          for (let t = p < whole ? from : 0; t < T; t++) {
            const xt = x + <usize>t * ldx;
            let yt = y + <usize>t * ldy + (<usize>p * PANEL << 2);
            const y_last = yt, bytes = <usize>min(PANEL, N - p * PANEL) << 2;
            if (ways == 1) { // perhaps not 16 outputs; taken as a pair with itself
              yt = room;
              memory.copy(room, y_last, bytes);
            }
            for (let i = 0; i < max(ways, 2); i++) begin_sums(sums + <usize>i * PANEL * 4, yt + <usize>i * y_apart, with_scales && k > 0 && i < ways);
            for (let j = k, wj = at; j < k_end; j += turn_length(format, integer)) {
              for (let i = 0; i < ways; i += 2) {
                const to = sums + <usize>i * PANEL * 4, wi = wj + <usize>i * far;
                if (integer) turn_integer(format, to, xt, wi, far, j, K, low, mask);
                else row_float(format == BF16 ? BF16 : F32, to, xt + (<usize>j << 2), wi, far, min(turn_length(format, false), k_end - j), mask);
              }
              wj += turn_bytes(format, integer);
            }
            const scale = integer && format == Q8 ? v128.load32_splat(scale_at(xt, k, K)) : one;
            for (let i = 0; i < ways; i++) add_slab(yt + <usize>i * y_apart, sums + <usize>i * PANEL * 4, scale, with_scales || k == 0);
            if (ways == 1) memory.copy(y_last, room, bytes);
          }
        }
      }
    }
  }
}
