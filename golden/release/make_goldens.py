"""Goldens of the released weights: a folder that `olmo-hybrid verify --model FOLDER` takes. README.md beside this file says what it needs.

    python golden/release/make_goldens.py                                  # allenai/Olmo-Hybrid-7B from the hub
    python golden/release/make_goldens.py --model DIR --output FOLDER      # a checkpoint folder

The release's own modules run in float32 and, their casts to float32 taken out, in float64. Their weights come and go layer by layer, so
that neither run holds more than a layer or a table of the vocabulary.
"""

import argparse
import json
import os
import sys
import time
from contextlib import ExitStack
from importlib.metadata import version
from pathlib import Path

os.environ.update(ATEN_CPU_CAPABILITY="avx2", MKL_CBWR="AVX2", ONEDNN_MAX_CPU_ISA="AVX2")  # as in ../generate.py
sys.path.insert(0, str(Path(__file__).parent.parent))

import torch
import transformers
from huggingface_hub import snapshot_download
from safetensors import safe_open
from tokenizers import Tokenizer
from transformers import OlmoHybridConfig, OlmoHybridForCausalLM

from release_in_float64 import float32_means_float64
from safetensors_file import write_safetensors

PRODUCER = f"torch {version('torch').split('+')[0]}, transformers {version('transformers')}"
FILES = ["*.json", "*.jinja", "*.safetensors"]
TEXT = """The tide had gone out by the time they reached the harbour, and the boats lay on their sides in the mud like cattle asleep. "We could
wait," said Ana, counting on her fingers: 3 hours, 45 minutes, give or take. def minutes(h, m): return 60 * h + m  # 225. Зачем ждать? 我们走吧。"""


class Weights:
    """The tensors of a checkpoint folder, by the names of the release's modules."""

    def __init__(self, folder):
        files = sorted(folder.glob("model*.safetensors"))
        if not files:
            raise SystemExit(f"{folder}: expected model.safetensors or its shards, found neither.")
        self.file_of, self.open = {}, ExitStack()
        for path in files:
            file = self.open.enter_context(safe_open(path, framework="pt"))
            self.file_of |= dict.fromkeys(file.keys(), file)

    def stored_names(self, name):
        """What a parameter is stored as: itself, or the parts that are one below the other in it."""
        parts = [name.replace(".conv1d.", f".{p}_conv1d.") for p in "qkv"]
        return [name] if name in self.file_of or len(set(parts)) == 1 else parts

    def tensor(self, name, dtype):
        parts = [self.file_of[stored].get_tensor(stored).to(dtype) for stored in self.stored_names(name)]
        return parts[0] if len(parts) == 1 else torch.cat(parts)

    def check(self, names):
        """Refuse a folder whose tensors are not those of the model."""
        wanted = {stored for name in names for stored in self.stored_names(name)}
        missing, strange = sorted(wanted - self.file_of.keys()), sorted(self.file_of.keys() - wanted)
        if missing or strange:
            raise SystemExit(f"expected the tensors as released, missing {missing[:5]}, unknown {strange[:5]}.")


def read_config(folder):
    """The folder's config. Without a theta the release is NoPE, but transformers 5.18 takes that for RoPE unless the null is explicit."""
    config = json.loads((folder / "config.json").read_text())
    if config["model_type"] != "olmo_hybrid":
        raise SystemExit(f"{folder}: expected model_type olmo_hybrid, found {config['model_type']}.")
    if (config.get("rope_parameters") or {}).get("rope_theta") is None:
        config["rope_parameters"] = {"rope_theta": None, "rope_type": "default"}
    return OlmoHybridConfig(**config, attn_implementation="eager")


def put(module, name, tensor):
    owner, _, leaf = name.rpartition(".")
    setattr(module.get_submodule(owner), leaf, torch.nn.Parameter(tensor, requires_grad=False))


def streamed(config, weights, dtype, keep=False):
    """The release's model, which has the weights of a part only while that part runs, or from then on."""
    with torch.device("meta"):
        model = OlmoHybridForCausalLM(config).to(dtype).eval()
    if model.model.rotary_emb is not None:  # its frequencies are computed, not stored
        model.model.rotary_emb = type(model.model.rotary_emb)(config=config)
    parts = {"model.embed_tokens": model.model.embed_tokens, "model.norm": model.model.norm, "lm_head": model.lm_head}
    parts |= {f"model.layers.{i}": layer for i, layer in enumerate(model.model.layers)}
    names = {part: [name for name, _ in module.named_parameters()] for part, module in parts.items()}
    stored_as = {"lm_head": "model.embed_tokens"} if config.tie_word_embeddings else {}
    weights.check([f"{stored_as.get(part, part)}.{name}" for part in parts for name in names[part]])
    for part, module in parts.items():

        def fill(module, _inputs, part=part):
            for name in names[part] if next(module.parameters()).is_meta else ():
                put(module, name, weights.tensor(f"{stored_as.get(part, part)}.{name}", dtype))

        def drop(module, _inputs, _output, part=part):
            for name in names[part]:
                put(module, name, module.get_parameter(name).to("meta"))

        module.register_forward_pre_hook(fill)
        if not keep:
            module.register_forward_hook(drop)
    return model


def run(model, ids, steps):
    """Logits [T, V] of the ids, then the ids of the largest logits, step by step, and their distance to the second largest."""
    output = model(ids[None], use_cache=True)
    logits, continuation, margins = output.logits[0], [], []
    say("logits in float32")
    for step in range(steps):
        if step > 0:
            output = model(continuation[-1][None], past_key_values=output.past_key_values, use_cache=True)
        top = output.logits[0, -1].topk(2)
        continuation.append(top.indices[:1])
        margins.append(top.values[0] - top.values[1])
        say(f"greedy token {step + 1} of {steps}")
    return logits, torch.cat(continuation).int(), torch.stack(margins)


def say(text, begin=time.monotonic()):  # noqa: B008
    print(f"{time.monotonic() - begin:7.1f} s  {text}", file=sys.stderr, flush=True)


def link_files(folder, output):
    """The checkpoint's files beside the golden, as symbolic links."""
    output.mkdir(parents=True, exist_ok=True)
    for pattern in FILES:
        for file in folder.glob(pattern):
            link = output / file.name
            if file.name == "expected.safetensors" or link.is_symlink() and link.resolve() == file.resolve():
                continue
            link.symlink_to(file.resolve())


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="allenai/Olmo-Hybrid-7B", help="a repository of the hub, or a folder (default: %(default)s)")
    parser.add_argument("--revision", help="a branch, tag or commit of the repository, such as stage1-step10000")
    parser.add_argument("--output", type=Path, help="folder to write (default: release_goldens/NAME)")
    parser.add_argument("--text", type=Path, help="file with a text to run the model over (default: one of our own)")
    parser.add_argument("--tokens", type=int, default=96, help="most tokens of it (default: %(default)s); a row of logits takes 1.2 MB")
    parser.add_argument("--greedy", type=int, default=24,
                        help="greedy tokens after it (default: %(default)s); all but the first is a pass over the weights")  # fmt: skip
    parser.add_argument("--keep", action="store_true", help="keep the float32 weights, 4 bytes each, instead of reading them for each pass")
    args = parser.parse_args()
    if args.tokens < 1 or args.greedy < 1:
        parser.error("--tokens and --greedy: expected at least 1")
    torch.set_grad_enabled(False)
    transformers.utils.logging.set_verbosity_error()

    local = Path(args.model)
    folder = local if local.is_dir() else Path(snapshot_download(args.model, revision=args.revision, allow_patterns=FILES))
    output = args.output or Path("release_goldens") / local.name
    if output.resolve() == folder.resolve():
        raise SystemExit(f"--output: expected another folder than the model's, found {output}.")
    text = args.text.read_text(encoding="utf-8") if args.text else TEXT
    ids = torch.tensor(Tokenizer.from_file(str(folder / "tokenizer.json")).encode(text, add_special_tokens=False).ids[: args.tokens])
    config, weights = read_config(folder), Weights(folder)
    rope = "NoPE" if config.rope_parameters["rope_theta"] is None else "RoPE"
    say(f"{folder}: {len(ids)} tokens, {config.num_hidden_layers} layers, {rope}")

    logits, continuation, margins = run(streamed(config, weights, torch.float32, args.keep), ids, args.greedy)
    with float32_means_float64():
        truth = streamed(config, weights, torch.float64)(ids[None], use_cache=False).logits[0]
    error = (logits.double() - truth).abs().max().item()
    say(f"logits in float64; float32 errs by at most {error:.2g}, the largest logit is {truth.abs().max().item():.3g}")

    link_files(folder, output)
    revision = folder.resolve().name if not local.is_dir() else None
    params = {"model": args.model, "revision": revision, "tokens": len(ids), "truth": "the release's modules in float64"}
    write_safetensors(
        output / "expected.safetensors",
        {"input_ids": ids.int(), "logits": logits, "logits.truth": truth, "greedy": continuation, "greedy_margins": margins},
        {
            "_comment": f"Logits and greedy continuation of {args.model}.",
            "producer": PRODUCER,
            "params": json.dumps(params, sort_keys=True),
            "function": "OlmoHybridForCausalLM in float32, eager attention; logits of one pass, greedy with its cache",
        },
    )
    print(output)


if __name__ == "__main__":
    main()
