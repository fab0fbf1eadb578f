// The gated delta rule, token by token.                          HF: torch_recurrent_gated_delta_rule; arXiv:2412.06464 §3.1
//   S <- exp(g) S;   u = beta (v - S^T k);   S <- S + k u^T;   o = S^T q / sqrt(Dk)       decay first, then read, then write
//   q, k: [T, Hk, Dk] f32, l2-normed   v, o: [T, H, Dv] f32 (o is not v)   g, beta: [T, H] f32   S: [H, Dk, Dv] f32, in place
//   value head h reads key head h / (H / Hk)
// A column of S belongs to one element of v and o and never meets another column, so lanes are columns.
// The arithmetic is f64 and an element of S is rounded once for each token: a state lives through thousands of updates, and in f32 arithmetic its
// error grows past that of PyTorch (measured on the goldens: up to 1.9 times). Four columns of S are widened to f64 in scratch, where they stay in
// the L1 cache while 16 tokens pass; the keys and queries of these are widened once for all columns, and read from there in a row.
// The relaxed build computes in f32, eight columns at a time.

import { exp64 } from './math';
import { SCRATCH_BYTES, scratch } from './scratch';
import { high64, low64, madd, narrow, store8, touch } from './simd';

/** Most tokens that pass over a column before the next one comes. */
const TOKENS: i32 = 16;
// Scratch in the strict build, all f64: decays and beta of the tokens, r and u of 4 columns, S [Dk][4], and for each token [Dk] of k and q.
const BETA_AT: usize = TOKENS * 8;
const R_AT: usize = 2 * BETA_AT;
const U_AT: usize = R_AT + 32;
const S_AT: usize = U_AT + 32;
const COLUMNS_BYTES: usize = 32;
const PAIR_BYTES: usize = 16;

/** At most TOKENS, and as many as have room for their keys. */
@inline
function most_tokens(Dk: i32): i32 {
  if (ASC_FEATURE_RELAXED_SIMD) return TOKENS;
  return max(1, min(TOKENS, (<i32>(SCRATCH_BYTES - S_AT) / Dk - <i32>COLUMNS_BYTES) / <i32>PAIR_BYTES));
}

/** Writes what tokens [0, n) of a head have in common for all columns. */
function prepare(s: usize, q: usize, k: usize, g: usize, beta: usize, ldk: usize, ldb: usize, n: i32, Dk: i32): void {
  let to = s + S_AT + <usize>Dk * COLUMNS_BYTES;
  for (let t = 0; t < n; t++) {
    store<f64>(s + (<usize>t << 3), exp64(<f64>load<f32>(g)));
    store<f64>(s + BETA_AT + (<usize>t << 3), <f64>load<f32>(beta));
    for (let i: usize = 0; i < <usize>Dk << 2; i += 4) {
      store<f64>(to, <f64>load<f32>(k + i));
      store<f64>(to, <f64>load<f32>(q + i), 8);
      to += PAIR_BYTES;
    }
    k += ldk;
    q += ldk;
    g += ldb;
    beta += ldb;
  }
}

/** Four columns of S to f64, and their r = S^T k for the first token. */
@inline
function widen4(s: usize, S: usize, lds: usize, Dk: i32): void {
  let r0 = f64x2.splat(0), r1 = f64x2.splat(0);
  let wide = s + S_AT, k = wide + <usize>Dk * COLUMNS_BYTES;
  for (const end = k; wide < end; wide += COLUMNS_BYTES) {
    const row = v128.load(S), s0 = low64(row), s1 = high64(row), ki = v128.load64_splat(k);
    v128.store(wide, s0);
    v128.store(wide, s1, 16);
    r0 = f64x2.add(r0, f64x2.mul(ki, s0));
    r1 = f64x2.add(r1, f64x2.mul(ki, s1));
    k += PAIR_BYTES;
    S += lds;
  }
  v128.store(s + R_AT, r0);
  v128.store(s + R_AT, r1, 16);
}

/**
 * One pass over the four columns in scratch: what token t writes, it reads for its output before it is rounded, and the next one's key reads it
 * after. r is S^T k before the decay, which is common to all terms. The last token writes to S itself.
 */
@inline
function pass4(last: bool, o: usize, v: usize, S: usize, lds: usize, s: usize, t: i32, Dk: i32, scale: f64): void {
  const d = v128.load64_splat(s + (<usize>t << 3)), b = v128.load64_splat(s + BETA_AT + (<usize>t << 3)), vt = v128.load(v);
  // u goes through memory: V8 would compute it inside the loop, again and again (measured: a third of the kernel's time).
  v128.store(s + U_AT, f64x2.mul(b, f64x2.sub(low64(vt), f64x2.mul(d, v128.load(s + R_AT)))));
  v128.store(s + U_AT, f64x2.mul(b, f64x2.sub(high64(vt), f64x2.mul(d, v128.load(s + R_AT, 16)))), 16);
  const u0 = v128.load(s + U_AT), u1 = v128.load(s + U_AT, 16);
  let r0 = f64x2.splat(0), r1 = f64x2.splat(0), o0 = f64x2.splat(0), o1 = f64x2.splat(0);
  const row = <usize>Dk * PAIR_BYTES, end = s + S_AT + <usize>Dk * COLUMNS_BYTES;
  let k = end + <usize>t * row, next = k + row;
  for (let wide = s + S_AT; wide < end; wide += COLUMNS_BYTES) {
    const ki = v128.load64_splat(k), qi = v128.load64_splat(k, 8);
    let s0 = f64x2.add(f64x2.mul(v128.load(wide), d), f64x2.mul(ki, u0));
    let s1 = f64x2.add(f64x2.mul(v128.load(wide, 16), d), f64x2.mul(ki, u1));
    o0 = f64x2.add(o0, f64x2.mul(qi, s0));
    o1 = f64x2.add(o1, f64x2.mul(qi, s1));
    if (last) {
      v128.store(S, narrow(s0, s1));
      S += lds;
    } else {
      const ni = v128.load64_splat(next);
      s0 = rounded(s0);
      s1 = rounded(s1);
      v128.store(wide, s0);
      v128.store(wide, s1, 16);
      r0 = f64x2.add(r0, f64x2.mul(ni, s0));
      r1 = f64x2.add(r1, f64x2.mul(ni, s1));
      next += PAIR_BYTES;
    }
    k += PAIR_BYTES;
  }
  v128.store(o, narrow(f64x2.mul(o0, f64x2.splat(scale)), f64x2.mul(o1, f64x2.splat(scale))));
  v128.store(s + R_AT, r0);
  v128.store(s + R_AT, r1, 16);
}

/** Two f64 to the nearest f32. */
@inline
function rounded(x: v128): v128 {
  return f64x2.promote_low_f32x4(f32x4.demote_f64x2_zero(x));
}

/** Tokens [0, n) of four columns. */
@inline
function tokens4(o: usize, v: usize, ldv: usize, S: usize, lds: usize, s: usize, n: i32, Dk: i32, scale: f64): void {
  widen4(s, S, lds, Dk);
  const row = <usize>(n - 1) * ldv;
  for (let t = 0; t < n - 1; t++) pass4(false, o + <usize>t * ldv, v + <usize>t * ldv, S, lds, s, t, Dk, scale);
  pass4(true, o + row, v + row, S, lds, s, n - 1, Dk, scale);
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

/** Tokens [0, n) of columns [first, Dv) of a head, which 8 does not divide; also those of gated_delta_rule_chunked.ts. */
export function last_columns(
  o: usize, q: usize, k: usize, v: usize, g: usize, beta: usize, S: usize,
  n: i32, ldk: usize, ldv: usize, lds: usize, ldb: usize, Dk: i32, first: i32, Dv: i32,
): void {
  const scale = 1.0 / sqrt(<f64>Dk);
  for (let j = <usize>first << 2; j < <usize>Dv << 2; j += 4) {
    for (let t: usize = 0; t < <usize>n; t++) {
      const b = <f64>load<f32>(beta + t * ldb), decay = exp64(<f64>load<f32>(g + t * ldb)), at = t * ldv + j;
      step1(o + at, v + at, S + j, lds, k + t * ldk, q + t * ldk, b, decay, scale, Dk);
    }
  }
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
  store8(r, r0, r1);
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
    const d0 = f32x4.sub(v128.load(vt), f32x4.mul(decay, v128.load(r)));
    const d1 = f32x4.sub(v128.load(vt, 16), f32x4.mul(decay, v128.load(r, 16)));
    store8(r, f32x4.mul(b, d0), f32x4.mul(b, d1));
    const u0 = v128.load(r), u1 = v128.load(r, 16); // through memory, as in pass4
    let r0 = f32x4.splat(0), r1 = f32x4.splat(0), o0 = f32x4.splat(0), o1 = f32x4.splat(0);
    const next = t + 1 < n ? ldk : 0; // the last one's r is not used
    let s = S;
    for (let i: usize = 0; i < <usize>Dk << 2; i += 4) {
      const ki = v128.load32_splat(k + i);
      const s0 = madd(f32x4.mul(decay, v128.load(s)), ki, u0);
      const s1 = madd(f32x4.mul(decay, v128.load(s, 16)), ki, u1);
      const qi = v128.load32_splat(q + i), ni = v128.load32_splat(k + next + i);
      store8(s, s0, s1);
      o0 = madd(o0, qi, s0);
      o1 = madd(o1, qi, s1);
      r0 = madd(r0, ni, s0);
      r1 = madd(r1, ni, s1);
      s += lds;
    }
    store8(ot, f32x4.mul(o0, f32x4.splat(scale)), f32x4.mul(o1, f32x4.splat(scale)));
    store8(r, r0, r1);
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
  const ldk = <usize>Hk * Dk << 2, ldv = <usize>H * Dv << 2, lds = <usize>Dv << 2, ldb = <usize>H << 2;
  const columns = ASC_FEATURE_RELAXED_SIMD ? 8 : 4;
  const repeat = H / Hk, most = most_tokens(Dk);
  for (let h = begin; h < end; h++) {
    const Sh = S + (<usize>h * Dk * Dv << 2);
    if (T == 1) touch(scratch(), Sh, Sh + <usize>(Dk >> 1) * lds, <usize>(Dk >> 1) * lds);
    for (let first = 0; first < T; first += most) {
      const n = min(most, T - first);
      const keys = <usize>first * ldk + (<usize>(h / repeat) * Dk << 2), at = <usize>first * ldb + (<usize>h << 2);
      const row = <usize>first * ldv + (<usize>h * Dv << 2);
      if (ASC_FEATURE_RELAXED_SIMD) {
        for (let t = 0; t < n; t++) store<f32>(scratch() + (<usize>t << 2), <f32>exp64(<f64>load<f32>(g + at + <usize>t * ldb)));
      } else prepare(scratch(), q + keys, k + keys, g + at, beta + at, ldk, ldb, n, Dk);
      let j = 0;
      for (; j + columns <= Dv; j += columns) {
        const column = <usize>j << 2, oj = o + row + column, vj = v + row + column;
        if (ASC_FEATURE_RELAXED_SIMD) {
          tokens8(oj, vj, Sh + column, lds, ldk, ldv, ldb, k + keys, q + keys, beta + at, scratch(), <f32>scale, n, Dk);
        } else {
          tokens4(oj, vj, ldv, Sh + column, lds, scratch(), n, Dk, scale);
        }
      }
      last_columns(o + row, q + keys, k + keys, v + row, g + at, beta + at, Sh, n, ldk, ldv, lds, ldb, Dk, j, Dv);
    }
  }
}
