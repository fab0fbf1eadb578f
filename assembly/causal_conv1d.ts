// y[t, c] = silu(sum_j weight[c, j] * x[t - (W - 1) + j, c]): depthwise, causal, no bias.        HF: causal_conv1d_fn, causal_conv1d_update
//   x, y: [T, C] f32   weight: [W, C] f32 (transposed: lanes are channels)   state: [W - 1, C], the inputs before x, oldest first
// The state holds inputs BEFORE the convolution and the activation; it is advanced by T. y must not be x.
// The products of f32 are exact in f64; the sum and silu stay in f64 and are rounded once.

import { high64, low64, narrow } from './simd';
import { silu64, silu64x2 } from './math';

/** The input at time t of this call, which lies in the state for t < 0. */
@inline
function input(x: usize, state: usize, row_bytes: usize, W: i32, t: i32): usize {
  return t < 0 ? state + <usize>(W - 1 + t) * row_bytes : x + <usize>t * row_bytes;
}

/** Channels [begin, end). */
export function causal_conv1d(y: usize, x: usize, weight: usize, state: usize, T: i32, C: i32, W: i32, begin: i32, end: i32): void {
  const row_bytes = <usize>C << 2;
  const whole = begin + ((end - begin) & ~3);
  for (let t = 0; t < T; t++) {
    const yt = y + <usize>t * row_bytes;
    // Rows before `old` lie in the state, the others in x.
    const old = min(max(W - 1 - t, 0), W);
    const from_state = state + <usize>t * row_bytes, from_x = x + <usize>(t - (W - 1) + old) * row_bytes;
    for (let c = begin; c < whole; c += 4) {
      const at = <usize>c << 2;
      let low = f64x2.splat(0), high = f64x2.splat(0);
      let w = weight + at, v = from_state + at;
      for (let j = 0; j < W; j++) {
        if (j == old) v = from_x + at;
        const vj = v128.load(v), wj = v128.load(w);
        low = f64x2.add(low, f64x2.mul(low64(vj), low64(wj)));
        high = f64x2.add(high, f64x2.mul(high64(vj), high64(wj)));
        v += row_bytes;
        w += row_bytes;
      }
      v128.store(yt + at, narrow(silu64x2(low), silu64x2(high)));
    }
    for (let c = whole; c < end; c++) {
      const at = <usize>c << 2;
      let sum: f64 = 0;
      for (let j = 0; j < W; j++) {
        sum += <f64>load<f32>(input(x, state, row_bytes, W, t - (W - 1) + j) + at) * <f64>load<f32>(weight + <usize>j * row_bytes + at);
      }
      store<f32>(yt + at, <f32>silu64(sum));
    }
  }
  // Oldest first, so that a row still needed is read before it is written.
  const bytes = <usize>(end - begin) << 2, at = <usize>begin << 2;
  for (let j = 0; j < W - 1; j++) {
    memory.copy(state + <usize>j * row_bytes + at, input(x, state, row_bytes, W, T - (W - 1) + j) + at, bytes);
  }
}
