import type { FloatArray } from '../runtime/tensor.ts';
import { silu } from './activations.ts';

/**
 * y[t, c] = silu(sum_j weight[j, c] x[t - (W - 1) + j, c]): depthwise and causal. HF: causal_conv1d_fn, causal_conv1d_update
 *
 * x, y [T, C]; weight [W, C]; state [W - 1, C] holds the inputs before x, oldest first, and is advanced: inputs, not outputs.
 */
export function causal_conv1d(y: FloatArray, x: FloatArray, weight: FloatArray, state: FloatArray, T: number, C: number, W: number): void {
  const input = (t: number, c: number) => (t < 0 ? state[(W - 1 + t) * C + c]! : x[t * C + c]!);
  for (let t = 0; t < T; t++) {
    for (let c = 0; c < C; c++) {
      let sum = 0;
      for (let j = 0; j < W; j++) sum += weight[j * C + c]! * input(t - (W - 1) + j, c);
      y[t * C + c] = silu(sum);
    }
  }
  for (let j = 0; j < W - 1; j++) {
    for (let c = 0; c < C; c++) state[j * C + c] = input(T - (W - 1) + j, c);
  }
}
