"""HF transformers as a runtime for `olmo-hybrid conform` (docs/conformance.md):

    olmo-hybrid conform --runtime "python golden/runtimes/transformers_runtime.py"

Reads requests from stdin, one JSON object a line, and answers each with a line. `--inject` makes a mistake of release_mistakes.py, or one
of its own, to see at which level it is found. The goldens were made by the same release; what passes here is the way through files,
the cache, and PyTorch on this machine.
"""

import argparse
import copy
import json
import os
import sys
from contextlib import ExitStack
from pathlib import Path
from unittest.mock import patch

# Before torch is imported, as in generate.py: the same code on every processor.
os.environ.update(ATEN_CPU_CAPABILITY="avx2", MKL_CBWR="AVX2", ONEDNN_MAX_CPU_ISA="AVX2")
sys.path.insert(0, str(Path(__file__).parent.parent))

import torch
import transformers
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer, GenerationMixin

from release_mistakes import MISTAKES
from release_ops import OPS
from safetensors_file import write_safetensors
from sampler import draw, survivors
from trace_transformers import trace

LEVELS = ["config", "tokenizer", "template", "op", "layer", "prefill", "decode", "prefill_decode", "state", "sampler"]
NOPE = Path(__file__).parent.parent / "models" / "nope"
SIZES = (
    "vocab_size hidden_size intermediate_size num_hidden_layers num_attention_heads num_key_value_heads rms_norm_eps attention_bias "
    "tie_word_embeddings layer_types linear_num_key_heads linear_num_value_heads linear_key_head_dim linear_value_head_dim "
    "linear_conv_kernel_dim linear_allow_neg_eigval sliding_window"
).split()


def reordered(order):
    """The processors in another order, by a key of their class names."""

    def mistake(_model, _ids, stack):
        original = GenerationMixin._get_logits_processor

        def processors(*args, **kwargs):
            return type(original(*args, **kwargs))(sorted(original(*args, **kwargs), key=lambda p: order(type(p).__name__)))

        stack.enter_context(patch.object(GenerationMixin, "_get_logits_processor", processors))

    return mistake


def cache_not_copied(_model, _ids, stack):
    stack.enter_context(patch.object(copy, "deepcopy", copy.copy))


# Besides those of release_mistakes.py.
OWN_MISTAKES = {
    "cache_not_copied": cache_not_copied,
    "temperature_last": reordered(lambda name: name == "TemperatureLogitsWarper"),
    "top_p_before_top_k": reordered(lambda name: {"TopPLogitsWarper": 1, "TopKLogitsWarper": 2, "MinPLogitsWarper": 3}.get(name, 0)),
}


class TransformersRuntime:
    def __init__(self, mistake):
        self.mistake = mistake

    def load(self, folder, ids, stack):
        """The model, and the cache that its pass begins with: none, but for a mistake."""
        model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, attn_implementation="eager").eval()
        inject = {**MISTAKES, **OWN_MISTAKES}.get(self.mistake)
        return model, inject and inject(model, torch.tensor(ids), stack)

    def replace_functions(self, stack):
        """Make the mistake where no model runs: in the functions of the release, if it is in one."""
        if self.mistake:
            self.load(NOPE, [0], stack)

    def config(self, stack, model, **_):
        model, _ = self.load(model, [0], stack)
        config, rotary = model.config, model.model.rotary_emb
        head_dim = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
        thetas, types = zip(*(self.rope(rotary, kind) for kind in config.layer_types))
        sizes = {name: getattr(config, name) for name in SIZES if hasattr(config, name)}
        return {**sizes, "head_dim": head_dim, "rope_theta": thetas, "rope_type": types}

    def rope(self, rotary, kind):
        """theta and type of a layer's rotary position embedding, as the module that makes the angles has them."""
        if rotary is None or kind == "linear_attention":
            return None, None
        parameters = rotary.config.rope_parameters
        parameters = parameters.get(kind, parameters)
        return parameters["rope_theta"], parameters["rope_type"]

    def tokenizer(self, _stack, model, texts=None, ids=None, **_):
        tokenizer = AutoTokenizer.from_pretrained(model)
        if ids is not None:
            return {"texts": [tokenizer.decode(each, skip_special_tokens=False, clean_up_tokenization_spaces=False) for each in ids]}
        return {"ids": [tokenizer.encode(text, add_special_tokens=False) for text in texts]}

    def template(self, _stack, model, messages, tools, add_generation_prompt, **_):
        options = {"tools": tools, "add_generation_prompt": add_generation_prompt}
        return {"text": AutoTokenizer.from_pretrained(model).apply_chat_template(messages, tokenize=False, **options)}

    def op(self, stack, op, params, inputs, output, **_):
        self.replace_functions(stack)
        write_safetensors(output, OPS[op](load_file(inputs), **params), {})
        return {}

    def layer(self, _stack, model, tokens, metadata, output, **_):
        tensors, said = trace(model, tokens, mistake=None if self.mistake in OWN_MISTAKES else self.mistake)
        write_safetensors(output, tensors, {**said, **metadata})
        return {}

    def prefill(self, stack, model, tokens, calls, output, save_after=None, discarded=None, **_):
        model, cache = self.load(model, tokens, stack)
        logits, done = [], 0
        for piece in torch.tensor(tokens).split(calls):
            result = model(piece[None], past_key_values=cache, use_cache=True)
            cache, done = result.past_key_values, done + len(piece)
            logits.append(result.logits[0])
            if done == save_after:
                saved = copy.deepcopy(cache)
                model(torch.tensor([discarded]), past_key_values=cache, use_cache=True)
                cache = saved
        write_safetensors(output, {"logits": torch.cat(logits)}, {})
        return {}

    decode = prefill_decode = state = prefill

    def sampler(self, stack, logits, options, observed, uniforms, **_):
        self.replace_functions(stack)
        logits = torch.tensor([float("-inf") if logit is None else logit for logit in logits])
        tokens = survivors(logits, observed, options)
        ids, probabilities = zip(*tokens)
        return {"ids": ids, "probabilities": probabilities, "drawn": [draw(tokens, u) for u in uniforms]}

    def answer(self, request):
        with ExitStack() as stack:
            return getattr(self, request["level"])(stack, **request) if request["level"] in LEVELS else {"not_supported": request["level"]}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--inject", choices=[*MISTAKES, *OWN_MISTAKES], help="a mistake to make")
    runtime = TransformersRuntime(parser.parse_args().inject)
    torch.set_num_threads(1)
    torch.set_grad_enabled(False)
    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    for line in sys.stdin:
        try:
            answer = runtime.answer(json.loads(line))
        except Exception as error:  # it is the answer to this request, and no reason to end
            answer = {"error": f"{type(error).__name__}: {error}"}
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    main()
