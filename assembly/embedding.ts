// y[t] = table[ids[t]].                                                                                          torch.nn.functional.embedding
//   ids: [T] i32, in range (the caller checks)   table: [V, D] f32 or bf16, row-major   y: [T, D] f32

import { bf16_is_finite, half_to_f32 } from './half';

/** Rows [begin, end) from a table of f32. */
export function embedding_f32(y: usize, ids: usize, table: usize, D: i32, begin: i32, end: i32): void {
  const row_bytes = <usize>D << 2;
  for (let t = begin; t < end; t++) {
    memory.copy(y + <usize>t * row_bytes, table + <usize>load<i32>(ids + (<usize>t << 2)) * row_bytes, row_bytes);
  }
}

/** Rows [begin, end) from a table of bf16. */
export function embedding_bf16(y: usize, ids: usize, table: usize, D: i32, begin: i32, end: i32): void {
  for (let t = begin; t < end; t++) {
    const row = table + <usize>load<i32>(ids + (<usize>t << 2)) * (<usize>D << 1);
    for (let i = 0; i < D; i++) {
      store<u32>(y + (<usize>t * D + i << 2), <u32>load<u16>(row + (<usize>i << 1)) << 16);
    }
  }
}

/** Takes rows [begin, end) of a table [V, D] from f32 at `source`. Returns how many of the values are NaN or infinite. */
export function copy_f32(table: usize, source: usize, D: i32, begin: i32, end: i32): i32 {
  const to = table + (<usize>begin * D << 2);
  let bad = 0;
  for (let i: usize = 0; i < <usize>(end - begin) * D << 2; i += 4) {
    const value = load<f32>(source + i);
    bad += i32(!isFinite(value));
    store<f32>(to + i, value);
  }
  return bad;
}

/** The same from f16; the table is f32, exact. */
export function copy_f16(table: usize, source: usize, D: i32, begin: i32, end: i32): i32 {
  const to = table + (<usize>begin * D << 2);
  let bad = 0;
  for (let i: usize = 0; i < <usize>(end - begin) * D; i++) {
    const value = half_to_f32(load<u16>(source + (i << 1)));
    bad += i32(!isFinite(value));
    store<f32>(to + (i << 2), value);
  }
  return bad;
}

/** The same from bf16; the table stays bf16. */
export function copy_bf16(table: usize, source: usize, D: i32, begin: i32, end: i32): i32 {
  const to = table + (<usize>begin * D << 1);
  let bad = 0;
  for (let i: usize = 0; i < <usize>(end - begin) * D << 1; i += 2) {
    const value = load<u16>(source + i);
    bad += i32(!bf16_is_finite(value));
    store<u16>(to + i, value);
  }
  return bad;
}
