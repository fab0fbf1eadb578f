import fc from 'fast-check';
import { expect, test } from 'vitest';
import { bytesSource } from '../src/checkpoint/byte_source.ts';
import { DTYPES, type Dtype } from '../src/checkpoint/dtype.ts';
import { readSafetensors, type SafetensorsFile } from '../src/checkpoint/safetensors.ts';
import { writeSafetensors } from '../src/checkpoint/safetensors_writer.ts';
import { CheckpointError } from '../src/errors.ts';
import { BITS, contents } from './support/safetensors_contents.ts';

const FILE = 'weights.safetensors';

const isCount = (value: unknown): value is number => Number.isSafeInteger(value) && (value as number) >= 0;
const isRecord = (value: unknown): value is Record<string, unknown> => typeof value === 'object' && value !== null && !Array.isArray(value);

/** The rules once more, on top of JSON.parse: the tensors of a file as `dtype shape begin`, or null when a rule is broken that JSON.parse can see. */
function naively(bytes: Uint8Array): Map<string, string> | null {
  if (bytes.length < 8) return null;
  const length = Number(Buffer.from(bytes).readBigUInt64LE(0));
  if (8 + length > bytes.length || bytes[8] !== 0x7b) return null;
  let header: unknown;
  try {
    header = JSON.parse(new TextDecoder('utf-8', { fatal: true, ignoreBOM: true }).decode(bytes.subarray(8, 8 + length)));
  } catch {
    return null;
  }
  if (!isRecord(header)) return null;
  const seen = new Map<string, string>();
  const ranges: [number, number][] = [];
  for (const [name, value] of Object.entries(header)) {
    if (!isRecord(value)) return null;
    if (name === '__metadata__') {
      if (!Object.values(value).every((text) => typeof text === 'string')) return null;
      continue;
    }
    const { dtype, shape, data_offsets, ...rest } = value;
    if (Object.keys(rest).length > 0 || !DTYPES.includes(dtype as Dtype) || !Array.isArray(shape) || !Array.isArray(data_offsets))
      return null;
    if (![...shape, ...data_offsets].every(isCount) || data_offsets.length !== 2) return null;
    const bits = BITS[dtype as string] ?? Number(/^F(\d)/.exec(dtype as string)![1]);
    const [begin, end] = data_offsets as [number, number];
    if (shape.reduce((product: number, dimension: number) => product * dimension, bits) !== 8 * (end - begin)) return null;
    ranges.push([begin, end]);
    seen.set(name, `${dtype} ${shape} ${begin}`);
  }
  ranges.sort(([a, b], [c, d]) => a - c || b - d);
  const chain = [...ranges.flat(), bytes.length - 8 - length];
  return [0, ...chain].every((value, i) => i % 2 === 1 || value === chain[i]) ? seen : null;
}

/** Whether a header says everything in one way only: no key twice, no odd spelling of a number, no half of a surrogate pair. */
function isPlain(bytes: Uint8Array): boolean {
  const text = Buffer.from(bytes.subarray(8, 8 + Number(Buffer.from(bytes).readBigUInt64LE(0))))
    .toString()
    .trimEnd();
  return JSON.stringify(JSON.parse(text)) === text && !/\\ud/i.test(text);
}

const validFile = contents.map(({ tensors, metadata }) => new Uint8Array(Buffer.concat(writeSafetensors(tensors, metadata))));

const fragments = [
  ...' \n019-"\\,:[]{}\0é',
  ...'.5 e1 \\u0041 \\ud800 null true 18446744073709551616'.split(' '),
  ...'"x":0, "dtype":"F32", "shape":[], "__metadata__":{}, "w":{"dtype":"U8","shape":[0],"data_offsets":[0,0]},'.split(' '),
];

/** One change to a file: bytes anywhere, or the text of the header with its length mended, which reaches deeper. */
const change = fc.oneof(
  fc.record({ kind: fc.constant('flip' as const), at: fc.nat(), bit: fc.nat(7) }),
  fc.record({ kind: fc.constant('splice' as const), at: fc.nat(), remove: fc.nat(9), insert: fc.uint8Array({ maxLength: 9 }) }),
  fc.record({
    kind: fc.constant('header' as const),
    at: fc.nat(),
    remove: fc.nat(3),
    insert: fc.constantFrom('', ...fragments),
  }),
  fc.record({ kind: fc.constant('digit' as const), at: fc.nat(), digit: fc.nat(9) }),
);
type Change = typeof change extends fc.Arbitrary<infer T> ? T : never;

function changed(bytes: Uint8Array, edit: Change): Uint8Array {
  const headerEnd = Math.min(8 + Number(Buffer.from(bytes).readBigUInt64LE(0)), bytes.length);
  const header = Buffer.from(bytes.subarray(8, headerEnd));
  const withHeader = (text: Uint8Array) => {
    const length = Buffer.alloc(8);
    length.writeBigUInt64LE(BigInt(text.length));
    return Uint8Array.of(...length, ...text, ...bytes.subarray(headerEnd));
  };
  const out = bytes.slice();
  switch (edit.kind) {
    case 'flip':
      out[edit.at % out.length]! ^= 1 << edit.bit;
      return out;
    case 'splice': {
      const at = 8 + (edit.at % (bytes.length - 7));
      return Uint8Array.of(...bytes.subarray(0, at), ...edit.insert, ...bytes.subarray(at + edit.remove));
    }
    case 'header': {
      const at = edit.at % (header.length + 1);
      return withHeader(Buffer.concat([header.subarray(0, at), Buffer.from(edit.insert), header.subarray(at + edit.remove)]));
    }
    case 'digit': {
      const digits = [...header.keys()].filter((i) => header[i]! >= 0x30 && header[i]! <= 0x39);
      if (digits.length > 0) header[digits[edit.at % digits.length]!] = 0x30 + edit.digit;
      return withHeader(header);
    }
  }
}

test('a changed file is either sound by the rules told twice, or refused with a CheckpointError', async () => {
  const outcomes = { sound: 0, refused: 0 };
  await fc.assert(
    fc.asyncProperty(validFile, fc.array(change, { minLength: 1, maxLength: 3 }), async (valid, edits) => {
      const bytes = edits.reduce(changed, valid);
      const expected = naively(bytes);
      let file: SafetensorsFile;
      try {
        file = await readSafetensors(bytesSource(FILE, bytes));
      } catch (error) {
        expect(error).toBeInstanceOf(CheckpointError);
        expect((error as Error).message).toContain(FILE);
        // JSON.parse does not see duplicate keys and odd spellings; where there are none, both must have refused.
        if (expected !== null) expect(isPlain(bytes)).toBe(false);
        outcomes.refused++;
        return;
      }
      const dataStart = 8 + Number(Buffer.from(bytes).readBigUInt64LE(0));
      const found = [...file.tensors.values()].map(({ name, dtype, shape, offset }) => [name, `${dtype} ${shape} ${offset - dataStart}`]);
      expect(found.sort()).toEqual([...expected!].sort());
      outcomes.sound++;
    }),
    { numRuns: 3000 },
  );
  expect(outcomes.sound).toBeGreaterThan(100);
  expect(outcomes.refused).toBeGreaterThan(100);
});
