/** What the digest needs of a loaded model; those of src/ and of dist/ both fit. */
export interface Loaded {
  readonly model: {
    readonly config: { readonly vocab_size: number };
    forwardAll(tokens: readonly number[], out: Float32Array): void;
  };
  dispose(): Promise<void>;
}

/** Most tokens of one forward call and threads that share it, by the name that the table gives them. */
export const WAYS = {
  '1': { tokens: 1, threads: 1 },
  '7': { tokens: 7, threads: 1 },
  '64': { tokens: 64, threads: 1 },
  all: { tokens: Infinity, threads: 1 },
  '2 threads': { tokens: Infinity, threads: 2 },
  '3 threads': { tokens: 7, threads: 3 },
} as const;
export type Way = keyof typeof WAYS;

/** sha256 of the logits of one model, for each way to compute them. */
export type Digests = Readonly<Record<Way, string>>;
/** The digests of every golden model in one engine. */
export type Bits = Readonly<Record<string, Digests>>;

/**
 * Runs a text through a model once for each way; uses only what Node and a page have in common.
 * @param ids [T]
 * @param load Gives the model with empty caches and room for calls of `prefill_chunk` tokens.
 * @returns sha256, in hexadecimal, of the logits as F32 [T, V], row-major and little-endian
 */
export async function digestsOf(
  ids: readonly number[],
  load: (options: { prefill_chunk: number; threads: number }) => Promise<Loaded>,
): Promise<Digests> {
  const digests: Partial<Record<Way, string>> = {};
  for (const [way, { tokens, threads }] of Object.entries(WAYS) as [Way, (typeof WAYS)[Way]][]) {
    const prefill_chunk = Math.min(tokens, ids.length);
    const { model, dispose } = await load({ prefill_chunk, threads });
    digests[way] = await sha256(logitsOf(model, ids, prefill_chunk));
    await dispose();
  }
  return digests as Digests;
}

function logitsOf(model: Loaded['model'], ids: readonly number[], prefill_chunk: number): Float32Array<ArrayBuffer> {
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
