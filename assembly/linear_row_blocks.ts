// One row of x, rounded, with blocks of q8 or q4: what decoding does with a slab of four panels.      linear_rows.ts has the panels
//
// In the relaxed build x has 8 bits and a scale for each block, in dots of bytes; in the strict one 12 bits and a scale for a slab of 256.

import { byte_dots } from './byte_dots';
import { BLOCK, BLOCK_SLAB, offsets4, Q4_BYTES, Q4_LEAST, Q4_MASK, Q4_SCALES, Q8, Q8_BYTES, Q8_SCALES, scales4 } from './panels';
import { below_at, block_scales_at, bytes_at, scales_at, sums_at } from './round_rows';
import { held } from './scratch';
import { madd, madd8 } from './simd';

/** Adds d dx dots to the sums of a panel. */
@inline
function add_q8(sums: usize, scales: usize, scale: v128, a: v128, b: v128, c: v128, d: v128, mask: v128): void {
  const e = v128.load(scales), f = v128.load(scales, 16), s = sums + 32;
  madd8(sums, f32x4.mul(scale, i32x4.shl(e, 16)), f32x4.mul(scale, i32x4.shl(f, 16)), f32x4.convert_i32x4_s(a), f32x4.convert_i32x4_s(b));
  madd8(s, f32x4.mul(scale, v128.and(e, mask)), f32x4.mul(scale, v128.and(f, mask)), f32x4.convert_i32x4_s(c), f32x4.convert_i32x4_s(d));
}

/**
 * `count` blocks of four panels of q8 in the relaxed build. The magnitudes of x are the 7-bit operand, its signs are moved to the weights: ~w is -w - 1,
 * so a sum has the magnitudes below zero too little, from which it begins. Exact on every engine.
 */
@inline
function row_q8(sums: usize, x: usize, dx: usize, below: usize, places: usize, count: i32, mask: v128): void {
  let w = load<usize>(places), v = load<usize>(places, 4), u = load<usize>(places, 8), t = load<usize>(places, 12);
  const zero = i8x16.splat(0);
  for (; count > 0; count--) {
    let c0 = v128.load32_splat(below), c1 = c0, c2 = c0, c3 = c0, c4 = c0, c5 = c0, c6 = c0, c7 = c0;
    let c8 = c0, c9 = c0, c10 = c0, c11 = c0, c12 = c0, c13 = c0, c14 = c0, c15 = c0;
    for (const end = w + Q8_SCALES; w < end; w += 64) {
      const four = v128.load32_splat(x), xk = i8x16.abs(four), sign = i8x16.lt_s(four, zero);
      c0 = byte_dots(v128.xor(v128.load(w), sign), xk, c0);
      c1 = byte_dots(v128.xor(v128.load(w, 16), sign), xk, c1);
      c2 = byte_dots(v128.xor(v128.load(w, 32), sign), xk, c2);
      c3 = byte_dots(v128.xor(v128.load(w, 48), sign), xk, c3);
      c4 = byte_dots(v128.xor(v128.load(v), sign), xk, c4);
      c5 = byte_dots(v128.xor(v128.load(v, 16), sign), xk, c5);
      c6 = byte_dots(v128.xor(v128.load(v, 32), sign), xk, c6);
      c7 = byte_dots(v128.xor(v128.load(v, 48), sign), xk, c7);
      c8 = byte_dots(v128.xor(v128.load(u), sign), xk, c8);
      c9 = byte_dots(v128.xor(v128.load(u, 16), sign), xk, c9);
      c10 = byte_dots(v128.xor(v128.load(u, 32), sign), xk, c10);
      c11 = byte_dots(v128.xor(v128.load(u, 48), sign), xk, c11);
      c12 = byte_dots(v128.xor(v128.load(t), sign), xk, c12);
      c13 = byte_dots(v128.xor(v128.load(t, 16), sign), xk, c13);
      c14 = byte_dots(v128.xor(v128.load(t, 32), sign), xk, c14);
      c15 = byte_dots(v128.xor(v128.load(t, 48), sign), xk, c15);
      x += 4;
      v += 64;
      u += 64;
      t += 64;
    }
    const scale = v128.load32_splat(dx);
    add_q8(sums, w, scale, c0, c1, c2, c3, mask);
    add_q8(sums + 64, v, scale, c4, c5, c6, c7, mask);
    add_q8(sums + 128, u, scale, c8, c9, c10, c11, mask);
    add_q8(sums + 192, t, scale, c12, c13, c14, c15, mask);
    w += Q8_BYTES - Q8_SCALES;
    v += Q8_BYTES - Q8_SCALES;
    u += Q8_BYTES - Q8_SCALES;
    t += Q8_BYTES - Q8_SCALES;
    below += 4;
    dx += 4;
  }
}

/** Adds d dx (4 dots - z sum) to 8 sums. The sum of 32 bytes fits i16, so that a dot of pairs multiplies: one instruction instead of two. */
@inline
function add_q4_half(sums: usize, d0: v128, d1: v128, a: v128, b: v128, z0: v128, z1: v128, sum: v128): void {
  const q0 = i32x4.sub(i32x4.shl(a, 2), i32x4.dot_i16x8_s(z0, sum)), q1 = i32x4.sub(i32x4.shl(b, 2), i32x4.dot_i16x8_s(z1, sum));
  madd8(sums, d0, d1, f32x4.convert_i32x4_s(q0), f32x4.convert_i32x4_s(q1));
}

/** Adds them to the sums of a panel. */
@inline
function add_q4(
  single: bool, sums: usize, scales: usize, dx: v128, sum: v128, a: v128, b: v128, c: v128, d: v128, mask: v128, least: v128, six: v128,
): void {
  const e = v128.load(scales), f = v128.load(scales, 16);
  add_q4_half(
    sums, f32x4.mul(dx, i32x4.add(v128.and(i32x4.shl(e, 13), mask), least)), f32x4.mul(dx, i32x4.add(v128.and(i32x4.shl(f, 13), mask), least)),
    whole(single, a), whole(single, b), v128.and(e, six), v128.and(f, six), sum,
  );
  add_q4_half(
    sums + 32, f32x4.mul(dx, i32x4.add(v128.and(i32x4.shr_u(e, 3), mask), least)), f32x4.mul(dx, i32x4.add(v128.and(i32x4.shr_u(f, 3), mask), least)),
    whole(single, c), whole(single, d), v128.and(i32x4.shr_u(e, 16), six), v128.and(i32x4.shr_u(f, 16), six), sum,
  );
}

/** Adds four products to a lane; in i16, by pairs, where dots of bytes are three instructions: eight sums of two products fit, 8 * 2 * 15 * 127. */
@inline
function add_dots(single: bool, c: v128, xk: v128, w: v128): v128 {
  return single ? byte_dots(xk, w, c) : i16x8.add(c, i16x8.relaxed_dot_i8x16_i7x16_s(xk, w));
}

@inline
function whole(single: bool, c: v128): v128 {
  return single ? c : i32x4.extadd_pairwise_i16x8_s(c);
}

/** The same of q4. The weights, at most 15, are the 7-bit operand. */
@inline
function row_q4(single: bool, sums: usize, x: usize, dx: usize, sums_x: usize, places: usize, count: i32, low: v128): void {
  const mask = held(Q4_MASK), least = held(Q4_LEAST), six = held(63);
  let w = load<usize>(places), v = load<usize>(places, 4), u = load<usize>(places, 8), t = load<usize>(places, 12);
  for (; count > 0; count--) {
    let c0 = i32x4.splat(0), c1 = c0, c2 = c0, c3 = c0, c4 = c0, c5 = c0, c6 = c0, c7 = c0;
    let c8 = c0, c9 = c0, c10 = c0, c11 = c0, c12 = c0, c13 = c0, c14 = c0, c15 = c0;
    for (const end = w + Q4_SCALES; w < end; w += 32) {
      const xk = v128.load32_splat(x);
      let q: v128, r: v128;
      q = v128.load(w);
      r = v128.load(w, 16);
      c0 = add_dots(single, c0, xk, v128.and(q, low));
      c1 = add_dots(single, c1, xk, v128.and(r, low));
      c2 = add_dots(single, c2, xk, v128.and(i16x8.shr_u(q, 4), low));
      c3 = add_dots(single, c3, xk, v128.and(i16x8.shr_u(r, 4), low));
      q = v128.load(v);
      r = v128.load(v, 16);
      c4 = add_dots(single, c4, xk, v128.and(q, low));
      c5 = add_dots(single, c5, xk, v128.and(r, low));
      c6 = add_dots(single, c6, xk, v128.and(i16x8.shr_u(q, 4), low));
      c7 = add_dots(single, c7, xk, v128.and(i16x8.shr_u(r, 4), low));
      q = v128.load(u);
      r = v128.load(u, 16);
      c8 = add_dots(single, c8, xk, v128.and(q, low));
      c9 = add_dots(single, c9, xk, v128.and(r, low));
      c10 = add_dots(single, c10, xk, v128.and(i16x8.shr_u(q, 4), low));
      c11 = add_dots(single, c11, xk, v128.and(i16x8.shr_u(r, 4), low));
      q = v128.load(t);
      r = v128.load(t, 16);
      c12 = add_dots(single, c12, xk, v128.and(q, low));
      c13 = add_dots(single, c13, xk, v128.and(r, low));
      c14 = add_dots(single, c14, xk, v128.and(i16x8.shr_u(q, 4), low));
      c15 = add_dots(single, c15, xk, v128.and(i16x8.shr_u(r, 4), low));
      x += 4;
      v += 32;
      u += 32;
      t += 32;
    }
    const scale = v128.load32_splat(dx), sum = v128.load32_splat(sums_x);
    add_q4(single, sums, w, scale, sum, c0, c1, c2, c3, mask, least, six);
    add_q4(single, sums + 64, v, scale, sum, c4, c5, c6, c7, mask, least, six);
    add_q4(single, sums + 128, u, scale, sum, c8, c9, c10, c11, mask, least, six);
    add_q4(single, sums + 192, t, scale, sum, c12, c13, c14, c15, mask, least, six);
    w += Q4_BYTES - Q4_SCALES;
    v += Q4_BYTES - Q4_SCALES;
    u += Q4_BYTES - Q4_SCALES;
    t += Q4_BYTES - Q4_SCALES;
    sums_x += 4;
    dx += 4;
  }
}

/** Sums of neighbours: of a, then of b. */
@inline
function neighbours(a: v128, b: v128): v128 {
  return i32x4.add(v128.shuffle<i32>(a, b, 0, 2, 4, 6), v128.shuffle<i32>(a, b, 1, 3, 5, 7));
}

/** Four products for each of two outputs, whose weights are the lower or the upper half of `fours`: in pairs. */
@inline
function wide_dots(fours: v128, upper: bool, xk: v128): v128 {
  return i32x4.dot_i16x8_s(upper ? i16x8.extend_high_i8x16_s(fours) : i16x8.extend_low_i8x16_s(fours), xk);
}

/** Dots of four outputs with a block of x, whose sum is `sum`; of q4 from those with q. */
@inline
function strict_dots(format: i32, block: usize, o: i32, dots: v128, sum: v128): v128 {
  if (format == Q8) return f32x4.convert_i32x4_s(dots);
  return f32x4.convert_i32x4_s(i32x4.sub(i32x4.shl(dots, 2), i32x4.mul(i32x4.shr_u(offsets4(format, block, o), 24), sum)));
}

/** `count` blocks of one panel of q8 or q4 in the strict build, with x in 12 bits and a scale for the slab. */
@inline
function row_strict(format: i32, sums: usize, x: usize, dx: usize, sums_x: usize, w: usize, count: i32, low: v128): void {
  let s0 = v128.load(sums), s1 = v128.load(sums, 16), s2 = v128.load(sums, 32), s3 = v128.load(sums, 48);
  const scale = v128.load32_splat(dx);
  for (; count > 0; count--) {
    let c0 = i32x4.splat(0), c1 = c0, c2 = c0, c3 = c0, c4 = c0, c5 = c0, c6 = c0, c7 = c0;
    for (const end = w + (format == Q8 ? Q8_SCALES : Q4_SCALES); w < end; w += format == Q8 ? 64 : 32) {
      const q = v128.load(w), r = v128.load(w, 16), xk = v128.load64_splat(x);
      let four = format == Q8 ? q : v128.and(q, low);
      c0 = i32x4.add(c0, wide_dots(four, false, xk));
      c1 = i32x4.add(c1, wide_dots(four, true, xk));
      four = format == Q8 ? r : v128.and(r, low);
      c2 = i32x4.add(c2, wide_dots(four, false, xk));
      c3 = i32x4.add(c3, wide_dots(four, true, xk));
      four = format == Q8 ? v128.load(w, 32) : v128.and(i16x8.shr_u(q, 4), low);
      c4 = i32x4.add(c4, wide_dots(four, false, xk));
      c5 = i32x4.add(c5, wide_dots(four, true, xk));
      four = format == Q8 ? v128.load(w, 48) : v128.and(i16x8.shr_u(r, 4), low);
      c6 = i32x4.add(c6, wide_dots(four, false, xk));
      c7 = i32x4.add(c7, wide_dots(four, true, xk));
      x += 8;
    }
    const block = w - (format == Q8 ? Q8_SCALES : Q4_SCALES), sum = format == Q8 ? scale : v128.load32_splat(sums_x);
    s0 = madd(s0, f32x4.mul(scale, scales4(format, block, 0)), strict_dots(format, block, 0, neighbours(c0, c1), sum));
    s1 = madd(s1, f32x4.mul(scale, scales4(format, block, 4)), strict_dots(format, block, 4, neighbours(c2, c3), sum));
    s2 = madd(s2, f32x4.mul(scale, scales4(format, block, 8)), strict_dots(format, block, 8, neighbours(c4, c5), sum));
    s3 = madd(s3, f32x4.mul(scale, scales4(format, block, 12)), strict_dots(format, block, 12, neighbours(c6, c7), sum));
    sums_x += 4;
    w += format == Q8 ? Q8_BYTES - Q8_SCALES : Q4_BYTES - Q4_SCALES;
  }
  v128.store(sums, s0);
  v128.store(sums, s1, 16);
  v128.store(sums, s2, 32);
  v128.store(sums, s3, 48);
}

/**
 * Adds `count` products from k on, of a row of round_rows.ts with four panels of q8 or q4, to their sums.
 * @param single whether dots of bytes are one instruction
 * @param places the panels' addresses
 */
@inline
export function row_integer(
  format: i32, single: bool, sums: usize, x: usize, places: usize, k: i32, count: i32, K: i32, low: v128, mask: v128,
): void {
  const n = (count + BLOCK - 1) / BLOCK, b = <usize>(k / BLOCK) << 2, sums_x = x + sums_at(K) + b;
  if (ASC_FEATURE_RELAXED_SIMD) {
    const dx = x + block_scales_at(K) + b;
    if (format == Q8) row_q8(sums, x + bytes_at(K) + <usize>k, dx, x + below_at(K) + b, places, n, mask);
    else row_q4(single, sums, x + bytes_at(K) + <usize>k, dx, sums_x, places, n, low);
  } else {
    const xk = x + (<usize>k << 1), dx = x + scales_at(K) + (<usize>(k / BLOCK_SLAB) << 2);
    for (let i: usize = 0; i < 4; i++) row_strict(format, sums + (i << 6), xk, dx, sums_x, load<usize>(places + (i << 2)), n, low);
  }
}
