import { execFileSync, spawnSync } from 'node:child_process';
import { chmod, lstat, mkdir, readdir, readFile, stat, symlink, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { describe, expect, test } from 'vitest';
import { checkWritable, writeAtomically, writeFolderAtomically } from '../src/atomic_file.ts';
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

describe('what is there already', () => {
  test('keeps its permissions', async () => {
    const path = join(await temporaryFolder(), 'a');
    await writeFile(path, 'x');
    for (const mode of [0o600, 0o666]) {
      await chmod(path, mode);
      await save(path, 'y');
      expect((await stat(path)).mode & 0o777).toBe(mode);
    }
  });

  test('a link stays one, and what it leads to is written', async () => {
    const dir = await temporaryFolder();
    await mkdir(join(dir, 'there'));
    await writeFile(join(dir, 'there', 'a'), 'x');
    await symlink(join('there', 'a'), join(dir, 'link'));
    await save(join(dir, 'link'), 'y');
    expect((await lstat(join(dir, 'link'))).isSymbolicLink()).toBe(true);
    expect(await readFile(join(dir, 'there', 'a'), 'utf8')).toBe('y');
    expect(await readdir(join(dir, 'there'))).toEqual(['a']);
    await symlink('nowhere', join(dir, 'lost'));
    await expect(save(join(dir, 'lost'), 'y')).rejects.toThrow('found a link that leads nowhere');
  });

  test.skipIf(process.platform === 'win32')('a pipe and a device are written into', async () => {
    const dir = await temporaryFolder();
    const fifo = join(dir, 'fifo');
    execFileSync('mkfifo', [fifo]);
    const [read] = await Promise.all([readFile(fifo, 'utf8'), save(fifo, 'through')]);
    expect(read).toBe('through');
    expect((await lstat(fifo)).isFIFO()).toBe(true);
    expect(await readdir(dir)).toEqual(['fifo']);
    await symlink('/dev/null', join(dir, 'null'));
    await save(join(dir, 'null'), 'x');
    expect((await stat(join(dir, 'null'))).isCharacterDevice()).toBe(true);
  });
});

test('a path is tried before, and nothing is left of it', async () => {
  const dir = await temporaryFolder();
  await save(join(dir, 'a'), 'x');
  for (const path of ['a', 'new']) await checkWritable(join(dir, path));
  for (const path of [dir, join(dir, 'a', 'b'), join(dir, 'no', 'b'), join(dir, 'n'.repeat(300)), join(dir, 'n'.repeat(250))])
    await expect(checkWritable(path)).rejects.toThrow(/expected a file that can be written, found (a|no|too) [a-z ]+\. Choose/);
  expect([await readdir(dir), await readFile(join(dir, 'a'), 'utf8')]).toEqual([['a'], 'x']);
});

test('who exits in the middle leaves nothing', async () => {
  const dir = await temporaryFolder();
  const from = new URL('../dist/atomic_file.js', import.meta.url).href;
  for (const call of ['writeAtomically', 'writeFolderAtomically']) {
    const code = `import { ${call} } from '${from}'; await ${call}('${join(dir, 'a')}', async () => process.exit(7));`;
    expect(spawnSync(process.execPath, ['--input-type=module', '-e', code]).status).toBe(7);
  }
  expect(await readdir(dir)).toEqual([]);
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
