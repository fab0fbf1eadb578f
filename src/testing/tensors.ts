import type { KernelTensor } from '../kernel_calls.ts';

/** The tensors of a call by name; one that may be absent is undefined. */
export type Tensors = Readonly<Record<string, KernelTensor | undefined>>;
/** The scalars of a call. */
export type Params = Readonly<Record<string, number | string | boolean | null>>;

/** Number of elements. */
export function elements(shape: readonly number[]): number {
  return shape.reduce((product, n) => product * n, 1);
}

/** The same elements with a shape. */
export function shaped({ data }: Pick<KernelTensor, 'data'>, ...shape: number[]): KernelTensor {
  return { shape, data };
}

/** Element by element from a function of the index. */
export function filled(shape: readonly number[], f: (index: number) => number): KernelTensor {
  return { shape, data: Float64Array.from({ length: elements(shape) }, (_, i) => f(i)) };
}

/** Slices along an axis, in the order of `indices`: a part, a permutation or repetitions. */
export function taken({ shape, data }: KernelTensor, axis: number, indices: readonly number[]): KernelTensor {
  const inner = elements(shape.slice(axis + 1));
  const outer = elements(shape.slice(0, axis));
  const out = new (data.constructor as Float32ArrayConstructor | Float64ArrayConstructor)(outer * indices.length * inner);
  for (let o = 0; o < outer; o++) {
    indices.forEach((from, to) => {
      const begin = (o * shape[axis]! + from) * inner;
      out.set(data.subarray(begin, begin + inner), (o * indices.length + to) * inner);
    });
  }
  return { shape: shape.with(axis, indices.length), data: out };
}

/** Slices [begin, end) of the first axis: some of the tokens. */
export function tokensOf({ shape, data }: KernelTensor, begin: number, end: number): KernelTensor {
  const row = elements(shape.slice(1));
  return { shape: [end - begin, ...shape.slice(1)], data: data.slice(begin * row, end * row) };
}

/** One after the other along the first axis. */
export function joined(...parts: readonly KernelTensor[]): KernelTensor {
  const rows = parts.reduce((sum, { shape }) => sum + shape[0]!, 0);
  return { shape: [rows, ...parts[0]!.shape.slice(1)], data: Float64Array.from(parts.flatMap(({ data }) => [...data])) };
}

/** 0 … n - 1, beginning with `first`: 2, 3, 4, 0, 1. */
export function turnedBy(n: number, first: number): number[] {
  return Array.from({ length: n }, (_, i) => (i + first) % n);
}

/** Integers from -4 to 4 that follow no pattern of the shape; another salt, others. */
export function integersLike({ shape }: KernelTensor, salt = 0): KernelTensor {
  return filled(shape, (i) => ((Math.imul(i + 1 + 7919 * salt, 0x9e3779b1) >>> 20) % 9) - 4);
}

/** Element i of one axis: which index along it an element of the whole has. */
export function indexAlong(shape: readonly number[], axis: number): (i: number) => number {
  const inner = elements(shape.slice(axis + 1));
  return (i) => Math.floor(i / inner) % shape[axis]!;
}
