// From the rows of a file to the weights of panels.ts. `source` holds rows of W [N, K] from row `first` on, row-major, in one of three dtypes.
// NaN, infinite values and, in q4, those that are too large are kept as far as the format can, and counted in a word behind the scratch of the thread.

import { half_to_f32 } from './half';
import {
  BF16, BLOCK, block_index, blocks, F32, F32_BLOCK_BYTES, lane, PANEL, panel_slab, Q4_BYTES, Q4_LEAST, Q4_SCALES, Q8, Q8_BYTES, Q8_SCALES, SLAB,
} from './panels';
import { ROUND } from './round_rows';
import { scratch, SCRATCH_BYTES } from './scratch';

// The dtypes of files: as the formats F32 and BF16, and
const F16: i32 = 2;

@inline
function bytes_of(dtype: i32): usize {
  return dtype == F32 ? 4 : 2;
}

/** Element i of the source as f32, exact. */
@inline
function value(source: usize, dtype: i32, i: usize): f32 {
  if (dtype == F32) return load<f32>(source + (i << 2));
  const bits = <u32>load<u16>(source + (i << 1));
  return dtype == BF16 ? reinterpret<f32>(bits << 16) : half_to_f32(bits);
}

@inline
function count_not_finite(bad: i32): void {
  const at = scratch() + SCRATCH_BYTES;
  store<i32>(at, load<i32>(at) + bad);
}

/** Panels [begin, end) counted from row `first`, a multiple of 16, of W; the format is one of panels.ts. */
export function pack(
  w: usize, source: usize, dtype: i32, format: i32, first: i32, K: i32, N: i32, begin: i32, end: i32,
): void {
  let bad = 0;
  for (let p = begin; p < end; p++) {
    const panel = first / PANEL + p;
    const rows = source + <usize>p * PANEL * K * bytes_of(dtype);
    const width = min(PANEL, N - panel * PANEL);
    if (format == F32) bad += pack_f32(w, rows, dtype, panel, width, K, N);
    else if (format == BF16) bad += pack_bf16(w, rows, panel, width, K, N);
    else bad += quantise(format, w, rows, dtype, panel, width, K, N);
  }
  count_not_finite(bad);
}

function pack_f32(w: usize, rows: usize, dtype: i32, panel: i32, width: i32, K: i32, N: i32): i32 {
  let bad = 0;
  for (let n = 0; n < PANEL; n++) {
    for (let slab = 0; slab < K; slab += SLAB) {
      const to = w + panel_slab(F32, panel, slab, K, N) + (<usize>n << 2);
      for (let k = 0; k < min(SLAB, K - slab); k++) {
        const x = n < width ? value(rows, dtype, <usize>n * K + slab + k) : 0;
        bad += i32(!isFinite(x));
        store<f32>(to + <usize>k * PANEL * 4, x);
      }
    }
  }
  return bad;
}

/** From bf16 only; the order of the outputs in a row is that of panels.ts. */
function pack_bf16(w: usize, rows: usize, panel: i32, width: i32, K: i32, N: i32): i32 {
  let bad = 0;
  for (let n = 0; n < PANEL; n++) {
    for (let slab = 0; slab < K; slab += SLAB) {
      const to = w + panel_slab(BF16, panel, slab, K, N) + (<usize>lane(n) << 1);
      for (let k = 0; k < min(SLAB, K - slab); k++) {
        const bits = n < width ? load<u16>(rows + (<usize>n * K + slab + k << 1)) : 0;
        bad += i32((bits & 0x7f80) == 0x7f80);
        store<u16>(to + <usize>k * PANEL * 2, bits);
      }
    }
  }
  return bad;
}

function quantise(format: i32, w: usize, rows: usize, dtype: i32, panel: i32, width: i32, K: i32, N: i32): i32 {
  let bad = 0;
  const x = scratch();
  const block_bytes = format == Q8 ? Q8_BYTES : Q4_BYTES;
  for (let b = 0; b < blocks(K); b++) {
    const block = w + block_index(panel, b, K, N) * block_bytes;
    memory.fill(block, 0, block_bytes);
    for (let n = 0; n < width; n++) {
      const count = min(BLOCK, K - b * BLOCK);
      const odd = take(x, rows, dtype, <usize>n * K + b * BLOCK, count);
      bad += odd;
      if (format == Q8) quantise_q8(block, x, n);
      else if (quantise_q4(block, x, n, count) && !odd) bad++;
    }
  }
  return bad;
}

/** `count` <= 32 elements from the i-th on as f32 at x, and zeros behind them. Returns how many are NaN or infinite. */
@inline
function take(x: usize, source: usize, dtype: i32, i: usize, count: i32): i32 {
  if (dtype == BF16 && count == BLOCK) {
    const exponent = i16x8.splat(0x7f80);
    let odd = i16x8.splat(0);
    for (let k: usize = 0; k < <usize>BLOCK; k += 8) {
      const v = v128.load(source + (i + k << 1));
      odd = v128.or(odd, i16x8.eq(v128.and(v, exponent), exponent));
      v128.store(x + (k << 2), i32x4.shl(i32x4.extend_low_i16x8_u(v), 16));
      v128.store(x + (k << 2), i32x4.shl(i32x4.extend_high_i16x8_u(v), 16), 16);
    }
    if (!v128.any_true(odd)) return 0;
  }
  let bad = 0;
  memory.fill(x, 0, F32_BLOCK_BYTES);
  for (let k = 0; k < count; k++) {
    const v = value(source, dtype, i + k);
    bad += i32(!isFinite(v));
    store<f32>(x + (<usize>k << 2), v);
  }
  return bad;
}

/** The bf16 next above a positive f32, as its upper half; of NaN and infinity the same. */
@inline
function bf16_above(x: f32): u32 {
  const bits = reinterpret<u32>(x);
  return bits >= 0x7f800000 ? bits >> 16 | u32(bits > 0x7f800000) : bits + 0xffff >> 16;
}

@inline
function bf16(half: u32): f32 {
  return reinterpret<f32>(half << 16);
}

/** 32 weights at x as output n of a block: d is the largest of them over 127, rounded up so that q needs no limit. */
function quantise_q8(block: usize, x: usize, n: i32): void {
  let largest = f32x4.splat(0);
  for (let k: usize = 0; k < F32_BLOCK_BYTES; k += 16) largest = f32x4.max(largest, f32x4.abs(v128.load(x + k)));
  const amax = max(max(f32x4.extract_lane(largest, 0), f32x4.extract_lane(largest, 1)), max(f32x4.extract_lane(largest, 2), f32x4.extract_lane(largest, 3)));
  const half = bf16_above(amax / 127);
  store<u16>(block + Q8_SCALES + (<usize>lane(n) << 1), half);
  if (!(amax > 0)) return; // zeros, or NaN, which d then holds
  const d = f32x4.splat(bf16(half));
  let at = block + (<usize>n << 2);
  for (const end = x + F32_BLOCK_BYTES; x < end; x += 16) {
    const q = i32x4.trunc_sat_f32x4_s(f32x4.nearest(f32x4.div(v128.load(x), d))), words = i16x8.narrow_i32x4_s(q, q);
    store<u32>(at, i32x4.extract_lane(i8x16.narrow_i16x8_s(words, words), 0));
    at += 64;
  }
}

/** What stands for a scale that is not finite, or beyond what q4 has. */
const SPOILT: i32 = 1023;

/** A scale of q4 of its 10 bits. */
@inline
function scale_of(code: i32): f32 {
  return reinterpret<f32>((code << 19) + Q4_LEAST);
}

/**
 * 32 weights at x, of which `count` exist, as output n of a block, with the scale and the offset that have the least square error of eight: the scale at
 * which 15 steps reach from the least weight, or zero, to the largest, and the next smaller one, each with the four offsets nearest to the middle (on
 * normal weights 0.84 of the error of the plain (largest - least) / 15; test/kernels/quantised.test.ts measures it). Returns whether they are too large.
 */
function quantise_q4(block: usize, x: usize, n: i32, count: i32): bool {
  if (count < BLOCK) for (let k = count; k < BLOCK; k++) store<f32>(x + (<usize>k << 2), load<f32>(x)); // what does not exist weighs like the first
  let least = f32x4.splat(0), largest = least;
  for (let k: usize = 0; k < F32_BLOCK_BYTES; k += 16) {
    const v = v128.load(x + k);
    least = f32x4.min(least, v);
    largest = f32x4.max(largest, v);
  }
  const low = min(min(f32x4.extract_lane(least, 0), f32x4.extract_lane(least, 1)), min(f32x4.extract_lane(least, 2), f32x4.extract_lane(least, 3)));
  const high = max(max(f32x4.extract_lane(largest, 0), f32x4.extract_lane(largest, 1)), max(f32x4.extract_lane(largest, 2), f32x4.extract_lane(largest, 3)));
  const closest = <i32>reinterpret<u32>(abs((high - low) / 60)) - <i32>Q4_LEAST + (1 << 18) >> 19;
  let code = closest < SPOILT ? 0 : SPOILT, offset = 0; // what is below the least scale counts as zeros
  if (closest > 0 && closest < SPOILT) {
    let best: f32 = Infinity;
    for (let c = closest; c >= closest - 1; c--) {
      const d = scale_of(c), least_z = <i32>ceil<f32>(28 - (low + high) / (2 * d));
      for (let z = max(least_z, 0); z <= min(least_z + 3, 63); z++) {
        const error = error_q4(x, d, z);
        if (error < best) {
          best = error;
          code = c;
          offset = z;
        }
      }
    }
  }
  store<u16>(block + Q4_SCALES + (<usize>lane(n) << 1), code << 6 | offset);
  const inverse = f32x4.splat(0.25 / scale_of(code)), zero = f32x4.splat(<f32>offset * 0.25), shift = (n & 8) >> 1;
  let at = block + (<usize>(n & 7) << 2);
  for (const end = x + F32_BLOCK_BYTES; x < end; x += 16) {
    const q = v128.and(f32x4.add(levels(v128.load(x), inverse, zero), f32x4.splat(ROUND)), i32x4.splat(15)), words = i16x8.narrow_i32x4_s(q, q);
    store<u32>(at, load<u32>(at) | i32x4.extract_lane(i8x16.narrow_i16x8_u(words, words), 0) << shift);
    at += 32;
  }
  return code == SPOILT;
}

/** Sum of the squares of what is between 32 weights at x and d (4 q - z). */
@inline
function error_q4(x: usize, d: f32, z: i32): f32 {
  const inverse = f32x4.splat(0.25 / d), zero = f32x4.splat(<f32>z * 0.25), step = f32x4.splat(4 * d);
  let sum = f32x4.splat(0);
  for (const end = x + F32_BLOCK_BYTES; x < end; x += 16) {
    const v = v128.load(x), error = f32x4.sub(v, f32x4.mul(step, f32x4.sub(levels(v, inverse, zero), zero)));
    sum = f32x4.add(sum, f32x4.mul(error, error));
  }
  return f32x4.extract_lane(sum, 0) + f32x4.extract_lane(sum, 1) + (f32x4.extract_lane(sum, 2) + f32x4.extract_lane(sum, 3));
}

/** The levels nearest to four weights, from 0 to 15; pmin and pmax are an instruction each, min and max eight. */
@inline
function levels(x: v128, inverse: v128, zero: v128): v128 {
  return f32x4.pmax(f32x4.splat(0), f32x4.pmin(f32x4.splat(15), f32x4.nearest(f32x4.add(f32x4.mul(x, inverse), zero))));
}

/** Rows [begin, end) counted from row `first` of a table [V, D] in f32, or in bf16 from bf16. */
export function store_rows(table: usize, source: usize, dtype: i32, format: i32, first: i32, D: i32, begin: i32, end: i32): void {
  let bad = 0;
  for (let i = <usize>begin * D; i < <usize>end * D; i++) {
    const to = <usize>first * D + i;
    if (format == BF16) {
      const bits = load<u16>(source + (i << 1));
      bad += i32((bits & 0x7f80) == 0x7f80);
      store<u16>(table + (to << 1), bits);
    } else {
      const x = value(source, dtype, i);
      bad += i32(!isFinite(x));
      store<f32>(table + (to << 2), x);
    }
  }
  count_not_finite(bad);
}
