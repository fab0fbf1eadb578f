import type { Command } from 'commander';
import { visible } from '../checkpoint/problem_list.ts';
import { diffTraces } from '../diff/compare.ts';
import { reportHtml } from '../diff/report_html.ts';
import { reportText } from '../diff/report_text.ts';
import { OlmoHybridError } from '../errors.ts';
import { report } from './mistake.ts';
import { marks, reportJson, writeReport } from './report.ts';

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
    .addHelpText('after', '\nExit status: 0 same, 1 diverged, 2 not comparable.')
    .action(async (a: string, b: string, flags: Flags) => {
      try {
        await run(a, b, flags);
      } catch (error) {
        if (!(error instanceof OlmoHybridError)) throw error;
        report(error, 'olmo-hybrid diff', false);
        process.exitCode = EXIT['not comparable'];
      }
    });
}

async function run(a: string, b: string, { json, html }: Flags): Promise<void> {
  const diff = await diffTraces(a, b);
  if (html !== undefined) await writeReport('--html', html, reportHtml(diff));
  process.stdout.write(json ? reportJson(diff) : reportText(diff, marks, visible));
  process.exitCode = EXIT[diff.outcome];
}
