import type { OlmoHybridConfig, RopeParameters } from '../../src/config.ts';
import type { DeltaState } from '../../src/model/cache.ts';
import type { LinearAttentionDecoderLayer } from '../../src/model/gated_delta_net.ts';
import { add_, type Op } from '../../src/model/nn.ts';
import type { OlmoHybridForCausalLM, Snapshot } from '../../src/model/olmo_hybrid.ts';
import type { Bank } from '../../src/runtime/bank.ts';
import type { Tensor } from '../../src/runtime/tensor.ts';
import { CUT, type Mutant, type Session } from './mutant.ts';

/** Three times the pad_token_id of config.json. */
const PADDING = [0, 0, 0];

/** What is private to a layer, and not safe from a mutant. */
interface Parts {
  bank: Bank;
  cache: never;
  input_layernorm: Op;
  post_attention_layernorm: Op;
  post_feedforward_layernorm: Op;
  linear_attn: (x: Tensor, state: DeltaState) => Tensor;
  self_attn: (x: Tensor, cache: never, position: number) => Tensor;
  mlp: Op;
  forward: (x: Tensor, position: number) => void;
}

function eachLayer(model: OlmoHybridForCausalLM, kind: 'linear_attn' | 'self_attn', change: (layer: Parts) => void): void {
  const { layers } = model as unknown as { layers: readonly (Parts & LinearAttentionDecoderLayer)[] };
  for (const layer of layers) if (kind in layer) change(layer);
}

function postNorm(layer: Parts): void {
  layer.forward = (x) => {
    add_(layer.bank, x, layer.input_layernorm(layer.linear_attn(x, layer.cache)));
    add_(layer.bank, x, layer.post_attention_layernorm(layer.mlp(x)));
  };
}

function preNorm(layer: Parts): void {
  layer.forward = (x, position) => {
    add_(layer.bank, x, layer.self_attn(layer.post_attention_layernorm(x), layer.cache, position));
    add_(layer.bank, x, layer.mlp(layer.post_feedforward_layernorm(x)));
  };
}

function rope(theta: number | null): (config: OlmoHybridConfig) => OlmoHybridConfig {
  const plain = {
    rope_type: 'default',
    factor: 1,
    original_max_position_embeddings: 1,
    beta_fast: 32,
    beta_slow: 1,
    attention_factor: null,
  };
  return (config) => ({
    ...config,
    rope: { ...config.rope, full_attention: theta === null ? null : ({ ...plain, rope_theta: theta } as RopeParameters) },
  });
}

/** `state` in the Gated DeltaNet layers, `rest` in the others: what a cache that cannot be cut back holds. */
function mixed({ config }: Session, state: Snapshot, rest: Snapshot): Snapshot {
  const layers = config.layer_types.map((type, i) => (type === 'linear_attention' ? state : rest).layers[i]!);
  return { position: rest.position, layers };
}

function stateAfter({ model }: Session, tokens: readonly number[]): Snapshot {
  model.reset();
  model.forward(tokens);
  return model.snapshot();
}

/** The first piece, seen; then `others` go through the Gated DeltaNet layers alone before the rest is seen. */
function withOthersInState(session: Session, others: readonly number[]): void {
  const { model, ids, see } = session;
  const first = ids.slice(0, CUT);
  const state = stateAfter(session, [...first, ...others]);
  model.reset();
  see(first);
  model.restore(mixed(session, state, model.snapshot()));
  see(ids.slice(CUT));
}

const Q_CONV = 'model.layers.0.linear_attn.q_conv1d';

const BLOCKS: readonly Mutant[] = [
  {
    name: 'rope_on',
    bug: 'Rotary position embedding is on in a checkpoint that has none.',
    effect:
      'The release was trained to its end without positions in its attention: order is the business of the recurrent layers. Turned queries and keys agree only at distance 0, and the farther a token looks back, the more is wrong.',
    seen: 'transformers 5.18.0 itself, for a `rope_parameters` of null ([golden/README.md](../golden/README.md)).',
    model: 'nope',
    op: 'model.layers.2.self_attn.rotary_q',
    causes: ['rope_on'],
    in_python: 'rope_on_for_nope',
    kernel: null,
    config: rope(10000),
  },
  {
    name: 'rope_off',
    bug: 'Rotary position embedding is off in a checkpoint that has it, such as the revisions of stages 1 and 2.',
    effect: 'Attention cannot tell where a word stood; what order is left comes from the recurrent layers.',
    seen: null,
    model: 'rope',
    op: 'model.layers.3.self_attn.rotary_q',
    causes: ['rope_off'],
    in_python: 'rope_off',
    kernel: null,
    config: rope(null),
  },
  {
    name: 'rope_theta_10000',
    bug: 'theta is 10000, the usual default, where the config says 500000.',
    effect: 'All but the fastest pair turn too fast: distances look longer than they are, most of all the long ones.',
    seen: null,
    model: 'rope',
    op: 'model.layers.3.self_attn.rotary_q',
    causes: ['rope_theta'],
    in_python: 'rope_theta_10000',
    kernel: null,
    config: rope(10000),
  },
  {
    name: 'yarn_on_every_layer',
    bug: 'YaRN is applied in the sliding layers of OLMo 3 as well.',
    effect: 'Slow pairs turn an eighth as far and scores grow by the square of the attention factor, in three layers of four.',
    seen: '[vllm#43419](https://github.com/vllm-project/vllm/pull/43419), [transformers#45945](https://github.com/huggingface/transformers/pull/45945).',
    model: 'olmo3_yarn',
    op: 'model.layers.0.self_attn.rotary_q',
    causes: ['rope_of_another_layer'],
    in_python: 'yarn_on_every_layer',
    kernel: null,
    config: (config) => ({ ...config, rope: { ...config.rope, sliding_attention: config.rope.full_attention } }),
  },
  {
    name: 'yarn_on_no_layer',
    bug: 'YaRN is left out of the full layers of OLMo 3.',
    effect: 'The other way round: the full layers turn as if the context had never been extended.',
    seen: null,
    model: 'olmo3_yarn',
    op: 'model.layers.3.self_attn.rotary_q',
    causes: ['rope_of_another_layer', 'rope_theta'], // the plain angles are those of the other layers
    in_python: 'yarn_on_no_layer',
    kernel: null,
    config: (config) => ({ ...config, rope: { ...config.rope, full_attention: config.rope.sliding_attention } }),
  },
  {
    name: 'qk_norm_per_head',
    bug: 'q and k are normalised head by head, where the norm goes over their full width.',
    effect:
      'Each head is brought to the same loudness. In the release a head may be louder than another, and so attend more sharply; that is lost. Where the weight is cut into heads as well, every shape fits.',
    seen: 'With OLMo 3, whose norm is the same, in [vllm-metal#691](https://github.com/vllm-project/vllm-metal/issues/691), where the weight did not fit and it crashed.',
    model: 'nope',
    op: 'model.layers.2.self_attn.q_norm',
    causes: ['qk_norm_per_head'],
    in_python: 'qk_norm_per_head',
    kernel: null,
    kernels: (right, nameOf, { head_dim: Dh }) => ({
      rms_norm(y, x, weight, eps) {
        if (!/self_attn\.[qk]_norm\.weight$/.test(nameOf(weight) ?? '')) return right.rms_norm(y, x, weight, eps);
        const [rows, cols] = [(x.rows * x.cols) / Dh, Dh];
        right.rms_norm({ ...y, rows, cols }, { ...x, rows, cols }, { ...weight, cols, data: new Float64Array(Dh).fill(1) }, eps);
        for (let i = 0; i < x.rows * x.cols; i++) y.data[i]! *= weight.data[i % x.cols]!;
      },
    }),
  },
  {
    name: 'post_norm_in_gdn_block',
    bug: 'The Gated DeltaNet block is post-norm, as the attention block is.',
    effect:
      "The two kinds of block have norms in other places and, in part, under the same names. The mixer then reads the residual stream as it is, and what it adds has the size of a norm's weight, whatever it had to say.",
    seen: null,
    model: 'nope',
    op: 'model.layers.0.input_layernorm',
    causes: ['post_norm_in_gdn_block'],
    in_python: 'post_norm_in_gdn_block',
    kernel: null,
    model_change: (model) => eachLayer(model, 'linear_attn', postNorm),
  },
  {
    name: 'pre_norm_in_attention_block',
    bug: 'The attention block is pre-norm, as the Gated DeltaNet block is.',
    effect: 'The same mistake in the other block: what attention adds is no longer held to a norm.',
    seen: null,
    model: 'nope',
    op: 'model.layers.2.self_attn.q_proj',
    causes: ['pre_norm_in_attention_block'],
    in_python: 'pre_norm_in_attention_block',
    kernel: null,
    model_change: (model) => eachLayer(model, 'self_attn', preNorm),
  },
];

const STATES: readonly Mutant[] = [
  {
    name: 'right_padding_in_state',
    bug: 'A piece of the prompt is padded on the right, and the padding enters the state.',
    effect:
      "Attention masks what lies behind; a recurrence cannot. The padding is written like words, pushes the last tokens out of the convolution's state, and decays all else. The piece itself is right; what follows it is not.",
    seen: '[transformers#48256](https://github.com/huggingface/transformers/issues/48256), in models of the Mamba family.',
    model: 'nope',
    op: Q_CONV,
    causes: ['foreign_inputs_in_state'],
    in_python: 'right_padding_in_state',
    kernel: null,
    run: (session) => withOthersInState(session, PADDING),
  },
  {
    name: 'state_kept_after_rewind',
    bug: 'After some tokens the text is cut back, and the recurrent state is not.',
    effect:
      'A KV cache is cut by forgetting rows; a recurrent state has none. The model goes on with a memory of tokens that are no longer there: rejected drafts, an edited turn of a chat.',
    seen: 'Reported in [llama.cpp#21681](https://github.com/ggml-org/llama.cpp/issues/21681), of another hybrid.',
    model: 'nope',
    op: Q_CONV,
    causes: ['foreign_inputs_in_state'],
    kernel: null,
    run: (session) => withOthersInState(session, session.ids.slice(5, 12)),
  },
  {
    name: 'state_of_another_text',
    bug: 'A text begins with the states that another has left.',
    effect:
      'Positions and attention begin anew, so nothing looks wrong from outside. The answer is mixed with what the last user asked, most of all in its first tokens and in the heads that forget slowly.',
    seen: '[ik_llama.cpp#1696](https://github.com/ikawrakow/ik_llama.cpp/pull/1696), in another hybrid.',
    model: 'nope',
    op: Q_CONV,
    causes: ['state_of_another_text'],
    in_python: 'state_kept_from_another_text',
    kernel: null,
    run(session) {
      const { model, ids, see } = session;
      const state = stateAfter(session, ids.slice(0, CUT));
      model.reset();
      model.restore(mixed(session, state, model.snapshot()));
      see(ids);
    },
  },
  {
    name: 'packed_sequences_leak',
    bug: 'Of two texts that are packed into one row, the second begins with the recurrent state of the first; its convolutions begin anew.',
    effect:
      'The boundaries of the texts reached one kernel and not the other. Nothing fails; what a token sees depends on which text happened to lie before its own.',
    seen: '[slime#1686](https://github.com/THUDM/slime/pull/1686); [transformers#44836](https://github.com/huggingface/transformers/pull/44836), for this model.',
    model: 'nope',
    op: 'model.layers.0.linear_attn.delta_rule',
    causes: ['state_of_another_text'],
    kernel: null,
    run(session) {
      const { model, ids, see, config } = session;
      const { layers } = stateAfter(session, ids.slice(20, 50));
      model.reset();
      const empty = model.snapshot();
      const leaked = empty.layers.map((cache, i) =>
        config.layer_types[i] === 'linear_attention' ? [...cache.slice(0, 3), layers[i]![3]!] : cache,
      );
      model.restore({ ...empty, layers: leaked });
      see(ids);
    },
  },
];

/** Right kernels, put together wrongly. */
export const WIRING_MUTANTS: readonly Mutant[] = [...BLOCKS, ...STATES];
