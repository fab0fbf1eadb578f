import type { LayerType, OlmoHybridConfig } from './config.ts';

/** Of `format_version` in a trace's metadata; docs/trace_format.md describes it. */
export const FORMAT_VERSION = '1';

/** What the elements of an intermediate are for each token, and so its shape; of `state`, for the whole text. */
const SHAPES = {
  stream: ({ hidden_size: D }: OlmoHybridConfig) => [D],
  mlp: ({ intermediate_size: F }: OlmoHybridConfig) => [F],
  logits: ({ vocab_size: V }: OlmoHybridConfig) => [V],
  keys: ({ linear_num_key_heads: Hk, linear_key_head_dim: Dk }: OlmoHybridConfig) => [Hk, Dk],
  values: ({ linear_num_value_heads: H, linear_value_head_dim: Dv }: OlmoHybridConfig) => [H, Dv],
  gates: ({ linear_num_value_heads: H }: OlmoHybridConfig) => [H],
  state: ({ linear_num_value_heads: H, linear_key_head_dim: Dk, linear_value_head_dim: Dv }: OlmoHybridConfig) => [H, Dk, Dv],
  attention_queries: ({ num_attention_heads: H, head_dim: Dh }: OlmoHybridConfig) => [H, Dh],
  attention_keys: ({ num_key_value_heads: Hkv, head_dim: Dh }: OlmoHybridConfig) => [Hkv, Dh],
};
type Elements = keyof typeof SHAPES;

/** How an op computes, and so what rounding may do to its output. */
export type OpKind = 'lookup' | 'linear' | 'norm' | 'conv' | 'gate' | 'rotary' | 'recurrence' | 'attention' | 'sum';

type Row = readonly [op: string, kind: OpKind, elements: Elements, ...inputs: string[]];

const MLP: readonly Row[] = [
  ['mlp.down_proj', 'linear', 'stream', 'mlp.gate_proj', 'mlp.up_proj'],
  ['mlp', 'linear', 'stream', 'mlp.gate_proj', 'mlp.up_proj'],
];

/** A pre-norm block in the order of computation; `previous` is the residual stream before it. */
const LINEAR_ATTENTION_LAYER: readonly Row[] = [
  ['input_layernorm', 'norm', 'stream', 'previous'],
  ['linear_attn.q_proj', 'linear', 'keys', 'input_layernorm'],
  ['linear_attn.k_proj', 'linear', 'keys', 'input_layernorm'],
  ['linear_attn.v_proj', 'linear', 'values', 'input_layernorm'],
  ['linear_attn.a_proj', 'linear', 'gates', 'input_layernorm'],
  ['linear_attn.b_proj', 'linear', 'gates', 'input_layernorm'],
  ['linear_attn.g_proj', 'linear', 'values', 'input_layernorm'],
  ['linear_attn.q_conv1d', 'conv', 'keys', 'linear_attn.q_proj'],
  ['linear_attn.q_l2norm', 'norm', 'keys', 'linear_attn.q_conv1d'],
  ['linear_attn.k_conv1d', 'conv', 'keys', 'linear_attn.k_proj'],
  ['linear_attn.k_l2norm', 'norm', 'keys', 'linear_attn.k_conv1d'],
  ['linear_attn.v_conv1d', 'conv', 'values', 'linear_attn.v_proj'],
  ['linear_attn.g', 'gate', 'gates', 'linear_attn.a_proj'],
  ['linear_attn.beta', 'gate', 'gates', 'linear_attn.b_proj'],
  ['linear_attn.delta_rule', 'recurrence', 'values', ...delta('q_l2norm', 'k_l2norm', 'v_conv1d', 'g', 'beta')],
  ['linear_attn.state', 'recurrence', 'state', ...delta('k_l2norm', 'v_conv1d', 'g', 'beta')],
  ['linear_attn.o_norm', 'norm', 'values', 'linear_attn.delta_rule', 'linear_attn.g_proj'],
  ['linear_attn.o_proj', 'linear', 'stream', 'linear_attn.o_norm'],
  ['post_attention_layernorm', 'norm', 'stream', 'previous', 'linear_attn.o_proj'],
  ['mlp.gate_proj', 'linear', 'mlp', 'post_attention_layernorm'],
  ['mlp.up_proj', 'linear', 'mlp', 'post_attention_layernorm'],
  ...MLP,
  ['', 'sum', 'stream', 'previous', 'linear_attn.o_proj', 'mlp'],
];

/** A post-norm block. */
const ATTENTION_LAYER: readonly Row[] = [
  ['self_attn.q_proj', 'linear', 'attention_queries', 'previous'],
  ['self_attn.k_proj', 'linear', 'attention_keys', 'previous'],
  ['self_attn.v_proj', 'linear', 'attention_keys', 'previous'],
  ['self_attn.q_norm', 'norm', 'attention_queries', 'self_attn.q_proj'],
  ['self_attn.rotary_q', 'rotary', 'attention_queries', 'self_attn.q_norm'],
  ['self_attn.k_norm', 'norm', 'attention_keys', 'self_attn.k_proj'],
  ['self_attn.rotary_k', 'rotary', 'attention_keys', 'self_attn.k_norm'],
  ['self_attn.attention', 'attention', 'attention_queries', 'self_attn.rotary_q', 'self_attn.rotary_k', 'self_attn.v_proj'],
  ['self_attn.o_proj', 'linear', 'stream', 'self_attn.attention'],
  ['post_attention_layernorm', 'norm', 'stream', 'self_attn.o_proj'],
  ['mlp.gate_proj', 'linear', 'mlp', 'previous', 'post_attention_layernorm'],
  ['mlp.up_proj', 'linear', 'mlp', 'previous', 'post_attention_layernorm'],
  ...MLP,
  ['post_feedforward_layernorm', 'norm', 'stream', 'mlp'],
  ['', 'sum', 'stream', 'previous', 'post_attention_layernorm', 'post_feedforward_layernorm'],
];

function delta(...inputs: string[]): string[] {
  return inputs.map((input) => `linear_attn.${input}`);
}

/** An op of the forward pass whose output a trace may hold. */
export interface TracedOp {
  /** HF module path and the op's term. */
  readonly name: string;
  /** null before the first layer and behind the last. */
  readonly layer: number | null;
  /** The name within the layer; of the residual stream behind it, `''`. */
  readonly op: string;
  readonly kind: OpKind;
  readonly elements: Elements;
  /** Names of the ops whose outputs it takes. */
  readonly inputs: readonly string[];
  /** Which axis of the tensor counts heads; null for none. Axis 0 counts tokens, but for `state`. */
  readonly head_axis: 0 | 1 | null;
}

/** All ops of a model in the order of computation, rotary_q and rotary_k of every attention layer among them. */
export function forwardPass(layer_types: readonly LayerType[]): TracedOp[] {
  const embed = traced(null, 'model.embed_tokens', ['', 'lookup', 'stream'], []);
  const ops = [embed];
  let previous = embed.name;
  layer_types.forEach((type, layer) => {
    const path = `model.layers.${layer}`;
    const within = previous;
    const inLayer = (op: string) => (op === 'previous' ? within : `${path}.${op}`);
    for (const row of type === 'linear_attention' ? LINEAR_ATTENTION_LAYER : ATTENTION_LAYER) {
      const [op, , , ...inputs] = row;
      ops.push(traced(layer, op === '' ? path : inLayer(op), row, inputs.map(inLayer)));
    }
    previous = path;
  });
  const norm = traced(null, 'model.norm', ['', 'norm', 'stream'], [previous]);
  return [...ops, norm, traced(null, 'lm_head', ['', 'linear', 'logits'], [norm.name])];
}

function traced(layer: number | null, name: string, [op, kind, elements]: Row, inputs: readonly string[]): TracedOp {
  const headless = elements === 'stream' || elements === 'mlp' || elements === 'logits';
  const head_axis = headless ? null : elements === 'state' ? 0 : 1;
  return { name, layer, op: layer === null ? name : op, kind, elements, inputs, head_axis };
}

/** The ops that a model computes: without rotary_q and rotary_k in layers that have no position embedding. */
export function opsOf({ layer_types, rope }: OlmoHybridConfig): TracedOp[] {
  const isRotated = (type: LayerType) => type !== 'linear_attention' && rope[type] !== null;
  return forwardPass(layer_types).filter(({ kind, layer }) => kind !== 'rotary' || isRotated(layer_types[layer!]!));
}

/** The shape of an op's tensor in a trace of T tokens. */
export function shapeOf({ elements }: TracedOp, config: OlmoHybridConfig, T: number): number[] {
  const shape = SHAPES[elements](config);
  return elements === 'state' ? shape : [T, ...shape];
}
