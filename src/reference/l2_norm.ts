import type { FloatArray } from '../runtime/tensor.ts';

/** y [T, D] = x / sqrt(sum(x^2) + eps); T counts tokens and heads. The sum, not the mean; eps under the root. HF: l2norm */
export function l2_norm(y: FloatArray, x: FloatArray, T: number, D: number, eps: number): void {
  for (let t = 0; t < T; t++) {
    let sum = 0;
    for (let i = 0; i < D; i++) sum += x[t * D + i]! ** 2;
    const norm = Math.sqrt(sum + eps);
    for (let i = 0; i < D; i++) y[t * D + i] = x[t * D + i]! / norm;
  }
}
