import type { FloatArray } from '../runtime/tensor.ts';

/** cos, sin [positions, half] of position * inv_freq [half], times attention_factor. HF: OlmoHybridRotaryEmbedding */
export function rotary_table(
  cos: FloatArray,
  sin: FloatArray,
  inv_freq: FloatArray,
  positions: number,
  half: number,
  attention_factor: number,
): void {
  for (let p = 0; p < positions; p++) {
    for (let i = 0; i < half; i++) {
      cos[p * half + i] = Math.cos(p * inv_freq[i]!) * attention_factor;
      sin[p * half + i] = Math.sin(p * inv_freq[i]!) * attention_factor;
    }
  }
}

/** x [T, H, Dh] in place: element i of the first half turns with element i of the second. HF: apply_rotary_pos_emb */
export function rotary(x: FloatArray, cos: FloatArray, sin: FloatArray, position: number, T: number, H: number, Dh: number): void {
  const half = Dh / 2;
  for (let t = 0; t < T; t++) {
    for (let h = 0; h < H; h++) {
      for (let i = 0; i < half; i++) {
        const a = (t * H + h) * Dh + i;
        const b = a + half;
        const c = cos[(position + t) * half + i]!;
        const s = sin[(position + t) * half + i]!;
        [x[a], x[b]] = [x[a]! * c - x[b]! * s, x[b]! * c + x[a]! * s];
      }
    }
  }
}
