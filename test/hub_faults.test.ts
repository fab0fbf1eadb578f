import { afterAll, describe, test } from 'vitest';
import { answers, repositories } from './support/fault_rows_answers.ts';
import { cache } from './support/fault_rows_cache.ts';
import { bodies, redirects, statuses } from './support/fault_rows_network.ts';
import { type Row, runRow } from './support/fault_table.ts';

// Each row: a pull from a Hub with a fault, which ends as it must in bounded time, keeps the token from other hosts and leaves a cache in which all that
// is seen is complete; and a second pull without the fault, after which everything is there. The table is printed with what came of each row.
const TABLES: readonly (readonly [string, readonly Row[]])[] = [
  ['statuses', statuses],
  ['redirects', redirects],
  ['bodies', bodies],
  ['answers', answers],
  ['repositories', repositories],
  ['the cache', cache],
];
const LONGEST_MS = 5000;

const lines = new Map<Row, string>();
afterAll(() => {
  process.stdout.write(
    `\n| fault | must | result |\n|---|---|---|\n${TABLES.flatMap(([, rows]) => rows.map((row) => lines.get(row) ?? '')).join('')}\n`,
  );
});

describe.each(TABLES)('%s', (_, rows) => {
  test.concurrent.for(rows)('$fault: $must', { timeout: LONGEST_MS }, async (row, { expect, skip }) => {
    const { result, wrong, skipped } = await runRow(row);
    const cell = skipped ? `skipped: ${skipped}` : wrong.length === 0 ? result : `WRONG: ${wrong[0]}`;
    lines.set(row, `| ${row.fault} | ${row.must} | ${cell} |\n`);
    if (skipped) skip(skipped);
    expect(wrong).toEqual([]);
  });
});
