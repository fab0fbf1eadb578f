"""What Python's huggingface_hub and transformers find in a cache, as JSON: `npm run test:python-hub -- PYTHON` compares.

python golden/hub_python.py read ID REVISION [FILE ...]    without a request: the snapshot, its files, the scan of the cache, and the loaded model
python golden/hub_python.py fetch ID REVISION              downloads from HF_ENDPOINT, and prints the snapshot
"""

import json
import sys

from huggingface_hub import hf_hub_download, scan_cache_dir, snapshot_download


def read(repository, revision, *files):
    import torch
    import transformers

    transformers.utils.logging.disable_progress_bar()
    local = {"revision": revision, "local_files_only": True}
    config = transformers.AutoConfig.from_pretrained(repository, **local)
    model, loading = transformers.AutoModelForCausalLM.from_pretrained(repository, output_loading_info=True, **local)
    with torch.no_grad():
        logits = model(torch.arange(1, 9)[None]).logits
    cache = scan_cache_dir()
    (repo,) = [repo for repo in cache.repos if repo.repo_id == repository]
    return {
        "snapshot": snapshot_download(repository, **local),
        "files": {file: hf_hub_download(repository, file, **local) for file in files},
        "warnings": [str(warning) for warning in cache.warnings],
        "refs": {ref: rev.commit_hash for rev in repo.revisions for ref in rev.refs},
        "scanned": {file.file_name: file.size_on_disk for rev in repo.revisions if revision in rev.refs for file in rev.files},
        "model_type": config.model_type,
        "loading": {kind: sorted(map(str, names)) for kind, names in loading.items() if names},
        "logits_are_finite": bool(torch.isfinite(logits).all()),
        "vocabulary": logits.shape[-1],
    }


def fetch(repository, revision):
    return {"snapshot": snapshot_download(repository, revision=revision)}


if __name__ == "__main__":
    command, *arguments = sys.argv[1:]
    print(json.dumps({"read": read, "fetch": fetch}[command](*arguments)))
