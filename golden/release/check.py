"""Holds make_goldens.py against the goldens of ../models: `python golden/release/check.py`, seconds.

Its streamed float32 run must give the bits of the whole model's, its float64 run the truth of truth.py.
"""

from pathlib import Path

import make_goldens
import torch
from safetensors.torch import load_file

MODELS = Path(__file__).parent.parent / "models"
NAMES = ["nope", "rope", "gqa", "few_key_heads", "attention_bias", "tied", "bf16", "f16", "sharded", "names_fused_conv", "nope_null",
         "nope_type_null"]  # fmt: skip


def main():
    torch.set_num_threads(1)
    torch.set_grad_enabled(False)
    for name in NAMES:
        golden, folder = load_file(MODELS / name / "expected.safetensors"), MODELS / name
        config, weights, ids = make_goldens.read_config(folder), make_goldens.Weights(folder), golden["input_ids"].long()
        model = make_goldens.streamed(config, weights, torch.float32)
        logits, continuation, margins = make_goldens.run(model, ids, len(golden["greedy"]))
        with make_goldens.float32_means_float64():
            truth = make_goldens.streamed(config, weights, torch.float64)(ids[None], use_cache=False).logits[0]
        off = ((truth - golden["logits.truth"]).abs().max() / golden["logits.truth"].abs().max()).item()
        assert torch.equal(logits, golden["logits"]), f"{name}: other bits"
        assert torch.equal(continuation, golden["greedy"]), name
        assert torch.allclose(margins, golden["greedy_margins"], atol=1e-4), name  # there without a cache
        assert off < 1e-12, f"{name}: {off} from the truth"
        assert all(parameter.is_meta for parameter in model.parameters()), f"{name}: weights were kept"
        print(f"{name}: the bits of the whole model; float64 {off:.0e} from truth.py")


if __name__ == "__main__":
    main()
