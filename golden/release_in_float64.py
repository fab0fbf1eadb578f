"""The release's own modules with every cast to float32 taken out, to check truth.py against."""

from contextlib import ExitStack, contextmanager
from unittest.mock import patch

import torch
from transformers import modeling_rope_utils
from transformers.models.olmo3 import modeling_olmo3
from transformers.models.olmo_hybrid import modeling_olmo_hybrid


class _DoubleTorch:
    """`torch`, except that its float32 is float64."""

    float32 = float = torch.float64

    def __getattr__(self, name):
        return getattr(torch, name)


@contextmanager
def float32_means_float64():
    """Inside, the modelling files build and run with float64 wherever they ask for float32."""
    with ExitStack() as stack:
        for module in (modeling_olmo_hybrid, modeling_olmo3, modeling_rope_utils):
            stack.enter_context(patch.object(module, "torch", _DoubleTorch()))
        stack.enter_context(patch.object(torch.Tensor, "float", torch.Tensor.double))
        yield
