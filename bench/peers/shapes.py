"""The sizes that every engine is given. Vectors (norms, gates, the convolution) are too small to matter and follow each architecture."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Shape:
    hidden: int
    layers: int
    full_attention_interval: int  # every n-th layer is full attention, the others are Gated DeltaNet
    heads: int  # of attention, as many for keys and values
    intermediate: int
    vocab: int
    linear_heads: int
    linear_key_head: int
    linear_value_head: int
    conv_kernel: int

    @property
    def head(self) -> int:
        return self.hidden // self.heads


SHAPES = {
    "0.3b": Shape(
        hidden=1024, layers=16, full_attention_interval=4, heads=8, intermediate=2816, vocab=32768,
        linear_heads=8, linear_key_head=96, linear_value_head=192, conv_kernel=4,
    ),
}  # fmt: skip

PREFILLS = (512, 2048)  # tokens
DECODE_AFTER = 512
DECODED = 64
