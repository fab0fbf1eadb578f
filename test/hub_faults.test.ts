import { afterAll, describe, expect, test } from 'vitest';
import { bodies, redirects, statuses } from './support/fault_rows_network.ts';
import { type Row, runRow } from './support/fault_table.ts';

// Each row: a pull from a Hub with a fault, which ends as it must in bounded time, keeps the token from other hosts and leaves a cache in which all that
// is seen is complete; and a second pull without the fault, after which everything is there. The table is printed with what came of each row.
const TABLES: readonly (readonly [string, readonly Row[]])[] = [
  ['statuses', statuses],
  ['redirects', redirects],
  ['bodies', bodies],
];
const LONGEST_MS = 5000;

const lines: string[] = [];
afterAll(() => {
  process.stdout.write(`\n| fault | must | result |\n|---|---|---|\n${lines.join('')}\n`);
});

describe.each(TABLES)('%s', (_, rows) => {
  test.each(rows)('$fault: $must', { timeout: LONGEST_MS }, async (row) => {
    const { result, wrong } = await runRow(row);
    lines.push(`| ${row.fault} | ${row.must} | ${wrong.length === 0 ? result : `WRONG: ${wrong[0]}`} |\n`);
    expect(wrong).toEqual([]);
  });
});
