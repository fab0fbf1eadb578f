import type { AttentionShape } from '../runtime/kernels.ts';
import type { FloatArray } from '../runtime/tensor.ts';
import { bf16, f32 } from './rounding.ts';

/**
 * o [T, H, Dh] = softmax(q k^T / sqrt(Dh)) v: each product of matrices, the scaling and the softmax end in bfloat16; only inside the softmax
 * is float32. HF: eager_attention_forward
 *
 * q [T, H, Dh]; k, v [Hkv, S, Dh]; head h reads KV head h / (H / Hkv).
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
  const scale = f32(Dh ** -0.5);
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
        scores.push(bf16(bf16(dot) * scale));
      }
      const top = scores.reduce((a, b) => Math.max(a, b));
      const weights = scores.map((score) => f32(Math.exp(score - top)));
      const total = f32(weights.reduce((a, b) => a + b));
      const probabilities = weights.map((weight) => bf16(weight / total));
      for (let i = 0; i < Dh; i++) {
        let sum = 0;
        for (let p = first; p <= last; p++) sum += probabilities[p - first]! * v[(kv + p) * Dh + i]!;
        o[at + i] = bf16(sum);
      }
    }
  }
}
