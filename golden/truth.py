"""OLMo Hybrid and OLMo 3 in float64: each kernel as its formula, then the model in PyTorch's order of operations.

Nothing here is rounded to float32 and the delta rule is the recurrence itself, so the difference between any float32
implementation and this file is that implementation's rounding error. Letters: T tokens, D hidden_size, H heads,
Hkv key/value heads, Dh head_dim, Dk and Dv key and value head sizes of Gated DeltaNet, W convolution width, S state.
"""

import math

import torch
from torch.nn.functional import sigmoid, silu, softplus

L2_EPS = 1e-6
O_NORM_EPS = 1e-5  # FLA's default, which the release keeps whatever rms_norm_eps says


def linear(x, weight, bias=None):  # [T, K], [N, K], [N] -> [T, N]
    y = x @ weight.T
    return y if bias is None else y + bias


def rms_norm(x, weight, eps):  # [T, D], [D] -> [T, D]
    return weight * (x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + eps))


def rms_norm_gated(x, gate, weight, eps):  # the norm comes before the gate
    return rms_norm(x, weight, eps) * silu(gate)


def l2_norm(x, eps):  # eps is added to the sum of squares, not to their mean
    return x * torch.rsqrt(x.pow(2).sum(-1, keepdim=True) + eps)


def softmax(x):
    return torch.softmax(x, dim=-1)


def swiglu(gate, up):
    return silu(gate) * up


def inverse_frequencies(Dh, rope):
    """Inverse frequencies [Dh/2] and the factor on cos and sin, for rope_type default or yarn (arXiv:2309.00071)."""
    theta = rope["rope_theta"]
    steps = torch.arange(0, Dh, 2, dtype=torch.float64) / Dh
    extrapolated = theta**-steps
    if rope.get("rope_type", "default") == "default":
        return extrapolated, 1.0
    factor, original = rope["factor"], rope["original_max_position_embeddings"]

    def dim_at(rotations):
        return Dh * math.log(original / (rotations * 2 * math.pi)) / (2 * math.log(theta))

    low, high = dim_at(rope.get("beta_fast") or 32), dim_at(rope.get("beta_slow") or 1)
    if rope.get("truncate", True):
        low, high = math.floor(low), math.ceil(high)
    low, high = max(low, 0), min(high, Dh - 1)
    ramp = ((torch.arange(Dh // 2, dtype=torch.float64) - low) / ((high - low) or 0.001)).clamp(0, 1)
    scale, mscale, mscale_all_dim = (rope.get(key) for key in ("attention_factor", "mscale", "mscale_all_dim"))
    if scale is None:
        mscales = (mscale, mscale_all_dim) if mscale and mscale_all_dim else (1, 0)
        numerator, denominator = (0.1 * m * math.log(max(factor, 1)) + 1 for m in mscales)
        scale = numerator / denominator
    return extrapolated / factor * ramp + extrapolated * (1 - ramp), scale


def rotary(x, rope, position):  # [T, H, Dh]; row t sits at position + t
    T, _, Dh = x.shape
    inv_freq, scale = inverse_frequencies(Dh, rope)
    angle = (torch.arange(T, dtype=torch.float64) + position)[:, None, None] * inv_freq  # [T, 1, Dh/2]
    cos, sin = angle.cos() * scale, angle.sin() * scale
    x1, x2 = x[..., : Dh // 2], x[..., Dh // 2 :]
    return torch.cat((x1 * cos - x2 * sin, x2 * cos + x1 * sin), dim=-1)


def causal_conv1d(x, weight, state):  # [T, C], [C, 1, W], [W-1, C] -> [T, C], [W-1, C]
    T, W = x.shape[0], weight.shape[-1]
    window = torch.cat((state, x))  # what came before the activation, oldest first
    y = sum(window[i : i + T] * weight[:, 0, i] for i in range(W))
    return silu(y), window[T:]


def gdn_gate(a, A_log, dt_bias):  # [T, H], [H], [H] -> log decay [T, H]
    return -A_log.exp() * softplus(a + dt_bias)


def gdn_beta(b, allow_neg_eigval):
    return sigmoid(b) * (2.0 if allow_neg_eigval else 1.0)


def delta_step(S, q, k, v, g, beta):
    """One token: S [H, Dk, Dv], q and k [H, Dk], v [H, Dv], g and beta [H] -> o [H, Dv] and the new S."""
    S = S * g.exp()[:, None, None]  # decay first, then read, then write
    u = beta[:, None] * (v - torch.einsum("hkv,hk->hv", S, k))
    S = S + k[:, :, None] * u[:, None, :]
    return torch.einsum("hkv,hk->hv", S, q), S


def repeat_heads(x, repeats):  # head h of the result is head h // repeats of x
    return x.repeat_interleave(repeats, dim=1)


def gated_delta_rule(q, k, v, g, beta, S):
    """q and k [T, Hk, Dk] normalised but not scaled, v [T, H, Dv], g and beta [T, H], S [H, Dk, Dv]."""
    repeats = v.shape[1] // k.shape[1]
    q, k = repeat_heads(q, repeats) * q.shape[-1] ** -0.5, repeat_heads(k, repeats)
    o = torch.empty_like(v)
    for t in range(v.shape[0]):
        o[t], S = delta_step(S, q[t], k[t], v[t], g[t], beta[t])
    return o, S


def attention(q, k, v, sliding_window=None):  # [T, H, Dh], [S, Hkv, Dh] twice -> [T, H, Dh]
    T, S, repeats = q.shape[0], k.shape[0], q.shape[1] // k.shape[1]
    k, v = repeat_heads(k, repeats), repeat_heads(v, repeats)
    here, there = torch.arange(S - T, S)[:, None], torch.arange(S)[None, :]
    hidden = there > here
    if sliding_window is not None:
        hidden |= there <= here - sliding_window
    scores = torch.einsum("thd,shd->hts", q, k) * q.shape[-1] ** -0.5
    return torch.einsum("hts,shd->thd", softmax(scores.masked_fill(hidden, -math.inf)), v)


def rope_of(config, layer_type):
    """The rotary parameters of a layer, or None for NoPE (a null or absent theta)."""
    if config["model_type"] == "olmo3":
        rope = config.get("rope_parameters")
        if rope is None:
            if layer_type == "sliding_attention":  # HF gives the theta at the top to the full layers alone
                return {"rope_theta": 500000.0}
            return {"rope_theta": config["rope_theta"], **(config.get("rope_scaling") or {})}
        return {**rope[layer_type], "truncate": rope.get("truncate", True)}  # HF reads it beside the layer types, not within
    rope = config.get("rope_parameters") or {}
    return rope if rope.get("rope_theta") is not None else None


def qk_norm(x, weight, eps, Dh):  # over the full width, before the split into heads
    return rms_norm(x, weight, eps).unflatten(-1, (-1, Dh))


def mlp(w, x):
    return linear(swiglu(linear(x, w["gate_proj.weight"]), linear(x, w["up_proj.weight"])), w["down_proj.weight"])


def self_attn(config, w, x, layer_type, cache):
    Dh = config.get("head_dim") or config["hidden_size"] // config["num_attention_heads"]
    eps, past = config["rms_norm_eps"], cache["k"].shape[0] if cache else 0
    q, k, v = (linear(x, w[f"{p}_proj.weight"], w.get(f"{p}_proj.bias")) for p in "qkv")
    q, k = qk_norm(q, w["q_norm.weight"], eps, Dh), qk_norm(k, w["k_norm.weight"], eps, Dh)
    v = v.unflatten(-1, (-1, Dh))
    if (rope := rope_of(config, layer_type)) is not None:
        q, k = rotary(q, rope, past), rotary(k, rope, past)
    if cache:
        k, v = torch.cat((cache["k"], k)), torch.cat((cache["v"], v))
    cache.update(k=k, v=v)
    o = attention(q, k, v, config["sliding_window"] if layer_type == "sliding_attention" else None)
    return linear(o.flatten(1), w["o_proj.weight"], w.get("o_proj.bias"))


def linear_attn(config, w, x, cache):
    Dk, Dv, W = config["linear_key_head_dim"], config["linear_value_head_dim"], config["linear_conv_kernel_dim"]
    if not cache:
        cache.update({p: x.new_zeros(W - 1, w[f"{p}_conv1d.weight"].shape[0]) for p in "qkv"})
        cache["S"] = x.new_zeros(config["linear_num_value_heads"], Dk, Dv)
    mixed = {}
    for p in "qkv":
        mixed[p], cache[p] = causal_conv1d(linear(x, w[f"{p}_proj.weight"]), w[f"{p}_conv1d.weight"], cache[p])
    q, k = (l2_norm(mixed[p].unflatten(-1, (-1, Dk)), L2_EPS) for p in "qk")
    g = gdn_gate(linear(x, w["a_proj.weight"]), w["A_log"], w["dt_bias"])
    beta = gdn_beta(linear(x, w["b_proj.weight"]), config["linear_allow_neg_eigval"])
    o, cache["S"] = gated_delta_rule(q, k, mixed["v"].unflatten(-1, (-1, Dv)), g, beta, cache["S"])
    gate = linear(x, w["g_proj.weight"]).unflatten(-1, (-1, Dv))
    return linear(rms_norm_gated(o, gate, w["o_norm.weight"], O_NORM_EPS).flatten(1), w["o_proj.weight"])


def linear_block(config, w, x, cache):  # pre-norm
    eps = config["rms_norm_eps"]
    x = x + linear_attn(config, scope(w, "linear_attn."), rms_norm(x, w["input_layernorm.weight"], eps), cache)
    return x + mlp(scope(w, "mlp."), rms_norm(x, w["post_attention_layernorm.weight"], eps))


def attention_block(config, w, x, layer_type, cache):  # post-norm
    eps = config["rms_norm_eps"]
    x = x + rms_norm(self_attn(config, scope(w, "self_attn."), x, layer_type, cache), w["post_attention_layernorm.weight"], eps)
    return x + rms_norm(mlp(scope(w, "mlp."), x), w["post_feedforward_layernorm.weight"], eps)


def scope(w, prefix):
    return {name[len(prefix) :]: tensor for name, tensor in w.items() if name.startswith(prefix)}


def forward(config, weights, input_ids, caches=None):
    """Logits [T, V] and hidden states (embedding, after each layer, after the final norm), all float64.

    `weights` carry the released names; `caches` (one dict a layer, filled here) continues an earlier call.
    """
    w = {name: tensor.double() for name, tensor in weights.items()}
    caches = [{} for _ in config["layer_types"]] if caches is None else caches
    hidden = [w["model.embed_tokens.weight"][input_ids.long()]]
    for i, (layer_type, cache) in enumerate(zip(config["layer_types"], caches, strict=True)):
        layer = scope(w, f"model.layers.{i}.")
        if layer_type == "linear_attention":
            hidden.append(linear_block(config, layer, hidden[-1], cache))
        else:
            hidden.append(attention_block(config, layer, hidden[-1], layer_type, cache))
    hidden.append(rms_norm(hidden[-1], w["model.norm.weight"], config["rms_norm_eps"]))
    return linear(hidden[-1], w["lm_head.weight" if "lm_head.weight" in w else "model.embed_tokens.weight"]), hidden
