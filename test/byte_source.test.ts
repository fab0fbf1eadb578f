import { execFileSync } from 'node:child_process';
import { mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, truncateSync, writeFileSync } from 'node:fs';
import { open } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import fc from 'fast-check';
import { afterAll, beforeAll, describe, expect, test, vi } from 'vitest';
import { bytesSource, openFile } from '../src/checkpoint/byte_source.ts';
import { CheckpointError } from '../src/errors.ts';

const content = Uint8Array.from({ length: 1009 }, (_, i) => (i * 151 + (i >> 3)) & 0xff);
let dir: string;
let path: string;

beforeAll(() => {
  dir = mkdtempSync(join(tmpdir(), 'byte-source-'));
  path = join(dir, 'content.bin');
  writeFileSync(path, content);
});
afterAll(() => rmSync(dir, { recursive: true }));

/** The message of the CheckpointError that `promise` must end in. */
async function refusal(promise: Promise<unknown>): Promise<string> {
  const error = await promise.then(
    () => null,
    (reason: unknown) => reason,
  );
  expect(error).toBeInstanceOf(CheckpointError);
  return (error as CheckpointError).message;
}

const sources = [
  { kind: 'file', make: () => openFile(path) },
  { kind: 'memory', make: async () => bytesSource('memory', content) },
];

describe.each(sources)('$kind', ({ make }) => {
  test('reads any range, many at a time', async () => {
    const source = await make();
    expect(source.byteLength).toBe(content.length);
    const ranges = fc.array(fc.tuple(fc.nat(content.length), fc.nat(content.length)), { minLength: 1, maxLength: 20 });
    await fc.assert(
      fc.asyncProperty(ranges, async (pairs) => {
        const reads = pairs.map(async ([a, b]) => {
          const [begin, end] = [Math.min(a, b), Math.max(a, b)];
          const out = new Uint8Array(end - begin + 2).fill(7).subarray(1, -1); // the bytes around `out` are not ours
          await source.read(begin, out);
          expect(out).toEqual(content.slice(begin, end));
          expect([new Uint8Array(out.buffer)[0], new Uint8Array(out.buffer).at(-1)]).toEqual([7, 7]);
        });
        await Promise.all(reads);
      }),
    );
    await source.close();
  });

  test('refuses ranges that are not inside', async () => {
    const source = await make();
    const ranges = [
      [-1, 1],
      [1009, 1],
      [1000, 10],
      [0, 1010],
      [2 ** 53, 1],
      [0.5, 1],
      [Number.NaN, 1],
      [Infinity, 0],
    ] as const;
    for (const [offset, length] of ranges) {
      const out = new Uint8Array(length).fill(9);
      const message = await refusal(source.read(offset, out));
      for (const part of [source.name, `${length} bytes`, `offset ${offset}`, '1009 bytes']) expect(message).toContain(part);
      expect(out.every((byte) => byte === 9)).toBe(true);
    }
    await source.close();
  });

  test('reads into memory that threads share', async () => {
    const source = await make();
    const memory = new WebAssembly.Memory({ initial: 1, maximum: 1, shared: true });
    await source.read(9, new Uint8Array(memory.buffer, 160, 1000));
    expect(new Uint8Array(memory.buffer).slice(160, 1160)).toEqual(content.slice(9));
    await source.close();
  });

  test('may be closed twice', async () => {
    const source = await make();
    await source.close();
    await source.close();
  });
});

describe('openFile', () => {
  test('goes on after a short read', async () => {
    const source = await openFile(path);
    const handle = await open(path);
    const read = Object.getPrototypeOf(handle).read;
    const short = vi.spyOn(Object.getPrototypeOf(handle), 'read').mockImplementation(function (this: unknown, ...args: unknown[]) {
      const [out, start, length, position] = args as [Uint8Array, number, number, number];
      return read.call(this, out, start, Math.min(length, 100), position);
    });
    try {
      const out = new Uint8Array(777);
      await source.read(11, out);
      expect(out).toEqual(content.slice(11, 788));
      expect(short).toHaveBeenCalledTimes(8);
    } finally {
      short.mockRestore();
      await Promise.all([handle.close(), source.close()]);
    }
  });

  test('never asks Node for 2 GiB at once', async () => {
    const sparse = join(dir, 'large.bin');
    writeFileSync(sparse, '');
    truncateSync(sparse, 5 * 2 ** 30);
    const source = await openFile(sparse);
    const handle = await open(sparse);
    const lengths: number[] = [];
    const pretend = vi.spyOn(Object.getPrototypeOf(handle), 'read').mockImplementation(async (...args: unknown[]) => {
      lengths.push(args[2] as number);
      return { bytesRead: args[2] };
    });
    try {
      const out = { byteLength: 5 * 2 ** 30 - 3 } as Uint8Array; // stands for an array that this machine may not have the memory for
      await source.read(3, out);
      expect(Math.max(...lengths)).toBeLessThan(2 ** 31);
      expect(lengths.reduce((sum, length) => sum + length)).toBe(out.byteLength);
    } finally {
      pretend.mockRestore();
      await Promise.all([handle.close(), source.close()]);
    }
  });

  test('reads beyond 4 GiB', async () => {
    const sparse = join(dir, 'sparse.bin');
    writeFileSync(sparse, '');
    const handle = await open(sparse, 'r+');
    await handle.write(content, 0, 5, 2 ** 32 + 1);
    await handle.close();
    const source = await openFile(sparse);
    expect(source.byteLength).toBe(2 ** 32 + 6);
    const out = new Uint8Array(5);
    await source.read(2 ** 32 + 1, out);
    expect(out).toEqual(content.slice(0, 5));
    await source.close();
  });

  test('says what is wrong with a path', async () => {
    mkdirSync(join(dir, 'folder.safetensors'));
    const missing = join(dir, 'missing.safetensors');
    expect(await refusal(openFile(missing))).toBe(
      `${missing}: expected a readable file, found no such file. Check the path and its permissions.`,
    );
    expect(await refusal(openFile(join(dir, 'folder.safetensors')))).toContain('found a folder');
    expect(await refusal(openFile(join(path, 'below')))).toContain('ENOTDIR');
    expect(await refusal(openFile('a\0b'))).toContain('null bytes');
  });

  test.skipIf(process.platform === 'win32')('does not wait for the writer of a named pipe', async () => {
    const pipe = join(dir, 'pipe');
    execFileSync('mkfifo', [pipe]);
    expect(await refusal(openFile(pipe))).toContain('not a regular file');
  });

  test.skipIf(process.platform === 'win32')('says that permission is missing', async () => {
    const secret = join(dir, 'secret.bin');
    writeFileSync(secret, 'x', { mode: 0 });
    const root = process.getuid!() === 0;
    if (root) process.seteuid!(65534);
    try {
      expect(await refusal(openFile(secret))).toContain('no permission');
    } finally {
      if (root) process.seteuid!(0);
    }
  });

  test('notices that the file shrank', async () => {
    const shrinking = join(dir, 'shrinking.bin');
    writeFileSync(shrinking, content);
    const source = await openFile(shrinking);
    truncateSync(shrinking, 500);
    const message = await refusal(source.read(400, new Uint8Array(200)));
    for (const part of [shrinking, '1009 bytes', 'end of the file at byte 500']) expect(message).toContain(part);
    await source.close();
  });

  test('refuses to read once closed', async () => {
    const source = await openFile(path);
    await source.close();
    expect(await refusal(source.read(0, new Uint8Array(1)))).toContain(path);
  });
});

test('the checkpoint modules load without Node', () => {
  const folder = new URL('../src/checkpoint/', import.meta.url);
  for (const name of readdirSync(folder)) {
    const text = readFileSync(new URL(name, folder), 'utf8');
    expect(text.match(/from 'node:.*'|\bBuffer\b|\brequire\(/g), name).toBeNull();
  }
});
