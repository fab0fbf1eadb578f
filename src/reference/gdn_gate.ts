import type { FloatArray } from '../runtime/tensor.ts';
import { sigmoid, softplus } from './activations.ts';

/** g [T, H] = -exp(A_log [H]) softplus(a [T, H] + dt_bias [H]): the log decay, <= 0. HF: OlmoHybridGatedDeltaNet */
export function gdn_gate(g: FloatArray, a: FloatArray, A_log: FloatArray, dt_bias: FloatArray, T: number, H: number): void {
  for (let t = 0; t < T; t++) {
    for (let h = 0; h < H; h++) g[t * H + h] = -Math.exp(A_log[h]!) * softplus(a[t * H + h]! + dt_bias[h]!);
  }
}

/** beta [n] = scale sigmoid(b [n]); scale 2 with negative eigenvalues, else 1. HF: OlmoHybridGatedDeltaNet */
export function gdn_beta(beta: FloatArray, b: FloatArray, scale: number, n: number): void {
  for (let i = 0; i < n; i++) beta[i] = scale * sigmoid(b[i]!);
}
