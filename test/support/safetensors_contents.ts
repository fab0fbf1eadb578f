import fc from 'fast-check';
import { DTYPES, tensorBytes } from '../../src/checkpoint/dtype.ts';
import type { TensorData } from '../../src/checkpoint/safetensors_writer.ts';

const torchHeader =
  '{"__metadata__":{"_comment":"PyTorch, naïve \\"quotes\\" 😀"},"i64":{"dtype":"I64","shape":[1],"data_offsets":[0,8]},' +
  '"f64":{"dtype":"F64","shape":[],"data_offsets":[8,16]},"empty":{"dtype":"F32","shape":[2,0,3],"data_offsets":[16,16]},' +
  '"f32":{"dtype":"F32","shape":[2,1],"data_offsets":[16,24]},"имя \\"é\\" 😀":{"dtype":"F32","shape":[1],"data_offsets":[24,28]},' +
  '"i32":{"dtype":"I32","shape":[1,2],"data_offsets":[28,36]},"bf16":{"dtype":"BF16","shape":[1,3],"data_offsets":[36,42]},' +
  '"f16":{"dtype":"F16","shape":[3],"data_offsets":[42,48]},"i16":{"dtype":"I16","shape":[1],"data_offsets":[48,50]},' +
  '"i8":{"dtype":"I8","shape":[3],"data_offsets":[50,53]},"u8":{"dtype":"U8","shape":[1],"data_offsets":[53,54]},' +
  '"bool":{"dtype":"BOOL","shape":[2],"data_offsets":[54,56]}}      ';
const torchData = 'ffffffffffffdfff182d4454fb210940cdcccc3d0000c07f00008040f9ffffff08000000803f20c0807f01000080ff7bd4feff0203ff0100';

/** A file that torch 2.13.0 and safetensors 0.8.0 wrote: safetensors.torch.save(tensors, torchMetadata). */
export const torchFile = Uint8Array.of(
  ...Buffer.from('0803000000000000', 'hex'),
  ...Buffer.from(torchHeader),
  ...Buffer.from(torchData, 'hex'),
);

export const torchMetadata: ReadonlyMap<string, string> = new Map([['_comment', 'PyTorch, naïve "quotes" 😀']]);

/** What is in `torchFile`, in the order in which it was given to PyTorch. */
export const torchTensors: readonly TensorData[] = [
  { name: 'bf16', dtype: 'BF16', shape: [1, 3], data: Uint16Array.of(0x3f80, 0xc020, 0x7f80) },
  { name: 'f16', dtype: 'F16', shape: [3], data: Uint16Array.of(0x0001, 0x8000, 0x7bff) },
  { name: 'f32', dtype: 'F32', shape: [2, 1], data: Float32Array.of(0.1, Number.NaN) },
  { name: 'f64', dtype: 'F64', shape: [], data: Float64Array.of(Math.PI) },
  { name: 'i64', dtype: 'I64', shape: [1], data: BigInt64Array.of(-9007199254740993n) },
  { name: 'i32', dtype: 'I32', shape: [1, 2], data: Int32Array.of(-7, 8) },
  { name: 'i16', dtype: 'I16', shape: [1], data: Int16Array.of(-300) },
  { name: 'i8', dtype: 'I8', shape: [3], data: Int8Array.of(-1, 2, 3) },
  { name: 'u8', dtype: 'U8', shape: [1], data: Uint8Array.of(255) },
  { name: 'bool', dtype: 'BOOL', shape: [2], data: Uint8Array.of(1, 0) },
  { name: 'empty', dtype: 'F32', shape: [2, 0, 3], data: new Float32Array(0) },
  { name: 'имя "é" 😀', dtype: 'F32', shape: [1], data: Float32Array.of(4) },
];

/** Bits per element, told independently of the code. */
export const BITS: Record<string, number> = {
  BOOL: 8,
  I8: 8,
  U8: 8,
  I16: 16,
  U16: 16,
  F16: 16,
  BF16: 16,
  I32: 32,
  U32: 32,
  F32: 32,
  F64: 64,
  I64: 64,
  U64: 64,
  C64: 64,
};

const names = fc.oneof(
  fc.constantFrom('w', 'a', 'b', '__proto__', 'constructor', '10', '2', '', '"', '\\', '\u0000', 'ключ', '😀'),
  fc.string({ unit: 'binary', maxLength: 12 }),
);
const tensor = fc
  .record({ name: names, dtype: fc.constantFrom(...DTYPES), shape: fc.array(fc.integer({ min: 0, max: 5 }), { maxLength: 4 }) })
  .map((spec) => ({ ...spec, byteLength: tensorBytes(spec.dtype, spec.shape) }))
  .filter(({ name, byteLength }) => byteLength !== null && name !== '__metadata__')
  .chain(({ byteLength, ...spec }) =>
    fc.uint8Array({ minLength: byteLength!, maxLength: byteLength! }).map((data): TensorData => ({ ...spec, data })),
  );

/** Tensors and metadata of any kind, under names that are hard to handle. */
export const contents = fc.record({
  tensors: fc.uniqueArray(tensor, { selector: ({ name }) => name, maxLength: 6 }),
  metadata: fc.array(fc.tuple(names, fc.string({ unit: 'binary' })), { maxLength: 3 }).map((pairs) => new Map(pairs)),
});
