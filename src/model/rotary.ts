import type { RopeParameters } from '../config.ts';
import type { Bank } from '../runtime/bank.ts';
import type { Kernels } from '../runtime/kernels.ts';
import type { Tensor } from '../runtime/tensor.ts';

/** cos and sin of every position, [positions, Dh / 2]; filled once, by `fill`. */
export interface RotaryTable {
  readonly cos: Tensor;
  readonly sin: Tensor;
  readonly fill: () => void;
}

/**
 * The tables of one layer type in one bank. HF: OlmoHybridRotaryEmbedding, Olmo3RotaryEmbedding.
 * @param positions The context: rows of the tables.
 * @param Dh head_dim, even.
 */
export function rotaryTable(m: Bank, rope: RopeParameters, positions: number, Dh: number): RotaryTable {
  const cos = m.tensor(positions, Dh / 2);
  const sin = m.tensor(positions, Dh / 2);
  const inv_freq = m.tensor64(1, Dh / 2);
  const fill = () => {
    inv_freq.data.set(inverseFrequencies(m.kernels, rope, Dh));
    m.kernels.rotary_table(cos, sin, inv_freq, attentionFactor(m.kernels, rope));
  };
  return { cos, sin, fill };
}

/**
 * Radians for each position, [Dh / 2] in f64: theta^(-2i / Dh), or YaRN's blend of it with its `factor`-th part (arXiv:2309.00071 §3.2).
 * exp and log are the kernels', so that the angles have the same bits in every engine.
 */
export function inverseFrequencies({ exp, log }: Pick<Kernels, 'exp' | 'log'>, rope: RopeParameters, Dh: number): Float64Array {
  const { rope_theta, factor, original_max_position_embeddings, beta_fast, beta_slow, truncate = true } = rope;
  const half = Dh / 2;
  const extrapolated = Float64Array.from({ length: half }, (_, i) => exp((-2 * i * log(rope_theta)) / Dh));
  if (rope.rope_type === 'default') return extrapolated;

  // The dimension whose wave turns `rotations` times within the original context.
  const dimension = (rotations: number) => (Dh * log(original_max_position_embeddings / (rotations * 2 * Math.PI))) / (2 * log(rope_theta));
  const begin = dimension(beta_fast);
  const end = dimension(beta_slow);
  const low = Math.max(truncate ? Math.floor(begin) : begin, 0);
  const high = Math.min(truncate ? Math.ceil(end) : end, Dh - 1);
  const width = high === low ? 0.001 : high - low;
  return extrapolated.map((frequency, i) => {
    const ramp = Math.min(Math.max((i - low) / width, 0), 1);
    return (frequency / factor) * ramp + frequency * (1 - ramp);
  });
}

function attentionFactor({ log }: Pick<Kernels, 'log'>, rope: RopeParameters): number {
  if (rope.rope_type === 'default') return 1;
  const { attention_factor, factor, mscale, mscale_all_dim } = rope;
  const scale = (weight: number) => (factor <= 1 ? 1 : 0.1 * weight * log(factor) + 1);
  if (attention_factor !== null) return attention_factor;
  return mscale !== undefined && mscale_all_dim !== undefined ? scale(mscale) / scale(mscale_all_dim) : scale(1);
}
