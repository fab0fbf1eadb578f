import type { CaseResult, Conformance, LevelResult } from './conform.ts';

/** The report as JUnit XML: a suite for each level, a test for each case; what is not supported is skipped. */
export function reportJunit({ levels, runtime }: Conformance): string {
  const suites = levels.map(suite).join('');
  const counts = countsOf(levels.flatMap(({ cases }) => cases));
  return `<?xml version="1.0" encoding="UTF-8"?>\n<testsuites name="olmo-hybrid conform: ${escaped(runtime)}" ${counts}>\n${suites}</testsuites>\n`;
}

function suite({ level, cases }: LevelResult): string {
  const tests = cases.map((one) => test(level, one)).join('');
  return `  <testsuite name="${level}" ${countsOf(cases)}>\n${tests}  </testsuite>\n`;
}

function test(level: string, { name, status, said, seconds }: CaseResult): string {
  const begin = `    <testcase classname="${level}" name="${escaped(name)}" time="${seconds.toFixed(3)}"`;
  if (status === 'passed') return `${begin}/>\n`;
  const [first = ''] = said.split('\n');
  const inner =
    status === 'failed' ? `<failure message="${escaped(first)}">${escaped(said)}</failure>` : `<skipped message="${escaped(first)}"/>`;
  return `${begin}>${inner}</testcase>\n`;
}

function countsOf(cases: readonly CaseResult[]): string {
  const count = (wanted: CaseResult['status']) => cases.filter(({ status }) => status === wanted).length;
  const seconds = cases.reduce((sum, one) => sum + one.seconds, 0).toFixed(3);
  return `tests="${cases.length}" failures="${count('failed')}" errors="0" skipped="${count('not supported')}" time="${seconds}"`;
}

/** Text between tags or in an attribute; characters that XML 1.0 has no place for become U+FFFD. */
function escaped(text: string): string {
  return text
    .replace(/[^\t\n\r\u{20}-\u{d7ff}\u{e000}-\u{fffd}\u{10000}-\u{10ffff}]/gu, '\u{fffd}')
    .replaceAll('&', '&amp;')
    .replaceAll('<', '&lt;')
    .replaceAll('>', '&gt;')
    .replaceAll('"', '&quot;');
}
