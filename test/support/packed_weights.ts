// An independent reader of the quantised layouts, written from the comment in assembly/panels.ts.

export type Quantised = 'Q8' | 'Q4';

/** Outputs of a panel, weights of a block. */
const [PANEL, BLOCK] = [16, 32];
export const BLOCK_BYTES = { Q8: 544, Q4: 288 } as const;

/** One block of one output: about d q; of Q4 q is what the layout calls 4 q - z, of Q8 z is 0. */
export interface Block {
  readonly d: number;
  readonly z: number;
  readonly q: readonly number[];
}

/** Block `b` of output `n` of packed weights [N, K]. */
export function blockOf(bytes: Uint8Array, format: Quantised, K: number, n: number, b: number): Block {
  const blocks = Math.ceil(K / BLOCK),
    panels = bytes.length / (blocks * BLOCK_BYTES[format]);
  const panel = Math.floor(n / PANEL),
    first = panel - (panel % 4),
    slab = b - (b % 8);
  const before = first * blocks + Math.min(4, panels - first) * slab + (panel - first) * Math.min(8, blocks - slab) + b - slab;
  const begin = before * BLOCK_BYTES[format];
  const o = n % PANEL;
  const at = (i: number) => bytes[begin + i]!;
  const u16 = (i: number) => (at(i + 1) << 8) | at(i);
  const f32 = (bits: number) => new Float32Array(Uint32Array.of(bits).buffer)[0]!;
  const place = ((o & 7) << 1) | (o >> 3); // scales lie in the order n0 n8 n1 n9 … n7 n15
  const ks = Array.from({ length: BLOCK }, (_, k) => k);
  if (format === 'Q8')
    return { d: f32(u16(512 + 2 * place) << 16), z: 0, q: ks.map((k) => (at((k >> 2) * 64 + o * 4 + (k & 3)) << 24) >> 24) };
  const [half, scale] = [(o >> 3) * 4, u16(256 + 2 * place)];
  const [exponent, fraction, z] = [scale >> 10, (scale >> 6) & 15, scale & 63];
  return {
    d: 2 ** (exponent - 49) * (1 + fraction / 16),
    z,
    q: ks.map((k) => 4 * ((at((k >> 2) * 32 + (o & 7) * 4 + (k & 3)) >> half) & 15) - z),
  };
}

/** All weights [N, K], each rounded to f32 once: products of q8 have 15 bits, those of q4 11. */
export function decoded(bytes: Uint8Array, format: Quantised, N: number, K: number): Float32Array {
  const w = new Float32Array(N * K);
  for (let n = 0; n < N; n++) {
    for (let b = 0; b * BLOCK < K; b++) {
      const { d, q } = blockOf(bytes, format, K, n, b);
      for (let i = 0; i < Math.min(BLOCK, K - b * BLOCK); i++) w[n * K + b * BLOCK + i] = d * q[i]!;
    }
  }
  return w;
}
