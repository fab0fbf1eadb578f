"""A cache as Python's huggingface_hub leaves it, of a small repository on the scripted hub: golden/hub_cache/, the same bytes on every run.

    npm run build && npx tsc -p test/hub && python golden/hub_cache.py

The repository is `golden/sharded`: the weights of models/sharded and the tokenizer of tokenizer/, of which `main` has the chat template and
`stage1-step10000` has not. Nothing in the cache is named or written but by huggingface_hub, its locks are taken away.
"""

import os
import shutil
import subprocess
import tempfile
from pathlib import Path

HERE = Path(__file__).parent
OUT = HERE / "hub_cache"
SERVE = HERE.parent / "build" / "test" / "hub" / "serve.js"
REPOSITORY = "golden/sharded"
BASE = [
    *[f"models/sharded/{name}" for name in ["config.json", "model.safetensors.index.json"]],
    *[f"models/sharded/model-0000{shard}-of-00003.safetensors" for shard in [1, 2, 3]],
    *[f"tokenizer/{name}" for name in ["tokenizer.json", "tokenizer_config.json"]],
]
REVISIONS = {"main": [*BASE, "tokenizer/chat_template.jinja"], "stage1-step10000": BASE}


def main():
    with tempfile.TemporaryDirectory() as work:
        folders = []
        for revision, files in REVISIONS.items():
            folder = Path(work) / revision
            folder.mkdir()
            for file in files:
                shutil.copy(HERE / file, folder)
            folders.append(f"{revision}={folder}")
        command = ["node", SERVE, "--id", REPOSITORY, "--lfs", "tokenizer.json", *folders]
        with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as hub:
            # huggingface_hub reads its settings when it is imported.
            os.environ.update(HF_ENDPOINT=hub.stdout.readline().strip(), HF_HUB_DISABLE_XET="1", HF_HUB_DISABLE_PROGRESS_BARS="1")
            from huggingface_hub import snapshot_download

            shutil.rmtree(OUT, ignore_errors=True)
            for revision in REVISIONS:
                snapshot_download(REPOSITORY, revision=revision, cache_dir=OUT)
            hub.stdin.close()
    shutil.rmtree(OUT / ".locks")


if __name__ == "__main__":
    main()
