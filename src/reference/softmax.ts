import type { FloatArray } from '../runtime/tensor.ts';

/** y [T, D] = exp(x - max) / sum(exp(x - max)), by row. torch.nn.functional.softmax */
export function softmax(y: FloatArray, x: FloatArray, T: number, D: number): void {
  for (let t = 0; t < T; t++) {
    const row = x.subarray(t * D, (t + 1) * D);
    let top = -Infinity;
    for (const value of row) top = Math.max(top, value);
    let sum = 0;
    for (const value of row) sum += Math.exp(value - top);
    for (let i = 0; i < D; i++) y[t * D + i] = Math.exp(row[i]! - top) / sum;
  }
}
