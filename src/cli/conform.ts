import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { Command } from 'commander';
import { parseCommand } from '../conform/command.ts';
import { conform, type LevelResult, summarized } from '../conform/conform.ts';
import { LEVELS, type LevelName } from '../conform/protocol.ts';
import { reportJunit } from '../conform/report_junit.ts';
import { reportText } from '../conform/report_text.ts';
import { startRuntime } from '../conform/runtime_process.ts';
import { ArgumentError } from '../errors.ts';
import { integer, oneOf } from './options.ts';
import { duration, INTERRUPTED, interruption, note, onStdout } from './terminal.ts';

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
  const signal = interruption();
  const folder = await mkdtemp(join(tmpdir(), 'olmo-hybrid-conform-'));
  const program = startRuntime(command, folder, timeout, signal);
  const levels: LevelResult[] = [];
  try {
    for await (const result of conform(program, level, folder, { onCase: showCase, signal })) {
      levels.push(result);
      clearLine();
      note(`${result.level}: ${result.status}, ${result.cases.length} cases in ${duration(result.seconds)}`);
    }
  } finally {
    clearLine();
    await program.close();
    await rm(folder, { recursive: true, force: true });
  }
  if (signal.aborted) {
    process.exitCode = INTERRUPTED;
    return;
  }
  const conformance = summarized(runtime, levels);
  if (junit !== undefined) {
    await writeFile(junit, reportJunit(conformance)).catch((cause: NodeJS.ErrnoException) => {
      const problem = { where: junit, expected: 'a file that can be written', found: cause.message, fix: 'Choose another --junit.' };
      throw new ArgumentError(problem, { cause });
    });
  }
  const marks = { bold: onStdout.bold, dim: onStdout.dim, good: onStdout.green, bad: onStdout.red };
  process.stdout.write(json ? `${JSON.stringify(conformance, numbersOfJson, 2)}\n` : reportText(conformance, marks));
  process.exitCode = conformance.conforms ? 0 : 1;
}

/** Where a person waits: which case is running. */
function showCase(level: LevelName, done: number, total: number): void {
  clearLine();
  if (process.stderr.isTTY) process.stderr.write(`${level} ${done + 1}/${total}`);
}

function clearLine(): void {
  if (process.stderr.isTTY) process.stderr.write('\r\x1b[2K');
}

/** JSON has no infinity: as a text. */
function numbersOfJson(_key: string, value: unknown): unknown {
  return typeof value === 'number' && !Number.isFinite(value) ? String(value) : value;
}
