import { fileURLToPath } from 'node:url';
import { parseArgs } from 'node:util';
import { type BrokenDownload, breakDownloads, MOMENTS, type Way } from '../support/broken_downloads.ts';

// Breaks off 1000 downloads at random points: npm run test:downloads -- [--runs 1000] [--seed 1] [--parallel 30]. A single one: --runs 1 --seed N.
// Exits with 1 if one of them is not taken up as it must be.
const { values } = parseArgs({
  options: {
    runs: { type: 'string', default: '1000' },
    seed: { type: 'string', default: '1' },
    parallel: { type: 'string', default: '30' },
  },
});
const [runs, seed, parallel] = [values.runs, values.seed, values.parallel].map(Number) as [number, number, number];
const WAYS: readonly Way[] = ['killed', 'cut', 'killed', 'cut', 'raced'];
const SMALL_BYTES = 1_500_007;
// More than two requests of one file, several of them at a time.
const LARGE_BYTES = 40_000_003;
const BYTES_PER_SECOND = 3e6;

const begin = performance.now();
let done = 0;
const downloads = await breakDownloads({
  main: fileURLToPath(new URL('../../../dist/cli/main.js', import.meta.url)),
  seeds: Array.from({ length: runs }, (_, i) => seed + i),
  wayOf: (seed) => WAYS[seed % WAYS.length]!,
  bytesOf: (seed) => (seed % 31 === 0 ? LARGE_BYTES : SMALL_BYTES),
  bytes_per_second: BYTES_PER_SECOND,
  parallel,
  onEnd: ({ seed, way, wrong }) => {
    done += 1;
    for (const text of wrong) console.error(`seed ${seed}, ${way}: ${text}`);
    if (done % 50 === 0) console.error(`${done} of ${runs} after ${seconds()} s`);
  },
});

const count = (chosen: (download: BrokenDownload) => boolean) => downloads.filter(chosen).length;
const kills = downloads.flatMap(({ moments }) => moments);
const cuts = downloads.reduce((sum, { cuts }) => sum + cuts, 0);
const [sent, bytes] = [
  downloads.reduce((sum, { sent_bytes }) => sum + sent_bytes, 0),
  downloads.reduce((sum, { bytes }) => sum + bytes, 0),
];
const failed = count(({ wrong }) => wrong.length > 0);
const rows: [string, number | string][] = [
  ['downloads', `${downloads.length}, seeds ${seed} to ${seed + runs - 1}`],
  ...(['killed', 'cut', 'raced'] as const).map((way): [string, number] => [way, count((download) => download.way === way)]),
  ['kills', kills.length],
  ...MOMENTS.map((moment): [string, number] => [`- ${moment}`, kills.filter((kill) => kill === moment).length]),
  ['cuts', cuts],
  ['bytes sent, of those that were needed', `${(sent / bytes).toFixed(3)}`],
  ['not as they must be', failed],
  ['time', `${seconds()} s, ${parallel} at a time`],
];
console.log(rows.map(([name, value]) => `| ${name} | ${value} |`).join('\n'));
if (failed > 0) process.exitCode = 1;

function seconds(): number {
  return Math.round((performance.now() - begin) / 1000);
}
