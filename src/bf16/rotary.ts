import type { FloatArray } from '../runtime/tensor.ts';
import { bf16, f32 } from './rounding.ts';

/**
 * cos, sin [positions, half]: PyTorch makes them in float32, from the power theta^(2i / Dh) and its inverse to the angle, which at far
 * positions is off by more than a rounding to bfloat16. Its exponents are float32 too, exact where Dh is a power of two, as released.
 * HF: OlmoHybridRotaryEmbedding
 */
export function rotary_table(
  cos: FloatArray,
  sin: FloatArray,
  inv_freq: FloatArray,
  positions: number,
  half: number,
  attention_factor: number,
): void {
  for (let i = 0; i < half; i++) {
    const frequency = f32(1 / f32(1 / inv_freq[i]!));
    for (let p = 0; p < positions; p++) {
      const angle = f32(p * frequency);
      cos[p * half + i] = f32(f32(Math.cos(angle)) * f32(attention_factor));
      sin[p * half + i] = f32(f32(Math.sin(angle)) * f32(attention_factor));
    }
  }
}

/** x [T, H, Dh] in place: bfloat16 times float32 is float32 in PyTorch, so the two products and their sum are. HF: apply_rotary_pos_emb */
export function rotary(x: FloatArray, cos: FloatArray, sin: FloatArray, position: number, T: number, H: number, Dh: number): void {
  const half = Dh / 2;
  for (let t = 0; t < T; t++) {
    for (let h = 0; h < H; h++) {
      for (let i = 0; i < half; i++) {
        const a = (t * H + h) * Dh + i;
        const b = a + half;
        const c = cos[(position + t) * half + i]!;
        const s = sin[(position + t) * half + i]!;
        [x[a], x[b]] = [bf16(f32(x[a]! * c) - f32(x[b]! * s)), bf16(f32(x[b]! * c) + f32(x[a]! * s))];
      }
    }
  }
}
