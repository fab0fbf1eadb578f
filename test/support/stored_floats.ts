/** Every pattern of 16 bits. */
export const PATTERNS: Uint16Array = Uint16Array.from({ length: 65536 }, (_, i) => i);

/** The fields of a 16-bit float below its sign. */
export interface FloatFormat {
  readonly exponentBits: number;
  readonly fractionBits: number;
}

export const FLOAT16: FloatFormat = { exponentBits: 5, fractionBits: 10 };
export const BFLOAT16: FloatFormat = { exponentBits: 8, fractionBits: 7 };

/** The value of a 16-bit float by IEEE 754 §3.4, from its fields; exact, since a float64 holds every one. */
export function floatValue(pattern: number, { exponentBits, fractionBits }: FloatFormat): number {
  const bias = 2 ** (exponentBits - 1) - 1;
  const exponent = Math.floor(pattern / 2 ** fractionBits) % 2 ** exponentBits;
  const fraction = (pattern % 2 ** fractionBits) / 2 ** fractionBits;
  const sign = pattern >= 2 ** 15 ? -1 : 1;
  if (exponent === 2 ** exponentBits - 1) return fraction === 0 ? sign * Infinity : Number.NaN;
  return sign * (exponent === 0 ? fraction * 2 ** (1 - bias) : (1 + fraction) * 2 ** (exponent - bias));
}
