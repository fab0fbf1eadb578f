// Keys and values of attention in one of three formats: cache [Hkv, S] rows of Dh numbers, each row a whole number of 32-bit words.
//   F32   Dh f32
//   F16   Dh f16, filled up to a word
//   Q8    an f32 scale d and Dh i8, filled up to a word: x = d q, d = max|x| / 127
// One scale for each row: it is quantised when it is written, from itself alone, so that a prompt may be cut anywhere. The scale is f32 since rows
// are whole words anyway: bf16 would save nothing, and add an error of its own.
// NaN and infinity are kept, in Q8 for the row as a whole.

import { f32_to_half, half_to_f32 } from './half';
import { held } from './scratch';
import { store8 } from './simd';

export const F32: i32 = 0;
export const F16: i32 = 1;
export const Q8: i32 = 2;

/** Bytes of a row. */
@inline
export function row_bytes(format: i32, Dh: i32): usize {
  if (format == F32) return <usize>Dh << 2;
  if (format == F16) return <usize>(Dh + 1 >> 1) << 2;
  return <usize>(Dh + 7 >> 2) << 2;
}

/** Rows [begin, end) of the caches' heads: x [T, Hkv, Dh] is written to the cache at `position`. */
export function kv_append(
  cache: usize, x: usize, T: i32, position: i32, S: i32, Hkv: i32, Dh: i32, format: i32, begin: i32, end: i32,
): void {
  const bytes = row_bytes(format, Dh);
  for (let h = begin; h < end; h++) {
    for (let t = 0; t < T; t++) {
      const to = cache + (<usize>h * S + position + t) * bytes, from = x + ((<usize>t * Hkv + h) * Dh << 2);
      if (format == F32) memory.copy(to, from, bytes);
      else if (format == F16) narrow_f16(to, from, Dh);
      else quantise(to, from, Dh);
    }
  }
}

function narrow_f16(to: usize, x: usize, Dh: i32): void {
  if (Dh & 1) store<u16>(to + (<usize>Dh << 1), 0);
  for (let i = 0; i < Dh; i++) store<u16>(to + (<usize>i << 1), f32_to_half(load<f32>(x + (<usize>i << 2))));
}

function quantise(to: usize, x: usize, Dh: i32): void {
  let largest: f32 = 0;
  for (let i = 0; i < Dh; i++) largest = max(largest, abs(load<f32>(x + (<usize>i << 2))));
  const d = largest / 127;
  store<f32>(to, d);
  store<u32>(to + (<usize>(Dh + 3 >> 2) << 2), 0); // the last word
  for (let i = 0; i < Dh; i++) {
    const q = nearest(load<f32>(x + (<usize>i << 2)) / d);
    store<i8>(to + 4 + i, d > 0 ? <i32>max<f32>(-127, min<f32>(127, q)) : 0);
  }
}

/** Widens rows [from, to) of a block to f32 rows, from F16 with all its values; from Q8 the integers, with their scales beside them. */
export function widen(format: i32, wide: usize, scales: usize, block: usize, Dh: i32, from: i32, to: i32): void {
  const bytes = row_bytes(format, Dh);
  for (let j = from; j < to; j++) {
    const row = block + <usize>j * bytes, out = wide + (<usize>j * Dh << 2);
    if (format == F16) {
      widen_f16(out, row, Dh);
    } else {
      store<f32>(scales + (<usize>j << 2), load<f32>(row));
      widen_i8(out, row + 4, Dh);
    }
  }
}

// Sign extended and shifted by 13, an f16 is an f32 with an exponent that is 112 too small, once the copies of the sign are masked.
export const F16_MASK: u32 = 0x8fffe000;
export const F16_FACTOR: u32 = 0x77800000;

/** The first four of eight finite f16 as f32, exact; the other two are the constants above, held. */
@inline
export function low_f16(x: v128, mask: v128, factor: v128): v128 {
  return f32x4.mul(v128.and(i32x4.shl(i32x4.extend_low_i16x8_s(x), 13), mask), factor);
}

/** The last four. */
@inline
export function high_f16(x: v128, mask: v128, factor: v128): v128 {
  return f32x4.mul(v128.and(i32x4.shl(i32x4.extend_high_i16x8_s(x), 13), mask), factor);
}

@inline
function widen_f16(out: usize, row: usize, Dh: i32): void {
  const Dh8 = Dh & ~7;
  const magnitude = held(0x7fff7fff), most = held(0x7bff7bff), mask = held(F16_MASK), factor = held(F16_FACTOR);
  let other = i16x8.splat(0);
  for (let i = 0; i < Dh8; i += 8) {
    const x = v128.load(row + (<usize>i << 1)), to = out + (<usize>i << 2);
    other = v128.or(other, i16x8.gt_s(v128.and(x, magnitude), most));
    store8(to, low_f16(x, mask, factor), high_f16(x, mask, factor));
  }
  for (let i = v128.any_true(other) ? 0 : Dh8; i < Dh; i++) store<f32>(out + (<usize>i << 2), half_to_f32(load<u16>(row + (<usize>i << 1))));
}

@inline
function widen_i8(out: usize, row: usize, Dh: i32): void {
  const Dh8 = Dh & ~7;
  for (let i = 0; i < Dh8; i += 8) {
    const x = v128.load8x8_s(row + i), to = out + (<usize>i << 2);
    store8(to, f32x4.convert_i32x4_s(i32x4.extend_low_i16x8_s(x)), f32x4.convert_i32x4_s(i32x4.extend_high_i16x8_s(x)));
  }
  for (let i = Dh8; i < Dh; i++) store<f32>(out + (<usize>i << 2), <f32>load<i8>(row + i));
}
