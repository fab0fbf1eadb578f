// y[t, c] = silu(sum_j weight[c, j] * x[t - (W - 1) + j, c]): depthwise, causal, no bias.        HF: causal_conv1d_fn, causal_conv1d_update
//   x, y: [T, C] f32   weight: [W, C] f32 (transposed: lanes are channels)   state: [W - 1, C], the inputs before x, oldest first
// The state holds inputs BEFORE the convolution and the activation; it is advanced by T. y must not be x.
// The products of f32 are exact in f64; the sum and silu stay in f64 and are rounded once. In the relaxed build all is f32.

import { high64, low64, madd, narrow, store8 } from './simd';
import { silu32x4, silu64x2 } from './math';

/** The input at time t of this call, which lies in the state for t < 0. */
@inline
function input(x: usize, state: usize, row_bytes: usize, W: i32, t: i32): usize {
  return t < 0 ? state + <usize>(W - 1 + t) * row_bytes : x + <usize>t * row_bytes;
}

/** Four channels at one time, in the strict build: W rows of weights and inputs, of which those before `old` lie in the state, the others in x. */
@inline
function convolve(weight: usize, state: usize, x: usize, row_bytes: usize, W: i32, old: i32): v128 {
  let w = weight, v = state;
  let low = f64x2.splat(0), high = f64x2.splat(0);
  for (let j = 0; j < W; j++) {
    if (j == old) v = x;
    const vj = v128.load(v), wj = v128.load(w);
    low = f64x2.add(low, f64x2.mul(low64(vj), low64(wj)));
    high = f64x2.add(high, f64x2.mul(high64(vj), high64(wj)));
    v += row_bytes;
    w += row_bytes;
  }
  return narrow(silu64x2(low), silu64x2(high));
}

/** The same for eight channels, in the relaxed build. */
@inline
function convolve8(y: usize, weight: usize, state: usize, x: usize, row_bytes: usize, W: i32, old: i32): void {
  let w = weight, v = state, low = f32x4.splat(0), high = f32x4.splat(0);
  for (let j = 0; j < W; j++) {
    if (j == old) v = x;
    low = madd(low, v128.load(v), v128.load(w));
    high = madd(high, v128.load(v, 16), v128.load(w, 16));
    v += row_bytes;
    w += row_bytes;
  }
  store8(y, silu32x4(low), silu32x4(high));
}

/** The same for one channel, in lane 0. */
@inline
function convolve1(weight: usize, x: usize, state: usize, row_bytes: usize, W: i32, t: i32): v128 {
  let sum = f64x2.splat(0);
  for (let j = 0; j < W; j++) {
    const v = v128.load32_zero(input(x, state, row_bytes, W, t - (W - 1) + j)), w = v128.load32_zero(weight + <usize>j * row_bytes);
    sum = ASC_FEATURE_RELAXED_SIMD ? madd(sum, v, w) : f64x2.add(sum, f64x2.mul(low64(v), low64(w)));
  }
  return ASC_FEATURE_RELAXED_SIMD ? silu32x4(sum) : narrow(silu64x2(sum), sum);
}

/** Channels [begin, end). */
export function causal_conv1d(y: usize, x: usize, weight: usize, state: usize, T: i32, C: i32, W: i32, begin: i32, end: i32): void {
  const row_bytes = <usize>C << 2;
  for (let t = 0; t < T; t++) {
    const yt = y + <usize>t * row_bytes;
    // Rows before `old` lie in the state, the others in x.
    const old = min(max(W - 1 - t, 0), W);
    const from_state = state + <usize>t * row_bytes, from_x = x + <usize>(t - (W - 1) + old) * row_bytes;
    let c = begin;
    if (ASC_FEATURE_RELAXED_SIMD) for (; c + 8 <= end; c += 8) {
      const at = <usize>c << 2;
      convolve8(yt + at, weight + at, from_state + at, from_x + at, row_bytes, W, old);
    }
    else for (; c + 4 <= end; c += 4) {
      const at = <usize>c << 2;
      v128.store(yt + at, convolve(weight + at, from_state + at, from_x + at, row_bytes, W, old));
    }
    for (; c < end; c++) {
      const at = <usize>c << 2;
      v128.store_lane<f32>(yt + at, convolve1(weight + at, x + at, state + at, row_bytes, W, t), 0);
    }
  }
  // Oldest first, so that a row still needed is read before it is written.
  const bytes = <usize>(end - begin) << 2, at = <usize>begin << 2;
  for (let j = 0; j < W - 1; j++) {
    memory.copy(state + <usize>j * row_bytes + at, input(x, state, row_bytes, W, T - (W - 1) + j) + at, bytes);
  }
}
