import { execFileSync } from 'node:child_process';
import { existsSync, readdirSync, readFileSync } from 'node:fs';
import { mkdir, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { setTimeout as pause } from 'node:timers/promises';
import { describe, expect, test } from 'vitest';
import { ended, fileOf, sharedFolder, start } from './support/command_line.ts';
import { repository } from './support/models.ts';

const folder = await sharedFolder();
const LONG = { timeout: 60_000 };

async function until(condition: () => boolean): Promise<void> {
  while (!condition()) await pause(5);
}

describe.skipIf(process.platform === 'win32')('one Ctrl-C ends', () => {
  test('what waits for stdin', LONG, async () => {
    const child = start({}, 'generate', '-');
    // It reads more than a pipe holds once it has come so far.
    await new Promise((resolve) => child.stdin!.write('word '.repeat(100_000), resolve));
    child.stdin!.on('error', () => {});
    child.kill('SIGINT');
    await ended(child);
    expect(child.signalCode).toBe('SIGINT');
  });

  test('what waits for a file, and what works on a long text', LONG, async () => {
    const waiting = join(folder, 'waiting');
    execFileSync('mkfifo', [waiting]);
    const child = start({}, 'tokenize', '--input', waiting);
    // Opened once it is read.
    await writeFile(waiting, JSON.stringify([Array.from({ length: 2e6 }, (_, i) => i.toString(36)).join(' ')]));
    const begin = performance.now();
    await pause(500);
    child.kill('SIGINT');
    await ended(child);
    expect(child.signalCode).toBe('SIGINT');
    expect(performance.now() - begin).toBeLessThan(10_000);
  });
});

describe.each([
  ['SIGTERM', 143],
  ['SIGHUP', 129],
] as const)('%s ends in good order', (signal, status) => {
  test('what writes a file', LONG, async () => {
    const dir = join(folder, signal);
    await mkdir(dir);
    const tokens = await fileOf(folder, 'many.json', new Array(2000).fill(5));
    const child = start({}, 'logits', '--tokens', tokens, '--output', join(dir, 'out'), '--kernels', 'reference', '--prefill-chunk', '8');
    await until(() => readdirSync(dir).some((name) => name.endsWith('.tmp')));
    child.kill(signal);
    child.kill(signal); // as when a terminal is closed
    const { code, stderr } = await ended(child);
    expect([code, stderr, readdirSync(dir)]).toEqual([status, '', []]);
  });

  test('conform, with the runtime', LONG, async () => {
    const dir = join(folder, `conform.${signal}`);
    await mkdir(dir);
    const pid = join(folder, `pid.${signal}`);
    const silent = `require('fs').writeFileSync('${pid}', String(process.pid)); setInterval(() => {}, 1000)`;
    const runtime = `'${process.execPath}' -e "${silent}"`;
    const child = start({ env: { TMPDIR: dir } }, 'conform', '--runtime', runtime, '--level', 'sampler');
    await until(() => existsSync(pid) && readFileSync(pid, 'utf8') !== '');
    child.kill(signal);
    expect((await ended(child)).code).toBe(status);
    expect(readdirSync(dir)).toEqual([]);
    expect(() => process.kill(Number(readFileSync(pid, 'utf8')), 0)).toThrow('ESRCH');
  });
});

test('without a reader of stderr the work goes on', LONG, async () => {
  const runtime = `'${process.execPath}' '${repository('test/conform/runtime.mjs')}'`;
  const child = start({}, 'conform', '--runtime', runtime, '--level', 'template', 'sampler');
  child.stderr!.destroy();
  const { code, stdout } = await ended(child);
  expect(stdout).toMatch(/^template .*\nsampler .*passed/m);
  expect(code).toBe(0);
});
