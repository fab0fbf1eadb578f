// y = x / sqrt(sum(x^2) + eps), per row: the sum, not the mean, and eps under the root.                                     HF: l2norm
//   x, y: [T, D] f32, T = tokens * heads   y may be x

import { high64, low64, narrow } from './simd';
import { sum_of_squares } from './rms_norm';

/** Rows [begin, end). */
export function l2_norm(y: usize, x: usize, D: i32, eps: f64, begin: i32, end: i32): void {
  const D4 = D & ~3;
  for (let t = begin; t < end; t++) {
    const xt = x + (<usize>t * D << 2), yt = y + (<usize>t * D << 2);
    const r = 1.0 / sqrt(sum_of_squares(xt, D) + eps);
    const scale = f64x2.splat(r);
    for (let i = 0; i < D4; i += 4) {
      const v = v128.load(xt + (<usize>i << 2));
      v128.store(yt + (<usize>i << 2), narrow(f64x2.mul(low64(v), scale), f64x2.mul(high64(v), scale)));
    }
    for (let i = D4; i < D; i++) store<f32>(yt + (<usize>i << 2), <f32>(<f64>load<f32>(xt + (<usize>i << 2)) * r));
  }
}
