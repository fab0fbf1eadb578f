// The two products of attention for one query over a block of F16 rows, which are widened in registers. The sums are those of `attend` in
// attention_block.ts, and the rows those of attention_token.ts.

import { KEYS } from './attention_block';
import { F16_FACTOR, F16_MASK, high_f16, low_f16 } from './kv_cache';
import { held } from './scratch';
import { decay8, madd, store8, sums4 } from './simd';

/** Scores of a block. Returns whether its keys and values are finite: those are read beside these, and come from memory meanwhile. */
export function scores_f16(s: usize, room: usize, q: usize, scale: f32, k: usize, v: usize, part: usize, Dh: i32): bool {
  const magnitude = held(0x7fff7fff), most = held(0x7bff7bff), mask = held(F16_MASK), factor = held(F16_FACTOR);
  let largest = i16x8.splat(0), other = largest;
  for (let j: usize = 0; j < <usize>KEYS << 2; j += 16) {
    let a0 = f32x4.splat(0), a1 = a0, a2 = a0, a3 = a0, b0 = a0, b1 = a0, b2 = a0, b3 = a0, at = q;
    for (const end = q + (<usize>Dh << 2); at < end; at += 32) {
      const q0 = v128.load(at), q1 = v128.load(at, 16);
      let x = v128.load(k);
      largest = i16x8.max_s(largest, v128.and(x, magnitude));
      a0 = madd(a0, q0, low_f16(x, mask, factor));
      b0 = madd(b0, q1, high_f16(x, mask, factor));
      x = v128.load(k + part);
      other = i16x8.max_s(other, v128.and(x, magnitude));
      a1 = madd(a1, q0, low_f16(x, mask, factor));
      b1 = madd(b1, q1, high_f16(x, mask, factor));
      x = v128.load(k + 2 * part);
      largest = i16x8.max_s(largest, v128.and(x, magnitude));
      a2 = madd(a2, q0, low_f16(x, mask, factor));
      b2 = madd(b2, q1, high_f16(x, mask, factor));
      x = v128.load(k + 3 * part);
      other = i16x8.max_s(other, v128.and(x, magnitude));
      a3 = madd(a3, q0, low_f16(x, mask, factor));
      b3 = madd(b3, q1, high_f16(x, mask, factor));
      largest = i16x8.max_s(largest, v128.and(v128.load(v), magnitude));
      other = i16x8.max_s(other, v128.and(v128.load(v + part), magnitude));
      largest = i16x8.max_s(largest, v128.and(v128.load(v + 2 * part), magnitude));
      other = i16x8.max_s(other, v128.and(v128.load(v + 3 * part), magnitude));
      k += 16;
      v += 16;
    }
    store8(room, a0, b0);
    store8(room + 32, a1, b1);
    store8(room + 64, a2, b2);
    store8(room + 96, a3, b3);
    v128.store(s + j, f32x4.mul(sums4(room), f32x4.splat(scale)));
  }
  return !v128.any_true(i16x8.gt_s(i16x8.max_s(largest, other), most));
}

/** o = keep o + the sum of a block with probabilities p. */
export function values_f16(o: usize, p: usize, keep: f32, v: usize, part: usize, Dh: i32): void {
  const mask = held(F16_MASK), factor = held(F16_FACTOR);
  const row = <usize>Dh << 1, decay = f32x4.splat(keep), end = p + (<usize>KEYS << 2);
  for (let d: usize = 0; d < row; d += 32) {
    let a0 = f32x4.splat(0), a1 = a0, a2 = a0, a3 = a0, at = v + d;
    for (let pj = p; pj < end; pj += 16) {
      let from = at;
      for (let i: usize = 0; i < 16; i += 4) {
        const by = v128.load32_splat(pj + i), x = v128.load(from), y = v128.load(from, 16);
        a0 = madd(a0, by, low_f16(x, mask, factor));
        a1 = madd(a1, by, high_f16(x, mask, factor));
        a2 = madd(a2, by, low_f16(y, mask, factor));
        a3 = madd(a3, by, high_f16(y, mask, factor));
        from += part;
      }
      at += row;
    }
    const to = o + (d << 1);
    decay8(to, a0, a1, decay);
    decay8(to + 32, a2, a3, decay);
  }
}
