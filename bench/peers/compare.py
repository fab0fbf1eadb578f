"""This engine and others on the same sizes, alternating in one run: bench/results/peers.json (every figure) and peers.md (the ratios).

    python bench/peers/compare.py                                 # five rounds of everything
    python bench/peers/compare.py --resume                        # goes on where a run was cut
    python bench/peers/compare.py --rounds 1 --only llama_cpp     # a look at some; saved in bench/peers/.work

README.md beside this file says what to install first.
"""

import argparse
import datetime
import json
import os
import pathlib
import platform
import shlex
import subprocess
import sys

from process import run, wait_for_quiet
from report import DISTURBED, markdown
from subjects import HERE, ROOT, SUBJECTS, Settings, Subject

RESULTS = ROOT / "bench" / "results"
OURS = "node dist/cli/main.js"


def machine() -> dict:
    cpuinfo = pathlib.Path("/proc/cpuinfo")
    models = [line.split(":", 1)[1].strip() for line in cpuinfo.read_text().splitlines() if line.startswith("model name")] if cpuinfo.exists() else []
    return {
        "cpu": models[0] if models else platform.processor(),
        "cores": os.cpu_count(),
        "memory_bytes": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
        "system": platform.platform(),
        "node": output("node", "--version"),
        "python": platform.python_version(),
    }


def output(*command: str) -> str:
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout.strip()


def build() -> None:
    """So that what runs is what the commit says."""
    subprocess.run(["npm", "run", "--silent", "build"], cwd=ROOT, check=True, stdout=sys.stderr)


def commit() -> str:
    """What was measured: the commit, and whether the sources differ from it."""
    changed = output("git", "status", "--porcelain", "--", "src", "assembly", "bench", ":!bench/results")
    return output("git", "rev-parse", "--short=12", "HEAD") + (" with changes" if changed else "")


def chosen(only: list[str]) -> list[Subject]:
    subjects = [s for s in SUBJECTS if not only or any(part in s.name for part in only)]
    if not subjects:
        raise SystemExit(f"--only: expected parts of {', '.join(s.name for s in SUBJECTS)}, found {' '.join(only)}. Name one of these.")
    return subjects


def measure(subject: Subject, settings: Settings, patience: int, wait: float) -> list[dict]:
    """One measurement, and further ones while others take the machine; all are kept, the report takes the quietest."""
    try:
        command = subject.command(settings)
    except ImportError as error:
        return [{"error": f"{error}. Run this script with the Python that has bench/peers/requirements.txt."}]
    attempts: list[dict] = []
    while not attempts or (len(attempts) <= patience and attempts[-1].get("foreign_cores", 0) > DISTURBED):
        wait_for_quiet(DISTURBED, wait)
        attempts.append(run(command, ROOT))
        if "error" in attempts[-1]:
            break
    return attempts


def opened(path: pathlib.Path, settings: Settings, resume: bool) -> dict:
    this = {"commit": commit(), "shape": settings.shape, "ours": shlex.join(settings.ours), "machine": machine()}
    if not resume:
        return {**this, "measurements": []}
    if not path.exists():
        raise SystemExit(f"--resume: expected {path}, found no such file. Run without --resume.")
    before = json.loads(path.read_text())
    for key, value in this.items():
        if before[key] != value:
            raise SystemExit(f"--resume: expected {key} {before[key]}, found {value}. Two builds or machines in one table mean nothing: run anew.")
    return before


def save(run_: dict, folder: pathlib.Path) -> None:
    """Both files, each replaced at once, so that a cut leaves the last whole ones."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in [("peers.json", json.dumps(run_, indent=1) + "\n"), ("peers.md", markdown(run_, SUBJECTS))]:
        partial = folder / f"{name}.partial"
        partial.write_text(text)
        partial.replace(folder / name)


def figures(measurement: dict) -> str:
    if "error" in measurement:
        return f"not measured: {measurement['error']}"
    result = measurement["result"]
    if "gflops" in result:
        rates = f"{result['gflops']:.1f} GFLOP/s"
    else:
        prefill = ", ".join(f"{T}: {rate['tokens_per_second']:.0f}" for T, rate in result["prefill"].items())
        rates = f"prefill {prefill}; decode {result['decode']['tokens_per_second']:.1f} tok/s"
    return f"{rates} ({measurement['seconds']:.0f} s, others took {measurement.get('foreign_cores', float('nan')):.2f} cores)"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--only", nargs="+", default=[], metavar="PART", help="subjects whose name contains one of these")
    parser.add_argument("--resume", action="store_true", help="keep what the last run measured, of the same build on the same machine")
    parser.add_argument("--output", type=pathlib.Path, help="folder for both files (default: bench/results, with --only bench/peers/.work)")
    parser.add_argument("--patience", type=int, default=2, help="how often a measurement that others disturbed is made again")
    parser.add_argument("--wait", type=float, default=60, help="seconds to wait at most for a quiet machine before each measurement")
    parser.add_argument("--ours", default=OURS, help="this engine's command line (default: %(default)s, built first)")
    args = parser.parse_args()

    settings = Settings(shape="0.3b", ours=shlex.split(args.ours))
    subjects = chosen(args.only)
    folder = args.output or (HERE / ".work" if args.only else RESULTS)
    run_ = opened(folder / "peers.json", settings, args.resume)
    if any(s.ours for s in subjects):
        build()
    done = {(m["round"], m["subject"]) for m in run_["measurements"] if "result" in m}
    for round_ in range(1, args.rounds + 1):
        # Every other round runs backwards, so that neither of two neighbours is always the one that comes second.
        for subject in subjects if round_ % 2 else reversed(subjects):
            if (round_, subject.name) in done:
                continue
            for measurement in measure(subject, settings, args.patience, args.wait):
                at = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
                run_["measurements"].append({"round": round_, "subject": subject.name, "at": at, **measurement})
                print(f"{round_}/{args.rounds} {subject.title}: {figures(measurement)}", file=sys.stderr, flush=True)
            save(run_, folder)
    print((folder / "peers.md").read_text())


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        raise SystemExit("Cut. What was measured is saved; --resume goes on from there.") from None
