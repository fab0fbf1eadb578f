// The gated delta rule, CHUNK tokens at a time: the same function as gated_delta_rule_recurrent, other rounding.
//                                                                     HF: torch_chunk_gated_delta_rule; arXiv:2412.06464 §3.3
// With c = cumsum(g) inside the chunk and D[i, j] = exp(c_i - c_j) for j <= i:
//   u_i = beta_i (v_i - exp(c_i) S^T k_i) - sum_{j < i} M[i, j] u_j         M = diag(beta) K K^T * D, by substitution, in order
//   o_i = (exp(c_i) S^T q_i + sum_{j <= i} P[i, j] u_j) / sqrt(Dk)          P = Q K^T * D
//   S  <- exp(c_n) S + sum_i exp(c_n - c_i) k_i u_i^T
// S is read and written once for CHUNK tokens instead of once for each. The state at the start of the chunk is at hand, so that W of the paper
// (the system solved for the keys) is never formed. Shapes as in gated_delta_rule.ts; scratch: [H, CHUNKED_SCRATCH] bytes.
// The products with S, M and P are f32; the substitution, whose errors would reach all that follows, and the sums of g are f64.
// The cut of the prompt moves the chunks and with them the last bits: strict mode uses the recurrence.

import { exp32x4, exp64 } from './math';
import { dot, high64, hsum, low64, madd, narrow, store8 } from './simd';

const CHUNK: i32 = 16;
const ROW: usize = CHUNK * 4;
// Offsets into a head's scratch: f64 c [CHUNK], u [CHUNK][8]; f32 decay_in, decay_out [CHUNK], M, P [CHUNK][CHUNK], r [CHUNK][8]
const C_AT: usize = 0;
const U_AT: usize = CHUNK * 8;
const DECAY_IN_AT: usize = U_AT + CHUNK * 64;
const DECAY_OUT_AT: usize = DECAY_IN_AT + ROW;
const M_AT: usize = DECAY_OUT_AT + ROW;
const P_AT: usize = M_AT + <usize>CHUNK * ROW;
const R_AT: usize = P_AT + <usize>CHUNK * ROW;
export const CHUNKED_SCRATCH: usize = R_AT + CHUNK * 32;

/** out[4][8] = x[4 rows][Dk] S[Dk][8 columns]. */
@inline
function rows_state(out: usize, x: usize, ldx: usize, S: usize, lds: usize, Dk: i32): void {
  const x1 = x + ldx, x2 = x1 + ldx, x3 = x2 + ldx;
  let a0 = f32x4.splat(0), a1 = f32x4.splat(0), b0 = f32x4.splat(0), b1 = f32x4.splat(0);
  let c0 = f32x4.splat(0), c1 = f32x4.splat(0), d0 = f32x4.splat(0), d1 = f32x4.splat(0);
  for (let i: usize = 0; i < <usize>Dk << 2; i += 4) {
    const s0 = v128.load(S), s1 = v128.load(S, 16);
    let xi = v128.load32_splat(x + i);
    a0 = madd(a0, xi, s0);
    a1 = madd(a1, xi, s1);
    xi = v128.load32_splat(x1 + i);
    b0 = madd(b0, xi, s0);
    b1 = madd(b1, xi, s1);
    xi = v128.load32_splat(x2 + i);
    c0 = madd(c0, xi, s0);
    c1 = madd(c1, xi, s1);
    xi = v128.load32_splat(x3 + i);
    d0 = madd(d0, xi, s0);
    d1 = madd(d1, xi, s1);
    S += lds;
  }
  store8(out, a0, a1);
  out += 32;
  store8(out, b0, b1);
  out += 32;
  store8(out, c0, c1);
  out += 32;
  store8(out, d0, d1);
}

/** out[8] = x[Dk] S[Dk][8 columns]. */
@inline
function row_state(out: usize, x: usize, S: usize, lds: usize, Dk: i32): void {
  let a0 = f32x4.splat(0), a1 = f32x4.splat(0);
  for (let i = 0; i < Dk; i++) {
    const xi = v128.load32_splat(x + (<usize>i << 2));
    a0 = madd(a0, xi, v128.load(S));
    a1 = madd(a1, xi, v128.load(S, 16));
    S += lds;
  }
  store8(out, a0, a1);
}

/** r[n][8] = x[n rows][Dk] S. */
@inline
function chunk_state(r: usize, x: usize, ldx: usize, S: usize, lds: usize, Dk: i32, n: i32): void {
  let i = 0;
  for (; i + 4 <= n; i += 4) rows_state(r + (<usize>i << 5), x + <usize>i * ldx, ldx, S, lds, Dk);
  for (; i < n; i++) row_state(r + (<usize>i << 5), x + <usize>i * ldx, S, lds, Dk);
}

/** S[Dk][8 columns] = decay S + the sum over n rows of k r^T. Four rows of S at a time, as in rows_state. */
@inline
function write_state(S: usize, lds: usize, k: usize, ldk: usize, r: usize, decay32: f32, n: i32, Dk: i32): void {
  const decay = f32x4.splat(decay32);
  let d = 0;
  for (; d + 4 <= Dk; d += 4) {
    let kd = k + (<usize>d << 2), ri = r;
    let a0 = f32x4.splat(0), a1 = f32x4.splat(0), b0 = f32x4.splat(0), b1 = f32x4.splat(0);
    let c0 = f32x4.splat(0), c1 = f32x4.splat(0), d0 = f32x4.splat(0), d1 = f32x4.splat(0);
    for (const end = r + (<usize>n << 5); ri < end; ri += 32) {
      const r0 = v128.load(ri), r1 = v128.load(ri, 16);
      let ki = v128.load32_splat(kd);
      a0 = madd(a0, ki, r0);
      a1 = madd(a1, ki, r1);
      ki = v128.load32_splat(kd, 4);
      b0 = madd(b0, ki, r0);
      b1 = madd(b1, ki, r1);
      ki = v128.load32_splat(kd, 8);
      c0 = madd(c0, ki, r0);
      c1 = madd(c1, ki, r1);
      ki = v128.load32_splat(kd, 12);
      d0 = madd(d0, ki, r0);
      d1 = madd(d1, ki, r1);
      kd += ldk;
    }
    add_scaled(S, decay, a0, a1);
    add_scaled(S + lds, decay, b0, b1);
    add_scaled(S + 2 * lds, decay, c0, c1);
    add_scaled(S + 3 * lds, decay, d0, d1);
    S += 4 * lds;
  }
  for (; d < Dk; d++) {
    let kd = k + (<usize>d << 2), ri = r;
    let a0 = f32x4.splat(0), a1 = f32x4.splat(0);
    for (let i = 0; i < n; i++) {
      const ki = v128.load32_splat(kd);
      a0 = madd(a0, ki, v128.load(ri));
      a1 = madd(a1, ki, v128.load(ri, 16));
      kd += ldk;
      ri += 32;
    }
    add_scaled(S, decay, a0, a1);
    S += lds;
  }
}

/** 8 elements of S <- decay S + a. */
@inline
function add_scaled(S: usize, decay: v128, a0: v128, a1: v128): void {
  const s0 = f32x4.add(f32x4.mul(decay, v128.load(S)), a0), s1 = f32x4.add(f32x4.mul(decay, v128.load(S, 16)), a1);
  store8(S, s0, s1);
}

/** One chunk of n tokens for 8 columns; s is the head's scratch with decays, M and P filled in. */
@inline
function chunk8(
  o: usize, q: usize, k: usize, v: usize, beta: usize, S: usize, s: usize,
  n: i32, ldk: usize, ldv: usize, lds: usize, ldb: usize, Dk: i32, scale: f32,
): void {
  const u = s + U_AT, r = s + R_AT;
  chunk_state(r, k, ldk, S, lds, Dk, n);
  for (let i = 0; i < n; i++) {
    const decay = low64(v128.load32_splat(s + DECAY_IN_AT + (<usize>i << 2))), b = low64(v128.load32_splat(beta + <usize>i * ldb));
    const vi = v + <usize>i * ldv, ri = r + (<usize>i << 5), ui = u + (<usize>i << 6);
    const v0 = v128.load(vi), v1 = v128.load(vi, 16), r0 = v128.load(ri), r1 = v128.load(ri, 16);
    let u0 = f64x2.mul(b, f64x2.sub(low64(v0), f64x2.mul(decay, low64(r0))));
    let u1 = f64x2.mul(b, f64x2.sub(high64(v0), f64x2.mul(decay, high64(r0))));
    let u2 = f64x2.mul(b, f64x2.sub(low64(v1), f64x2.mul(decay, low64(r1))));
    let u3 = f64x2.mul(b, f64x2.sub(high64(v1), f64x2.mul(decay, high64(r1))));
    let m = s + M_AT + <usize>i * ROW;
    for (let uj = u; uj < ui; uj += 64) {
      const mij = f64x2.promote_low_f32x4(v128.load32_splat(m));
      u0 = f64x2.sub(u0, f64x2.mul(mij, v128.load(uj)));
      u1 = f64x2.sub(u1, f64x2.mul(mij, v128.load(uj, 16)));
      u2 = f64x2.sub(u2, f64x2.mul(mij, v128.load(uj, 32)));
      u3 = f64x2.sub(u3, f64x2.mul(mij, v128.load(uj, 48)));
      m += 4;
    }
    v128.store(ui, u0);
    v128.store(ui, u1, 16);
    v128.store(ui, u2, 32);
    v128.store(ui, u3, 48);
  }
  chunk_state(r, q, ldk, S, lds, Dk, n);
  for (let i = 0; i < n; i++) {
    const decay = low64(v128.load32_splat(s + DECAY_IN_AT + (<usize>i << 2))), ri = r + (<usize>i << 5), oi = o + <usize>i * ldv;
    const r0 = v128.load(ri), r1 = v128.load(ri, 16);
    let o0 = f64x2.mul(decay, low64(r0)), o1 = f64x2.mul(decay, high64(r0));
    let o2 = f64x2.mul(decay, low64(r1)), o3 = f64x2.mul(decay, high64(r1));
    let p = s + P_AT + <usize>i * ROW;
    for (let uj = u; uj <= u + (<usize>i << 6); uj += 64) {
      const pij = f64x2.promote_low_f32x4(v128.load32_splat(p));
      o0 = f64x2.add(o0, f64x2.mul(pij, v128.load(uj)));
      o1 = f64x2.add(o1, f64x2.mul(pij, v128.load(uj, 16)));
      o2 = f64x2.add(o2, f64x2.mul(pij, v128.load(uj, 32)));
      o3 = f64x2.add(o3, f64x2.mul(pij, v128.load(uj, 48)));
      p += 4;
    }
    const c = f32x4.splat(scale);
    v128.store(oi, f32x4.mul(narrow(o0, o1), c));
    v128.store(oi, f32x4.mul(narrow(o2, o3), c), 16);
  }
  // r <- exp(c_n - c_i) u_i in f32, for the product with the keys
  for (let i = 0; i < n; i++) {
    const decay = low64(v128.load32_splat(s + DECAY_OUT_AT + (<usize>i << 2))), ui = u + (<usize>i << 6), ri = r + (<usize>i << 5);
    v128.store(ri, narrow(f64x2.mul(decay, v128.load(ui)), f64x2.mul(decay, v128.load(ui, 16))));
    v128.store(ri, narrow(f64x2.mul(decay, v128.load(ui, 32)), f64x2.mul(decay, v128.load(ui, 48))), 16);
  }
  write_state(S, lds, k, ldk, r, load<f32>(s + DECAY_IN_AT + (<usize>(n - 1) << 2)), n, Dk);
}

/** out[j] = x[Dk] k[j] for `count` rows of k, four at a time. */
@inline
function row_dots(out: usize, x: usize, k: usize, ldk: usize, count: i32, Dk: i32): void {
  const end = <usize>(Dk & ~3) << 2;
  let j = 0;
  for (; j + 4 <= count && <usize>Dk << 2 == end; j += 4) {
    const k1 = k + ldk, k2 = k1 + ldk, k3 = k2 + ldk;
    let a = f32x4.splat(0), b = f32x4.splat(0), c = f32x4.splat(0), d = f32x4.splat(0);
    for (let i: usize = 0; i < end; i += 16) {
      const xi = v128.load(x + i);
      a = madd(a, xi, v128.load(k + i));
      b = madd(b, xi, v128.load(k1 + i));
      c = madd(c, xi, v128.load(k2 + i));
      d = madd(d, xi, v128.load(k3 + i));
    }
    store<f32>(out + (<usize>j << 2), hsum(a));
    store<f32>(out + (<usize>j << 2), hsum(b), 4);
    store<f32>(out + (<usize>j << 2), hsum(c), 8);
    store<f32>(out + (<usize>j << 2), hsum(d), 12);
    k = k3 + ldk;
  }
  for (; j < count; j++) {
    store<f32>(out + (<usize>j << 2), dot(x, k, Dk));
    k += ldk;
  }
}

/** Decays, M and P of a chunk of n tokens. */
@inline
function square(s: usize, q: usize, k: usize, g: usize, beta: usize, n: i32, ldk: usize, ldb: usize, Dk: i32): void {
  let c: f64 = 0;
  for (let i = 0; i < n; i++) {
    c += <f64>load<f32>(g + <usize>i * ldb);
    store<f64>(s + C_AT + (<usize>i << 3), c);
    store<f32>(s + DECAY_IN_AT + (<usize>i << 2), <f32>exp64(c));
  }
  for (let i = 0; i < n; i++) {
    const ci = load<f64>(s + C_AT + (<usize>i << 3));
    store<f32>(s + DECAY_OUT_AT + (<usize>i << 2), <f32>exp64(c - ci));
    const m = s + M_AT + <usize>i * ROW, p = s + P_AT + <usize>i * ROW;
    row_dots(m, k + <usize>i * ldk, k, ldk, i, Dk);
    row_dots(p, q + <usize>i * ldk, k, ldk, i + 1, Dk);
    const b = v128.load32_splat(beta + <usize>i * ldb), c2 = f64x2.splat(ci);
    for (let j: usize = 0; j <= <usize>i; j += 4) { // of which those behind i mean nothing
      const cj = s + C_AT + (j << 3), at = j << 2;
      const D = exp32x4(narrow(f64x2.sub(c2, v128.load(cj)), f64x2.sub(c2, v128.load(cj, 16))));
      v128.store(m + at, f32x4.mul(f32x4.mul(b, D), v128.load(m + at)));
      v128.store(p + at, f32x4.mul(D, v128.load(p + at)));
    }
  }
}

/** The chunk for one column, for a Dv that 8 does not divide. */
@inline
function chunk1(
  o: usize, q: usize, k: usize, v: usize, beta: usize, S: usize, s: usize,
  n: i32, ldk: usize, ldv: usize, lds: usize, ldb: usize, Dk: i32, scale: f32,
): void {
  const u = s + U_AT;
  for (let i = 0; i < n; i++) {
    const r = column_dot(k + <usize>i * ldk, S, lds, Dk);
    let ui = <f64>load<f32>(beta + <usize>i * ldb) * (<f64>load<f32>(v + <usize>i * ldv) - <f64>load<f32>(s + DECAY_IN_AT + (<usize>i << 2)) * r);
    for (let j = 0; j < i; j++) ui -= <f64>load<f32>(s + M_AT + <usize>i * ROW + (<usize>j << 2)) * load<f64>(u + (<usize>j << 3));
    store<f64>(u + (<usize>i << 3), ui);
  }
  for (let i = 0; i < n; i++) {
    let oi = <f64>load<f32>(s + DECAY_IN_AT + (<usize>i << 2)) * column_dot(q + <usize>i * ldk, S, lds, Dk);
    for (let j = 0; j <= i; j++) oi += <f64>load<f32>(s + P_AT + <usize>i * ROW + (<usize>j << 2)) * load<f64>(u + (<usize>j << 3));
    store<f32>(o + <usize>i * ldv, <f32>oi * scale);
  }
  const decay = <f64>load<f32>(s + DECAY_IN_AT + (<usize>(n - 1) << 2));
  for (let d = 0; d < Dk; d++) {
    const at = S + <usize>d * lds;
    let a: f64 = 0;
    for (let i = 0; i < n; i++) {
      a += <f64>load<f32>(k + <usize>i * ldk + (<usize>d << 2)) * <f64>load<f32>(s + DECAY_OUT_AT + (<usize>i << 2)) * load<f64>(u + (<usize>i << 3));
    }
    store<f32>(at, <f32>(decay * <f64>load<f32>(at) + a));
  }
}

@inline
function column_dot(x: usize, S: usize, lds: usize, Dk: i32): f64 {
  let r: f64 = 0;
  for (let d = 0; d < Dk; d++) r += <f64>load<f32>(x + (<usize>d << 2)) * <f64>load<f32>(S + <usize>d * lds);
  return r;
}

/** Value heads [begin, end). */
export function gated_delta_rule_chunked(
  o: usize, q: usize, k: usize, v: usize, g: usize, beta: usize, S: usize, scratch: usize,
  T: i32, Hk: i32, H: i32, Dk: i32, Dv: i32, begin: i32, end: i32,
): void {
  const scale = <f32>(1.0 / sqrt(<f64>Dk));
  const ldk = <usize>Hk * Dk << 2, ldv = <usize>H * Dv << 2, lds = <usize>Dv << 2, ldb = <usize>H << 2;
  const repeat = H / Hk;
  for (let h = begin; h < end; h++) {
    const s = scratch + <usize>h * CHUNKED_SCRATCH;
    const Sh = S + (<usize>h * Dk * Dv << 2);
    for (let t = 0; t < T; t += CHUNK) {
      const n = min(CHUNK, T - t);
      const kt = k + <usize>t * ldk + (<usize>(h / repeat) * Dk << 2), qt = q + <usize>t * ldk + (<usize>(h / repeat) * Dk << 2);
      const vt = v + <usize>t * ldv + (<usize>h * Dv << 2), ot = o + <usize>t * ldv + (<usize>h * Dv << 2);
      const gt = g + (<usize>t * H + h << 2), bt = beta + (<usize>t * H + h << 2);

      square(s, qt, kt, gt, bt, n, ldk, ldb, Dk);
      let j = 0;
      for (; j + 8 <= Dv; j += 8) {
        const at = <usize>j << 2;
        chunk8(ot + at, qt, kt, vt + at, bt, Sh + at, s, n, ldk, ldv, lds, ldb, Dk, scale);
      }
      for (; j < Dv; j++) {
        const at = <usize>j << 2;
        chunk1(ot + at, qt, kt, vt + at, bt, Sh + at, s, n, ldk, ldv, lds, ldb, Dk, scale);
      }
    }
  }
}
