// y = silu(gate) * up, elementwise: the middle of the MLP.                                                            HF: OlmoHybridMLP
//   gate, up, y: [n] f32   y may be gate or up

import { high64, low64, narrow } from './simd';
import { silu64, silu64x2 } from './math';

/** Elements [begin, end). */
export function swiglu(y: usize, gate: usize, up: usize, begin: i32, end: i32): void {
  let i = begin;
  for (; i + 4 <= end; i += 4) {
    const at = <usize>i << 2;
    const g = v128.load(gate + at), u = v128.load(up + at);
    v128.store(y + at, narrow(f64x2.mul(silu64x2(low64(g)), low64(u)), f64x2.mul(silu64x2(high64(g)), high64(u))));
  }
  for (; i < end; i++) {
    const at = <usize>i << 2;
    store<f32>(y + at, <f32>(silu64(<f64>load<f32>(gate + at)) * <f64>load<f32>(up + at)));
  }
}
