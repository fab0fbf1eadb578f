// y = x W^T (+ bias): the matrix product of every projection, in f32 arithmetic.                  torch.nn.functional.linear
//   x: [T, K] f32   y: [T, N] f32, aliases nothing   bias: [N] f32, or 0   W: packed, f32 or bf16 (pack.ts), or q8 or q4 (panels.ts)
//
// A lane is an output and x is splat, so every output is summed along K in one fixed order, whether it is computed alone (decode) or with other
// rows (prefill), and no sum crosses lanes. The order: 32 products from zero, each rounded; 4 such blocks added in order to a slab; the slabs
// added in order to y. Blocks make the f32 sum more exact than one long chain (RMS error on the golden models over PyTorch's: 0.80; with blocks of
// 64 and no slabs 0.94).
// Prefill, here, takes four rows at a time, and brings a group of panels to scratch in f32 before they pass over it: 256 KiB, which stay in the L2
// cache. In place, bf16 took a fifth longer than f32 (Zen 4, Node 20). linear_rows.ts takes the rows that are left: all of them in decode. The relaxed
// build fuses products and sums: other bits, up to a fifth faster.

import { linear_rows, SUM_BLOCK } from './linear_rows';
import { BF16, F32, GROUP, PANEL, Q4, Q8, SLAB, slab_bytes, widen } from './panels';
import { scratch } from './scratch';
import { add8, madd, store8, wide } from './simd';

/** Behind the widened panels in scratch: four rows of x, transposed, and their sums. */
const ROWS_AT: usize = <usize>GROUP * SLAB * PANEL * 4;

/** Four lanes of four rows. */
@inline
export function transpose4(to: usize, a: v128, b: v128, c: v128, d: v128): void {
  const ab = v128.shuffle<i32>(a, b, 0, 4, 1, 5), cd = v128.shuffle<i32>(c, d, 0, 4, 1, 5);
  const ab2 = v128.shuffle<i32>(a, b, 2, 6, 3, 7), cd2 = v128.shuffle<i32>(c, d, 2, 6, 3, 7);
  v128.store(to, v128.shuffle<i64>(ab, cd, 0, 2));
  v128.store(to, v128.shuffle<i64>(ab, cd, 1, 3), 16);
  v128.store(to, v128.shuffle<i64>(ab2, cd2, 0, 2), 32);
  v128.store(to, v128.shuffle<i64>(ab2, cd2, 1, 3), 48);
}

/** Four rows of x, `count` numbers of 32 bits each, transposed: [count][4]. */
@inline
export function transpose(to: usize, x: usize, ldx: usize, count: i32): void {
  const x1 = x + ldx, x2 = x1 + ldx, x3 = x2 + ldx, end = <usize>count << 2;
  let i: usize = 0;
  for (; i + 16 <= end; i += 16) {
    transpose4(to, v128.load(x + i), v128.load(x1 + i), v128.load(x2 + i), v128.load(x3 + i));
    to += 64;
  }
  for (; i < end; i += 4) {
    store<f32>(to, load<f32>(x + i));
    store<f32>(to, load<f32>(x1 + i), 4);
    store<f32>(to, load<f32>(x2 + i), 8);
    store<f32>(to, load<f32>(x3 + i), 12);
    to += 16;
  }
}

/**
 * Four transposed rows, half a panel of f32: prefill. 8 sums, 2 weights, 4 splats and a product fill the 15 registers that V8 has; the slab's sums
 * are spilled. A block begins with products instead of sums with zero.
 */
@inline
function four_rows(y: usize, ldy: usize, x: usize, w: usize, count: i32): void {
  const end = x + (<usize>count << 4);
  let s0 = f32x4.splat(0), s1 = f32x4.splat(0), s2 = f32x4.splat(0), s3 = f32x4.splat(0);
  let s4 = f32x4.splat(0), s5 = f32x4.splat(0), s6 = f32x4.splat(0), s7 = f32x4.splat(0);
  do {
    const block_end = min(x + (SUM_BLOCK << 4), end);
    let w0 = v128.load(w), w1 = v128.load(w, 16), xk = v128.load32_splat(x);
    let a0 = f32x4.mul(xk, w0), a1 = f32x4.mul(xk, w1);
    xk = v128.load32_splat(x, 4);
    let b0 = f32x4.mul(xk, w0), b1 = f32x4.mul(xk, w1);
    xk = v128.load32_splat(x, 8);
    let c0 = f32x4.mul(xk, w0), c1 = f32x4.mul(xk, w1);
    xk = v128.load32_splat(x, 12);
    let d0 = f32x4.mul(xk, w0), d1 = f32x4.mul(xk, w1);
    x += 16;
    w += PANEL * 4;
    if (x < block_end) do {
      w0 = v128.load(w);
      w1 = v128.load(w, 16);
      xk = v128.load32_splat(x);
      a0 = madd(a0, xk, w0);
      a1 = madd(a1, xk, w1);
      xk = v128.load32_splat(x, 4);
      b0 = madd(b0, xk, w0);
      b1 = madd(b1, xk, w1);
      xk = v128.load32_splat(x, 8);
      c0 = madd(c0, xk, w0);
      c1 = madd(c1, xk, w1);
      xk = v128.load32_splat(x, 12);
      d0 = madd(d0, xk, w0);
      d1 = madd(d1, xk, w1);
      x += 16;
      w += PANEL * 4;
    } while (x < block_end);
    s0 = f32x4.add(s0, a0);
    s1 = f32x4.add(s1, a1);
    s2 = f32x4.add(s2, b0);
    s3 = f32x4.add(s3, b1);
    s4 = f32x4.add(s4, c0);
    s5 = f32x4.add(s5, c1);
    s6 = f32x4.add(s6, d0);
    s7 = f32x4.add(s7, d1);
  } while (x < end);
  add8(y, s0, s1);
  y += ldy;
  add8(y, s2, s3);
  y += ldy;
  add8(y, s4, s5);
  y += ldy;
  add8(y, s6, s7);
}

/**
 * Four transposed rows, a whole panel: where V8 joins two halves to one of 256 bits, 8 sums, 2 weights, a splat and a product fill 12 of its registers,
 * with 6 loads for 8 products (9 for eight rows of half a panel, which took 1.15 times as long on a Zen 5). The slab's sums lie at `sums`, [4][16].
 */
@inline
function four_rows_wide(y: usize, ldy: usize, x: usize, w: usize, count: i32, sums: usize): void {
  const end = x + (<usize>count << 4), zero = f32x4.splat(0);
  let to = sums;
  for (let i = 0; i < 8; i++) {
    store8(to, zero, zero);
    to += 32;
  }
  do {
    const block_end = min(x + (SUM_BLOCK << 4), end);
    let a0 = zero, a1 = zero, a2 = zero, a3 = zero, b0 = zero, b1 = zero, b2 = zero, b3 = zero;
    let c0 = zero, c1 = zero, c2 = zero, c3 = zero, d0 = zero, d1 = zero, d2 = zero, d3 = zero;
    do {
      const w0 = v128.load(w), w1 = v128.load(w, 16), w2 = v128.load(w, 32), w3 = v128.load(w, 48);
      let xk = v128.load32_splat(x);
      a0 = madd(a0, xk, w0);
      a1 = madd(a1, xk, w1);
      a2 = madd(a2, xk, w2);
      a3 = madd(a3, xk, w3);
      xk = v128.load32_splat(x, 4);
      b0 = madd(b0, xk, w0);
      b1 = madd(b1, xk, w1);
      b2 = madd(b2, xk, w2);
      b3 = madd(b3, xk, w3);
      xk = v128.load32_splat(x, 8);
      c0 = madd(c0, xk, w0);
      c1 = madd(c1, xk, w1);
      c2 = madd(c2, xk, w2);
      c3 = madd(c3, xk, w3);
      xk = v128.load32_splat(x, 12);
      d0 = madd(d0, xk, w0);
      d1 = madd(d1, xk, w1);
      d2 = madd(d2, xk, w2);
      d3 = madd(d3, xk, w3);
      x += 16;
      w += PANEL * 4;
    } while (x < block_end);
    to = sums;
    add8(to, a0, a1);
    to += 32;
    add8(to, a2, a3);
    to += 32;
    add8(to, b0, b1);
    to += 32;
    add8(to, b2, b3);
    to += 32;
    add8(to, c0, c1);
    to += 32;
    add8(to, c2, c3);
    to += 32;
    add8(to, d0, d1);
    to += 32;
    add8(to, d2, d3);
  } while (x < end);
  let upper = y + 32;
  for (let t = 0; t < 4; t++) {
    add8(y, v128.load(sums), v128.load(sums, 16));
    add8(upper, v128.load(sums, 32), v128.load(sums, 48));
    y += ldy;
    upper += ldy;
    sums += 64;
  }
}

/** Rows [0, T4) of y, T4 a multiple of 4, and panels [begin, whole), which have 16 outputs. */
function many_rows(stored: i32, y: usize, x: usize, w: usize, T4: i32, K: i32, N: i32, begin: i32, whole: i32): void {
  const mask = i32x4.splat(0xffff0000);
  const ldx = <usize>K << 2, ldy = <usize>N << 2;
  const rows = scratch() + ROWS_AT;
  for (let group = begin; group < whole; group += GROUP) {
    const group_end = min(group + GROUP, whole);
    // Slabs are added to zero, which turns -0 into +0 as in torch.
    for (let t = 0; t < T4; t++) memory.fill(y + <usize>t * ldy + (<usize>group * PANEL << 2), 0, <usize>(group_end - group) * PANEL << 2);
    for (let slab = 0; slab < K; slab += SLAB) {
      const count = min(SLAB, K - slab), panel_bytes = slab_bytes(F32, count), sums = rows + (<usize>count << 4);
      for (let p = group; p < group_end; p++) widen(stored, scratch() + <usize>(p - group) * panel_bytes, w, p, slab, K, N, mask);
      for (let t = 0; t < T4; t += 4) {
        transpose(rows, x + <usize>t * ldx + (<usize>slab << 2), ldx, count);
        for (let p = group; p < group_end; p++) {
          const wp = scratch() + <usize>(p - group) * panel_bytes, yt = y + <usize>t * ldy + <usize>p * PANEL * 4;
          if (wide()) {
            four_rows_wide(yt, ldy, rows, wp, count, sums);
          } else {
            four_rows(yt, ldy, rows, wp, count);
            four_rows(yt + 32, ldy, rows, wp + 32, count);
          }
        }
      }
    }
  }
}

@inline
function linear(format: i32, stored: i32, y: usize, x: usize, w: usize, bias: usize, T: i32, K: i32, N: i32, begin: i32, end: i32): void {
  const T4 = T & ~3;
  if (T4 > 0) many_rows(stored, y, x, w, T4, K, N, begin, min(end, N / PANEL));
  linear_rows(format, stored, false, false, y, x, w, T4, T, K, N, begin, end);
  add_bias(y, bias, T, N, begin, end);
}

/** y += bias, for the outputs of panels [begin, end). */
export function add_bias(y: usize, bias: usize, T: i32, N: i32, begin: i32, end: i32): void {
  if (!bias) return;
  for (let t = 0; t < T; t++) {
    const yt = y + <usize>t * (<usize>N << 2);
    for (let n = begin * PANEL; n < min(end * PANEL, N); n++) {
      const at = <usize>n << 2;
      store<f32>(yt + at, load<f32>(yt + at) + load<f32>(bias + at));
    }
  }
}

/** Panels [begin, end) of ceil(N / 16), f32 weights. */
export function linear_f32(y: usize, x: usize, w: usize, bias: usize, T: i32, K: i32, N: i32, begin: i32, end: i32): void {
  linear_widened(F32, y, x, w, bias, T, K, N, begin, end);
}

/** The same with bf16 weights; each is widened exactly, the arithmetic is f32. */
export function linear_bf16(y: usize, x: usize, w: usize, bias: usize, T: i32, K: i32, N: i32, begin: i32, end: i32): void {
  linear(BF16, BF16, y, x, w, bias, T, K, N, begin, end);
}

/** One function for both formats. */
function linear_widened(stored: i32, y: usize, x: usize, w: usize, bias: usize, T: i32, K: i32, N: i32, begin: i32, end: i32): void {
  linear(F32, stored, y, x, w, bias, T, K, N, begin, end);
}

/** The same with q8 weights, each rounded to f32. */
export function linear_q8(y: usize, x: usize, w: usize, bias: usize, T: i32, K: i32, N: i32, begin: i32, end: i32): void {
  linear_widened(Q8, y, x, w, bias, T, K, N, begin, end);
}

/** The same with q4 weights, each rounded to f32. */
export function linear_q4(y: usize, x: usize, w: usize, bias: usize, T: i32, K: i32, N: i32, begin: i32, end: i32): void {
  linear_widened(Q4, y, x, w, bias, T, K, N, begin, end);
}
