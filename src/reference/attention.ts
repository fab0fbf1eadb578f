import type { AttentionShape } from '../runtime/kernels.ts';
import type { FloatArray } from '../runtime/tensor.ts';

/** x [T, Hkv, Dh] is copied to cache [Hkv, S, Dh] at `position`. */
export function kv_append(cache: FloatArray, x: FloatArray, T: number, position: number, { S, Hkv, Dh }: AttentionShape): void {
  for (let t = 0; t < T; t++) {
    for (let h = 0; h < Hkv; h++) {
      for (let i = 0; i < Dh; i++) cache[(h * S + position + t) * Dh + i] = x[(t * Hkv + h) * Dh + i]!;
    }
  }
}

/**
 * o [T, H, Dh] = softmax(q k^T / sqrt(Dh)) v over the positions that query t, at p = position + t, sees: the last `window` up to p.
 * q [T, H, Dh]; k, v [Hkv, S, Dh]; head h reads KV head h / (H / Hkv). HF: eager_attention_forward
 */
export function attention(
  o: FloatArray,
  q: FloatArray,
  k: FloatArray,
  v: FloatArray,
  T: number,
  position: number,
  { S, H, Hkv, Dh, window }: AttentionShape,
): void {
  for (let t = 0; t < T; t++) {
    const last = position + t;
    const first = Math.max(0, last - window + 1);
    for (let h = 0; h < H; h++) {
      const kv = Math.floor(h / (H / Hkv)) * S;
      const at = (t * H + h) * Dh;

      const scores: number[] = [];
      for (let p = first; p <= last; p++) {
        let dot = 0;
        for (let i = 0; i < Dh; i++) dot += q[at + i]! * k[(kv + p) * Dh + i]!;
        scores.push(dot / Math.sqrt(Dh));
      }
      const top = scores.reduce((a, b) => Math.max(a, b));
      const weights = scores.map((score) => Math.exp(score - top));
      const total = weights.reduce((a, b) => a + b);
      for (let i = 0; i < Dh; i++) {
        let sum = 0;
        for (let p = first; p <= last; p++) sum += weights[p - first]! * v[(kv + p) * Dh + i]!;
        o[at + i] = sum / total;
      }
    }
  }
}
