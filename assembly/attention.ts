// Causal attention over a KV cache with an online softmax.                              HF: eager_attention_forward; arXiv:1805.02867
//   q: [T, H, Dh] f32   o: [T, H, Dh] f32 (not q)   k, v: caches of kv_cache.ts that hold positions 0 … position + T - 1
//   query t sits at p = position + t and sees the positions max(0, p - window + 1) … p; head h reads KV head h / (H / Hkv)
//   a score is q k / sqrt(Dh)
// Keys are taken in blocks of KEYS that start at multiples of KEYS counted from position 0: the sums of a query depend on its position alone,
// not on where the prompt was cut, except for a token that comes alone in the relaxed build (attention_token.ts). A block stays in the L1 cache, widened to
// f32 where the cache is not, while all queries of a tile pass.
// The scale of a Q8 row is common to its numbers: it multiplies the score, and for values the probability.

import { attend, finish, KEYS, QUERIES, start, WIDE_AT, widen_block } from './attention_block';
import { fits_token, token } from './attention_token';
import { F32, Q8, row_bytes } from './kv_cache';
import { scratch } from './scratch';
import { touch } from './simd';

/** `heads` heads that read the rows k and v of one KV head, and `tokens` tokens of which the first sits at `position`. */
@inline
function tile(
  o: usize, q: usize, k: usize, v: usize, heads: i32, tokens: i32, position: i32, H: i32, Dh: i32, window: i32, format: i32,
): void {
  const row = <usize>Dh << 2, token = <usize>H * row, bytes = row_bytes(format, Dh);
  const s = scratch();
  for (let h = 0; h < heads; h++) {
    for (let t = 0; t < tokens; t++) start(o + <usize>t * token + <usize>h * row, h * tokens + t, Dh);
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
      finish(o + <usize>t * token + <usize>h * row, h * tokens + t, Dh);
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
  const alone = T == 1 && fits_token(Dh);
  for (let h = begin; h < end;) {
    const heads = alone && (format == Q8 || repeat == 1) ? 1 : min(min((h / repeat + 1) * repeat, end) - h, QUERIES);
    const oh = o + <usize>h * row, qh = q + <usize>h * row;
    const kh = k + <usize>(h / repeat) * head_bytes, vh = v + <usize>(h / repeat) * head_bytes;
    if (alone && heads == 1) token(oh, qh, kh, vh, position, Dh, window, format);
    else for (let t = 0; t < T; t += QUERIES / heads) {
      const at = <usize>t * H * row;
      tile(oh + at, qh + at, kh, vh, heads, min(QUERIES / heads, T - t), position + t, H, Dh, window, format);
    }
    h += heads;
  }
}
