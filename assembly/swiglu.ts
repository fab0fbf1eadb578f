// y = silu(gate) * up, elementwise: the middle of the MLP.                                                            HF: OlmoHybridMLP
//   gate, up, y: [n] f32   y may be gate or up
// In f64 and rounded once; in the relaxed build in f32.

import { high64, low64, narrow, store8 } from './simd';
import { silu32x4, silu64x2 } from './math';

/** silu(gate) * up of four lanes. */
@inline
function gated(gate: v128, up: v128): v128 {
  if (ASC_FEATURE_RELAXED_SIMD) return f32x4.mul(silu32x4(gate), up);
  return narrow(f64x2.mul(silu64x2(low64(gate)), low64(up)), f64x2.mul(silu64x2(high64(gate)), high64(up)));
}

/** Elements [begin, end). */
export function swiglu(y: usize, gate: usize, up: usize, begin: i32, end: i32): void {
  let i = begin;
  if (ASC_FEATURE_RELAXED_SIMD) for (; i + 8 <= end; i += 8) {
    const at = <usize>i << 2, g = gate + at, u = up + at;
    const low = gated(v128.load(g), v128.load(u)), high = gated(v128.load(g, 16), v128.load(u, 16));
    store8(y + at, low, high);
  }
  else for (; i + 4 <= end; i += 4) {
    const at = <usize>i << 2;
    v128.store(y + at, gated(v128.load(gate + at), v128.load(up + at)));
  }
  for (; i < end; i++) {
    const at = <usize>i << 2;
    v128.store_lane<f32>(y + at, gated(v128.load32_zero(gate + at), v128.load32_zero(up + at)), 0);
  }
}
