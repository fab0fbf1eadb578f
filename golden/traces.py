"""Write golden/traces, traces of the PyTorch release for the tests of `diff`: `python golden/traces.py`, half a minute.

`<model>.safetensors` are right; `<model>.<mistake>.safetensors` hold what surrounds the op that a mistake of release_mistakes.py changes first.
"""

import shutil
from pathlib import Path

import torch
import transformers
from safetensors.torch import load_file

from generate import check_versions
from model_cases import MODELS
from release_mistakes import MISTAKES
from safetensors_file import write_safetensors
from trace_transformers import trace

TRACES = Path(__file__).parent / "traces"
GDN = ("model.embed_tokens", "model.layers.0", "model.layers.0.input_layernorm", "model.layers.0.linear_attn.*")
RIGHT = {
    "nope": (24, ("*",)),
    "gqa": (17, ("*",)),
    # More than a chunk of the delta rule.
    "rope": (67, ("model.embed_tokens", "model.layers.0*", "model.layers.2", "model.layers.3*", "model.norm", "lm_head")),
}
TOKENS = 20
CUT = 11  # for the mistakes that only a second call shows
MODEL = {
    "rope_off": "rope",
    "rope_theta_10000": "rope",
    "rope_interleaved": "rope",
    "yarn_on_every_layer": "olmo3_yarn",
    "window_one_longer": "olmo3_sliding",
    "kv_heads_tiled": "gqa",
    "beta_with_2": "no_neg_eigval",
    "key_heads_tiled": "few_key_heads",
}
# Where the mistake first shows, if not in the Gated DeltaNet of layer 0.
ATTENTION = {
    **dict.fromkeys(("rope_on", "qk_norm_per_head", "pre_norm_in_attention_block"), 2),
    **dict.fromkeys(("rope_off", "rope_theta_10000", "rope_interleaved", "kv_heads_tiled"), 3),
}


def names(mistake):
    if mistake in ("yarn_on_every_layer", "window_one_longer"):
        return ("model.embed_tokens", "model.layers.?.self_attn.*")
    if mistake not in ATTENTION:
        return GDN
    layer = ATTENTION[mistake]
    return (f"model.layers.{layer - 1}", f"model.layers.{layer}.self_attn.*", f"model.layers.{layer}.post_attention_layernorm")


def write(path, model, tokens, **options):
    ids = load_file(MODELS / model / "expected.safetensors")["input_ids"][:tokens]
    tensors, metadata = trace(MODELS / model, ids.tolist(), **options)
    write_safetensors(path, tensors, {**metadata, "tokens": str(tokens)})
    print(f"{path.name}: {path.stat().st_size} bytes", flush=True)


def main():
    check_versions()
    torch.set_num_threads(1)
    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    shutil.rmtree(TRACES, ignore_errors=True)
    for model, (tokens, only) in RIGHT.items():
        write(TRACES / f"{model}.safetensors", model, tokens, only=only)
    for mistake in MISTAKES:
        model = MODEL.get(mistake, "nope")
        chunk = CUT if mistake in ("conv_state_after_activation", "conv_state_lost", "padding_in_state") else None
        # In nope this eps moves nothing by as much as float32 rounds.
        dtype = "float64" if mistake == "rms_norm_eps_1e-5" else "float32"
        write(TRACES / f"{model}.{mistake}.safetensors", model, TOKENS, only=names(mistake), chunk=chunk, dtype=dtype, mistake=mistake)


if __name__ == "__main__":
    main()
