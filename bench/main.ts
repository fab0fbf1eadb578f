import { mkdir, writeFile } from 'node:fs/promises';
import { cpus } from 'node:os';
import { LimitsMeter } from '../dist/bench/limits.js';
import { kernelTables } from './kernels.bench.js';
import { modelTable } from './model.bench.js';

// One run measures the machine's limits and the kernels side by side; absolute figures drift with the machine, the shares do not.
const meter = await LimitsMeter.start(1, 'strict');
const kernels = await kernelTables(meter);
await meter.end();
const model = await modelTable();
const machine = `${cpus()[0]?.model.trim()}, Node ${process.versions.node}, one thread, medians of 5 rounds.`;
const report = ['# Kernels and the embedded model', '', machine, '', ...kernels, '', ...model, ''].join('\n');
const results = new URL('../bench/results/', import.meta.url);
await mkdir(results, { recursive: true });
await writeFile(new URL('kernels.md', results), report);
process.stdout.write(report);
