import { readdirSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { describe, expect, test } from 'vitest';
import { type ByteSource, bytesSource, openFile } from '../src/checkpoint/byte_source.ts';
import { readSafetensors, readTensor } from '../src/checkpoint/safetensors.ts';
import { CheckpointError, RuntimeLimitError } from '../src/errors.ts';
import { torchFile, torchMetadata, torchTensors } from './support/safetensors_contents.ts';
import { faults, rawFile } from './support/safetensors_faults.ts';

const FILE = 'weights.safetensors';

const parse = (bytes: Uint8Array) => readSafetensors(bytesSource(FILE, bytes));

/** The CheckpointError that the bytes must end in. */
async function refusal(bytes: Uint8Array): Promise<CheckpointError> {
  const error = await parse(bytes).then(
    () => null,
    (reason: unknown) => reason,
  );
  expect(error).toBeInstanceOf(CheckpointError);
  return error as CheckpointError;
}

test('a file by PyTorch is read', async () => {
  const { metadata, tensors } = await parse(torchFile);
  expect(metadata).toEqual(torchMetadata);
  expect([...tensors.keys()]).toEqual(['i64', 'f64', 'empty', 'f32', 'имя "é" 😀', 'i32', 'bf16', 'f16', 'i16', 'i8', 'u8', 'bool']);
  for (const { name, dtype, shape, data } of torchTensors) {
    const entry = tensors.get(name)!;
    expect(entry).toMatchObject({ name, dtype, shape, byteLength: data.byteLength });
    const values = await readTensor(entry);
    if (dtype === 'BF16') expect(values).toEqual(Float32Array.of(1, -2.5, Infinity));
    else if (dtype === 'F16') expect(values).toEqual(Float32Array.of(2 ** -24, -0, 65504));
    else expect(values).toEqual(data);
  }
});

test('every file under golden/ is sound', async () => {
  const golden = fileURLToPath(new URL('../golden', import.meta.url));
  const paths = readdirSync(golden, { recursive: true, encoding: 'utf8' }).filter((path) => path.endsWith('.safetensors'));
  expect(paths.length).toBeGreaterThan(0);
  for (const path of paths) {
    const source = await openFile(`${golden}/${path}`);
    try {
      for (const entry of (await readSafetensors(source)).tensors.values()) {
        const elements = entry.shape.reduce((product, dimension) => product * dimension, 1);
        expect((await readTensor(entry)).length, `${path} ${entry.name}`).toBe(elements);
      }
    } finally {
      await source.close();
    }
  }
});

describe('what the format allows', () => {
  test.each([
    ['no tensors', rawFile('{}'), []],
    ['metadata alone', rawFile('{"__metadata__":{}}'), []],
    ['no padding', rawFile('{"w":{"dtype":"U8","shape":[3],"data_offsets":[0,3]}}', 3), ['w']],
    ['white space everywhere', rawFile('{\n\t"w" : {"shape":[ 3 ,1],\r\n"data_offsets":[ 0, 3] , "dtype" :"U8"}\n } \n', 3), ['w']],
    ['an escaped name', rawFile('{"\\u00e9\\ud83d\\ude00\\n\\/":{"dtype":"U8","shape":[],"data_offsets":[0,1]}}', 1), ['é😀\n/']],
    ['a name that begins with a byte order mark', rawFile('{"\ufeffw":{"dtype":"U8","shape":[0],"data_offsets":[0,0]}}'), ['\ufeffw']],
    ['an empty name', rawFile('{"":{"dtype":"U8","shape":[],"data_offsets":[0,1]}}', 1), ['']],
    [
      'empty tensors between others, in any order',
      rawFile(
        '{"b":{"dtype":"U8","shape":[2],"data_offsets":[1,3]},"none":{"dtype":"F64","shape":[0,5],"data_offsets":[1,1]},' +
          '"a":{"dtype":"U8","shape":[],"data_offsets":[0,1]}}',
        3,
      ),
      ['a', 'none', 'b'],
    ],
    [
      'names that every object has',
      rawFile(
        '{"__proto__":{"dtype":"U8","shape":[],"data_offsets":[0,1]},"constructor":{"dtype":"U8","shape":[],"data_offsets":[1,2]},' +
          '"__metadata__":{"__proto__":"x","toString":"y"}}',
        2,
      ),
      ['__proto__', 'constructor'],
    ],
    ['two 6-bit numbers in each 3 bytes', rawFile('{"w":{"dtype":"F6_E2M3","shape":[8],"data_offsets":[0,6]}}', 6), ['w']],
  ])('%s', async (_, bytes, names) => {
    const { tensors, metadata } = await parse(bytes);
    expect([...tensors.keys()]).toEqual(names);
    for (const [name, entry] of tensors) expect(entry.name).toBe(name);
    if (names[0] === '__proto__')
      expect([...metadata]).toEqual([
        ['__proto__', 'x'],
        ['toString', 'y'],
      ]);
  });
});

describe('damaged files', () => {
  test.each(faults)('$fault', async ({ bytes, says }) => {
    const { message } = await refusal(bytes);
    for (const part of [FILE, ...says]) expect(message).toContain(part);
    expect(message.length).toBeLessThan(2000);
    const times: number[] = []; // the best of five, because other processes may take the machine
    for (let run = 0; run < 5; run++) {
      const start = performance.now();
      await refusal(bytes);
      times.push(performance.now() - start);
    }
    expect(Math.min(...times)).toBeLessThan(50);
  });

  test('names each fault once', async () => {
    expect(new Set(faults.map(({ fault }) => fault)).size).toBe(faults.length);
    const several = faults.filter(({ fault }) => !fault.includes('place of a tensor'));
    for (const { fault, bytes } of several) expect((await refusal(bytes)).problems, fault).toHaveLength(1);
  });

  test('cut at every byte, and with a byte too many', async () => {
    for (let length = 0; length < torchFile.length; length++) await refusal(torchFile.subarray(0, length));
    await refusal(Uint8Array.of(...torchFile, 0));
  });

  test('a cut file names the first tensor that is incomplete', async () => {
    const { problems } = await refusal(torchFile.subarray(0, torchFile.length - 30));
    expect(problems).toHaveLength(1);
    expect(problems[0]).toMatchObject({ where: `${FILE}: "имя \\"é\\" 😀"`, expected: 'data up to byte 812' });
  });

  test('all problems at once', async () => {
    const header =
      '{"a":{"dtype":"F3","shape":[2],"data_offsets":[0,8]},"b":{"dtype":"F32","shape":[-1],"data_offsets":[8,1e1]},' +
      '"c":{"dtype":"F32","shape":[2]},"a":{},"__metadata__":{"k":1},"d":[],"e":{"dtype":"F32","shape":[2],"data_offsets":[0,9]}}';
    const { problems } = await refusal(rawFile(header));
    expect(problems.map(({ found }) => found)).toEqual([
      '"F3"',
      '-1',
      '1e1',
      'no data_offsets',
      'it again',
      '1',
      '[]',
      'data_offsets [0, 9]',
    ]);
  });

  test('100,000 problems: the first twenty in full', async () => {
    const entries = Array.from({ length: 100_000 }, (_, i) => `"layers.${i}":{"dtype":"F32","shape":[1.5],"data_offsets":[0,4]}`);
    const { problems, message } = await refusal(rawFile(`{${entries.join(',')}}`));
    expect(problems).toHaveLength(21);
    expect(problems[20]!.found).toBe('980 more, where the check ended');
    expect(message.length).toBeLessThan(5000);
  });

  test('messages stay short and plain, whatever a file calls its tensors', async () => {
    const name = `\\u001b[31m\\u009b31m\\u202e${'x'.repeat(100_000)}`;
    const { message } = await refusal(rawFile(`{"${name}":{"dtype":"${'y'.repeat(100_000)}","shape":[],"data_offsets":[0,1]}}`, 1));
    expect(message).not.toMatch(/\p{C}/u);
    expect(message.length).toBeLessThan(1000);
  });
});

/** A source that holds no bytes but those of the file's beginning, and records what is read. */
function recorded(bytes: Uint8Array, byteLength = bytes.length) {
  const reads: [offset: number, length: number][] = [];
  const source: ByteSource = {
    name: FILE,
    byteLength,
    async read(offset, out) {
      reads.push([offset, out.length]);
      out.set(bytes.subarray(offset, offset + out.length));
    },
    async close() {},
  };
  return { source, reads };
}

describe('what is read', () => {
  test('the header and nothing else', async () => {
    const { source, reads } = recorded(torchFile);
    await readSafetensors(source);
    expect(reads).toEqual([
      [0, 8],
      [8, 776],
    ]);
  });

  test.each([100_000_001n, 2n ** 40n, 2n ** 63n])('not a header of %d bytes, however large the file', async (length) => {
    const { source, reads } = recorded(rawFile('{}', 0, length), 2 ** 50);
    await expect(readSafetensors(source)).rejects.toBeInstanceOf(CheckpointError);
    expect(reads).toEqual([[0, 8]]);
  });

  test('a tensor, from where it lies', async () => {
    const { source, reads } = recorded(torchFile);
    const { tensors } = await readSafetensors(source);
    await readTensor(tensors.get('i32')!);
    expect(reads.at(-1)).toEqual([784 + 28, 8]);
  });

  test('files beyond 4 GiB', async () => {
    const end = 2 ** 40;
    const header = `{"big":{"dtype":"BF16","shape":[${end / 2}],"data_offsets":[0,${end}]},"last":{"dtype":"U8","shape":[],"data_offsets":[${end},${end + 1}]}}`;
    const bytes = rawFile(header);
    const { source, reads } = recorded(bytes, bytes.length + end + 1);
    const { tensors } = await readSafetensors(source);
    await readTensor(tensors.get('last')!);
    expect(reads.at(-1)).toEqual([bytes.length + end, 1]);
    await expect(readTensor(tensors.get('big')!)).rejects.toBeInstanceOf(RuntimeLimitError);
  });

  test('no tensor of a dtype without an array', async () => {
    const { tensors } = await parse(rawFile('{"w":{"dtype":"F8_E4M3","shape":[2],"data_offsets":[0,2]}}', 2));
    const reading = readTensor(tensors.get('w')!);
    await expect(reading).rejects.toBeInstanceOf(CheckpointError);
    await expect(reading).rejects.toThrow(`${FILE}: "w": expected one of the dtypes F64, F32`);
  });
});

describe('time is linear in the header', () => {
  const header = (tensors: number) =>
    `{${Array.from({ length: tensors }, (_, i) => `"model.layers.${i}.mlp.up_proj.weight":{"dtype":"BF16","shape":[1,2],"data_offsets":[${4 * i},${4 * i + 4}]}`).join(',')}}`;

  test.each([
    ['100,000 tensors', rawFile(header(100_000), 400_000)],
    ['a shape of a million ones', rawFile(`{"w":{"dtype":"U8","shape":[${'1,'.repeat(999_999)}1],"data_offsets":[0,1]}}`, 1)],
    ['a name of ten megabytes', rawFile(`{"${'x'.repeat(1e7)}":{"dtype":"U8","shape":[],"data_offsets":[0,1]}}`, 1)],
    ['ten megabytes of metadata', rawFile(`{"__metadata__":{"é":"${'\\n'.repeat(5e6)}"}}`)],
    ['ten megabytes of padding', rawFile(`{}${' '.repeat(1e7)}`)],
  ])('%s', async (_, bytes) => {
    const before = process.cpuUsage(); // not the time of day, because other processes may take the machine
    await parse(bytes);
    expect(process.cpuUsage(before).user / 1000).toBeLessThan(2000);
  });
});
