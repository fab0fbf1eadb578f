// y = x W^T (+ bias): the matrix product of every projection.                                     torch.nn.functional.linear
//   x: [T, K] f32   y: [T, N] f32, aliases nothing   bias: [N] f32, or 0   W: packed, f32 or bf16   scratch: 8 KiB
//
// Packed weights are [ceil(K / 128)][ceil(N / 16)][128][16]: slabs of K, the last one shorter, panels of 16 outputs, zeros after N. The outputs
// of a panel lie side by side: a lane is an output and x is splat, so every output is summed along K in one fixed order, whether it is computed
// alone (decode) or with other rows (prefill), and no sum crosses lanes. The order: 32 products from zero, each rounded; 4 such blocks added in
// order to a slab; the slabs added in order to y. Blocks make the f32 sum more exact than one long chain (RMS error on the golden models over
// PyTorch's: 0.80; with blocks of 64 and no slabs 0.94). Slabs lie outside the panels because panels of whole K lie a multiple of 4 KiB apart in
// real models and push each other out of the L1 cache (measured 2x slower), and because decoding then reads memory strictly forward.
// A bf16 row of a panel holds n0 n4 n1 n5 n2 n6 n3 n7 n8 n12 …: `shl 16` gives outputs 0-3 and the upper halves outputs 4-7 of eight.

import { bf16_is_finite, half_to_f32 } from './half';

const BLOCK: i32 = 32;
const SLAB: i32 = 128;
const PANEL: i32 = 16;
// Panels that four rows of x meet before the next four come: their slab, 256 KiB of f32, stays in the L2 cache.
const GROUP: i32 = 32;

/** Adds the sums of a slab to 4 outputs. The first slab is added to zero, which turns -0 into +0 as in torch. */
@inline
function add_slab(y: usize, sum: v128, first: bool): void {
  v128.store(y, f32x4.add(first ? f32x4.splat(0) : v128.load(y), sum));
}

/** The same for the last panel of an N that 16 does not divide: only `width` of the 4 outputs exist. */
function add_slab_tail(y: usize, sum: v128, first: bool, width: i32): void {
  for (let n = 0; n < min(width, 4); n++) {
    store<f32>(y, (first ? <f32>0 : load<f32>(y)) + f32x4.extract_lane(sum, 0));
    sum = v128.shuffle<i32>(sum, sum, 1, 2, 3, 0);
    y += 4;
  }
}

/** One row, one panel, `count` products of a slab: decode. */
@inline
function row_panel<W>(y: usize, x: usize, w: usize, count: i32, first: bool, width: i32, mask: v128): void {
  const end = x + (<usize>count << 2);
  let s0 = f32x4.splat(0), s1 = f32x4.splat(0), s2 = f32x4.splat(0), s3 = f32x4.splat(0);
  while (x < end) {
    const block_end = min(x + (BLOCK << 2), end);
    let a0 = f32x4.splat(0), a1 = f32x4.splat(0), a2 = f32x4.splat(0), a3 = f32x4.splat(0);
    while (x < block_end) {
      const xk = v128.load32_splat(x);
      if (sizeof<W>() == 2) {
        const p = v128.load(w), q = v128.load(w, 16);
        a0 = f32x4.add(a0, f32x4.mul(xk, i32x4.shl(p, 16)));
        a1 = f32x4.add(a1, f32x4.mul(xk, v128.and(p, mask)));
        a2 = f32x4.add(a2, f32x4.mul(xk, i32x4.shl(q, 16)));
        a3 = f32x4.add(a3, f32x4.mul(xk, v128.and(q, mask)));
      } else {
        a0 = f32x4.add(a0, f32x4.mul(xk, v128.load(w)));
        a1 = f32x4.add(a1, f32x4.mul(xk, v128.load(w, 16)));
        a2 = f32x4.add(a2, f32x4.mul(xk, v128.load(w, 32)));
        a3 = f32x4.add(a3, f32x4.mul(xk, v128.load(w, 48)));
      }
      x += 4;
      w += PANEL * sizeof<W>();
    }
    s0 = f32x4.add(s0, a0);
    s1 = f32x4.add(s1, a1);
    s2 = f32x4.add(s2, a2);
    s3 = f32x4.add(s3, a3);
  }
  if (width == PANEL) {
    add_slab(y, s0, first);
    add_slab(y + 16, s1, first);
    add_slab(y + 32, s2, first);
    add_slab(y + 48, s3, first);
  } else {
    add_slab_tail(y, s0, first, width);
    add_slab_tail(y + 16, s1, first, width - 4);
    add_slab_tail(y + 32, s2, first, width - 8);
    add_slab_tail(y + 48, s3, first, width - 12);
  }
}

/** Four rows of x, `count` products of a slab, each number in all lanes: [count][4][4]. */
@inline
function expand(to: usize, x: usize, ldx: usize, count: i32): void {
  for (let k = 0; k < count; k++) {
    v128.store(to, v128.load32_splat(x));
    v128.store(to, v128.load32_splat(x + ldx), 16);
    v128.store(to, v128.load32_splat(x + 2 * ldx), 32);
    v128.store(to, v128.load32_splat(x + 3 * ldx), 48);
    x += 4;
    to += 64;
  }
}

/**
 * Four expanded rows, half a panel: prefill. 8 sums, 2 weights, 4 splats and a product fill the 15 registers that V8 has; the slab's sums are
 * spilled. Expanded rows need one pointer instead of four and plain loads, whose offsets V8 folds: for bf16 15% faster than two rows by 16 outputs
 * in place, for f32 the same (Zen 3, Node 20). bf16 takes two shifts for the upper halves, since a mask would be a sixteenth register.
 */
@inline
function rows_half_panel<W>(y: usize, ldy: usize, x: usize, w: usize, count: i32, first: bool): void {
  const end = x + (<usize>count << 6);
  let s0 = f32x4.splat(0), s1 = f32x4.splat(0), s2 = f32x4.splat(0), s3 = f32x4.splat(0);
  let s4 = f32x4.splat(0), s5 = f32x4.splat(0), s6 = f32x4.splat(0), s7 = f32x4.splat(0);
  while (x < end) {
    const block_end = min(x + (BLOCK << 6), end);
    let a0 = f32x4.splat(0), a1 = f32x4.splat(0), b0 = f32x4.splat(0), b1 = f32x4.splat(0);
    let c0 = f32x4.splat(0), c1 = f32x4.splat(0), d0 = f32x4.splat(0), d1 = f32x4.splat(0);
    while (x < block_end) {
      let w0 = v128.load(w), w1: v128;
      if (sizeof<W>() == 2) {
        w1 = i32x4.shl(i32x4.shr_u(w0, 16), 16);
        w0 = i32x4.shl(w0, 16);
      } else w1 = v128.load(w, 16);
      let xk = v128.load(x);
      a0 = f32x4.add(a0, f32x4.mul(xk, w0));
      a1 = f32x4.add(a1, f32x4.mul(xk, w1));
      xk = v128.load(x, 16);
      b0 = f32x4.add(b0, f32x4.mul(xk, w0));
      b1 = f32x4.add(b1, f32x4.mul(xk, w1));
      xk = v128.load(x, 32);
      c0 = f32x4.add(c0, f32x4.mul(xk, w0));
      c1 = f32x4.add(c1, f32x4.mul(xk, w1));
      xk = v128.load(x, 48);
      d0 = f32x4.add(d0, f32x4.mul(xk, w0));
      d1 = f32x4.add(d1, f32x4.mul(xk, w1));
      x += 64;
      w += PANEL * sizeof<W>();
    }
    s0 = f32x4.add(s0, a0);
    s1 = f32x4.add(s1, a1);
    s2 = f32x4.add(s2, b0);
    s3 = f32x4.add(s3, b1);
    s4 = f32x4.add(s4, c0);
    s5 = f32x4.add(s5, c1);
    s6 = f32x4.add(s6, d0);
    s7 = f32x4.add(s7, d1);
  }
  add_slab(y, s0, first);
  add_slab(y + 16, s1, first);
  add_slab(y + ldy, s2, first);
  add_slab(y + ldy + 16, s3, first);
  add_slab(y + 2 * ldy, s4, first);
  add_slab(y + 2 * ldy + 16, s5, first);
  add_slab(y + 3 * ldy, s6, first);
  add_slab(y + 3 * ldy + 16, s7, first);
}

@inline
function linear<W>(y: usize, x: usize, w: usize, bias: usize, scratch: usize, T: i32, K: i32, N: i32, begin: i32, end: i32): void {
  // V8 of Node 24 rebuilds v128 constants at every use inside a loop (4x slower), so the mask is passed along.
  const mask = i32x4.splat(0xffff0000);
  const panels = (N + PANEL - 1) / PANEL;
  const whole = min(end, N / PANEL); // panels [begin, whole) have 16 outputs
  const ldx = <usize>K << 2, ldy = <usize>N << 2;
  const T4 = T & ~3;
  for (let slab = 0; slab < K; slab += SLAB) {
    const count = min(SLAB, K - slab);
    const first = slab == 0;
    const panel_bytes = <usize>count * PANEL * sizeof<W>();
    const ws = w + <usize>slab * panels * PANEL * sizeof<W>();
    const xs = x + (<usize>slab << 2);
    for (let group = begin; group < whole; group += GROUP) {
      const group_end = min(group + GROUP, whole);
      for (let t = 0; t < T4; t += 4) {
        expand(scratch, xs + <usize>t * ldx, ldx, count);
        for (let p = group; p < group_end; p++) {
          const wp = ws + <usize>p * panel_bytes, yt = y + <usize>t * ldy + <usize>p * PANEL * 4;
          rows_half_panel<W>(yt, ldy, scratch, wp, count, first);
          rows_half_panel<W>(yt + 32, ldy, scratch, wp + 8 * sizeof<W>(), count, first);
        }
      }
    }
    for (let t = T4; t < T; t++) {
      for (let p = begin; p < whole; p++) {
        row_panel<W>(y + <usize>t * ldy + <usize>p * PANEL * 4, xs + <usize>t * ldx, ws + <usize>p * panel_bytes, count, first, PANEL, mask);
      }
    }
    // The last panel of an N that 16 does not divide.
    for (let t = 0; t < T && begin <= whole && whole < end; t++) {
      const yt = y + <usize>t * ldy + <usize>whole * PANEL * 4;
      row_panel<W>(yt, xs + <usize>t * ldx, ws + <usize>whole * panel_bytes, count, first, N - whole * PANEL, mask);
    }
  }
  if (bias) {
    for (let t = 0; t < T; t++) {
      const yt = y + <usize>t * ldy;
      for (let n = begin * PANEL; n < min(end * PANEL, N); n++) {
        const at = <usize>n << 2;
        store<f32>(yt + at, load<f32>(yt + at) + load<f32>(bias + at));
      }
    }
  }
}

/** Panels [begin, end) of ceil(N / 16), f32 weights. */
export function linear_f32(y: usize, x: usize, w: usize, bias: usize, scratch: usize, T: i32, K: i32, N: i32, begin: i32, end: i32): void {
  linear<f32>(y, x, w, bias, scratch, T, K, N, begin, end);
}

/** Panels [begin, end) of ceil(N / 16), bf16 weights; each is widened exactly, the arithmetic is f32. */
export function linear_bf16(y: usize, x: usize, w: usize, bias: usize, scratch: usize, T: i32, K: i32, N: i32, begin: i32, end: i32): void {
  linear<u16>(y, x, w, bias, scratch, T, K, N, begin, end);
}

/** Where row n of W [N, K] starts its slab at k: the address of its first weight; the next lie PANEL weights apart. */
@inline
function packed(w: usize, n: i32, k: i32, K: i32, N: i32, lane: i32, size: usize): usize {
  const panels = (N + PANEL - 1) / PANEL;
  const count = min(SLAB, K - k);
  return w + (<usize>k * panels * PANEL + <usize>(n / PANEL) * count * PANEL + lane) * size;
}

/**
 * Packs rows [begin, end) of W [N, K], begin a multiple of 16; `source` holds them row-major in f32. Row N - 1 brings the zeros after N along.
 * Returns how many of the values are NaN or infinite.
 */
export function pack_f32(w: usize, source: usize, K: i32, N: i32, begin: i32, end: i32): i32 {
  let bad = 0;
  for (let n = begin; n < padded(end, N); n++) {
    for (let slab = 0; slab < K; slab += SLAB) {
      const to = packed(w, n, slab, K, N, n & 15, 4);
      const from = source + (<usize>(n - begin) * K + slab) * 4;
      for (let k = 0; k < min(SLAB, K - slab); k++) {
        const value = n < N ? load<f32>(from + (<usize>k << 2)) : 0;
        bad += i32(!isFinite(value));
        store<f32>(to + <usize>k * PANEL * 4, value);
      }
    }
  }
  return bad;
}

/** The same from f16; the packed weights are f32, exact. */
export function pack_f16(w: usize, source: usize, K: i32, N: i32, begin: i32, end: i32): i32 {
  let bad = 0;
  for (let n = begin; n < padded(end, N); n++) {
    for (let slab = 0; slab < K; slab += SLAB) {
      const to = packed(w, n, slab, K, N, n & 15, 4);
      const from = source + (<usize>(n - begin) * K + slab) * 2;
      for (let k = 0; k < min(SLAB, K - slab); k++) {
        const value = n < N ? half_to_f32(load<u16>(from + (<usize>k << 1))) : 0;
        bad += i32(!isFinite(value));
        store<f32>(to + <usize>k * PANEL * 4, value);
      }
    }
  }
  return bad;
}

/** The same from bf16; the packed weights stay bf16. */
export function pack_bf16(w: usize, source: usize, K: i32, N: i32, begin: i32, end: i32): i32 {
  let bad = 0;
  for (let n = begin; n < padded(end, N); n++) {
    const lane = (n & 8) | ((n & 3) << 1) | ((n >> 2) & 1);
    for (let slab = 0; slab < K; slab += SLAB) {
      const to = packed(w, n, slab, K, N, lane, 2);
      const from = source + (<usize>(n - begin) * K + slab) * 2;
      for (let k = 0; k < min(SLAB, K - slab); k++) {
        const value = n < N ? load<u16>(from + (<usize>k << 1)) : 0;
        bad += i32(!bf16_is_finite(value));
        store<u16>(to + <usize>k * PANEL * 2, value);
      }
    }
  }
  return bad;
}

@inline
function padded(end: i32, N: i32): i32 {
  return end == N ? (N + PANEL - 1) / PANEL * PANEL : end;
}
