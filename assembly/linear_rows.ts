// y = x W^T row by row, for few rows: decode, which reads every weight once.                     linear.ts, linear_integer.ts say what is computed
//
// A row meets four panels side by side, from places that lie as far apart as the thread's part of W allows: one core reads more of four long streams
// through memory than of one, two, or four by turns (Emerald Rapids, Node 20 to 24: 1.04 to 1.12 times as much as two pairs by turns of two kilobytes).

import { BF16, BLOCK, PANEL, panel_at, SLAB, SLAB_BLOCKS, TOGETHER, widen } from './panels';
import { row_integer } from './linear_row_blocks';
import { row_bytes } from './round_rows';
import { held, scratch } from './scratch';
import { add8, madd, store8 } from './simd';

/** Products of f32 that are summed from zero before they come to the others. */
export const SUM_BLOCK: i32 = 32;
/** A slab of a panel in f32. */
const WIDE: usize = <usize>SLAB * PANEL * 4;

/** Adds `count` products of four panels of f32 or bf16 to their sums. @param places the panels' addresses */
@inline
function row_float(format: i32, sums: usize, x: usize, places: usize, count: i32, mask: v128): void {
  const end = x + (<usize>count << 2);
  let w = load<usize>(places), v = load<usize>(places, 4), u = load<usize>(places, 8), t = load<usize>(places, 12);
  while (x < end) {
    const block_end = min(x + (SUM_BLOCK << 2), end);
    let a0 = f32x4.splat(0), a1 = a0, a2 = a0, a3 = a0, a4 = a0, a5 = a0, a6 = a0, a7 = a0;
    let a8 = a0, a9 = a0, a10 = a0, a11 = a0, a12 = a0, a13 = a0, a14 = a0, a15 = a0;
    while (x < block_end) {
      const xk = v128.load32_splat(x);
      if (format == BF16) {
        let p: v128, q: v128;
        p = v128.load(w);
        q = v128.load(w, 16);
        a0 = madd(a0, xk, i32x4.shl(p, 16));
        a1 = madd(a1, xk, i32x4.shl(q, 16));
        a2 = madd(a2, xk, v128.and(p, mask));
        a3 = madd(a3, xk, v128.and(q, mask));
        p = v128.load(v);
        q = v128.load(v, 16);
        a4 = madd(a4, xk, i32x4.shl(p, 16));
        a5 = madd(a5, xk, i32x4.shl(q, 16));
        a6 = madd(a6, xk, v128.and(p, mask));
        a7 = madd(a7, xk, v128.and(q, mask));
        p = v128.load(u);
        q = v128.load(u, 16);
        a8 = madd(a8, xk, i32x4.shl(p, 16));
        a9 = madd(a9, xk, i32x4.shl(q, 16));
        a10 = madd(a10, xk, v128.and(p, mask));
        a11 = madd(a11, xk, v128.and(q, mask));
        p = v128.load(t);
        q = v128.load(t, 16);
        a12 = madd(a12, xk, i32x4.shl(p, 16));
        a13 = madd(a13, xk, i32x4.shl(q, 16));
        a14 = madd(a14, xk, v128.and(p, mask));
        a15 = madd(a15, xk, v128.and(q, mask));
      } else {
        a0 = madd(a0, xk, v128.load(w));
        a1 = madd(a1, xk, v128.load(w, 16));
        a2 = madd(a2, xk, v128.load(w, 32));
        a3 = madd(a3, xk, v128.load(w, 48));
        a4 = madd(a4, xk, v128.load(v));
        a5 = madd(a5, xk, v128.load(v, 16));
        a6 = madd(a6, xk, v128.load(v, 32));
        a7 = madd(a7, xk, v128.load(v, 48));
        a8 = madd(a8, xk, v128.load(u));
        a9 = madd(a9, xk, v128.load(u, 16));
        a10 = madd(a10, xk, v128.load(u, 32));
        a11 = madd(a11, xk, v128.load(u, 48));
        a12 = madd(a12, xk, v128.load(t));
        a13 = madd(a13, xk, v128.load(t, 16));
        a14 = madd(a14, xk, v128.load(t, 32));
        a15 = madd(a15, xk, v128.load(t, 48));
      }
      const row: usize = format == BF16 ? PANEL * 2 : PANEL * 4;
      w += row;
      v += row;
      u += row;
      t += row;
      x += 4;
    }
    add8(sums, a0, a1);
    add8(sums + 32, a2, a3);
    add8(sums + 64, a4, a5);
    add8(sums + 96, a6, a7);
    add8(sums + 128, a8, a9);
    add8(sums + 160, a10, a11);
    add8(sums + 192, a12, a13);
    add8(sums + 224, a14, a15);
  }
}

@inline
function zero_panel(at: usize): void {
  const zero = f32x4.splat(0);
  store8(at, zero, zero);
  at += 32;
  store8(at, zero, zero);
}

/** y + sums to y, a panel; zero takes the place of y at first. */
function add_slab(y: usize, sums: usize, first: bool): void {
  if (first) zero_panel(y);
  add8(y, v128.load(sums), v128.load(sums, 16));
  y += 32;
  add8(y, v128.load(sums, 32), v128.load(sums, 48));
}

/** Sums of a panel: zeros, or what y has. */
function begin_sums(sums: usize, y: usize, go_on: bool): void {
  zero_panel(sums);
  if (go_on) add_slab(sums, y, false);
}

/**
 * Panels [begin, end) of rows [from, T), and of all rows for the last panel of an N that 16 does not divide.
 * @param format that of the inner loop; where `stored` is another, slabs are widened to f32 in scratch
 * @param integer whether x is of round_rows.ts, and f32 otherwise
 * @param single whether dots of bytes are one instruction: q4 takes them then
 */
@inline
export function linear_rows(
  format: i32, stored: i32, integer: bool, single: bool, y: usize, x: usize, w: usize, from: i32, T: i32, K: i32, N: i32, begin: i32, end: i32,
): void {
  const low = held(0x0f0f0f0f), mask = held(0xffff0000);
  const widened = stored != format;
  const ldx = integer ? row_bytes(K) : <usize>K << 2, ldy = <usize>N << 2;
  const step = integer ? SLAB_BLOCKS * BLOCK : SLAB;
  const sums = scratch(), room = sums + 4 * PANEL * 4, places = room + PANEL * 4, wide = places + PANEL * 4;
  const whole = min(end, N / PANEL); // panels [begin, whole) have 16 outputs
  // Panels p, p + distance, p + 2 distance and p + 3 distance are taken together; those that are left, fewer than four, alone, as four times the same.
  for (let first = begin, next = begin; first < end; first = next) {
    const count = whole - first, alone = count < 4; // perhaps not 16 outputs; taken as four times the same
    const distance = alone ? 0 : max(count / (4 * TOGETHER) * TOGETHER, 1), y_apart = <usize>(distance * PANEL) << 2;
    next = first + (alone ? 1 : 4 * distance);
    for (let group = first, group_end = first; group < next - 3 * distance; group = group_end) {
      group_end = min((group / TOGETHER + 1) * TOGETHER, next - 3 * distance);
      for (let k = 0; k < K; k += step) {
        const k_end = min(k + step, K);
        for (let p = group; p < group_end; p++) {
          for (let i = 0; i < 4; i++) {
            const at = wide + <usize>i * WIDE;
            if (widened) widen(stored, at, w, p + i * distance, k, K, N, mask);
            store<usize>(places + (<usize>i << 2), widened ? at : w + panel_at(stored, p + i * distance, k, K, N));
          }
          for (let t = p < whole ? from : 0; t < T; t++) {
            const xt = x + <usize>t * ldx;
            let yt = y + <usize>t * ldy + (<usize>p * PANEL << 2);
            const y_last = yt, bytes = <usize>min(PANEL, N - p * PANEL) << 2;
            if (alone) {
              yt = room;
              memory.copy(room, y_last, bytes);
            }
            for (let i: usize = 0; i < 4; i++) begin_sums(sums + i * PANEL * 4, yt + i * y_apart, integer && k > 0);
            if (integer) row_integer(format, single, sums, xt, places, k, k_end - k, K, low, mask);
            else row_float(format, sums, xt + (<usize>k << 2), places, k_end - k, mask);
            for (let i: usize = 0; i < 4; i++) {
              if (i == 0 || !alone) add_slab(yt + i * y_apart, sums + i * PANEL * 4, integer || k == 0);
            }
            if (alone) memory.copy(y_last, room, bytes);
          }
        }
      }
    }
  }
}
