// y = exp(x - max(x)) / sum(exp(x - max(x))), per row.                                                          torch.nn.functional.softmax
//   x, y: [T, D] f32   y may be x

import { exp64 } from './math';

/** Rows [begin, end). A row needs at least one finite element. */
export function softmax(y: usize, x: usize, D: i32, begin: i32, end: i32): void {
  const row_bytes = <usize>D << 2;
  for (let t = begin; t < end; t++) {
    const xt = x + <usize>t * row_bytes, yt = y + <usize>t * row_bytes;
    let top = load<f32>(xt);
    for (let i: usize = 4; i < row_bytes; i += 4) top = max(top, load<f32>(xt + i));
    let sum: f64 = 0;
    for (let i: usize = 0; i < row_bytes; i += 4) sum += exp64(<f64>load<f32>(xt + i) - <f64>top);
    for (let i: usize = 0; i < row_bytes; i += 4) store<f32>(yt + i, <f32>(exp64(<f64>load<f32>(xt + i) - <f64>top) / sum));
  }
}
