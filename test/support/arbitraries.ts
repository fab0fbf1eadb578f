import type { Values } from '../../src/testing/arbitraries.ts';

// Shapes and values are the kit's.
export * from '../../src/testing/arbitraries.ts';

/** The values with the lower half of their bits cut off: bf16 can represent them. */
export function truncatedToBf16({ data, rows, cols }: Values): Values {
  const f32 = Float32Array.from(data);
  const bits = new Uint32Array(f32.buffer);
  for (let i = 0; i < bits.length; i++) bits[i]! &= 0xffff0000;
  return { data: f32, rows, cols };
}

/** Rows [begin, end). */
export function rowsOf({ data, cols }: Values, begin: number, end: number): Values {
  return { data: data.slice(begin * cols, end * cols), rows: end - begin, cols };
}

/** One after the other. */
export function stacked(...parts: readonly Values[]): Values {
  const data = Float64Array.from(parts.flatMap((part) => [...part.data]));
  return { data, rows: parts.reduce((sum, part) => sum + part.rows, 0), cols: parts[0]!.cols };
}

/** The pieces [begin, end) that the cuts leave of n. */
export function pieces(n: number, at: readonly number[]): [number, number][] {
  return [0, ...at].map((begin, i) => [begin, at[i] ?? n]);
}
