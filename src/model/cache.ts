import type { OlmoHybridConfig } from '../config.ts';
import type { Bank } from '../runtime/bank.ts';
import { type KVFormat, kvWords } from '../runtime/kernels.ts';
import type { FloatArray, Tensor } from '../runtime/tensor.ts';

/** What a layer remembers, copied out: as many floats as its positions so far need. */
export type LayerSnapshot = readonly FloatArray[];

/** What a layer remembers of the tokens before. */
export interface LayerCache {
  /** Whether what it remembers of earlier tokens stays where it is when later ones come, so that it can be taken back to them without a copy. */
  readonly appendOnly: boolean;
  reset(): void;
  /** @param position Tokens in the cache. */
  snapshot(position: number): LayerSnapshot;
  /** Lengths of the arrays of a snapshot. */
  lengths(position: number): readonly number[];
  restore(snapshot: LayerSnapshot, position: number): void;
  /** Fills positions [from, to) with copies of those before, for measurements. */
  stretch(from: number, to: number): void;
}

/** Keys (after norm and rotary) and values of an attention layer, [Hkv, context] rows of `kvWords` each: words of 32 bits, floats in F32 only. */
export class KVCache implements LayerCache {
  readonly appendOnly = true;
  readonly k: Tensor;
  readonly v: Tensor;
  private readonly rowLength: number;
  private readonly headLength: number;

  constructor(m: Bank, config: OlmoHybridConfig, context: number, format: KVFormat) {
    const { num_key_value_heads: Hkv, head_dim: Dh } = config;
    this.rowLength = kvWords(format, Dh);
    this.headLength = context * this.rowLength;
    this.k = m.tensor(Hkv, this.headLength);
    this.v = m.tensor(Hkv, this.headLength);
  }

  /** Nothing to clear: positions are written before they are read. */
  reset(): void {}

  snapshot(position: number): LayerSnapshot {
    return [this.k, this.v].map(({ data, rows }) => {
      const length = position * this.rowLength;
      const copy = data.slice(0, rows * length);
      for (let h = 0; h < rows; h++) copy.set(data.subarray(h * this.headLength, h * this.headLength + length), h * length);
      return copy;
    });
  }

  lengths(position: number): readonly number[] {
    return [this.k, this.v].map(({ rows }) => rows * position * this.rowLength);
  }

  restore([k, v]: LayerSnapshot, position: number): void {
    const length = position * this.rowLength;
    for (const [tensor, saved] of [[this.k, k!] as const, [this.v, v!] as const]) {
      for (let h = 0; h < tensor.rows; h++) tensor.data.set(saved.subarray(h * length, (h + 1) * length), h * this.headLength);
    }
  }

  stretch(from: number, to: number): void {
    for (const { data, rows } of [this.k, this.v]) {
      for (let h = 0; h < rows; h++) {
        const head = data.subarray(h * this.headLength, (h + 1) * this.headLength);
        for (let done = from; done < to; done *= 2) head.copyWithin(done * this.rowLength, 0, Math.min(done, to - done) * this.rowLength);
      }
    }
  }
}

/** The state of a Gated DeltaNet layer: its size does not depend on the tokens so far, and it cannot be rewound, only restored. */
export class DeltaState implements LayerCache {
  readonly appendOnly = false;
  /** The last W - 1 inputs of the convolutions, before activation, [W - 1, C]. */
  readonly conv_q: Tensor;
  readonly conv_k: Tensor;
  readonly conv_v: Tensor;
  /** [H, Dk, Dv], always f32 in wasm: in bf16 its updates would be lost. */
  readonly S: Tensor;

  constructor(m: Bank, config: OlmoHybridConfig) {
    const { linear_num_key_heads: Hk, linear_num_value_heads: H, linear_key_head_dim: Dk, linear_value_head_dim: Dv } = config;
    const W = config.linear_conv_kernel_dim;
    this.conv_q = m.tensor(W - 1, Hk * Dk);
    this.conv_k = m.tensor(W - 1, Hk * Dk);
    this.conv_v = m.tensor(W - 1, H * Dv);
    this.S = m.tensor(H, Dk * Dv);
  }

  private get tensors(): readonly Tensor[] {
    return [this.conv_q, this.conv_k, this.conv_v, this.S];
  }

  reset(): void {
    for (const { data } of this.tensors) data.fill(0);
  }

  snapshot(): LayerSnapshot {
    return this.tensors.map(({ data }) => data.slice());
  }

  lengths(): readonly number[] {
    return this.tensors.map(({ data }) => data.length);
  }

  restore(snapshot: LayerSnapshot): void {
    this.tensors.forEach(({ data }, i) => {
      data.set(snapshot[i]!);
    });
  }

  /** It has the same size after every token. */
  stretch(): void {}
}
