"""The kernels of the PyTorch release behind the property kit's subprocess protocol (docs/property_kit.md): `npm run test:torch`.

Each request names a kernel of golden/README.md's table; the answer is what the release's own function makes of its inputs.
"""

import json
import os
import struct
import sys

# Before torch is imported, as in generate.py: the same code on every processor.
os.environ.update(ATEN_CPU_CAPABILITY="avx2", MKL_CBWR="AVX2", ONEDNN_MAX_CPU_ISA="AVX2")

import torch
from safetensors.torch import load, save
from transformers import Olmo3Config, OlmoHybridConfig
from transformers.cache_utils import LinearAttentionLayer
from transformers.masking_utils import causal_mask_function, sliding_window_causal_mask_function
from transformers.models.olmo3 import modeling_olmo3 as olmo3
from transformers.models.olmo_hybrid import modeling_olmo_hybrid as release

from kernel_cases import gate_and_beta


def linear(x, weight, bias=None):
    return {"y": torch.nn.functional.linear(x, weight, bias)}


def rms_norm(x, weight, *, eps):
    module = release.OlmoHybridRMSNorm(x.shape[1], eps)
    module.weight.data = weight
    return {"y": module(x)}


def rms_norm_gated(x, gate, weight, *, eps):
    module = release.OlmoHybridRMSNormGated(x.shape[1], eps=eps)
    module.weight.data = weight
    return {"y": module(x, gate)}


def l2_norm(x, *, eps):
    return {"y": release.l2norm(x, eps=eps)}


def rotary(x, *, position, **rope):
    T, H, Dh = x.shape
    positions = torch.arange(position, position + T)[None]
    sizes = {"hidden_size": H * Dh, "num_attention_heads": H, "num_hidden_layers": 4, "max_position_embeddings": 65536}
    if rope["rope_type"] == "yarn":
        config = Olmo3Config(**sizes, rope_parameters={"full_attention": rope, "sliding_attention": {"rope_type": "default"}})
        cos, sin = olmo3.Olmo3RotaryEmbedding(config)(x, positions, "full_attention")
    else:
        cos, sin = release.OlmoHybridRotaryEmbedding(OlmoHybridConfig(**sizes, rope_parameters=rope))(x, positions)
    return {"y": release.apply_rotary_pos_emb(x[None], x[None], cos, sin, unsqueeze_dim=2)[0][0]}


def causal_conv1d(x, weight, state, *, activation):
    T, C = x.shape
    W, columns, layer = weight.shape[2], x.T[None], LinearAttentionLayer()
    # The release keeps W inputs; the oldest of them is never read again.
    layer.update_conv_state(torch.cat((x.new_zeros(1, C), state)).T[None], conv_kernel_size=W)
    layer.has_previous_state[0] = True
    if T > 1:
        columns = layer.update_conv_state(columns, conv_kernel_size=W)
        y = release.causal_conv1d_fn(columns, weight.squeeze(1), None, activation)[:, :, -T:]
    else:
        y = release.causal_conv1d_update(columns, layer.conv_states[0], weight.squeeze(1), None, activation)
    return {"y": y[0].T, "state_after": layer.conv_states[0][0].T[1:]}


def one_more(x):
    """With a token behind the others, which is cut off again: the release's modules take no empty text."""
    return torch.cat((x, x.new_zeros(1, x.shape[1])))


def gdn_gate(a, A_log, dt_bias):
    return {"g": gate_and_beta(one_more(a), one_more(a), A_log, dt_bias, True)["g"][:-1]}


def gdn_beta(b, *, allow_neg_eigval):
    zero = b.new_zeros(b.shape[1])
    return {"beta": gate_and_beta(one_more(b), one_more(b), zero, zero, allow_neg_eigval)["beta"][:-1]}


def gated_delta_rule(q, k, v, g, beta, state, *, form):
    rule = release.torch_chunk_gated_delta_rule if form == "chunked" else release.torch_recurrent_gated_delta_rule
    q, k = (x.repeat_interleave(v.shape[1] // k.shape[1], dim=1) for x in (q, k))
    inputs = [x[None] for x in (q, k, v, g, beta)]
    o, S = rule(*inputs, initial_state=state[None].clone(), output_final_state=True)
    return {"o": o[0], "state_after": S[0]}


def attention(q, k, v, *, sliding_window):
    (T, H, Dh), (S, Hkv, _) = q.shape, k.shape
    visible = causal_mask_function if sliding_window is None else sliding_window_causal_mask_function(sliding_window)
    here, there = torch.arange(S - T, S)[:, None], torch.arange(S)[None]
    mask = torch.where(visible(0, 0, here, there), 0.0, torch.finfo(torch.float32).min)[None, None]
    module = torch.nn.Module()
    module.num_key_value_groups, module.training = H // Hkv, False
    o, _ = release.eager_attention_forward(module, *(x[None].transpose(1, 2) for x in (q, k, v)), mask, scaling=Dh**-0.5)
    return {"o": o[0]}


def swiglu(gate, up):
    return {"y": release.ACT2FN["silu"](gate) * up}


def softmax(x):
    return {"y": torch.nn.functional.softmax(x, dim=-1)}


KERNELS = {
    f.__name__: f
    for f in (
        linear, rms_norm, rms_norm_gated, l2_norm, rotary, causal_conv1d, gdn_gate, gdn_beta, gated_delta_rule, attention, swiglu, softmax,
    )  # fmt: skip
}


def answer(request):
    (length,) = struct.unpack("<Q", request[:8])
    metadata = json.loads(request[8 : 8 + length])["__metadata__"]
    kernel, params = KERNELS[metadata["kernel"]], json.loads(metadata["params"])
    outputs = kernel(**load(request), **params)
    return save({name: tensor.detach().contiguous().clone() for name, tensor in outputs.items()})


def main():
    torch.set_num_threads(1)
    stdin, stdout = sys.stdin.buffer, sys.stdout.buffer
    with torch.inference_mode():
        while prefix := stdin.read(8):
            request = stdin.read(struct.unpack("<Q", prefix)[0])
            try:
                file = answer(request)
            except Exception as error:  # a case that the release cannot take is a finding, not the end
                file = save({}, {"error": f"{type(error).__name__}: {error}"})
            stdout.write(struct.pack("<Q", len(file)) + file)
            stdout.flush()


if __name__ == "__main__":
    main()
