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

/** Dot product of two vectors of D floats: eight running sums, then the tail. */
@inline
export function dot(a: usize, b: usize, D: i32): f32 {
  const end = <usize>(D & ~7) << 2;
  let low = f32x4.splat(0), high = low;
  for (let i: usize = 0; i < end; i += 32) {
    low = madd(low, v128.load(a + i), v128.load(b + i));
    high = madd(high, v128.load(a + i, 16), v128.load(b + i, 16));
  }
  let total = hsum(f32x4.add(low, high));
  for (let i = end; i < <usize>D << 2; i += 4) total += load<f32>(a + i) * load<f32>(b + i);
  return total;
}

/** Four sums as `dot` adds them up, of eight running sums each, 32 bytes apart. */
@inline
export function sums4(at: usize): v128 {
  const a = f32x4.add(v128.load(at), v128.load(at, 16)), b = f32x4.add(v128.load(at, 32), v128.load(at, 48));
  const c = f32x4.add(v128.load(at, 64), v128.load(at, 80)), d = f32x4.add(v128.load(at, 96), v128.load(at, 112));
  const ab = f32x4.add(v128.shuffle<i64>(a, b, 0, 2), v128.shuffle<i64>(a, b, 1, 3));
  const cd = f32x4.add(v128.shuffle<i64>(c, d, 0, 2), v128.shuffle<i64>(c, d, 1, 3));
  return f32x4.add(v128.shuffle<i32>(ab, cd, 0, 2, 4, 6), v128.shuffle<i32>(ab, cd, 1, 3, 5, 7));
}

/** sum + a b in every lane: rounded twice, or once in the relaxed build where the machine can. */
@inline
export function madd(sum: v128, a: v128, b: v128): v128 {
  if (ASC_FEATURE_RELAXED_SIMD) return f32x4.relaxed_madd(a, b, sum);
  return f32x4.add(sum, f32x4.mul(a, b));
}

let has_wide: bool = false;

/** Whether the engine makes one instruction of 256 bits of two of 128. Called at most once. */
export function set_wide(on: bool): void {
  has_wide = on;
}

/** Then tiles are twice as large: 16 sums of 128 bits fill 8 registers. No bit depends on it. */
@inline
export function wide(): bool {
  return has_wide;
}

/**
 * Eight lanes side by side. V8 can make one instruction of 256 bits of two of 128 whose results lie side by side in memory, and of what leads to them
 * from the same address (src/runtime/wasm_module.ts says where): both loads before both stores, the upper store first, and offsets that are constants.
 */
@inline
export function store8(to: usize, low: v128, high: v128): void {
  v128.store(to, high, 16);
  v128.store(to, low);
}

/** to[0..8] += sum. */
@inline
export function add8(to: usize, low: v128, high: v128): void {
  const a = f32x4.add(v128.load(to), low), b = f32x4.add(v128.load(to, 16), high);
  store8(to, a, b);
}

/** to[0..8] = factor to[0..8] + sum, rounded twice, or once in the relaxed build where the machine can. */
@inline
export function decay8(to: usize, low: v128, high: v128, factor: v128): void {
  const a = madd(low, v128.load(to), factor), b = madd(high, v128.load(to, 16), factor);
  store8(to, a, b);
}

/** to[0..8] += a b. */
@inline
export function madd8(to: usize, a_low: v128, a_high: v128, b_low: v128, b_high: v128): void {
  const a = madd(v128.load(to), a_low, b_low), b = madd(v128.load(to, 16), a_high, b_high);
  store8(to, a, b);
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
