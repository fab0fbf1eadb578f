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

@inline
export function bf16_is_finite(bits: u32): bool {
  return (bits & 0x7f80) != 0x7f80;
}
