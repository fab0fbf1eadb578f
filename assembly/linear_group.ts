// Products of one x with several weights: all that a layer projects from its input. The threads meet once for all of them.
//   table: [count] of i32 y, w, bias (addresses), N, format, panels      x, xq as in linear.ts and linear_integer.ts; xq 0: f32 arithmetic

import { linear_bf16, linear_f32, linear_q4, linear_q8 } from './linear';
import { linear_q4_integer, linear_q8_integer } from './linear_integer';
import { BF16, F32, Q8 } from './panels';

const ENTRY_BYTES: usize = 24;

/** Panels [begin, end) of all weights one after the other. f32 and bf16 weights take x itself. */
export function linear_group(table: usize, count: i32, x: usize, xq: usize, T: i32, K: i32, begin: i32, end: i32): void {
  let first = 0;
  for (let i = 0; i < count; i++) {
    const y = load<usize>(table), w = load<usize>(table, 4), bias = load<usize>(table, 8);
    const N = load<i32>(table, 12), format = load<i32>(table, 16), panels = load<i32>(table, 20);
    const from = max(begin - first, 0), to = min(end - first, panels);
    if (from < to) {
      if (format == F32) linear_f32(y, x, w, bias, T, K, N, from, to);
      else if (format == BF16) linear_bf16(y, x, w, bias, T, K, N, from, to);
      else if (format == Q8) {
        if (xq) linear_q8_integer(y, xq, w, bias, T, K, N, from, to);
        else linear_q8(y, x, w, bias, T, K, N, from, to);
      } else if (xq) linear_q4_integer(y, xq, w, bias, T, K, N, from, to);
      else linear_q4(y, x, w, bias, T, K, N, from, to);
    }
    first += panels;
    table += ENTRY_BYTES;
  }
}
