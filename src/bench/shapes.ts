import { type OlmoHybridConfig, parseConfig } from '../config.ts';

/** Sizes of a model that is made for measurements; the others follow from these as in the release. */
interface Sizes {
  readonly hidden_size: number;
  readonly num_hidden_layers: number;
  readonly num_attention_heads: number;
  readonly intermediate_size: number;
  readonly vocab_size: number;
}

const SIZES: Readonly<Record<string, Sizes>> = {
  '0.3b': { hidden_size: 1024, num_hidden_layers: 16, num_attention_heads: 8, intermediate_size: 2816, vocab_size: 32768 },
  '1b': { hidden_size: 2048, num_hidden_layers: 16, num_attention_heads: 16, intermediate_size: 5632, vocab_size: 100352 },
  '7b': { hidden_size: 3840, num_hidden_layers: 32, num_attention_heads: 30, intermediate_size: 11008, vocab_size: 100352 },
};

/** The names of all shapes: hybrids, for each its twin of attention layers alone, and the baseline of the hybrid's paper. */
export const SHAPES: readonly string[] = [...Object.keys(SIZES).flatMap((name) => [name, `${name}-transformer`]), 'olmo3-7b'];

/** The config of a shape of SHAPES. `7b` is that of allenai/Olmo-Hybrid-7B, `olmo3-7b` that of allenai/Olmo-3-1025-7B. */
export function shapeConfig(shape: string): OlmoHybridConfig {
  return parseConfig(shapeConfigJson(shape), shape);
}

/** The same as the text of a config.json. */
export function shapeConfigJson(shape: string): string {
  const config = shape === 'olmo3-7b' ? OLMO3_7B : hybrid(SIZES[shape.replace('-transformer', '')]!, shape.endsWith('-transformer'));
  return JSON.stringify(config, null, 2);
}

function hybrid(sizes: Sizes, transformer: boolean): object {
  const pattern = transformer ? ['full_attention'] : ['linear_attention', 'linear_attention', 'linear_attention', 'full_attention'];
  return {
    ...sizes,
    model_type: 'olmo_hybrid',
    layer_types: Array.from({ length: sizes.num_hidden_layers }, (_, i) => pattern[i % pattern.length]),
    num_key_value_heads: sizes.num_attention_heads,
    max_position_embeddings: 65536,
    rope_parameters: null,
    tie_word_embeddings: false,
    linear_num_key_heads: sizes.num_attention_heads,
    linear_num_value_heads: sizes.num_attention_heads,
    linear_key_head_dim: 96,
    linear_value_head_dim: 192,
    linear_conv_kernel_dim: 4,
  };
}

const OLMO3_7B = {
  model_type: 'olmo3',
  hidden_size: 4096,
  intermediate_size: 11008,
  num_hidden_layers: 32,
  num_attention_heads: 32,
  num_key_value_heads: 32,
  vocab_size: 100278,
  max_position_embeddings: 65536,
  sliding_window: 4096,
  layer_types: Array.from({ length: 32 }, (_, i) => (i % 4 === 3 ? 'full_attention' : 'sliding_attention')),
  tie_word_embeddings: false,
  rope_theta: 500000,
  rope_scaling: {
    rope_type: 'yarn',
    factor: 8,
    original_max_position_embeddings: 8192,
    attention_factor: 1.2079441541679836,
    beta_fast: 32,
    beta_slow: 1,
  },
};
