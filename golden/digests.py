"""sha256 of every golden file, by its path below golden/: `python golden/digests.py` after any of the scripts has written."""

import hashlib
import json
import pathlib

HERE = pathlib.Path(__file__).parent
DATA = {".safetensors", ".json", ".jinja", ".txt"}
NOT_GOLDEN = {"digests.json", "requirements.txt"}


def write_digests():
    files = [file for file in HERE.rglob("*") if file.suffix in DATA and file.name not in NOT_GOLDEN and ".work" not in file.parts]
    digests = {file.relative_to(HERE).as_posix(): hashlib.sha256(file.read_bytes()).hexdigest() for file in files}
    (HERE / "digests.json").write_text(json.dumps(dict(sorted(digests.items())), indent=2) + "\n")


if __name__ == "__main__":
    write_digests()
