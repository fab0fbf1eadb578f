// What this machine can do at most, for the benchmarks: no product code uses it.

/** 12 chains of a multiplication and an addition on registers: 12 * 2 * 4 * n floating point operations. */
export function f32_peak(n: i32, factor: f32, term: f32): f32 {
  const m = f32x4.splat(factor), s = f32x4.splat(term);
  let a = m, b = f32x4.splat(1), c = f32x4.splat(2), d = f32x4.splat(3), e = f32x4.splat(4), f = f32x4.splat(5);
  let g = s, h = f32x4.splat(6), i = f32x4.splat(7), j = f32x4.splat(8), k = f32x4.splat(9), l = f32x4.splat(10);
  for (let t = 0; t < n; t++) {
    a = f32x4.add(f32x4.mul(a, m), s);
    b = f32x4.add(f32x4.mul(b, m), s);
    c = f32x4.add(f32x4.mul(c, m), s);
    d = f32x4.add(f32x4.mul(d, m), s);
    e = f32x4.add(f32x4.mul(e, m), s);
    f = f32x4.add(f32x4.mul(f, m), s);
    g = f32x4.add(f32x4.mul(g, m), s);
    h = f32x4.add(f32x4.mul(h, m), s);
    i = f32x4.add(f32x4.mul(i, m), s);
    j = f32x4.add(f32x4.mul(j, m), s);
    k = f32x4.add(f32x4.mul(k, m), s);
    l = f32x4.add(f32x4.mul(l, m), s);
  }
  let sum = f32x4.add(f32x4.add(f32x4.add(a, b), f32x4.add(c, d)), f32x4.add(f32x4.add(e, f), f32x4.add(g, h)));
  sum = f32x4.add(sum, f32x4.add(f32x4.add(i, j), f32x4.add(k, l)));
  return f32x4.extract_lane(sum, 0);
}

/** Reads `bytes` (a multiple of 128) and folds them, so that no load can be left out. */
export function memory_read(from: usize, bytes: usize): i32 {
  const end = from + bytes;
  let a = i32x4.splat(0), b = a, c = a, d = a, e = a, f = a, g = a, h = a;
  while (from < end) {
    a = v128.xor(a, v128.load(from));
    b = v128.xor(b, v128.load(from, 16));
    c = v128.xor(c, v128.load(from, 32));
    d = v128.xor(d, v128.load(from, 48));
    e = v128.xor(e, v128.load(from, 64));
    f = v128.xor(f, v128.load(from, 80));
    g = v128.xor(g, v128.load(from, 96));
    h = v128.xor(h, v128.load(from, 112));
    from += 128;
  }
  const s = v128.xor(v128.xor(v128.xor(a, b), v128.xor(c, d)), v128.xor(v128.xor(e, f), v128.xor(g, h)));
  return i32x4.extract_lane(s, 0) ^ i32x4.extract_lane(s, 1) ^ i32x4.extract_lane(s, 2) ^ i32x4.extract_lane(s, 3);
}
