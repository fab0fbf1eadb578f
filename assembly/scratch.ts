// Each thread has scratch of its own in every memory: what one kernel leaves there means nothing to the next.

/** 32 panels of 16 outputs over 128 products in f32, or 256 in i16, 8 KiB for rows of x, and 64 bytes for constants. */
export const SCRATCH_BYTES: usize = 32 * 128 * 16 * 4 + 8192 + 64;
const CONSTANTS_AT: usize = SCRATCH_BYTES - 64;

let address: usize = 0;

/** Where the scratch of this instance's thread lies, 64-byte aligned. Called once. */
export function set_scratch(at: usize): void {
  address = at;
}

@inline
export function scratch(): usize {
  return address;
}

/** 64 bytes for numbers that a loop takes from memory; `held` uses them too. */
@inline
export function constants(): usize {
  return address + CONSTANTS_AT;
}

/** A constant by way of memory: V8 of Node 24 builds one that it knows anew at each use inside a loop, in three instructions. */
@inline
export function held(bits: u32): v128 {
  const at = constants();
  store<u32>(at, bits);
  return v128.load32_splat(at);
}
