// What this machine can do at most, for `bench`, on the threads that share the kernels: outputs are numbers that nobody needs, one for each piece of
// work, so that nothing can be left out.

import { byte_dots } from './byte_dots';
import { madd, store8, wide } from './simd';

// What a chain is made of.
const F32_MADD: i32 = 0;
const I16_DOT: i32 = 1;
const I8_DOT: i32 = 2;

@inline
function link(kind: i32, a: v128, m: v128, s: v128): v128 {
  if (kind == F32_MADD) return madd(s, a, m);
  if (ASC_FEATURE_RELAXED_SIMD && kind == I8_DOT) return byte_dots(m, m, a);
  return i32x4.add(a, i32x4.dot_i16x8_s(a, m));
}

/** A number that depends on four. */
@inline
function one(a: v128, b: v128, c: v128, d: v128): v128 {
  return i32x4.add(i32x4.add(a, b), i32x4.add(c, d));
}

/** 12 chains on registers, or 24 where V8 joins two to one: as many as there is room for. A piece leaves 32 bytes. */
@inline
function chains(kind: i32, twice: bool, sink: usize, steps: i32, m: v128, s: v128, begin: i32, end: i32): void {
  for (let piece = begin; piece < end; piece++) {
    let a0 = i32x4.splat(1), b0 = i32x4.splat(2), c0 = i32x4.splat(3), d0 = i32x4.splat(4), e0 = i32x4.splat(5), f0 = i32x4.splat(6);
    let g0 = i32x4.splat(7), h0 = i32x4.splat(8), i0 = i32x4.splat(9), j0 = i32x4.splat(10), k0 = i32x4.splat(11), l0 = i32x4.splat(12);
    let a1 = a0, b1 = b0, c1 = c0, d1 = d0, e1 = e0, f1 = f0, g1 = g0, h1 = h0, i1 = i0, j1 = j0, k1 = k0, l1 = l0;
    for (let t = 0; t < steps; t++) {
      a0 = link(kind, a0, m, s);
      b0 = link(kind, b0, m, s);
      c0 = link(kind, c0, m, s);
      d0 = link(kind, d0, m, s);
      e0 = link(kind, e0, m, s);
      f0 = link(kind, f0, m, s);
      g0 = link(kind, g0, m, s);
      h0 = link(kind, h0, m, s);
      i0 = link(kind, i0, m, s);
      j0 = link(kind, j0, m, s);
      k0 = link(kind, k0, m, s);
      l0 = link(kind, l0, m, s);
      if (twice) {
        a1 = link(kind, a1, m, s);
        b1 = link(kind, b1, m, s);
        c1 = link(kind, c1, m, s);
        d1 = link(kind, d1, m, s);
        e1 = link(kind, e1, m, s);
        f1 = link(kind, f1, m, s);
        g1 = link(kind, g1, m, s);
        h1 = link(kind, h1, m, s);
        i1 = link(kind, i1, m, s);
        j1 = link(kind, j1, m, s);
        k1 = link(kind, k1, m, s);
        l1 = link(kind, l1, m, s);
      }
    }
    const lower = one(one(a0, b0, c0, d0), one(e0, f0, g0, h0), i0, one(j0, k0, l0, l0));
    const upper = twice ? one(one(a1, b1, c1, d1), one(e1, f1, g1, h1), i1, one(j1, k1, l1, l1)) : lower;
    store8(sink + (<usize>piece << 5), lower, upper);
  }
}

/** Pieces [begin, end) of `steps` steps of chains of a multiplication and an addition, fused in the relaxed build: 96 operations in a step, or 192. */
export function f32_peak(sink: usize, steps: i32, factor: f32, term: f32, begin: i32, end: i32): void {
  if (wide()) f32_wide(sink, steps, factor, term, begin, end);
  else chains(F32_MADD, false, sink, steps, f32x4.splat(factor), f32x4.splat(term), begin, end);
}

export function f32_wide(sink: usize, steps: i32, factor: f32, term: f32, begin: i32, end: i32): void {
  chains(F32_MADD, true, sink, steps, f32x4.splat(factor), f32x4.splat(term), begin, end);
}

/** The same of an i16 dot and an addition: 192 operations in a step, or 384. */
export function i16_peak(sink: usize, steps: i32, factor: i32, begin: i32, end: i32): void {
  if (wide()) i16_wide(sink, steps, factor, begin, end);
  else chains(I16_DOT, false, sink, steps, i16x8.splat(<i16>factor), i16x8.splat(0), begin, end);
}

export function i16_wide(sink: usize, steps: i32, factor: i32, begin: i32, end: i32): void {
  chains(I16_DOT, true, sink, steps, i16x8.splat(<i16>factor), i16x8.splat(0), begin, end);
}

/** The same of dots of bytes: 384 operations in a step, or 768. The strict build has none, and takes i16. */
export function i8_peak(sink: usize, steps: i32, factor: i32, begin: i32, end: i32): void {
  if (wide()) i8_wide(sink, steps, factor, begin, end);
  else chains(I8_DOT, false, sink, steps, i8x16.splat(<i8>factor), i8x16.splat(0), begin, end);
}

export function i8_wide(sink: usize, steps: i32, factor: i32, begin: i32, end: i32): void {
  chains(I8_DOT, true, sink, steps, i8x16.splat(<i8>factor), i8x16.splat(0), begin, end);
}

/**
 * Reads pieces [begin, end) of `bytes` (a multiple of 256) each, in four streams and in vectors of 256 bits where V8 makes them: one core may read more so.
 */
export function memory_read(sink: usize, from: usize, bytes: usize, begin: i32, end: i32): void {
  const part = bytes >> 2;
  for (let piece = begin; piece < end; piece++) {
    let a = i32x4.splat(0), b = a, c = a, d = a, at = from + <usize>piece * bytes;
    for (const last = at + part; at < last; at += 64) {
      let x = at;
      a = v128.xor(v128.xor(a, v128.load(x)), v128.load(x, 32));
      b = v128.xor(v128.xor(b, v128.load(x, 16)), v128.load(x, 48));
      x += part;
      c = v128.xor(v128.xor(c, v128.load(x)), v128.load(x, 32));
      d = v128.xor(v128.xor(d, v128.load(x, 16)), v128.load(x, 48));
      x += part;
      a = v128.xor(v128.xor(a, v128.load(x)), v128.load(x, 32));
      b = v128.xor(v128.xor(b, v128.load(x, 16)), v128.load(x, 48));
      x += part;
      c = v128.xor(v128.xor(c, v128.load(x)), v128.load(x, 32));
      d = v128.xor(v128.xor(d, v128.load(x, 16)), v128.load(x, 48));
    }
    const to = sink + (<usize>piece << 5);
    store8(to, v128.xor(a, c), v128.xor(b, d));
  }
}
