"""Write every golden: `python golden/generate.py`, about a minute on one core. Running it twice gives the same bytes."""

import os
import shutil
from importlib.metadata import version
from pathlib import Path

# PyTorch picks its code by the processor; held to AVX2 with one thread, its sums come out the same on any x86-64 of the last ten years.
os.environ.update(ATEN_CPU_CAPABILITY="avx2", MKL_CBWR="AVX2", ONEDNN_MAX_CPU_ISA="AVX2")

import torch
import transformers

from digests import write_digests
from kernel_cases import write_kernels
from mistakes import write_mistakes
from model_cases import model_cases, write_model

HERE = Path(__file__).parent
MISTAKES = HERE / "mistakes.json"
PRODUCER = f"torch {version('torch').split('+')[0]}, transformers {version('transformers')}"


def check_versions():
    """Refuse to write goldens with other versions than requirements.txt pins."""
    for line in (HERE / "requirements.txt").read_text().split():
        package, wanted = line.split("==")
        found = version(package).split("+")[0]
        if found != wanted:
            raise SystemExit(f"{package}: expected {wanted}, found {found}. Run pip install -r golden/requirements.txt.")


def main():
    check_versions()
    torch.set_num_threads(1)
    torch.set_grad_enabled(False)
    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    for folder in ("kernels", "models"):
        shutil.rmtree(HERE / folder, ignore_errors=True)
    for kernel, case, error in write_kernels(PRODUCER):
        print(f"{kernel}/{case}: float32 error {error:.1e}")
    for case in model_cases():
        figures = write_model(case, PRODUCER)
        print(f"{case.name}: " + ", ".join(f"{name} {value:.3g}" for name, value in figures.items()), flush=True)
    for mistake, figures in write_mistakes(MISTAKES).items():
        print(f"{mistake}: {figures['model']} moves by {figures['max_change']}, {figures['times_float32_error']} times the rounding")
    write_digests()


if __name__ == "__main__":
    main()
