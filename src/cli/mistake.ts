import { inspect } from 'node:util';
import { CommanderError } from 'commander';
import { visible } from '../checkpoint/problem_list.ts';
import { describe, OlmoHybridError } from '../errors.ts';
import { fail, interruptedCode } from './terminal.ts';

/** What commander's messages say, by their code; `quoted` is what they quote. */
const MISTAKES: Readonly<Record<string, (quoted: string) => { expected: string; found: string }>> = {
  'commander.unknownCommand': (quoted) => ({ expected: 'a command', found: quoted }),
  'commander.unknownOption': (quoted) => ({ expected: 'an option that it has', found: quoted }),
  'commander.optionMissingArgument': (quoted) => ({ expected: `a value for ${quoted}`, found: 'none' }),
  'commander.missingArgument': (quoted) => ({ expected: `the argument <${quoted}>`, found: 'none' }),
  'commander.missingMandatoryOptionValue': (quoted) => ({ expected: `the option ${quoted}`, found: 'none' }),
  'commander.excessArguments': () => ({ expected: 'fewer arguments, a text of several words in quotes', found: 'too many' }),
};

/**
 * Tells the user what went wrong, on stderr.
 * @param command the command line so far, for the hint to its help
 * @param debug with the stack trace
 * @returns the exit code: 1 for a user's mistake, 2 for one of this program, 0 when help was asked for; 130 when Ctrl-C ended it, 143 or 129 when
 *   another signal did
 */
export function report(error: unknown, command: string, debug: boolean): number {
  if (error instanceof CommanderError && (error.exitCode === 0 || error.code === 'commander.help')) return 0;
  if (error instanceof DOMException && error.name === 'AbortError') return interruptedCode();
  if (debug) process.stderr.write(`${inspect(error)}\n`);
  if (error instanceof OlmoHybridError) {
    for (const problem of error.problems) fail(visible(describe(problem)));
    return 1;
  }
  if (error instanceof CommanderError) {
    fail(inProjectsWords(error, command));
    return 1;
  }
  fail(`This is a bug in olmo-hybrid: ${String(error)}.${debug ? '' : ' Run it again with --debug and report what it prints.'}`);
  return 2;
}

function inProjectsWords({ code, message }: CommanderError, command: string): string {
  const [first = '', suggestion] = message.replace('error: ', '').split('\n'); // the second line: (Did you mean …?)
  const quoted = /'(.*)'/.exec(first)?.[1] ?? '';
  const { expected, found } = MISTAKES[code]?.(quoted) ?? { expected: 'another command line', found: first };
  return describe({ where: command, expected, found, fix: suggestion?.slice(1, -1) ?? `See \`${command} --help\`.` });
}
