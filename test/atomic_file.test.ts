import { mkdir, readdir, readFile, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { describe, expect, test } from 'vitest';
import { writeAtomically, writeFolderAtomically } from '../src/atomic_file.ts';
import { ArgumentError } from '../src/errors.ts';
import { temporaryFolder } from './support/models.ts';

const save = async (path: string, text: string) =>
  await writeAtomically(path, async (file) => {
    await file.writeFile(text);
    return true;
  });
const saveFolder = async (path: string) => await writeFolderAtomically(path, async (folder) => await writeFile(join(folder, 'a'), 'x'));

describe('a file', () => {
  test('is written by each of two calls that overlap', async () => {
    const dir = await temporaryFolder();
    expect(await Promise.all([save(join(dir, 'a'), 'one'), save(join(dir, 'a'), 'two')])).toEqual([true, true]);
    expect(await readFile(join(dir, 'a'), 'utf8')).toMatch(/^(one|two)$/);
    expect(await readdir(dir)).toEqual(['a']);
  });

  test('below a file is refused in our words', async () => {
    const dir = await temporaryFolder();
    await save(join(dir, 'a'), 'x');
    await expect(save(join(dir, 'a', 'b'), 'x')).rejects.toThrow(
      /expected a file that can be written, found a file in the place of a folder/,
    );
  });
});

describe('a folder', () => {
  test('is made by one of two calls that overlap', async () => {
    const dir = await temporaryFolder();
    const results = await Promise.allSettled([saveFolder(join(dir, 'a')), saveFolder(join(dir, 'a'))]);
    const refusals = results.filter((result) => result.status === 'rejected').map(({ reason }) => reason as Error);
    expect(refusals).toEqual([expect.any(ArgumentError)]);
    expect(refusals[0]!.message).toContain('found something that came there meanwhile');
    expect([await readdir(dir), await readdir(join(dir, 'a'))]).toEqual([['a'], ['a']]);
  });

  test('below a file is refused in our words', async () => {
    const dir = await temporaryFolder();
    await save(join(dir, 'a'), 'x');
    await expect(saveFolder(join(dir, 'a', 'b'))).rejects.toThrow(
      /expected a folder that can be made, found a file in the place of a folder/,
    );
  });
});

test('what a killed process of the same id left is neither in the way nor removed', async () => {
  const dir = await temporaryFolder();
  for (const name of ['file', 'folder']) await mkdir(join(dir, `${name}.${process.pid}.tmp`));
  await save(join(dir, 'file'), 'x');
  await saveFolder(join(dir, 'folder'));
  expect((await readdir(dir)).sort()).toEqual(['file', 'folder', ...['file', 'folder'].map((name) => `${name}.${process.pid}.tmp`)].sort());
});
