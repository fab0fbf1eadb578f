// The two scalars of a head and token.                                                                       HF: OlmoHybridGatedDeltaNet
//   g = -exp(A_log) * softplus(a + dt_bias), the log decay, <= 0      beta = scale * sigmoid(b), scale 2 with negative eigenvalues, else 1
//   a, g, b, beta: [T, H] f32   A_log, dt_bias: [H] f32   g may be a, beta may be b

import { exp64, sigmoid64, softplus64 } from './math';

/** Heads [begin, end). */
export function gdn_gate(g: usize, a: usize, A_log: usize, dt_bias: usize, T: i32, H: i32, begin: i32, end: i32): void {
  for (let h = begin; h < end; h++) {
    const A = exp64(<f64>load<f32>(A_log + (<usize>h << 2)));
    const bias = <f64>load<f32>(dt_bias + (<usize>h << 2));
    for (let t = 0; t < T; t++) {
      const at = <usize>t * H + h << 2;
      store<f32>(g + at, <f32>(-A * softplus64(<f64>load<f32>(a + at) + bias)));
    }
  }
}

/** Heads [begin, end). */
export function gdn_beta(beta: usize, b: usize, scale: f64, T: i32, H: i32, begin: i32, end: i32): void {
  for (let t = 0; t < T; t++) {
    for (let h = begin; h < end; h++) {
      const at = <usize>t * H + h << 2;
      store<f32>(beta + at, <f32>(scale * sigmoid64(<f64>load<f32>(b + at))));
    }
  }
}
