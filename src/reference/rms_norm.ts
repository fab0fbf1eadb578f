import type { FloatArray } from '../runtime/tensor.ts';
import { silu } from './activations.ts';

/** y [T, D] = x / sqrt(mean(x^2) + eps) * weight [D]. HF: OlmoHybridRMSNorm */
export function rms_norm(y: FloatArray, x: FloatArray, weight: FloatArray, T: number, D: number, eps: number): void {
  for (let t = 0; t < T; t++) {
    let sum = 0;
    for (let i = 0; i < D; i++) sum += x[t * D + i]! ** 2;
    const rms = Math.sqrt(sum / D + eps);
    for (let i = 0; i < D; i++) y[t * D + i] = (x[t * D + i]! / rms) * weight[i]!;
  }
}

/** y [T, D] = rms_norm(x) * silu(gate [T, D]); T counts tokens and heads. The norm comes before the gate. HF: OlmoHybridRMSNormGated */
export function rms_norm_gated(
  y: FloatArray,
  x: FloatArray,
  gate: FloatArray,
  weight: FloatArray,
  T: number,
  D: number,
  eps: number,
): void {
  rms_norm(y, x, weight, T, D, eps);
  for (let i = 0; i < T * D; i++) y[i]! *= silu(gate[i]!);
}
