// Four rows and more in dots of bytes, where the engine has them as one instruction: prefill of the relaxed build.       linear_integer.ts has the rest
//   y[t, n] = sum over blocks of 32 of dx[t] (d[n] q[n] . xq[t] + m[n] sum(xq[t])), xq: the i8 values of round_rows.ts

import { byte_dots, UNSIGNED } from './byte_dots';
import { turn4 } from './linear';
import { block_index, blocks, fours, GROUP, PANEL, Q4_BYTES, Q4_MINS, Q4_SCALES, Q8, Q8_BYTES, Q8_SCALES, QUANT, scales4, SLAB_BLOCKS } from './panels';
import { block_scales_at, bytes_at, row_bytes, sums_at } from './round_rows';
import { held, scratch } from './scratch';
import { madd } from './simd';

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

/** y += dx (d dot + m sum) for 4 outputs, q8 without m. */
@inline
function add_scaled(format: i32, y: usize, dots: v128, scale: v128, d: v128, sum: v128, m: v128): void {
  let to = madd(v128.load(y), f32x4.mul(scale, d), f32x4.convert_i32x4_s(dots));
  if (format != Q8) to = madd(to, sum, m);
  v128.store(y, to);
}

/** Four turned rows, half a panel, `count` blocks at w, with what `prepare` left at `side`. 8 sums, 2 weights and a splat live at a time. */
@inline
function rows_half_panel(format: i32, y: usize, ldy: usize, x: usize, count: i32, w: usize, side: usize, dx: usize, sums_x: usize, ldx: usize): void {
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
    const e0 = v128.load(side), e1 = v128.load(side, 16), m0 = v128.load(side, 64), m1 = v128.load(side, 80);
    let scale = v128.load32_splat(dx), sum = v128.load32_splat(sums_x);
    add_scaled(format, y, a0, scale, e0, sum, m0);
    add_scaled(format, y + 16, a1, scale, e1, sum, m1);
    scale = v128.load32_splat(dx + ldx), sum = v128.load32_splat(sums_x + ldx);
    add_scaled(format, y + ldy, b0, scale, e0, sum, m0);
    add_scaled(format, y + ldy + 16, b1, scale, e1, sum, m1);
    scale = v128.load32_splat(dx + 2 * ldx), sum = v128.load32_splat(sums_x + 2 * ldx);
    add_scaled(format, y + 2 * ldy, c0, scale, e0, sum, m0);
    add_scaled(format, y + 2 * ldy + 16, c1, scale, e1, sum, m1);
    scale = v128.load32_splat(dx + 3 * ldx), sum = v128.load32_splat(sums_x + 3 * ldx);
    add_scaled(format, y + 3 * ldy, d0, scale, e0, sum, m0);
    add_scaled(format, y + 3 * ldy + 16, d1, scale, e1, sum, m1);
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
      const count = min(SLAB_BLOCKS, B - slab), k = slab * QUANT;
      for (let p = group; p < group_end; p++) {
        const from = w + block_index(p, slab, K, N) * block_bytes, to = scratch() + <usize>(p - group) * (<usize>SLAB_BLOCKS * BLOCK_ROOM);
        for (let b = 0; b < count; b++) prepare(format, to + <usize>b * BLOCK_ROOM, from + <usize>b * block_bytes, kind);
      }
      for (let t = 0; t < T4; t += 4) {
        const xt = xq + <usize>t * ldx, b = <usize>slab << 2, dx = xt + block_scales_at(K) + b, sums_x = xt + sums_at(K) + b;
        turn_bytes(rows, xt + bytes_at(K) + <usize>k, ldx, count * QUANT, flip);
        for (let p = group; p < group_end; p++) {
          const yt = y + <usize>t * ldy + <usize>p * PANEL * 4;
          const side = scratch() + <usize>(p - group) * (<usize>SLAB_BLOCKS * BLOCK_ROOM);
          const wp = format == Q8 ? w + block_index(p, slab, K, N) * block_bytes : side + SIDE_BYTES;
          rows_half_panel(format, yt, ldy, rows, count, wp, side, dx, sums_x, ldx);
          rows_half_panel(format, yt + 32, ldy, rows, count, wp + 32, side + 32, dx, sums_x, ldx);
        }
      }
    }
  }
}
