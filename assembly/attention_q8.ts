// The two products of attention for one query over some Q8 rows, in integers: for decoding with the relaxed build, where widening the rows to
// f32 would take longer than reading them. kv_cache.ts has the layout; the rows are those of attention_token.ts.
// The query and the probabilities, times the scales of the values, are rounded to 16 bits: 2^-16 of their largest, against 2^-8 in the cache.

import { KEYS } from './attention_block';
import { Q8, row_bytes } from './kv_cache';
import { decay8, store8, sums4 } from './simd';

/** n numbers at x as i16 at q, n a multiple of 4; returns what one of them stands for. */
@inline
export function to_16_bits(q: usize, x: usize, n: i32): f32 {
  let most = f32x4.splat(0);
  for (let i = 0; i < n; i += 4) most = f32x4.max(most, f32x4.abs(v128.load(x + (<usize>i << 2))));
  most = f32x4.max(most, v128.shuffle<i32>(most, most, 2, 3, 0, 1));
  const largest = max(f32x4.extract_lane(most, 0), f32x4.extract_lane(most, 1));
  const inverse = f32x4.splat(largest > 1e-30 ? 32767 / largest : 0);
  for (let i = 0; i < n; i += 4) {
    const v = i32x4.trunc_sat_f32x4_s(f32x4.nearest(f32x4.mul(v128.load(x + (<usize>i << 2)), inverse)));
    v128.store64_lane(q + (<usize>i << 1), i16x8.narrow_i32x4_s(v, v), 0);
  }
  return largest / 32767;
}

/** Scores of a block: dots with q, Dh numbers in 16 bits, times `unit` and the scale of the row. Reads rows of values beside those of keys. */
export function scores_q8(s: usize, room: usize, q: usize, unit: f32, k: usize, v: usize, part: usize, Dh: i32): void {
  const bytes = row_bytes(Q8, Dh);
  let lines = i32x4.splat(0);
  for (let j: usize = 0; j < <usize>KEYS << 2; j += 16) {
    let a0 = i32x4.splat(0), a1 = a0, a2 = a0, a3 = a0, b0 = a0, b1 = a0, b2 = a0, b3 = a0;
    let at = k + 4, other = v;
    for (let x = q; x < q + (<usize>Dh << 1); x += 32) {
      const x0 = v128.load(x), x1 = v128.load(x, 16);
      a0 = i32x4.add(a0, i32x4.dot_i16x8_s(x0, v128.load8x8_s(at)));
      b0 = i32x4.add(b0, i32x4.dot_i16x8_s(x1, v128.load8x8_s(at, 8)));
      a1 = i32x4.add(a1, i32x4.dot_i16x8_s(x0, v128.load8x8_s(at + part)));
      b1 = i32x4.add(b1, i32x4.dot_i16x8_s(x1, v128.load8x8_s(at + part, 8)));
      a2 = i32x4.add(a2, i32x4.dot_i16x8_s(x0, v128.load8x8_s(at + 2 * part)));
      b2 = i32x4.add(b2, i32x4.dot_i16x8_s(x1, v128.load8x8_s(at + 2 * part, 8)));
      a3 = i32x4.add(a3, i32x4.dot_i16x8_s(x0, v128.load8x8_s(at + 3 * part)));
      b3 = i32x4.add(b3, i32x4.dot_i16x8_s(x1, v128.load8x8_s(at + 3 * part, 8)));
      lines = v128.or(v128.or(lines, v128.load(other)), v128.load(other + part));
      lines = v128.or(v128.or(lines, v128.load(other + 2 * part)), v128.load(other + 3 * part));
      other += 16;
      at += 16;
    }
    store8(room, f32x4.convert_i32x4_s(a0), f32x4.convert_i32x4_s(b0));
    store8(room + 32, f32x4.convert_i32x4_s(a1), f32x4.convert_i32x4_s(b1));
    store8(room + 64, f32x4.convert_i32x4_s(a2), f32x4.convert_i32x4_s(b2));
    store8(room + 96, f32x4.convert_i32x4_s(a3), f32x4.convert_i32x4_s(b3));
    let d = v128.load32_zero(k);
    d = v128.load_lane<f32>(k + part, d, 1);
    d = v128.load_lane<f32>(k + 2 * part, d, 2);
    d = v128.load_lane<f32>(k + 3 * part, d, 3);
    v128.store(s + j, f32x4.mul(f32x4.mul(sums4(room), f32x4.splat(unit)), d));
    k += bytes;
    v += bytes;
  }
  v128.store(room, lines); // what is read must not be for nothing
}

/** o = keep o + the sum of a block with probabilities p, which are overwritten; p16 is room for KEYS numbers in 16 bits. */
export function values_q8(o: usize, p: usize, p16: usize, keep: f32, v: usize, part: usize, Dh: i32): void {
  const bytes = row_bytes(Q8, Dh);
  let row = v;
  for (let j: usize = 0; j < <usize>KEYS << 2; j += 16) {
    let d = v128.load32_zero(row);
    d = v128.load_lane<f32>(row + part, d, 1);
    d = v128.load_lane<f32>(row + 2 * part, d, 2);
    d = v128.load_lane<f32>(row + 3 * part, d, 3);
    v128.store(p + j, f32x4.mul(v128.load(p + j), d));
    row += bytes;
  }
  const unit = f32x4.splat(to_16_bits(p16, p, KEYS)), decay = f32x4.splat(keep), end = p16 + (<usize>KEYS << 1);
  for (let d: usize = 0; d < <usize>Dh; d += 16) {
    let a0 = i32x4.splat(0), a1 = a0, a2 = a0, a3 = a0, at = v + 4 + d;
    for (let pj = p16; pj < end; pj += 8) {
      for (let i: usize = 0; i < 8; i += 4) {
        const pair = v128.load32_splat(pj + i), from = at + (i >> 1) * part, x = v128.load(from), y = v128.load(from + part);
        const low = v128.shuffle<i8>(x, y, 0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23);
        const high = v128.shuffle<i8>(x, y, 8, 24, 9, 25, 10, 26, 11, 27, 12, 28, 13, 29, 14, 30, 15, 31);
        a0 = i32x4.add(a0, i32x4.dot_i16x8_s(i16x8.extend_low_i8x16_s(low), pair));
        a1 = i32x4.add(a1, i32x4.dot_i16x8_s(i16x8.extend_high_i8x16_s(low), pair));
        a2 = i32x4.add(a2, i32x4.dot_i16x8_s(i16x8.extend_low_i8x16_s(high), pair));
        a3 = i32x4.add(a3, i32x4.dot_i16x8_s(i16x8.extend_high_i8x16_s(high), pair));
      }
      at += bytes;
    }
    const to = o + (d << 2);
    decay8(to, f32x4.mul(f32x4.convert_i32x4_s(a0), unit), f32x4.mul(f32x4.convert_i32x4_s(a1), unit), decay);
    decay8(to + 32, f32x4.mul(f32x4.convert_i32x4_s(a2), unit), f32x4.mul(f32x4.convert_i32x4_s(a3), unit), decay);
  }
}
