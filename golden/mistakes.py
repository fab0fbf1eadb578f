"""The mistakes that ports of this model make, one at a time in the float64 truth, and how far each moves the logits."""

import json
from contextlib import ExitStack
from pathlib import Path
from unittest.mock import patch

import torch
from safetensors.torch import load_file

import truth
from model_cases import MODELS, model_cases

PIECE = 37  # where the prompt is cut for the mistakes that only a second call shows
FACTOR = 100  # a mistake must move the logits this many times as far as float32 rounding does


def rotary_with(theta):
    return lambda _config, _layer_type: theta and {"rope_theta": theta, "rope_type": "default"}


def state_read_before_decay(S, q, k, v, g, beta):
    u = beta[:, None] * (v - torch.einsum("hkv,hk->hv", S, k))
    S = S * g.exp()[:, None, None] + k[:, :, None] * u[:, None, :]
    return torch.einsum("hkv,hk->hv", S, q), S


def output_read_before_write(S, q, k, v, g, beta):
    o = torch.einsum("hkv,hk->hv", S * g.exp()[:, None, None], q)
    return o, correct_delta_step(S, q, k, v, g, beta)[1]


def state_in_bf16(*inputs):
    o, S = correct_delta_step(*inputs)
    return o, S.bfloat16().double()


def l2_eps_on_mean(x, eps):
    return x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + eps) * x.shape[-1] ** -0.5


def l2_eps_on_norm(x, eps):
    return x / (x.norm(dim=-1, keepdim=True) + eps)


def qk_norm_per_head(x, weight, eps, Dh):
    return truth.rms_norm(x.unflatten(-1, (-1, Dh)), weight.unflatten(-1, (-1, Dh)), eps)


def gate_before_norm(x, gate, weight, eps):
    return truth.rms_norm(x * truth.silu(gate), weight, eps)


def post_norm_linear_block(config, w, x, cache):
    eps = config["rms_norm_eps"]
    x = x + truth.rms_norm(truth.linear_attn(config, truth.scope(w, "linear_attn."), x, cache), w["input_layernorm.weight"], eps)
    return x + truth.rms_norm(truth.mlp(truth.scope(w, "mlp."), x), w["post_attention_layernorm.weight"], eps)


def pre_norm_attention_block(config, w, x, layer_type, cache):
    eps, attention = config["rms_norm_eps"], truth.scope(w, "self_attn.")
    x = x + truth.self_attn(config, attention, truth.rms_norm(x, w["post_attention_layernorm.weight"], eps), layer_type, cache)
    return x + truth.mlp(truth.scope(w, "mlp."), truth.rms_norm(x, w["post_feedforward_layernorm.weight"], eps))


def conv_state_after_activation(x, weight, state):
    y, _ = correct_causal_conv1d(x, weight, state)
    return y, torch.cat((state, y))[x.shape[0] :]


def shifted_conv(x, weight, state):
    """Each output is the one that belongs to the token before."""
    y, _ = correct_causal_conv1d(torch.cat((state[-1:], x[:-1])), weight, torch.cat((state[:1], state[:-1])))
    return y, torch.cat((state, x))[x.shape[0] :]


def window_one_longer(q, k, v, sliding_window):
    return correct_attention(q, k, v, sliding_window and sliding_window + 1)


def yarn_on_every_layer(config, _layer_type):
    return correct_rope_of(config, "full_attention")


def yarn_on_no_layer(config, _layer_type):
    return correct_rope_of(config, "sliding_attention")


correct_delta_step, correct_causal_conv1d = truth.delta_step, truth.causal_conv1d
correct_attention, correct_rope_of = truth.attention, truth.rope_of


def in_one_call(config, weights, ids):
    return truth.forward(config, weights, ids)[0]


def in_two_calls(config, weights, ids):
    caches = [{} for _ in config["layer_types"]]
    first, _ = truth.forward(config, weights, ids[:PIECE], caches)
    return torch.cat((first, truth.forward(config, weights, ids[PIECE:], caches)[0]))


def padded_first_piece(config, weights, ids):
    """The first piece is padded on the right by three tokens, whose keys are masked but which enter the state."""
    caches = [{} for _ in config["layer_types"]]
    padded = torch.cat((ids[:PIECE], ids.new_full((3,), config["pad_token_id"])))
    first = truth.forward(config, weights, padded, caches)[0][:PIECE]
    for cache in caches:
        cache.update({name: cache[name][:PIECE] for name in "kv" if "S" not in cache})
    return torch.cat((first, truth.forward(config, weights, ids[PIECE:], caches)[0]))


def state_kept_from_another_text(config, weights, ids):
    """What a rewind without a reset, or a packed sequence that leaks, leaves in the recurrent and convolution states."""
    caches = [{} for _ in config["layer_types"]]
    truth.forward(config, weights, ids[:PIECE], caches)
    caches = [cache if "S" in cache else {} for cache in caches]
    return truth.forward(config, weights, ids, caches)[0]


# name: (golden, the part of truth.py that is replaced and by what, the way the prompt is run)
MISTAKES = {
    "rope_on_for_nope": ("nope", {"rope_of": rotary_with(10000.0)}, in_one_call),
    "rope_off": ("rope", {"rope_of": rotary_with(None)}, in_one_call),
    "rope_theta_10000": ("rope", {"rope_of": rotary_with(10000.0)}, in_one_call),
    "state_read_before_decay": ("nope", {"delta_step": state_read_before_decay}, in_one_call),
    "output_read_before_write": ("nope", {"delta_step": output_read_before_write}, in_one_call),
    "state_in_bf16": ("nope", {"delta_step": state_in_bf16}, in_one_call),
    "l2_eps_on_mean": ("nope", {"l2_norm": l2_eps_on_mean}, in_one_call),
    "l2_eps_on_norm": ("nope", {"l2_norm": l2_eps_on_norm}, in_one_call),
    "o_norm_eps_1e-6": ("nope", {"O_NORM_EPS": 1e-6}, in_one_call),
    "qk_norm_per_head": ("nope", {"qk_norm": qk_norm_per_head}, in_one_call),
    "post_norm_in_gdn_block": ("nope", {"linear_block": post_norm_linear_block}, in_one_call),
    "pre_norm_in_attention_block": ("nope", {"attention_block": pre_norm_attention_block}, in_one_call),
    "gate_before_norm": ("nope", {"rms_norm_gated": gate_before_norm}, in_one_call),
    "beta_without_2": ("nope", {"gdn_beta": lambda b, _allow: truth.sigmoid(b)}, in_one_call),
    "shifted_conv": ("nope", {"causal_conv1d": shifted_conv}, in_one_call),
    "conv_state_after_activation": ("nope", {"causal_conv1d": conv_state_after_activation}, in_two_calls),
    "right_padding_in_state": ("nope", {}, padded_first_piece),
    "state_kept_from_another_text": ("nope", {}, state_kept_from_another_text),
    "window_one_longer": ("olmo3_sliding", {"attention": window_one_longer}, in_one_call),
    "yarn_on_every_layer": ("olmo3_yarn", {"rope_of": yarn_on_every_layer}, in_one_call),
    "yarn_on_no_layer": ("olmo3_yarn", {"rope_of": yarn_on_no_layer}, in_one_call),
    "key_heads_tiled": ("few_key_heads", {"repeat_heads": lambda x, n: x.repeat(1, n, 1)}, in_one_call),
}


def write_mistakes(path):
    """Write and return, for each mistake, the largest change of a logit and its ratio to PyTorch's float32 error."""
    cases, figures = {case.name: case for case in model_cases()}, {}
    for mistake, (name, replaced, run) in MISTAKES.items():
        config, weights, ids = cases[name].checkpoint()
        exact = in_one_call(config, weights, ids)
        if (in_two_calls(config, weights, ids) - exact).abs().max() > 1e-12 * exact.abs().max():
            raise AssertionError("two calls of the truth differ from one")
        with ExitStack() as stack:
            for part, replacement in replaced.items():
                stack.enter_context(patch.object(truth, part, replacement))
            change = (run(config, weights, ids) - exact).abs().max().item()
        rounding = float32_error(name, exact)
        figures[mistake] = {"model": name, "max_change": float(f"{change:.3g}"), "times_float32_error": float(f"{change / rounding:.3g}")}
        if change < FACTOR * rounding:
            raise AssertionError(f"{mistake} moves the logits of {name} by {change}, float32 rounding by {rounding}")
    Path(path).write_text(json.dumps(figures, indent=2) + "\n")
    return figures


def float32_error(name, exact):
    return (load_file(MODELS / name / "expected.safetensors")["logits"].double() - exact).abs().max().item()
