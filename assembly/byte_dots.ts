// Dots of bytes: i32x4.relaxed_dot_i8x16_i7x16_add_s, four products to a lane, which leaves open what the upper bit of its second operand means.
//
// Where V8 has AVX-VNNI (Node 24 and later) it is one instruction, which takes that operand without sign; with Arm's dot product it is one that takes
// it with a sign (tried in an emulator). Either is exact, for a quarter of the instructions that products in i16 need. Elsewhere it is three
// instructions, which saturate. Node 20 gets it wrong in its baseline compiler, which src/runtime/wasm_module.ts does not let compile these kernels.

/** sum + four products in every lane, exact on every engine where b is from 0 to 127. */
@inline
export function byte_dots(a: v128, b: v128, sum: v128): v128 {
  return i32x4.relaxed_dot_i8x16_i7x16_add_s(a, b, sum);
}

// What the engine makes of the upper bit of b.
export const SATURATES: i32 = 0;
export const UNSIGNED: i32 = 1;
const SIGNED: i32 = 2;

/** One of the three above; of the strict build the first. */
export function byte_dot_kind(): i32 {
  if (!ASC_FEATURE_RELAXED_SIMD) return SATURATES;
  const sum = i32x4.extract_lane(byte_dots(i8x16.splat(127), i8x16.splat(-1), i32x4.splat(0)), 0);
  return sum == 4 * 127 * 255 ? UNSIGNED : sum == -4 * 127 ? SIGNED : SATURATES;
}
