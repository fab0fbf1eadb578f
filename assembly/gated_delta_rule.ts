// The gated delta rule, token by token.                          HF: torch_recurrent_gated_delta_rule; arXiv:2412.06464 §3.1
//   S <- exp(g) S;   u = beta (v - S^T k);   S <- S + k u^T;   o = S^T q / sqrt(Dk)       decay first, then read, then write
//   q, k: [T, Hk, Dk] f32, l2-normed   v, o: [T, H, Dv] f32 (o is not v)   g, beta: [T, H] f32   S: [H, Dk, Dv] f32, in place
//   value head h reads key head h / (H / Hk)
// A column of S belongs to one element of v and o and never meets another column, so lanes are columns. Eight columns (96 x 8 floats for the
// released model) stay in the L1 cache while 16 tokens pass, and their q and k while all columns do.
// The arithmetic is f64 and an element of S is rounded once for each token: a state lives through thousands of updates, and in f32 arithmetic its
// error grows past that of PyTorch (measured on the goldens: up to 1.9 times). It takes 2.5 times as long, 2% of prefill at the 7B's sizes.
// The relaxed build computes in f32 all the same.

import { exp64 } from './math';
import { scratch } from './scratch';
import { madd, narrow } from './simd';

const TOKENS: i32 = 16;

/** Two floats as f64x2, exact. */
@inline
function two(at: usize): v128 {
  return f64x2.promote_low_f32x4(v128.load64_zero(at));
}

/** One token, 8 columns. */
@inline
function step8(o: usize, v: usize, S: usize, lds: usize, k: usize, q: usize, beta: f64, decay: f64, scale: f64, Dk: i32): void {
  // r = S^T k, before the decay, which is common to all terms
  let r0 = f64x2.splat(0), r1 = f64x2.splat(0), r2 = f64x2.splat(0), r3 = f64x2.splat(0);
  let s = S;
  for (let i = 0; i < Dk; i++) {
    const ki = f64x2.splat(<f64>load<f32>(k + (<usize>i << 2)));
    r0 = f64x2.add(r0, f64x2.mul(ki, two(s)));
    r1 = f64x2.add(r1, f64x2.mul(ki, two(s + 8)));
    r2 = f64x2.add(r2, f64x2.mul(ki, two(s + 16)));
    r3 = f64x2.add(r3, f64x2.mul(ki, two(s + 24)));
    s += lds;
  }
  const b = f64x2.splat(beta), d = f64x2.splat(decay);
  const u0 = f64x2.mul(b, f64x2.sub(two(v), f64x2.mul(d, r0)));
  const u1 = f64x2.mul(b, f64x2.sub(two(v + 8), f64x2.mul(d, r1)));
  const u2 = f64x2.mul(b, f64x2.sub(two(v + 16), f64x2.mul(d, r2)));
  const u3 = f64x2.mul(b, f64x2.sub(two(v + 24), f64x2.mul(d, r3)));
  write4(o, S, lds, k, q, u0, u1, d, scale, Dk);
  write4(o + 16, S + 16, lds, k, q, u2, u3, d, scale, Dk);
}

/** S <- decay S + k u^T and o = S^T q * scale for 4 columns; o is read from S before it is rounded. */
@inline
function write4(o: usize, S: usize, lds: usize, k: usize, q: usize, u0: v128, u1: v128, decay: v128, scale: f64, Dk: i32): void {
  let o0 = f64x2.splat(0), o1 = f64x2.splat(0);
  for (let i = 0; i < Dk; i++) {
    const ki = f64x2.splat(<f64>load<f32>(k + (<usize>i << 2))), qi = f64x2.splat(<f64>load<f32>(q + (<usize>i << 2)));
    const s0 = f64x2.add(f64x2.mul(two(S), decay), f64x2.mul(ki, u0));
    const s1 = f64x2.add(f64x2.mul(two(S + 8), decay), f64x2.mul(ki, u1));
    v128.store(S, narrow(s0, s1));
    o0 = f64x2.add(o0, f64x2.mul(qi, s0));
    o1 = f64x2.add(o1, f64x2.mul(qi, s1));
    S += lds;
  }
  v128.store(o, narrow(f64x2.mul(o0, f64x2.splat(scale)), f64x2.mul(o1, f64x2.splat(scale))));
}

/** One token, one column, for a Dv that 8 does not divide. */
@inline
function step1(o: usize, v: usize, S: usize, lds: usize, k: usize, q: usize, beta: f64, decay: f64, scale: f64, Dk: i32): void {
  let r: f64 = 0;
  for (let i = 0; i < Dk; i++) r += <f64>load<f32>(k + (<usize>i << 2)) * <f64>load<f32>(S + <usize>i * lds);
  const u = beta * (<f64>load<f32>(v) - decay * r);
  let sum: f64 = 0;
  for (let i = 0; i < Dk; i++) {
    const s = <f64>load<f32>(S + <usize>i * lds) * decay + <f64>load<f32>(k + (<usize>i << 2)) * u;
    store<f32>(S + <usize>i * lds, <f32>s);
    sum += <f64>load<f32>(q + (<usize>i << 2)) * s;
  }
  store<f32>(o, <f32>(sum * scale));
}

/** r = S^T k of 8 columns. */
@inline
function read8(r: usize, S: usize, lds: usize, k: usize, Dk: i32): void {
  let r0 = f32x4.splat(0), r1 = f32x4.splat(0);
  for (const end = k + (<usize>Dk << 2); k < end; k += 4) {
    const ki = v128.load32_splat(k);
    r0 = madd(r0, ki, v128.load(S));
    r1 = madd(r1, ki, v128.load(S, 16));
    S += lds;
  }
  v128.store(r, r0);
  v128.store(r, r1, 16);
}

/**
 * Tokens [0, n) of 8 columns in f32, for the relaxed build. One pass over S for each token: what a token writes, it reads for its output, and the
 * next one's key reads as well. S^T k comes from the token before in r, and goes to the next.
 */
@inline
function tokens8(
  o: usize, v: usize, S: usize, lds: usize, ldk: usize, ldv: usize, ldb: usize, k: usize, q: usize, beta: usize, decays: usize, scale: f32, n: i32, Dk: i32,
): void {
  const r = decays + <usize>TOKENS * 4;
  read8(r, S, lds, k, Dk);
  for (let t = 0; t < n; t++) {
    const decay = v128.load32_splat(decays + (<usize>t << 2)), b = v128.load32_splat(beta + <usize>t * ldb);
    const vt = v + <usize>t * ldv, ot = o + <usize>t * ldv;
    const u0 = f32x4.mul(b, f32x4.sub(v128.load(vt), f32x4.mul(decay, v128.load(r))));
    const u1 = f32x4.mul(b, f32x4.sub(v128.load(vt, 16), f32x4.mul(decay, v128.load(r, 16))));
    let r0 = f32x4.splat(0), r1 = f32x4.splat(0), o0 = f32x4.splat(0), o1 = f32x4.splat(0);
    const next = t + 1 < n ? ldk : 0; // the last one's r is not used
    let s = S;
    for (let i: usize = 0; i < <usize>Dk << 2; i += 4) {
      const ki = v128.load32_splat(k + i);
      const s0 = madd(f32x4.mul(decay, v128.load(s)), ki, u0);
      const s1 = madd(f32x4.mul(decay, v128.load(s, 16)), ki, u1);
      const qi = v128.load32_splat(q + i), ni = v128.load32_splat(k + next + i);
      v128.store(s, s0);
      v128.store(s, s1, 16);
      o0 = madd(o0, qi, s0);
      o1 = madd(o1, qi, s1);
      r0 = madd(r0, ni, s0);
      r1 = madd(r1, ni, s1);
      s += lds;
    }
    v128.store(ot, f32x4.mul(o0, f32x4.splat(scale)));
    v128.store(ot, f32x4.mul(o1, f32x4.splat(scale)), 16);
    v128.store(r, r0);
    v128.store(r, r1, 16);
    k += ldk;
    q += ldk;
  }
}

/** Value heads [begin, end). */
export function gated_delta_rule_recurrent(
  o: usize, q: usize, k: usize, v: usize, g: usize, beta: usize, S: usize,
  T: i32, Hk: i32, H: i32, Dk: i32, Dv: i32, begin: i32, end: i32,
): void {
  const scale = 1.0 / sqrt(<f64>Dk);
  const ldk = <usize>Hk * Dk << 2, ldv = <usize>H * Dv << 2, lds = <usize>Dv << 2;
  const repeat = H / Hk;
  for (let h = begin; h < end; h++) {
    const key = <usize>(h / repeat) * Dk << 2;
    const Sh = S + (<usize>h * Dk * Dv << 2);
    for (let first = 0; first < T; first += TOKENS) {
      const last = min(first + TOKENS, T);
      if (ASC_FEATURE_RELAXED_SIMD) {
        for (let t = first; t < last; t++) store<f32>(scratch() + (<usize>(t - first) << 2), <f32>exp64(<f64>load<f32>(g + (<usize>t * H + h << 2))));
      }
      for (let j = 0; j < Dv;) {
        const eight = j + 8 <= Dv;
        const column = <usize>j << 2;
        if (ASC_FEATURE_RELAXED_SIMD && eight) {
          const at = <usize>first * ldk + key, row = <usize>first * ldv + (<usize>h * Dv << 2) + column;
          const bt = beta + (<usize>first * H + h << 2);
          tokens8(o + row, v + row, Sh + column, lds, ldk, ldv, <usize>H << 2, k + at, q + at, bt, scratch(), <f32>scale, last - first, Dk);
          j += 8;
          continue;
        }
        for (let t = first; t < last; t++) {
          const at = <usize>t * H + h << 2;
          const kt = k + <usize>t * ldk + key, qt = q + <usize>t * ldk + key;
          const row = <usize>t * ldv + (<usize>h * Dv << 2) + column;
          const b = <f64>load<f32>(beta + at), decay = exp64(<f64>load<f32>(g + at));
          if (eight) step8(o + row, v + row, Sh + column, lds, kt, qt, b, decay, scale, Dk);
          else step1(o + row, v + row, Sh + column, lds, kt, qt, b, decay, scale, Dk);
        }
        j += eight ? 8 : 1;
      }
    }
  }
}
