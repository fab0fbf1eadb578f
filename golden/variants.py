"""Stand-ins for the four released variants: `python golden/variants.py`, the same bytes on every run; with `chats`, the last two only.

variants/<name>/            a folder with the files of a release, tiny, and expected.safetensors as in models/
variants/chats.json         HF `apply_chat_template`, text and ids, for all of them
variants/jinja.json         HF `apply_chat_template` of small templates that print and strip values
"""

import json
import os
import shutil
import sys
from pathlib import Path

os.environ.update(ATEN_CPU_CAPABILITY="avx2", MKL_CBWR="AVX2", ONEDNN_MAX_CPU_ISA="AVX2")  # as in generate.py

import tokenizers
import torch
import transformers

from checkpoints import OLMO_HYBRID
from digests import write_digests
from generate import PRODUCER, check_versions
from jinja_values import rendered_values
from model_cases import TINY, ModelCase, write_model
from tokenizer import ADDED, train
from variant_chats import conversations, golden_chats, hostile_conversations, lines
from variant_templates import INSTRUCT, THINK, THINKER, TOOL_USE

OUT = Path(__file__).parent / "variants"
# Post-training gave four unused tokens a use; they are not special, so what a user writes can be one.
CALLS = ["<functions>", "</functions>", "<function_calls>", "</function_calls>"]
BASE_TOKENS = ADDED[:-2]  # without the two that are not of the release's kind
CHAT_TOKENS = [*((content, special) for content, special in BASE_TOKENS if "extra_id" not in content), *((c, False) for c in CALLS)]
STOPS = ["<|im_end|>", "<|endoftext|>"]
SAMPLING = {"do_sample": True, "max_new_tokens": 32768, "temperature": 0.6, "top_p": 0.95}
NOPE = {"rope_theta": None, "rope_type": "default"}
OLD, NEW = "4.52.0", "5.3.0.dev0"


def named(**templates):
    return [{"name": name, "template": template} for name, template in templates.items()]


# context, rope_parameters and transformers_version as written, the added tokens, generation_config.json, a prompt with clear greedy steps,
# chat_template.jinja and the chat_template of tokenizer_config.json
VARIANTS = {
    "base": (65536, None, OLD, BASE_TOKENS, ["<|endoftext|>"], {}, 1, None, None),
    "instruct_sft": (32768, None, OLD, CHAT_TOKENS, STOPS, {}, 0, INSTRUCT, TOOL_USE),
    "instruct_dpo": (32768, NOPE, NEW, CHAT_TOKENS, STOPS, SAMPLING, 1, None, named(default=INSTRUCT, tool_use=TOOL_USE)),
    "think_sft": (32768, None, OLD, CHAT_TOKENS, STOPS, {**SAMPLING, "top_k": 0}, 1, None, THINK),
}  # fmt: skip


def write_json(path, value):
    path.write_text(json.dumps(value, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def write_variant(name):
    context, rope, version, added, stops, sampling, prompt, jinja, chat_template = VARIANTS[name]
    tokenizer = train(400, added)
    eos, pad = tokenizer.token_to_id("<|endoftext|>"), tokenizer.token_to_id("<|pad|>")
    layers = [*OLMO_HYBRID["layer_types"], *OLMO_HYBRID["layer_types"]]
    # The release pads its vocabulary as well, to a multiple of 128.
    config = {**TINY, "layer_types": layers[:4], "num_hidden_layers": 4, "max_position_embeddings": context, "rope_parameters": NOPE,
              "eos_token_id": eos, "pad_token_id": pad, "vocab_size": 416}  # fmt: skip
    written = {} if rope == NOPE else {"rope_parameters": rope}
    comment = f"The files of the release's variant {name}; random weights."
    case = ModelCase(name, comment, 12, config, seed=f"variants/{name}", prompt=prompt, shards=2, written=written)
    figures = write_model(case, PRODUCER, OUT)

    folder = OUT / name
    saved = json.loads((folder / "config.json").read_text())
    dtype = saved.pop("dtype")
    saved |= {"dtype" if version == NEW else "torch_dtype": dtype, "transformers_version": version}
    write_json(folder / "config.json", dict(sorted(saved.items())))
    ids = [tokenizer.token_to_id(token) for token in stops]
    generation = {**sampling, "eos_token_id": ids if len(ids) > 1 else ids[0], "pad_token_id": pad, "transformers_version": version}
    write_json(folder / "generation_config.json", generation)
    (folder / "tokenizer.json").write_text(json.dumps(json.loads(tokenizer.to_str()), ensure_ascii=False) + "\n", encoding="utf-8")
    write_tokenizer_config(folder, tokenizer, context, chat_template)
    if jinja is not None:
        (folder / "chat_template.jinja").write_text(jinja, encoding="utf-8")
    return figures


def write_tokenizer_config(folder, tokenizer, context, chat_template):
    def added_token(content, special):
        return {"content": content, "lstrip": False, "normalized": False, "rstrip": False, "single_word": False, "special": special}

    tokens = {str(id): added_token(token.content, token.special) for id, token in sorted(tokenizer.get_added_tokens_decoder().items())}
    config = {
        "add_prefix_space": False,
        "added_tokens_decoder": tokens,
        "bos_token": None,
        "clean_up_tokenization_spaces": False,
        "eos_token": "<|endoftext|>",
        "model_max_length": context,
        "pad_token": "<|pad|>",
        "tokenizer_class": "PreTrainedTokenizerFast",
        "unk_token": "<|endoftext|>",
    }
    config |= {} if chat_template is None else {"chat_template": chat_template}
    write_json(folder / "tokenizer_config.json", config)
    roles = {"eos_token": "<|endoftext|>", "pad_token": "<|pad|>", "unk_token": "<|endoftext|>"}
    write_json(folder / "special_tokens_map.json", {role: added_token(content, True) for role, content in roles.items()})


def write_chats():
    (OUT / "thinker.jinja").write_text(THINKER, encoding="utf-8")
    tokenizer_of = {name: transformers.AutoTokenizer.from_pretrained(OUT / name) for name in VARIANTS}
    expected = {name: golden_chats(tokenizer_of[name]) for name in list(VARIANTS)[1:]}
    expected["thinker"] = golden_chats(tokenizer_of["think_sft"], chat_template=THINKER)
    try:
        tokenizer_of["base"].apply_chat_template([{"role": "user", "content": "Hello"}])
        raise AssertionError("base has a chat template")
    except ValueError:
        pass
    versions = {"tokenizers": tokenizers.__version__, "transformers": transformers.__version__}
    comment = (
        "Chats; what HF makes of each, [text, ids] without and with the prompt of an answer, by variant; "
        "thinker.jinja over think_sft's tokenizer."
    )
    parts = [f'"_comment": {json.dumps(comment)}', *(f'"{key}": {json.dumps(value)}' for key, value in versions.items())]
    for name, chats in (("chats", conversations()), ("hostile", hostile_conversations())):
        parts.append(f'"{name}": ' + lines([{"messages": messages, "tools": tools} for messages, tools in chats]))
    by_variant = [f'"{name}": {{' + ",\n".join(f'"{key}": {lines(value)}' for key, value in results.items()) + "}"
                  for name, results in expected.items()]  # fmt: skip
    parts.append('"expected": {' + ",\n".join(by_variant) + "}")
    (OUT / "chats.json").write_text("{" + ",\n".join(parts) + "}\n", encoding="utf-8")

    values = rendered_values(tokenizer_of["think_sft"])
    head = {"_comment": "Small templates; what HF makes of them with the messages, null where it raises.", **versions}
    parts = [f'"{key}": {json.dumps(value)}' for key, value in head.items()]
    parts += [f'"{key}": {json.dumps(value, indent=1)}' for key, value in values.items()]
    (OUT / "jinja.json").write_text("{" + ",\n".join(parts) + "}\n", encoding="utf-8")


def main():
    check_versions()
    torch.set_num_threads(1)
    torch.set_grad_enabled(False)
    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    chats_only = sys.argv[1:] == ["chats"]
    if not chats_only:
        shutil.rmtree(OUT, ignore_errors=True)
    for name in [] if chats_only else VARIANTS:
        figures = write_variant(name)
        print(f"{name}: " + ", ".join(f"{key} {value:.3g}" for key, value in figures.items()), flush=True)
    write_chats()
    write_digests()


if __name__ == "__main__":
    main()
