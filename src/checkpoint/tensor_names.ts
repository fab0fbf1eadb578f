import type { LayerType } from '../config.ts';

/** What a parameter of the model may be called in a checkpoint, besides its released name. The one place that knows of renames. */
interface Rename {
  readonly layer: LayerType | 'attention';
  /** Name below `model.layers.N.` as released. */
  readonly released: string;
  readonly other: string;
}

const RENAMES: readonly Rename[] = [
  // Of save_pretrained of transformers 5.18, which names the two norms of every block alike, although the blocks differ: `feedforward_layer_norm`
  // is the second norm of the GDN block and the first of the attention block, both called post_attention_layernorm in the release.
  { layer: 'linear_attention', released: 'input_layernorm.weight', other: 'attention_layer_norm.weight' },
  { layer: 'linear_attention', released: 'post_attention_layernorm.weight', other: 'feedforward_layer_norm.weight' },
  { layer: 'attention', released: 'post_attention_layernorm.weight', other: 'feedforward_layer_norm.weight' },
  // Of OLMo-core.
  { layer: 'linear_attention', released: 'linear_attn.o_norm.weight', other: 'linear_attn.norm.weight' },
  { layer: 'linear_attention', released: 'linear_attn.o_proj.weight', other: 'linear_attn.out_proj.weight' },
];

const CONVOLUTIONS = ['q_conv1d', 'k_conv1d', 'v_conv1d'] as const;

/** Tensors of a checkpoint that hold no parameter of this model: buffers, and heads that the release ignores as well. */
const IGNORED = /(^|\.)rotary_emb\.inv_freq$|^mtp\./;

export function isIgnored(name: string): boolean {
  return IGNORED.test(name);
}

/** Two parameters that are one where embeddings are tied: each is read under its own name, or else the other's. HF: _tied_weights_keys. */
const TIED = ['model.embed_tokens.weight', 'lm_head.weight'];

/** The names under which a parameter may be stored, the released one first. */
export function candidates(name: string, layer_types: readonly LayerType[], tied: boolean): readonly string[] {
  if (tied && TIED.includes(name)) return [name, ...TIED.filter((other) => other !== name)];
  const layer = /^(model\.layers\.(\d+)\.)(.+)$/.exec(name);
  if (!layer) return [name];
  const [, prefix, index, released] = layer;
  const type = layer_types[Number(index)] === 'linear_attention' ? 'linear_attention' : 'attention';
  return [name, ...RENAMES.filter((r) => r.layer === type && r.released === released).map((r) => prefix + r.other)];
}

/**
 * Where the rows of a convolution's weight lie. Its three kernels may be stored apart, apart but cut into three EQUAL parts (save_pretrained of
 * transformers 5.18), or as one `conv1d`. In each case their rows one after the other are q, k, v.
 * @returns The names to read one after the other, for each way to store them; null for a parameter that is no convolution.
 */
export function convolutionParts(name: string): readonly (readonly string[])[] | null {
  const match = /^(.*\.linear_attn\.)[qkv]_conv1d\.weight$/.exec(name);
  if (!match) return null;
  const prefix = match[1]!;
  return [CONVOLUTIONS.map((part) => `${prefix}${part}.weight`), [`${prefix}conv1d.weight`]];
}
