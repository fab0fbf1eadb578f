import { ArgumentError, type Problem } from '../errors.ts';
import { DTYPES, type Dtype, tensorBytes } from './dtype.ts';
import { quote } from './problem_list.ts';

/** What the header says of a tensor. */
export interface TensorLayout {
  readonly name: string;
  readonly dtype: Dtype;
  readonly shape: readonly number[];
}

/** A tensor to be written; `data` holds its elements row-major, F16 and BF16 as bit patterns. */
export interface TensorData extends TensorLayout {
  readonly data: ArrayBufferView;
}

const METADATA = '__metadata__';
const ALIGNMENT = 8;

/**
 * Lays out a safetensors file as the Python library does: a header padded to 8 bytes, then the data of each tensor, the most aligned
 * dtypes first and then by name, so that every tensor is aligned to its elements.
 * @param metadata free text about the file; `__metadata__` is left out when it is empty.
 * @returns the pieces of the file, in order: the header, then the data of each tensor, not copied.
 * @throws {ArgumentError} when a name occurs twice or is reserved, a text is not Unicode, or a shape does not fit its data.
 */
export function writeSafetensors(tensors: readonly TensorData[], metadata: ReadonlyMap<string, string> = new Map()): Uint8Array[] {
  checkWritable(tensors, metadata);
  const layout = layoutSafetensors(tensors, metadata);
  return [layout.header, ...layout.tensors.map(({ data }) => new Uint8Array(data.buffer, data.byteOffset, data.byteLength))];
}

/**
 * The same for tensors that are written one after the other as they are made.
 * @param tensors of sound shapes and names of their own
 * @returns the header, and the tensors in the order in which their data follows it
 */
export function layoutSafetensors<T extends TensorLayout>(
  tensors: readonly T[],
  metadata: ReadonlyMap<string, string>,
): { header: Uint8Array; tensors: readonly T[] } {
  const sorted = tensors.toSorted((a, b) => DTYPES.indexOf(b.dtype) - DTYPES.indexOf(a.dtype) || (a.name < b.name ? -1 : 1));
  return { header: safetensorsHeader(sorted, metadata), tensors: sorted };
}

/**
 * What stands before the data of a safetensors file.
 * @param tensors of sound shapes and names of their own, in the order in which their data follows
 * @returns a multiple of 8 bytes
 */
export function safetensorsHeader(tensors: readonly TensorLayout[], metadata: ReadonlyMap<string, string>): Uint8Array {
  // Pairs, because an object would put a name like "10" first and lose the name "__proto__".
  const members: [string, string][] = [];
  if (metadata.size > 0) members.push([METADATA, jsonObject([...metadata].map(([key, value]) => [key, JSON.stringify(value)]))]);
  let end = 0;
  for (const { name, dtype, shape } of tensors) {
    const begin = end;
    end += tensorBytes(dtype, shape)!;
    members.push([name, JSON.stringify({ dtype, shape, data_offsets: [begin, end] })]);
  }
  const text = new TextEncoder().encode(jsonObject(members));
  const length = Math.ceil(text.length / ALIGNMENT) * ALIGNMENT;
  const bytes = new Uint8Array(8 + length).fill(0x20);
  new DataView(bytes.buffer).setBigUint64(0, BigInt(length), true);
  bytes.set(text, 8);
  return bytes;
}

function jsonObject(members: readonly (readonly [key: string, json: string])[]): string {
  return `{${members.map(([key, json]) => `${JSON.stringify(key)}:${json}`).join(',')}}`;
}

function checkWritable(tensors: readonly TensorData[], metadata: ReadonlyMap<string, string>): void {
  const problems: Problem[] = [];
  const names = new Set<string>();
  for (const { name, dtype, shape, data } of tensors) {
    const where = `tensor ${quote(name)}`;
    if (names.has(name)) problems.push({ where, expected: 'a name of its own', found: 'it twice', fix: 'Rename one of the two.' });
    names.add(name);
    if (name === METADATA) problems.push({ where, expected: 'a name', found: 'the key of the metadata', fix: 'Rename the tensor.' });
    const sound = shape.every((dimension) => Number.isSafeInteger(dimension) && dimension >= 0);
    if (!sound || tensorBytes(dtype, shape) !== data.byteLength) {
      const found = `${data.byteLength} bytes`;
      problems.push({ where, expected: `the bytes of ${dtype} [${shape}]`, found, fix: 'Give the shape of the data.' });
    }
  }
  for (const text of [...names, ...[...metadata].flat()]) {
    if (!/\p{Surrogate}/u.test(text)) continue;
    problems.push({ where: quote(text), expected: 'Unicode text', found: 'half a surrogate pair', fix: 'Write the whole character.' });
  }
  if (problems.length > 0) throw new ArgumentError(problems);
}
