import { writeFile } from 'node:fs/promises';
import type { Marks } from '../diff/report_text.ts';
import { ArgumentError } from '../errors.ts';
import { onStdout } from './terminal.ts';

/** How a report on stdout is marked up. */
export const marks: Marks = { bold: onStdout.bold, dim: onStdout.dim, good: onStdout.green, bad: onStdout.red };

/** A report as one object. JSON has no infinity: as a text. */
export function reportJson(report: object): string {
  const finite = (_key: string, value: unknown) => (typeof value === 'number' && !Number.isFinite(value) ? String(value) : value);
  return `${JSON.stringify(report, finite, 2)}\n`;
}

/**
 * Prints a report, and then writes it as another to the file that an option names, if one is wanted: each is there although the other cannot be had.
 * @throws {ArgumentError} when it cannot be written
 */
export async function printReport(text: string, flag: string, path: string | undefined, report: () => string): Promise<void> {
  if (path !== undefined) process.stdout.on('error', () => {}); // where nobody reads it, the program does not end yet
  process.stdout.write(text);
  if (path === undefined) return;
  try {
    await writeFile(path, report());
  } catch (cause) {
    const found = (cause as Error).message;
    throw new ArgumentError({ where: path, expected: 'a file that can be written', found, fix: `Choose another ${flag}.` }, { cause });
  }
}
