// Lane helpers that several kernels share.

/** Sum of four f32 lanes, pairwise: (0 + 2) + (1 + 3). */
@inline
export function hsum(v: v128): f32 {
  const pairs = f32x4.add(v, v128.shuffle<i32>(v, v, 2, 3, 0, 1));
  return f32x4.extract_lane(pairs, 0) + f32x4.extract_lane(pairs, 1);
}

/** Sum of two f64 lanes. */
@inline
export function hsum64(v: v128): f64 {
  return f64x2.extract_lane(v, 0) + f64x2.extract_lane(v, 1);
}

/** f32 lanes 0 and 1 as f64x2, exact. */
@inline
export function low64(v: v128): v128 {
  return f64x2.promote_low_f32x4(v);
}

/** f32 lanes 2 and 3 as f64x2, exact. */
@inline
export function high64(v: v128): v128 {
  return f64x2.promote_low_f32x4(v128.shuffle<i64>(v, v, 1, 0));
}

/** Two f64x2 rounded once to one f32x4. */
@inline
export function narrow(low: v128, high: v128): v128 {
  return v128.shuffle<i64>(f32x4.demote_f64x2_zero(low), f32x4.demote_f64x2_zero(high), 0, 2);
}

/** Dot product of two vectors of D floats: four running sums, then the tail. */
@inline
export function dot(a: usize, b: usize, D: i32): f32 {
  const D4 = D & ~3;
  let sum = f32x4.splat(0);
  for (let i = 0; i < D4; i += 4) sum = madd(sum, v128.load(a + (<usize>i << 2)), v128.load(b + (<usize>i << 2)));
  let total = hsum(sum);
  for (let i = D4; i < D; i++) total += load<f32>(a + (<usize>i << 2)) * load<f32>(b + (<usize>i << 2));
  return total;
}

/** sum + a b in every lane: rounded twice, or once in the relaxed build where the machine can. */
@inline
export function madd(sum: v128, a: v128, b: v128): v128 {
  if (ASC_FEATURE_RELAXED_SIMD) return f32x4.relaxed_madd(a, b, sum);
  return f32x4.add(sum, f32x4.mul(a, b));
}

/**
 * Reads two places once from front to back, side by side, as fast as memory comes, before a kernel takes them by columns, which no prefetcher follows.
 * What is read must not be for nothing: 16 bytes go to `sink`.
 */
@inline
export function touch(sink: usize, at: usize, other: usize, bytes: usize): void {
  let a = i32x4.splat(0), b = i32x4.splat(0);
  for (const end = at + (bytes & ~127); at < end; at += 128) {
    a = v128.or(a, v128.or(v128.load(at), v128.load(at, 64)));
    b = v128.or(b, v128.or(v128.load(other), v128.load(other, 64)));
    other += 128;
  }
  v128.store(sink, v128.or(a, b));
}
