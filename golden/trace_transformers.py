"""Dump every intermediate of the PyTorch release as a trace (docs/trace_format.md), for `olmo-hybrid diff`:

    python golden/trace_transformers.py --model DIR --tokens FILE.json --output OUT.safetensors

Forward hooks see the modules; functions of the modelling file that are no modules (convolution, L2 norm, delta rule, rotary) are wrapped.
`--inject` makes a mistake of release_mistakes.py, to see what `diff` makes of it.
"""

import argparse
import hashlib
import json
import os
import sys
from contextlib import ExitStack
from fnmatch import fnmatchcase
from importlib.metadata import version
from pathlib import Path
from unittest.mock import patch

# Before torch is imported, as in generate.py: the same code on every processor.
os.environ.update(ATEN_CPU_CAPABILITY="avx2", MKL_CBWR="AVX2", ONEDNN_MAX_CPU_ISA="AVX2")

import torch
import transformers
from transformers import AutoModelForCausalLM

from release_in_float64 import float32_means_float64
from release_mistakes import MISTAKES
from safetensors_file import write_safetensors

PRODUCER = f"transformers {version('transformers')}, torch {version('torch').split('+')[0]}"
PRECISIONS = {"float32": "f32", "float64": "f64", "bfloat16": "bf16"}
# Modules of a layer whose outputs are kept, and the config's name for the size of the heads that they are split into.
MODULES = {
    **dict.fromkeys(("input_layernorm", "post_attention_layernorm", "post_feedforward_layernorm", "mlp"), None),
    **dict.fromkeys((f"linear_attn.{p}_proj" for p in "abo"), None),
    **dict.fromkeys((f"linear_attn.{p}_proj" for p in "qk"), "linear_key_head_dim"),
    **dict.fromkeys(("linear_attn.v_proj", "linear_attn.g_proj", "linear_attn.o_norm"), "linear_value_head_dim"),
    **dict.fromkeys((f"self_attn.{p}" for p in ("q_proj", "q_norm", "k_proj", "k_norm", "v_proj")), "head_dim"),
    **dict.fromkeys(("self_attn.o_proj", "mlp.gate_proj", "mlp.up_proj", "mlp.down_proj"), None),
}


class Recorder:
    """Collects the intermediates of a model by their names in the format, the rows of several calls one below the other."""

    def __init__(self, model, only):
        self.model, self.config, self.only = model, model.config, only
        self.rows = {}
        self.mixer = None  # the GatedDeltaNet or Attention that is running, and its path
        self.path = ""

    def tensors(self):
        return {name: rows[-1] if name.endswith(".state") else torch.cat(rows) for name, rows in self.rows.items()}

    def keep(self, name, tensor):
        if any(fnmatchcase(name, pattern) for pattern in self.only):
            self.rows.setdefault(name, []).append(tensor.detach().clone())

    def attach(self, stack):
        """Watch the model until the stack is closed."""
        for path in ("model.embed_tokens", "model.norm", "lm_head"):
            self.watch(stack, path, self.model.get_submodule(path), None)
        for i, layer in enumerate(self.model.model.layers):
            self.watch(stack, f"model.layers.{i}", layer, None)
            for term, size in MODULES.items():
                try:
                    module = layer.get_submodule(term)
                except AttributeError:
                    continue  # a module of the other kind of layer
                self.watch(stack, f"model.layers.{i}.{term}", module, size)
            for term in ("linear_attn", "self_attn"):
                if hasattr(layer, term):
                    self.hook(stack, getattr(layer, term).register_forward_pre_hook(self.enter(f"model.layers.{i}.{term}")))
            if hasattr(layer, "self_attn"):
                self.hook(stack, layer.self_attn.o_proj.register_forward_pre_hook(self.attention))
        functions = {
            "causal_conv1d_fn": self.convolution,
            "causal_conv1d_update": self.convolution,
            "l2norm": self.l2_norm,
            "torch_chunk_gated_delta_rule": self.delta_rule,
            "torch_recurrent_gated_delta_rule": self.delta_rule,
            "apply_rotary_pos_emb": self.rotary,
        }
        release = sys.modules[type(self.model).__module__]
        for name, see in functions.items():
            if hasattr(release, name):
                stack.enter_context(patch.object(release, name, self.wrapped(getattr(release, name), see)))

    def hook(self, stack, handle):
        stack.callback(handle.remove)

    def watch(self, stack, path, module, size):
        """Keep the output of a module as [T, width], or as [T, heads, head size]."""
        head = size and (getattr(self.config, size, None) or self.config.hidden_size // self.config.num_attention_heads)
        width = (-1, head) if head else (-1,)
        self.hook(stack, module.register_forward_hook(lambda _module, _inputs, y: self.keep(path, y.reshape(self.T, *width))))

    def enter(self, path):
        def hook(module, _inputs):
            self.mixer, self.path, self.unnormed = module, path, ["q_l2norm", "k_l2norm"]

        return hook

    def wrapped(self, function, see):
        def call(*args, **kwargs):
            if see == self.delta_rule:
                kwargs["output_final_state"] = True
            output = function(*args, **kwargs)
            see(output, **kwargs)
            return output

        return call

    def convolution(self, y, **_):  # [1, q, k and v channels, columns left of the call's own, then T]
        sizes = [self.mixer.key_dim, self.mixer.key_dim, self.mixer.value_dim]
        heads = [self.mixer.head_k_dim, self.mixer.head_k_dim, self.mixer.head_v_dim]
        for name, part, size in zip("qkv", y[0, :, -self.T :].T.split(sizes, dim=-1), heads, strict=True):
            self.keep(f"{self.path}.{name}_conv1d", part.unflatten(-1, (-1, size)))

    def l2_norm(self, y, **_):  # [1, H, T, Dk] of q, then of k: each key head repeated for its value heads
        repeats = self.mixer.num_v_heads // self.mixer.num_k_heads
        self.keep(f"{self.path}.{self.unnormed.pop(0)}", y[0, ::repeats].transpose(0, 1))

    def delta_rule(self, y, *, g, beta, **_):
        o, state = y
        for name, tensor in {"g": g, "beta": beta, "delta_rule": o, "state": state}.items():
            self.keep(f"{self.path}.{name}", tensor[0])

    def rotary(self, y, **_):  # [1, H, T, Dh] of q and of k
        for name, tensor in zip("qk", y, strict=True):
            self.keep(f"{self.path}.rotary_{name}", tensor[0].transpose(0, 1))

    def attention(self, _o_proj, inputs):
        self.keep(f"{self.path}.attention", inputs[0].reshape(self.T, -1, self.mixer.head_dim))


def run(model, tokens, only, chunk, cache):
    """The intermediates of one pass over the tokens, `chunk` of them at a time."""
    recorder = Recorder(model, only)
    with ExitStack() as stack:
        recorder.attach(stack)
        for piece in tokens.split(chunk or len(tokens)):
            recorder.T = len(piece)
            cache = model(piece[None], past_key_values=cache, use_cache=True).past_key_values
    return recorder.tensors()


def weights_digest(folder):
    """As the format defines it: for each tensor in the order of names, a line with name, dtype and shape, then its bytes."""
    entries = {}
    for file in Path(folder).glob("*.safetensors"):
        with file.open("rb") as stream:
            length = int.from_bytes(stream.read(8), "little")
            header = json.loads(stream.read(length))
        header.pop("__metadata__", None)
        if file.name != "expected.safetensors":
            entries |= {name: (file, 8 + length, entry) for name, entry in header.items()}
    digest = hashlib.sha256()
    for name, (file, start, entry) in sorted(entries.items()):
        begin, end = entry["data_offsets"]
        digest.update(f"{name} {entry['dtype']} [{', '.join(map(str, entry['shape']))}]\n".encode())
        with file.open("rb") as stream:
            stream.seek(start + begin)
            for done in range(0, end - begin, 1 << 24):
                digest.update(stream.read(min(1 << 24, end - begin - done)))
    return digest.hexdigest()


def trace(folder, tokens, dtype="float32", only=("*",), chunk=None, mistake=None):
    """Tensors and metadata of a trace."""
    with ExitStack() as stack:
        stack.enter_context(torch.inference_mode())
        if dtype == "float64":
            stack.enter_context(float32_means_float64())
        model = AutoModelForCausalLM.from_pretrained(folder, dtype=getattr(torch, dtype), attn_implementation="eager").eval()
        ids = torch.tensor(tokens)
        cache = MISTAKES[mistake](model, ids, stack) if mistake else None
        tensors = run(model, ids, only, chunk, cache)
    metadata = {
        "format_version": "1",
        "producer": f"{PRODUCER}, with {mistake}" if mistake else PRODUCER,
        "precision": PRECISIONS[dtype],
        "mode": "eager",
        "config_sha256": hashlib.sha256((Path(folder) / "config.json").read_bytes()).hexdigest(),
        "tokens_sha256": hashlib.sha256(ids.int().numpy().tobytes()).hexdigest(),
        "weights_sha256": weights_digest(folder),
    }
    return tensors, metadata


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", required=True, help="checkpoint folder")
    parser.add_argument("--tokens", required=True, help="JSON array of token ids")
    parser.add_argument("--output", required=True, help="safetensors file to write")
    parser.add_argument("--dtype", choices=PRECISIONS, default="float32")
    parser.add_argument("--only", nargs="+", default=["*"], help="names to keep; * stands for any characters, ? for one")
    parser.add_argument("--prefill-chunk", type=int, help="tokens of one call (default: all)")
    parser.add_argument("--inject", choices=MISTAKES, help="a mistake to make")
    args = parser.parse_args()
    torch.set_num_threads(1)
    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    tokens = json.loads(Path(args.tokens).read_text())
    tensors, metadata = trace(args.model, tokens, args.dtype, args.only, args.prefill_chunk, args.inject)
    write_safetensors(args.output, tensors, metadata)


if __name__ == "__main__":
    main()
