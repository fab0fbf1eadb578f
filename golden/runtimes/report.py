"""Write the tables of docs/conformance.md: `python golden/runtimes/report.py`, some minutes, after `npm run build`.

HF transformers as it is passes every level; with a mistake it must reach the level below the one that is for it.
"""

import json
import re
import subprocess
import sys
import tempfile
from pathlib import Path

from transformers_runtime import LEVELS

ROOT = Path(__file__).parents[2]
RUNTIME = Path(__file__).parent / "transformers_runtime.py"
PAGE = ROOT / "docs" / "conformance.md"
# Mistakes by the level that must be the first to fail.
FIRST = {
    "rope_on": "config",
    "decay_after_read": "op",
    "l2_eps_on_mean": "op",
    "kv_heads_tiled": "op",
    "state_in_bf16": "op",
    "o_norm_eps_1e-6": "layer",
    "qk_norm_per_head": "layer",
    "beta_without_2": "layer",
    "pre_norm_in_attention_block": "layer",
    "state_of_another_text": "layer",
    "conv_state_after_activation": "decode",
    "conv_state_lost": "decode",
    "cache_not_copied": "state",
    "temperature_last": "sampler",
    "top_p_before_top_k": "sampler",
}


def conform(script, arguments=""):
    command = ["node", "dist/cli/main.js", "conform", "--runtime", f"'{sys.executable}' '{script}' {arguments}", "--json"]
    report = json.loads(subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL).stdout)
    print(f"{Path(script).name} {arguments}: reached {report['reached']}", flush=True)
    return report


def check_example(page):
    """The adapter on the page must pass the levels that it supports."""
    code = re.search(r"^```python\n(.*?)^```", page, re.M | re.S)[1]
    if len(code.splitlines()) > 40:
        raise AssertionError("the example has more than 40 lines")
    with tempfile.NamedTemporaryFile("w", suffix=".py") as file:
        file.write(code)
        file.flush()
        report = conform(file.name)
    passed = [level["level"] for level in report["levels"] if level["status"] == "passed"]
    if not report["conforms"] or passed != ["layer", "prefill", "decode", "prefill_decode", "state"]:
        raise AssertionError(json.dumps(report, indent=2))


def table(rows):
    head, *rest = rows
    return "".join(f"| {' | '.join(row)} |\n" for row in [head, ["---"] * len(head), *rest])


def number(value):
    return "" if value is None else f"{value:.2g}"


def of_the_release(report):
    rows = [["level", "cases", "passed", "measured", "worst", "bound"]]
    for level in report["levels"]:
        cases, measure = level["cases"], level["measure"] or {"unit": "", "bound": None}
        good = sum(case["status"] == "passed" for case in cases)
        worst = max((case["measured"] for case in cases if case["measured"] is not None), default=None)
        rows.append([f"`{level['level']}`", str(len(cases)), str(good), measure["unit"], number(worst), number(measure["bound"])])
    return table(rows)


def of_a_mistake(mistake, report):
    failed = [level for level in report["levels"] if level["status"] == "failed"]
    first = failed[0]
    if first["level"] != FIRST[mistake]:
        raise AssertionError(f"{mistake}: {FIRST[mistake]} must be the first level to fail, {first['level']} is")
    bad = [case for case in first["cases"] if case["status"] == "failed"]
    said = bad[0]["said"].split("\n")[0].replace("|", "\\|")
    others = ", ".join(f"`{level['level']}`" for level in failed[1:])
    return [f"`{mistake}`", f"`{first['level']}`", f"{len(bad)} of {len(first['cases'])}", f"{bad[0]['name']}: {said}", others]


def main():
    page = PAGE.read_text()
    check_example(page)
    right = conform(RUNTIME)
    if not right["conforms"] or [level["level"] for level in right["levels"]] != LEVELS:
        raise AssertionError(json.dumps(right, indent=2))
    rows = [["mistake", "first level that fails", "cases", "what is said of the first of them", "fail as well"]]
    rows += [of_a_mistake(mistake, conform(RUNTIME, f"--inject {mistake}")) for mistake in FIRST]
    for name, text in {"release": of_the_release(right), "mistakes": table(rows)}.items():
        begin, end = f"<!-- {name} -->\n", f"<!-- /{name} -->\n"
        before, rest = page.split(begin)
        page = before + begin + text + end + rest.split(end)[1]
    PAGE.write_text(page)


if __name__ == "__main__":
    main()
