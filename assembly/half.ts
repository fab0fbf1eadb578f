// The two 16-bit formats of stored weights.

/** f16 bits to f32, exact; subnormals, infinities and NaN included. */
@inline
export function half_to_f32(bits: u32): f32 {
  const sign = (bits & 0x8000) << 16;
  const rest = bits & 0x7fff;
  // Times 2^112: moves the exponent's bias from 15 to 127 and normalises subnormals on the way.
  let value = reinterpret<u32>(reinterpret<f32>(rest << 13) * reinterpret<f32>(0x77800000));
  if (rest >= 0x7c00) value = (rest << 13) | 0x7f800000;
  return reinterpret<f32>(value | sign);
}

/** Nearest f16, ties to even; what is too large becomes infinite, NaN stays NaN. */
@inline
export function f32_to_half(x: f32): u32 {
  const bits = reinterpret<u32>(x);
  const sign = bits >> 16 & 0x8000;
  const rest = bits & 0x7fffffff;
  if (rest > 0x7f800000) return sign | 0x7e00;
  if (rest >= 0x477ff000) return sign | 0x7c00; // 65520 and more
  // Subnormals: 0.5 has their spacing, 2^-24, so that the sum is rounded to it.
  if (rest < 0x38800000) return sign | (reinterpret<u32>(reinterpret<f32>(rest) + <f32>0.5) - 0x3f000000);
  return sign | (rest - (112 << 23) + 0xfff + (rest >> 13 & 1) >> 13);
}
