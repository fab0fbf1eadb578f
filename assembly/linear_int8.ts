// y = x W^T (+ bias) for quantised W in integer dots: x is rounded to int8 in blocks of 32 as well.     Fast mode; linear.ts has the exact one.
//   y[t, n] = sum over blocks of dx[t] (d[n] q[n] . xq[t] + m[n] sum(xq[t]))          a dot of 32 products is exact, blocks are added in order
//   x8: [T] rows of Kp i16 values, Kp i8 values (the same), B f32 scales dx, B f32 sums dx sum(xq); Kp = 32 ceil(K / 32), B = Kp / 32
//
// A row of y has the same bits whatever rows come with it, unless x has 7 bits: for four rows and more of q8 the relaxed build takes 63 levels on each
// side of 0, whose i8 values are 64 larger. Two products of an 8-bit and an unsigned 7-bit number fit 16 bits, and one instruction makes eight such
// pairs: 1.4 times as fast as i16 dots. V8 of Node 20 gets i32x4.relaxed_dot_i8x16_i7x16_add_s wrong in its baseline compiler;
// it is not used. The i16 form is right.

import { expand_pairs, regroup, rows_half_panel, rows_half_panel_7bit, WIDE_BYTES, widen_int } from './int8_tiles';
import { add_bias } from './linear';
import { bf16x4, blocks, GROUP, PANEL, Q4, Q4_BYTES, Q4_MINS, Q4_SCALES, Q8, Q8_BYTES, Q8_SCALES, QUANT, QUANT_BYTES } from './panels';
import { scratch } from './scratch';
import { madd } from './simd';

/** Blocks of a panel that lie widened in scratch. */
const SLAB_BLOCKS: i32 = 8;
/** Behind the widened panels in scratch: four rows of x, each pair of numbers in all lanes. */
const ROWS_AT: usize = <usize>GROUP * SLAB_BLOCKS * WIDE_BYTES;

/** Bytes of a row of x8. */
@inline
function row_bytes(K: i32): usize {
  return <usize>blocks(K) * (QUANT * 3 + 8);
}

@inline
function scales_at(K: i32): usize {
  return <usize>blocks(K) * QUANT * 3;
}

/** Rows [begin, end): x [T, K] f32 to x8. `levels` on each side of 0: 127, or 63 for the 7-bit dots of the relaxed build. */
export function quantise_rows(x8: usize, x: usize, levels: i32, K: i32, begin: i32, end: i32): void {
  const B = blocks(K);
  const offset = i8x16.splat(levels < 127 ? 64 : 0);
  for (let t = begin; t < end; t++) {
    let from = x + (<usize>t * K << 2);
    const wide = x8 + <usize>t * row_bytes(K), narrow = wide + (<usize>B * QUANT << 1), scales = wide + scales_at(K), sums = scales + (<usize>B << 2);
    for (let b = 0; b < B; b++) {
      const count = min(QUANT, K - b * QUANT);
      if (count < QUANT) {
        memory.fill(scratch(), 0, QUANT_BYTES);
        memory.copy(scratch(), from, <usize>count << 2);
        from = scratch();
      }
      let largest = f32x4.splat(0);
      for (let k: usize = 0; k < QUANT_BYTES; k += 16) largest = f32x4.max(largest, f32x4.abs(v128.load(from + k)));
      largest = f32x4.max(largest, v128.shuffle<i32>(largest, largest, 2, 3, 0, 1));
      const amax = max(f32x4.extract_lane(largest, 0), f32x4.extract_lane(largest, 1));
      const inverse = f32x4.splat(amax > 0 ? <f32>levels / amax : 0);
      let sum = i32x4.splat(0);
      for (let k: usize = 0; k < <usize>QUANT; k += 16) {
        const at = from + (k << 2);
        const a = i32x4.trunc_sat_f32x4_s(f32x4.nearest(f32x4.mul(v128.load(at), inverse)));
        const b4 = i32x4.trunc_sat_f32x4_s(f32x4.nearest(f32x4.mul(v128.load(at, 16), inverse)));
        const c = i32x4.trunc_sat_f32x4_s(f32x4.nearest(f32x4.mul(v128.load(at, 32), inverse)));
        const d = i32x4.trunc_sat_f32x4_s(f32x4.nearest(f32x4.mul(v128.load(at, 48), inverse)));
        sum = i32x4.add(sum, i32x4.add(i32x4.add(a, b4), i32x4.add(c, d)));
        const ab = i16x8.narrow_i32x4_s(a, b4), cd = i16x8.narrow_i32x4_s(c, d);
        const to = <usize>b * QUANT + k;
        v128.store(wide + (to << 1), ab);
        v128.store(wide + (to << 1), cd, 16);
        v128.store(narrow + to, i8x16.add(i8x16.narrow_i16x8_s(ab, cd), offset));
      }
      sum = i32x4.add(sum, v128.shuffle<i32>(sum, sum, 2, 3, 0, 1));
      const scale = amax / <f32>levels;
      store<f32>(scales + (<usize>b << 2), scale);
      store<f32>(sums + (<usize>b << 2), scale * <f32>(i32x4.extract_lane(sum, 0) + i32x4.extract_lane(sum, 1)));
      from += QUANT_BYTES;
    }
  }
}

/** Writes `width` of 16 outputs. */
@inline
function put(y: usize, width: i32, s0: v128, s1: v128, s2: v128, s3: v128): void {
  if (width >= PANEL) {
    v128.store(y, s0);
    v128.store(y, s1, 16);
    v128.store(y, s2, 32);
    v128.store(y, s3, 48);
    return;
  }
  const at = scratch() + ROWS_AT;
  v128.store(at, s0);
  v128.store(at, s1, 16);
  v128.store(at, s2, 32);
  v128.store(at, s3, 48);
  memory.copy(y, at, <usize>width << 2);
}

/** One row, one panel of q8: decode. Widens 8 weights in the load, so that a weight byte is touched by 3/8 of an instruction. */
@inline
function row_q8(y: usize, x: usize, w: usize, K: i32, width: i32): void {
  const B = blocks(K);
  let scales = x + scales_at(K);
  let s0 = f32x4.splat(0), s1 = f32x4.splat(0), s2 = f32x4.splat(0), s3 = f32x4.splat(0);
  for (let b = 0; b < B; b++) {
    let a0 = i32x4.splat(0), a1 = i32x4.splat(0), a2 = i32x4.splat(0), a3 = i32x4.splat(0);
    const end = w + Q8_SCALES;
    while (w < end) {
      const xk = v128.load32_splat(x);
      a0 = i32x4.add(a0, i32x4.dot_i16x8_s(v128.load8x8_s(w), xk));
      a1 = i32x4.add(a1, i32x4.dot_i16x8_s(v128.load8x8_s(w, 8), xk));
      a2 = i32x4.add(a2, i32x4.dot_i16x8_s(v128.load8x8_s(w, 16), xk));
      a3 = i32x4.add(a3, i32x4.dot_i16x8_s(v128.load8x8_s(w, 24), xk));
      x += 4;
      w += 32;
    }
    const dx = v128.load32_splat(scales);
    s0 = madd(s0, f32x4.mul(dx, bf16x4(w)), f32x4.convert_i32x4_s(a0));
    s1 = madd(s1, f32x4.mul(dx, bf16x4(w + 8)), f32x4.convert_i32x4_s(a1));
    s2 = madd(s2, f32x4.mul(dx, bf16x4(w + 16)), f32x4.convert_i32x4_s(a2));
    s3 = madd(s3, f32x4.mul(dx, bf16x4(w + 24)), f32x4.convert_i32x4_s(a3));
    w += 32;
    scales += 4;
  }
  put(y, width, s0, s1, s2, s3);
}

/** One row, one panel of q4. */
@inline
function row_q4(y: usize, x: usize, w: usize, K: i32, width: i32, low: v128): void {
  const B = blocks(K);
  let scales = x + scales_at(K);
  const sums_after = <usize>B << 2;
  if (ASC_FEATURE_RELAXED_SIMD) x += <usize>B * QUANT << 1; // the i8 values
  let s0 = f32x4.splat(0), s1 = f32x4.splat(0), s2 = f32x4.splat(0), s3 = f32x4.splat(0);
  for (let b = 0; b < B; b++) {
    let a0 = i32x4.splat(0), a1 = i32x4.splat(0), a2 = i32x4.splat(0), a3 = i32x4.splat(0);
    if (ASC_FEATURE_RELAXED_SIMD) {
      // The weights, at most 15, are the 7-bit operand: exact. Eight sums of two products fit i16: 8 * 2 * 15 * 127.
      for (let half = 0; half < 2; half++) {
        let e = i16x8.splat(0), f = i16x8.splat(0);
        const end = w + Q4_SCALES / 2;
        while (w < end) {
          const q = v128.load(w), xk = v128.load16_splat(x);
          e = i16x8.add(e, i16x8.relaxed_dot_i8x16_i7x16_s(xk, v128.and(q, low)));
          f = i16x8.add(f, i16x8.relaxed_dot_i8x16_i7x16_s(xk, v128.and(i16x8.shr_u(q, 4), low)));
          x += 2;
          w += 16;
        }
        a0 = i32x4.add(a0, i32x4.extend_low_i16x8_s(e));
        a1 = i32x4.add(a1, i32x4.extend_high_i16x8_s(e));
        a2 = i32x4.add(a2, i32x4.extend_low_i16x8_s(f));
        a3 = i32x4.add(a3, i32x4.extend_high_i16x8_s(f));
      }
    } else {
      const end = w + Q4_SCALES;
      while (w < end) {
        const q = v128.load(w), xk = v128.load32_splat(x);
        const lower = v128.and(q, low), upper = v128.and(i16x8.shr_u(q, 4), low);
        a0 = i32x4.add(a0, i32x4.dot_i16x8_s(i16x8.extend_low_i8x16_u(lower), xk));
        a1 = i32x4.add(a1, i32x4.dot_i16x8_s(i16x8.extend_high_i8x16_u(lower), xk));
        a2 = i32x4.add(a2, i32x4.dot_i16x8_s(i16x8.extend_low_i8x16_u(upper), xk));
        a3 = i32x4.add(a3, i32x4.dot_i16x8_s(i16x8.extend_high_i8x16_u(upper), xk));
        x += 4;
        w += 16;
      }
    }
    const dx = v128.load32_splat(scales), sx = v128.load32_splat(scales + sums_after);
    const m = w + (Q4_MINS - Q4_SCALES);
    s0 = madd(madd(s0, f32x4.mul(dx, bf16x4(w)), f32x4.convert_i32x4_s(a0)), sx, bf16x4(m));
    s1 = madd(madd(s1, f32x4.mul(dx, bf16x4(w + 8)), f32x4.convert_i32x4_s(a1)), sx, bf16x4(m + 8));
    s2 = madd(madd(s2, f32x4.mul(dx, bf16x4(w + 16)), f32x4.convert_i32x4_s(a2)), sx, bf16x4(m + 16));
    s3 = madd(madd(s3, f32x4.mul(dx, bf16x4(w + 24)), f32x4.convert_i32x4_s(a3)), sx, bf16x4(m + 24));
    w += Q4_BYTES - Q4_SCALES;
    scales += 4;
  }
  put(y, width, s0, s1, s2, s3);
}

/**
 * Panels [begin, end) of ceil(N / 16), q8 or q4 weights.
 * @param seven whether x8 has 7 bits: q8 in the relaxed build alone
 */
@inline
function linear(format: i32, seven: bool, y: usize, x8: usize, w: usize, bias: usize, T: i32, K: i32, N: i32, begin: i32, end: i32): void {
  const low = i8x16.splat(15);
  const B = blocks(K);
  const ldx = row_bytes(K), ldy = <usize>N << 2;
  const block_bytes = format == Q8 ? Q8_BYTES : Q4_BYTES, scales_after = format == Q8 ? Q8_SCALES : Q4_SCALES;
  const panel_bytes = <usize>B * block_bytes;
  const rows = scratch() + ROWS_AT;
  const whole = min(end, N / PANEL); // panels [begin, whole) have 16 outputs
  const T4 = T & ~3;
  // Products in a lane of an expanded row, as a shift of their bytes: 4 of 7 bits, or 2 of 16.
  const values_at = seven ? <usize>B * QUANT << 1 : 0;
  for (let group = begin; group < whole && T4 > 0; group += GROUP) {
    const group_end = min(group + GROUP, whole);
    for (let slab = 0; slab < B; slab += SLAB_BLOCKS) {
      const count = min(SLAB_BLOCKS, B - slab);
      for (let p = group; p < group_end; p++) {
        const to = scratch() + <usize>(p - group) * (SLAB_BLOCKS * WIDE_BYTES), from = w + <usize>p * panel_bytes + <usize>slab * block_bytes;
        if (seven) regroup(to, from, count);
        else widen_int(format, to, from, count, low);
      }
      for (let t = 0; t < T4; t += 4) {
        const xt = x8 + <usize>t * ldx;
        if (seven) expand_pairs(rows, xt + values_at + <usize>slab * QUANT, ldx, count * QUANT >> 2);
        else expand_pairs(rows, xt + (<usize>slab * QUANT << 1), ldx, count * QUANT >> 1);
        for (let p = group; p < group_end; p++) {
          const yt = y + <usize>t * ldy + <usize>p * PANEL * 4;
          for (let b = 0; b < count; b++) {
            const wide = scratch() + <usize>((p - group) * SLAB_BLOCKS + b) * WIDE_BYTES;
            const d = w + <usize>p * panel_bytes + <usize>(slab + b) * block_bytes + scales_after;
            const dx = xt + scales_at(K) + (<usize>(slab + b) << 2);
            const first = slab + b == 0;
            if (seven) {
              const xb = rows + <usize>b * (QUANT / 4 << 6);
              rows_half_panel_7bit(yt, ldy, xb, wide, 0, d, dx, ldx, first);
              rows_half_panel_7bit(yt + 32, ldy, xb, wide, 32, d + 16, dx, ldx, first);
            } else {
              const xb = rows + <usize>b * (QUANT / 2 << 6);
              rows_half_panel(format, yt, ldy, xb, wide, d, d + 32, dx, ldx, <usize>B << 2, first);
              rows_half_panel(format, yt + 32, ldy, xb, wide + 32, d + 16, d + 48, dx, ldx, <usize>B << 2, first);
            }
          }
        }
      }
    }
  }
  for (let p = begin; p < end; p++) {
    for (let t = p < whole ? T4 : 0; t < T; t++) {
      const yt = y + <usize>t * ldy + <usize>p * PANEL * 4, xt = x8 + <usize>t * ldx, wp = w + <usize>p * panel_bytes;
      if (format == Q8) row_q8(yt, xt, wp, K, N - p * PANEL);
      else row_q4(yt, xt, wp, K, N - p * PANEL, low);
    }
  }
  add_bias(y, bias, T, N, begin, end);
}

/** Panels [begin, end) of ceil(N / 16), q8 weights; `levels` as it was for quantise_rows. */
export function linear_q8_int8(y: usize, x8: usize, w: usize, bias: usize, levels: i32, T: i32, K: i32, N: i32, begin: i32, end: i32): void {
  if (ASC_FEATURE_RELAXED_SIMD && levels < 127) linear(Q8, true, y, x8, w, bias, T, K, N, begin, end);
  else linear(Q8, false, y, x8, w, bias, T, K, N, begin, end);
}

/** The same with q4 weights; x8 has 127 levels. */
export function linear_q4_int8(y: usize, x8: usize, w: usize, bias: usize, T: i32, K: i32, N: i32, begin: i32, end: i32): void {
  linear(Q4, false, y, x8, w, bias, T, K, N, begin, end);
}
