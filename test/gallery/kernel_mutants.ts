import {
  convolution,
  decayAfterRead,
  deltaRule,
  gateBeforeNorm,
  interleavedRotary,
  normOf,
  outputBeforeWrite,
  stateInBf16,
  stateLost,
  tiledKvHeads,
  transposedInDecode,
  withoutQScale,
} from './mistaken_kernels.ts';
import { CUT, inTwoCalls, type Mutant } from './mutant.ts';

const GDN = 'model.layers.0.linear_attn';

const DELTA_RULE: readonly Mutant[] = [
  {
    name: 'decay_after_read',
    bug: 'The state is read before it is decayed.',
    effect:
      'The correction beta (v - S^T k) is then made against a memory that has not yet faded, and takes away more than what is left of it. Heads that forget fast overshoot; where exp(g) is near 1 the two orders nearly agree, so that slow heads look right, and so does the first token.',
    seen: 'Taken for the definition in [flash-linear-attention#885](https://github.com/fla-org/flash-linear-attention/issues/885); the answer there is: decay first.',
    model: 'nope',
    op: `${GDN}.delta_rule`,
    causes: ['decay_after_read'],
    in_python: 'state_read_before_decay',
    kernel: 'gated_delta_rule',
    kernels: () => deltaRule(decayAfterRead),
  },
  {
    name: 'output_before_write',
    bug: 'The output is taken from the state before the token is written to it.',
    effect:
      'A token is answered from what was known before it: its own key and value are missing from its output. The state itself stays right, so the mistake shows in the output of the op alone.',
    seen: null,
    model: 'nope',
    op: `${GDN}.delta_rule`,
    causes: ['output_before_write'],
    in_python: 'output_read_before_write',
    kernel: 'gated_delta_rule',
    kernels: () => deltaRule(outputBeforeWrite),
  },
  {
    name: 'state_in_bf16',
    bug: 'The state is kept in bfloat16 between tokens.',
    effect:
      'Eight bits are left of each element after each token. A weak write to a strong memory is rounded away, and what was rounded is read again at the next token, so the first token is right and later ones drift.',
    seen: '[ollama#15865](https://github.com/ollama/ollama/issues/15865), in a Gated DeltaNet of another model.',
    model: 'nope',
    op: `${GDN}.delta_rule`,
    causes: ['state_in_bf16'],
    in_python: 'state_in_bf16',
    kernel: 'gated_delta_rule',
    kernels: () => deltaRule(stateInBf16),
  },
  {
    name: 'no_q_scale',
    bug: 'q is not scaled by 1 / sqrt(Dk).',
    effect:
      'The output is sqrt(Dk) times too large, but o_norm behind it divides by its size: what remains in the logits is that eps now counts for less. The larger the outputs of a model, the better the mistake hides.',
    seen: null,
    model: 'nope',
    op: `${GDN}.delta_rule`,
    causes: ['no_q_scale'],
    kernel: 'gated_delta_rule',
    kernels: () => deltaRule(withoutQScale),
  },
  {
    name: 'key_heads_tiled',
    bug: 'Value head h takes key head h mod Hk, where the release repeats each key head for its neighbours.',
    effect:
      'Value heads then read and write with the keys of others. Models with as many key heads as value heads, such as the 7B, do not show it.',
    seen: null,
    model: 'few_key_heads',
    op: `${GDN}.delta_rule`,
    causes: ['key_heads_tiled'],
    in_python: 'key_heads_tiled',
    kernel: 'gated_delta_rule',
    kernels: () => deltaRule(undefined, { keyHead: (h, { Hk }) => h % Hk }),
  },
  {
    name: 'state_transposed',
    bug: 'Prefill leaves the state as [Dk, Dv], decode takes it as [Dv, Dk].',
    effect:
      'A prompt alone is right to the last bit; the first decoded token reads a memory whose rows and columns have changed places, and all later ones build on it. Where Dk = Dv no shape tells, and a test from an empty state never does.',
    seen: '[sgl-kernel-npu#640](https://github.com/sgl-project/sgl-kernel-npu/issues/640), hidden by Dk = Dv = 128; [sparkinfer#610](https://github.com/gittensor-ai-lab/sparkinfer/pull/610).',
    model: 'nope',
    op: `${GDN}.delta_rule`,
    causes: ['state_transposed'],
    kernel: 'gated_delta_rule',
    kernels: transposedInDecode,
    run({ ids, see }) {
      see(ids.slice(0, CUT));
      for (const id of ids.slice(CUT)) see([id]);
    },
  },
];

const L2 = {
  model: 'nope',
  op: `${GDN}.q_l2norm`,
  kernel: 'l2_norm',
} as const;

const NORMS: readonly Mutant[] = [
  {
    ...L2,
    name: 'no_l2_norm',
    bug: 'q and k are not normalised.',
    effect:
      'A step of the delta rule multiplies the state by 1 - beta |k|^2 along k. With |k| = 1 and beta below 2 that is never more than 1 in size; without the norm long keys make it grow from token to token, and short ones write almost nothing.',
    seen: null,
    causes: ['no_l2_norm'],
    kernels: () => normOf(() => 1),
  },
  {
    ...L2,
    name: 'rms_for_l2_norm',
    bug: 'q and k are divided by the root of the mean of their squares, not of the sum.',
    effect:
      'Keys then have length sqrt(Dk), and a step multiplies the state by 1 - beta Dk along k: it alternates in sign and grows by that factor, until nothing else is left in it.',
    seen: '[1bit-MONSTER#2134](https://github.com/1bit-MONSTER/1bit-MONSTER/pull/2134), in another model: infinite after some 25 tokens.',
    causes: ['rms_for_l2_norm'],
    kernels: () => normOf((squares, eps, D) => Math.sqrt(squares / D + eps)),
  },
  {
    ...L2,
    name: 'l2_eps_on_mean',
    bug: 'The eps of the L2 norm is added to the mean of the squares instead of their sum.',
    effect:
      'That makes it Dk times as large. It is felt only by vectors whose length is near the root of eps, which are few and matter little: a small error that no glance at the text would find.',
    seen: null,
    causes: ['l2_eps_on_mean'],
    in_python: 'l2_eps_on_mean',
    kernels: () => normOf((squares, eps, D) => Math.sqrt(squares + D * eps)),
  },
  {
    ...L2,
    name: 'l2_eps_on_norm',
    bug: 'The eps of the L2 norm is added to the norm instead of the sum of the squares.',
    effect:
      'Under the root, eps keeps a vector of length 1e-3 at 0.7; beside it, at 0.999. Only such short vectors change. It is the smallest of these mistakes that float32 still sees.',
    seen: 'Its neighbour, the larger of norm and eps, was in [transformers#40842](https://github.com/huggingface/transformers/pull/40842) and [llama.cpp#28068](https://github.com/ggml-org/llama.cpp/pull/28068).',
    causes: ['l2_eps_on_norm'],
    in_python: 'l2_eps_on_norm',
    kernels: () => normOf((squares, eps) => Math.sqrt(squares) + eps),
  },
  {
    ...L2,
    name: 'l2_norm_eps_1e-5',
    bug: 'The L2 norm takes 1e-5 for its eps, as o_norm does.',
    effect: 'Ten times the eps: again only vectors near its root are shortened.',
    seen: null,
    causes: ['l2_norm_eps'],
    kernels: () => normOf((squares, eps) => Math.sqrt(squares + 10 * eps)),
  },
  {
    name: 'rms_norm_eps_1e-5',
    bug: 'The RMS norms take 1e-5 whatever the config says.',
    effect:
      'Rows of a mean square of 1 change by some 5e-6, the thousandth part of what bfloat16 can tell. In this model traces in float32 do not show it either, only those in float64.',
    seen: 'An eps that was a constant became a parameter in [llama.cpp#2374](https://github.com/ggml-org/llama.cpp/pull/2374).',
    model: 'nope',
    op: 'model.layers.0.input_layernorm',
    causes: ['rms_norm_eps'],
    kernel: 'rms_norm',
    kernels: (right) => ({ rms_norm: (y, x, weight) => right.rms_norm(y, x, weight, 1e-5) }),
  },
  {
    name: 'o_norm_eps_1e-6',
    bug: "o_norm takes the config's rms_norm_eps, 1e-6, where the release has 1e-5 whatever the config says.",
    effect:
      'What leaves the delta rule is often small: an almost empty state, a head that has just forgotten. There eps decides how loud it may be, and a tenth of it lets it be up to three times as loud.',
    seen: null,
    model: 'nope',
    op: `${GDN}.o_norm`,
    causes: ['o_norm_eps'],
    in_python: 'o_norm_eps_1e-6',
    kernel: 'rms_norm_gated',
    kernels: (right) => ({ rms_norm_gated: (y, x, gate, weight) => right.rms_norm_gated(y, x, gate, weight, 1e-6) }),
  },
  {
    name: 'gate_before_norm',
    bug: 'The gate is applied before the norm.',
    effect:
      'The norm then undoes what the gate was for: a head that is gated down as a whole comes out as loud as ever, and one open element dims all others of its head.',
    seen: '[flash-linear-attention#63](https://github.com/fla-org/flash-linear-attention/issues/63), where training and inference of one model took different orders.',
    model: 'nope',
    op: `${GDN}.o_norm`,
    causes: ['gate_before_norm'],
    in_python: 'gate_before_norm',
    kernel: 'rms_norm_gated',
    kernels: gateBeforeNorm,
  },
];

const GATES: readonly Mutant[] = [
  {
    name: 'beta_without_2',
    bug: 'The factor 2 of linear_allow_neg_eigval is left out.',
    effect:
      'beta stays below 1: a write may erase what a key had said, but never turn it around. Everything is written half as strongly, and states that flip sign, which the factor is for, cannot.',
    seen: null,
    model: 'nope',
    op: `${GDN}.beta`,
    causes: ['beta_without_2'],
    in_python: 'beta_without_2',
    kernel: 'gdn_beta',
    kernels: (right) => ({ gdn_beta: (beta, b) => right.gdn_beta(beta, b, 1) }),
  },
  {
    name: 'beta_with_2',
    bug: 'The factor 2 is there although linear_allow_neg_eigval is false.',
    effect: 'The other way round: writes overshoot, and what should be erased comes back with the other sign.',
    seen: null,
    model: 'no_neg_eigval',
    op: `${GDN}.beta`,
    causes: ['beta_with_2'],
    kernel: 'gdn_beta',
    kernels: (right) => ({ gdn_beta: (beta, b) => right.gdn_beta(beta, b, 2) }),
  },
];

const CONV = {
  model: 'nope',
  op: `${GDN}.q_conv1d`,
  kernel: 'causal_conv1d',
} as const;

const CONVOLUTIONS: readonly Mutant[] = [
  {
    ...CONV,
    name: 'shifted_conv',
    bug: 'Each token gets the output that belongs to the token before.',
    effect:
      'One column of padding too many. q, k and v of every Gated DeltaNet layer come a token late, while gates and residual stream do not: each layer writes the last word at the place of this one.',
    seen: null,
    causes: ['shifted_conv'],
    in_python: 'shifted_conv',
    kernels: () => convolution({ late: 1 }),
  },
  {
    ...CONV,
    name: 'reversed_conv',
    bug: 'The kernel is applied backwards in time.',
    effect:
      'A convolution in the sense of mathematics, where PyTorch computes a correlation: the weight of this token falls on the one W - 1 before it.',
    seen: null,
    causes: ['reversed_conv'],
    kernels: () => convolution({ tap: (j) => j }),
  },
  {
    ...CONV,
    name: 'conv_without_activation',
    bug: 'silu behind the convolution is left out.',
    effect: 'q, k and v keep the large negative values that silu takes away; keys point elsewhere after their norm.',
    seen: null,
    causes: ['conv_without_activation'],
    kernels: () => convolution({ activation: (x) => x }),
  },
  {
    ...CONV,
    name: 'conv_state_after_activation',
    bug: 'Between two calls the convolution keeps its outputs, where its state is its inputs.',
    effect:
      'One call is right. Each further call convolves its first W - 1 tokens with numbers of another kind, and the recurrent state keeps what came of it. When decoding, every token is a call.',
    seen: '[state-spaces/mamba#1027](https://github.com/state-spaces/mamba/pull/1027).',
    causes: ['conv_state_after_activation'],
    in_python: 'conv_state_after_activation',
    kernels: () => convolution({ kept: (_, y) => y }),
    run: inTwoCalls,
  },
  {
    ...CONV,
    name: 'conv_state_lost',
    bug: 'Each call begins with an empty state of the convolution.',
    effect: 'As above, with zeros: the seam between two pieces of a prompt is heard, and decoding sees no past but the state.',
    seen: null,
    causes: ['conv_state_lost'],
    kernels: stateLost,
    run: inTwoCalls,
  },
];

const ATTENTION: readonly Mutant[] = [
  {
    name: 'rope_interleaved',
    bug: 'Rotary embedding turns neighbours with each other, where the release turns the first half with the second.',
    effect:
      'Another convention for the same mathematics, right for weights that were permuted to fit it. On these, pairs turn that do not belong together; token 0 does not turn and is right.',
    seen: null,
    model: 'rope',
    op: 'model.layers.3.self_attn.rotary_q',
    causes: ['rope_interleaved'],
    kernel: 'rotary',
    kernels: interleavedRotary,
  },
  {
    name: 'window_one_longer',
    bug: "A sliding window of n sees n positions and the query's own, where its own counts among the n.",
    effect: 'Nothing changes for texts that fit the window. From there on one token too many is seen, in each layer one more.',
    seen: '[transformers#39408](https://github.com/huggingface/transformers/issues/39408), [mlx-lm#390](https://github.com/ml-explore/mlx-lm/pull/390).',
    model: 'olmo3_sliding',
    op: 'model.layers.0.self_attn.attention',
    causes: ['window'],
    in_python: 'window_one_longer',
    kernel: 'attention',
    kernels: (right) => ({
      attention: (o, q, k, v, position, shape) => right.attention(o, q, k, v, position, { ...shape, window: shape.window + 1 }),
    }),
  },
  {
    name: 'kv_heads_tiled',
    bug: 'Query head h reads KV head h mod Hkv, where the release repeats each KV head for its neighbours.',
    effect: 'Queries ask keys that were trained for others. Models without grouped heads, such as the 7B, do not show it.',
    seen: "Corrected in the definition of ONNX's Attention in [onnx#7274](https://github.com/onnx/onnx/pull/7274).",
    model: 'gqa',
    op: 'model.layers.3.self_attn.attention',
    causes: ['kv_heads_tiled'],
    kernel: 'attention',
    kernels: tiledKvHeads,
  },
];

/** Mistakes inside a kernel. */
export const KERNEL_MUTANTS: readonly Mutant[] = [...DELTA_RULE, ...NORMS, ...GATES, ...CONVOLUTIONS, ...ATTENTION];
