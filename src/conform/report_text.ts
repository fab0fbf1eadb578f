import type { Marks } from '../diff/report_text.ts';
import type { CaseResult, Conformance, LevelResult } from './conform.ts';

/** Of the failures of one level, how many are shown. */
const MOST_SHOWN = 5;
const WIDTHS = [16, 10, 12, 9, 7] as const;

/** The report for a person: a line for each level, and its failures under it. */
export function reportText({ levels, conforms, reached }: Conformance, marks: Marks): string {
  const lines = [marks.bold(row('level', 'cases', '', 'worst', 'bound', ''))];
  for (const level of levels) {
    const line = lineOf(level);
    lines.push(level.status === 'failed' ? marks.bad(line) : level.status === 'passed' ? line : marks.dim(line));
    const failures = level.cases.filter(({ status }) => status === 'failed');
    for (const { name, said } of failures.slice(0, MOST_SHOWN)) lines.push(`  ${name}: ${said.replaceAll('\n', '\n    ')}`);
    if (failures.length > MOST_SHOWN) lines.push(`  and ${failures.length - MOST_SHOWN} more`);
  }
  const end = `level reached: ${reached ?? 'none'}; the runtime ${conforms ? 'conforms' : 'does not conform'}`;
  lines.push(conforms ? marks.good(end) : marks.bad(end));
  return `${lines.join('\n')}\n`;
}

function lineOf({ level, status, cases, measure }: LevelResult): string {
  const answered = cases.filter((one) => one.status !== 'not supported');
  const good = cases.filter((one) => one.status === 'passed').length;
  const count = status === 'not supported' ? `${cases.length}` : `${good}/${answered.length}`;
  const worst = worstOf(answered);
  if (measure === null || worst === null) return row(level, count, status, '', '', '');
  return row(level, count, status, short(worst), short(measure.bound), measure.unit);
}

/** The largest of what was measured; null when nothing was. */
function worstOf(cases: readonly CaseResult[]): number | null {
  return cases.reduce<number | null>((most, { measured }) => (measured === null ? most : Math.max(most ?? 0, measured)), null);
}

/** Three digits. */
export function short(value: number): string {
  return value === 0 || (value >= 0.01 && value < 1000) ? String(Number(value.toPrecision(3))) : value.toExponential(1);
}

function row(...cells: readonly string[]): string {
  const [level, count, status, worst, bound, unit] = cells as [string, string, string, string, string, string];
  const [w0, w1, w2, w3, w4] = WIDTHS;
  return `${level.padEnd(w0)}${count.padStart(w1 - 2)}  ${status.padEnd(w2 + 2)}${worst.padStart(w3)}${bound.padStart(w4)}  ${unit}`.trimEnd();
}
