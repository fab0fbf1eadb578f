"""Model goldens: tiny checkpoint folders, what PyTorch's float32 makes of them, and the float64 truth."""

import json
import shutil
import tempfile
from dataclasses import dataclass, field
from pathlib import Path

import torch
from transformers import Olmo3ForCausalLM, OlmoHybridForCausalLM

import truth
from checkpoints import OLMO3, OLMO_HYBRID, fused_conv_names, olmo_core_names, random_weights, write_checkpoint
from random_values import Random
from release_in_float64 import float32_means_float64
from safetensors_file import write_safetensors

MODELS = Path(__file__).parent / "models"
GREEDY = 24
MARGIN = 0.02  # every greedy step is this clear, so that every implementation must take it
L, F, S = "linear_attention", "full_attention", "sliding_attention"
CLASSES = {"olmo_hybrid": OlmoHybridForCausalLM, "olmo3": Olmo3ForCausalLM}
YARN = {
    "attention_factor": 1.2079441541679836,
    "beta_fast": 32.0,
    "beta_slow": 1.0,
    "factor": 8.0,
    "original_max_position_embeddings": 64,
    "rope_type": "yarn",
}
NESTED_OLMO3 = {
    **{key: value for key, value in OLMO3.items() if key not in ("rope_theta", "rope_scaling")},
    "rope_parameters": {F: {**YARN, "rope_theta": 500000.0}, S: {"rope_theta": 10000.0, "rope_type": "default"}},
}
# A folder this small holds what is needed to see whether RoPE is on.
TINY = {
    "hidden_size": 20, "intermediate_size": 26, "layer_types": [L, F], "num_hidden_layers": 2, "num_attention_heads": 2,
    "num_key_value_heads": 2, "linear_num_key_heads": 2, "linear_num_value_heads": 2, "linear_key_head_dim": 6,
    "linear_value_head_dim": 9, "vocab_size": 61,
}  # fmt: skip


@dataclass
class ModelCase:
    """One golden folder. `seed` names the random weights, so that cases may share them, `prompt` one of its prompts."""

    name: str
    comment: str
    tokens: int
    config: dict = field(default_factory=dict)
    base: dict = field(default_factory=lambda: OLMO_HYBRID)
    dtype: torch.dtype = torch.bfloat16
    seed: str | None = None
    prompt: int = 0
    names: str = "release"
    shards: int = 1
    keep_every: int = 1
    hidden_truth: bool = False
    # What config.json says instead where transformers misreads it; PyTorch's numbers come from `config`.
    written: dict = field(default_factory=dict)

    def checkpoint(self):
        """The config PyTorch's numbers come from, the weights under their released names, and the prompt."""
        config, seed = {**self.base, **self.config}, self.seed or f"models/{self.name}"
        input_ids = Random(f"{seed}/prompts/{self.prompt}").integers(self.tokens, high=config["vocab_size"])
        return config, random_weights(config, seed, self.dtype), input_ids


def model_cases():
    deep = {"layer_types": [L, L, F, L, L, F, L], "num_hidden_layers": 7}
    rope = {"rope_parameters": {"rope_theta": 500000.0, "rope_type": "default"}}
    storage, names = {"seed": "models/storage", "prompt": 2}, {"seed": "models/names", "prompt": 1}
    tiny = {"seed": "models/tiny", "prompt": 2}
    return [
        ModelCase("nope", "The main case: seven layers, no RoPE.", 70, deep, dtype=torch.float32, hidden_truth=True),
        ModelCase("rope", "RoPE with theta 500000, as in stages 1 and 2 of the training.", 67, rope, prompt=2, dtype=torch.float32),
        ModelCase("gqa", "Three query heads to a key/value head, and an odd head_dim.", 33,
                  {"hidden_size": 42, "num_attention_heads": 6, "num_key_value_heads": 2}),
        ModelCase("few_key_heads", "Each key head of Gated DeltaNet serves three value heads.", 66,
                  {"linear_num_key_heads": 2, "linear_num_value_heads": 6, "linear_value_head_dim": 11}, prompt=3),
        ModelCase("odd_sizes", "Sizes that are prime or nearly so, and a head_dim of its own.", 31,
                  {"hidden_size": 37, "intermediate_size": 53, "head_dim": 10, "num_attention_heads": 3, "num_key_value_heads": 3,
                   "linear_num_key_heads": 5, "linear_num_value_heads": 5, "linear_key_head_dim": 7, "linear_value_head_dim": 11,
                   "vocab_size": 101}, prompt=8),
        ModelCase("layer_order", "A custom order of layers that starts with attention.", 29,
                  {"layer_types": [F, L, F, F, L], "num_hidden_layers": 5}),
        ModelCase("conv3", "A convolution of width 3.", 23, {"linear_conv_kernel_dim": 3}, prompt=1),
        ModelCase("attention_bias", "Biases on q, k, v and o of the attention layers.", 21, {"attention_bias": True}),
        ModelCase("tied", "lm_head is the embedding.", 19, {"tie_word_embeddings": True}),
        ModelCase("no_neg_eigval", "beta stays below 1.", 27, {"linear_allow_neg_eigval": False}),
        ModelCase("bf16", "Weights stored in BF16.", 25, **storage),
        ModelCase("f16", "Weights stored in F16.", 25, **storage, dtype=torch.float16),
        ModelCase("f32", "Weights stored in F32.", 25, **storage, dtype=torch.float32),
        ModelCase("sharded", "Three shards and their index.", 17, shards=3),
        ModelCase("one_token", "A single token.", 1, {"vocab_size": 211}, prompt=11),
        ModelCase("long", "1,500 tokens, no RoPE.", 1500, prompt=2, keep_every=29),
        ModelCase("long_rope", "1,500 tokens with RoPE.", 1500, rope, keep_every=29),
        ModelCase("names_release", "Tensor names as released.", 17, **names),
        ModelCase("names_save_pretrained", "What save_pretrained writes of a model made from its config: other norm names, and the "
                  "fused convolution cut into three equal parts.", 17, **names, names="save_pretrained"),
        ModelCase("names_fine_tuned", "What from_pretrained, then save_pretrained write: the released names, and the fused convolution "
                  "cut into three equal parts.", 17, **names, names="fine_tuned"),
        ModelCase("names_fused_conv", "One linear_attn.conv1d.weight = concat(q, k, v).", 17, **names, names="fused_conv"),
        ModelCase("names_olmo_core", "OLMo-core's out_proj and norm for o_proj and o_norm.", 17, **names, names="olmo_core"),
        ModelCase("nope_null", "rope_parameters null means NoPE.", 14, TINY, **tiny, written={"rope_parameters": None}),
        ModelCase("nope_type_null", "A null rope_type alone means NoPE.", 14, TINY, **tiny,
                  written={"rope_parameters": {"rope_type": None}}),
        ModelCase("nope_theta_null", "A null rope_theta alone means NoPE.", 14, {**TINY, "rope_parameters": {"rope_theta": None}}, **tiny),
        ModelCase("olmo3_sliding", "OLMo 3 with a prompt six times as long as its sliding window.", 68, base=OLMO3),
        ModelCase("olmo3_yarn", "OLMo 3 with top-level rope_theta and rope_scaling: YaRN on the full layers only.", 90,
                  {"rope_scaling": YARN, "hidden_size": 48, "num_key_value_heads": 2}, prompt=1, base=OLMO3),
        ModelCase("olmo3_nested", "OLMo 3 with rope_parameters nested by layer type, as transformers 5.x writes them.", 40,
                  base=NESTED_OLMO3),
    ]  # fmt: skip


def load(folder, dtype):
    """The release's model from a folder, in `dtype`; refuses a folder with a missing or an unexpected tensor."""
    model_type = json.loads((folder / "config.json").read_text())["model_type"]
    model, info = CLASSES[model_type].from_pretrained(folder, dtype=dtype, attn_implementation="eager", output_loading_info=True)
    problems = {key: sorted(map(str, value)) for key, value in info.items() if value}
    if problems:
        raise AssertionError(f"{folder.name}: {problems}")
    return model.eval()


def run(model, input_ids):
    """Logits [T, V] and hidden states (embedding, after each layer, after the final norm) of one pass without a cache."""
    seen, hooks = [], []
    for module in (model.model.embed_tokens, *model.model.layers, model.model.norm):
        hooks.append(module.register_forward_hook(lambda _module, _inputs, output: seen.append(output[0])))
    logits = model(input_ids[None].long(), use_cache=False).logits[0]
    for hook in hooks:
        hook.remove()
    return logits, seen


def greedy(model, input_ids):
    """The ids of the largest logits, step by step without a cache, and the distance to the second largest."""
    ids, margins = input_ids.long(), []
    for _ in range(GREEDY):
        top = model(ids[None], use_cache=False, logits_to_keep=1).logits[0, -1].topk(2)
        ids = torch.cat((ids, top.indices[:1]))
        margins.append(top.values[0] - top.values[1])
    return ids[-GREEDY:].int(), torch.stack(margins)


def write_folder(case, folder, config, weights):
    """The checkpoint folder itself, in the names, shards and spelling of its case."""
    if case.names == "save_pretrained":
        model_class = CLASSES[config["model_type"]]
        model = model_class(model_class.config_class(**config)).to(case.dtype)
        model.load_state_dict(fused_conv_names(weights))  # the names of the modules themselves
        return model.save_pretrained(folder)
    if case.names == "fine_tuned":
        with tempfile.TemporaryDirectory() as twin:
            write_checkpoint(Path(twin), config, weights)
            return load(Path(twin), case.dtype).save_pretrained(folder)
    stored = {"release": lambda w: w, "fused_conv": fused_conv_names, "olmo_core": olmo_core_names}[case.names](weights)
    return write_checkpoint(folder, {**config, **case.written}, stored, case.shards)


def relative(error, exact):
    return (error.double() - exact).abs().max().item() / exact.abs().max().item()


def write_model(case, producer, models=MODELS):
    """Write one golden folder below `models`; returns what its log line says."""
    config, weights, input_ids = case.checkpoint()
    folder = models / case.name
    shutil.rmtree(folder, ignore_errors=True)
    write_folder(case, folder, config, weights)
    readable = case.names != "olmo_core" and not case.written
    with tempfile.TemporaryDirectory() as twin:
        if not readable:
            write_checkpoint(Path(twin), config, weights)
        source = folder if readable else Path(twin)
        model = load(source, torch.float32)
        with float32_means_float64():
            double_logits, _ = run(load(source, torch.float64), input_ids)
    logits, hidden = run(model, input_ids)
    exact_logits, exact_hidden = truth.forward(config, weights, input_ids)
    continuation, margins = greedy(model, input_ids)
    if config["eos_token_id"] in continuation or margins.min() < MARGIN:
        raise AssertionError(f"{case.name}: the greedy continuation meets eos or a margin of {margins.min()}; choose another prompt")

    kept = torch.arange(case.tokens)
    tensors = {"input_ids": input_ids, "greedy": continuation, "greedy_margins": margins}
    if case.keep_every > 1:
        kept = torch.cat((kept[: -32 : case.keep_every], kept[-32:]))
        tensors["positions"] = kept.int()
    tensors |= {"logits": logits[kept], "logits.truth": exact_logits[kept]}
    last = len(hidden) - 1
    for i in range(len(hidden)):
        if case.keep_every == 1:
            tensors[f"hidden_states.{i}"] = hidden[i]
        if case.hidden_truth or i == last and case.keep_every == 1:
            tensors[f"hidden_states.{i}.truth"] = exact_hidden[i]
    params = {"tokens": case.tokens, "dtype": str(case.dtype).removeprefix("torch."), "names": case.names, "shards": case.shards}
    if not readable:
        params["logits_from"] = "the same weights under the released names, with an explicit null rope_theta"
    metadata = {
        "_comment": case.comment,
        "producer": producer,
        "params": json.dumps(params, sort_keys=True),
        "function": f"{config['architectures'][0]}.from_pretrained(dtype=float32, attn_implementation=eager)",
    }
    write_safetensors(folder / "expected.safetensors", tensors, metadata)
    disagreement = relative(double_logits, exact_logits)
    if disagreement > 1e-12:
        raise AssertionError(f"{case.name}: truth.py and the release in float64 differ by {disagreement}")
    return {
        "bytes": sum(file.stat().st_size for file in folder.iterdir()),
        "float32 error": relative(logits, exact_logits),
        "float64 disagreement": disagreement,
        "largest logit": exact_logits.abs().max().item(),
        "smallest margin": margins.min().item(),
    }
