import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { bytesSource } from '../src/checkpoint/byte_source.ts';
import { readSafetensors, readTensor } from '../src/checkpoint/safetensors.ts';
import { type TensorData, writeSafetensors } from '../src/checkpoint/safetensors_writer.ts';
import { ArgumentError } from '../src/errors.ts';
import { BITS, contents, torchFile, torchMetadata, torchTensors } from './support/safetensors_contents.ts';

const parse = (bytes: Uint8Array) => readSafetensors(bytesSource('written.safetensors', bytes));

describe('writeSafetensors', () => {
  test('writes what PyTorch writes, byte for byte', () => {
    const chunks = writeSafetensors(torchTensors, torchMetadata);
    expect(Buffer.concat(chunks).equals(torchFile)).toBe(true);
    expect(chunks[1]!.buffer).toBe(torchTensors[4]!.data.buffer); // not a copy
  });

  test('what is written is read back', async () => {
    await fc.assert(
      fc.asyncProperty(contents, async ({ tensors, metadata }) => {
        const bytes = new Uint8Array(Buffer.concat(writeSafetensors(tensors, metadata)));
        const file = await parse(bytes);
        expect([...file.metadata].sort()).toEqual([...metadata].sort());
        expect(file.tensors.size).toBe(tensors.length);
        for (const { name, dtype, shape, data } of tensors) {
          const { offset, byteLength, ...entry } = file.tensors.get(name)!;
          expect(entry).toMatchObject({ name, dtype, shape });
          expect(bytes.slice(offset, offset + byteLength)).toEqual(data);
          const bits = BITS[dtype];
          if (bits !== undefined) expect(offset % (bits / 8)).toBe(0);
        }
      }),
      { numRuns: 300 },
    );
  });

  test('takes views into larger buffers, in any order', async () => {
    const memory = Float32Array.of(9, 1, 2, 3, 9);
    const bytes = Buffer.concat(
      writeSafetensors([
        { name: 'b', dtype: 'U8', shape: [1], data: Uint8Array.of(5) },
        { name: 'a', dtype: 'F32', shape: [3], data: memory.subarray(1, 4) },
      ]),
    );
    const { tensors } = await parse(bytes);
    expect([...tensors.keys()]).toEqual(['a', 'b']);
    expect(await readTensor(tensors.get('a')!)).toEqual(Float32Array.of(1, 2, 3));
  });

  test('refuses what no reader would take', () => {
    const data = Float32Array.of(1, 2);
    const sound: TensorData = { name: 'w', dtype: 'F32', shape: [2], data };
    const wrong: [string, TensorData[], Map<string, string>?][] = [
      ['tensor "w": expected a name of its own', [sound, sound]],
      ['tensor "__metadata__"', [{ ...sound, name: '__metadata__' }]],
      ['tensor "w": expected the bytes of F32 [3], found 8 bytes', [{ ...sound, shape: [3] }]],
      ['tensor "w": expected the bytes of F16 [2], found 8 bytes', [{ ...sound, dtype: 'F16' }]],
      ['tensor "w": expected the bytes of F32 [-1,-2]', [{ ...sound, shape: [-1, -2] }]],
      ['tensor "w": expected the bytes of F32 [0.5,4]', [{ ...sound, shape: [0.5, 4] }]],
      ['half a surrogate pair', [{ ...sound, name: 'w\ud800' }]],
      ['half a surrogate pair', [sound], new Map([['k', '\udc00']])],
      ['half a surrogate pair', [sound], new Map([['\udc00', 'v']])],
    ];
    for (const [says, tensors, metadata] of wrong) {
      expect(() => writeSafetensors(tensors, metadata)).toThrow(ArgumentError);
      expect(() => writeSafetensors(tensors, metadata)).toThrow(says);
    }
  });
});
