"""Sampler goldens: the release's logits processors in float64, and the project's random numbers written again from their papers.

`cases.json`: logits and options, the tokens that survive with their probabilities, and the token drawn for given uniform numbers.
`random.json`: SplitMix64, xoshiro128** and the uniform numbers of some seeds, in Python's integers.
`exp.json`: e^x rounded once from 60 decimal digits.
"""

import bisect
import itertools
import json
import math
from decimal import Decimal, localcontext
from pathlib import Path

import torch
import transformers
from transformers import GenerationConfig, GenerationMixin, PretrainedConfig

from random_values import Random

OUT = Path(__file__).parent / "sampler"
PRODUCER = f"transformers {transformers.__version__}, torch {torch.__version__.split('+')[0]}"
MASK_64, MASK_32 = 2**64 - 1, 2**32 - 1


class Release(GenerationMixin):
    """As much of a model as choosing the logits processors needs: their order is the release's."""

    config = PretrainedConfig()


def release_scores(logits, observed, options):
    """What the release samples from, in the dtype of the logits: [V] scores, -inf for tokens that are filtered out."""
    greedy = options.get("temperature") == 0
    settings = {"temperature": 1.0, "top_k": 0, "top_p": 1.0, "min_p": None, "repetition_penalty": 1.0, **options}
    if greedy:
        settings["temperature"] = 1.0
    settings = {key: value if value is None or key == "top_k" else float(value) for key, value in settings.items()}
    config = GenerationConfig(do_sample=True, num_beams=1, **settings)
    config.do_sample = not greedy
    processors = Release()._get_logits_processor(config, input_ids_seq_length=len(observed))
    return processors(torch.tensor([observed], dtype=torch.int64), logits[None])[0]


def survivors(logits, observed, options):
    """The tokens that may be drawn, [(id, probability)], likeliest first and ties by ascending id."""
    scores = release_scores(logits, observed, options)
    if options.get("temperature") == 0:
        return [(int(scores.argmax()), 1.0)]
    probabilities = scores.softmax(dim=-1).tolist()
    kept = [id for id, p in enumerate(probabilities) if p > 2.3e-308]
    # top_p may end among equal tokens, where an unstable sort decides which of them the release keeps: it decides here how many, the order which.
    before_top_p = release_scores(logits, observed, {**options, "top_p": 1.0, "min_p": None}).tolist()
    order = sorted((id for id, score in enumerate(before_top_p) if score > -math.inf), key=lambda id: (-before_top_p[id], id))
    first = order[: len(kept)]
    assert sorted(before_top_p[id] for id in first) == sorted(before_top_p[id] for id in kept)
    by_score = {before_top_p[id]: probabilities[id] for id in kept}
    return [(id, by_score[before_top_p[id]]) for id in first]


def draw(tokens, u):
    """The first token at which the running sum of the probabilities exceeds u."""
    cumulative = list(itertools.accumulate(p for _, p in tokens))
    return tokens[min(bisect.bisect_right(cumulative, u), len(tokens) - 1)][0]


def draws(tokens, r):
    """[(u, id)], away from where rounding could decide."""
    cumulative = list(itertools.accumulate(p for _, p in tokens))
    uniforms = [0.0, 1 - 2**-53, *r.uniform(14).double().tolist()]
    clear = [u for u in uniforms if u == 0 or all(abs(u - edge) > 1e-9 for edge in cumulative[:-1])]
    return [(u, draw(tokens, u)) for u in clear]


OPTIONS = {
    "plain": {},
    "greedy": {"temperature": 0},
    "greedy_penalty": {"temperature": 0, "repetition_penalty": 1.3},
    "cold": {"temperature": 0.3},
    "hot": {"temperature": 1.7},
    "frozen": {"temperature": 0.001},
    "top_k_1": {"top_k": 1},
    "top_k_7": {"top_k": 7},
    "top_k_all": {"top_k": 100000},
    "top_p_tiny": {"top_p": 1e-9},
    "top_p_half": {"top_p": 0.5},
    "top_p_95": {"top_p": 0.95},
    "top_p_hot": {"top_p": 0.9, "temperature": 1.5},
    "top_k_top_p": {"top_k": 20, "top_p": 0.8},
    "min_p_05": {"min_p": 0.05},
    "min_p_1": {"min_p": 1.0},
    "min_p_top_p": {"min_p": 0.1, "top_p": 0.9},
    "penalty": {"repetition_penalty": 1.2},
    "reward": {"repetition_penalty": 0.8, "top_k": 9},
    "everything": {"repetition_penalty": 1.15, "temperature": 0.8, "top_k": 30, "top_p": 0.92, "min_p": 0.02},
}
SHAPES = {
    "spread": (211, lambda r: r.normal(211, scale=3)),
    "tied": (127, lambda r: (r.normal(127, scale=2)).round()),
    "holes": (53, lambda r: r.normal(53, scale=2).masked_fill(r.uniform(53) < 0.4, -math.inf)),
    "negative": (89, lambda r: r.normal(89, scale=2) - 30),
}


def sampler_cases():
    for (shape, (V, make)), (name, options) in itertools.product(SHAPES.items(), OPTIONS.items()):
        r = Random(f"sampler/{shape}/{name}")
        logits, observed = make(r), r.integers(17, high=V).tolist()
        observed += observed[:3]  # seen twice, penalized once
        tokens = survivors(logits.double(), observed, options)
        # The release itself works in float32; these cases are clear enough that it filters out the same number of tokens.
        kept, kept_f32 = (release_scores(x, observed, options).isfinite().sum() for x in (logits.double(), logits))
        assert kept == kept_f32, (shape, name)
        yield {
            "case": f"{shape}/{name}",
            "options": options,
            "observed": observed,
            "logits": [None if logit == -math.inf else logit for logit in logits.tolist()],
            "ids": [id for id, _ in tokens],
            "probabilities": [p for _, p in tokens],
            "draws": draws(tokens, r),
        }


def splitmix64(seed):
    """Outputs of SplitMix64: Steele, Lea, Flood, doi:10.1145/2660193.2660195, with the constants of prng.di.unimi.it/splitmix64.c."""
    for step in itertools.count(1):
        z = (seed + step * 0x9E3779B97F4A7C15) & MASK_64
        for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)):
            z = ((z ^ (z >> shift)) * factor) & MASK_64
        yield z ^ (z >> 31)


def xoshiro128starstar(s0, s1, s2, s3):
    """Outputs of xoshiro128** 1.1: Blackman, Vigna, arXiv:1805.01407."""

    def rotl(x, k):
        return ((x << k) | (x >> (32 - k))) & MASK_32

    while True:
        yield rotl(s1 * 5 & MASK_32, 7) * 9 & MASK_32
        s0, s1, s2, s3 = s0 ^ s3 ^ s1, s1 ^ s2 ^ s0, s2 ^ s0 ^ (s1 << 9 & MASK_32), rotl(s3 ^ s1, 11)


def uniforms(seed):
    first, second = itertools.islice(splitmix64(seed & MASK_64), 2)
    words = xoshiro128starstar(first & MASK_32, first >> 32, second & MASK_32, second >> 32)
    for high, low in zip(words, words):
        yield ((high >> 5 << 26) + (low >> 6)) / 2**53


def random_vectors():
    seeds = [0, 1, 42, -1, 2**32, 2**53 - 1, -(2**53) + 1, -(2**63), 2**63, 2**64 - 1]
    return {
        "splitmix64": [{"seed": str(seed), "outputs": [str(z) for z in itertools.islice(splitmix64(seed), 8)]} for seed in (0, 1477776061723855037)],
        "xoshiro128starstar": {"state": [1, 2, 3, 4], "outputs": list(itertools.islice(xoshiro128starstar(1, 2, 3, 4), 64))},
        "uniform": [{"seed": str(seed), "outputs": list(itertools.islice(uniforms(seed), 16))} for seed in seeds],
    }


def exponentials():
    r = Random("sampler/exp")
    xs = [0.0, -(2.0**-60), -math.log(2) / 2, -math.log(2), -1.0, -math.pi, -100.0, -707.999]
    xs += (-(10 ** r.uniform(300, low=-12, high=2.85)).double()).clamp(min=-708).tolist() + (-r.uniform(400, high=40)).double().tolist()
    with localcontext(prec=60):
        return [[x, float(Decimal(x).exp())] for x in xs]


def write(name, comment, rows):
    OUT.mkdir(exist_ok=True)
    head = {"_comment": comment, "producer": PRODUCER}
    # One row a line: a changed case is a changed line.
    body = ",\n".join(json.dumps(row, allow_nan=False) for row in rows) if isinstance(rows, list) else json.dumps(rows, allow_nan=False)
    body = f"[\n{body}\n]" if isinstance(rows, list) else body
    (OUT / f"{name}.json").write_text(f"{json.dumps(head)[:-1]},\n\"rows\": {body}}}\n")


def main():
    write("cases", "Logits (null is -Infinity), what may be drawn by the release's logits processors in float64, ids drawn for u.", list(sampler_cases()))
    write("random", "Outputs of SplitMix64, of xoshiro128** and of the uniform numbers made from them.", random_vectors())
    write("exp", "Pairs x, e^x; e^x is rounded once from 60 decimal digits.", exponentials())


if __name__ == "__main__":
    main()
