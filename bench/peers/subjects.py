"""What is run, by which command. Every command is a process of its own that prints one JSON object."""

import json
import pathlib
import sys
from collections.abc import Callable
from dataclasses import dataclass

from shapes import DECODE_AFTER, DECODED, PREFILLS

HERE = pathlib.Path(__file__).parent
ROOT = HERE.parents[1]
PRODUCT = {"M": 256, "K": 3840, "N": 3840}
THREADS = 2
REPEATS = 2  # in one process, of which the mean counts


@dataclass(frozen=True)
class Subject:
    name: str  # what --only looks at, and the key in peers.json
    title: str  # what the tables say
    command: Callable[["Settings"], list[str]]

    @property
    def ours(self) -> bool:
        return self.name.startswith("ours_")


@dataclass(frozen=True)
class Settings:
    shape: str
    ours: list[str]  # the command line of this engine, up to its verb


def ours(weights: str, mode: str, threads: int = THREADS) -> Subject:
    def command(settings: Settings) -> list[str]:
        flags = {"shape": settings.shape, "weights": weights, "mode": mode, "threads": str(threads), "rounds": str(REPEATS)}
        return [*settings.ours, "bench", *(word for flag, value in flags.items() for word in (f"--{flag}", value)), "--json"]

    one = " on one thread" if threads == 1 else ""
    return Subject(f"ours_{weights}_{mode}" + ("_1t" if threads == 1 else ""), f"olmo-hybrid, {weights}, {mode}{one}", command)


def llama_cpp(arch: str, weights: str) -> Subject:
    def command(settings: Settings) -> list[str]:
        from gguf_files import gguf_file  # writes the file before the clock starts; needs numpy and gguf

        path = str(gguf_file(arch, weights, settings.shape))
        call = {"path": path, "threads": THREADS, "prefills": PREFILLS, "decode_after": DECODE_AFTER, "decoded": DECODED}
        return ["node", str(HERE / "llama_cpp_peer.mjs"), json.dumps(call)]

    return Subject(f"llama_cpp_{arch}_{weights}", f"llama.cpp, {arch} shape, {weights}", command)


def transformers(dtype: str) -> Subject:
    def command(settings: Settings) -> list[str]:
        return [sys.executable, str(HERE / "transformers_peer.py"), dtype, "--shape", settings.shape, "--threads", str(THREADS)]

    return Subject(f"transformers_{dtype}", f"HF transformers, OlmoHybrid, {dtype}", command)


def product(threads: int) -> list[Subject]:
    end = f"f32 product, {threads} thread{'s' if threads > 1 else ''}"
    call = {**PRODUCT, "threads": threads}

    def mine(build: str) -> Subject:
        command = ["node", str(HERE / "ours_product.mjs"), json.dumps({**call, "build": build})]
        return Subject(f"ours_product_{build}_{threads}t", f"olmo-hybrid, {build} build, {end}", lambda _: command)

    theirs = ["node", str(HERE / "onnxruntime_peer.mjs"), json.dumps(call)]
    return [mine("strict"), Subject(f"onnxruntime_product_{threads}t", f"onnxruntime-web, {end}", lambda _: theirs), mine("relaxed")]


# Those that are held against each other stand together, so that they meet the machine in the same state.
SUBJECTS = [
    *product(1),
    *product(2),
    transformers("float32"),
    ours("f32", "strict"),
    ours("bf16", "strict"),
    transformers("bfloat16"),
    ours("bf16", "fast"),
    llama_cpp("qwen35", "bf16"),
    llama_cpp("olmo2", "bf16"),
    ours("q8", "fast", threads=1),
    ours("q8", "fast"),
    llama_cpp("qwen35", "q8_0"),
    llama_cpp("olmo2", "q8_0"),
    ours("q4", "fast"),
    llama_cpp("qwen35", "q4_0"),
    llama_cpp("olmo2", "q4_0"),
]
