/** What the digest needs of a model; those of src/ and of dist/ both fit. */
export interface StrictModel {
  readonly config: { readonly vocab_size: number };
  forwardAll(tokens: readonly number[], out: Float32Array): void;
}

/** Most tokens of one forward call, by the name that the table gives it. */
export const CUTS = { '1': 1, '7': 7, '64': 64, all: Infinity } as const;
export type Cut = keyof typeof CUTS;

/** sha256 of the logits of one model, for each cut of its prompt. */
export type Digests = Readonly<Record<Cut, string>>;
/** The digests of every golden model in one engine. */
export type Bits = Readonly<Record<string, Digests>>;

/**
 * Runs a text through a model once for each cut; uses only what Node and a page have in common.
 * @param ids [T]
 * @param load Gives the model with empty caches and room for calls of `prefill_chunk` tokens.
 * @returns sha256, in hexadecimal, of the logits as F32 [T, V], row-major and little-endian
 */
export async function digestsOf(ids: readonly number[], load: (prefill_chunk: number) => Promise<StrictModel>): Promise<Digests> {
  const digests: Partial<Record<Cut, string>> = {};
  for (const cut of Object.keys(CUTS) as Cut[]) {
    const prefill_chunk = Math.min(CUTS[cut], ids.length);
    digests[cut] = await sha256(logitsOf(await load(prefill_chunk), ids, prefill_chunk));
  }
  return digests as Digests;
}

function logitsOf(model: StrictModel, ids: readonly number[], prefill_chunk: number): Float32Array<ArrayBuffer> {
  const V = model.config.vocab_size;
  const logits = new Float32Array(ids.length * V);
  for (let t = 0; t < ids.length; t += prefill_chunk) {
    const chunk = ids.slice(t, t + prefill_chunk);
    model.forwardAll(chunk, logits.subarray(t * V, (t + chunk.length) * V));
  }
  return logits;
}

async function sha256(numbers: Float32Array<ArrayBuffer>): Promise<string> {
  const hash = new Uint8Array(await crypto.subtle.digest('SHA-256', numbers));
  return Array.from(hash, (byte) => byte.toString(16).padStart(2, '0')).join('');
}
