import type { DeltaRuleShape } from '../runtime/kernels.ts';
import type { FloatArray } from '../runtime/tensor.ts';

/**
 * The gated delta rule, token by token, for each value head h with its state S [Dk, Dv]. arXiv:2412.06464 §3.1;
 * HF: torch_recurrent_gated_delta_rule
 *
 *     S <- exp(g) S                 decay first,
 *     u = beta (v - S^T k)          then read: what the state does not yet say of k,
 *     S <- S + k u^T                then write:  S k is now v, if beta is 1 and |k| is 1
 *     o = S^T q / sqrt(Dk)
 *
 * q, k [T, Hk, Dk], of length 1; head h reads key head h / (H / Hk). v, o [T, H, Dv]; g, beta [T, H]; S [H, Dk, Dv] is advanced.
 */
export function gated_delta_rule(
  o: FloatArray,
  q: FloatArray,
  k: FloatArray,
  v: FloatArray,
  g: FloatArray,
  beta: FloatArray,
  S: FloatArray,
  T: number,
  { Hk, H, Dk, Dv }: DeltaRuleShape,
): void {
  const scale = 1 / Math.sqrt(Dk);
  for (let h = 0; h < H; h++) {
    const key = Math.floor(h / (H / Hk));
    for (let t = 0; t < T; t++) {
      const decay = Math.exp(g[t * H + h]!);
      for (let j = 0; j < Dv; j++) {
        const column = (i: number) => (h * Dk + i) * Dv + j; // S[h, i, j]
        const at = (t * Hk + key) * Dk; // q[t, key, 0], k[t, key, 0]

        let read = 0;
        for (let i = 0; i < Dk; i++) {
          S[column(i)]! *= decay;
          read += S[column(i)]! * k[at + i]!;
        }
        const u = beta[t * H + h]! * (v[(t * H + h) * Dv + j]! - read);
        let sum = 0;
        for (let i = 0; i < Dk; i++) {
          S[column(i)]! += k[at + i]! * u;
          sum += S[column(i)]! * q[at + i]!;
        }
        o[(t * H + h) * Dv + j] = sum * scale;
      }
    }
  }
}
