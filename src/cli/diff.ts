import type { Command } from 'commander';
import { visible } from '../checkpoint/problem_list.ts';
import { diffTraces } from '../diff/compare.ts';
import { reportHtml } from '../diff/report_html.ts';
import { reportText } from '../diff/report_text.ts';
import { checkOutput } from './output_file.ts';
import { marks, printReport, reportJson } from './report.ts';

/** As the exit status tells a CI. */
const EXIT = { same: 0, diverged: 1, 'not comparable': 2 };

interface Flags {
  readonly json?: true;
  readonly html?: string;
}

export function addDiff(program: Command): void {
  program
    .command('diff')
    .description('find the first op where two traces part, and what it looks like')
    .argument('<a>', 'trace that is trusted')
    .argument('<b>', 'trace that is examined')
    .option('--json', 'print one object')
    .option('--html <file>', 'write a page with a map of all ops and layers')
    .addHelpText('after', '\nExit status: 0 same, 1 diverged, 2 not comparable, or a mistake.')
    .action(run);
}

async function run(a: string, b: string, { json, html }: Flags): Promise<void> {
  if (html !== undefined) await checkOutput('--html', html, [a, b]);
  const diff = await diffTraces(a, b);
  process.exitCode = EXIT[diff.outcome];
  const text = json ? reportJson(diff) : reportText(diff, marks, visible);
  await printReport(text, '--html', html, () => reportHtml(diff));
}
