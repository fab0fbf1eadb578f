// y[t] = table[ids[t]].                                                                                          torch.nn.functional.embedding
//   ids: [T] i32, in range (the caller checks)   table: [V, D] f32 or bf16, row-major   y: [T, D] f32

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
