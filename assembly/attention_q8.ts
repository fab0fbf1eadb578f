// The two products of attention for one query over a block of Q8 rows, in integers: for decoding with the relaxed build, where widening the rows to
// f32 would take longer than reading them. kv_cache.ts has the layout.
// The query and the probabilities, times the scales of the values, are rounded to 16 bits: 2^-16 of their largest, against 2^-8 in the cache.

import { KEYS } from './attention';
import { Q8, row_bytes } from './kv_cache';
import { decay8 } from './simd';

/** Heads for which the dots fit 32 bits: 512 * 32767 * 127 < 2^31. */
@inline
export function fits(Dh: i32): bool {
  return Dh % 16 == 0 && Dh <= 512;
}

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

/** Scores of keys [from, to): dots with q, Dh numbers in 16 bits, times `unit` and the scale of the row. */
@inline
export function scores_q8(s: usize, q: usize, unit: f32, block: usize, Dh: i32, from: i32, to: i32): void {
  const bytes = row_bytes(Q8, Dh);
  let j = from;
  for (; j + 4 <= to; j += 4) {
    const k = block + <usize>j * bytes;
    let k0 = k + 4, k1 = k0 + bytes, k2 = k1 + bytes, k3 = k2 + bytes;
    let a0 = i32x4.splat(0), a1 = i32x4.splat(0), a2 = i32x4.splat(0), a3 = i32x4.splat(0);
    for (let at = q; at < q + (<usize>Dh << 1); at += 16) {
      const x = v128.load(at);
      a0 = i32x4.add(a0, i32x4.dot_i16x8_s(x, v128.load8x8_s(k0)));
      a1 = i32x4.add(a1, i32x4.dot_i16x8_s(x, v128.load8x8_s(k1)));
      a2 = i32x4.add(a2, i32x4.dot_i16x8_s(x, v128.load8x8_s(k2)));
      a3 = i32x4.add(a3, i32x4.dot_i16x8_s(x, v128.load8x8_s(k3)));
      k0 += 8;
      k1 += 8;
      k2 += 8;
      k3 += 8;
    }
    const low = i32x4.add(v128.shuffle<i32>(a0, a1, 0, 4, 1, 5), v128.shuffle<i32>(a0, a1, 2, 6, 3, 7));
    const high = i32x4.add(v128.shuffle<i32>(a2, a3, 0, 4, 1, 5), v128.shuffle<i32>(a2, a3, 2, 6, 3, 7));
    const dots = f32x4.convert_i32x4_s(i32x4.add(v128.shuffle<i64>(low, high, 0, 2), v128.shuffle<i64>(low, high, 1, 3)));
    let d = v128.load32_zero(k);
    d = v128.load_lane<f32>(k + bytes, d, 1);
    d = v128.load_lane<f32>(k + 2 * bytes, d, 2);
    d = v128.load_lane<f32>(k + 3 * bytes, d, 3);
    v128.store(s + (<usize>j << 2), f32x4.mul(f32x4.mul(dots, f32x4.splat(unit)), d));
  }
  for (; j < to; j++) {
    const k = block + <usize>j * bytes;
    let a = i32x4.splat(0);
    for (let i: usize = 0; i < <usize>Dh; i += 8) a = i32x4.add(a, i32x4.dot_i16x8_s(v128.load(q + (i << 1)), v128.load8x8_s(k + 4 + i)));
    a = i32x4.add(a, v128.shuffle<i32>(a, a, 2, 3, 0, 1));
    store<f32>(s + (<usize>j << 2), <f32>(i32x4.extract_lane(a, 0) + i32x4.extract_lane(a, 1)) * unit * load<f32>(k));
  }
}

/** o = keep o + the sum of keys [from, to) with probabilities p, which are overwritten; p16 is room for KEYS numbers in 16 bits. */
@inline
export function values_q8(o: usize, p: usize, p16: usize, keep: f32, block: usize, Dh: i32, from: i32, to: i32): void {
  const bytes = row_bytes(Q8, Dh);
  for (let j = 0; j < KEYS; j++) {
    const at = p + (<usize>j << 2);
    store<f32>(at, j >= from && j < to ? load<f32>(at) * load<f32>(block + <usize>j * bytes) : 0);
  }
  const unit = f32x4.splat(to_16_bits(p16, p, KEYS)), decay = f32x4.splat(keep);
  const first = p16 + (<usize>(from & ~1) << 1), end = p16 + (<usize>to << 1);
  for (let d = 0; d < Dh; d += 16) {
    let v = block + <usize>(from & ~1) * bytes + 4 + d;
    let a0 = i32x4.splat(0), a1 = i32x4.splat(0), a2 = i32x4.splat(0), a3 = i32x4.splat(0);
    for (let at = first; at < end; at += 4) {
      const pair = v128.load32_splat(at), x = v128.load(v), y = v128.load(v + bytes);
      const low = v128.shuffle<i8>(x, y, 0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23);
      const high = v128.shuffle<i8>(x, y, 8, 24, 9, 25, 10, 26, 11, 27, 12, 28, 13, 29, 14, 30, 15, 31);
      a0 = i32x4.add(a0, i32x4.dot_i16x8_s(i16x8.extend_low_i8x16_s(low), pair));
      a1 = i32x4.add(a1, i32x4.dot_i16x8_s(i16x8.extend_high_i8x16_s(low), pair));
      a2 = i32x4.add(a2, i32x4.dot_i16x8_s(i16x8.extend_low_i8x16_s(high), pair));
      a3 = i32x4.add(a3, i32x4.dot_i16x8_s(i16x8.extend_high_i8x16_s(high), pair));
      v += 2 * bytes;
    }
    const od = o + (<usize>d << 2);
    decay8(od, f32x4.mul(f32x4.convert_i32x4_s(a0), unit), f32x4.mul(f32x4.convert_i32x4_s(a1), unit), decay);
    decay8(od + 32, f32x4.mul(f32x4.convert_i32x4_s(a2), unit), f32x4.mul(f32x4.convert_i32x4_s(a3), unit), decay);
  }
}
