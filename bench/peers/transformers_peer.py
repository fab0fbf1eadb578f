"""The PyTorch release, Hugging Face transformers on the CPU, with random weights: one dtype, one process, one JSON object on stdout.

    python bench/peers/transformers_peer.py float32 --threads 2
"""

import argparse
import json
import resource
import statistics
import time

import torch
import transformers
from transformers import OlmoHybridConfig, OlmoHybridForCausalLM

from shapes import DECODE_AFTER, DECODED, PREFILLS, SHAPES, Shape

REPEATS = 3


def config(s: Shape) -> OlmoHybridConfig:
    kinds = ["full_attention" if (i + 1) % s.full_attention_interval == 0 else "linear_attention" for i in range(s.layers)]
    return OlmoHybridConfig(
        vocab_size=s.vocab,
        hidden_size=s.hidden,
        intermediate_size=s.intermediate,
        num_hidden_layers=s.layers,
        layer_types=kinds,
        num_attention_heads=s.heads,
        num_key_value_heads=s.heads,
        linear_num_key_heads=s.linear_heads,
        linear_num_value_heads=s.linear_heads,
        linear_key_head_dim=s.linear_key_head,
        linear_value_head_dim=s.linear_value_head,
        linear_conv_kernel_dim=s.conv_kernel,
        rope_parameters={"rope_theta": None, "rope_type": "default"},  # NoPE
        tie_word_embeddings=False,
        eos_token_id=s.vocab - 1,
        pad_token_id=s.vocab - 2,
    )


def timed(work):
    begin = time.perf_counter()
    value = work()
    return time.perf_counter() - begin, value


@torch.inference_mode()
def measure(model: OlmoHybridForCausalLM, prefills: list[int], decode_after: int, decoded: int) -> dict:
    vocab = model.config.vocab_size

    def prefill(T: int):
        tokens = (torch.arange(T) * 7 % vocab)[None]
        return model(tokens, use_cache=True, logits_to_keep=1)

    def decode(out, count: int) -> None:
        for _ in range(count):
            out = model(out.logits[:, -1].argmax(-1, keepdim=True), use_cache=True, past_key_values=out.past_key_values)

    decode(prefill(decode_after), 8)  # warm
    rates = {}
    for T in prefills:
        seconds = statistics.median(timed(lambda: prefill(T))[0] for _ in range(1 if T > 1000 else REPEATS))
        rates[str(T)] = {"tokens_per_second": T / seconds}
    out = prefill(decode_after)
    seconds, _ = timed(lambda: decode(out, decoded))
    return {"prefill": rates, "decode": {"tokens_per_second": decoded / seconds}}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("dtype", choices=["float32", "bfloat16"])
    parser.add_argument("--shape", choices=SHAPES, default="0.3b")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--prefills", type=int, nargs="+", default=PREFILLS)
    parser.add_argument("--decoded", type=int, default=DECODED)
    args = parser.parse_args()

    torch.set_num_threads(args.threads)
    torch.manual_seed(1)
    transformers.logging.set_verbosity_error()
    model = OlmoHybridForCausalLM(config(SHAPES[args.shape])).to(getattr(torch, args.dtype)).eval()
    if model.model.rotary_emb is not None:
        raise SystemExit("transformers_peer.py: expected a model without RoPE, found rotary_emb. Use the pinned transformers.")
    result = measure(model, args.prefills, DECODE_AFTER, args.decoded)
    result |= {
        "parameters": sum(p.numel() for p in model.parameters()),
        "attention": model.config._attn_implementation,
        "versions": {"torch": torch.__version__, "transformers": transformers.__version__},
        "cpu_capability": torch.backends.cpu.get_cpu_capability(),
        "peak_rss_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
    }
    print(json.dumps(result))


main()
