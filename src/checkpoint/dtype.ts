/** Bits per element of every dtype that safetensors knows, in increasing order of alignment, as its writer sorts them. */
const DTYPE_BITS = {
  BOOL: 8,
  F4: 4,
  F6_E2M3: 6,
  F6_E3M2: 6,
  U8: 8,
  I8: 8,
  F8_E5M2: 8,
  F8_E4M3: 8,
  F8_E8M0: 8,
  F8_E4M3FNUZ: 8,
  F8_E5M2FNUZ: 8,
  I16: 16,
  U16: 16,
  F16: 16,
  BF16: 16,
  I32: 32,
  U32: 32,
  F32: 32,
  C64: 64,
  F64: 64,
  I64: 64,
  U64: 64,
};

/** An element type by its name in a safetensors header. */
export type Dtype = keyof typeof DTYPE_BITS;

/** Every dtype, the least aligned first. */
export const DTYPES = Object.keys(DTYPE_BITS) as readonly Dtype[];

/** Tells whether a name from a header is a dtype of the format. */
export function isDtype(name: string): name is Dtype {
  return Object.hasOwn(DTYPE_BITS, name);
}

/**
 * The bytes that a tensor takes.
 * @returns null when the count does not fit in 2^53 or, for dtypes below 8 bits, is not a whole number of bytes.
 */
export function tensorBytes(dtype: Dtype, shape: readonly number[]): number | null {
  let elements = 1;
  for (const dimension of shape) {
    elements *= dimension;
    if (!Number.isSafeInteger(elements)) return null;
  }
  const bits = elements * DTYPE_BITS[dtype];
  return Number.isSafeInteger(bits) && bits % 8 === 0 ? bits / 8 : null;
}

/**
 * Widens bfloat16 to float32, exactly: a bfloat16 is the upper half of a float32, NaN payloads included.
 * @param bf16 bit patterns.
 * @param f32 of the same length, receives the values.
 */
export function widenBf16(bf16: Uint16Array, f32: Float32Array): void {
  const bits = new Uint32Array(f32.buffer, f32.byteOffset, f32.length);
  for (let i = 0; i < bf16.length; i++) bits[i] = bf16[i]! << 16;
}

/**
 * Widens IEEE binary16 to float32, exactly, with subnormals, infinities and NaN payloads.
 * @param f16 bit patterns.
 * @param f32 of the same length, receives the values.
 */
export function widenF16(f16: Uint16Array, f32: Float32Array): void {
  const bits = new Uint32Array(f32.buffer, f32.byteOffset, f32.length);
  for (let i = 0; i < f16.length; i++) {
    const half = f16[i]!;
    const sign = (half & 0x8000) << 16;
    const exponent = half & 0x7c00;
    const magnitude = (half & 0x7fff) << 13; // exponent and fraction where float32 has them
    if (exponent === 0x7c00) bits[i] = sign | 0x7f800000 | magnitude;
    else if (exponent !== 0) bits[i] = sign | (magnitude + ((127 - 15) << 23));
    else f32[i] = ((sign < 0 ? -1 : 1) * (half & 0x3ff)) / 16777216; // 2^24
  }
}

/** What a tensor becomes in JavaScript. */
export type TensorArray =
  | Float64Array
  | Float32Array
  | BigInt64Array
  | BigUint64Array
  | Int32Array
  | Uint32Array
  | Int16Array
  | Uint16Array
  | Int8Array
  | Uint8Array;

/**
 * Turns the bytes of a tensor into the array of its elements, on the little-endian machines that wasm is made for:
 * F16 and BF16 become Float32Array, BOOL becomes Uint8Array; 8-bit floats and less and complex numbers have no array and are not here.
 */
export const DECODERS: ReadonlyMap<Dtype, (bytes: ArrayBuffer) => TensorArray> = new Map<Dtype, (bytes: ArrayBuffer) => TensorArray>([
  ['F64', (bytes) => new Float64Array(bytes)],
  ['F32', (bytes) => new Float32Array(bytes)],
  ['F16', (bytes) => widened(widenF16, bytes)],
  ['BF16', (bytes) => widened(widenBf16, bytes)],
  ['I64', (bytes) => new BigInt64Array(bytes)],
  ['U64', (bytes) => new BigUint64Array(bytes)],
  ['I32', (bytes) => new Int32Array(bytes)],
  ['U32', (bytes) => new Uint32Array(bytes)],
  ['I16', (bytes) => new Int16Array(bytes)],
  ['U16', (bytes) => new Uint16Array(bytes)],
  ['I8', (bytes) => new Int8Array(bytes)],
  ['U8', (bytes) => new Uint8Array(bytes)],
  ['BOOL', (bytes) => new Uint8Array(bytes)],
]);

function widened(widen: typeof widenF16, bytes: ArrayBuffer): Float32Array {
  const bits = new Uint16Array(bytes);
  const f32 = new Float32Array(bits.length);
  widen(bits, f32);
  return f32;
}
