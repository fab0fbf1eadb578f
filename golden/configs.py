"""Changes of config.json, and what HF makes of each: `python golden/configs.py`.

configs/cases.json              the changes (null deletes nothing: "absent" lists the keys that are deleted), and whether HF runs the model
                                and what it generates by each generation_config.json
configs/expected.safetensors    logits of the last positions in float64, by case; the weights are those of golden/models/<model>
"""

import json
import os
import shutil
import sys
import tempfile
from pathlib import Path

os.environ.update(ATEN_CPU_CAPABILITY="avx2", MKL_CBWR="AVX2", ONEDNN_MAX_CPU_ISA="AVX2")  # as in generate.py

import torch
import transformers
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

from digests import write_digests
from generate import PRODUCER, check_versions
from release_in_float64 import float32_means_float64
from safetensors_file import write_safetensors

GOLDEN = Path(__file__).parent
OUT = GOLDEN / "configs"
TOKENS, KEPT = 70, 2
HYBRID, OLMO3 = "nope_theta_null", "olmo3_sliding"
YARN = {"rope_type": "yarn", "rope_theta": 10000.0, "factor": 4.0, "original_max_position_embeddings": 32}
PLAIN = {"rope_type": "default", "rope_theta": 10000.0}


def without(json_object, *keys):
    return {key: value for key, value in json_object.items() if key not in keys}


def hybrid_cases():
    def rope(**keys):
        return {"rope_parameters": keys}

    unscaled = without(YARN, "original_max_position_embeddings")
    small = {"max_position_embeddings": 128}
    return {
        "yarn": rope(**YARN),
        "yarn_not_truncated": rope(**YARN, truncate=False),
        "yarn_truncate_null": rope(**YARN, truncate=None),
        "yarn_mscale": rope(**YARN, mscale=0.7, mscale_all_dim=1.3),
        "yarn_mscale_alone": rope(**YARN, mscale=0.7),
        "yarn_mscale_zero": rope(**YARN, mscale=0, mscale_all_dim=1.3),
        "yarn_mscale_and_attention_factor": rope(**YARN, mscale=0.7, mscale_all_dim=1.3, attention_factor=1.5),
        "yarn_attention_factor_zero": rope(**YARN, attention_factor=0.0),
        "yarn_factor_below_one": rope(**{**YARN, "factor": 0.5}),
        "yarn_factor_null": {**rope(**{**YARN, "factor": None}), **small},
        "yarn_factor_absent": rope(**without(YARN, "factor")),
        "yarn_betas_zero": rope(**YARN, beta_fast=0, beta_slow=0),
        "yarn_betas": rope(**YARN, beta_fast=8, beta_slow=0.5),
        "yarn_beta_negative": rope(**YARN, beta_fast=-8.0),
        "yarn_original_absent": {**rope(**unscaled), **small},
        "yarn_original_null": rope(**{**YARN, "original_max_position_embeddings": None}),
        "yarn_original_at_top": {**rope(**YARN), "original_max_position_embeddings": 8},
        "yarn_original_at_top_alone": {**rope(**unscaled), "original_max_position_embeddings": 8},
        "yarn_theta_one": rope(**{**YARN, "rope_theta": 1.0}),
        "yarn_partial": rope(**YARN, partial_rotary_factor=0.5),
        "yarn_partial_at_top": {**rope(**YARN), "partial_rotary_factor": 0.5},
        "yarn_partial_one": {**rope(**YARN), "partial_rotary_factor": 1.0},
        "default": rope(**PLAIN),
        "default_partial": {**rope(**PLAIN), "partial_rotary_factor": 0.5},
        "default_partial_nested": rope(**PLAIN, partial_rotary_factor=0.5),
        "default_with_keys": {**rope(**PLAIN, factor=0, beta_fast="x", mrope_section=[1]), "original_max_position_embeddings": -3},
        "default_without_theta": rope(rope_type="default"),
        "type_null_with_theta": rope(rope_type=None, rope_theta=10000.0),
        "type_by_its_old_name": rope(**without(YARN, "rope_type"), type="yarn"),
        "type_by_both_names": rope(**YARN, type="linear"),
        "theta_alone": rope(rope_theta=10000.0),
        "theta_at_top": {"rope_parameters": None, "rope_theta": 10000.0},
        "theta_at_top_null": {"rope_parameters": {"rope_type": "default"}, "rope_theta": None},
        "scaling": {"rope_parameters": None, "rope_theta": 500000.0, "rope_scaling": without(YARN, "rope_theta")},
        "scaling_without_theta": {"rope_parameters": None, "rope_scaling": without(YARN, "rope_theta")},
        "scaling_over_parameters": {**rope(**PLAIN), "rope_scaling": without(YARN, "rope_theta")},
        "scaling_empty": {**rope(**PLAIN), "rope_scaling": {}},
        "nested": rope(full_attention=PLAIN),
        "nested_with_theta_at_top": {**rope(full_attention={"rope_type": "default"}), "rope_theta": 10000.0},
        "eps_zero": {"rms_norm_eps": 0.0},
        "eps_large": {"rms_norm_eps": 2.5},
        "swish": {"hidden_act": "swish"},
        "activation_null": {"hidden_act": None},
        "eos_beyond": {"eos_token_id": [1, 100257]},
        "eos_negative": {"eos_token_id": -1},
        "pad_negative": {"pad_token_id": -1},
        "pad_beyond": {"pad_token_id": 1000},
        "pad_list": {"pad_token_id": [1]},
        "sliding_window_zero": {"sliding_window": 0},
        "sliding_window_text": {"sliding_window": "none"},
        "layer_types_legacy": {"layer_types": ["mamba", "attention"]},
        "head_dim_null": {"head_dim": None},
        "kv_heads_null": {"num_key_value_heads": None},
        "bias_null": {"attention_bias": None},
        "conv_null": {"linear_conv_kernel_dim": None},
        "neg_eigval_null": {"linear_allow_neg_eigval": None},
        "eps_null": {"rms_norm_eps": None},
        "tied_with_a_head": {"tie_word_embeddings": True},
    }


def olmo3_cases():
    def nested(full, sliding, **more):
        return {"rope_parameters": {"full_attention": full, "sliding_attention": sliding, **more}}

    yarn = without(YARN, "rope_theta")
    return {
        "theta_at_top": {"rope_theta": 10000.0},
        "theta_at_top_with_scaling": {"rope_theta": 10000.0, "rope_scaling": yarn},
        "flat": {"rope_parameters": {**YARN, "truncate": False}},
        "flat_with_theta_at_top": {"rope_parameters": {"rope_type": "default", "rope_theta": 70.0}, "rope_theta": 10000.0},
        "nested": nested(YARN, PLAIN),
        "nested_without_thetas": {**nested(yarn, {"rope_type": "default"}), "rope_theta": 70.0},
        "nested_yarn_twice": nested(YARN, {**YARN, "factor": 2.0}),
        "nested_truncate": nested({**YARN, "truncate": False}, PLAIN),
        "nested_truncate_beside": nested(YARN, PLAIN, truncate=False),
        "nested_mscale": nested({**YARN, "mscale": 1.0, "mscale_all_dim": 0.5}, PLAIN),
        "nested_original_absent": {**nested(without(YARN, "original_max_position_embeddings"), PLAIN), "max_position_embeddings": 128},
        "nested_original_at_top": {**nested(YARN, PLAIN), "original_max_position_embeddings": 8},
        "nested_full_alone": {"rope_parameters": {"full_attention": YARN}},
        "nested_null": nested(None, None),
        "nested_theta_null": nested({**PLAIN, "rope_theta": None}, PLAIN),
        "nested_type_null": nested({"rope_type": None}, PLAIN),
        "nested_and_scaling": {**nested(PLAIN, PLAIN), "rope_scaling": yarn},
        "scaling_beside_flat": {"rope_parameters": PLAIN, "rope_scaling": yarn},
        "partial_at_top": {"partial_rotary_factor": 0.5},
        "theta_null": {"rope_theta": None},
        "head_dim_null": {"head_dim": None},
        "tied_with_a_head": {"tie_word_embeddings": True},
    }


def tensor_cases():
    """Tied models by which of the two tensors they store."""
    return {"tied_head_alone": "model.embed_tokens.weight", "tied_embedding_alone": "lm_head.weight"}


MOST = list(range(60))  # all ids of the vocabulary but one
GENERATION = [
    {},
    {"max_new_tokens": 3},
    {"suppress_tokens": MOST[::2]},
    {"suppress_tokens": [*MOST[1::2], -1, 100257]},
    {"begin_suppress_tokens": MOST},
    {"eos_token_id": MOST},
    {"eos_token_id": MOST[:50], "min_new_tokens": 5},
    {"eos_token_id": [-1, 3], "min_new_tokens": 2},
    {"eos_token_id": MOST[:50], "min_new_tokens": 3, "suppress_tokens": [55, 56], "begin_suppress_tokens": [51, 52], "repetition_penalty": 1.5},
]
PROMPT = [1, 2, 3, 4, 5]


def generated():
    """The greedy continuations of HF in float64 by generation_config.json, and its top_k where a file asks for sampling and has none."""
    with tempfile.TemporaryDirectory() as name, float32_means_float64(), torch.no_grad():
        folder = shutil.copytree(GOLDEN / "models" / HYBRID, Path(name) / "model")
        config = json.loads((folder / "config.json").read_text())
        (folder / "config.json").write_text(json.dumps({**config, "eos_token_id": None}))

        def load(settings):
            (folder / "generation_config.json").write_text(json.dumps(settings))
            return AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, attn_implementation="eager").double().eval()

        results = []
        for settings in GENERATION:
            length = {} if "max_new_tokens" in settings else {"max_new_tokens": 12}
            ids = load(settings).generate(torch.tensor([PROMPT]), use_cache=False, **length)[0, len(PROMPT) :].tolist()
            results.append({"settings": settings, "ids": ids})
        return {"prompt": PROMPT, "results": results, "top_k": load({"do_sample": True})._prepare_generation_config(None)[0].top_k}


def ids_of(vocab_size):
    return [(i * 7 + 3) % vocab_size for i in range(TOKENS)]


def logits_of(folder, vocab_size):
    with float32_means_float64(), torch.no_grad():
        model, info = AutoModelForCausalLM.from_pretrained(
            folder, dtype=torch.float32, attn_implementation="eager", output_loading_info=True
        )
        assert not info["missing_keys"] and not info["unexpected_keys"], info
        return model.double().eval()(torch.tensor([ids_of(vocab_size)]), use_cache=False).logits[0, -KEPT:]


def run(model, change, absent=(), without_tensor=None):
    """The logits, or None where HF refuses."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        config = json.loads((GOLDEN / "models" / model / "config.json").read_text())
        changed = {key: value for key, value in {**config, **change}.items() if key not in absent}
        (folder / "config.json").write_text(json.dumps(changed))
        shutil.copy(GOLDEN / "models" / model / "model.safetensors", folder)
        if without_tensor is not None:
            tensors = load_file(folder / "model.safetensors")
            del tensors[without_tensor]
            save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
        try:
            return logits_of(folder, config["vocab_size"])
        except Exception as error:
            print(f"{model} {change}: {repr(error)[:150]}")
            return None


def main():
    check_versions()
    torch.set_num_threads(1)
    transformers.utils.logging.set_verbosity(transformers.utils.logging.CRITICAL)
    transformers.utils.logging.disable_progress_bar()
    OUT.mkdir(exist_ok=True)
    cases, arrays = [], {}
    todo = [(HYBRID, name, change, None) for name, change in hybrid_cases().items()]
    todo += [(OLMO3, name, change, None) for name, change in olmo3_cases().items()]
    todo += [(HYBRID, name, {"tie_word_embeddings": True}, tensor) for name, tensor in tensor_cases().items()]
    for model, name, change, without_tensor in todo:
        # The old keys of OLMo 3 give way to the new one, as where transformers wrote the file.
        absent = ["rope_theta", "rope_scaling"] if model == OLMO3 and "rope_parameters" in change else []
        absent = [key for key in absent if key not in change]
        logits = run(model, change, absent, without_tensor)
        key = f"{'hybrid' if model == HYBRID else 'olmo3'}/{name}"
        if logits is not None:
            arrays[key] = logits.contiguous()
        entry = {"case": key, "model": model, "change": change, "absent": absent, "runs": logits is not None}
        cases.append({**entry, **({} if without_tensor is None else {"without_tensor": without_tensor})})
    head = {"_comment": "Changes of config.json and whether HF runs the model; see configs.py.", "producer": PRODUCER, "tokens": TOKENS}
    lines = ",\n".join(json.dumps(case) for case in cases)
    text = json.dumps(head)[:-1] + f', "generation": {json.dumps(generated())}, "cases": [\n{lines}\n]}}\n'
    (OUT / "cases.json").write_text(text, encoding="utf-8")
    write_safetensors(OUT / "expected.safetensors", arrays, {"producer": PRODUCER})
    write_digests()


if __name__ == "__main__":
    sys.exit(main())
