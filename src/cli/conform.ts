import { mkdtemp } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { Command } from 'commander';
import { discardedAtExit } from '../atomic_file.ts';
import { parseCommand } from '../conform/command.ts';
import { conform, type LevelResult, summarized } from '../conform/conform.ts';
import { LEVELS, type LevelName } from '../conform/protocol.ts';
import { reportJunit } from '../conform/report_junit.ts';
import { reportText } from '../conform/report_text.ts';
import { startRuntime } from '../conform/runtime_process.ts';
import { integer, oneOf } from './options.ts';
import { checkOutput } from './output_file.ts';
import { marks, printReport, reportJson } from './report.ts';
import { clearLine, duration, interruptedCode, interruption, note, showLine } from './terminal.ts';

const TIMEOUT_SECONDS = 120;

interface Flags {
  readonly runtime: string;
  readonly level?: readonly LevelName[];
  readonly timeout: number;
  readonly json?: true;
  readonly junit?: string;
}

export function addConform(program: Command): void {
  const level = oneOf('--level', LEVELS);
  program
    .command('conform')
    .description('hold another runtime of this architecture against the goldens, level by level')
    .requiredOption('--runtime <command>', 'program that answers requests on stdin, or that takes {model} {tokens} {output} [{calls}]')
    .option(
      '--level <name...>',
      `levels to try: ${LEVELS.join(', ')} (default: all)`,
      (name: string, before: readonly LevelName[] | undefined) => [...(before ?? []), level(name)],
    )
    .option('--timeout <seconds>', 'longest time for one case', integer('--timeout', 1), TIMEOUT_SECONDS)
    .option('--json', 'print one object')
    .option('--junit <file>', 'write the report as JUnit XML')
    .addHelpText(
      'after',
      `
The command is split at spaces, without a shell; what holds spaces goes in quotes. docs/conformance.md says what each level asks,
and shows an adapter of 40 lines.

Exit status: 0 the runtime conforms, 1 it does not.`,
    )
    .action(run);
}

async function run({ runtime, level = LEVELS, timeout, json, junit }: Flags): Promise<void> {
  const command = parseCommand(runtime);
  if (junit !== undefined) await checkOutput('--junit', junit);
  const signal = interruption();
  const folder = await mkdtemp(join(tmpdir(), 'olmo-hybrid-conform-'));
  const discard = await discardedAtExit(folder);
  const program = startRuntime(command, folder, timeout, signal);
  const levels: LevelResult[] = [];
  try {
    for await (const result of conform(program, level, folder, { onCase: showCase, signal })) {
      levels.push(result);
      clearCase();
      note(`${result.level}: ${result.status}, ${result.cases.length} cases in ${duration(result.seconds)}`);
    }
  } finally {
    clearCase();
    await program.close();
    discard();
  }
  if (signal.aborted) {
    process.exitCode = interruptedCode();
    return;
  }
  const conformance = summarized(runtime, levels);
  const text = json ? reportJson(conformance) : reportText(conformance, marks);
  await printReport(text, '--junit', junit, () => reportJunit(conformance));
  process.exitCode = conformance.conforms ? 0 : 1;
}

/** Where a person waits: which case is running. */
function showCase(level: LevelName, done: number, total: number): void {
  if (process.stderr.isTTY) showLine(`${level} ${done + 1}/${total}`);
}

function clearCase(): void {
  if (process.stderr.isTTY) clearLine();
}
