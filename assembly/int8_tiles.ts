// The inner loops of linear_int8.ts for many rows: four rows of x8 against half a panel, one block of 32 products at a time. Weights lie widened in
// scratch, [blocks] of i16 [16 pairs][16][2], or for 7-bit rows of i8 [8][16][4] and the sums of the weights.

import { bf16x4, PANEL, Q4, Q4_BYTES, Q4_SCALES, Q8, Q8_BYTES, Q8_SCALES, QUANT } from './panels';
import { madd } from './simd';

/** Bytes of a widened block of 16 outputs. */
export const WIDE_BYTES: usize = QUANT * PANEL * 2;
/** In a block for 7-bit rows, behind its 512 bytes of i8: -64 times the sum of the weights of each output, i32 [16]. */
const SUMS_AT: usize = QUANT * PANEL;

/** Widens `count` blocks of a panel from block `b` on to i16 [pairs][16][2]. */
@inline
export function widen_int(format: i32, to: usize, w: usize, count: i32, low: v128): void {
  for (let b = 0; b < count; b++) {
    if (format == Q8) {
      for (const end = w + Q8_SCALES; w < end; w += 32) {
        v128.store(to, v128.load8x8_s(w));
        v128.store(to, v128.load8x8_s(w, 8), 16);
        v128.store(to, v128.load8x8_s(w, 16), 32);
        v128.store(to, v128.load8x8_s(w, 24), 48);
        to += 64;
      }
      w += Q8_BYTES - Q8_SCALES;
    } else {
      for (const end = w + Q4_SCALES; w < end; w += 16) {
        const q = v128.load(w);
        const lower = v128.and(q, low), upper = v128.and(i16x8.shr_u(q, 4), low);
        v128.store(to, i16x8.extend_low_i8x16_u(lower));
        v128.store(to, i16x8.extend_high_i8x16_u(lower), 16);
        v128.store(to, i16x8.extend_low_i8x16_u(upper), 32);
        v128.store(to, i16x8.extend_high_i8x16_u(upper), 48);
        to += 64;
      }
      w += Q4_BYTES - Q4_SCALES;
    }
  }
}

/** Four rows of x8 from pair `k` on, each pair in all lanes: [pairs][4][4][2]. */
@inline
export function expand_pairs(to: usize, x: usize, ldx: usize, pairs: i32): void {
  for (let k = 0; k < pairs; k++) {
    v128.store(to, v128.load32_splat(x));
    v128.store(to, v128.load32_splat(x + ldx), 16);
    v128.store(to, v128.load32_splat(x + 2 * ldx), 32);
    v128.store(to, v128.load32_splat(x + 3 * ldx), 48);
    x += 4;
    to += 64;
  }
}

/** y += dx (d sum) (+ sx m) for 4 outputs. */
@inline
export function scaled(format: i32, y: usize, sum: v128, d: v128, m: v128, dx: usize, sums_after: usize, first: bool): void {
  let s = first ? f32x4.splat(0) : v128.load(y);
  s = madd(s, f32x4.mul(v128.load32_splat(dx), d), f32x4.convert_i32x4_s(sum));
  if (format == Q4) s = madd(s, v128.load32_splat(dx + sums_after), m);
  v128.store(y, s);
}

/** Four expanded rows, half a widened panel, one block: prefill. 8 sums, 2 weights and a splat at a time. */
@inline
export function rows_half_panel(
  format: i32, y: usize, ldy: usize, x: usize, w: usize, d: usize, m: usize, dx: usize, ldx: usize, sums_after: usize, first: bool,
): void {
  let a0 = i32x4.splat(0), a1 = i32x4.splat(0), b0 = i32x4.splat(0), b1 = i32x4.splat(0);
  let c0 = i32x4.splat(0), c1 = i32x4.splat(0), d0 = i32x4.splat(0), d1 = i32x4.splat(0);
  for (const end = x + (QUANT / 2 << 6); x < end; x += 64) {
    const w0 = v128.load(w), w1 = v128.load(w, 16);
    let xk = v128.load(x);
    a0 = i32x4.add(a0, i32x4.dot_i16x8_s(w0, xk));
    a1 = i32x4.add(a1, i32x4.dot_i16x8_s(w1, xk));
    xk = v128.load(x, 16);
    b0 = i32x4.add(b0, i32x4.dot_i16x8_s(w0, xk));
    b1 = i32x4.add(b1, i32x4.dot_i16x8_s(w1, xk));
    xk = v128.load(x, 32);
    c0 = i32x4.add(c0, i32x4.dot_i16x8_s(w0, xk));
    c1 = i32x4.add(c1, i32x4.dot_i16x8_s(w1, xk));
    xk = v128.load(x, 48);
    d0 = i32x4.add(d0, i32x4.dot_i16x8_s(w0, xk));
    d1 = i32x4.add(d1, i32x4.dot_i16x8_s(w1, xk));
    w += 64;
  }
  const e0 = bf16x4(d), e1 = bf16x4(d + 8), m0 = bf16x4(m), m1 = bf16x4(m + 8);
  scaled(format, y, a0, e0, m0, dx, sums_after, first);
  scaled(format, y + 16, a1, e1, m1, dx, sums_after, first);
  scaled(format, y + ldy, b0, e0, m0, dx + ldx, sums_after, first);
  scaled(format, y + ldy + 16, b1, e1, m1, dx + ldx, sums_after, first);
  scaled(format, y + 2 * ldy, c0, e0, m0, dx + 2 * ldx, sums_after, first);
  scaled(format, y + 2 * ldy + 16, c1, e1, m1, dx + 2 * ldx, sums_after, first);
  scaled(format, y + 3 * ldy, d0, e0, m0, dx + 3 * ldx, sums_after, first);
  scaled(format, y + 3 * ldy + 16, d1, e1, m1, dx + 3 * ldx, sums_after, first);
}


/**
 * The same of q8 for 7-bit rows: i8 [8][16][4], so that a 16-bit dot and its pairwise sum give one lane to each output. Rows are x + 64, hence
 * the sums of the weights.
 */
@inline
export function regroup(to: usize, w: usize, count: i32): void {
  for (let b = 0; b < count; b++) {
    let s0 = i32x4.splat(0), s1 = i32x4.splat(0), s2 = i32x4.splat(0), s3 = i32x4.splat(0);
    for (const end = w + Q8_SCALES; w < end; w += 64) {
      const p0 = v128.load(w), p1 = v128.load(w, 16), q0 = v128.load(w, 32), q1 = v128.load(w, 48); // pairs k, k + 1 and k + 2, k + 3
      const a = v128.shuffle<i16>(p0, q0, 0, 8, 1, 9, 2, 10, 3, 11), b = v128.shuffle<i16>(p0, q0, 4, 12, 5, 13, 6, 14, 7, 15);
      const c = v128.shuffle<i16>(p1, q1, 0, 8, 1, 9, 2, 10, 3, 11), d = v128.shuffle<i16>(p1, q1, 4, 12, 5, 13, 6, 14, 7, 15);
      v128.store(to, a);
      v128.store(to, b, 16);
      v128.store(to, c, 32);
      v128.store(to, d, 48);
      s0 = i32x4.add(s0, i32x4.extadd_pairwise_i16x8_s(i16x8.extadd_pairwise_i8x16_s(a)));
      s1 = i32x4.add(s1, i32x4.extadd_pairwise_i16x8_s(i16x8.extadd_pairwise_i8x16_s(b)));
      s2 = i32x4.add(s2, i32x4.extadd_pairwise_i16x8_s(i16x8.extadd_pairwise_i8x16_s(c)));
      s3 = i32x4.add(s3, i32x4.extadd_pairwise_i16x8_s(i16x8.extadd_pairwise_i8x16_s(d)));
      to += 64;
    }
    v128.store(to, i32x4.neg(i32x4.shl(s0, 6)));
    v128.store(to, i32x4.neg(i32x4.shl(s1, 6)), 16);
    v128.store(to, i32x4.neg(i32x4.shl(s2, 6)), 32);
    v128.store(to, i32x4.neg(i32x4.shl(s3, 6)), 48);
    to += WIDE_BYTES - SUMS_AT;
    w += Q8_BYTES - Q8_SCALES;
  }
}

@inline
function dot4(sum: v128, w: v128, x: v128): v128 {
  if (ASC_FEATURE_RELAXED_SIMD) return i32x4.add(sum, i32x4.extadd_pairwise_i16x8_s(i16x8.relaxed_dot_i8x16_i7x16_s(w, x)));
  return sum; // never called
}

/** rows_half_panel of 7-bit rows; `half` is 0 or 32. Two products of 127 * 127 fit i16. */
@inline
export function rows_half_panel_7bit(y: usize, ldy: usize, x: usize, w: usize, half: usize, d: usize, dx: usize, ldx: usize, first: bool): void {
  const e0 = v128.load(w + SUMS_AT + half), e1 = v128.load(w + SUMS_AT + half, 16);
  let a0 = e0, a1 = e1, b0 = e0, b1 = e1, c0 = e0, c1 = e1, d0 = e0, d1 = e1;
  w += half;
  for (const end = x + (QUANT / 4 << 6); x < end; x += 64) {
    const w0 = v128.load(w), w1 = v128.load(w, 16);
    let xk = v128.load(x);
    a0 = dot4(a0, w0, xk);
    a1 = dot4(a1, w1, xk);
    xk = v128.load(x, 16);
    b0 = dot4(b0, w0, xk);
    b1 = dot4(b1, w1, xk);
    xk = v128.load(x, 32);
    c0 = dot4(c0, w0, xk);
    c1 = dot4(c1, w1, xk);
    xk = v128.load(x, 48);
    d0 = dot4(d0, w0, xk);
    d1 = dot4(d1, w1, xk);
    w += 64;
  }
  const s0 = bf16x4(d), s1 = bf16x4(d + 8);
  scaled(Q8, y, a0, s0, s0, dx, 0, first);
  scaled(Q8, y + 16, a1, s1, s1, dx, 0, first);
  scaled(Q8, y + ldy, b0, s0, s0, dx + ldx, 0, first);
  scaled(Q8, y + ldy + 16, b1, s1, s1, dx + ldx, 0, first);
  scaled(Q8, y + 2 * ldy, c0, s0, s0, dx + 2 * ldx, 0, first);
  scaled(Q8, y + 2 * ldy + 16, c1, s1, s1, dx + 2 * ldx, 0, first);
  scaled(Q8, y + 3 * ldy, d0, s0, s0, dx + 3 * ldx, 0, first);
  scaled(Q8, y + 3 * ldy + 16, d1, s1, s1, dx + 3 * ldx, 0, first);
}
