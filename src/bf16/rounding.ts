const value = new Float32Array(1);
const bits = new Uint32Array(value.buffer);

/** x in float32, to the nearest, ties to even: what an operation of PyTorch between two float32 tensors leaves. */
export const f32 = Math.fround;

/**
 * x in bfloat16, to the nearest, ties to even. By way of float32, for PyTorch computes there what it then stores in bfloat16.
 * torch: c10::BFloat16
 */
export function bf16(x: number): number {
  value[0] = x;
  if (Number.isNaN(x)) return x;
  const odd = (bits[0]! >>> 16) & 1;
  bits[0] = (bits[0]! + 0x7fff + odd) & 0xffff0000; // a carry out of the fraction raises the exponent, up to infinity
  return value[0]!;
}
