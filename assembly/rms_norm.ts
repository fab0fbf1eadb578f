// y = x / sqrt(mean(x^2) + eps) * weight, per row; with a gate: y = that * silu(gate).          HF: OlmoHybridRMSNorm, OlmoHybridRMSNormGated
//   x, gate, y: [T, D] f32   weight: [D] f32   y may be x
// The squares are exact in f64; everything stays in f64 and is rounded once. In the relaxed build what comes after the sum is f32.

import { high64, hsum64, low64, narrow, store8 } from './simd';
import { silu32x4, silu64x2 } from './math';

/** Sum of the squares of D floats in f64: lanes D % 4 == 0, 2 and 1, 3 apart, the tail last. */
@inline
export function sum_of_squares(x: usize, D: i32): f64 {
  const D4 = D & ~3;
  let even = f64x2.splat(0), odd = f64x2.splat(0);
  for (let i = 0; i < D4; i += 4) {
    const v = v128.load(x + (<usize>i << 2));
    const low = low64(v), high = high64(v);
    even = f64x2.add(even, f64x2.mul(low, low));
    odd = f64x2.add(odd, f64x2.mul(high, high));
  }
  let sum = hsum64(f64x2.add(even, odd));
  for (let i = D4; i < D; i++) {
    const v = <f64>load<f32>(x + (<usize>i << 2));
    sum += v * v;
  }
  return sum;
}

/** Rows [begin, end). */
export function rms_norm(y: usize, x: usize, weight: usize, D: i32, eps: f64, begin: i32, end: i32): void {
  const D4 = D & ~3;
  for (let t = begin; t < end; t++) {
    const xt = x + (<usize>t * D << 2), yt = y + (<usize>t * D << 2);
    const r = 1.0 / sqrt(sum_of_squares(xt, D) / <f64>D + eps);
    const scale = f64x2.splat(r);
    for (let i = 0; i < D4; i += 4) {
      const at = <usize>i << 2;
      const v = v128.load(xt + at), w = v128.load(weight + at);
      v128.store(yt + at, narrow(f64x2.mul(f64x2.mul(low64(v), scale), low64(w)), f64x2.mul(f64x2.mul(high64(v), scale), high64(w))));
    }
    for (let i = D4; i < D; i++) {
      const at = <usize>i << 2;
      store<f32>(yt + at, <f32>(<f64>load<f32>(xt + at) * r * <f64>load<f32>(weight + at)));
    }
  }
}

/** x r w silu(g) of four lanes. */
@inline
function norm_gated(x: v128, r: f64, w: v128, g: v128): v128 {
  if (ASC_FEATURE_RELAXED_SIMD) return f32x4.mul(f32x4.mul(f32x4.mul(x, f32x4.splat(<f32>r)), w), silu32x4(g));
  const scale = f64x2.splat(r);
  const low = f64x2.mul(f64x2.mul(f64x2.mul(low64(x), scale), low64(w)), silu64x2(low64(g)));
  const high = f64x2.mul(f64x2.mul(f64x2.mul(high64(x), scale), high64(w)), silu64x2(high64(g)));
  return narrow(low, high);
}

/** Rows [begin, end); the norm comes before the gate. */
export function rms_norm_gated(y: usize, x: usize, gate: usize, weight: usize, D: i32, eps: f64, begin: i32, end: i32): void {
  const D4 = D & ~3;
  for (let t = begin; t < end; t++) {
    const row = <usize>t * D << 2;
    const xt = x + row, gt = gate + row, yt = y + row;
    const r = 1.0 / sqrt(sum_of_squares(xt, D) / <f64>D + eps);
    let i = 0;
    if (ASC_FEATURE_RELAXED_SIMD) for (; i + 8 <= D; i += 8) {
      const at = <usize>i << 2, x8 = xt + at, g8 = gt + at, w8 = weight + at;
      const low = norm_gated(v128.load(x8), r, v128.load(w8), v128.load(g8)), high = norm_gated(v128.load(x8, 16), r, v128.load(w8, 16), v128.load(g8, 16));
      store8(yt + at, low, high);
    }
    else for (; i < D4; i += 4) {
      const at = <usize>i << 2;
      v128.store(yt + at, norm_gated(v128.load(xt + at), r, v128.load(weight + at), v128.load(gt + at)));
    }
    for (; i < D; i++) {
      const at = <usize>i << 2;
      v128.store_lane<f32>(yt + at, norm_gated(v128.load32_zero(xt + at), r, v128.load32_zero(weight + at), v128.load32_zero(gt + at)), 0);
    }
  }
}
