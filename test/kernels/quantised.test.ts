import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import type { Bank } from '../../src/runtime/bank.ts';
import { type Matrix, matrixBytes } from '../../src/runtime/tensor.ts';
import { ThreadPool } from '../../src/runtime/thread_pool.ts';
import { WasmBank } from '../../src/runtime/wasm_bank.ts';
import { type Build, hasByteDots, hasRelaxedSimd } from '../../src/runtime/wasm_module.ts';
import { drawn, extents, mapped, rowsOf, stacked, type Values, values } from '../support/arbitraries.ts';
import { assertClose, assertSame, TINY, U32 } from '../support/assert_close.ts';
import { type Block, blockOf, decoded, type Quantised } from '../support/packed_weights.ts';
import { reference } from '../support/workbench.ts';

const FORMATS = ['Q8', 'Q4'] as const;
const ROWS = 9;
const SIZES = [
  [31, 33],
  [65, 16],
  [320, 530],
  [257, 47],
] as const;
const fround = Math.fround;

async function bankOf(build: Build): Promise<new () => WasmBank> {
  const pool = await ThreadPool.create(1, build);
  const shared = new WasmBank(pool, ROWS, 'fast', { persistent: 8 << 20, scratch: 4 << 20 });
  // One memory for all cases; each begins with it empty.
  return class {
    constructor() {
      (shared as unknown as { persistentArena: { rewind(): void } }).persistentArena.rewind();
      shared.rewindScratch();
      // biome-ignore lint/correctness/noConstructorReturn: the memory is the same for all
      return shared;
    }
  } as unknown as new () => WasmBank;
}

const strict = await bankOf('strict');
const relaxed = (await hasRelaxedSimd()) ? await bankOf('relaxed') : null;
const byteDots = relaxed !== null && (await hasByteDots());

/** A weight as it was quantised, and its bytes. */
interface Packed {
  readonly matrix: Matrix;
  readonly bytes: Uint8Array;
  readonly notFinite: number;
}

function pack(bank: Bank, w: Values, format: Quantised, rowsAtOnce = 1 << 30): Packed {
  const matrix = bank.matrix(w.rows, w.cols, format);
  let notFinite = 0;
  for (let begin = 0; begin < w.rows; begin += rowsAtOnce) {
    const end = Math.min(begin + rowsAtOnce, w.rows);
    bank.staging.set(new Uint8Array(Float32Array.from(w.data.subarray(begin * w.cols, end * w.cols)).buffer));
    notFinite += bank.storeRows(matrix, 'F32', begin, end);
  }
  const bytes = new Uint8Array(bank.staging.buffer, matrix.ptr, matrixBytes(format, w.rows, w.cols)).slice();
  return { matrix, bytes, notFinite };
}

/** y = x w^T (+ bias) by the bank's kernels, with activations rounded to integers or exact ones. */
function product(Bank: new () => WasmBank, x: Values, any: Values, format: Quantised, integer: boolean, bias: Values | null = null) {
  const w = inReach(any, format);
  const bank = new Bank();
  const { matrix, bytes } = pack(bank, w, format);
  const [tx, ty] = [bank.tensor(x.rows, x.cols), bank.tensor(x.rows, w.rows)];
  tx.data.set(x.data);
  ty.data.fill(NaN);
  const b = bias && bank.tensor(1, bias.cols);
  b?.data.set(bias!.data);
  bank.kernels.linear(ty, tx, matrix, b, integer ? bank.rounded(x.cols) : null);
  return { y: { data: ty.data.slice(), rows: x.rows, cols: w.rows } satisfies Values, bytes };
}

const shapes = extents('K', 'N');
const weights = shapes.chain(({ K, N }) => fc.record({ w: values(N, K), rowsAtOnce: fc.constantFrom(1 << 30, 16, 48) }));

/** Weights of the size that q4 has scales for, about 1.8 million; those of the draw `large` are far beyond it. */
function inReach(w: Values, format: Quantised): Values {
  return format === 'Q4' && w.data.some((x) => Math.abs(x) > 1e6) ? mapped(w, (x) => x * 2 ** -40) : w;
}

function blocks(bytes: Uint8Array, format: Quantised, { rows, cols }: Values): { block: Block; n: number; k: number; count: number }[] {
  const all = [];
  for (let n = 0; n < rows; n++)
    for (let k = 0; k < cols; k += 32) all.push({ block: blockOf(bytes, format, cols, n, k / 32), n, k, count: Math.min(32, cols - k) });
  return all;
}

describe('the packed layout', () => {
  test('q8: every weight is within half a step of what was stored, and zeros stand where there is none', () => {
    fc.assert(
      fc.property(weights, ({ w, rowsAtOnce }) => {
        const { bytes, notFinite } = pack(new strict(), w, 'Q8', rowsAtOnce);
        expect(notFinite).toBe(0);
        for (const { block, n, k, count } of blocks(bytes, 'Q8', w)) {
          const largest = Math.max(...w.data.subarray(n * w.cols + k, n * w.cols + k + count).map(Math.abs));
          // d is the least bf16 that lets q reach the largest; below 2^-126 the steps of bf16 are 2^-133.
          expect(block.d).toBeLessThanOrEqual((largest / 127) * (1 + 2 ** -7) + 2 ** -133);
          block.q.forEach((q, i) => {
            const x = i < count ? w.data[n * w.cols + k + i]! : 0;
            // One rounding of x / d may tip a tie.
            if (Math.abs(x - block.d * q) > block.d * 0.5 * (1 + 2 ** -16) + 2 ** -140)
              throw new Error(`weight ${n}, ${k + i}: ${x} as ${block.d} * ${q}`);
          });
        }
      }),
      { numRuns: 60 },
    );
  });

  test('q4: every weight is at the level nearest to it', () => {
    fc.assert(
      fc.property(weights, ({ w: any, rowsAtOnce }) => {
        const w = inReach(any, 'Q4');
        const { bytes, notFinite } = pack(new strict(), w, 'Q4', rowsAtOnce);
        expect(notFinite).toBe(0);
        for (const { block, n, k, count } of blocks(bytes, 'Q4', w)) {
          for (let i = 0; i < count; i++) {
            const x = w.data[n * w.cols + k + i]!;
            const nearest = Math.min(15, Math.max(0, (x / block.d + block.z) / 4));
            const slack = 0.5 + 2 ** -18 * (Math.abs(x) / block.d + block.z);
            if (Math.abs((block.q[i]! + block.z) / 4 - nearest) > slack)
              throw new Error(`weight ${n}, ${k + i}: ${x} as ${block.d} * ${block.q[i]}, offset ${block.z}`);
          }
        }
      }),
      { numRuns: 60 },
    );
  });

  test('q4: the best of eight beats the plain (largest - least) / 15', () => {
    for (const [draw, most] of [
      ['normal', 0.86],
      ['spread', 0.3],
      ['sparse', 0.3],
    ] as const) {
      const w = drawn(128, 512, draw, 7);
      const { bytes } = pack(new strict(), w, 'Q4');
      const error = (got: Float32Array) => got.reduce((sum, x, i) => sum + (x - w.data[i]!) ** 2, 0);
      const ratio = error(decoded(bytes, 'Q4', 128, 512)) / error(plain(w));
      console.log(`q4 on ${draw} weights: mean square error ${ratio.toFixed(3)} of the plain one, RMS ${Math.sqrt(ratio).toFixed(3)}`);
      expect(ratio).toBeLessThan(most);
    }
  });

  test.each(FORMATS)('%s: NaN and infinite weights are counted, and spoil their block only', (format) => {
    const w = mapped(drawn(21, 70, 'normal', 2), (value, i) => ({ 0: NaN, 69: Infinity, 700: -Infinity, 1469: -NaN })[i] ?? value);
    const { bytes, notFinite } = pack(new strict(), w, format, 16);
    expect(notFinite).toBe(4);
    const most = 2 ** 14 * (1 + 15 / 16); // the scale that no other block of q4 has
    const spoilt = blocks(bytes, format, w).filter(({ block: { d } }) => (format === 'Q4' ? d === most : !Number.isFinite(d)));
    expect(spoilt.map(({ n, k }) => [n, k])).toEqual([
      [0, 0],
      [0, 64],
      [10, 0],
      [20, 64],
    ]);
  });

  test.each(FORMATS)('%s: zeros, equal weights, the smallest and the largest numbers', (format) => {
    const largest = format === 'Q8' ? -(2 ** 100) : -1.8e6;
    for (const value of [0, 1, -0.75, 2 ** -149, 2 ** -130, 2 ** -42, largest]) {
      const w = { data: new Float32Array(5 * 40).fill(value), rows: 5, cols: 40 };
      const { bytes, notFinite } = pack(new strict(), w, format);
      expect(notFinite).toBe(0);
      const half = format === 'Q8' ? 0.5 * (Math.abs(value) / 127) * (1 + 2 ** -7) + 2 ** -133 : Math.abs(value) * 2 ** -6 + 2 ** -48;
      assertClose(decoded(bytes, format, 5, 40), w.data, { relative: 0, absolute: value === 0 ? 0 : half });
    }
  });

  test('q4: what its scales do not reach is counted as NaN and infinite weights are', () => {
    const w = mapped(drawn(3, 96, 'normal', 5), (value, i) => (i === 40 || i === 41 ? 2e6 : value));
    const { bytes, notFinite } = pack(new strict(), w, 'Q4');
    expect(notFinite).toBe(1);
    expect(blocks(bytes, 'Q4', w).filter(({ block }) => block.d > 1).length).toBe(1);
  });

  test('one huge weight costs its block its exactness, and no other', () => {
    for (const format of FORMATS) {
      const huge = format === 'Q8' ? 1e30 : 1e6;
      const w = mapped(drawn(3, 96, 'normal', 5), (value, i) => (i === 40 ? huge : value));
      const got = decoded(pack(new strict(), w, format).bytes, format, 3, 96);
      expect(Math.abs(got[40]! / huge - 1)).toBeLessThan(format === 'Q8' ? 0.5 / 127 : 0.5 / 15);
      const step = format === 'Q8' ? 4 / 254 : 8 / 30;
      for (let i = 0; i < got.length; i++) if (i < 32 || i >= 64) expect(Math.abs(got[i]! - w.data[i]!)).toBeLessThan(step);
    }
  });
});

/** q4 without a fit: d = (largest - least) / 15, m = least, both as the nearest bf16. */
function plain(w: Values): Float32Array {
  const bf16 = (x: number) => {
    const bits = new Uint32Array(Float32Array.of(x).buffer)[0]!;
    return new Float32Array(Uint32Array.of(((bits + 0x7fff + ((bits >>> 16) & 1)) >>> 16) << 16).buffer)[0]!;
  };
  const got = new Float32Array(w.data.length);
  for (let at = 0; at < got.length; at += 32) {
    const block = w.data.subarray(at, at + 32);
    const [least, largest] = [Math.min(...block), Math.max(...block)];
    const [d, m] = [bf16((largest - least) / 15), bf16(least)];
    block.forEach((x, i) => {
      got[at + i] = d > 0 ? d * Math.min(15, Math.max(0, Math.round((x - m) / d))) + m : m;
    });
  }
  return got;
}

const operands = shapes.chain(({ K, N }) =>
  fc
    .record({ T: fc.integer({ min: 1, max: ROWS }), seed: fc.nat(1e6) })
    .chain(({ T }) => fc.record({ x: values(T, K), w: values(N, K), bias: fc.option(values(1, N)) })),
);
const magnitude = (x: Values) => mapped(x, Math.abs);

function referenceLinear(x: Values, w: Values, bias: Values | null): ArrayLike<number> {
  const b = reference.bench();
  const y = b.room(x.rows, w.rows);
  b.kernels.linear(y, b.put(x), b.matrix(w), bias && b.put(bias));
  return b.take(y)[0]!.data;
}

describe.each(FORMATS)('linear of %s', (format) => {
  test('with exact activations is the product with the decoded weights', () => {
    fc.assert(
      fc.property(operands, ({ x, w, bias }) => {
        const { y, bytes } = product(strict, x, w, format, false, bias);
        const exact = { data: decoded(bytes, format, w.rows, w.cols), rows: w.rows, cols: w.cols };
        const of = referenceLinear(magnitude(x), magnitude(exact), bias && magnitude(bias));
        assertClose(y.data, referenceLinear(x, exact, bias), { relative: (x.cols + 2) * U32, of, absolute: (x.cols + 1) * TINY });
      }),
      { numRuns: 60 },
    );
  });

  test('with rounded activations is the integer model, bit for bit', () => {
    fc.assert(
      fc.property(operands, ({ x, w, bias }) => {
        const { y, bytes } = product(strict, x, w, format, true, bias);
        assertSame(y.data, integerModel(x, bytes, format, w.rows, bias));
      }),
      { numRuns: 60 },
    );
  });

  test('with exact activations a row has the same bits alone and with others', () => {
    for (const [K, N] of SIZES) {
      const [x, w] = [drawn(ROWS, K, 'spread', K), drawn(N, K, 'normal', N)];
      const alone = Array.from({ length: ROWS }, (_, t) => product(strict, rowsOf(x, t, t + 1), w, format, false).y);
      for (let T = 2; T <= ROWS; T++)
        assertSame(product(strict, rowsOf(x, 0, T), w, format, false).y.data, stacked(...alone.slice(0, T)).data);
    }
  });

  test('with rounded activations four rows have the same bits whatever rows follow', () => {
    for (const [K, N] of SIZES) {
      const [x, w] = [drawn(ROWS, K, 'spread', K), drawn(N, K, 'normal', N)];
      for (const Bank of [strict, ...(relaxed ? [relaxed] : [])]) {
        const four = product(Bank, rowsOf(x, 0, 4), w, format, true).y;
        for (let T = 5; T <= ROWS; T++) assertSame(product(Bank, rowsOf(x, 0, T), w, format, true).y.data.subarray(0, 4 * N), four.data);
      }
    }
  });

  test('with rounded activations: zeros, one huge number, the smallest numbers', () => {
    const w = drawn(17, 70, 'normal', 3);
    const x = drawn(4, 70, 'normal', 4);
    const rows = mapped(x, (value, i) => {
      const [t, k] = [Math.floor(i / 70), i % 70];
      return fround(t === 0 ? 0 : t === 1 && k === 33 ? 1e20 : t === 2 ? value * 2 ** -140 : value);
    });
    const { y, bytes } = product(strict, rows, w, format, true);
    assertSame(y.data, integerModel(rows, bytes, format, 17, null));
    assertSame(y.data.subarray(0, 17), new Float32Array(17));
    expect(y.data.subarray(34, 51).every((value) => Math.abs(value) < 1e-35)).toBe(true);
  });

  test('NaN and infinite activations give NaN in their row only', () => {
    const w = drawn(17, 70, 'normal', 3);
    const x = drawn(6, 70, 'normal', 4);
    for (const broken of [NaN, Infinity, -Infinity]) {
      const { y } = product(
        strict,
        mapped(x, (value, i) => (i === 70 + 5 ? broken : value)),
        w,
        format,
        true,
      );
      const clean = product(strict, x, w, format, true).y;
      assertSame(
        y.data,
        clean.data.map((value, i) => (Math.floor(i / 17) === 1 ? NaN : value)),
      );
    }
  });

  test.runIf(relaxed)('of the relaxed build is near the integer model', () => {
    fc.assert(
      fc.property(operands, ({ x, w }) => assertNearModel(x, w, format)),
      { numRuns: 40 },
    );
  });

  test('few and many rows with several slabs, and outputs enough for four streams', () => {
    for (const [K, N] of SIZES) {
      const [x, w] = [drawn(ROWS, K, 'spread', K), drawn(N, K, 'normal', N)];
      for (const T of [1, 2, 3, ROWS]) {
        const few = rowsOf(x, 0, T);
        const { y, bytes } = product(strict, few, w, format, true);
        assertSame(y.data, integerModel(few, bytes, format, N, null));
        if (relaxed) assertNearModel(few, w, format);
      }
    }
  });
});

/**
 * Holds the relaxed build to what its files say that it computes: activations of 8 bits with a scale for each block for the rows and outputs that are
 * left over, and for all where the engine has dots of bytes; otherwise 12 bits. Integer sums are exact, f32 sums are rounded elsewhere.
 */
function assertNearModel(x: Values, w: Values, format: Quantised): void {
  const { y, bytes } = product(relaxed!, x, w, format, true);
  const [wide, bytewise] = [integerModel, byteModel].map((model) => {
    const signed = model(x, bytes, format, w.rows, null);
    return { signed, magnitudes: model(x, bytes, format, w.rows, null, Math.abs) };
  });
  const of = (i: number) => {
    const [t, n] = [Math.floor(i / w.rows), i % w.rows];
    return byteDots || t >= (x.rows & ~3) || n >= (w.rows & ~15) ? bytewise! : wide!;
  };
  // Scales of x and w multiply before dots of up to 2^16 do.
  const bounds = y.data.map((_, i) => 4 * (w.cols / 32 + 2) * U32 * of(i).magnitudes[i]! + 2 ** 17 * Math.ceil(w.cols / 32) * TINY);
  assertClose(
    y.data,
    y.data.map((_, i) => of(i).signed[i]!),
    { relative: 1, of: bounds, absolute: 0 },
  );
}

/** What assembly/linear_bytes.ts and linear_rows.ts say of dots of bytes, in integers and f64. */
function byteModel(x: Values, bytes: Uint8Array, format: Quantised, N: number, _bias: null, of = (term: number) => term): Float64Array {
  const y = new Float64Array(x.rows * N);
  for (let t = 0; t < x.rows; t++) {
    const row = x.data.subarray(t * x.cols, (t + 1) * x.cols);
    for (let k = 0; k < x.cols; k += 32) {
      const values = [...row.subarray(k, k + 32)];
      const most = Math.max(...values.map(Math.abs));
      const inverse = most > 1e-30 ? fround(127 / most) : 0;
      const xq = values.map((value) => nearestEven(fround(value * inverse)));
      const dx = fround(most / 127);
      for (let n = 0; n < N; n++) {
        const { d, q } = blockOf(bytes, format, x.cols, n, k / 32);
        const dot = xq.reduce((sum, value, i) => sum + value * q[i]!, 0);
        y[t * N + n]! += of(dx * d * dot);
      }
    }
  }
  return y;
}

/**
 * What assembly/linear_integer.ts says that it computes, in integers and f32: four rows at a time with the weights of a slab at one scale, the rows
 * and outputs that are left over with those of their blocks.
 * @param of Math.abs for the sum of the terms' magnitudes
 */
function integerModel(
  x: Values,
  bytes: Uint8Array,
  format: Quantised,
  N: number,
  bias: Values | null,
  of = (term: number) => term,
): Float32Array {
  const K = x.cols;
  const y = new Float32Array(x.rows * N);
  const add = (at: number, term: number) => {
    y[at] = y[at]! + of(fround(term));
  };
  for (let t = 0; t < x.rows; t++) {
    for (let slab = 0; slab < K; slab += 256) {
      const count = Math.ceil(Math.min(256, K - slab) / 32);
      const xs = Array.from({ length: 32 * count }, (_, i) => (slab + i < K ? x.data[t * K + slab + i]! : 0));
      const most = Math.max(...xs.map(Math.abs));
      const inverse = most > 1e-30 ? fround(2047 / most) : 0;
      const xq = xs.map((value) => nearestEven(fround(value * inverse)));
      const dx = fround(most / 2047);
      for (let n = 0; n < N; n++) {
        const at = t * N + n;
        const blocks = Array.from({ length: count }, (_, b) => blockOf(bytes, format, K, n, slab / 32 + b));
        if (t < (x.rows & ~3) && n < (N & ~15)) {
          const reach = blocks.map(({ d, z }) => fround((format === 'Q8' ? 127 : Math.max(z, 60 - z)) * d));
          const largest = Math.max(...reach);
          const levels = largest > 1e-30 ? fround(2047 / largest) : 0;
          const weights = blocks.flatMap(({ d, q }) => q.map((w) => nearestEven(fround(w * fround(d * levels)))));
          const dot = fround(weights.reduce((sum, w, i) => sum + w * xq[i]!, 0));
          add(at, fround(dx * fround(largest * fround(1 / 2047))) * dot);
          continue;
        }
        blocks.forEach(({ d, q }, b) => {
          add(at, fround(dx * d) * q.reduce((sum, weight, i) => sum + weight * xq[32 * b + i]!, 0));
        });
      }
    }
    if (bias) for (let n = 0; n < N; n++) y[t * N + n] = y[t * N + n]! + bias.data[n]!;
  }
  return y;
}

function nearestEven(x: number): number {
  const floor = Math.floor(x);
  if (x - floor !== 0.5) return Math.round(x);
  return floor % 2 === 0 ? floor : floor + 1;
}
