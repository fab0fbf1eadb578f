// Rotary position embedding, the two halves of a head rotated against each other.          HF: OlmoHybridRotaryEmbedding, apply_rotary_pos_emb
//   x: [T, H, Dh] f32, in place   cos, sin: [positions, Dh / 2] f32   token t sits at position + t

import { high64, low64, narrow } from './simd';
import { cos64, sin64 } from './math';

/** Rows [begin, end) of the tables: cos and sin of position * inv_freq (f64), times attention_factor, rounded once. */
export function rotary_table(cos: usize, sin: usize, inv_freq: usize, half: i32, attention_factor: f64, begin: i32, end: i32): void {
  for (let p = begin; p < end; p++) {
    for (let i = 0; i < half; i++) {
      const angle = <f64>p * load<f64>(inv_freq + (<usize>i << 3));
      const at = <usize>p * half + i << 2;
      store<f32>(cos + at, <f32>(cos64(angle) * attention_factor));
      store<f32>(sin + at, <f32>(sin64(angle) * attention_factor));
    }
  }
}

/** Tokens [begin, end). */
export function rotary(x: usize, cos: usize, sin: usize, position: i32, H: i32, Dh: i32, begin: i32, end: i32): void {
  const half = Dh >> 1;
  const half4 = half & ~3;
  for (let t = begin; t < end; t++) {
    const ct = cos + (<usize>(position + t) * half << 2), st = sin + (<usize>(position + t) * half << 2);
    for (let h = 0; h < H; h++) {
      const a = x + ((<usize>t * H + h) * Dh << 2), b = a + (<usize>half << 2);
      for (let i = 0; i < half4; i += 4) {
        const at = <usize>i << 2;
        const x1 = v128.load(a + at), x2 = v128.load(b + at), c = v128.load(ct + at), s = v128.load(st + at);
        const x1l = low64(x1), x1h = high64(x1), x2l = low64(x2), x2h = high64(x2);
        const cl = low64(c), ch = high64(c), sl = low64(s), sh = high64(s);
        v128.store(a + at, narrow(
          f64x2.sub(f64x2.mul(x1l, cl), f64x2.mul(x2l, sl)),
          f64x2.sub(f64x2.mul(x1h, ch), f64x2.mul(x2h, sh))));
        v128.store(b + at, narrow(
          f64x2.add(f64x2.mul(x2l, cl), f64x2.mul(x1l, sl)),
          f64x2.add(f64x2.mul(x2h, ch), f64x2.mul(x1h, sh))));
      }
      for (let i = half4; i < half; i++) {
        const at = <usize>i << 2;
        const x1 = <f64>load<f32>(a + at), x2 = <f64>load<f32>(b + at), c = <f64>load<f32>(ct + at), s = <f64>load<f32>(st + at);
        store<f32>(a + at, <f32>(x1 * c - x2 * s));
        store<f32>(b + at, <f32>(x2 * c + x1 * s));
      }
    }
  }
}
