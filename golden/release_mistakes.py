"""The mistakes that ports of this model make, made in the PyTorch release itself, one at a time.

Each takes the model, the token ids and a stack that undoes what it replaced, and may return a cache that the pass then begins with.
"""

import copy
from functools import partial
from unittest.mock import patch

import torch
from torch.nn.functional import silu
from transformers import DynamicCache
from transformers.models.olmo_hybrid import modeling_olmo_hybrid as release


def modules(model, kind):
    return [module for module in model.modules() if isinstance(module, kind)]


def replace(name, make):
    """Put `make(original)` in the place of a function of the modelling file."""

    def mistake(_model, _ids, stack):
        stack.enter_context(patch.object(release, name, make(getattr(release, name))))

    return mistake


def each(kind, change):
    """Change every module of a kind in place."""

    def mistake(model, _ids, _stack):
        for module in modules(model, kind):
            change(module)

    return mistake


def rope(theta):
    def mistake(model, _ids, _stack):
        config = copy.deepcopy(model.config)
        config.rope_parameters = {"rope_theta": theta, "rope_type": "default"}
        model.model.rotary_emb = theta and release.OlmoHybridRotaryEmbedding(config)

    return mistake


def delta_rule(step, before=lambda q, k: (q, k)):
    """The delta rule token by token, with a step [H, ...] of one's own."""

    def rule(query, key, value, g, beta, initial_state=None, **_):
        query, key = before(query, key)
        q, k = (release.l2norm(x.transpose(1, 2).float())[0].transpose(0, 1) for x in (query, key))  # [T, H, Dk]
        q, v, g, beta = q * q.shape[-1] ** -0.5, value[0].float(), g[0], beta[0].float()
        S = q.new_zeros(*k.shape[1:], v.shape[-1]) if initial_state is None else initial_state[0].float()
        o = torch.empty_like(v)
        for t in range(len(v)):
            o[t], S = step(S, q[t], k[t], v[t], g[t].exp()[:, None, None], beta[t, :, None])
        return o[None].to(value.dtype), S[None]

    def mistake(_model, _ids, stack):
        for name in ("torch_chunk_gated_delta_rule", "torch_recurrent_gated_delta_rule"):
            stack.enter_context(patch.object(release, name, rule))

    return mistake


def read(S, x):
    return torch.einsum("hkv,hk->hv", S, x)


def right_step(S, q, k, v, decay, beta):
    S = S * decay
    S = S + k[:, :, None] * (beta * (v - read(S, k)))[:, None, :]
    return read(S, q), S


def decay_after_read(S, q, k, v, decay, beta):
    u = beta * (v - read(S, k))
    S = S * decay + k[:, :, None] * u[:, None, :]
    return read(S, q), S


def output_before_write(S, q, k, v, decay, beta):
    return read(S * decay, q), right_step(S, q, k, v, decay, beta)[1]


def state_in_bf16(*inputs):
    o, S = right_step(*inputs)
    return o, S.bfloat16().float()


def without_q_scale(S, q, *inputs):
    return right_step(S, q * q.shape[-1] ** 0.5, *inputs)


def tiled(q, k):  # [1, T, H, Dk] with each key head repeated on the spot: value head h should read key head h // repeats
    def tile(x):
        repeats = 1 + (x[:, :, 1:] == x[:, :, :-1]).flatten(3).all(-1).flatten(0, 1).all(0).long().cumprod(0).sum()
        return x[:, :, ::repeats].repeat(1, 1, repeats, 1)

    return tile(q), tile(k)


def per_head_norm(attention):
    def forward(norm, x):
        heads = x.unflatten(-1, (-1, attention.head_dim)).float()
        y = heads * torch.rsqrt(heads.pow(2).mean(-1, keepdim=True) + norm.variance_epsilon)
        return (norm.weight * y.flatten(-2)).to(x.dtype)

    for norm in (attention.q_norm, attention.k_norm):
        norm.forward = partial(forward, norm)


def gate_before_norm(o_norm):
    def forward(x, gate):
        x = x.float() * silu(gate.float())
        return (o_norm.weight * x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + o_norm.variance_epsilon)).to(gate.dtype)

    o_norm.forward = forward


def post_norm(layer):
    def forward(x, attention_mask=None, past_key_values=None, **_):
        x = x + layer.input_layernorm(layer.linear_attn(x, cache_params=past_key_values, attention_mask=attention_mask))
        return x + layer.post_attention_layernorm(layer.mlp(x))

    layer.forward = forward


def pre_norm(layer):
    def forward(x, **kwargs):
        x = x + layer.self_attn(layer.post_attention_layernorm(x), **kwargs)[0]
        return x + layer.mlp(layer.post_feedforward_layernorm(x))

    layer.forward = forward


def shifted(conv):
    """Each output is the one that belongs to the token before."""

    def convolution(x, *args, **kwargs):
        y = conv(x, *args, **kwargs)
        return torch.cat((torch.zeros_like(y[:, :, :1]), y[:, :, :-1]), dim=-1)

    return convolution


def reversed_kernel(conv):
    return lambda x, weight, **kwargs: conv(x, weight=weight.flip(-1), **kwargs)


def without_activation(conv):
    return lambda x, weight, activation=None, **kwargs: conv(x, weight=weight, **kwargs)


def conv_state(kept):
    """Between two calls, keep the last columns of `kept(mixer, x, y)`: x [1, T, D] went into the mixer, y [1, C, T] came from the convolution."""

    def mistake(model, _ids, stack):
        conv, outputs = release.causal_conv1d_fn, []

        def seen(x, **kwargs):
            outputs.append(conv(x, **kwargs))
            return outputs[-1]

        def overwrite(mixer, _inputs, kwargs, _output):
            states = kwargs["cache_params"].layers[mixer.layer_idx].conv_states[0]
            states.copy_(torch.cat((states, kept(mixer, kwargs["hidden_states"], outputs[-1])), dim=-1)[:, :, -states.shape[-1] :])

        stack.enter_context(patch.object(release, "causal_conv1d_fn", seen))
        for mixer in modules(model, release.OlmoHybridGatedDeltaNet):
            mixer.register_forward_hook(overwrite, with_kwargs=True)

    return mistake


def padding(mixer, x, _y):
    """What three copies of the last token would leave there."""
    pad = x[:, -1:].expand(-1, 3, -1)
    return torch.cat([proj.forward(pad) for proj in (mixer.q_proj, mixer.k_proj, mixer.v_proj)], dim=-1).transpose(1, 2)


def interleaved(_):
    """Neighbours are turned with each other, as in GPT-J."""

    def rotary(q, k, cos, sin):
        def turn(x):
            half = x.shape[-1] // 2
            c, s = cos[:, None, :, :half], sin[:, None, :, :half]
            x1, x2 = x[..., ::2], x[..., 1::2]
            return torch.stack((x1 * c - x2 * s, x2 * c + x1 * s), dim=-1).flatten(-2)

        return turn(q), turn(k)

    return rotary


def yarn_on_every_layer(model, _ids, _stack):
    rotary, forward = model.model.rotary_emb, model.model.rotary_emb.forward
    rotary.forward = lambda x, position_ids, layer_type: forward(x, position_ids, "full_attention")


def state_of_another_text(model, ids, _stack):
    """What a rewind without a reset leaves: the recurrent and convolution states of the text read backwards."""
    old = model(ids.flip(0)[None], use_cache=True).past_key_values
    cache = DynamicCache(config=model.config)
    for i, kind in enumerate(model.config.layer_types):
        if kind == "linear_attention":
            cache.layers[i] = old.layers[i]
    return cache


def l2norm(formula):
    return replace("l2norm", lambda _: lambda x, dim=-1, eps=1e-6: formula(x, eps))


def norm_of(x, eps):
    return torch.rsqrt(x.pow(2).sum(-1, keepdim=True) + eps)


MISTAKES = {
    "rope_on": rope(10000.0),
    "rope_off": rope(None),
    "rope_theta_10000": rope(10000.0),
    "rope_interleaved": replace("apply_rotary_pos_emb", interleaved),
    "yarn_on_every_layer": yarn_on_every_layer,
    "window_one_longer": lambda model, _ids, _stack: setattr(model.config, "sliding_window", model.config.sliding_window + 1),
    "kv_heads_tiled": replace("repeat_kv", lambda _: lambda x, repeats: x.repeat(1, repeats, 1, 1)),
    "qk_norm_per_head": each(release.OlmoHybridAttention, per_head_norm),
    "rms_norm_eps_1e-5": each(release.OlmoHybridRMSNorm, lambda norm: setattr(norm, "variance_epsilon", 1e-5)),
    "o_norm_eps_1e-6": each(release.OlmoHybridRMSNormGated, lambda norm: setattr(norm, "variance_epsilon", 1e-6)),
    "gate_before_norm": each(release.OlmoHybridRMSNormGated, gate_before_norm),
    "post_norm_in_gdn_block": each(release.OlmoHybridLinearAttentionDecoderLayer, post_norm),
    "pre_norm_in_attention_block": each(release.OlmoHybridAttentionDecoderLayer, pre_norm),
    "no_l2_norm": l2norm(lambda x, _eps: x),
    "l2_eps_on_mean": l2norm(lambda x, eps: x * norm_of(x, x.shape[-1] * eps)),
    "l2_eps_on_norm": l2norm(lambda x, eps: x / (x.norm(dim=-1, keepdim=True) + eps)),
    "l2_norm_eps_1e-5": l2norm(lambda x, eps: x * norm_of(x, 10 * eps)),
    "beta_without_2": each(release.OlmoHybridGatedDeltaNet, lambda mixer: setattr(mixer, "allow_neg_eigval", False)),
    "beta_with_2": each(release.OlmoHybridGatedDeltaNet, lambda mixer: setattr(mixer, "allow_neg_eigval", True)),
    "decay_after_read": delta_rule(decay_after_read),
    "output_before_write": delta_rule(output_before_write),
    "state_in_bf16": delta_rule(state_in_bf16),
    "no_q_scale": delta_rule(without_q_scale),
    "key_heads_tiled": delta_rule(right_step, tiled),
    "shifted_conv": replace("causal_conv1d_fn", shifted),
    "reversed_conv": replace("causal_conv1d_fn", reversed_kernel),
    "conv_without_activation": replace("causal_conv1d_fn", without_activation),
    "conv_state_after_activation": conv_state(lambda _mixer, _x, y: y),
    "conv_state_lost": conv_state(lambda _mixer, _x, y: torch.zeros_like(y)),
    "padding_in_state": conv_state(padding),
    "state_of_another_text": state_of_another_text,
}
