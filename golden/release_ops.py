"""The release's functions by the names of this project's kernels, on tensors shaped as golden/README.md says: inputs by name, outputs by name.

They are looked up when they are called, so that a mistake of release_mistakes.py shows in them.
"""

import torch
from transformers import Olmo3Config, OlmoHybridConfig
from transformers.cache_utils import LinearAttentionLayer
from transformers.models.olmo3 import modeling_olmo3 as olmo3
from transformers.models.olmo_hybrid import modeling_olmo_hybrid as release

from kernel_cases import gate_and_beta


def linear(x, **_):
    return {"y": torch.nn.functional.linear(x["x"], x["weight"].float(), x.get("bias"))}


def rms_norm(x, eps):
    module = release.OlmoHybridRMSNorm(x["x"].shape[1], eps)
    module.weight.data = x["weight"]
    return {"y": module(x["x"])}


def rms_norm_gated(x, eps):
    module = release.OlmoHybridRMSNormGated(x["x"].shape[1], eps=eps)
    module.weight.data = x["weight"]
    return {"y": module(x["x"], x["gate"])}


def l2_norm(x, eps):
    return {"y": release.l2norm(x["x"], eps=eps)}


def rotary(x, position, **rope):
    x = x["x"]
    T, H, Dh = x.shape
    positions = torch.arange(position, position + T)[None]
    sizes = {"hidden_size": H * Dh, "num_attention_heads": H, "num_hidden_layers": 4, "max_position_embeddings": 65536}
    if rope["rope_type"] == "yarn":
        config = Olmo3Config(**sizes, rope_parameters={"full_attention": rope, "sliding_attention": {"rope_type": "default"}})
        cos, sin = olmo3.Olmo3RotaryEmbedding(config)(x, positions, "full_attention")
    else:
        cos, sin = release.OlmoHybridRotaryEmbedding(OlmoHybridConfig(**sizes, rope_parameters=rope))(x, positions)
    turned, _ = release.apply_rotary_pos_emb(x[None].transpose(1, 2), x[None].transpose(1, 2), cos, sin)
    return {"y": turned[0].transpose(0, 1)}


def causal_conv1d(x, activation):
    x, weight, state = x["x"], x["weight"].squeeze(1), x["state"]
    layer, columns, W = LinearAttentionLayer(), x.T[None], weight.shape[1]
    # The release keeps W inputs; the oldest of them is never read again.
    layer.update_conv_state(torch.cat((torch.zeros_like(state[:1]), state)).T[None], conv_kernel_size=W)
    layer.has_previous_state[0] = True
    if len(x) > 1:
        columns = layer.update_conv_state(columns, conv_kernel_size=W)
        y = release.causal_conv1d_fn(columns, weight=weight, bias=None, activation=activation)[:, :, -len(x) :]
    else:
        y = release.causal_conv1d_update(columns, layer.conv_states[0], weight, None, activation)
    return {"y": y[0].T, "state_after": layer.conv_states[0][0].T[1:]}


def gdn_gate(x):
    return {"g": gate_and_beta(x["a"], x["a"], x["A_log"], x["dt_bias"], True)["g"]}


def gdn_beta(x, allow_neg_eigval):
    zeros = torch.zeros(x["b"].shape[1])
    return {"beta": gate_and_beta(x["b"], x["b"], zeros, zeros, allow_neg_eigval)["beta"]}


def gated_delta_rule(x, form):
    repeats = x["v"].shape[1] // x["k"].shape[1]
    q, k = (x[name].repeat_interleave(repeats, dim=1)[None] for name in "qk")
    function = release.torch_chunk_gated_delta_rule if form == "chunked" else release.torch_recurrent_gated_delta_rule
    rest = {"g": x["g"][None], "beta": x["beta"][None], "initial_state": x["state"][None].clone() if "state" in x else None}
    o, state = function(q, k, x["v"][None], **rest, output_final_state=True)
    return {"o": o[0], "state_after": state[0]}


def attention(x, sliding_window):
    q, k, v = (x[name][None].transpose(1, 2) for name in "qkv")
    T, S = q.shape[2], k.shape[2]
    t, s = torch.arange(S - T, S)[:, None], torch.arange(S)
    visible = (s <= t) & (s > t - (sliding_window or S))
    mask = torch.zeros(1, 1, T, S).masked_fill(~visible, torch.finfo(torch.float32).min)
    module = torch.nn.Module()
    module.num_key_value_groups, module.training = q.shape[1] // k.shape[1], False
    o, _ = release.eager_attention_forward(module, q, k, v, mask, scaling=q.shape[-1] ** -0.5)
    return {"o": o[0]}


def swiglu(x):
    D = x["gate"].shape[1]
    module = release.OlmoHybridMLP(OlmoHybridConfig(hidden_size=D, intermediate_size=D, num_attention_heads=1))
    return {"y": module.act_fn(x["gate"]) * x["up"]}


def softmax(x):
    return {"y": torch.nn.functional.softmax(x["x"], dim=-1)}


OPS = {
    f.__name__: f
    for f in (linear, rms_norm, rms_norm_gated, l2_norm, rotary, causal_conv1d, gdn_gate, gdn_beta, gated_delta_rule, attention, swiglu, softmax)
}
