import { Bench } from 'tinybench';
import { median } from '../dist/bench/limits.js';

/** One thing to time: `run` does it once and returns the work done, in units of `unit` (1e9 of them a second are printed as 1). */
export interface Subject {
  readonly name: string;
  readonly unit: 'GFLOP/s' | 'GB/s' | 'token/s';
  readonly run: () => number;
}

/** Rates of a subject: the median of the rounds. */
export interface Rate {
  readonly name: string;
  readonly unit: Subject['unit'];
  readonly rate: number;
}

const ROUNDS = 5;
const ROUND_MS = 150;

/**
 * Times subjects in turn, round after round, so that a machine that slows down slows all of them; takes the median of the rounds.
 * @param subjects What is to be compared in one run: a kernel and the limit that it is held against.
 */
export async function measure(subjects: readonly Subject[]): Promise<Rate[]> {
  const rates = subjects.map(() => [] as number[]);
  for (const { run } of subjects) run(); // compiled by the optimising tier before anything counts
  for (let round = 0; round < ROUNDS; round++) {
    for (const [i, { name, run }] of subjects.entries()) {
      let work = 0;
      const bench = new Bench({ time: ROUND_MS, iterations: 2, warmup: round === 0, warmupTime: ROUND_MS });
      bench.add(name, () => {
        work = run();
      });
      await bench.run();
      const { result } = bench.tasks[0]!;
      if (result.state !== 'completed') throw new Error(`${name}: ${result.state}`);
      rates[i]!.push(work / (result.latency.p50 / 1000));
    }
  }
  return subjects.map(({ name, unit }, i) => ({ name, unit, rate: median(rates[i]!) }));
}

/** A rate for people. */
export function show({ rate, unit }: Rate): string {
  return unit === 'token/s' ? rate.toFixed(0) : (rate / 1e9).toFixed(1);
}
