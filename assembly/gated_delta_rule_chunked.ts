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

import { last_columns } from './gated_delta_rule';
import { chunk_state, write_state } from './gated_delta_rule_products';
import { exp32x4, exp64 } from './math';
import { dot, high64, hsum, low64, madd, narrow } from './simd';

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
      last_columns(ot, qt, kt, vt, gt, bt, Sh, n, ldk, ldv, lds, ldb, Dk, j, Dv);
    }
  }
}
