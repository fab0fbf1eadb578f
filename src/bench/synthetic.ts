import type { ByteSource } from '../checkpoint/byte_source.ts';
import type { TensorEntry } from '../checkpoint/safetensors.ts';
import type { OlmoHybridConfig } from '../config.ts';
import { placement } from '../model/placement.ts';
import { Random } from '../random.ts';

// Values; a prime, so that rows of no width begin alike.
const TABLE = 2 ** 19 - 1;
const STRIDE = 7919;

/**
 * Tensors in bf16 with random values of the size that trained ones have, under the names of the release; they exist only while they are read.
 * A model loaded from them runs as fast as a trained one. It says nothing.
 */
export function syntheticTensors(config: OlmoHybridConfig): ReadonlyMap<string, TensorEntry> {
  const use = { rows: 1, threads: 1, mode: 'strict', context: 1, bank_limit_bytes: Number.POSITIVE_INFINITY } as const;
  const { parameters } = placement(config, () => 'BF16', use);
  const normals = standardNormals();
  const tables = new Map<number, Uint16Array>();
  const tensors = new Map<string, TensorEntry>();
  let first = 0;
  for (const { name, shape } of parameters) {
    const byteLength = shape.reduce((product, n) => product * n, 2);
    // A weight [N, K] is about 1 / sqrt(K), to the next power of two; what is no matrix stands around its usual value.
    const K = shape.length > 1 ? shape[1]! : 1;
    const exponent = Math.round(Math.log2(Math.sqrt(K)));
    const table = tables.get(exponent) ?? normals.map((bits) => bits - (exponent << 7));
    tables.set(exponent, table);
    const source =
      shape.length === 1
        ? constant(name, byteLength, name.endsWith('norm.weight') ? 0x3f80 : 0x3f00)
        : drawn(name, byteLength, table, first);
    tensors.set(name, { name, dtype: 'BF16', shape, source, offset: 0, byteLength });
    first += STRIDE;
  }
  return tensors;
}

/** bf16 of about normal values, none of them smaller than 2^-7. */
function standardNormals(): Uint16Array {
  const random = new Random(1);
  const f32 = new Float32Array(1);
  const bits = new Uint32Array(f32.buffer);
  return Uint16Array.from({ length: TABLE }, () => {
    const x = (random.uniform() + random.uniform() + random.uniform() - 1.5) * 2; // variance 1
    f32[0] = Math.abs(x) < 2 ** -7 ? 2 ** -7 : x;
    return bits[0]! >>> 16;
  });
}

function drawn(name: string, byteLength: number, table: Uint16Array, first: number): ByteSource {
  const bytes = new Uint8Array(table.buffer);
  return source(name, byteLength, (offset, out) => {
    for (let done = 0; done < out.length; ) {
      const at = (first * 2 + offset + done) % bytes.length;
      const piece = bytes.subarray(at, at + Math.min(out.length - done, bytes.length - at));
      out.set(piece, done);
      done += piece.length;
    }
  });
}

function constant(name: string, byteLength: number, bits: number): ByteSource {
  return source(name, byteLength, (_, out) => new Uint16Array(out.buffer, out.byteOffset, out.length / 2).fill(bits));
}

function source(name: string, byteLength: number, read: (offset: number, out: Uint8Array) => unknown): ByteSource {
  return { name, byteLength, read: async (offset, out) => void read(offset, out), close: async () => {} };
}
