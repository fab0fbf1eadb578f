"""Safetensors files whose bytes depend on their contents alone: keys sorted, header padded to 8 bytes."""

import json
from pathlib import Path

import torch

DTYPES = {
    torch.float64: "F64",
    torch.float32: "F32",
    torch.float16: "F16",
    torch.bfloat16: "BF16",
    torch.int32: "I32",
}


def _bytes(tensor):
    tensor = tensor.detach().contiguous()
    if tensor.dtype == torch.bfloat16:  # numpy has no bfloat16
        tensor = tensor.view(torch.int16)
    return tensor.numpy().tobytes()


def write_safetensors(path, tensors, metadata):
    """Write `tensors` (name -> torch tensor) and `metadata` (str -> str) to `path`, making its folder."""
    header, blobs, end = {"__metadata__": dict(sorted(metadata.items()))}, [], 0
    # Wide elements first keeps every tensor aligned to its own element size.
    for name in sorted(tensors, key=lambda n: (-tensors[n].element_size(), n)):
        blob = _bytes(tensors[name])
        begin, end = end, end + len(blob)
        header[name] = {"dtype": DTYPES[tensors[name].dtype], "shape": list(tensors[name].shape), "data_offsets": [begin, end]}
        blobs.append(blob)
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % 8)
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(len(text).to_bytes(8, "little") + text + b"".join(blobs))
