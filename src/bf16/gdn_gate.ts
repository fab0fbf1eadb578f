import { sigmoid, softplus } from '../reference/activations.ts';
import type { FloatArray } from '../runtime/tensor.ts';
import { bf16, f32 } from './rounding.ts';

/** g [T, H] = -exp(A_log) softplus(a + dt_bias), float32 throughout and after. HF: OlmoHybridGatedDeltaNet */
export function gdn_gate(g: FloatArray, a: FloatArray, A_log: FloatArray, dt_bias: FloatArray, T: number, H: number): void {
  for (let t = 0; t < T; t++) {
    for (let h = 0; h < H; h++) {
      g[t * H + h] = f32(-f32(Math.exp(A_log[h]!)) * f32(softplus(f32(a[t * H + h]! + dt_bias[h]!))));
    }
  }
}

/** beta [n] = scale sigmoid(b); the scale, 1 or 2, rounds nothing. HF: OlmoHybridGatedDeltaNet */
export function gdn_beta(beta: FloatArray, b: FloatArray, scale: number, n: number): void {
  for (let i = 0; i < n; i++) beta[i] = scale * bf16(sigmoid(b[i]!));
}
