// Each thread has scratch of its own in every memory: what one kernel leaves there means nothing to the next.

/** 32 panels of 16 outputs over 128 products in f32, or 256 in i16, and 8 KiB for rows of x. */
export const SCRATCH_BYTES: usize = 32 * 128 * 16 * 4 + 8192;

let address: usize = 0;

/** Where the scratch of this instance's thread lies, 64-byte aligned. Called once. */
export function set_scratch(at: usize): void {
  address = at;
}

@inline
export function scratch(): usize {
  return address;
}
