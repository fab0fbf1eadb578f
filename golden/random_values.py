"""Random tensors that depend on a name only, so that adding a case never changes another."""

import hashlib

import torch


class Random:
    """A float32 source seeded by `name`."""

    def __init__(self, name):
        self.generator = torch.Generator().manual_seed(int.from_bytes(hashlib.sha256(name.encode()).digest()[:6], "little"))

    def normal(self, *shape, scale=1.0):
        return torch.randn(shape, generator=self.generator) * scale

    def uniform(self, *shape, low=0.0, high=1.0):
        return torch.rand(shape, generator=self.generator) * (high - low) + low

    def spread(self, *shape, low=-2.0, high=2.0):
        """Normal values times 10^[low, high]: several orders of magnitude side by side."""
        return self.normal(*shape) * 10 ** self.uniform(*shape, low=low, high=high)

    def integers(self, *shape, high):
        return torch.randint(high, shape, generator=self.generator, dtype=torch.int32)
