// What a query does with a block of keys and values, for attention.ts and attention_token.ts.                     arXiv:1805.02867
// A query keeps its largest score so far and the sum of its probabilities: what they are relative to changes when a larger score comes.

import { widen } from './kv_cache';
import { exp32x4, exp64, exp64x2 } from './math';
import { scratch } from './scratch';
import { decay8, dot, high64, low64, madd, narrow, store8, sums4 } from './simd';

export const KEYS: i32 = 32;
/** Most queries of a tile, heads times tokens. */
export const QUERIES: i32 = 256;
// Scratch of the thread: f32 scores [KEYS], scales of keys and of values [KEYS]; for each query of a tile its largest score so far, f32, and the
// sum of its probabilities, f64; running sums of four keys; widened keys and values [KEYS][Dh].
const K_SCALES_AT: usize = KEYS * 4;
const V_SCALES_AT: usize = 2 * KEYS * 4;
const TOPS_AT: usize = 3 * KEYS * 4;
const TOTALS_AT: usize = TOPS_AT + QUERIES * 4;
export const ROOM_AT: usize = TOTALS_AT + QUERIES * 8;
export const WIDE_AT: usize = ROOM_AT + 128;

/** Scores of four keys: each the sum that `dot` makes, so that it does not matter which keys come together. @param room for 128 bytes */
@inline
export function dot4(s: usize, room: usize, q: usize, k: usize, row: usize, Dh: i32, scale: f32): void {
  const k1 = k + row, k2 = k1 + row, k3 = k2 + row;
  const end = <usize>(Dh & ~7) << 2;
  let a0 = f32x4.splat(0), a1 = a0, a2 = a0, a3 = a0, b0 = a0, b1 = a0, b2 = a0, b3 = a0;
  for (let i: usize = 0; i < end; i += 32) {
    const q0 = v128.load(q + i), q1 = v128.load(q + i, 16);
    a0 = madd(a0, q0, v128.load(k + i));
    b0 = madd(b0, q1, v128.load(k + i, 16));
    a1 = madd(a1, q0, v128.load(k1 + i));
    b1 = madd(b1, q1, v128.load(k1 + i, 16));
    a2 = madd(a2, q0, v128.load(k2 + i));
    b2 = madd(b2, q1, v128.load(k2 + i, 16));
    a3 = madd(a3, q0, v128.load(k3 + i));
    b3 = madd(b3, q1, v128.load(k3 + i, 16));
  }
  store8(room, a0, b0);
  store8(room + 32, a1, b1);
  store8(room + 64, a2, b2);
  store8(room + 96, a3, b3);
  v128.store(s, sums4(room));
  for (let i = end; i < <usize>Dh << 2; i += 4) {
    const qi = load<f32>(q + i);
    store<f32>(s, load<f32>(s) + qi * load<f32>(k + i));
    store<f32>(s, load<f32>(s, 4) + qi * load<f32>(k1 + i), 4);
    store<f32>(s, load<f32>(s, 8) + qi * load<f32>(k2 + i), 8);
    store<f32>(s, load<f32>(s, 12) + qi * load<f32>(k3 + i), 12);
  }
  v128.store(s, f32x4.mul(v128.load(s), f32x4.splat(scale)));
}

@inline
function multiply(x: usize, by: usize, from: i32, to: i32): void {
  for (let j = from; j < to; j++) {
    const at = <usize>j << 2;
    store<f32>(x + at, load<f32>(x + at) * load<f32>(by + at));
  }
}

/** Scores of a block, none of its keys seen. */
@inline
function no_scores(s: usize): void {
  for (let j = 0; j < KEYS; j += 4) v128.store(s + (<usize>j << 2), f32x4.splat(-Infinity));
}

/**
 * Turns the scores of a block into probabilities, up to a factor that all keys of the query have in common; 0 for keys that are not seen.
 * @returns what the sums so far must be multiplied by: 0 for the first block
 */
export function probabilities(s: usize, query: i32): f64 {
  const top_at = scratch() + TOPS_AT + (<usize>query << 2), total_at = scratch() + TOTALS_AT + (<usize>query << 3);
  const top = load<f32>(top_at);
  let most = v128.load(s);
  for (let j: usize = 16; j < <usize>KEYS * 4; j += 16) most = f32x4.max(most, v128.load(s + j));
  most = f32x4.max(most, v128.shuffle<i32>(most, most, 2, 3, 0, 1));
  const new_top = max(top, max(f32x4.extract_lane(most, 0), f32x4.extract_lane(most, 1)));
  const keep = top == new_top ? 1 : exp64(<f64>top - <f64>new_top);
  store<f32>(top_at, new_top);

  let sum = f64x2.splat(0);
  if (ASC_FEATURE_RELAXED_SIMD) {
    const shift = f32x4.splat(new_top);
    let sum32 = f32x4.splat(0);
    for (let j: usize = 0; j < <usize>KEYS * 4; j += 16) {
      const x = exp32x4(f32x4.sub(v128.load(s + j), shift));
      sum32 = f32x4.add(sum32, x);
      v128.store(s + j, x);
    }
    sum = f64x2.add(low64(sum32), high64(sum32));
  } else for (let j: usize = 0; j < <usize>KEYS * 4; j += 16) {
    const x = v128.load(s + j), shift = f64x2.splat(<f64>new_top);
    const low = exp64x2(f64x2.sub(low64(x), shift)), high = exp64x2(f64x2.sub(high64(x), shift));
    sum = f64x2.add(sum, f64x2.add(low, high));
    v128.store(s + j, narrow(low, high));
  }
  store<f64>(total_at, load<f64>(total_at) * keep + f64x2.extract_lane(sum, 0) + f64x2.extract_lane(sum, 1));
  return keep;
}

/** One query, keys [from, to) of a block of f32 rows. */
export function attend(o: usize, q: usize, k: usize, v: usize, query: i32, Dh: i32, from: i32, to: i32, scaled: bool): void {
  const scale = <f32>(1.0 / sqrt(<f64>Dh));
  const row = <usize>Dh << 2;
  const s = scratch();
  no_scores(s);
  let j = from;
  for (; j + 4 <= to; j += 4) dot4(s + (<usize>j << 2), s + ROOM_AT, q, k + <usize>j * row, row, Dh, scale);
  for (; j < to; j++) store<f32>(s + (<usize>j << 2), dot(q, k + <usize>j * row, Dh) * scale);
  if (scaled) multiply(s, s + K_SCALES_AT, from, to);
  const keep = probabilities(s, query);
  if (scaled) multiply(s, s + V_SCALES_AT, from, to);

  const decay = f32x4.splat(<f32>keep);
  let d = 0;
  for (; d + 16 <= Dh; d += 16) {
    const od = o + (<usize>d << 2);
    let vj = v + <usize>from * row + (<usize>d << 2);
    let a0 = f32x4.splat(0), a1 = f32x4.splat(0), a2 = f32x4.splat(0), a3 = f32x4.splat(0);
    for (let j = from; j < to; j++) {
      const p = v128.load32_splat(s + (<usize>j << 2));
      a0 = madd(a0, p, v128.load(vj));
      a1 = madd(a1, p, v128.load(vj, 16));
      a2 = madd(a2, p, v128.load(vj, 32));
      a3 = madd(a3, p, v128.load(vj, 48));
      vj += row;
    }
    decay8(od, a0, a1, decay);
    decay8(od + 32, a2, a3, decay);
  }
  for (; d < Dh; d++) {
    const at = <usize>d << 2;
    let a: f32 = 0;
    for (let j = from; j < to; j++) a += load<f32>(s + (<usize>j << 2)) * load<f32>(v + <usize>j * row + at);
    store<f32>(o + at, load<f32>(o + at) * <f32>keep + a);
  }
}

/** Rows [from, to) of a block of keys and of one of values to scratch, as f32 rows, and the scales of Q8 rows beside the scores. */
export function widen_block(format: i32, k: usize, v: usize, Dh: i32, from: i32, to: i32): void {
  const s = scratch(), wide_k = s + WIDE_AT;
  widen(format, wide_k, s + K_SCALES_AT, k, Dh, from, to);
  widen(format, wide_k + (<usize>(KEYS * Dh) << 2), s + V_SCALES_AT, v, Dh, from, to);
}

/** o over the sum of the query's probabilities. */
export function finish(o: usize, query: i32, Dh: i32): void {
  const Dh4 = Dh & ~3, total = load<f64>(scratch() + TOTALS_AT + (<usize>query << 3));
  const inverse = f64x2.splat(1.0 / total);
  for (let d = 0; d < Dh4; d += 4) {
    const x = v128.load(o + (<usize>d << 2));
    v128.store(o + (<usize>d << 2), narrow(f64x2.mul(low64(x), inverse), f64x2.mul(high64(x), inverse)));
  }
  for (let d = Dh4; d < Dh; d++) {
    const at = o + (<usize>d << 2);
    store<f32>(at, <f32>(<f64>load<f32>(at) * (1.0 / total)));
  }
}

/** No scores of the query so far, and its output o zero. */
export function start(o: usize, query: i32, Dh: i32): void {
  store<f32>(scratch() + TOPS_AT + (<usize>query << 2), -Infinity);
  store<f64>(scratch() + TOTALS_AT + (<usize>query << 3), 0);
  memory.fill(o, 0, <usize>Dh << 2);
}
