// y = x W^T row by row, for few rows: decode, which reads every weight once.                     linear.ts, linear_integer.ts say what is computed
//
// A row meets four panels, or two, by turns, from places that lie as far apart as the thread's part of W allows: long streams through memory. One
// thread reads a quarter to a half more of four of them than of one, or of short ones (Emerald Rapids, Node 20). The turns are one to two kilobytes long:
// sums lie in scratch meanwhile. Two panels take a turn together, so that the splats of x serve twice.

import {
  apart, BF16, PANEL, panel_at, Q4_BYTES, Q8, Q8_BYTES, QUANT, SLAB, SLAB_BLOCKS, streams, TOGETHER, widen,
} from './panels';
import { row_integer } from './linear_row_blocks';
import { row_bytes } from './round_rows';
import { held, scratch } from './scratch';
import { add8, madd, store8 } from './simd';

/** Products of f32 that are summed from zero before they come to the others. */
export const BLOCK: i32 = 32;
/** A slab of a panel in f32. */
const WIDE: usize = <usize>SLAB * PANEL * 4;

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
        let p = v128.load(w), q = v128.load(w, 16);
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
    add8(sums, a0, a1);
    add8(sums + 32, a2, a3);
    add8(sums + 64, a4, a5);
    add8(sums + 96, a6, a7);
  }
}

/** Products that a pair of panels takes in a turn. */
@inline
function turn_length(format: i32, integer: bool): i32 {
  return integer ? 4 * QUANT : (format == BF16 ? 2 : 1) * BLOCK;
}

/** Their bytes in a panel. */
@inline
function turn_bytes(format: i32, integer: bool): usize {
  if (!integer) return <usize>turn_length(format, false) * PANEL * (format == BF16 ? 2 : 4);
  return <usize>(turn_length(format, true) / QUANT) * (format == Q8 ? Q8_BYTES : Q4_BYTES);
}

@inline
function zero_panel(at: usize): void {
  const zero = f32x4.splat(0);
  store8(at, zero, zero);
  at += 32;
  store8(at, zero, zero);
}

/** y + sums to y, a panel; zero takes the place of y at first. */
@inline
function add_slab(y: usize, sums: usize, first: bool): void {
  if (first) zero_panel(y);
  add8(y, v128.load(sums), v128.load(sums, 16));
  y += 32;
  add8(y, v128.load(sums, 32), v128.load(sums, 48));
}

/** Sums of a panel: zeros, or what y has. */
@inline
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
  const length = turn_length(format, integer);
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
          let at = w + panel_at(stored, p, k, K, N), far = ways > 1 ? w + panel_at(stored, p + distance, k, K, N) - at : 0;
          if (widened) {
            at = wide;
            far = ways > 1 ? WIDE : 0;
            for (let i = 0; i < ways; i++) widen(stored, at + <usize>i * far, w, p + i * distance, k, K, N, mask);
          }
          for (let t = p < whole ? from : 0; t < T; t++) {
            const xt = x + <usize>t * ldx;
            let yt = y + <usize>t * ldy + (<usize>p * PANEL << 2);
            const y_last = yt, bytes = <usize>min(PANEL, N - p * PANEL) << 2;
            if (ways == 1) { // perhaps not 16 outputs; taken as a pair with itself
              yt = room;
              memory.copy(room, y_last, bytes);
            }
            for (let i = 0; i < max(ways, 2); i++) begin_sums(sums + <usize>i * PANEL * 4, yt + <usize>i * y_apart, integer && k > 0 && i < ways);
            for (let j = k, wj = at; j < k_end; j += length) {
              const count = min(length, k_end - j);
              for (let i = 0; i < ways; i += 2) {
                const to = sums + <usize>i * PANEL * 4, wi = wj + <usize>i * far;
                if (integer) row_integer(format, single, to, xt, wi, far, j, count, K, low, mask);
                else row_float(format, to, xt + (<usize>j << 2), wi, far, count, mask);
              }
              wj += turn_bytes(format, integer);
            }
            for (let i = 0; i < ways; i++) add_slab(yt + <usize>i * y_apart, sums + <usize>i * PANEL * 4, integer || k == 0);
            if (ways == 1) memory.copy(y_last, room, bytes);
          }
        }
      }
    }
  }
}
