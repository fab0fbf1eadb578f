// What this machine can do at most, for `bench`, on the threads that share the kernels: outputs are numbers that nobody needs, one for each piece of
// work, so that nothing can be left out.

import { byte_dots } from './byte_dots';

/** Pieces [begin, end) of `steps` steps of 12 chains of a multiplication and an addition on registers: 96 floating point operations in a step. */
export function f32_peak(sink: usize, steps: i32, factor: f32, term: f32, begin: i32, end: i32): void {
  const m = f32x4.splat(factor), s = f32x4.splat(term);
  for (let piece = begin; piece < end; piece++) {
    let a = m, b = f32x4.splat(1), c = f32x4.splat(2), d = f32x4.splat(3), e = f32x4.splat(4), f = f32x4.splat(5);
    let g = s, h = f32x4.splat(6), i = f32x4.splat(7), j = f32x4.splat(8), k = f32x4.splat(9), l = f32x4.splat(10);
    for (let t = 0; t < steps; t++) {
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
    store<f32>(sink + (<usize>piece << 2), f32x4.extract_lane(sum, 0));
  }
}

/** 12 chains of integer dots. */
@inline
function integer_peak(bytes: bool, sink: usize, steps: i32, m: v128, begin: i32, end: i32): void {
  for (let piece = begin; piece < end; piece++) {
    let a = i32x4.splat(1), b = i32x4.splat(2), c = i32x4.splat(3), d = i32x4.splat(4), e = i32x4.splat(5), f = i32x4.splat(6);
    let g = i32x4.splat(7), h = i32x4.splat(8), i = i32x4.splat(9), j = i32x4.splat(10), k = i32x4.splat(11), l = i32x4.splat(12);
    for (let t = 0; t < steps; t++) {
      a = chained(bytes, a, m);
      b = chained(bytes, b, m);
      c = chained(bytes, c, m);
      d = chained(bytes, d, m);
      e = chained(bytes, e, m);
      f = chained(bytes, f, m);
      g = chained(bytes, g, m);
      h = chained(bytes, h, m);
      i = chained(bytes, i, m);
      j = chained(bytes, j, m);
      k = chained(bytes, k, m);
      l = chained(bytes, l, m);
    }
    let sum = i32x4.add(i32x4.add(i32x4.add(a, b), i32x4.add(c, d)), i32x4.add(i32x4.add(e, f), i32x4.add(g, h)));
    sum = i32x4.add(sum, i32x4.add(i32x4.add(i, j), i32x4.add(k, l)));
    store<i32>(sink + (<usize>piece << 2), i32x4.extract_lane(sum, 0));
  }
}

@inline
function chained(bytes: bool, a: v128, m: v128): v128 {
  if (ASC_FEATURE_RELAXED_SIMD && bytes) return byte_dots(m, m, a);
  return i32x4.add(a, i32x4.dot_i16x8_s(a, m));
}

/** The same of 12 chains of an i16 dot and an addition: 192 operations in a step. */
export function i16_peak(sink: usize, steps: i32, factor: i32, begin: i32, end: i32): void {
  integer_peak(false, sink, steps, i16x8.splat(<i16>factor), begin, end);
}

/** The same of 12 chains of dots of bytes: 384 operations in a step. The strict build has none, and takes i16. */
export function i8_peak(sink: usize, steps: i32, factor: i32, begin: i32, end: i32): void {
  integer_peak(true, sink, steps, i8x16.splat(<i8>factor), begin, end);
}

/** Reads pieces [begin, end) of `bytes` (a multiple of 128) each, in two streams: one core may read more of two than of one. */
export function memory_read(sink: usize, from: usize, bytes: usize, begin: i32, end: i32): void {
  const half = bytes >> 1;
  for (let piece = begin; piece < end; piece++) {
    let at = from + <usize>piece * bytes, far = at + half;
    const last = far;
    let a = i32x4.splat(0), b = a, c = a, d = a, e = a, f = a, g = a, h = a;
    while (at < last) {
      a = v128.xor(a, v128.load(at));
      b = v128.xor(b, v128.load(at, 16));
      c = v128.xor(c, v128.load(at, 32));
      d = v128.xor(d, v128.load(at, 48));
      e = v128.xor(e, v128.load(far));
      f = v128.xor(f, v128.load(far, 16));
      g = v128.xor(g, v128.load(far, 32));
      h = v128.xor(h, v128.load(far, 48));
      at += 64;
      far += 64;
    }
    const s = v128.xor(v128.xor(v128.xor(a, b), v128.xor(c, d)), v128.xor(v128.xor(e, f), v128.xor(g, h)));
    store<i32>(sink + (<usize>piece << 2), i32x4.extract_lane(s, 0) ^ i32x4.extract_lane(s, 1) ^ i32x4.extract_lane(s, 2) ^ i32x4.extract_lane(s, 3));
  }
}
