// Causal attention over a KV cache with an online softmax.                              HF: eager_attention_forward; arXiv:1805.02867
//   q: [T, H, Dh] f32   o: [T, H, Dh] f32 (not q)   k, v: caches of kv_cache.ts that hold positions 0 … position + T - 1
//   query t sits at p = position + t and sees the positions max(0, p - window + 1) … p; head h reads KV head h / (H / Hkv)
//   a score is q k / sqrt(Dh)
// Keys are taken in blocks of KEYS that start at multiples of KEYS counted from position 0: the sums of a query depend on its position alone,
// not on where the prompt was cut. A block stays in the L1 cache, widened to f32 where the cache is not, while all queries of a tile pass.
// The scale of a Q8 row is common to its numbers: it multiplies the score, and for values the probability.

import { fits_f16, scores_f16, values_f16 } from './attention_f16';
import { fits, scores_q8, to_16_bits, values_q8 } from './attention_q8';
import { F16, F32, Q8, row_bytes, widen } from './kv_cache';
import { exp32x4, exp64, exp64x2 } from './math';
import { scratch } from './scratch';
import { decay8, dot, high64, hsum, low64, madd, madd8, narrow, touch } from './simd';

export const KEYS: i32 = 32;
/** Most queries of a tile, heads times tokens. */
const QUERIES: i32 = 256;
// Scratch of the thread: f32 scores [KEYS], scales of keys and of values [KEYS]; for each query of a tile its largest score so far, f32, and the
// sum of its probabilities, f64; widened keys and values [KEYS][Dh].
const K_SCALES_AT: usize = KEYS * 4;
const V_SCALES_AT: usize = 2 * KEYS * 4;
const TOPS_AT: usize = 3 * KEYS * 4;
const TOTALS_AT: usize = TOPS_AT + QUERIES * 4;
const WIDE_AT: usize = TOTALS_AT + QUERIES * 8;

/** Scores of four keys: each the sum that `dot` makes, so that it does not matter which keys come together. */
@inline
function dot4(s: usize, q: usize, k: usize, row: usize, Dh: i32, scale: f32): void {
  const k1 = k + row, k2 = k1 + row, k3 = k2 + row;
  const end = <usize>(Dh & ~3) << 2;
  let a0 = f32x4.splat(0), a1 = f32x4.splat(0), a2 = f32x4.splat(0), a3 = f32x4.splat(0);
  for (let i: usize = 0; i < end; i += 16) {
    const qi = v128.load(q + i);
    a0 = madd(a0, qi, v128.load(k + i));
    a1 = madd(a1, qi, v128.load(k1 + i));
    a2 = madd(a2, qi, v128.load(k2 + i));
    a3 = madd(a3, qi, v128.load(k3 + i));
  }
  let s0 = hsum(a0), s1 = hsum(a1), s2 = hsum(a2), s3 = hsum(a3);
  for (let i = end; i < <usize>Dh << 2; i += 4) {
    const qi = load<f32>(q + i);
    s0 += qi * load<f32>(k + i);
    s1 += qi * load<f32>(k1 + i);
    s2 += qi * load<f32>(k2 + i);
    s3 += qi * load<f32>(k3 + i);
  }
  store<f32>(s, s0 * scale);
  store<f32>(s, s1 * scale, 4);
  store<f32>(s, s2 * scale, 8);
  store<f32>(s, s3 * scale, 12);
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
 * Turns the scores [from, to) of a block into probabilities, up to a factor that all keys of the query have in common; 0 for keys that are not seen.
 * @returns what the sums so far must be multiplied by: 0 for the first block
 */
function probabilities(s: usize, query: i32, from: i32, to: i32): f64 {
  const top_at = s + TOPS_AT + (<usize>query << 2), total_at = s + TOTALS_AT + (<usize>query << 3);
  const top = load<f32>(top_at);
  let new_top = top;
  for (let j = from; j < to; j++) new_top = max(new_top, load<f32>(s + (<usize>j << 2)));
  const keep = exp64(<f64>top - <f64>new_top);
  store<f32>(top_at, new_top);

  let sum = f64x2.splat(0);
  if (ASC_FEATURE_RELAXED_SIMD) {
    const shift = f32x4.splat(new_top);
    let sum32 = f32x4.splat(0);
    for (let j = 0; j < KEYS; j += 4) {
      const p = exp32x4(f32x4.sub(v128.load(s + (<usize>j << 2)), shift));
      sum32 = f32x4.add(sum32, p);
      v128.store(s + (<usize>j << 2), p);
    }
    sum = f64x2.add(low64(sum32), high64(sum32));
  } else for (let j = 0; j < KEYS; j += 4) {
    const x = v128.load(s + (<usize>j << 2)), shift = f64x2.splat(<f64>new_top);
    const low = exp64x2(f64x2.sub(low64(x), shift)), high = exp64x2(f64x2.sub(high64(x), shift));
    sum = f64x2.add(sum, f64x2.add(low, high));
    v128.store(s + (<usize>j << 2), narrow(low, high));
  }
  store<f64>(total_at, load<f64>(total_at) * keep + f64x2.extract_lane(sum, 0) + f64x2.extract_lane(sum, 1));
  return keep;
}

/** One query, keys [from, to) of a block of f32 rows. */
function attend(o: usize, q: usize, k: usize, v: usize, query: i32, Dh: i32, from: i32, to: i32, scaled: bool): void {
  const scale = <f32>(1.0 / sqrt(<f64>Dh));
  const row = <usize>Dh << 2;
  const s = scratch();
  no_scores(s);
  let j = from;
  for (; j + 4 <= to; j += 4) dot4(s + (<usize>j << 2), q, k + <usize>j * row, row, Dh, scale);
  for (; j < to; j++) store<f32>(s + (<usize>j << 2), dot(q, k + <usize>j * row, Dh) * scale);
  if (scaled) multiply(s, s + K_SCALES_AT, from, to);
  const keep = probabilities(s, query, from, to);
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
function widen_block(format: i32, k: usize, v: usize, Dh: i32, from: i32, to: i32): void {
  const s = scratch(), wide_k = s + WIDE_AT;
  widen(format, wide_k, s + K_SCALES_AT, k, Dh, from, to);
  widen(format, wide_k + (<usize>(KEYS * Dh) << 2), s + V_SCALES_AT, v, Dh, from, to);
}

/** o / total. */
@inline
function finish(o: usize, total: f64, Dh: i32): void {
  const Dh4 = Dh & ~3;
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

/** No scores of query 0 so far, and its output o zero. */
@inline
function begin_token(s: usize, o: usize, Dh: i32): void {
  store<f32>(s + TOPS_AT, -Infinity);
  store<f64>(s + TOTALS_AT, 0);
  memory.fill(o, 0, <usize>Dh << 2);
}

/**
 * One token, one head, over f32 rows k and v that nobody reads again soon: each row from front to back, in the order of memory. The sums are those
 * of `attend`.
 */
function token_f32(o: usize, q: usize, k: usize, v: usize, position: i32, Dh: i32, window: i32): void {
  const s = scratch(), sum = s + WIDE_AT, row = <usize>Dh << 2, end = <usize>(Dh & ~15) << 2; // `attend` takes 16 numbers at a time, and what is left one by one
  const scale = <f32>(1.0 / sqrt(<f64>Dh));
  begin_token(s, o, Dh);
  const oldest = max(0, position - window + 1);
  for (let block = oldest / KEYS * KEYS; block <= position; block += KEYS) {
    const from = max(0, oldest - block), to = min(KEYS, position + 1 - block);
    no_scores(s);
    for (let j = from; j < to; j++) {
      const at = <usize>(block + j) * row;
      // Its row of values comes from memory meanwhile: a second stream, and a fifth less time (Emerald Rapids). What is read must not be for nothing.
      let lines = i32x4.splat(0);
      for (let i: usize = 0; i + 16 <= row; i += 64) lines = v128.or(lines, v128.load(v + at + i));
      v128.store(sum, lines);
      store<f32>(s + (<usize>j << 2), dot(q, k + at, Dh) * scale);
    }
    const keep = <f32>probabilities(s, 0, from, to);
    memory.fill(sum, 0, row);
    for (let j = from; j < to; j++) {
      const vj = v + <usize>(block + j) * row, p = v128.load32_splat(s + (<usize>j << 2));
      for (let i: usize = 0; i < end; i += 32) {
        const from = vj + i;
        madd8(sum + i, p, p, v128.load(from), v128.load(from, 16));
      }
      for (let i = end; i < row; i += 4) store<f32>(sum + i, load<f32>(sum + i) + load<f32>(s + (<usize>j << 2)) * load<f32>(vj + i));
    }
    for (let i: usize = 0; i < end; i += 32) {
      const from = sum + i;
      decay8(o + i, v128.load(from), v128.load(from, 16), f32x4.splat(keep));
    }
    for (let i = end; i < row; i += 4) store<f32>(o + i, load<f32>(o + i) * keep + load<f32>(sum + i));
  }
  finish(o, load<f64>(s + TOTALS_AT), Dh);
}

/** One token, one head, over F16 rows k and v. */
function token_f16(o: usize, q: usize, k: usize, v: usize, position: i32, Dh: i32, window: i32): void {
  const s = scratch(), bytes = row_bytes(F16, Dh);
  const scale = <f32>(1.0 / sqrt(<f64>Dh));
  begin_token(s, o, Dh);
  const oldest = max(0, position - window + 1);
  for (let block = oldest / KEYS * KEYS; block <= position; block += KEYS) {
    const from = max(0, oldest - block), to = min(KEYS, position + 1 - block);
    const kb = k + <usize>block * bytes, vb = v + <usize>block * bytes;
    no_scores(s);
    if (!scores_f16(s, s + K_SCALES_AT, q, scale, kb, vb, Dh, from, to)) {
      const wide_k = s + WIDE_AT;
      widen_block(F16, kb, vb, Dh, from, to);
      attend(o, q, wide_k, wide_k + (<usize>(KEYS * Dh) << 2), 0, Dh, from, to, false);
      continue;
    }
    values_f16(o, s, <f32>probabilities(s, 0, from, to), vb, Dh, from, to);
  }
  finish(o, load<f64>(s + TOTALS_AT), Dh);
}

/** One token, one head, over Q8 rows k and v, in integers. */
function token_q8(o: usize, q: usize, k: usize, v: usize, position: i32, Dh: i32, window: i32): void {
  const s = scratch(), bytes = row_bytes(Q8, Dh);
  const q16 = s + WIDE_AT, p16 = q16 + (<usize>Dh << 1);
  const unit = to_16_bits(q16, q, Dh) * <f32>(1.0 / sqrt(<f64>Dh));
  begin_token(s, o, Dh);
  const oldest = max(0, position - window + 1);
  for (let block = oldest / KEYS * KEYS; block <= position; block += KEYS) {
    const from = max(0, oldest - block), to = min(KEYS, position + 1 - block);
    const kb = k + <usize>block * bytes, vb = v + <usize>block * bytes;
    touch(s, kb, vb, <usize>to * bytes);
    no_scores(s);
    scores_q8(s, q16, unit, kb, Dh, from, to);
    values_q8(o, s, p16, <f32>probabilities(s, 0, from, to), vb, Dh, from, to);
  }
  finish(o, load<f64>(s + TOTALS_AT), Dh);
}

/** `heads` heads that read the rows k and v of one KV head, and `tokens` tokens of which the first sits at `position`. */
@inline
function tile(
  o: usize, q: usize, k: usize, v: usize, heads: i32, tokens: i32, position: i32, H: i32, Dh: i32, window: i32, format: i32,
): void {
  const row = <usize>Dh << 2, token = <usize>H * row, bytes = row_bytes(format, Dh);
  const s = scratch();
  for (let t = 0; t < tokens; t++) {
    memory.fill(o + <usize>t * token, 0, <usize>heads * row);
    for (let h = 0; h < heads; h++) {
      store<f32>(s + TOPS_AT + (<usize>(h * tokens + t) << 2), -Infinity);
      store<f64>(s + TOTALS_AT + (<usize>(h * tokens + t) << 3), 0);
    }
  }
  const oldest = max(0, position - window + 1), newest = position + tokens - 1;
  for (let block = oldest / KEYS * KEYS; block <= newest; block += KEYS) {
    let kb = k + <usize>block * bytes, vb = v + <usize>block * bytes;
    touch(s, kb, vb, <usize>min(KEYS, newest + 1 - block) * bytes);
    if (format != F32) {
      widen_block(format, kb, vb, Dh, max(0, oldest - block), min(KEYS, newest + 1 - block));
      kb = s + WIDE_AT;
      vb = kb + <usize>KEYS * row;
    }
    for (let h = 0; h < heads; h++) {
      for (let t = max(0, block - position); t < tokens; t++) {
        const from = max(0, position + t - window + 1 - block), to = min(KEYS, position + t + 1 - block); // what this query sees of the block
        if (from >= KEYS) break;
        const at = <usize>t * token + <usize>h * row;
        attend(o + at, q + at, kb, vb, h * tokens + t, Dh, from, to, format == Q8);
      }
    }
  }
  for (let h = 0; h < heads; h++) {
    for (let t = 0; t < tokens; t++) {
      finish(o + <usize>t * token + <usize>h * row, load<f64>(s + TOTALS_AT + (<usize>(h * tokens + t) << 3)), Dh);
    }
  }
}

/** Heads [begin, end). */
export function attention(
  o: usize, q: usize, k: usize, v: usize,
  T: i32, position: i32, S: i32, H: i32, Hkv: i32, Dh: i32, window: i32, format: i32, begin: i32, end: i32,
): void {
  const repeat = H / Hkv;
  const row = <usize>Dh << 2, head_bytes = <usize>S * row_bytes(format, Dh);
  const in_integers = ASC_FEATURE_RELAXED_SIMD && format == Q8 && T == 1 && fits(Dh);
  for (let h = begin; h < end;) {
    const heads = in_integers ? 1 : min(min((h / repeat + 1) * repeat, end) - h, QUERIES);
    const oh = o + <usize>h * row, qh = q + <usize>h * row;
    const kh = k + <usize>(h / repeat) * head_bytes, vh = v + <usize>(h / repeat) * head_bytes;
    if (in_integers) token_q8(oh, qh, kh, vh, position, Dh, window);
    else if (T == 1 && heads == 1 && format == F32) token_f32(oh, qh, kh, vh, position, Dh, window);
    else if (T == 1 && heads == 1 && format == F16 && fits_f16(Dh)) token_f16(oh, qh, kh, vh, position, Dh, window);
    else for (let t = 0; t < T; t += QUERIES / heads) {
      const at = <usize>t * H * row;
      tile(oh + at, qh + at, kh, vh, heads, min(QUERIES / heads, T - t), position + t, H, Dh, window, format);
    }
    h += heads;
  }
}
