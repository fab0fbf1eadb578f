import { readdir, stat } from 'node:fs/promises';
import { join } from 'node:path';
import { checkWritable } from '../atomic_file.ts';
import { ArgumentError } from '../errors.ts';

/**
 * Refuses an output before the work whose result it will hold.
 * @param inputs files that are read, and folders of such; what does not exist is for others to refuse
 * @throws {ArgumentError} when it cannot be written, or is one of the inputs
 */
export async function checkOutput(option: string, path: string, inputs: readonly (string | undefined)[] = []): Promise<void> {
  await checkWritable(path);
  const output = await fileAt(path);
  if (output === null) return;
  for (const input of inputs) {
    if (input === undefined) continue;
    const names = await readdir(input).catch(() => null);
    for (const file of names?.map((name) => join(input, name)) ?? [input]) {
      const read = await fileAt(file);
      if (read?.ino !== output.ino || read.dev !== output.dev) continue;
      const fix = `Give ${option} another path: what is read would be lost.`;
      throw new ArgumentError({ where: option, expected: 'a file that is not read', found: `${path}, the same file as ${file}`, fix });
    }
  }
}

/** null: no file, or a device. */
async function fileAt(path: string): Promise<{ readonly dev: bigint; readonly ino: bigint } | null> {
  const there = await stat(path, { bigint: true }).catch(() => null);
  return there?.isFile() ? there : null;
}
