// The products of the delta rule with the state of a head, for a chunk of tokens and 8 columns.                     gated_delta_rule_chunked.ts has the rest

import { madd, store8, wide } from './simd';

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

/** The same for eight rows, where V8 joins two vectors to one of 256 bits: the sums of four would wait for each other. */
@inline
function eight_rows_state(out: usize, x: usize, ldx: usize, S: usize, lds: usize, Dk: i32): void {
  const x1 = x + ldx, x2 = x1 + ldx, x3 = x2 + ldx, x4 = x3 + ldx, x5 = x4 + ldx, x6 = x5 + ldx, x7 = x6 + ldx;
  let a0 = f32x4.splat(0), a1 = f32x4.splat(0), b0 = f32x4.splat(0), b1 = f32x4.splat(0);
  let c0 = f32x4.splat(0), c1 = f32x4.splat(0), d0 = f32x4.splat(0), d1 = f32x4.splat(0);
  let e0 = f32x4.splat(0), e1 = f32x4.splat(0), f0 = f32x4.splat(0), f1 = f32x4.splat(0);
  let g0 = f32x4.splat(0), g1 = f32x4.splat(0), h0 = f32x4.splat(0), h1 = f32x4.splat(0);
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
    xi = v128.load32_splat(x4 + i);
    e0 = madd(e0, xi, s0);
    e1 = madd(e1, xi, s1);
    xi = v128.load32_splat(x5 + i);
    f0 = madd(f0, xi, s0);
    f1 = madd(f1, xi, s1);
    xi = v128.load32_splat(x6 + i);
    g0 = madd(g0, xi, s0);
    g1 = madd(g1, xi, s1);
    xi = v128.load32_splat(x7 + i);
    h0 = madd(h0, xi, s0);
    h1 = madd(h1, xi, s1);
    S += lds;
  }
  store8(out, a0, a1);
  out += 32;
  store8(out, b0, b1);
  out += 32;
  store8(out, c0, c1);
  out += 32;
  store8(out, d0, d1);
  out += 32;
  store8(out, e0, e1);
  out += 32;
  store8(out, f0, f1);
  out += 32;
  store8(out, g0, g1);
  out += 32;
  store8(out, h0, h1);
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
export function chunk_state(r: usize, x: usize, ldx: usize, S: usize, lds: usize, Dk: i32, n: i32): void {
  let i = 0;
  if (wide()) for (; i + 8 <= n; i += 8) eight_rows_state(r + (<usize>i << 5), x + <usize>i * ldx, ldx, S, lds, Dk);
  for (; i + 4 <= n; i += 4) rows_state(r + (<usize>i << 5), x + <usize>i * ldx, ldx, S, lds, Dk);
  for (; i < n; i++) row_state(r + (<usize>i << 5), x + <usize>i * ldx, S, lds, Dk);
}

/** Eight rows of S, for the same reason. */
@inline
function write_eight(S: usize, lds: usize, kd: usize, ldk: usize, r: usize, decay: v128, n: i32): void {
  let a0 = f32x4.splat(0), a1 = f32x4.splat(0), b0 = f32x4.splat(0), b1 = f32x4.splat(0);
  let c0 = f32x4.splat(0), c1 = f32x4.splat(0), d0 = f32x4.splat(0), d1 = f32x4.splat(0);
  let e0 = f32x4.splat(0), e1 = f32x4.splat(0), f0 = f32x4.splat(0), f1 = f32x4.splat(0);
  let g0 = f32x4.splat(0), g1 = f32x4.splat(0), h0 = f32x4.splat(0), h1 = f32x4.splat(0);
  for (const end = r + (<usize>n << 5); r < end; r += 32) {
    const r0 = v128.load(r), r1 = v128.load(r, 16);
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
    ki = v128.load32_splat(kd, 16);
    e0 = madd(e0, ki, r0);
    e1 = madd(e1, ki, r1);
    ki = v128.load32_splat(kd, 20);
    f0 = madd(f0, ki, r0);
    f1 = madd(f1, ki, r1);
    ki = v128.load32_splat(kd, 24);
    g0 = madd(g0, ki, r0);
    g1 = madd(g1, ki, r1);
    ki = v128.load32_splat(kd, 28);
    h0 = madd(h0, ki, r0);
    h1 = madd(h1, ki, r1);
    kd += ldk;
  }
  add_scaled(S, decay, a0, a1);
  S += lds;
  add_scaled(S, decay, b0, b1);
  S += lds;
  add_scaled(S, decay, c0, c1);
  S += lds;
  add_scaled(S, decay, d0, d1);
  S += lds;
  add_scaled(S, decay, e0, e1);
  S += lds;
  add_scaled(S, decay, f0, f1);
  S += lds;
  add_scaled(S, decay, g0, g1);
  S += lds;
  add_scaled(S, decay, h0, h1);
}

/** S[Dk][8 columns] = decay S + the sum over n rows of k r^T. Four rows of S at a time, as in rows_state. */
@inline
export function write_state(S: usize, lds: usize, k: usize, ldk: usize, r: usize, decay32: f32, n: i32, Dk: i32): void {
  const decay = f32x4.splat(decay32);
  let d = 0;
  if (wide()) for (; d + 8 <= Dk; d += 8) {
    write_eight(S, lds, k + (<usize>d << 2), ldk, r, decay, n);
    S += 8 * lds;
  }
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
