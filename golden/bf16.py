"""Write golden/bf16, what the release computes in bfloat16 on a CPU: `python golden/bf16.py`, half a minute."""

import json
import os
import shutil
from contextlib import ExitStack
from pathlib import Path
from unittest.mock import patch

# Before torch is imported, as in generate.py: the same code on every processor, so without instructions for bfloat16.
os.environ.update(ATEN_CPU_CAPABILITY="avx2", MKL_CBWR="AVX2", ONEDNN_MAX_CPU_ISA="AVX2")

import torch
import transformers
from transformers import OlmoHybridConfig
from transformers.models.olmo_hybrid import modeling_olmo_hybrid as release

from generate import PRODUCER, check_versions
from model_cases import MODELS, load, model_cases, run
from safetensors_file import write_safetensors

BF16 = Path(__file__).parent / "bf16"
TOKENS = 200  # at most: the long cases are cut
# The output of every op of the first two, F32 and BF16 in store; of the others that of every layer.
BY_OP = ["rope", "attention_bias"]
BY_LAYER = ["nope", "gqa", "few_key_heads", "odd_sizes", "conv3", "no_neg_eigval", "tied", "bf16", "f16", "long", "long_rope",
            "olmo3_sliding", "olmo3_yarn"]  # fmt: skip
POSITIONS = [0, 1, 2, 63, 64, 1000, 4095, 8191, 32767]


def run_by_op(model, input_ids):
    """`run`, and the output of every op inside the layers by its path in a trace, [T, width]."""
    T, ops, path, mixer = len(input_ids), {}, None, None

    def enter(module, module_path):
        nonlocal path, mixer
        path, mixer = module_path, module

    def keep(name, output):
        ops[name] = output.reshape(T, -1)

    def keep_heads(name, output):  # [1, H, T, size]
        keep(f"{path}.{name}", output.transpose(1, 2))

    def conv(output, **_):  # [1, C, T]
        for name, part in zip("qkv", output[0].T.split([mixer.key_dim, mixer.key_dim, mixer.value_dim], dim=-1)):
            keep(f"{path}.{name}_conv1d", part)

    def l2norm(output, **_):  # of q, then of k, each key head repeated for its value heads
        name = "k_l2norm" if f"{path}.q_l2norm" in ops else "q_l2norm"
        keep_heads(name, output[:, :: mixer.num_v_heads // mixer.num_k_heads])

    def delta_rule(output, g, beta, **_):
        keep(f"{path}.g", g)
        keep(f"{path}.beta", beta)
        keep(f"{path}.delta_rule", output[0])

    def rotary(output, **_):
        keep_heads("rotary_q", output[0])
        keep_heads("rotary_k", output[1])

    def attention(output, **_):
        keep(f"{path}.attention", output[0])

    def observed(function, see):
        def call(*args, **kwargs):
            output = function(*args, **kwargs)
            see(output, **kwargs)
            return output

        return call

    functions = {
        "causal_conv1d_fn": conv,
        "l2norm": l2norm,
        "torch_chunk_gated_delta_rule": delta_rule,
        "apply_rotary_pos_emb": rotary,
        "eager_attention_forward": attention,
    }
    with ExitStack() as stack:
        for name, see in functions.items():
            stack.enter_context(patch.object(release, name, observed(getattr(release, name), see)))
        for name, module in model.model.layers.named_modules(prefix="model.layers"):
            if name.endswith(("linear_attn", "self_attn")):
                hook = module.register_forward_pre_hook(lambda module, _inputs, name=name: enter(module, name))
            elif name.endswith(("_proj", "norm")):
                hook = module.register_forward_hook(lambda _module, _inputs, output, name=name: keep(name, output))
            else:
                continue
            stack.callback(hook.remove)
        return *run(model, input_ids), ops


def write_model(case):
    _, _, input_ids = case.checkpoint()
    input_ids = input_ids[:TOKENS]
    model = load(MODELS / case.name, torch.bfloat16)
    logits, hidden, ops = (*run(model, input_ids), {}) if case.name in BY_LAYER else run_by_op(model, input_ids)
    tensors = {"input_ids": input_ids, "logits": logits, **{f"hidden_states.{i}": value for i, value in enumerate(hidden)}, **ops}
    metadata = {
        "_comment": case.comment,
        "producer": PRODUCER,
        "params": json.dumps({"model": case.name, "tokens": len(input_ids)}, sort_keys=True),
        "function": f"{type(model).__name__}.from_pretrained(dtype=bfloat16, attn_implementation=eager)",
    }
    write_safetensors(BF16 / "models" / f"{case.name}.safetensors", tensors, metadata)


def write_rotary_table():
    """cos and sin stay float32 in a bfloat16 model; with the head_dim of the release, 128, and far positions."""
    rope = {"rope_type": "default", "rope_theta": 500000.0}
    config = OlmoHybridConfig(hidden_size=512, num_attention_heads=4, num_key_value_heads=4, rope_parameters=rope)
    table = release.OlmoHybridRotaryEmbedding(config)
    positions = torch.tensor(POSITIONS, dtype=torch.int32)
    cos, sin = table(torch.empty(0, dtype=torch.bfloat16), positions[None])
    metadata = {
        "_comment": "Rotary tables of a bfloat16 model, far positions included.",
        "producer": PRODUCER,
        "params": json.dumps({**rope, "head_dim": 128}, sort_keys=True),
        "function": "OlmoHybridRotaryEmbedding",
    }
    halves = {"cos": cos[0, :, :64], "sin": sin[0, :, :64]}
    write_safetensors(BF16 / "rotary_table.safetensors", {"positions": positions, **halves}, metadata)


def main():
    check_versions()
    torch.set_num_threads(1)
    torch.set_grad_enabled(False)
    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    shutil.rmtree(BF16, ignore_errors=True)
    write_rotary_table()
    for case in model_cases():
        if case.name in BY_OP + BY_LAYER:
            write_model(case)


if __name__ == "__main__":
    main()
