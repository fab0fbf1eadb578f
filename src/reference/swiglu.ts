import type { FloatArray } from '../runtime/tensor.ts';
import { silu } from './activations.ts';

/** y [n] = silu(gate [n]) up [n]. HF: OlmoHybridMLP */
export function swiglu(y: FloatArray, gate: FloatArray, up: FloatArray, n: number): void {
  for (let i = 0; i < n; i++) y[i] = silu(gate[i]!) * up[i]!;
}
