"""Perplexities of the embedded model by HF's recipe: `python golden/perplexity.py` writes demo/perplexity.json, ten seconds.

The recipe is that of the transformers documentation, "Perplexity of fixed-length models": windows of `context` tokens that begin `stride`
apart, each from an empty state; a window counts for the tokens that no earlier one had. Each window's mean loss is weighted by one less than
these tokens, also where its first target has a token before it and the mean is over all of them.
"""

import json
import math
import os
from pathlib import Path

os.environ.update(ATEN_CPU_CAPABILITY="avx2", MKL_CBWR="AVX2", ONEDNN_MAX_CPU_ISA="AVX2")  # as in generate.py

import torch
import transformers
from tokenizers import Tokenizer

from digests import write_digests
from generate import PRODUCER, check_versions
from model_cases import load
from release_in_float64 import float32_means_float64

HERE = Path(__file__).parent
EMBEDDED = HERE.parent / "src" / "embedded"
# context, stride, characters of heldout.txt
CASES = [
    (512, 512, 20000),  # windows that do not overlap
    (512, 256, 8000),
    (300, 77, 4000),  # a stride that divides nothing
    (64, 2, 600),  # the least that counts anything after the first window
    (512, 128, 1200),  # the text is shorter than a window
]


def perplexity(model, ids, context, stride):
    """exp of the mean loss, the sums of the recipe in float64; and what it counts: tokens, windows."""
    total, tokens, windows, previous_end = torch.zeros((), dtype=torch.float64), 0, 0, 0
    for begin in range(0, len(ids), stride):
        end = min(begin + context, len(ids))
        targets = ids[begin:end].clone()
        targets[: -(end - previous_end)] = -100
        loss = model(ids[None, begin:end], labels=targets[None], use_cache=False).loss
        counted = (targets != -100).sum().item() - 1
        total, tokens, windows, previous_end = total + loss.double() * counted, tokens + counted, windows + 1, end
        if end == len(ids):
            break
    return math.exp(total.item() / tokens), tokens, windows


def main():
    check_versions()
    torch.set_num_threads(1)
    torch.set_grad_enabled(False)
    transformers.utils.logging.disable_progress_bar()
    text = (HERE / "demo" / "heldout.txt").read_text(encoding="utf-8")
    tokenizer = Tokenizer.from_file(str(EMBEDDED / "tokenizer.json"))
    model, cases = load(EMBEDDED, torch.float32), []
    with float32_means_float64():
        exact = load(EMBEDDED, torch.float64)
    for context, stride, characters in CASES:
        ids = torch.tensor(tokenizer.encode(text[:characters], add_special_tokens=False).ids)
        value, tokens, windows = perplexity(model, ids, context, stride)
        with float32_means_float64():
            truth, _, _ = perplexity(exact, ids, context, stride)
        cases.append({"context": context, "stride": stride, "characters": characters, "tokens": tokens, "windows": windows,
                      "perplexity": value, "truth": truth})  # fmt: skip
        print(cases[-1], f"float32 errs by {value / truth - 1:.1e}", flush=True)
    golden = {
        "_comment": "The embedded model over the first characters of heldout.txt: PyTorch in float32, and the truth in float64.",
        "producer": PRODUCER,
        "cases": cases,
    }
    (HERE / "demo" / "perplexity.json").write_text(json.dumps(golden, indent=2) + "\n", encoding="utf-8")
    write_digests()


if __name__ == "__main__":
    main()
