"""Tiny random checkpoints: a config, weights under the released names, and the folder that holds them."""

import json
import math

import torch

from random_values import Random
from safetensors_file import write_safetensors

EOS, PAD = 1, 0

# Every size is distinct and none is a multiple of 16, so that no transposition and no tail goes unseen.
OLMO_HYBRID = {
    "architectures": ["OlmoHybridForCausalLM"],
    "attention_bias": False,
    "attention_dropout": 0.0,
    "bos_token_id": None,
    "eos_token_id": EOS,
    "hidden_act": "silu",
    "hidden_size": 40,
    "initializer_range": 0.02,
    "intermediate_size": 54,
    "layer_types": ["linear_attention", "linear_attention", "linear_attention", "full_attention"],
    "linear_allow_neg_eigval": True,
    "linear_conv_kernel_dim": 4,
    "linear_key_head_dim": 9,
    "linear_num_key_heads": 3,
    "linear_num_value_heads": 3,
    "linear_value_head_dim": 14,
    "max_position_embeddings": 4096,
    "model_type": "olmo_hybrid",
    "num_attention_heads": 4,
    "num_hidden_layers": 4,
    "num_key_value_heads": 4,
    "pad_token_id": PAD,
    "rms_norm_eps": 1e-06,
    "rope_parameters": {"rope_theta": None, "rope_type": "default"},
    "tie_word_embeddings": False,
    "use_cache": True,
    "vocab_size": 97,
}

OLMO3 = {
    "architectures": ["Olmo3ForCausalLM"],
    "attention_bias": False,
    "attention_dropout": 0.0,
    "bos_token_id": None,
    "eos_token_id": EOS,
    "hidden_act": "silu",
    "hidden_size": 40,
    "initializer_range": 0.02,
    "intermediate_size": 54,
    "layer_types": ["sliding_attention", "sliding_attention", "sliding_attention", "full_attention"],
    "max_position_embeddings": 4096,
    "model_type": "olmo3",
    "num_attention_heads": 4,
    "num_hidden_layers": 4,
    "num_key_value_heads": 4,
    "pad_token_id": PAD,
    "rms_norm_eps": 1e-06,
    "rope_scaling": None,
    "rope_theta": 500000.0,
    "sliding_window": 11,
    "tie_word_embeddings": False,
    "use_cache": True,
    "vocab_size": 97,
}


def _projection(r, N, K, gain=1.0):
    return r.normal(N, K, scale=gain / math.sqrt(K))


def _norm(r, D):
    return r.uniform(D, low=0.3, high=1.8)


def _mlp(r, D, I):  # noqa: E741
    return {
        "mlp.gate_proj.weight": _projection(r, I, D, 1.2),
        "mlp.up_proj.weight": _projection(r, I, D),
        "mlp.down_proj.weight": _projection(r, D, I, 0.7),
    }


def _by_head(heads, size, scales):
    """Scales [heads * size, 1] that go through `scales` head by head."""
    return torch.tensor([scales[h % len(scales)] for h in range(heads)]).repeat_interleave(size)[:, None]


def _linear_attention_layer(config, r):
    D, W = config["hidden_size"], config["linear_conv_kernel_dim"]
    Hk, Dk = config["linear_num_key_heads"], config["linear_key_head_dim"]
    H, Dv = config["linear_num_value_heads"], config["linear_value_head_dim"]
    # Some heads are so small that the eps of the L2 norm and of o_norm show, the others as large as trained ones.
    q_scale, k_scale = _by_head(Hk, Dk, [0.01, 1.0, 0.7]), _by_head(Hk, Dk, [1.0, 0.02, 0.7])
    v_scale = _by_head(H, Dv, [1.0, 0.7, 0.01])
    return {
        "input_layernorm.weight": _norm(r, D),
        "linear_attn.q_proj.weight": _projection(r, Hk * Dk, D),
        "linear_attn.k_proj.weight": _projection(r, Hk * Dk, D),
        "linear_attn.v_proj.weight": _projection(r, H * Dv, D),
        "linear_attn.a_proj.weight": _projection(r, H, D),
        "linear_attn.b_proj.weight": _projection(r, H, D, 3.0),
        "linear_attn.g_proj.weight": _projection(r, H * Dv, D, 1.5),
        "linear_attn.o_proj.weight": _projection(r, D, H * Dv, 0.7),
        "linear_attn.q_conv1d.weight": (r.normal(Hk * Dk, W) * q_scale)[:, None],
        "linear_attn.k_conv1d.weight": (r.normal(Hk * Dk, W) * k_scale)[:, None],
        "linear_attn.v_conv1d.weight": (r.normal(H * Dv, W) * v_scale)[:, None],
        "linear_attn.o_norm.weight": _norm(r, Dv),
        # g from about -0.005 in the first head to strong decay in the last
        "linear_attn.A_log": torch.linspace(-2.5, 1.5, H) + r.normal(H, scale=0.2),
        "linear_attn.dt_bias": torch.linspace(-3.0, 0.5, H) + r.normal(H, scale=0.3),
        "post_attention_layernorm.weight": _norm(r, D),
        **_mlp(r, D, config["intermediate_size"]),
    }


def _attention_layer(config, r):
    D, H, Hkv = config["hidden_size"], config["num_attention_heads"], config["num_key_value_heads"]
    Dh = config.get("head_dim") or D // H
    layer = {
        # Heads of unequal length, so that a norm over each head differs from the norm over all of them.
        "self_attn.q_proj.weight": _projection(r, H * Dh, D) * _by_head(H, Dh, [1.0, 0.4, 2.0]),
        "self_attn.k_proj.weight": _projection(r, Hkv * Dh, D) * _by_head(Hkv, Dh, [0.6, 1.6]),
        "self_attn.v_proj.weight": _projection(r, Hkv * Dh, D),
        "self_attn.o_proj.weight": _projection(r, D, H * Dh),
        "self_attn.q_norm.weight": _norm(r, H * Dh) * 1.3,
        "self_attn.k_norm.weight": _norm(r, Hkv * Dh) * 1.3,
        "post_attention_layernorm.weight": _norm(r, D),
        "post_feedforward_layernorm.weight": _norm(r, D),
        **_mlp(r, D, config["intermediate_size"]),
    }
    if config["attention_bias"]:
        for p in "qkvo":
            layer[f"self_attn.{p}_proj.bias"] = r.normal(layer[f"self_attn.{p}_proj.weight"].shape[0], scale=0.5)
    return layer


def random_weights(config, seed, dtype):
    """Weights under the released names, rounded to the storage `dtype`, drawn from the name `seed`."""
    r, V, D = Random(seed), config["vocab_size"], config["hidden_size"]
    tied = config["tie_word_embeddings"]
    weights = {"model.embed_tokens.weight": r.normal(V, D, scale=2.0 if tied else 3.0)}
    for i, layer_type in enumerate(config["layer_types"]):
        layer = _linear_attention_layer(config, r) if layer_type == "linear_attention" else _attention_layer(config, r)
        weights |= {f"model.layers.{i}.{name}": tensor for name, tensor in layer.items()}
    # Signs at random keep a tied model from answering each token with itself.
    weights["model.norm.weight"] = r.normal(D, scale=0.22) if tied else _norm(r, D)
    if not tied:
        weights["lm_head.weight"] = _projection(r, V, D, 2.0)
    weights["model.embed_tokens.weight" if tied else "lm_head.weight"][EOS] *= 0.01  # no greedy continuation meets eos
    return {name: tensor.to(dtype) for name, tensor in weights.items()}


def fused_conv_names(weights):
    """The three convolutions of a layer as one `linear_attn.conv1d.weight`, q then k then v."""
    fused = {name: tensor for name, tensor in weights.items() if "_conv1d." not in name}
    for name in weights:
        if name.endswith("q_conv1d.weight"):
            parts = [weights[name.replace("q_conv1d", f"{p}_conv1d")] for p in "qkv"]
            fused[name.replace("q_conv1d", "conv1d")] = torch.cat(parts)
    return fused


def olmo_core_names(weights):
    """OLMo-core's names inside Gated DeltaNet: `out_proj` for `o_proj`, `norm` for `o_norm`."""
    renames = {"linear_attn.o_proj.": "linear_attn.out_proj.", "linear_attn.o_norm.": "linear_attn.norm."}
    renamed = {}
    for name, tensor in weights.items():
        for old, new in renames.items():
            name = name.replace(old, new)
        renamed[name] = tensor
    return renamed


def write_checkpoint(folder, config, weights, shards=1):
    """Write config.json and one model.safetensors, or `shards` files and their index, as the hub stores them."""
    folder.mkdir(parents=True, exist_ok=True)
    dtype = {torch.float32: "float32", torch.bfloat16: "bfloat16", torch.float16: "float16"}[weights["model.norm.weight"].dtype]
    (folder / "config.json").write_text(json.dumps({**config, "dtype": dtype}, indent=2, sort_keys=True) + "\n")
    if shards == 1:
        write_safetensors(folder / "model.safetensors", weights, {"format": "pt"})
        return
    names, weight_map = list(weights), {}
    per_shard = math.ceil(len(names) / shards)
    for i in range(shards):
        file, part = f"model-{i + 1:05}-of-{shards:05}.safetensors", names[i * per_shard : (i + 1) * per_shard]
        write_safetensors(folder / file, {name: weights[name] for name in part}, {"format": "pt"})
        weight_map |= dict.fromkeys(part, file)
    total = sum(tensor.numel() * tensor.element_size() for tensor in weights.values())
    index = {"metadata": {"total_size": total}, "weight_map": dict(sorted(weight_map.items()))}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index, indent=2) + "\n")
