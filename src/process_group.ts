import type { ChildProcessByStdio } from 'node:child_process';
import type { Readable, Writable } from 'node:stream';

/** A process that is talked to through pipes. */
export type Child = ChildProcessByStdio<Writable, Readable, Readable>;

/**
 * What to start a process with so that `endGroup` reaches what it starts in its turn, such as the program that a shell runs. A group of its
 * own hears no Ctrl-C at the terminal: who starts it has to end it. Windows has no groups.
 */
export function ownGroup(): { readonly detached: boolean } {
  return { detached: process.platform !== 'win32' };
}

/** Ends a process and all of its group at once. What is left of it, whoever holds its pipes, does not keep this process. */
export function endGroup(child: Child): void {
  try {
    if (ownGroup().detached) process.kill(-child.pid!, 'SIGKILL');
    else child.kill('SIGKILL');
  } catch {
    // it has ended already
  }
  for (const pipe of [child.stdin, child.stdout, child.stderr]) pipe.destroy();
  child.unref();
}

/** Ends the group when this process ends before it does. */
export function endGroupAtExit(child: Child): void {
  const end = () => endGroup(child);
  process.once('exit', end);
  child.once('close', () => process.off('exit', end));
}
