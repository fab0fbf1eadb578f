import { silu } from '../reference/activations.ts';
import type { FloatArray } from '../runtime/tensor.ts';
import { bf16, f32 } from './rounding.ts';

/** rsqrt(x) of float32: torch rounds the root, then its inverse. */
function rsqrt(x: number): number {
  return f32(1 / f32(Math.sqrt(x)));
}

/** rsqrt(mean(x^2) + eps) of row t; squares of bfloat16 are exact in float32. */
function inverseRms(x: FloatArray, t: number, D: number, eps: number): number {
  let sum = 0;
  for (let i = 0; i < D; i++) sum += x[t * D + i]! ** 2;
  return rsqrt(f32(f32(f32(sum) / D) + f32(eps)));
}

/** y [T, D] = x / rms(x) * weight: in float32 throughout, the product with the weight included. HF: OlmoHybridRMSNorm */
export function rms_norm(y: FloatArray, x: FloatArray, weight: FloatArray, T: number, D: number, eps: number): void {
  for (let t = 0; t < T; t++) {
    const inverse = inverseRms(x, t, D, eps);
    for (let i = 0; i < D; i++) y[t * D + i] = bf16(weight[i]! * f32(x[t * D + i]! * inverse));
  }
}

/** y [T, D] = x / rms(x) * weight * silu(gate): unlike rms_norm, to bfloat16 before the weight and after it. HF: OlmoHybridRMSNormGated */
export function rms_norm_gated(
  y: FloatArray,
  x: FloatArray,
  gate: FloatArray,
  weight: FloatArray,
  T: number,
  D: number,
  eps: number,
): void {
  for (let t = 0; t < T; t++) {
    const inverse = inverseRms(x, t, D, eps);
    for (let i = 0; i < D; i++) {
      const at = t * D + i;
      const normed = bf16(x[at]! * inverse);
      y[at] = bf16(bf16(weight[i]! * normed) * f32(silu(gate[at]!))); // the gate is float32
    }
  }
}

/** y [T, D] = x / sqrt(sum(x^2) + eps), which stays float32: the delta rule takes its norms after its cast. HF: l2norm */
export function l2_norm(y: FloatArray, x: FloatArray, T: number, D: number, eps: number): void {
  for (let t = 0; t < T; t++) {
    let sum = 0;
    for (let i = 0; i < D; i++) sum += x[t * D + i]! ** 2;
    const inverse = rsqrt(f32(f32(sum) + f32(eps)));
    for (let i = 0; i < D; i++) y[t * D + i] = f32(x[t * D + i]! * inverse);
  }
}
