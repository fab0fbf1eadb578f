// Four rows and more in dots of bytes, where the engine has them as one instruction: prefill of the relaxed build.       linear_integer.ts has the rest
//   y[t, n] = sum over blocks of 32 of dx[t] (d[n] q[n] . xq[t] + m[n] sum(xq[t])), xq: the i8 values of round_rows.ts

import { byte_dots, UNSIGNED } from './byte_dots';
import { turn4 } from './linear';
import { block_index, blocks, fours, GROUP, PANEL, Q4_BYTES, Q4_MINS, Q4_SCALES, Q8, Q8_BYTES, Q8_SCALES, QUANT, scales4, SLAB_BLOCKS } from './panels';
import { block_scales_at, bytes_at, row_bytes, sums_at } from './round_rows';
import { held, scratch } from './scratch';
import { madd, store8, wide } from './simd';

/** Of a block in scratch: its scales d, f32 [16], and m, f32 [16], or of q8 the sums from which dots begin, i32 [16]; of q4 also q as in a block of q8. */
const SIDE_BYTES: usize = 128;
const Q_BYTES: usize = <usize>QUANT * PANEL;
const BLOCK_ROOM: usize = SIDE_BYTES + Q_BYTES;
/** Behind a group of panels: four rows of x, turned, four numbers to 32 bits. */
const ROWS_AT: usize = <usize>(GROUP * SLAB_BLOCKS) * BLOCK_ROOM;

/** Brings what a block needs beside its weights to scratch, and the weights of q4. */
@inline
function prepare(format: i32, to: usize, block: usize, kind: i32): void {
  for (let o = 0; o < PANEL; o += 4) {
    const at = to + (<usize>o << 2);
    v128.store(at, scales4(block + (format == Q8 ? Q8_SCALES : Q4_SCALES), o));
    if (format != Q8) v128.store(at, scales4(block + Q4_MINS, o), 64);
    let sum = i32x4.splat(0);
    for (let k = 0; k < QUANT; k += 4) {
      const q = fours(format, block, o, k);
      if (format == Q8) sum = byte_dots(q, i8x16.splat(1), sum);
      else v128.store(at + (<usize>k << 4), q, SIDE_BYTES);
    }
    if (format == Q8) v128.store(at, kind == UNSIGNED ? i32x4.mul(sum, i32x4.splat(-128)) : i32x4.splat(0), 64);
  }
}

/** y += dx (d dot + m sum) for 8 outputs, q8 without m. */
@inline
function add_scaled(format: i32, y: usize, a0: v128, a1: v128, dx: usize, side: usize, sum_x: usize): void {
  const scale = v128.load32_splat(dx);
  let y0 = madd(v128.load(y), f32x4.mul(scale, v128.load(side)), f32x4.convert_i32x4_s(a0));
  let y1 = madd(v128.load(y, 16), f32x4.mul(scale, v128.load(side, 16)), f32x4.convert_i32x4_s(a1));
  if (format != Q8) {
    const sum = v128.load32_splat(sum_x);
    y0 = madd(y0, sum, v128.load(side, 64));
    y1 = madd(y1, sum, v128.load(side, 80));
  }
  store8(y, y0, y1);
}

/** Four turned rows, half a panel, `count` blocks at w, with what `prepare` left at `side`. 8 sums, 2 weights and a splat live at a time. */
@inline
function four_rows(format: i32, y: usize, ldy: usize, x: usize, count: i32, w: usize, side: usize, dx: usize, sums_x: usize, ldx: usize): void {
  for (; count > 0; count--) {
    let a0 = format == Q8 ? v128.load(side, 64) : i32x4.splat(0), a1 = format == Q8 ? v128.load(side, 80) : i32x4.splat(0);
    let b0 = a0, b1 = a1, c0 = a0, c1 = a1, d0 = a0, d1 = a1;
    for (const end = x + (QUANT << 2); x < end; x += 16) {
      const w0 = v128.load(w), w1 = v128.load(w, 16);
      let xk = v128.load32_splat(x);
      a0 = dots(format, w0, xk, a0);
      a1 = dots(format, w1, xk, a1);
      xk = v128.load32_splat(x, 4);
      b0 = dots(format, w0, xk, b0);
      b1 = dots(format, w1, xk, b1);
      xk = v128.load32_splat(x, 8);
      c0 = dots(format, w0, xk, c0);
      c1 = dots(format, w1, xk, c1);
      xk = v128.load32_splat(x, 12);
      d0 = dots(format, w0, xk, d0);
      d1 = dots(format, w1, xk, d1);
      w += PANEL * 4;
    }
    let to = y, d = dx, s = sums_x;
    add_scaled(format, to, a0, a1, d, side, s);
    to += ldy;
    d += ldx;
    s += ldx;
    add_scaled(format, to, b0, b1, d, side, s);
    to += ldy;
    d += ldx;
    s += ldx;
    add_scaled(format, to, c0, c1, d, side, s);
    to += ldy;
    d += ldx;
    s += ldx;
    add_scaled(format, to, d0, d1, d, side, s);
    dx += 4;
    sums_x += 4;
    w += format == Q8 ? Q8_BYTES - Q_BYTES : SIDE_BYTES;
    side += BLOCK_ROOM;
  }
}

/** Eight rows, the last four `far` behind the first: 8 sums, a weight and a splat of 256 bits, where V8 joins two of 128. */
@inline
function eight_rows(
  format: i32, y: usize, ldy: usize, x: usize, far: usize, count: i32, w: usize, side: usize, dx: usize, sums_x: usize, ldx: usize,
): void {
  for (; count > 0; count--) {
    let a0 = format == Q8 ? v128.load(side, 64) : i32x4.splat(0), a1 = format == Q8 ? v128.load(side, 80) : i32x4.splat(0);
    let b0 = a0, b1 = a1, c0 = a0, c1 = a1, d0 = a0, d1 = a1, e0 = a0, e1 = a1, f0 = a0, f1 = a1, g0 = a0, g1 = a1, h0 = a0, h1 = a1;
    for (const end = x + (QUANT << 2); x < end; x += 16) {
      const w0 = v128.load(w), w1 = v128.load(w, 16), v = x + far;
      let xk = v128.load32_splat(x);
      a0 = dots(format, w0, xk, a0);
      a1 = dots(format, w1, xk, a1);
      xk = v128.load32_splat(x, 4);
      b0 = dots(format, w0, xk, b0);
      b1 = dots(format, w1, xk, b1);
      xk = v128.load32_splat(x, 8);
      c0 = dots(format, w0, xk, c0);
      c1 = dots(format, w1, xk, c1);
      xk = v128.load32_splat(x, 12);
      d0 = dots(format, w0, xk, d0);
      d1 = dots(format, w1, xk, d1);
      xk = v128.load32_splat(v);
      e0 = dots(format, w0, xk, e0);
      e1 = dots(format, w1, xk, e1);
      xk = v128.load32_splat(v, 4);
      f0 = dots(format, w0, xk, f0);
      f1 = dots(format, w1, xk, f1);
      xk = v128.load32_splat(v, 8);
      g0 = dots(format, w0, xk, g0);
      g1 = dots(format, w1, xk, g1);
      xk = v128.load32_splat(v, 12);
      h0 = dots(format, w0, xk, h0);
      h1 = dots(format, w1, xk, h1);
      w += PANEL * 4;
    }
    let to = y, d = dx, s = sums_x;
    add_scaled(format, to, a0, a1, d, side, s);
    to += ldy;
    d += ldx;
    s += ldx;
    add_scaled(format, to, b0, b1, d, side, s);
    to += ldy;
    d += ldx;
    s += ldx;
    add_scaled(format, to, c0, c1, d, side, s);
    to += ldy;
    d += ldx;
    s += ldx;
    add_scaled(format, to, d0, d1, d, side, s);
    to += ldy;
    d += ldx;
    s += ldx;
    add_scaled(format, to, e0, e1, d, side, s);
    to += ldy;
    d += ldx;
    s += ldx;
    add_scaled(format, to, f0, f1, d, side, s);
    to += ldy;
    d += ldx;
    s += ldx;
    add_scaled(format, to, g0, g1, d, side, s);
    to += ldy;
    d += ldx;
    s += ldx;
    add_scaled(format, to, h0, h1, d, side, s);
    dx += 4;
    sums_x += 4;
    w += format == Q8 ? Q8_BYTES - Q_BYTES : SIDE_BYTES;
    side += BLOCK_ROOM;
  }
}

/** Four rows of `count` bytes, turned by fours: [count / 4][4][4]. */
@inline
function turn_bytes(to: usize, x: usize, ldx: usize, count: i32, flip: v128): void {
  const x1 = x + ldx, x2 = x1 + ldx, x3 = x2 + ldx;
  for (let i: usize = 0; i < <usize>count; i += 16) {
    const a = v128.xor(v128.load(x + i), flip), b = v128.xor(v128.load(x1 + i), flip);
    turn4(to, a, b, v128.xor(v128.load(x2 + i), flip), v128.xor(v128.load(x3 + i), flip));
    to += 64;
  }
}

/** The operand that may have an upper bit is x with q8, and the weights, at most 15, with q4. */
@inline
function dots(format: i32, w: v128, xk: v128, sum: v128): v128 {
  return format == Q8 ? byte_dots(w, xk, sum) : byte_dots(xk, w, sum);
}

/** Rows [0, T4) of y, T4 a multiple of 4, and panels [begin, whole), which have 16 outputs. */
@inline
export function linear_bytes(format: i32, kind: i32, y: usize, xq: usize, w: usize, T4: i32, K: i32, N: i32, begin: i32, whole: i32): void {
  const B = blocks(K);
  const ldx = row_bytes(K), ldy = <usize>N << 2;
  const block_bytes = format == Q8 ? Q8_BYTES : Q4_BYTES;
  const rows = scratch() + ROWS_AT;
  const flip = held(format == Q8 && kind == UNSIGNED ? 0x80808080 : 0); // 128 more each, which the sums that dots begin from take away
  for (let group = begin; group < whole; group += GROUP) {
    const group_end = min(group + GROUP, whole);
    for (let t = 0; t < T4; t++) memory.fill(y + <usize>t * ldy + (<usize>group * PANEL << 2), 0, <usize>(group_end - group) * PANEL << 2);
    for (let slab = 0; slab < B; slab += SLAB_BLOCKS) {
      const count = min(SLAB_BLOCKS, B - slab), k = slab * QUANT, far = <usize>(count * QUANT) << 2;
      for (let p = group; p < group_end; p++) {
        const from = w + block_index(p, slab, K, N) * block_bytes, to = scratch() + <usize>(p - group) * (<usize>SLAB_BLOCKS * BLOCK_ROOM);
        for (let b = 0; b < count; b++) prepare(format, to + <usize>b * BLOCK_ROOM, from + <usize>b * block_bytes, kind);
      }
      for (let t = 0; t < T4; ) {
        const eight = wide() && t + 8 <= T4, xt = xq + <usize>t * ldx, from = xt + bytes_at(K) + <usize>k, b = <usize>slab << 2;
        const dx = xt + block_scales_at(K) + b, sums_x = xt + sums_at(K) + b;
        turn_bytes(rows, from, ldx, count * QUANT, flip);
        if (eight) turn_bytes(rows + far, from + 4 * ldx, ldx, count * QUANT, flip);
        for (let p = group; p < group_end; p++) {
          let yt = y + <usize>t * ldy + <usize>p * PANEL * 4;
          let side = scratch() + <usize>(p - group) * (<usize>SLAB_BLOCKS * BLOCK_ROOM);
          let wp = format == Q8 ? w + block_index(p, slab, K, N) * block_bytes : side + SIDE_BYTES;
          for (const last = side + 32; side <= last; side += 32) {
            if (eight) eight_rows(format, yt, ldy, rows, far, count, wp, side, dx, sums_x, ldx);
            else four_rows(format, yt, ldy, rows, count, wp, side, dx, sums_x, ldx);
            yt += 32;
            wp += 32;
          }
        }
        t += eight ? 8 : 4;
      }
    }
  }
}
