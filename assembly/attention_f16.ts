// The two products of attention for one query over a block of F16 rows, which are widened in registers. The sums are those of `attend` in attention.ts.

import { F16, F16_FACTOR, F16_MASK, high_f16, low_f16, row_bytes } from './kv_cache';
import { held } from './scratch';
import { decay8, hsum, madd } from './simd';

/** Heads whose rows are whole steps of both products. */
@inline
export function fits_f16(Dh: i32): bool {
  return Dh % 16 == 0;
}

/**
 * Scores of keys [from, to). Returns whether they and their values are finite: values are read beside keys, from front to back, and come from memory
 * meanwhile.
 * @param room for 16 bytes
 */
@inline
export function scores_f16(s: usize, room: usize, q: usize, scale: f32, block: usize, values: usize, Dh: i32, from: i32, to: i32): bool {
  const magnitude = held(0x7fff7fff), most = held(0x7bff7bff), mask = held(F16_MASK), factor = held(F16_FACTOR);
  const bytes = row_bytes(F16, Dh), end = <usize>Dh << 1;
  let largest = i16x8.splat(0), other = largest, lines = largest;
  let j = from;
  for (; j + 4 <= to; j += 4) {
    let k = block + <usize>j * bytes, v = values + <usize>j * bytes, at = q;
    let next = j + 8 <= to ? k + (bytes << 2) : k; // no prefetcher follows four rows side by side: a line of the next four is read in each step
    const k_end = k + end;
    let a0 = f32x4.splat(0), a1 = a0, a2 = a0, a3 = a0;
    for (; k < k_end; k += 16) {
      const q0 = v128.load(at), q1 = v128.load(at, 16);
      lines = v128.or(lines, v128.load(next));
      let x = v128.load(k);
      largest = i16x8.max_s(largest, v128.and(x, magnitude));
      a0 = madd(madd(a0, q0, low_f16(x, mask, factor)), q1, high_f16(x, mask, factor));
      x = v128.load(k + bytes);
      other = i16x8.max_s(other, v128.and(x, magnitude));
      a1 = madd(madd(a1, q0, low_f16(x, mask, factor)), q1, high_f16(x, mask, factor));
      x = v128.load(k + 2 * bytes);
      largest = i16x8.max_s(largest, v128.and(x, magnitude));
      a2 = madd(madd(a2, q0, low_f16(x, mask, factor)), q1, high_f16(x, mask, factor));
      x = v128.load(k + 3 * bytes);
      other = i16x8.max_s(other, v128.and(x, magnitude));
      a3 = madd(madd(a3, q0, low_f16(x, mask, factor)), q1, high_f16(x, mask, factor));
      largest = i16x8.max_s(largest, v128.and(v128.load(v), magnitude));
      other = i16x8.max_s(other, v128.and(v128.load(v, 16), magnitude));
      largest = i16x8.max_s(largest, v128.and(v128.load(v, 32), magnitude));
      other = i16x8.max_s(other, v128.and(v128.load(v, 48), magnitude));
      v += 64;
      next += 64;
      at += 32;
    }
    const to = s + (<usize>j << 2);
    store<f32>(to, hsum(a0) * scale);
    store<f32>(to, hsum(a1) * scale, 4);
    store<f32>(to, hsum(a2) * scale, 8);
    store<f32>(to, hsum(a3) * scale, 12);
  }
  for (; j < to; j++) {
    let k = block + <usize>j * bytes, v = values + <usize>j * bytes, at = q;
    const k_end = k + end;
    let a = f32x4.splat(0);
    for (; k < k_end; k += 16) {
      const x = v128.load(k);
      largest = i16x8.max_s(largest, v128.and(x, magnitude));
      other = i16x8.max_s(other, v128.and(v128.load(v), magnitude));
      a = madd(madd(a, v128.load(at), low_f16(x, mask, factor)), v128.load(at, 16), high_f16(x, mask, factor));
      v += 16;
      at += 32;
    }
    store<f32>(s + (<usize>j << 2), hsum(a) * scale);
  }
  v128.store(room, lines);
  return !v128.any_true(i16x8.gt_s(i16x8.max_s(largest, other), most));
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
