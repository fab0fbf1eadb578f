import { WasmBank } from '../runtime/wasm_bank.ts';
import { ThreadPool } from '../runtime/thread_pool.ts';
import { type Build, hasByteDots, hasWideVectors } from '../runtime/wasm_module.ts';

/** What this machine gives at most, with the threads that a model has. */
export interface Limits {
  /** GB/s of memory read forward, far more of it than any cache holds. */
  readonly memory_read_gbps: number;
  /** GFLOP/s of products and sums on registers, in the vectors that this engine has, fused in the relaxed build. */
  readonly f32_gflops: number;
  /** GOP/s of i32x4.dot_i16x8_s and sums on registers. */
  readonly i16_gops: number;
  /** GOP/s of dots of bytes on registers; null where they are not one instruction, and for the strict build. */
  readonly i8_gops: number | null;
}

/** What the meter holds, all of it in use. */
export const METER_BYTES = 512 * 2 ** 20;
const PIECE_BYTES = 2 ** 20;
const PIECES = 64;
const STEPS = 20_000;
/** Floats that a piece leaves. */
const LEFT = 8;

/** Measures the limits, again and again during a run: a shared machine drifts. */
export class LimitsMeter {
  private readonly measurements: Limits[] = [];
  private readonly pool: ThreadPool;
  private readonly byteDots: boolean;
  private readonly bank: WasmBank;
  private readonly sink: number;
  private readonly from: number;

  private constructor(pool: ThreadPool, byteDots: boolean) {
    this.pool = pool;
    this.byteDots = byteDots;
    this.bank = new WasmBank(pool, 1, 'strict', { persistent: METER_BYTES + 2 ** 16, scratch: 0 });
    this.sink = this.bank.tensor(METER_BYTES / PIECE_BYTES, LEFT).ptr;
    const memory = this.bank.tensor(1, METER_BYTES / 4);
    memory.data.fill(1); // untouched pages would all be one page of zeros
    this.from = memory.ptr;
  }

  /** @param build of the kernels that are to be held against the limits */
  static async start(threads: number, build: Build): Promise<LimitsMeter> {
    const byteDots = build === 'relaxed' && (await hasByteDots());
    const pool = await ThreadPool.create(threads, build);
    const meter = new LimitsMeter(pool, byteDots);
    await pool.start();
    return meter;
  }

  /** Returns what was measured now. */
  measure(): Limits {
    const now = {
      memory_read_gbps: rate(this.memory_read),
      f32_gflops: rate(this.f32_peak),
      i16_gops: rate(this.i16_peak),
      i8_gops: this.byteDots ? rate(this.i8_peak) : null,
    };
    this.measurements.push(now);
    return now;
  }

  /** Reads all that the meter holds. @returns bytes */
  readonly memory_read = (): number => {
    this.bank.run('memory_read', METER_BYTES / PIECE_BYTES, 4, this.sink, this.from, PIECE_BYTES);
    return METER_BYTES;
  };

  /** Runs the chains of multiplications and additions. @returns operations */
  readonly f32_peak = (): number => {
    this.bank.run('f32_peak', PIECES, 1, this.sink, STEPS, 0.999, 0.001);
    return 96 * steps();
  };

  private readonly i16_peak = (): number => {
    this.bank.run('i16_peak', PIECES, 1, this.sink, STEPS, 3);
    return 192 * steps();
  };

  private readonly i8_peak = (): number => {
    this.bank.run('i8_peak', PIECES, 1, this.sink, STEPS, 3);
    return 384 * steps();
  };

  /** Medians of all measurements so far. */
  get limits(): Limits {
    const of = (limit: keyof Limits) => median(this.measurements.map((one) => one[limit] ?? 0));
    return {
      memory_read_gbps: of('memory_read_gbps'),
      f32_gflops: of('f32_gflops'),
      i16_gops: of('i16_gops'),
      i8_gops: this.byteDots ? of('i8_gops') : null,
    };
  }

  async end(): Promise<void> {
    await this.pool.dispose();
  }
}

/** Steps of all pieces, twice as many where two vectors are one. */
function steps(): number {
  return PIECES * STEPS * (hasWideVectors() ? 2 : 1);
}

/** Units of work in a nanosecond, which is 1e9 of them in a second; the best of three. */
function rate(run: () => number): number {
  let best = 0;
  for (let i = 0; i < 3; i++) {
    const begin = performance.now();
    const work = run();
    best = Math.max(best, work / (1e6 * (performance.now() - begin)));
  }
  return best;
}

/** Milliseconds that a call takes. */
export function elapsed_ms(run: () => void): number {
  const begin = performance.now();
  run();
  return performance.now() - begin;
}

export function median(values: readonly number[]): number {
  const sorted = [...values].sort((a, b) => a - b);
  const middle = sorted.length >> 1;
  return sorted.length % 2 === 1 ? sorted[middle]! : (sorted[middle - 1]! + sorted[middle]!) / 2;
}
