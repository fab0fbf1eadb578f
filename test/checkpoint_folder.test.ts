import { mkdirSync, mkdtempSync, readdirSync, readlinkSync, rmSync, symlinkSync, truncateSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { openCheckpointFolder } from '../src/checkpoint/checkpoint_folder.ts';
import { readTensor } from '../src/checkpoint/safetensors.ts';
import { writeSafetensors } from '../src/checkpoint/safetensors_writer.ts';
import { CheckpointError } from '../src/errors.ts';

const INDEX = 'model.safetensors.index.json';
const A = 'model-00001-of-00002.safetensors';
const B = 'model-00002-of-00002.safetensors';
let dir: string;

beforeEach(() => {
  dir = mkdtempSync(join(tmpdir(), 'checkpoint-'));
});
afterEach(() => {
  expect(openFiles()).toEqual([]);
  rmSync(dir, { recursive: true });
});

/** The files of the folder that this process holds open. */
function openFiles(): string[] {
  if (process.platform !== 'linux') return [];
  return readdirSync('/proc/self/fd').flatMap((fd) => {
    try {
      const target = readlinkSync(`/proc/self/fd/${fd}`);
      return target.startsWith(dir) ? [target] : [];
    } catch {
      return []; // the descriptor of this very listing
    }
  });
}

function write(file: string, text: string | object): void {
  writeFileSync(join(dir, file), typeof text === 'string' ? text : JSON.stringify(text));
}

/** Writes a shard in which tensor i is the F32 scalar `first + i`. */
function writeShard(file: string, names: readonly string[], first = 0): void {
  const tensors = names.map((name, i) => ({ name, dtype: 'F32' as const, shape: [], data: Float32Array.of(first + i) }));
  writeFileSync(join(dir, file), Buffer.concat(writeSafetensors(tensors, new Map([['format', 'pt']]))));
}

async function refusal(folder = dir): Promise<CheckpointError> {
  const error = await openCheckpointFolder(folder).then(
    () => null,
    (reason: unknown) => reason,
  );
  expect(error).toBeInstanceOf(CheckpointError);
  expect(openFiles()).toEqual([]);
  return error as CheckpointError;
}

/** Two shards, a and b in the first and c in the second; `weightMap` replaces the sound index. */
function shards(weightMap: Record<string, unknown> = { a: A, b: A, c: B }, first = ['a', 'b'], second = ['c']): void {
  writeShard(A, first);
  writeShard(B, second, 10);
  write(INDEX, { metadata: { total_size: 12 }, weight_map: weightMap });
}

describe('sound folders', () => {
  test('a single file', async () => {
    writeShard('model.safetensors', ['a', 'b']);
    const { tensors, files, close } = await openCheckpointFolder(dir);
    expect([...tensors.keys()]).toEqual(['a', 'b']);
    expect(await readTensor(tensors.get('b')!)).toEqual(Float32Array.of(1));
    expect([...files].map(([name, file]) => [name, file.metadata.get('format')])).toEqual([['model.safetensors', 'pt']]);
    if (process.platform === 'linux') expect(openFiles()).toEqual([join(dir, 'model.safetensors')]);
    await close();
  });

  test('shards', async () => {
    shards();
    const { tensors, files, close } = await openCheckpointFolder(`${dir}/`);
    expect([...tensors.keys()]).toEqual(['a', 'b', 'c']);
    expect(await Promise.all([...tensors.values()].map(readTensor))).toEqual([0, 1, 10].map((value) => Float32Array.of(value)));
    expect([...files].map(([name, { source }]) => [name, source.name])).toEqual([
      [A, join(dir, A)],
      [B, join(dir, B)],
    ]);
    await close();
  });

  test('the single file wins over the index', async () => {
    shards();
    writeShard('model.safetensors', ['only'], 5);
    const { tensors, close } = await openCheckpointFolder(dir);
    expect([...tensors.keys()]).toEqual(['only']);
    await close();
  });

  test('links, as in a download cache, and an index in any key order with more in it', async () => {
    mkdirSync(join(dir, 'blobs'));
    writeShard('blobs/0123abcd', ['a']);
    symlinkSync(join('blobs', '0123abcd'), join(dir, A));
    write(INDEX, `\n{"weight_map": {"a": "${A}"}, "metadata": {"total_size": 4.0, "nested": [{"weight_map": null}]}, "more": true}\n`);
    const { tensors, close } = await openCheckpointFolder(dir);
    expect([...tensors.keys()]).toEqual(['a']);
    await close();
  });

  test('tensors named like what every object has', async () => {
    writeShard(A, ['__proto__', 'constructor', 'toString']);
    write(INDEX, `{"weight_map":{"__proto__":"${A}","constructor":"${A}","toString":"${A}"}}`);
    const { tensors, close } = await openCheckpointFolder(dir);
    expect([...tensors.keys()].sort()).toEqual(['__proto__', 'constructor', 'toString']);
    await close();
  });
});

describe('folders without weights', () => {
  test('no folder', async () => {
    const missing = join(dir, 'missing');
    expect((await refusal(missing)).message).toBe(
      `${missing}: expected a checkpoint folder, found nothing there. Give the folder that holds model.safetensors, or a model of the Hub as org/name.`,
    );
  });

  test('a file instead of a folder', async () => {
    writeShard('model.safetensors', ['a']);
    expect((await refusal(join(dir, 'model.safetensors'))).message).toContain('expected a checkpoint folder, found a file');
  });

  test('an empty folder', async () => {
    const { message } = await refusal();
    for (const part of [dir, 'model.safetensors or model.safetensors.index.json', 'an empty folder']) expect(message).toContain(part);
  });

  test('weights in another format', async () => {
    write('pytorch_model.bin', 'x');
    write('config.json', '{}');
    const { message } = await refusal();
    for (const part of ['model.safetensors or model.safetensors.index.json', 'config.json', 'pytorch_model.bin'])
      expect(message).toContain(part);
  });

  test('model.safetensors leads nowhere', async () => {
    shards();
    symlinkSync('gone', join(dir, 'model.safetensors'));
    expect((await refusal()).message).toContain('model.safetensors: expected a readable file, found no such file');
  });

  test('model.safetensors is damaged', async () => {
    write('model.safetensors', 'not a checkpoint at all');
    expect((await refusal()).message).toContain(join(dir, 'model.safetensors'));
  });
});

describe('the text of the index', () => {
  test.each([
    ['empty', '', 'JSON at byte 0'],
    ['not JSON', '{"weight_map":', 'JSON at byte 14'],
    ['not UTF-8', Buffer.from([0x7b, 0x22, 0xff, 0x22, 0x3a, 0x30, 0x7d]).toString('latin1'), 'JSON'],
    ['an array', '[]', 'expected an object'],
    ['no weight_map', '{"metadata":{}}', 'a weight_map that names tensors'],
    ['empty weight_map', '{"weight_map":{}}', 'a weight_map that names tensors'],
    ['weight_map is an array', `{"weight_map":["${A}"]}`, '"weight_map" at byte 14'],
    ['weight_map twice', `{"weight_map":{"a":"${A}"},"weight_map":{"a":"${A}"}}`, 'the key "weight_map" once'],
    ['tensor twice', `{"weight_map":{"a":"${A}","a":"${B}"}}`, 'the key "a" once'],
    ['shard is a number', '{"weight_map":{"a":1}}', '"a" at byte 19'],
    ['text after the end', `{"weight_map":{"a":"${A}"}} {}`, 'nothing after'],
    ['10,000 brackets', `{"metadata":${'['.repeat(10_000)}`, 'levels of nesting'],
  ])('%s', async (fault, text, says) => {
    writeShard(A, ['a']);
    writeFileSync(join(dir, INDEX), text, fault === 'not UTF-8' ? 'latin1' : 'utf8');
    const { message } = await refusal();
    expect(message).toContain(join(dir, INDEX));
    expect(message).toContain(says);
  });

  test('larger than any index', async () => {
    write(INDEX, '{}');
    truncateSync(join(dir, INDEX), 100_000_001);
    expect((await refusal()).message).toContain('an index of at most 100000000 bytes');
  });

  test('cut at every byte', async () => {
    shards();
    const text = JSON.stringify({ metadata: { total_size: 12 }, weight_map: { a: A, b: A, c: B } });
    for (let length = 0; length < text.length; length++) {
      write(INDEX, text.slice(0, length));
      await refusal();
    }
  });
});

describe('shard names', () => {
  test.each([
    '../x.safetensors',
    '..\\x.safetensors',
    '/etc/x.safetensors',
    'C:\\x.safetensors',
    'C:x.safetensors',
    'folder/x.safetensors',
    './x.safetensors',
    '',
    '.',
    '..',
    '.safetensors',
    'x.bin',
    'x.safetensors.bin',
    'x.SAFETENSORS',
    'x\0.safetensors',
    'x\n.safetensors',
    'x\u202e.safetensors',
  ])('%j is refused without opening it', async (name) => {
    mkdirSync(join(dir, 'inner', 'folder'), { recursive: true });
    const inner = join(dir, 'inner');
    for (const place of ['x.safetensors', 'inner/x.safetensors', 'inner/folder/x.safetensors']) writeShard(place, ['a']);
    writeFileSync(join(inner, INDEX), JSON.stringify({ weight_map: { a: name } }));
    const { message, problems } = await refusal(inner);
    expect(problems).toHaveLength(1);
    expect(message).toContain('the name of a .safetensors file in the same folder');
    expect(message).toContain(join(inner, INDEX));
    expect(message).not.toMatch(/[\0\n\u202e]/);
  });
});

describe('index and shards that disagree', () => {
  test('missing shard: one problem, not one for each of its tensors', async () => {
    shards();
    rmSync(join(dir, B));
    const { problems, message } = await refusal();
    expect(problems).toHaveLength(1);
    expect(message).toContain(`${join(dir, B)}: expected a readable file, found no such file`);
  });

  test('tensor in the other shard', async () => {
    shards({ a: A, b: B, c: B });
    const { problems, message } = await refusal();
    expect(problems).toHaveLength(1);
    expect(message).toContain(`${join(dir, INDEX)}: "b": expected this tensor in "${B}" and no other shard, found it in "${A}"`);
  });

  test('tensor in no shard', async () => {
    shards({ a: A, b: A, c: B, d: B });
    const { problems, message } = await refusal();
    expect(problems).toHaveLength(1);
    expect(message).toContain(`"d": expected this tensor in "${B}" and no other shard, found it in none`);
  });

  test('tensor that the index does not name', async () => {
    shards({ a: A, c: B });
    const { problems, message } = await refusal();
    expect(problems).toHaveLength(1);
    expect(message).toContain(`"b": expected this tensor in no shard, for the index does not name it, found it in "${A}"`);
  });

  test('tensor in two shards', async () => {
    shards({ a: A, b: A, c: B }, ['a', 'b'], ['b', 'c']);
    const { problems, message } = await refusal();
    expect(problems).toHaveLength(1);
    expect(message).toContain(`"b": expected this tensor in "${A}" and no other shard, found it in "${A}" and "${B}"`);
  });

  test('everything at once', async () => {
    shards({ a: B, gone: A, c: B, lost: 'missing.safetensors', out: '../x.safetensors', broken: 'broken.safetensors' });
    write('broken.safetensors', 'tiny');
    const { problems, message } = await refusal();
    const parts = ['"a":', '"gone":', '"b":', 'missing.safetensors', '"../x.safetensors"', 'broken.safetensors at byte 0'];
    for (const part of parts) expect(message).toContain(part);
    expect(problems).toHaveLength(parts.length);
  });

  test('5,000 missing tensors: the first twenty in full', async () => {
    shards(Object.fromEntries(Array.from({ length: 5000 }, (_, i) => [`layers.${i}`, A])), ['a'], []);
    const { problems, message } = await refusal();
    expect(problems).toHaveLength(21);
    expect(problems.at(-1)!.found).toBe('980 more, where the check ended');
    expect(message).toContain('"layers.0"');
  });
});
