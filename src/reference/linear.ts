import type { FloatArray } from '../runtime/tensor.ts';

/** y [T, N] = x [T, K] w^T (+ bias [N]), w [N, K]. torch.nn.functional.linear */
export function linear(y: FloatArray, x: FloatArray, w: FloatArray, bias: FloatArray | null, T: number, K: number, N: number): void {
  for (let t = 0; t < T; t++) {
    for (let n = 0; n < N; n++) {
      let sum = 0;
      for (let k = 0; k < K; k++) sum += x[t * K + k]! * w[n * K + k]!;
      y[t * N + n] = bias ? sum + bias[n]! : sum;
    }
  }
}
