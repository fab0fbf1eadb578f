// The two products of attention for one query over a block of F16 rows, which are widened in registers. The sums are those of `attend` in attention.ts.

import { F16, F16_FACTOR, F16_MASK, high_f16, low_f16, row_bytes } from './kv_cache';
import { held } from './scratch';
import { decay8, hsum, madd, store8 } from './simd';

/** Heads whose rows are whole steps of both products. */
@inline
export function fits_f16(Dh: i32): bool {
  return Dh % 16 == 0;
}

/**
 * Whether `bytes`, a multiple of 32, of f16 at both places are finite. Reads them from front to back, side by side, as `touch` of simd.ts does.
 * @param room for 32 bytes
 */
@inline
function are_finite(room: usize, at: usize, other: usize, bytes: usize, magnitude: v128, most: v128): bool {
  let a = i16x8.splat(0), b = a, c = a, d = a;
  for (const end = at + bytes; at < end; at += 32) {
    a = i16x8.max_s(a, v128.and(v128.load(at), magnitude));
    b = i16x8.max_s(b, v128.and(v128.load(at, 16), magnitude));
    c = i16x8.max_s(c, v128.and(v128.load(other), magnitude));
    d = i16x8.max_s(d, v128.and(v128.load(other, 16), magnitude));
    other += 32;
  }
  store8(room, i16x8.max_s(a, c), i16x8.max_s(b, d));
  return !v128.any_true(i16x8.gt_s(i16x8.max_s(v128.load(room), v128.load(room, 16)), most));
}

/** Scores of keys [from, to). Returns whether they and their values are finite; the rows of values come from memory meanwhile. `room` is for 32 bytes. */
@inline
export function scores_f16(s: usize, room: usize, q: usize, scale: f32, block: usize, values: usize, Dh: i32, from: i32, to: i32): bool {
  let finite = true;
  const magnitude = held(0x7fff7fff), most = held(0x7bff7bff), mask = held(F16_MASK), factor = held(F16_FACTOR);
  const bytes = row_bytes(F16, Dh), end = <usize>Dh << 1;
  let j = from;
  for (; j + 4 <= to; j += 4) {
    let k = block + <usize>j * bytes, at = q;
    finite = finite & are_finite(room, k, values + <usize>j * bytes, bytes << 2, magnitude, most);
    const k_end = k + end;
    let a0 = f32x4.splat(0), a1 = a0, a2 = a0, a3 = a0;
    for (; k < k_end; k += 16) {
      const q0 = v128.load(at), q1 = v128.load(at, 16);
      let x = v128.load(k);
      a0 = madd(madd(a0, q0, low_f16(x, mask, factor)), q1, high_f16(x, mask, factor));
      x = v128.load(k + bytes);
      a1 = madd(madd(a1, q0, low_f16(x, mask, factor)), q1, high_f16(x, mask, factor));
      x = v128.load(k + 2 * bytes);
      a2 = madd(madd(a2, q0, low_f16(x, mask, factor)), q1, high_f16(x, mask, factor));
      x = v128.load(k + 3 * bytes);
      a3 = madd(madd(a3, q0, low_f16(x, mask, factor)), q1, high_f16(x, mask, factor));
      at += 32;
    }
    const to = s + (<usize>j << 2);
    store<f32>(to, hsum(a0) * scale);
    store<f32>(to, hsum(a1) * scale, 4);
    store<f32>(to, hsum(a2) * scale, 8);
    store<f32>(to, hsum(a3) * scale, 12);
  }
  for (; j < to; j++) {
    let k = block + <usize>j * bytes, at = q;
    finite = finite & are_finite(room, k, values + <usize>j * bytes, bytes, magnitude, most);
    const k_end = k + end;
    let a = f32x4.splat(0);
    for (; k < k_end; k += 16) {
      const x = v128.load(k);
      a = madd(madd(a, v128.load(at), low_f16(x, mask, factor)), v128.load(at, 16), high_f16(x, mask, factor));
      at += 32;
    }
    store<f32>(s + (<usize>j << 2), hsum(a) * scale);
  }
  return finite;
}

/** o = keep o + the sum of keys [from, to) with probabilities p. */
@inline
export function values_f16(o: usize, p: usize, keep: f32, block: usize, Dh: i32, from: i32, to: i32): void {
  const mask = held(F16_MASK), factor = held(F16_FACTOR);
  const bytes = row_bytes(F16, Dh), decay = f32x4.splat(keep), end = p + (<usize>to << 2);
  for (let d = 0; d < Dh; d += 16) {
    let v = block + <usize>from * bytes + (<usize>d << 1);
    let a0 = f32x4.splat(0), a1 = a0, a2 = a0, a3 = a0;
    for (let at = p + (<usize>from << 2); at < end; at += 4) {
      const pj = v128.load32_splat(at), x = v128.load(v), y = v128.load(v, 16);
      a0 = madd(a0, pj, low_f16(x, mask, factor));
      a1 = madd(a1, pj, high_f16(x, mask, factor));
      a2 = madd(a2, pj, low_f16(y, mask, factor));
      a3 = madd(a3, pj, high_f16(y, mask, factor));
      v += bytes;
    }
    const od = o + (<usize>d << 2);
    decay8(od, a0, a1, decay);
    decay8(od + 32, a2, a3, decay);
  }
}
