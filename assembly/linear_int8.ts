// y = x W^T (+ bias) for quantised W in integer dots: x is rounded to int8 in blocks of 32 as well.     Fast mode; linear.ts has the exact one.
//   y[t, n] = sum over blocks of dx[t] (d[n] q[n] . xq[t] + m[n] sum(xq[t]))          a dot of 32 products is exact, blocks are added in order
//   x8: [T] rows of Kp i16 values, Kp i8 values (the same), B f32 scales dx, B f32 sums dx sum(xq); xq = x 127 / max |x|, dx = max |x| / 127; Kp = 32 ceil(K / 32), B = Kp / 32
//
// A row of y has the same bits whatever rows come with it. V8 of Node 20 gets i32x4.relaxed_dot_i8x16_i7x16_add_s wrong in its baseline compiler;
// it is not used. The i16 form is right.

import { add_bias } from './linear';
import { bf16x4, blocks, GROUP, PANEL, Q4, Q4_BYTES, Q4_MINS, Q4_SCALES, Q8, Q8_BYTES, Q8_SCALES, QUANT, QUANT_BYTES } from './panels';
import { scratch } from './scratch';
import { madd } from './simd';

/** Products of a panel that lie widened to i16 in scratch. */
const SLAB: i32 = 256;
const SLAB_BLOCKS: i32 = SLAB / QUANT;
const WIDE_BYTES: usize = <usize>SLAB * PANEL * 2;
/** Behind the widened panels in scratch: four rows of x, each pair of numbers in all lanes. */
const ROWS_AT: usize = <usize>GROUP * WIDE_BYTES;

/** Bytes of a row of x8. */
@inline
function row_bytes(K: i32): usize {
  return <usize>blocks(K) * (QUANT * 3 + 8);
}

@inline
function scales_at(K: i32): usize {
  return <usize>blocks(K) * QUANT * 3;
}

/** A block below this counts as zeros: 127 divided by its largest value could overflow. */
const LEAST: f32 = 1e-30;

/** Rows [begin, end): x [T, K] f32 to x8. */
export function quantise_rows(x8: usize, x: usize, K: i32, begin: i32, end: i32): void {
  const B = blocks(K);
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
      const inverse = f32x4.splat(amax > LEAST ? 127 / amax : 0);
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
        v128.store(narrow + to, i8x16.narrow_i16x8_s(ab, cd));
      }
      sum = i32x4.add(sum, v128.shuffle<i32>(sum, sum, 2, 3, 0, 1));
      const scale = amax / 127;
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

/** Widens `count` blocks of a panel from block `b` on to i16 [pairs][16][2]. */
@inline
function widen_int(format: i32, to: usize, w: usize, count: i32, low: v128): void {
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
function expand_pairs(to: usize, x: usize, ldx: usize, pairs: i32): void {
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
function scaled(format: i32, y: usize, sum: v128, d: v128, m: v128, dx: usize, sums_after: usize, first: bool): void {
  let s = first ? f32x4.splat(0) : v128.load(y);
  s = madd(s, f32x4.mul(v128.load32_splat(dx), d), f32x4.convert_i32x4_s(sum));
  if (format == Q4) s = madd(s, v128.load32_splat(dx + sums_after), m);
  v128.store(y, s);
}

/** Four expanded rows, half a widened panel, one block: prefill. 8 sums, 2 weights and a splat at a time. */
@inline
function rows_half_panel(
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

@inline
function linear(format: i32, y: usize, x8: usize, w: usize, bias: usize, T: i32, K: i32, N: i32, begin: i32, end: i32): void {
  const low = i8x16.splat(15);
  const B = blocks(K);
  const ldx = row_bytes(K), ldy = <usize>N << 2;
  const block_bytes = format == Q8 ? Q8_BYTES : Q4_BYTES, scales_after = format == Q8 ? Q8_SCALES : Q4_SCALES;
  const panel_bytes = <usize>B * block_bytes;
  const rows = scratch() + ROWS_AT;
  const whole = min(end, N / PANEL); // panels [begin, whole) have 16 outputs
  const T4 = T & ~3;
  for (let group = begin; group < whole && T4 > 0; group += GROUP) {
    const group_end = min(group + GROUP, whole);
    for (let slab = 0; slab < B; slab += SLAB_BLOCKS) {
      const count = min(SLAB_BLOCKS, B - slab);
      for (let p = group; p < group_end; p++) {
        widen_int(format, scratch() + <usize>(p - group) * WIDE_BYTES, w + <usize>p * panel_bytes + <usize>slab * block_bytes, count, low);
      }
      for (let t = 0; t < T4; t += 4) {
        const xt = x8 + <usize>t * ldx;
        expand_pairs(rows, xt + (<usize>slab * QUANT << 1), ldx, count * QUANT >> 1);
        for (let p = group; p < group_end; p++) {
          const yt = y + <usize>t * ldy + <usize>p * PANEL * 4;
          for (let b = 0; b < count; b++) {
            const wide = scratch() + <usize>(p - group) * WIDE_BYTES + <usize>b * (QUANT * PANEL * 2);
            const d = w + <usize>p * panel_bytes + <usize>(slab + b) * block_bytes + scales_after;
            const dx = xt + scales_at(K) + (<usize>(slab + b) << 2);
            const xb = rows + <usize>b * (QUANT / 2 << 6), first = slab + b == 0;
            rows_half_panel(format, yt, ldy, xb, wide, d, d + 32, dx, ldx, <usize>B << 2, first);
            rows_half_panel(format, yt + 32, ldy, xb, wide + 32, d + 16, d + 48, dx, ldx, <usize>B << 2, first);
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

/** Panels [begin, end) of ceil(N / 16), q8 weights. */
export function linear_q8_int8(y: usize, x8: usize, w: usize, bias: usize, T: i32, K: i32, N: i32, begin: i32, end: i32): void {
  linear(Q8, y, x8, w, bias, T, K, N, begin, end);
}

/** Panels [begin, end) of ceil(N / 16), q4 weights. */
export function linear_q4_int8(y: usize, x8: usize, w: usize, bias: usize, T: i32, K: i32, N: i32, begin: i32, end: i32): void {
  linear(Q4, y, x8, w, bias, T, K, N, begin, end);
}
