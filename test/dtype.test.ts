import { describe, expect, test } from 'vitest';
import { DTYPES, isDtype, tensorBytes, widenBf16, widenF16 } from '../src/checkpoint/dtype.ts';

const patterns = Uint16Array.from({ length: 65536 }, (_, i) => i);

/** The value of a binary float by IEEE 754 §3.4, from its fields; exact, since a float64 holds every one. */
function floatValue(pattern: number, exponentBits: number, fractionBits: number): number {
  const bias = 2 ** (exponentBits - 1) - 1;
  const exponent = Math.floor(pattern / 2 ** fractionBits) % 2 ** exponentBits;
  const fraction = (pattern % 2 ** fractionBits) / 2 ** fractionBits;
  const sign = pattern >= 2 ** 15 ? -1 : 1;
  if (exponent === 2 ** exponentBits - 1) return fraction === 0 ? sign * Infinity : Number.NaN;
  return sign * (exponent === 0 ? fraction * 2 ** (1 - bias) : (1 + fraction) * 2 ** (exponent - bias));
}

describe.each([
  { name: 'widenBf16', widen: widenBf16, exponentBits: 8, fractionBits: 7 },
  { name: 'widenF16', widen: widenF16, exponentBits: 5, fractionBits: 10 },
])('$name', ({ widen, exponentBits, fractionBits }) => {
  test('is exact on every pattern', () => {
    const memory = new Float32Array(65536 + 2).fill(7);
    const f32 = memory.subarray(1, -1);
    widen(patterns, f32);
    const wrong = [...patterns].filter((i) => !Object.is(f32[i], floatValue(i, exponentBits, fractionBits)));
    expect(wrong).toEqual([]);
    expect([memory[0], memory.at(-1)]).toEqual([7, 7]);
  });

  test('keeps sign and payload of every NaN', () => {
    const f32 = new Float32Array(65536);
    widen(patterns, f32);
    const bits = new Uint32Array(f32.buffer);
    const nan = [...patterns].filter((i) => Number.isNaN(f32[i]));
    expect(nan.length).toBe(2 * (2 ** fractionBits - 1));
    for (const i of nan) {
      expect(bits[i]! >>> 31).toBe(i >>> 15);
      expect(bits[i]! & 0x7fffff).toBe((i % 2 ** fractionBits) * 2 ** (23 - fractionBits));
    }
  });
});

test('only the names of the format are dtypes', () => {
  expect(DTYPES).toHaveLength(22);
  expect(DTYPES.every(isDtype)).toBe(true);
  for (const name of ['', 'f32', 'F24', 'toString', '__proto__', 'constructor']) expect(isDtype(name), name).toBe(false);
});

test('tensorBytes', () => {
  expect(tensorBytes('F32', [])).toBe(4);
  expect(tensorBytes('F64', [3, 5])).toBe(120);
  expect(tensorBytes('BF16', [7, 0, 2 ** 40])).toBe(0);
  expect(tensorBytes('F6_E2M3', [4])).toBe(3);
  expect(tensorBytes('F6_E3M2', [3])).toBeNull();
  expect(tensorBytes('F4', [2, 3])).toBe(3);
  expect(tensorBytes('F4', [3])).toBeNull();
  expect(tensorBytes('U8', [2 ** 50 - 1])).toBe(2 ** 50 - 1); // the largest whose bits can be counted
  expect(tensorBytes('U8', [2 ** 50])).toBeNull();
  expect(tensorBytes('F64', [2 ** 30, 2 ** 30])).toBeNull();
  expect(tensorBytes('F64', [2 ** 40, 2 ** 40, 0])).toBeNull(); // the product overflows before the zero is met
});
