// From + - * / alone, which IEEE 754 fixes to the bit: `Math.exp` and `Math.log` may differ between engines.

// ln 2 in two parts: the high one has 32 significant bits, so its product with an n below 1024 is exact.
const LN2_HIGH = 0.6931471803691238;
const LN2_LOW = 1.9082149292705877e-10;
const LOG2_E = 1 / (LN2_HIGH + LN2_LOW);
const SMALLEST_EXPONENT = -708;
const POWERS_OF_HALF = new Float64Array(1022).fill(1);
for (let n = 1; n < POWERS_OF_HALF.length; n++) POWERS_OF_HALF[n] = POWERS_OF_HALF[n - 1]! / 2;

/**
 * e^x for x <= 0, within 1 ulp: x = r - n ln 2 with |r| <= ln 2 / 2, then e^x = 2^-n (1 + r + r^2/2! + ... + r^13/13!), whose
 * next term is below 2^-57.
 * @param x at most 0
 * @returns a number in [0, 1]; 0 below -708, where the result would leave the normal f64
 */
export function exp(x: number): number {
  if (x < SMALLEST_EXPONENT) return 0;
  const n = (0.5 - x * LOG2_E) | 0;
  const r = x + n * LN2_HIGH + n * LN2_LOW;
  let tail = 1 / 6227020800;
  tail = tail * r + 1 / 479001600;
  tail = tail * r + 1 / 39916800;
  tail = tail * r + 1 / 3628800;
  tail = tail * r + 1 / 362880;
  tail = tail * r + 1 / 40320;
  tail = tail * r + 1 / 5040;
  tail = tail * r + 1 / 720;
  tail = tail * r + 1 / 120;
  tail = tail * r + 1 / 24;
  tail = tail * r + 1 / 6;
  tail = tail * r + 1 / 2;
  return (1 + (r + r * r * tail)) * POWERS_OF_HALF[n]!;
}

/**
 * Natural logarithm of a number of at least 1, within 2 ulp or 4e-16: x = 2^n m with m in (0.7, 1.42), then
 * log x = n log 2 + 2 (s + s^3/3 + s^5/5 + ... + s^23/23), s = (m - 1) / (m + 1), whose next term is below 1e-20.
 */
export function log(x: number): number {
  let n = 0;
  let m = x;
  for (; m > Math.SQRT2; n++) m /= 2;
  const s = (m - 1) / (m + 1);
  const z = s * s;
  let tail = 0;
  for (let k = 23; k > 1; k -= 2) tail = z * (1 / k + tail);
  return n * Math.LN2 + 2 * s * (1 + tail);
}
