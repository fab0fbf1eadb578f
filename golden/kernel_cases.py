"""Kernel goldens: the release's own functions on awkward inputs, next to the same formula in float64."""

import json
from pathlib import Path
from unittest.mock import patch

import torch
from transformers import Olmo3Config, OlmoHybridConfig
from transformers.cache_utils import LinearAttentionLayer
from transformers.masking_utils import causal_mask_function, sliding_window_causal_mask_function
from transformers.models.olmo3 import modeling_olmo3 as olmo3
from transformers.models.olmo_hybrid import modeling_olmo_hybrid as release

import truth
from random_values import Random
from safetensors_file import write_safetensors

HERE = Path(__file__).parent


def write_case(producer, kernel, case, comment, function, params, inputs, outputs, exact):
    tensors = {**inputs, **outputs, **{f"{name}.truth": value for name, value in exact.items()}}
    for name, tensor in tensors.items():
        if not tensor.isfinite().all():
            raise AssertionError(f"{kernel}/{case}: {name} is not finite")
    metadata = {
        "_comment": comment,
        "kernel": kernel,
        "case": case,
        "params": json.dumps(params, sort_keys=True),
        "producer": producer,
        "function": function,
    }
    write_safetensors(HERE / "kernels" / kernel / f"{case}.safetensors", tensors, metadata)


def doubles(*tensors):
    return [None if tensor is None else tensor.double() for tensor in tensors]


def linear_cases():
    cases = [
        ("f32_one_row", 1, 45, 131, torch.float32, False, "One row, F32 weights."),
        ("f32_rows", 7, 129, 67, torch.float32, False, "Several rows, odd sizes, F32 weights."),
        ("f32_bias", 6, 24, 35, torch.float32, True, "With a bias."),
        ("bf16_one_row", 1, 1000, 71, torch.bfloat16, False, "One row over a long sum, weights stored in BF16."),
        ("bf16_rows", 5, 333, 37, torch.bfloat16, False, "Several rows, odd sizes, weights stored in BF16."),
        ("f32_spread", 9, 61, 43, torch.float32, False, "Inputs and weights over four orders of magnitude."),
        ("f32_cancellation", 4, 202, 83, torch.float32, False, "Each sum cancels to about a thousandth of its terms."),
    ]
    for case, T, K, N, dtype, has_bias, comment in cases:
        r = Random(f"linear/{case}")
        x, weight = (r.spread(T, K), r.spread(N, K)) if case == "f32_spread" else (r.normal(T, K), r.normal(N, K))
        if case == "f32_cancellation":
            x[:, 1::2], weight[:, 1::2] = -x[:, ::2], weight[:, ::2] * (1 + r.normal(N, K // 2, scale=1e-3))
        weight = weight.to(dtype)
        inputs = {"x": x, "weight": weight} | ({"bias": r.normal(N, scale=3)} if has_bias else {})
        x, weight, bias = x, weight.float(), inputs.get("bias")
        y = torch.nn.functional.linear(x, weight, bias)
        yield case, comment, "torch.nn.functional.linear", {}, inputs, {"y": y}, {"y": truth.linear(*doubles(x, weight, bias))}


def rms_norm_cases():
    for case, T, D, eps, comment in [
        ("odd", 9, 77, 1e-6, "Rows of scale 1e-4 to 1e4, and a row of zeros."),
        ("eps_1e-5", 9, 53, 1e-5, "A larger eps that small rows feel."),
        ("model_width", 3, 3840, 1e-6, "The width of the 7B."),
    ]:
        r = Random(f"rms_norm/{case}")
        x = r.normal(T, D) * torch.logspace(-4, 4, T)[:, None]
        if T > 3:
            x[T // 2] = 0
        module = release.OlmoHybridRMSNorm(D, eps)
        module.weight.data = r.uniform(D, low=-1, high=1.8)
        exact = truth.rms_norm(*doubles(x, module.weight.data), eps)
        yield case, comment, "OlmoHybridRMSNorm", {"eps": eps}, {"x": x, "weight": module.weight.data}, {"y": module(x)}, {"y": exact}


def rms_norm_gated_cases():
    for case, T, D, comment in [
        ("odd", 14, 20, "Rows of scale 1e-4 to 1e4, so that eps 1e-5 and 1e-6 differ; gates from -30 to 30."),
        ("released_width", 5, 192, "The value head width of the 7B."),
        ("zero_rows", 6, 13, "Rows of zeros, as before the first write to the state."),
    ]:
        r = Random(f"rms_norm_gated/{case}")
        x = r.normal(T, D) * torch.logspace(-4, 4 if case == "odd" else 1, T)[:, None]
        if case == "zero_rows":
            x[::2] = 0
        gate = r.uniform(T, D, low=-30, high=30) if case == "odd" else r.normal(T, D, scale=3)
        module = release.OlmoHybridRMSNormGated(D, eps=1e-5)
        module.weight.data = r.uniform(D, low=0.3, high=1.8)
        inputs = {"x": x, "gate": gate, "weight": module.weight.data}
        exact = truth.rms_norm_gated(*doubles(*inputs.values()), 1e-5)
        yield case, comment, "OlmoHybridRMSNormGated", {"eps": 1e-5}, inputs, {"y": module(x, gate)}, {"y": exact}


def l2_norm_cases():
    for case, T, D, comment in [
        ("odd", 21, 12, "Rows of length 1e-4 to 1e4, and a row of zeros: eps is added to the sum of squares."),
        ("released_width", 7, 96, "The key head width of the 7B."),
    ]:
        r = Random(f"l2_norm/{case}")
        x = r.normal(T, D) * torch.logspace(-4, 4, T)[:, None]
        x[T // 2] = 0
        y, exact = release.l2norm(x, eps=1e-6), truth.l2_norm(x.double(), 1e-6)
        yield case, comment, "l2norm", {"eps": 1e-6}, {"x": x}, {"y": y}, {"y": exact}


def rotary_cases():
    yarn = {"rope_type": "yarn", "factor": 8.0, "original_max_position_embeddings": 8192, "beta_fast": 32.0, "beta_slow": 1.0}
    released_yarn = {**yarn, "attention_factor": 1.2079441541679836}
    for case, T, H, Dh, position, rope, comment in [
        ("start", 9, 5, 10, 0, {"rope_theta": 500000.0}, "The first tokens."),
        ("theta_10000", 7, 2, 26, 31, {"rope_theta": 10000.0}, "Another theta, from the middle of a text."),
        ("far", 4, 3, 14, 5000, {"rope_theta": 500000.0}, "Position 5000, where float32 angles have lost four digits."),
        ("released_width", 2, 3, 128, 65530, {"rope_theta": 500000.0}, "The head width of the 7B at the end of its context."),
        ("yarn", 9, 3, 34, 0, {"rope_theta": 500000.0, **released_yarn}, "OLMo 3's YaRN at the start."),
        ("yarn_released_width", 3, 2, 128, 20000, {"rope_theta": 500000.0, **released_yarn}, "OLMo 3's YaRN past its original context."),
        ("yarn_default_factor", 4, 3, 22, 900, {"rope_theta": 10000.0, **yarn}, "YaRN whose attention_factor is left out: 0.1 ln(8) + 1."),
    ]:
        rope = {"rope_type": "default", **rope}
        x, positions = Random(f"rotary/{case}").normal(T, H, Dh), torch.arange(position, position + T)[None]
        sizes = {"hidden_size": H * Dh, "num_attention_heads": H, "num_hidden_layers": 4, "max_position_embeddings": 65536}
        if rope["rope_type"] == "yarn":
            config = Olmo3Config(**sizes, rope_parameters={"full_attention": dict(rope), "sliding_attention": {"rope_type": "default"}})
            cos, sin = olmo3.Olmo3RotaryEmbedding(config)(x, positions, "full_attention")
            function = "Olmo3RotaryEmbedding, apply_rotary_pos_emb"
        else:
            cos, sin = release.OlmoHybridRotaryEmbedding(OlmoHybridConfig(**sizes, rope_parameters=dict(rope)))(x, positions)
            function = "OlmoHybridRotaryEmbedding, apply_rotary_pos_emb"
        y = release.apply_rotary_pos_emb(x[None], x[None], cos, sin, unsqueeze_dim=2)[0][0]
        exact = truth.rotary(x.double(), rope, position)
        yield case, comment, function, {**rope, "position": position}, {"x": x}, {"y": y}, {"y": exact}


def causal_conv1d_cases():
    for case, T, C, W, fresh, comment in [
        ("fresh_w4_t2", 2, 267, 4, True, "A fresh start with fewer tokens than the kernel is wide."),
        ("fresh_w4_t4", 4, 133, 4, True, "A fresh start with as many tokens as the kernel is wide."),
        ("fresh_w4_t13", 13, 67, 4, True, "A fresh start with more tokens than the kernel is wide."),
        ("fresh_w3_t1", 1, 391, 3, True, "A fresh start with one token, kernel 3."),
        ("fresh_w3_t9", 9, 101, 3, True, "A fresh start, kernel 3."),
        ("update_w4", 1, 397, 4, False, "One token on a state."),
        ("update_w3", 1, 385, 3, False, "One token on a state, kernel 3."),
        ("continue_w4_t2", 2, 251, 4, False, "Two tokens on a state: the old and the new inputs mix in the state left behind."),
        ("continue_w4_t11", 11, 77, 4, False, "A second piece of a prompt on the state of the first."),
        ("continue_w3_t5", 5, 131, 3, False, "A second piece of a prompt, kernel 3."),
    ]:
        r = Random(f"causal_conv1d/{case}")
        x, weight = r.uniform(T, C, low=-4, high=4), r.uniform(C, 1, W, low=-1.5, high=1.5)
        state = torch.zeros(W - 1, C) if fresh else r.uniform(W - 1, C, low=-4, high=4)
        layer, columns = LinearAttentionLayer(), x.T[None]
        if not fresh:  # the release keeps W inputs; the oldest of them is never read again
            layer.update_conv_state(torch.cat((r.normal(1, C), state)).T[None], conv_kernel_size=W)
            layer.has_previous_state[0] = True
        if fresh or T > 1:
            function = "LinearAttentionLayer.update_conv_state, causal_conv1d_fn"
            columns = layer.update_conv_state(columns, conv_kernel_size=W)
            y = release.causal_conv1d_fn(columns, weight.squeeze(1), None, "silu")[:, :, -T:]
        else:
            function = "causal_conv1d_update"
            y = release.causal_conv1d_update(columns, layer.conv_states[0], weight.squeeze(1), None, "silu")
        outputs = {"y": y[0].T, "state_after": layer.conv_states[0][0].T[1:]}
        inputs = {"x": x, "weight": weight, "state": state}
        exact = dict(zip(outputs, truth.causal_conv1d(*doubles(*inputs.values())), strict=True))
        yield case, comment, function, {"activation": "silu"}, inputs, outputs, exact


def gate_and_beta(a, b, A_log, dt_bias, allow_neg_eigval):
    """g and beta as OlmoHybridGatedDeltaNet hands them to its delta rule; its projections are made identities."""
    H = a.shape[1]
    config = OlmoHybridConfig(
        hidden_size=2 * H, num_attention_heads=H, num_hidden_layers=4, linear_key_head_dim=3, linear_value_head_dim=5,
        linear_allow_neg_eigval=allow_neg_eigval,
    )  # fmt: skip
    module, seen = release.OlmoHybridGatedDeltaNet(config, 0), {}
    module.A_log.data, module.dt_bias.data = A_log, dt_bias
    module.a_proj.weight.data = torch.eye(H, 2 * H)
    module.b_proj.weight.data = torch.eye(H, 2 * H).roll(H, dims=1)

    def keep(q, k, v, g, beta, **_):
        seen.update(g=g[0], beta=beta[0])
        return v, None

    with patch.object(release, "torch_chunk_gated_delta_rule", keep):
        module(torch.cat((a, b), dim=1)[None])
    return seen


def gdn_gate_cases():
    for case, T, H, spread, comment in [
        ("usual", 83, 5, 3.0, "The range a trained model uses: slow heads to strong ones."),
        ("extremes", 29, 7, 60.0, "a + dt_bias from far below zero to far above 20, where softplus becomes the identity."),
    ]:
        r = Random(f"gdn_gate/{case}")
        a, A_log, dt_bias = r.uniform(T, H, low=-spread, high=spread), r.uniform(H, low=-5, high=2.8), r.uniform(H, low=-5, high=1)
        if case == "extremes":
            dt_bias[0] = 0
            a[:9, 0] = torch.tensor([20.0, 20.000002, 19.999998, 25.0, -87.0, -100.0, 0.0, 88.0, 1000.0])
        g = gate_and_beta(a, a, A_log, dt_bias, True)["g"]
        inputs = {"a": a, "A_log": A_log, "dt_bias": dt_bias}
        exact = truth.gdn_gate(*doubles(*inputs.values()))
        yield case, comment, "OlmoHybridGatedDeltaNet.forward", {}, inputs, {"g": g}, {"g": exact}


def gdn_beta_cases():
    for allow in (True, False):
        case = "allow_neg_eigval" if allow else "no_neg_eigval"
        b = Random(f"gdn_beta/{case}").normal(31, 5, scale=4)
        b[0] = torch.tensor([0.0, 60.0, -60.0, -87.0, 20.0])
        beta = gate_and_beta(b, b, torch.zeros(5), torch.zeros(5), allow)["beta"]
        comment = f"beta from near 0 to near {2 if allow else 1}."
        params, exact = {"allow_neg_eigval": allow}, truth.gdn_beta(b.double(), allow)
        yield case, comment, "OlmoHybridGatedDeltaNet.forward", params, {"b": b}, {"beta": beta}, {"beta": exact}


def gated_delta_rule_cases():
    slow, strong, mixed = (-6.0, -3.5), (0.5, 3.0), (-6.0, 2.0)  # powers of e: -g from 0.0025 to 20
    cases = [(f"t{T}", T, 2, 2, 12, 20, mixed, False) for T in (1, 65, 200)]
    cases += [(f"t{T}_state", T, 2, 2, 12, 20, mixed, True) for T in (1, 63, 64, 65, 129, 200)]
    cases += [
        ("few_key_heads", 70, 1, 3, 10, 14, mixed, False),
        ("few_key_heads_state", 5, 2, 6, 11, 7, mixed, True),
        ("slow_decay_state", 129, 2, 2, 9, 15, slow, True),
        ("strong_decay_state", 66, 2, 2, 9, 15, strong, True),
        ("released_widths_state", 65, 1, 1, 96, 192, mixed, True),
    ]
    for name, T, Hk, H, Dk, Dv, decay, has_state in cases:
        r = Random(f"gated_delta_rule/{name}")
        q, k = (release.l2norm(r.normal(T, Hk, Dk) + r.normal(Hk, Dk, scale=0.5)) for _ in "qk")
        inputs = {"q": q, "k": k, "v": r.normal(T, H, Dv) * torch.logspace(-1, 1, H)[:, None]}
        inputs["g"] = -torch.exp(r.uniform(T, H, low=decay[0], high=decay[1]))
        inputs["beta"] = 2 * torch.sigmoid(r.normal(T, H, scale=3))
        inputs["beta"][T // 2, 0], inputs["beta"][0, -1] = 2.0, 1.0
        state = r.normal(H, Dk, Dv) if has_state else torch.zeros(H, Dk, Dv)
        if has_state:
            inputs["state"] = state
        exact = dict(zip(("o", "state_after"), truth.gated_delta_rule(*doubles(*list(inputs.values())[:5], state)), strict=True))
        repeated = [x.repeat_interleave(H // Hk, dim=1)[None] for x in (q, k)] + [inputs[n][None] for n in ("v", "g", "beta")]
        for form, function in [("chunked", release.torch_chunk_gated_delta_rule), ("recurrent", release.torch_recurrent_gated_delta_rule)]:
            if form == "recurrent" and name == "released_widths_state":
                continue
            o, S = function(*repeated, initial_state=state[None].clone() if has_state else None, output_final_state=True)
            comment = f"{T} tokens, the {form} form, {'with' if has_state else 'without'} an initial state."
            yield f"{form}_{name}", comment, function.__name__, {"form": form}, inputs, {"o": o[0], "state_after": S[0]}, exact


def attention_cases():
    for case, T, S, H, Hkv, Dh, window, scale, comment in [
        ("causal", 13, 13, 3, 3, 10, None, 1, "A prompt from its start."),
        ("gqa", 7, 19, 6, 2, 14, None, 1, "Three query heads to a key/value head, after 12 cached tokens."),
        ("decode", 1, 37, 5, 5, 12, None, 1, "One token after 36."),
        ("long", 9, 150, 3, 1, 10, None, 1, "More keys than a block of an online softmax holds."),
        ("sharp", 17, 70, 2, 2, 12, None, 12, "Scores of some hundreds: the running maximum must be subtracted."),
        ("window", 21, 21, 3, 3, 10, 5, 1, "A sliding window of 5, itself included."),
        ("window_cached", 4, 83, 4, 2, 8, 13, 1, "A sliding window that leaves out most of the cache."),
    ]:
        r = Random(f"attention/{case}")
        q, k, v = r.normal(T, H, Dh, scale=scale), r.normal(S, Hkv, Dh, scale=scale), r.normal(S, Hkv, Dh)
        visible = causal_mask_function if window is None else sliding_window_causal_mask_function(window)
        mask = torch.zeros(1, 1, T, S)
        for t in range(T):
            for s in range(S):
                if not visible(0, 0, torch.tensor(S - T + t), torch.tensor(s)):
                    mask[0, 0, t, s] = torch.finfo(torch.float32).min
        module = torch.nn.Module()
        module.num_key_value_groups, module.training = H // Hkv, False
        o, _ = release.eager_attention_forward(module, *(x[None].transpose(1, 2) for x in (q, k, v)), mask, scaling=Dh**-0.5)
        params = {"sliding_window": window}
        exact = truth.attention(*doubles(q, k, v), window)
        yield case, comment, "eager_attention_forward", params, {"q": q, "k": k, "v": v}, {"o": o[0]}, {"o": exact}


def swiglu_cases():
    for case, T, D, scale, comment in [
        ("usual", 13, 53, 8, "Usual values."),
        ("extremes", 17, 47, 110, "Gates to +-110, past the range of exp."),
    ]:
        r = Random(f"swiglu/{case}")
        config = OlmoHybridConfig(hidden_size=D, intermediate_size=D, num_attention_heads=1)
        module = release.OlmoHybridMLP(config)
        inputs = {"gate": r.uniform(T, D, low=-scale, high=scale), "up": r.uniform(T, D, low=-2.3, high=2.3)}
        y = module.act_fn(inputs["gate"]) * inputs["up"]
        yield case, comment, "OlmoHybridMLP.act_fn", {}, inputs, {"y": y}, {"y": truth.swiglu(*doubles(*inputs.values()))}


def softmax_cases():
    for case, T, D, widest, offset, comment in [
        ("odd", 8, 41, 2, 100, "Rows of scale 1e-2 to 1e2, far from zero."),
        ("wide", 3, 1003, 0.5, 0, "Rows as long as a small vocabulary."),
    ]:
        r = Random(f"softmax/{case}")
        x = r.normal(T, D) * torch.logspace(-2, widest, T)[:, None] + r.normal(T, 1, scale=offset)
        y, exact = torch.nn.functional.softmax(x, dim=-1), truth.softmax(x.double())
        yield case, comment, "torch.nn.functional.softmax", {}, {"x": x}, {"y": y}, {"y": exact}


KERNELS = {
    "linear": linear_cases,
    "rms_norm": rms_norm_cases,
    "rms_norm_gated": rms_norm_gated_cases,
    "l2_norm": l2_norm_cases,
    "rotary": rotary_cases,
    "causal_conv1d": causal_conv1d_cases,
    "gdn_gate": gdn_gate_cases,
    "gdn_beta": gdn_beta_cases,
    "gated_delta_rule": gated_delta_rule_cases,
    "attention": attention_cases,
    "swiglu": swiglu_cases,
    "softmax": softmax_cases,
}


def write_kernels(producer):
    """Write every kernel golden; yields (kernel, case, relative error of PyTorch's float32) for the log."""
    for kernel, cases in KERNELS.items():
        for case, comment, function, params, inputs, outputs, exact in cases():
            write_case(producer, kernel, case, comment, function, params, inputs, outputs, exact)
            errors = [((outputs[n] - exact[n]).abs().max() / exact[n].abs().max().clamp(min=1e-300)).item() for n in exact]
            yield kernel, case, max(errors)
