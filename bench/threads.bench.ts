import { ThreadPool } from '../dist/runtime/thread_pool.js';

// What it costs to share a call between threads, one call after the other, as layers do. With next to no work the calling thread may be done with all
// of it before a worker comes; with some microseconds for each thread, what two threads take beyond one with its half is the cost of the barrier.

const CALLS = 20_000;
const ROUNDS = 9;
/** Floats that each thread adds. */
const WORK = { none: 16, some: 8192 };
const SCRATCH_BYTES = 300_000;
const [Y, X] = [2 ** 20, 2 ** 21];

/** Microseconds of a call: the least and the median of the rounds. */
async function perCall(threads: number, work: number): Promise<{ least: number; median: number }> {
  const pool = await ThreadPool.create(threads);
  const { run } = pool.addMemory(64, (thread) => 65536 + thread * SCRATCH_BYTES);
  await pool.start();
  const rounds: number[] = [];
  for (let round = 0; round <= ROUNDS; round++) {
    const begin = performance.now();
    for (let i = 0; i < CALLS; i++) run('add', threads * work, work, Y, X);
    if (round > 0) rounds.push(((performance.now() - begin) * 1000) / CALLS); // the first one warms up
  }
  await pool.dispose();
  rounds.sort((a, b) => a - b);
  return { least: rounds[0]!, median: rounds[rounds.length >> 1]! };
}

process.stdout.write('| threads | floats added by each | µs per call, least | median |\n|---|---|---|---|\n');
for (const work of Object.values(WORK)) {
  for (const threads of [1, 2]) {
    const { least, median } = await perCall(threads, work);
    process.stdout.write(`| ${threads} | ${work} | ${least.toFixed(2)} | ${median.toFixed(2)} |\n`);
  }
}
