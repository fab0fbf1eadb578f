// One token and one head over all keys and values that it sees, in the relaxed build: decoding takes as long as memory does.
// A prefetcher goes on for some twenty lines of a page by itself, so one stream is half as fast as memory, and stands still while the core computes. So the
// keys are cut in four parts, of which a block takes a row each by turns: with their values eight streams, which go on between blocks. Emerald Rapids, one
// thread, F16: 54 ns a position of 128 numbers; with one stream of keys and one of values 68 to 77; reading alone takes 42.

import { attend, dot4, finish, KEYS, probabilities, ROOM_AT, start, WIDE_AT, widen_block } from './attention_block';
import { scores_f16, values_f16 } from './attention_f16';
import { scores_q8, to_16_bits, values_q8 } from './attention_q8';
import { F16, F32, Q8, row_bytes, widen } from './kv_cache';
import { scratch } from './scratch';
import { decay8, madd } from './simd';

/** Heads whose rows are whole steps, and whose dots fit 32 bits in Q8: 512 * 32767 * 127 < 2^31. */
@inline
export function fits_token(Dh: i32): bool {
  return ASC_FEATURE_RELAXED_SIMD && Dh % 16 == 0 && Dh <= 512;
}

/** Scores of a block of rows `part` bytes apart. Reads a row of values beside each row of keys. */
function scores_f32(s: usize, room: usize, q: usize, scale: f32, k: usize, v: usize, part: usize, Dh: i32): void {
  const row = <usize>Dh << 2;
  for (let j: usize = 0; j < <usize>KEYS << 2; j += 16) {
    let lines = i32x4.splat(0);
    for (const end = v + row; v < end; v += 64) {
      lines = v128.or(v128.or(lines, v128.load(v)), v128.load(v + part));
      lines = v128.or(v128.or(lines, v128.load(v + 2 * part)), v128.load(v + 3 * part));
    }
    v128.store(room, lines); // what is read must not be for nothing
    dot4(s + j, room, q, k, part, Dh, scale);
    k += row;
  }
}

/** o = keep o + the sum of a block of rows with probabilities p. */
function values_f32(o: usize, p: usize, keep: f32, v: usize, part: usize, Dh: i32): void {
  const row = <usize>Dh << 2, decay = f32x4.splat(keep), end = p + (<usize>KEYS << 2);
  for (let d: usize = 0; d < row; d += 64) {
    let a0 = f32x4.splat(0), a1 = a0, a2 = a0, a3 = a0, at = v + d;
    for (let pj = p; pj < end; pj += 16) {
      let x = at;
      for (let i: usize = 0; i < 16; i += 4) {
        const by = v128.load32_splat(pj + i);
        a0 = madd(a0, by, v128.load(x));
        a1 = madd(a1, by, v128.load(x, 16));
        a2 = madd(a2, by, v128.load(x, 32));
        a3 = madd(a3, by, v128.load(x, 48));
        x += part;
      }
      at += row;
    }
    decay8(o + d, a0, a1, decay);
    decay8(o + d + 32, a2, a3, decay);
  }
}

/** A block of F16 rows of which some are not finite, to f32 rows in scratch. */
function widen_parts(wide: usize, rows: usize, part: usize, Dh: i32): void {
  for (let j: usize = 0; j < <usize>KEYS; j++) {
    widen(F16, wide + j * (<usize>Dh << 2), wide, rows + (j >> 2) * row_bytes(F16, Dh) + (j & 3) * part, Dh, 0, 1);
  }
}

/** o, q: [Dh] f32   k, v: the head's rows   the token sits at `position` and sees `window` positions, its own included */
export function token(o: usize, q: usize, k: usize, v: usize, position: i32, Dh: i32, window: i32, format: i32): void {
  const s = scratch(), room = s + ROOM_AT, wide_k = s + WIDE_AT, bytes = row_bytes(format, Dh), row = <usize>Dh << 2, wide_v = wide_k + <usize>KEYS * row;
  const q16 = s + WIDE_AT, p16 = q16 + (<usize>Dh << 1);
  const oldest = max(0, position - window + 1), keys = position + 1 - oldest, whole = keys / KEYS * KEYS, part = <usize>(whole >> 2) * bytes;
  const scale = <f32>(1.0 / sqrt(<f64>Dh)), unit = format == Q8 ? to_16_bits(q16, q, Dh) * scale : scale;
  start(o, 0, Dh);
  let kb = k + <usize>oldest * bytes, vb = v + <usize>oldest * bytes;
  for (let block = 0; block < whole; block += KEYS) {
    if (format == Q8) {
      scores_q8(s, room, q16, unit, kb, vb, part, Dh);
      values_q8(o, s, p16, <f32>probabilities(s, 0), vb, part, Dh);
    } else if (format == F32) {
      scores_f32(s, room, q, scale, kb, vb, part, Dh);
      values_f32(o, s, <f32>probabilities(s, 0), vb, part, Dh);
    } else if (scores_f16(s, room, q, scale, kb, vb, part, Dh)) {
      values_f16(o, s, <f32>probabilities(s, 0), vb, part, Dh);
    } else {
      widen_parts(wide_k, kb, part, Dh);
      widen_parts(wide_v, vb, part, Dh);
      attend(o, q, wide_k, wide_v, 0, Dh, 0, KEYS, false);
    }
    kb += <usize>(KEYS >> 2) * bytes;
    vb += <usize>(KEYS >> 2) * bytes;
  }
  kb += 3 * part;
  vb += 3 * part;
  if (format != F32) {
    widen_block(format, kb, vb, Dh, 0, keys - whole);
    kb = wide_k;
    vb = wide_v;
  }
  if (whole < keys) attend(o, q, kb, vb, 0, Dh, 0, keys - whole, format == Q8);
  finish(o, 0, Dh);
}
