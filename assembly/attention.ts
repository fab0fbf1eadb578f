// Causal attention over a KV cache with an online softmax.                              HF: eager_attention_forward; arXiv:1805.02867
//   q: [T, H, Dh] f32   o: [T, H, Dh] f32 (not q)   k, v: [Hkv, S, Dh] caches that hold positions 0 … position + T - 1
//   query t sits at p = position + t and sees the positions max(0, p - window + 1) … p; head h reads KV head h / (H / Hkv)
//   scores: [H, KEYS] f32 of scratch; a score is q k / sqrt(Dh)
// Keys are taken in blocks of KEYS that start at multiples of KEYS counted from position 0: the sums of a query depend on its position alone,
// not on where the prompt was cut.

import { exp64, exp64x2 } from './math';
import { dot, high64, hsum, low64, narrow } from './simd';

const KEYS: i32 = 32;

/** Rows [begin, end) of the caches' heads: x [T, Hkv, Dh] is copied to cache [Hkv, S, Dh] at `position`. */
export function kv_append(cache: usize, x: usize, T: i32, position: i32, S: i32, Hkv: i32, Dh: i32, begin: i32, end: i32): void {
  const row_bytes = <usize>Dh << 2;
  for (let h = begin; h < end; h++) {
    for (let t = 0; t < T; t++) {
      memory.copy(cache + (<usize>h * S + position + t) * row_bytes, x + (<usize>t * Hkv + h) * row_bytes, row_bytes);
    }
  }
}

/** Scores of four keys: each the sum that `dot` makes, so that it does not matter which keys come together. */
@inline
function dot4(s: usize, q: usize, k: usize, row_bytes: usize, Dh: i32, scale: f32): void {
  const k1 = k + row_bytes, k2 = k1 + row_bytes, k3 = k2 + row_bytes;
  const end = <usize>(Dh & ~3) << 2;
  let a0 = f32x4.splat(0), a1 = f32x4.splat(0), a2 = f32x4.splat(0), a3 = f32x4.splat(0);
  for (let i: usize = 0; i < end; i += 16) {
    const qi = v128.load(q + i);
    a0 = f32x4.add(a0, f32x4.mul(qi, v128.load(k + i)));
    a1 = f32x4.add(a1, f32x4.mul(qi, v128.load(k1 + i)));
    a2 = f32x4.add(a2, f32x4.mul(qi, v128.load(k2 + i)));
    a3 = f32x4.add(a3, f32x4.mul(qi, v128.load(k3 + i)));
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

/** Heads [begin, end). */
export function attention(
  o: usize, q: usize, k: usize, v: usize, scores: usize,
  T: i32, position: i32, S: i32, H: i32, Hkv: i32, Dh: i32, window: i32, begin: i32, end: i32,
): void {
  const scale = <f32>(1.0 / sqrt(<f64>Dh));
  const row_bytes = <usize>Dh << 2;
  const Dh4 = Dh & ~3;
  const repeat = H / Hkv;
  for (let h = begin; h < end; h++) {
    const cache = <usize>(h / repeat) * S * row_bytes;
    const s = scores + (<usize>h * KEYS << 2);
    for (let t = 0; t < T; t++) {
      const qt = q + (<usize>t * H + h) * row_bytes, ot = o + (<usize>t * H + h) * row_bytes;
      const last = position + t;
      const first = max(0, last - window + 1);
      memory.fill(ot, 0, row_bytes);
      let top: f32 = -Infinity;
      let total: f64 = 0;
      for (let block = first / KEYS * KEYS; block <= last; block += KEYS) {
        const from = max(0, first - block), to = min(KEYS, last + 1 - block); // keys [from, to) of this block are seen
        const kb = k + cache + <usize>block * row_bytes, vb = v + cache + <usize>block * row_bytes;

        for (let j = 0; j < KEYS; j += 4) v128.store(s + (<usize>j << 2), f32x4.splat(-Infinity));
        let j = from;
        for (; j + 4 <= to; j += 4) dot4(s + (<usize>j << 2), qt, kb + <usize>j * row_bytes, row_bytes, Dh, scale);
        for (; j < to; j++) store<f32>(s + (<usize>j << 2), dot(qt, kb + <usize>j * row_bytes, Dh) * scale);
        let new_top = top;
        for (let j = from; j < to; j++) new_top = max(new_top, load<f32>(s + (<usize>j << 2)));
        const keep = exp64(<f64>top - <f64>new_top); // 0 for the first block
        top = new_top;

        // Probabilities of the block, up to the common factor; 0 for the keys that are not seen.
        const shift = f64x2.splat(<f64>new_top);
        let sum = f64x2.splat(0);
        for (let j = 0; j < KEYS; j += 4) {
          const x = v128.load(s + (<usize>j << 2));
          const low = exp64x2(f64x2.sub(low64(x), shift)), high = exp64x2(f64x2.sub(high64(x), shift));
          sum = f64x2.add(sum, f64x2.add(low, high));
          v128.store(s + (<usize>j << 2), narrow(low, high));
        }
        total = total * keep + f64x2.extract_lane(sum, 0) + f64x2.extract_lane(sum, 1);

        const decay = f32x4.splat(<f32>keep);
        let d = 0;
        for (; d + 16 <= Dh; d += 16) {
          const od = ot + (<usize>d << 2);
          let vj = vb + <usize>from * row_bytes + (<usize>d << 2);
          let a0 = f32x4.splat(0), a1 = f32x4.splat(0), a2 = f32x4.splat(0), a3 = f32x4.splat(0);
          for (let j = from; j < to; j++) {
            const p = v128.load32_splat(s + (<usize>j << 2));
            a0 = f32x4.add(a0, f32x4.mul(p, v128.load(vj)));
            a1 = f32x4.add(a1, f32x4.mul(p, v128.load(vj, 16)));
            a2 = f32x4.add(a2, f32x4.mul(p, v128.load(vj, 32)));
            a3 = f32x4.add(a3, f32x4.mul(p, v128.load(vj, 48)));
            vj += row_bytes;
          }
          v128.store(od, f32x4.add(f32x4.mul(v128.load(od), decay), a0));
          v128.store(od, f32x4.add(f32x4.mul(v128.load(od, 16), decay), a1), 16);
          v128.store(od, f32x4.add(f32x4.mul(v128.load(od, 32), decay), a2), 32);
          v128.store(od, f32x4.add(f32x4.mul(v128.load(od, 48), decay), a3), 48);
        }
        for (; d < Dh; d++) {
          const at = <usize>d << 2;
          let a: f32 = 0;
          for (let j = from; j < to; j++) a += load<f32>(s + (<usize>j << 2)) * load<f32>(vb + <usize>j * row_bytes + at);
          store<f32>(ot + at, load<f32>(ot + at) * <f32>keep + a);
        }
      }
      const inverse = f64x2.splat(1.0 / total);
      for (let d = 0; d < Dh4; d += 4) {
        const x = v128.load(ot + (<usize>d << 2));
        v128.store(ot + (<usize>d << 2), narrow(f64x2.mul(low64(x), inverse), f64x2.mul(high64(x), inverse)));
      }
      for (let d = Dh4; d < Dh; d++) {
        const at = ot + (<usize>d << 2);
        store<f32>(at, <f32>(<f64>load<f32>(at) * (1.0 / total)));
      }
    }
  }
}
