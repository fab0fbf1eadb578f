"""PyTorch's release beside this engine, one thread each, alternating in one run: the embedded model, and the product that prefill consists of.

    npm run bench                                    # builds what this script calls
    pip install -r bench/peers/requirements.txt
    python bench/peers/transformers_peer.py          # writes bench/results/transformers.md
"""

import json
import pathlib
import statistics
import subprocess
import time

import torch
from transformers import AutoModelForCausalLM

ROOT = pathlib.Path(__file__).parents[2]
ROUNDS = 5
PROMPT = 256
DECODED = 64


def rate(work, run):
    begin = time.perf_counter()
    run()
    return work / (time.perf_counter() - begin)


@torch.no_grad()
def pytorch(model, x, w):
    tokens = torch.arange(PROMPT)[None] * 7 % model.config.vocab_size

    def decode():
        cache = model(tokens[:, :1], use_cache=True).past_key_values
        for _ in range(DECODED):
            cache = model(tokens[:, :1], use_cache=True, past_key_values=cache).past_key_values

    return {
        "prefill, embedded model, token/s": rate(PROMPT, lambda: model(tokens, use_cache=True)),
        "decode, embedded model, token/s": rate(DECODED + 1, decode),
        "f32 product 256x3840x3840, GFLOP/s": rate(2 * 256 * 3840 * 3840 / 1e9, lambda: torch.nn.functional.linear(x, w)),
    }


def ours():
    return json.loads(subprocess.run(["node", ROOT / "build" / "peer.js"], capture_output=True, check=True, text=True).stdout)


def main():
    torch.set_num_threads(1)
    model = AutoModelForCausalLM.from_pretrained(ROOT / "src" / "embedded", dtype=torch.float32).eval()
    x, w = torch.randn(256, 3840), torch.randn(3840, 3840)
    pytorch(model, x, w)  # warm
    rounds = [(ours(), pytorch(model, x, w)) for _ in range(ROUNDS)]
    lines = [
        f"One thread each, medians of {ROUNDS} alternating rounds; PyTorch {torch.__version__}, transformers in float32.",
        "",
        "| | olmo-hybrid, strict | PyTorch | ratio |",
        "|---|---|---|---|",
    ]
    for name in rounds[0][1]:
        mine, theirs = (statistics.median(r[i][name] for r in rounds) for i in (0, 1))
        lines.append(f"| {name} | {mine:,.0f} | {theirs:,.0f} | **{mine / theirs:.2f}** |")
    text = "\n".join(lines) + "\n"
    (ROOT / "bench" / "results" / "transformers.md").write_text(text)
    print(text)


main()
