"""The markdown of a run: the goals, every pair, every engine. Ratios are formed within a round, then the median of the rounds is taken.

    python bench/peers/report.py bench/results/peers_zen4.json   # prints it
"""

import json
import pathlib
import statistics
import sys
from dataclasses import dataclass

from subjects import SUBJECTS, Subject

DISTURBED = 0.1  # cores; a measurement during which others took more says little
RATES = {"prefill 512": "prefill.512.tokens_per_second", "prefill 2048": "prefill.2048.tokens_per_second", "decode": "decode.tokens_per_second"}


@dataclass(frozen=True)
class Goal:
    text: str
    ours: tuple[str, str]  # subject, figure
    theirs: tuple[str, str]
    least: float


DECODE, PREFILL = RATES["decode"], RATES["prefill 512"]
READ, LIMIT = "decode.gbps", "decode.memory_read_gbps"
FLOPS, PEAK = "gflops", "limits.f32_gflops"
GOALS = [
    Goal("decode q8, weights read in GB/s, over the memory's own rate", ("ours_q8_fast", READ), ("ours_q8_fast", LIMIT), 0.80),
    Goal("decode bf16, the same", ("ours_bf16_fast", READ), ("ours_bf16_fast", LIMIT), 0.75),
    Goal("decode q4, the same", ("ours_q4_fast", READ), ("ours_q4_fast", LIMIT), 0.60),
    Goal("decode q8, over llama.cpp q8_0, qwen35 shape", ("ours_q8_fast", DECODE), ("llama_cpp_qwen35_q8_0", DECODE), 1.5),
    Goal("decode bf16, over HF transformers bf16", ("ours_bf16_fast", DECODE), ("transformers_bfloat16", DECODE), 2.5),
    Goal("decode q4, over llama.cpp q4_0, qwen35 shape", ("ours_q4_fast", DECODE), ("llama_cpp_qwen35_q4_0", DECODE), 1.3),
    Goal("decode q8, two threads over one", ("ours_q8_fast", DECODE), ("ours_q8_fast_1t", DECODE), 1.6),
    Goal("prefill 512, strict bf16, over HF transformers f32", ("ours_bf16_strict", PREFILL), ("transformers_float32", PREFILL), 0.5),
    Goal("prefill 512, fast q8, over llama.cpp q8_0, qwen35 shape", ("ours_q8_fast", PREFILL), ("llama_cpp_qwen35_q8_0", PREFILL), 0.9),
    Goal("f32 product, strict, 2 threads, over onnxruntime-web", ("ours_product_strict_2t", FLOPS), ("onnxruntime_product_2t", FLOPS), 1.6),
    Goal("f32 product, strict, 1 thread, over onnxruntime-web", ("ours_product_strict_1t", FLOPS), ("onnxruntime_product_1t", FLOPS), 1.6),
    Goal("f32 product, relaxed, 2 threads, over onnxruntime-web", ("ours_product_relaxed_2t", FLOPS), ("onnxruntime_product_2t", FLOPS), 1.6),
    Goal("f32 product, strict, 2 threads, over the wasm f32 peak", ("ours_product_strict_2t", FLOPS), ("ours_product_strict_2t", PEAK), 0.85),
]
PAIRS = {
    "ours_f32_strict": ["transformers_float32"],
    "ours_bf16_strict": ["transformers_float32", "transformers_bfloat16"],
    "ours_bf16_fast": ["transformers_bfloat16", "llama_cpp_qwen35_bf16", "llama_cpp_olmo2_bf16"],
    "ours_q8_fast": ["llama_cpp_qwen35_q8_0", "llama_cpp_olmo2_q8_0"],
    "ours_q4_fast": ["llama_cpp_qwen35_q4_0", "llama_cpp_olmo2_q4_0"],
}


class Rounds:
    """The quietest measurement of each subject in each round."""

    def __init__(self, measurements: list[dict]):
        self.of: dict[str, dict[int, dict]] = {}
        self.errors: dict[str, str] = {}
        for m in measurements:
            if "error" in m:
                self.errors[m["subject"]] = m["error"]
                continue
            rounds = self.of.setdefault(m["subject"], {})
            if m["round"] not in rounds or m.get("foreign_cores", 0) < rounds[m["round"]].get("foreign_cores", 0):
                rounds[m["round"]] = m

    def figure(self, subject: str, path: str) -> dict[int, float]:
        """By round; without the rounds that do not have it."""
        values = {}
        for round_, m in self.of.get(subject, {}).items():
            value = m["result"]
            for key in path.split("."):
                value = value.get(key) if isinstance(value, dict) else None
            if isinstance(value, (int, float)):
                values[round_] = float(value)
        return values

    def ratios(self, ours: tuple[str, str], theirs: tuple[str, str]) -> list[float]:
        mine, other = self.figure(*ours), self.figure(*theirs)
        return [mine[r] / other[r] for r in sorted(mine.keys() & other.keys())]

    def disturbed(self, subject: str) -> int:
        return sum(m.get("foreign_cores", 0) > DISTURBED for m in self.of.get(subject, {}).values())


def number(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.1f}"


def median_of(values: dict[int, float]) -> str:
    return number(statistics.median(values.values())) if values else "-"


def ratio_of(ratios: list[float]) -> str:
    return f"**{statistics.median(ratios):.2f}**" if ratios else "-"


def goal_rows(rounds: Rounds) -> list[str]:
    rows = ["| | ours | theirs | ratio | goal | |", "|---|---|---|---|---|---|"]
    for goal in GOALS:
        ratios = rounds.ratios(goal.ours, goal.theirs)
        verdict = "not measured" if not ratios else "reached" if statistics.median(ratios) >= goal.least else "missed"
        mine, other = rounds.figure(*goal.ours), rounds.figure(*goal.theirs)
        rows.append(f"| {goal.text} | {median_of(mine)} | {median_of(other)} | {ratio_of(ratios)} | {goal.least:.2f} | {verdict} |")
    return rows


def pair_rows(rounds: Rounds, titles: dict[str, str]) -> list[str]:
    rows = [f"| ours over theirs | {' | '.join(RATES)} |", f"|---|{'---|' * len(RATES)}"]
    for ours, peers in PAIRS.items():
        for theirs in peers:
            cells = (ratio_of(rounds.ratios((ours, path), (theirs, path))) for path in RATES.values())
            rows.append(f"| {titles[ours]} / {titles[theirs]} | {' | '.join(cells)} |")
    return rows


def engine_rows(rounds: Rounds, subjects: list[Subject]) -> list[str]:
    def cell(subject: Subject, path: str) -> str:
        values = rounds.figure(subject.name, path)
        if not values:
            return "-"
        spread = f" ({number(min(values.values()))} to {number(max(values.values()))})" if len(values) > 1 else ""
        return f"{median_of(values)}{spread}"

    columns = {**RATES, "GFLOP/s": "gflops"}
    rows = [f"| token/s, median (least to most) | {' | '.join(columns)} | rounds | disturbed |", f"|---|{'---|' * len(columns)}---|---|"]
    for subject in subjects:
        if subject.name not in rounds.of:
            rows.append(f"| {subject.title} |{' - |' * len(columns)} 0 | {rounds.errors.get(subject.name, 'not run')} |")
            continue
        cells = " | ".join(cell(subject, path) for path in columns.values())
        rows.append(f"| {subject.title} | {cells} | {len(rounds.of[subject.name])} | {rounds.disturbed(subject.name)} |")
    return rows


def versions(measurements: list[dict]) -> str:
    found = {name: version for m in measurements for name, version in m.get("result", {}).get("versions", {}).items()}
    return ", ".join(f"{name} {version}" for name, version in sorted(found.items()))


def markdown(run: dict, subjects: list[Subject]) -> str:
    machine, rounds = run["machine"], Rounds(run["measurements"])
    counts = {len(of) for of in rounds.of.values()} or {0}
    shown = f"{min(counts)}" if len(counts) == 1 else f"{min(counts)} to {max(counts)}"
    titles = {s.name: s.title for s in subjects}
    lines = [
        "# Beside other engines",
        "",
        f"{machine['cpu']}, {machine['cores']} cores, {machine['memory_bytes'] / 2**30:.0f} GiB, Node {machine['node'].lstrip('v')};",
        f"commit {run['commit']}.",
        f"{versions(run['measurements'])}.",
        f"Shape {run['shape']}, random weights, two threads, {shown} alternating rounds. A ratio is formed within a round; the tables have the",
        f"median of the rounds. `disturbed` counts rounds in which something else took more than {DISTURBED} cores. llama.cpp does not know",
        "OLMo Hybrid and runs other architectures of the same sizes: [what is compared, and what is not comparable](../peers/README.md).",
        "",
        *goal_rows(rounds),
        "",
        *pair_rows(rounds, titles),
        "",
        *engine_rows(rounds, subjects),
        "",
    ]
    return "\n".join(lines)


if __name__ == "__main__":
    print(markdown(json.loads(pathlib.Path(sys.argv[1]).read_text()), SUBJECTS))
