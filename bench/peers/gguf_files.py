"""Random GGUF files for llama.cpp: OLMo 2 and Qwen 3.5 (`qwen35`, the Gated DeltaNet hybrid nearest to ours) at the sizes of a shape.

    python bench/peers/gguf_files.py olmo2 q8_0      # prints the path; written once, into bench/peers/.work

Keys, names and shapes: llama.cpp, src/models/{olmo2,qwen35}.cpp, the functions load_arch_hparams and load_arch_tensors. Which tensor has which
type: as llama-quantize would write the file, so vectors and the convolution are F32 and a Q4_0 file has its lm_head in Q6_K.
"""

import argparse
import hashlib
import pathlib
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from gguf import GGMLQuantizationType, GGUFWriter, TokenType
from gguf.quants import quantize

from shapes import SHAPES, Shape

HERE = pathlib.Path(__file__).parent
WORK = HERE / ".work"
WEIGHTS = {"bf16": GGMLQuantizationType.BF16, "q8_0": GGMLQuantizationType.Q8_0, "q4_0": GGMLQuantizationType.Q4_0}
DELTA_HEAD = 128  # Qwen's, for keys and values alike: llama.cpp knows no other than a square state


@dataclass(frozen=True)
class Tensor:
    """A matrix [outputs, inputs] of random weights, or a vector of ones (norms), or small F32 values (gates, convolution)."""

    name: str
    shape: tuple[int, ...]
    fill: str = "random"  # or "ones", "f32", "decay"


def mlp(s: Shape, block: str) -> Iterator[Tensor]:
    yield Tensor(f"{block}.ffn_gate.weight", (s.intermediate, s.hidden))
    yield Tensor(f"{block}.ffn_up.weight", (s.intermediate, s.hidden))
    yield Tensor(f"{block}.ffn_down.weight", (s.hidden, s.intermediate))


def ends(s: Shape) -> Iterator[Tensor]:
    yield Tensor("token_embd.weight", (s.vocab, s.hidden))
    yield Tensor("output_norm.weight", (s.hidden,), "ones")
    yield Tensor("output.weight", (s.vocab, s.hidden))


def olmo2_tensors(s: Shape) -> Iterator[Tensor]:
    yield from ends(s)
    for i in range(s.layers):
        block = f"blk.{i}"
        for name in ("attn_q", "attn_k", "attn_v", "attn_output"):
            yield Tensor(f"{block}.{name}.weight", (s.hidden, s.hidden))
        for name in ("attn_q_norm", "attn_k_norm", "post_attention_norm", "post_ffw_norm"):
            yield Tensor(f"{block}.{name}.weight", (s.hidden,), "ones")
        yield from mlp(s, block)


def qwen35_heads(s: Shape) -> tuple[int, int]:
    """Key and value heads of 128 that make the projections exactly as wide as ours: 768 for q and k, 1536 for v, g and o at 0.3b."""
    keys, values = (s.linear_heads * size for size in (s.linear_key_head, s.linear_value_head))
    if keys % DELTA_HEAD or values % DELTA_HEAD:
        raise ValueError(f"qwen35: expected widths divisible by {DELTA_HEAD}, found {keys} and {values}. Choose another shape.")
    return keys // DELTA_HEAD, values // DELTA_HEAD


def qwen35_tensors(s: Shape) -> Iterator[Tensor]:
    yield from ends(s)
    key_heads, value_heads = qwen35_heads(s)
    qkv, values = (2 * key_heads + value_heads) * DELTA_HEAD, value_heads * DELTA_HEAD
    for i in range(s.layers):
        block = f"blk.{i}"
        yield Tensor(f"{block}.attn_norm.weight", (s.hidden,), "ones")
        yield Tensor(f"{block}.post_attention_norm.weight", (s.hidden,), "ones")
        if (i + 1) % s.full_attention_interval == 0:
            yield Tensor(f"{block}.attn_q.weight", (2 * s.hidden, s.hidden))  # queries and the gate of the output
            for name in ("attn_k", "attn_v", "attn_output"):
                yield Tensor(f"{block}.{name}.weight", (s.hidden, s.hidden))
            for name in ("attn_q_norm", "attn_k_norm"):
                yield Tensor(f"{block}.{name}.weight", (s.head,), "ones")
        else:
            yield Tensor(f"{block}.attn_qkv.weight", (qkv, s.hidden))
            yield Tensor(f"{block}.attn_gate.weight", (values, s.hidden))
            yield Tensor(f"{block}.ssm_conv1d.weight", (qkv, s.conv_kernel), "f32")
            yield Tensor(f"{block}.ssm_dt.bias", (value_heads,), "f32")
            yield Tensor(f"{block}.ssm_a", (value_heads,), "decay")
            yield Tensor(f"{block}.ssm_beta.weight", (value_heads, s.hidden))
            yield Tensor(f"{block}.ssm_alpha.weight", (value_heads, s.hidden))
            yield Tensor(f"{block}.ssm_norm.weight", (DELTA_HEAD,), "ones")
            yield Tensor(f"{block}.ssm_out.weight", (s.hidden, values))
        yield from mlp(s, block)


TENSORS = {"olmo2": olmo2_tensors, "qwen35": qwen35_tensors}


def add_vocabulary(writer: GGUFWriter, size: int) -> None:
    """Made-up tokens. Only ids are ever used, but node-llama-cpp tokenizes some text of its own when it loads a model."""
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("gpt-2")
    writer.add_token_list([chr(33 + i) for i in range(94)] + [f"<{i}>" for i in range(94, size)])
    writer.add_token_types([TokenType.NORMAL] * size)
    writer.add_token_merges(["a b"])
    writer.add_eos_token_id(size - 1)


def add_metadata(writer: GGUFWriter, arch: str, s: Shape) -> None:
    writer.add_context_length(4096)
    writer.add_embedding_length(s.hidden)
    writer.add_block_count(s.layers)
    writer.add_feed_forward_length(s.intermediate)
    writer.add_head_count(s.heads)
    writer.add_head_count_kv(s.heads)
    writer.add_key_length(s.head)
    writer.add_value_length(s.head)
    writer.add_layer_norm_rms_eps(1e-6)
    writer.add_rope_freq_base(500000.0)
    writer.add_vocab_size(s.vocab)
    add_vocabulary(writer, s.vocab)
    if arch == "qwen35":
        key_heads, value_heads = qwen35_heads(s)
        writer.add_rope_dimension_count(s.head // 4)
        writer.add_rope_dimension_sections([s.head // 8, 0, 0, 0])  # as for text: one section of pairs
        writer.add_full_attention_interval(s.full_attention_interval)
        writer.add_ssm_conv_kernel(s.conv_kernel)
        writer.add_ssm_inner_size(value_heads * DELTA_HEAD)
        writer.add_ssm_state_size(DELTA_HEAD)
        writer.add_ssm_time_step_rank(value_heads)
        writer.add_ssm_group_count(key_heads)
    else:
        writer.add_rope_dimension_count(s.head)


def random_q6_k(rows: int, columns: int, rng: np.random.Generator) -> np.ndarray:
    """Q6_K blocks of random bits: the `gguf` package reads this format but cannot quantise to it. 256 numbers in 210 bytes:
    192 of quants in [-32, 32), 16 int8 scales, one f16 scale. Values spread like those of the other matrices, about 0.02."""
    blocks = rows * columns // 256
    quants = rng.integers(0, 256, (blocks, 192), dtype=np.uint8)
    scales = rng.integers(32, 64, (blocks, 16), dtype=np.uint8)
    scale = np.full((blocks, 1), 2.3e-5, dtype=np.float16).view(np.uint8)
    return np.concatenate([quants, scales, scale], axis=1).reshape(rows, -1)


def data(tensor: Tensor, kind: GGMLQuantizationType, rng: np.random.Generator) -> tuple[np.ndarray, GGMLQuantizationType]:
    if tensor.fill == "ones":
        return np.ones(tensor.shape, np.float32), GGMLQuantizationType.F32
    if tensor.fill == "decay":
        return -rng.uniform(1, 16, tensor.shape).astype(np.float32), GGMLQuantizationType.F32  # -exp(A_log)
    if tensor.name == "output.weight" and kind == GGMLQuantizationType.Q4_0:
        return random_q6_k(*tensor.shape, rng), GGMLQuantizationType.Q6_K
    values = rng.standard_normal(tensor.shape, np.float32)
    if tensor.fill == "f32":
        return values * np.float32(0.3), GGMLQuantizationType.F32
    return quantize(values * np.float32(0.02), kind), kind


def gguf_file(arch: str, weights: str, shape: str = "0.3b") -> pathlib.Path:
    """The path of the file, which is written unless this very script has done so before."""
    script = hashlib.sha256(pathlib.Path(__file__).read_bytes() + (HERE / "shapes.py").read_bytes()).hexdigest()[:8]
    path = WORK / f"{arch}-{shape}-{weights}-{script}.gguf"
    if path.exists():
        return path
    WORK.mkdir(exist_ok=True)
    rng = np.random.default_rng(1)
    partial = path.with_suffix(".partial")
    writer = GGUFWriter(partial, arch, use_temp_file=True)
    add_metadata(writer, arch, SHAPES[shape])
    for tensor in TENSORS[arch](SHAPES[shape]):
        values, kind = data(tensor, WEIGHTS[weights], rng)
        writer.add_tensor(tensor.name, values, raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    partial.rename(path)
    return path


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("arch", choices=TENSORS)
    parser.add_argument("weights", choices=WEIGHTS)
    parser.add_argument("--shape", choices=SHAPES, default="0.3b")
    args = parser.parse_args()
    print(gguf_file(args.arch, args.weights, args.shape))
