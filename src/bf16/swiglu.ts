import { silu } from '../reference/activations.ts';
import type { FloatArray } from '../runtime/tensor.ts';
import { bf16 } from './rounding.ts';

/** y [n] = silu(gate) up: two operations, two roundings. HF: OlmoHybridMLP */
export function swiglu(y: FloatArray, gate: FloatArray, up: FloatArray, n: number): void {
  for (let i = 0; i < n; i++) y[i] = bf16(bf16(silu(gate[i]!)) * up[i]!);
}
