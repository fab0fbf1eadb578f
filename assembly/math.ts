// exp, log, sigmoid, softplus, sin and cos in f64, from + - * / alone, so that they give the same bits in every engine.
// Every kernel of the strict build evaluates them in f64 and rounds its result once to f32; the relaxed build has exp and silu in f32 as well.
// The stated bounds are measured by test/kernels/math.test.ts.

import { madd } from './simd';

const LOG2E: f64 = 1.4426950408889634;
// ln 2 = LN2_HI + LN2_LO; LN2_HI has 32 significant bits, so that n * LN2_HI is exact for |n| < 2^20.
const LN2: f64 = 0.6931471805599453;
const LN2_HI: f64 = 0.6931471803691238;
const LN2_LO: f64 = 1.9082149292705877e-10;
// Adding 1.5 * 2^52 rounds to the nearest integer and leaves it in the low bits.
const ROUND: f64 = 6755399441055744.0;

/** exp of two lanes, relative error < 1e-11; the argument is clamped to [-708, 709], so that -inf gives 3e-308 (0 in f32). NaN stays NaN. */
@inline
export function exp64x2(x: v128): v128 {
  // pmin and pmax are an instruction each, min and max eight: these would order NaN and the zeros, and here the first operand's NaN is kept as well.
  const clamped = f64x2.pmin(f64x2.pmax(x, f64x2.splat(-708.0)), f64x2.splat(709.0));
  const shifted = f64x2.add(f64x2.mul(clamped, f64x2.splat(LOG2E)), f64x2.splat(ROUND));
  const n = f64x2.sub(shifted, f64x2.splat(ROUND));
  const r = f64x2.sub(clamped, f64x2.mul(n, f64x2.splat(LN2))); // off by up to 1e-13, where n is largest
  // Taylor to r^9, |r| <= ln(2) / 2: the first term left out is below 8e-12. In pairs of terms, which wait for each other less than one chain.
  const r2 = f64x2.mul(r, r), r4 = f64x2.mul(r2, r2);
  const p01 = f64x2.add(r, f64x2.splat(1.0));
  const p23 = f64x2.add(f64x2.mul(r, f64x2.splat(1.0 / 6.0)), f64x2.splat(0.5));
  const p45 = f64x2.add(f64x2.mul(r, f64x2.splat(1.0 / 120.0)), f64x2.splat(1.0 / 24.0));
  const p67 = f64x2.add(f64x2.mul(r, f64x2.splat(1.0 / 5040.0)), f64x2.splat(1.0 / 720.0));
  const p89 = f64x2.add(f64x2.mul(r, f64x2.splat(1.0 / 362880.0)), f64x2.splat(1.0 / 40320.0));
  const high = f64x2.add(f64x2.add(p45, f64x2.mul(r2, p67)), f64x2.mul(r4, p89));
  const p = f64x2.add(f64x2.add(p01, f64x2.mul(r2, p23)), f64x2.mul(r4, high));
  // 2^n is added to the exponent field of p, which lies in [0.7, 1.42].
  return i64x2.add(p, i64x2.shl(shifted, 52));
}

/** exp of a scalar: the bits of a lane of exp64x2 within its range, Infinity above it and 0 below. */
export function exp64(x: f64): f64 {
  if (x > 709.0) return Infinity;
  if (x < -708.0) return 0;
  return f64x2.extract_lane(exp64x2(f64x2.splat(x)), 0);
}

/**
 * exp of four f32 lanes, within 1.5 ULP on [-87, 88], to which the argument is clamped, so that -inf gives 1e-38. NaN stays NaN. For the relaxed
 * build; in strict the products are rounded.
 */
@inline
export function exp32x4(x: v128): v128 {
  const clamped = f32x4.pmin(f32x4.pmax(x, f32x4.splat(-87)), f32x4.splat(88));
  // Adding 1.5 * 2^23 rounds to the nearest integer and leaves it in the low bits.
  const shifted = madd(f32x4.splat(12582912), clamped, f32x4.splat(<f32>LOG2E));
  const n = f32x4.sub(shifted, f32x4.splat(12582912));
  // ln 2 in two parts, of which the first has 9 bits: n times it is exact.
  const r = madd(madd(clamped, n, f32x4.splat(-0.693359375)), n, f32x4.splat(2.12194440e-4));
  // e^r = 1 + r + r^2 P(r) for |r| <= ln(2) / 2: P is the minimax polynomial of degree 4, whose relative error is 3e-9.
  let p = madd(f32x4.splat(0.00836878084), f32x4.splat(0.00138144672), r);
  p = madd(f32x4.splat(0.0416683927), p, r);
  p = madd(f32x4.splat(0.166665196), p, r);
  p = madd(f32x4.splat(0.49999994), p, r);
  p = f32x4.add(madd(r, f32x4.mul(r, r), p), f32x4.splat(1));
  return i32x4.add(p, i32x4.shl(shifted, 23));
}

/** A lane of exp32x4. */
export function exp32(x: f32): f32 {
  return f32x4.extract_lane(exp32x4(f32x4.splat(x)), 0);
}

/** x * sigmoid(x) of four f32 lanes, within 4 ULP and 1e-36. */
@inline
export function silu32x4(x: v128): v128 {
  return f32x4.div(x, f32x4.add(f32x4.splat(1), exp32x4(f32x4.neg(x))));
}

/** 1 / (1 + exp(-x)) of two lanes. */
@inline
function sigmoid64x2(x: v128): v128 {
  return f64x2.div(f64x2.splat(1.0), f64x2.add(f64x2.splat(1.0), exp64x2(f64x2.neg(x))));
}

/** x * sigmoid(x) of two lanes. */
@inline
export function silu64x2(x: v128): v128 {
  return f64x2.div(x, f64x2.add(f64x2.splat(1.0), exp64x2(f64x2.neg(x))));
}

@inline
export function sigmoid64(x: f64): f64 {
  return f64x2.extract_lane(sigmoid64x2(f64x2.splat(x)), 0);
}

// 2 atanh(s) = 2 (s + s^3/3 + s^5/5 + …) = log((1 + s) / (1 - s)), |s| <= 0.1716: the first term left out is below 1e-18.
@inline
function atanh_series(s: f64): f64 {
  const z = s * s;
  let p: f64 = 1.0 / 23.0;
  p = p * z + 1.0 / 21.0;
  p = p * z + 1.0 / 19.0;
  p = p * z + 1.0 / 17.0;
  p = p * z + 1.0 / 15.0;
  p = p * z + 1.0 / 13.0;
  p = p * z + 1.0 / 11.0;
  p = p * z + 1.0 / 9.0;
  p = p * z + 1.0 / 7.0;
  p = p * z + 1.0 / 5.0;
  p = p * z + 1.0 / 3.0;
  return 2.0 * (s + s * z * p);
}

/** Natural logarithm of a positive normal number, relative error < 1e-15. */
export function log64(x: f64): f64 {
  const bits = reinterpret<u64>(x);
  let n: f64 = <f64>(<i64>(bits >> 52) - 1023);
  let m = reinterpret<f64>((bits & 0x000fffffffffffff) | 0x3ff0000000000000); // [1, 2)
  if (m > 1.4142135623730951) {
    m *= 0.5;
    n += 1.0;
  }
  return n * LN2_HI + (atanh_series((m - 1.0) / (m + 1.0)) + n * LN2_LO);
}

/** log(1 + exp(x)); x itself above 20, as torch.nn.functional.softplus. */
export function softplus64(x: f64): f64 {
  if (!(x <= 20.0)) return x; // NaN as well
  const y = exp64(x);
  return y < 0.4 ? atanh_series(y / (2.0 + y)) : log64(1.0 + y);
}

// pi/2 = PIO2_HI + PIO2_LO, PIO2_HI with 33 significant bits: n * PIO2_HI is exact for n < 2^20, that is for angles up to 1.6e6.
const PIO2_HI: f64 = 1.5707963267341256;
const PIO2_LO: f64 = 6.077100506506192e-11;
const TWO_OVER_PI: f64 = 0.6366197723675814;

/** Quadrant n of an angle; the remainder angle - n pi/2 is reduce(angle, n). */
@inline
function quadrant(angle: f64): f64 {
  return nearest(angle * TWO_OVER_PI);
}

@inline
function reduce(angle: f64, n: f64): f64 {
  return angle - n * PIO2_HI - n * PIO2_LO;
}

// Taylor on |r| <= pi/4: the first terms left out are below 3e-17 (sin, r^17) and 4e-17 (cos, r^18).
@inline
function sin_poly(r: f64): f64 {
  const z = r * r;
  let p: f64 = -1.0 / 1307674368000.0;
  p = p * z + 1.0 / 6227020800.0;
  p = p * z - 1.0 / 39916800.0;
  p = p * z + 1.0 / 362880.0;
  p = p * z - 1.0 / 5040.0;
  p = p * z + 1.0 / 120.0;
  p = p * z - 1.0 / 6.0;
  return r + r * z * p;
}

@inline
function cos_poly(r: f64): f64 {
  const z = r * r;
  let p: f64 = 1.0 / 20922789888000.0;
  p = p * z - 1.0 / 87178291200.0;
  p = p * z + 1.0 / 479001600.0;
  p = p * z - 1.0 / 3628800.0;
  p = p * z + 1.0 / 40320.0;
  p = p * z - 1.0 / 720.0;
  p = p * z + 1.0 / 24.0;
  p = p * z - 0.5;
  return 1.0 + z * p;
}

/** Cosine of 0 <= angle < 1.6e6, absolute error < 1e-14. */
export function cos64(angle: f64): f64 {
  const n = quadrant(angle);
  const r = reduce(angle, n);
  const q = <i32>n & 3;
  const c = q & 1 ? sin_poly(r) : cos_poly(r);
  return q == 1 || q == 2 ? -c : c;
}

/** Sine of 0 <= angle < 1.6e6, absolute error < 1e-14. */
export function sin64(angle: f64): f64 {
  const n = quadrant(angle);
  const r = reduce(angle, n);
  const q = <i32>n & 3;
  const s = q & 1 ? cos_poly(r) : sin_poly(r);
  return q >= 2 ? -s : s;
}
