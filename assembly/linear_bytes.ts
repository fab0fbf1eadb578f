// Four rows and more in dots of bytes, where the engine has them as one instruction: prefill of the relaxed build.       linear_integer.ts has the rest
//   y[t, n] = sum over blocks of 32 of dx[t] d[n] q[n] . xq[t], xq: the i8 values of round_rows.ts

import { byte_dots, UNSIGNED } from './byte_dots';
import { transpose4 } from './linear';
import { BLOCK, block_index, blocks, fours, GROUP, offsets4, PANEL, Q4_BYTES, Q8, Q8_BYTES, scales4, SLAB_BLOCKS } from './panels';
import { block_scales_at, bytes_at, row_bytes } from './round_rows';
import { held, scratch } from './scratch';
import { madd8, wide } from './simd';

/** Of a block in scratch: its scales d, f32 [16], the sums from which dots begin, i32 [16], and of q4 its weights as a block of q8 has them. */
const SIDE_BYTES: usize = 128;
const Q_BYTES: usize = <usize>BLOCK * PANEL;
const BLOCK_ROOM: usize = SIDE_BYTES + Q_BYTES;
/** Behind a group of panels: four or eight rows of x, transposed, four numbers to 32 bits. */
const ROWS_AT: usize = <usize>(GROUP * SLAB_BLOCKS) * BLOCK_ROOM;

/** Brings what a block needs beside its weights to scratch, and the weights of q4. */
@inline
function prepare(format: i32, to: usize, block: usize, kind: i32): void {
  for (let o = 0; o < PANEL; o += 4) {
    const at = to + (<usize>o << 2);
    v128.store(at, scales4(format, block, o));
    const z = offsets4(format, block, o);
    let sum = i32x4.splat(0);
    for (let k = 0; k < BLOCK; k += 4) {
      const q = fours(format, block, o, k, z);
      sum = byte_dots(q, i8x16.splat(1), sum);
      if (format != Q8) v128.store(at + (<usize>k << 4), q, SIDE_BYTES);
    }
    v128.store(at, kind == UNSIGNED ? i32x4.mul(sum, i32x4.splat(-128)) : i32x4.splat(0), 64);
  }
}

/** y += dx d dot for 8 outputs, whose scales d are d0 and d1. */
@inline
function add_scaled(y: usize, a0: v128, a1: v128, dx: v128, d0: v128, d1: v128): void {
  madd8(y, f32x4.mul(dx, d0), f32x4.mul(dx, d1), f32x4.convert_i32x4_s(a0), f32x4.convert_i32x4_s(a1));
}

/** Four transposed rows, half a panel, `count` blocks at w, with what `prepare` left at `side`. 8 sums, 2 weights and a splat live at a time. */
@inline
function four_rows(y: usize, ldy: usize, x: usize, count: i32, w: usize, gap: usize, side: usize, dx: usize, ldx: usize): void {
  for (; count > 0; count--) {
    let a0 = v128.load(side, 64), a1 = v128.load(side, 80);
    let b0 = a0, b1 = a1, c0 = a0, c1 = a1, d0 = a0, d1 = a1;
    for (const end = x + (BLOCK << 2); x < end; x += 16) {
      const w0 = v128.load(w), w1 = v128.load(w, 16);
      let xk = v128.load32_splat(x);
      a0 = byte_dots(w0, xk, a0);
      a1 = byte_dots(w1, xk, a1);
      xk = v128.load32_splat(x, 4);
      b0 = byte_dots(w0, xk, b0);
      b1 = byte_dots(w1, xk, b1);
      xk = v128.load32_splat(x, 8);
      c0 = byte_dots(w0, xk, c0);
      c1 = byte_dots(w1, xk, c1);
      xk = v128.load32_splat(x, 12);
      d0 = byte_dots(w0, xk, d0);
      d1 = byte_dots(w1, xk, d1);
      w += PANEL * 4;
    }
    const s0 = v128.load(side), s1 = v128.load(side, 16);
    let to = y, d = dx;
    add_scaled(to, a0, a1, v128.load32_splat(d), s0, s1);
    to += ldy;
    d += ldx;
    add_scaled(to, b0, b1, v128.load32_splat(d), s0, s1);
    to += ldy;
    d += ldx;
    add_scaled(to, c0, c1, v128.load32_splat(d), s0, s1);
    to += ldy;
    d += ldx;
    add_scaled(to, d0, d1, v128.load32_splat(d), s0, s1);
    dx += 4;
    w += gap;
    side += BLOCK_ROOM;
  }
}

/**
 * Four transposed rows, a whole panel: 8 sums, 2 weights and a splat of 256 bits, where V8 joins two of 128. `to` is moved to the upper half of y, since
 * with y + 32 the optimiser takes the offsets apart again. It runs twice for eight rows, so that a panel comes from the L1 cache at the second time: 1.03.
 */
@inline
function four_rows_wide(y: usize, ldy: usize, x: usize, count: i32, w: usize, gap: usize, side: usize, dx: usize, ldx: usize): void {
  const next = ldy - 32;
  for (; count > 0; count--) {
    let a0 = v128.load(side, 64), a1 = v128.load(side, 80), a2 = v128.load(side, 96), a3 = v128.load(side, 112);
    let b0 = a0, b1 = a1, b2 = a2, b3 = a3, c0 = a0, c1 = a1, c2 = a2, c3 = a3, d0 = a0, d1 = a1, d2 = a2, d3 = a3;
    for (const end = x + (BLOCK << 2); x < end; x += 16) {
      const w0 = v128.load(w), w1 = v128.load(w, 16), w2 = v128.load(w, 32), w3 = v128.load(w, 48);
      let xk = v128.load32_splat(x);
      a0 = byte_dots(w0, xk, a0);
      a1 = byte_dots(w1, xk, a1);
      a2 = byte_dots(w2, xk, a2);
      a3 = byte_dots(w3, xk, a3);
      xk = v128.load32_splat(x, 4);
      b0 = byte_dots(w0, xk, b0);
      b1 = byte_dots(w1, xk, b1);
      b2 = byte_dots(w2, xk, b2);
      b3 = byte_dots(w3, xk, b3);
      xk = v128.load32_splat(x, 8);
      c0 = byte_dots(w0, xk, c0);
      c1 = byte_dots(w1, xk, c1);
      c2 = byte_dots(w2, xk, c2);
      c3 = byte_dots(w3, xk, c3);
      xk = v128.load32_splat(x, 12);
      d0 = byte_dots(w0, xk, d0);
      d1 = byte_dots(w1, xk, d1);
      d2 = byte_dots(w2, xk, d2);
      d3 = byte_dots(w3, xk, d3);
      w += PANEL * 4;
    }
    const s0 = v128.load(side), s1 = v128.load(side, 16), s2 = v128.load(side, 32), s3 = v128.load(side, 48);
    let to = y, d = dx, scale = v128.load32_splat(d);
    add_scaled(to, a0, a1, scale, s0, s1);
    to += 32;
    add_scaled(to, a2, a3, scale, s2, s3);
    to += next;
    d += ldx;
    scale = v128.load32_splat(d);
    add_scaled(to, b0, b1, scale, s0, s1);
    to += 32;
    add_scaled(to, b2, b3, scale, s2, s3);
    to += next;
    d += ldx;
    scale = v128.load32_splat(d);
    add_scaled(to, c0, c1, scale, s0, s1);
    to += 32;
    add_scaled(to, c2, c3, scale, s2, s3);
    to += next;
    d += ldx;
    scale = v128.load32_splat(d);
    add_scaled(to, d0, d1, scale, s0, s1);
    to += 32;
    add_scaled(to, d2, d3, scale, s2, s3);
    dx += 4;
    w += gap;
    side += BLOCK_ROOM;
  }
}

/** Four rows of `count` bytes, transposed by fours: [count / 4][4][4]. */
@inline
function transpose_bytes(to: usize, x: usize, ldx: usize, count: i32, flip: v128): void {
  const x1 = x + ldx, x2 = x1 + ldx, x3 = x2 + ldx;
  for (let i: usize = 0; i < <usize>count; i += 16) {
    const a = v128.xor(v128.load(x + i), flip), b = v128.xor(v128.load(x1 + i), flip);
    transpose4(to, a, b, v128.xor(v128.load(x2 + i), flip), v128.xor(v128.load(x3 + i), flip));
    to += 64;
  }
}

/** Rows [0, T4) of y, T4 a multiple of 4, and panels [begin, whole), which have 16 outputs. */
export function linear_bytes(format: i32, kind: i32, y: usize, xq: usize, w: usize, T4: i32, K: i32, N: i32, begin: i32, whole: i32): void {
  const B = blocks(K);
  const ldx = row_bytes(K), ldy = <usize>N << 2;
  const block_bytes = format == Q8 ? Q8_BYTES : Q4_BYTES, gap = format == Q8 ? Q8_BYTES - Q_BYTES : SIDE_BYTES;
  const rows = scratch() + ROWS_AT;
  const flip = held(kind == UNSIGNED ? 0x80808080 : 0); // 128 more each, which the sums that dots begin from take away
  for (let group = begin; group < whole; group += GROUP) {
    const group_end = min(group + GROUP, whole);
    for (let t = 0; t < T4; t++) memory.fill(y + <usize>t * ldy + (<usize>group * PANEL << 2), 0, <usize>(group_end - group) * PANEL << 2);
    for (let slab = 0; slab < B; slab += SLAB_BLOCKS) {
      const count = min(SLAB_BLOCKS, B - slab), k = slab * BLOCK, far = <usize>(count * BLOCK) << 2;
      for (let p = group; p < group_end; p++) {
        const from = w + block_index(p, slab, K, N) * block_bytes, to = scratch() + <usize>(p - group) * (<usize>SLAB_BLOCKS * BLOCK_ROOM);
        for (let b = 0; b < count; b++) prepare(format, to + <usize>b * BLOCK_ROOM, from + <usize>b * block_bytes, kind);
      }
      for (let t = 0; t < T4; ) {
        const fours: usize = wide() && t + 8 <= T4 ? 2 : 1, xt = xq + <usize>t * ldx, from = xt + bytes_at(K) + <usize>k;
        const dx = xt + block_scales_at(K) + (<usize>slab << 2);
        for (let i: usize = 0; i < fours; i++) transpose_bytes(rows + i * far, from + 4 * i * ldx, ldx, count * BLOCK, flip);
        for (let p = group; p < group_end; p++) {
          const yt = y + <usize>t * ldy + <usize>p * PANEL * 4;
          const side = scratch() + <usize>(p - group) * (<usize>SLAB_BLOCKS * BLOCK_ROOM);
          const wp = format == Q8 ? w + block_index(p, slab, K, N) * block_bytes : side + SIDE_BYTES;
          if (wide()) {
            for (let i: usize = 0; i < fours; i++) four_rows_wide(yt + 4 * i * ldy, ldy, rows + i * far, count, wp, gap, side, dx + 4 * i * ldx, ldx);
          } else {
            four_rows(yt, ldy, rows, count, wp, gap, side, dx, ldx);
            four_rows(yt + 32, ldy, rows, count, wp + 32, gap, side + 32, dx, ldx);
          }
        }
        t += 4 * <i32>fours;
      }
    }
  }
}
