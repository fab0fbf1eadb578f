"""Trains the model that ships in src/embedded: a small OLMo Hybrid on Jane Austen's six novels.

    python golden/train_demo.py train  [--work DIR] [--minutes 56]   data, tokenizer, training (resumes by itself)
    python golden/train_demo.py export [--work DIR]                  model folder, goldens and model card

Needs Debian's apt (for the text) and golden/requirements.txt. To train a finished model for longer, copy
`before_decay.pt` over `checkpoint.pt` in the work folder, remove `best.pt` and train with a larger total of minutes.
The text comes from Debian's package r-cran-janeaustenr through apt. The model is the PyTorch release's own
`OlmoHybridForCausalLM`; training replaces two of its functions by faster ones that are first checked against them, and
everything that is exported is evaluated by the release's unchanged code. Training is resumable but not bit-reproducible
(its length is a wall-clock budget and BPE-dropout has no seed); the export of a given checkpoint is.
"""

import argparse
import bz2
import copy
import hashlib
import json
import math
import re
import struct
import subprocess
import time
import zlib
from pathlib import Path

import torch
import torch.distributed
import torch.multiprocessing
import torch.nn.functional as F
import transformers
import transformers.models.olmo_hybrid.modeling_olmo_hybrid as release
from safetensors.torch import save as save_tensors
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import OlmoHybridConfig, OlmoHybridForCausalLM, PreTrainedTokenizerFast

HERE = Path(__file__).resolve().parent
MODEL_DIR = HERE.parent / "src" / "embedded"
GOLDEN_DIR = HERE / "demo"
SEED = 1775

# ---------------------------------------------------------------------------------------------------------------- data

PACKAGE = "r-cran-janeaustenr"
# One chapter of each novel, counted from its start, is held out of everything: training and the tokenizer's merges.
HELD_OUT = {
    "EMMA": 30,
    "MANSFIELD PARK": 22,
    "NORTHANGER ABBEY": 17,
    "PERSUASION": 11,
    "PRIDE AND PREJUDICE": 36,
    "SENSE AND SENSIBILITY": 27,
}


def fetch_novels(work: Path) -> tuple[list[list[str]], str]:
    """Downloads the Debian package and returns the lines of its six novels, and the package's version."""
    work.mkdir(parents=True, exist_ok=True)
    if not list(work.glob(f"{PACKAGE}_*.deb")):
        subprocess.run(["apt-get", "download", PACKAGE], cwd=work, check=True)
    deb = sorted(work.glob(f"{PACKAGE}_*.deb"))[-1]
    subprocess.run(["dpkg-deb", "-x", deb.name, "deb"], cwd=work, check=True)
    version = subprocess.run(["dpkg-deb", "-f", deb.name, "Version"], cwd=work, check=True, capture_output=True, text=True)
    data = (work / "deb/usr/lib/R/site-library/janeaustenr/data/Rdata.rdb").read_bytes()
    return read_rdb(data), version.stdout.strip()


def read_rdb(data: bytes) -> list[list[str]]:
    """Character vectors of an R lazy-load database: records of u32 size, then a zlib or bzip2 stream of R's XDR format."""
    vectors, at = [], 0
    while at < len(data):
        packed = bz2.BZ2Decompressor() if data[at + 4 : at + 5] == b"2" else zlib.decompressobj()
        raw = packed.decompress(data[at + (5 if data[at + 4 : at + 5] == b"2" else 4) :])
        at = len(data) - len(packed.unused_data)
        (version,) = struct.unpack(">I", raw[2:6])
        p = 14 if version == 2 else 18 + struct.unpack(">I", raw[14:18])[0]  # version 3 names the native encoding
        flags, count = struct.unpack(">II", raw[p : p + 8])
        assert flags & 255 == 16, "expected a character vector"
        p, lines = p + 8, []
        for _ in range(count):
            flags, size = struct.unpack(">Ii", raw[p : p + 8])
            assert flags & 255 == 9, "expected a string"
            lines.append(raw[p + 8 : p + 8 + size].decode("utf-8"))
            p += 8 + size
        vectors.append(lines)
    return vectors


HEADING = re.compile(r"^\s*CHAPTER\s+([IVXLC]+|\d+)\.?\s*$", re.IGNORECASE)
NOISE = re.compile(r"^\s*(VOLUME\s+[IVX]+|FINIS|THE END|\[.*|.*\] *|[*\s]+)\s*$", re.IGNORECASE)


def clean(paragraph: str) -> str:
    """One paragraph on one line, italics' underscores dropped, runs of hyphens as em dashes."""
    text = re.sub(r"\s+", " ", paragraph).strip().replace("_", "")
    text = re.sub(r"-{4,}", "——", text)
    text = re.sub(r" ?-{2,3} ?", "—", text)
    return text.replace("`", "'").replace("*", "")


def chapters_of(lines: list[str]) -> list[str]:
    """Chapters as "Chapter N", a blank line and one line a paragraph; title pages, volumes and editor's notes dropped."""
    chapters, paragraph, current = [], [], None
    ended = False
    for line in [*lines, ""]:
        if HEADING.match(line):
            current = []
            chapters.append(current)
            ended = False
        elif current is None or ended:
            continue
        elif line.strip().upper() in ("FINIS", "THE END") or line.lstrip().startswith("*Vide"):
            ended = True
        elif not line.strip() or NOISE.match(line):
            if paragraph:
                current.append(clean(" ".join(paragraph)))
            paragraph = []
        else:
            paragraph.append(line)
    if paragraph:
        current.append(clean(" ".join(paragraph)))
    texts = []
    for n, paragraphs in enumerate(chapters, 1):
        # Some editions set a chapter's first word or two in capitals.
        first = re.match(r"[A-Z]{2,}", paragraphs[0])
        if first:
            paragraphs[0] = first.group().capitalize() + paragraphs[0][first.end() :]
        texts.append("\n\n".join([f"Chapter {n}", *paragraphs]))
    return texts


def corpus(work: Path) -> dict:
    """The cleaned chapters, split into `train` (one document each) and `held_out`, with what is needed to know them again."""
    novels, version = fetch_novels(work)
    train, held_out, names = [], [], []
    for lines in novels:
        name = next(line for line in lines if line.strip()).strip().upper()
        chapters = chapters_of(lines)
        names.append(f"{name.title().replace(' And ', ' and ')} ({len(chapters)} chapters)")
        for n, text in enumerate(chapters, 1):
            (held_out if HELD_OUT[name] == n else train).append(text)
    everything = "\n\n".join(train + held_out).encode()
    return {
        "train": train,
        "held_out": "\n\n".join(held_out) + "\n",
        "facts": {
            "package": f"{PACKAGE} {version}",
            "novels": names,
            "sha256": hashlib.sha256(everything).hexdigest(),
            "train_bytes": sum(len(t.encode()) for t in train),
            "held_out_bytes": len(("\n\n".join(held_out) + "\n").encode()),
        },
    }


# ----------------------------------------------------------------------------------------------------------- tokenizer

SPECIAL = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|pad|>"]
VOCAB_SIZE = 4096
# The cl100k pattern, as in the released tokenizer.
SPLIT = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)


def train_tokenizer(texts: list[str]) -> Tokenizer:
    """Byte-level BPE over the training chapters; special tokens take the first ids."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Split(Regex(SPLIT), behavior="isolated"), pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)]
    )
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.train_from_iterator(
        texts,
        trainers.BpeTrainer(
            vocab_size=VOCAB_SIZE,
            special_tokens=SPECIAL,
            initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
            min_frequency=2,
            show_progress=False,
        ),
    )
    return tokenizer


def encode_chapters(tokenizer: Tokenizer, texts: list[str], dropout: float) -> tuple[torch.Tensor, torch.Tensor]:
    """All chapters as one stream, each closed by <|endoftext|>, and the positions at which a paragraph starts.

    `dropout` leaves out BPE merges at random, so that no two epochs spell the text alike.
    """
    tokenizer.model.dropout = dropout or None
    ids, starts = [], []
    for encoding in tokenizer.encode_batch(texts):
        starts.append(len(ids))
        for i, token in enumerate(encoding.tokens):
            if token.endswith("ĊĊ"):  # two newlines in the byte alphabet
                starts.append(len(ids) + i + 1)
        ids.extend([*encoding.ids, tokenizer.token_to_id("<|endoftext|>")])
    tokenizer.model.dropout = None
    return torch.tensor(ids), torch.tensor(starts)


# --------------------------------------------------------------------------------------------------------------- model

CONFIG = dict(
    vocab_size=VOCAB_SIZE,
    hidden_size=160,
    intermediate_size=448,
    num_hidden_layers=4,
    num_attention_heads=5,
    linear_key_head_dim=24,  # 0.75 and 1.5 of the attention head's 32, as in the release
    linear_value_head_dim=48,
    tie_word_embeddings=True,
    max_position_embeddings=2048,
    rope_parameters={"rope_theta": None, "rope_type": "default"},  # an explicit null theta: NoPE, as released
    eos_token_id=0,
    pad_token_id=3,
)
CHUNK = 32


def fast_chunk_gated_delta_rule(query, key, value, g, beta, use_qk_l2norm_in_kernel=True, **_):
    """The release's chunked gated delta rule from an empty state, in chunks of 32 and with fewer, larger products."""
    B, T, H, Dk = query.shape
    Dv, N = value.shape[-1], -(-T // CHUNK)
    tail = N * CHUNK - T

    def chunks(x):  # [B, T, H, ...] -> [B, H, N, CHUNK, ...]
        x = F.pad(x.transpose(1, 2), (0,) * (2 * (x.dim() - 3)) + (0, tail))
        return x.reshape(B, H, N, CHUNK, *x.shape[3:])

    q, k, v, g, beta = (chunks(x) for x in (query, key, value, g, beta))
    q, k, beta = release.l2norm(q) * Dk**-0.5, release.l2norm(k), beta.unsqueeze(-1)
    c = g.cumsum(-1)
    decay = (c.unsqueeze(-1) - c.unsqueeze(-2)).masked_fill(torch.ones(CHUNK, CHUNK, dtype=torch.bool).triu(1), -torch.inf).exp()
    kT, grown = k.transpose(-1, -2), c.exp().unsqueeze(-1)
    solved = torch.linalg.solve_triangular(
        (k * beta) @ kT * decay, torch.cat([v * beta, k * beta * grown], -1), upper=False, unitriangular=True
    )
    attention = (q @ kT) * decay
    reads = torch.cat([-solved[..., Dv:], q * grown], -2)  # both products with the state at once
    writes = (k * (c[..., -1:] - c).exp().unsqueeze(-1)).transpose(-1, -2)
    shrink = c[..., -1].exp()[..., None, None]
    S, outputs = value.new_zeros(B, H, Dk, Dv), []
    for n in range(N):
        read = reads[:, :, n] @ S
        v_new = solved[:, :, n, :, :Dv] + read[:, :, :CHUNK]
        outputs.append(read[:, :, CHUNK:] + attention[:, :, n] @ v_new)
        S = S * shrink[:, :, n] + writes[:, :, n] @ v_new
    return torch.cat(outputs, 2)[:, :, :T].transpose(1, 2), None


def fast_causal_conv1d(hidden_states, weight, bias=None, activation=None, **_):
    """The release's depthwise causal convolution as a sum of shifted products."""
    W, T = weight.shape[-1], hidden_states.shape[-1]
    x = F.pad(hidden_states, (W - 1, 0))
    return F.silu(sum(x[:, :, j : j + T] * weight[:, j, None] for j in range(W)))


RELEASED = (release.torch_chunk_gated_delta_rule, release.causal_conv1d_fn)
FAST = (fast_chunk_gated_delta_rule, fast_causal_conv1d)


def use(functions) -> None:
    """Selects the delta rule and convolution that the release's modules call."""
    release.torch_chunk_gated_delta_rule, release.causal_conv1d_fn = functions


def check_fast_functions(model) -> None:
    """Logits and gradients of the fast functions agree with the release's to 1e-5 of their largest value."""
    ids = torch.randint(4, VOCAB_SIZE, (2, 77), generator=torch.Generator().manual_seed(SEED))
    results = []
    for functions in (RELEASED, FAST):
        use(functions)
        model.zero_grad()
        logits = model(ids, use_cache=False).logits
        F.cross_entropy(logits.flatten(0, 1), ids.flatten()).backward()
        results.append([logits.detach(), *(p.grad.clone() for p in model.parameters())])
    model.zero_grad()
    worst = max(((a - b).abs().max() / a.abs().max()).item() for a, b in zip(*results))
    print(f"fast functions against the release: {worst:.1e} of the largest value, logits and gradients", flush=True)
    assert worst < 1e-5, worst


# ------------------------------------------------------------------------------------------------------------ training

WINDOW, BATCH = 512, 8
WORKERS = 2  # processes of one thread, half a batch each: on a shared machine threads that meet in every operation mostly wait
PEAK_LR, WARMUP_STEPS, DECAY_SHARE = 4e-3, 40, 0.35  # warmup, stable, then linear decay to zero over the last share of the time
WEIGHT_DECAY, CLIP, BPE_DROPOUT, EMA = 0.1, 1.0, 0.03, 0.98
EVALUATE_EVERY = 50


class Muon(torch.optim.Optimizer):
    """Momentum, orthogonalised by five Newton-Schulz steps in f32 (torch's own computes them in bf16, slow on this kind of CPU).

    Updates are scaled by 0.2 sqrt(longer side), the size of AdamW's, so both share one learning rate (arXiv:2502.16982).
    """

    @torch.no_grad()
    def step(self):
        for group in self.param_groups:
            for p in group["params"]:
                momentum = self.state[p].setdefault("momentum", torch.zeros_like(p))
                momentum.lerp_(p.grad, 0.05)
                x = p.grad.lerp(momentum, 0.95)
                wide = x.size(0) <= x.size(1)
                x = (x if wide else x.T) / (x.norm() + 1e-7)
                for _ in range(5):
                    gram = x @ x.T
                    x = 3.4445 * x + torch.addmm(gram, gram, gram, beta=-4.775, alpha=2.0315) @ x
                p.mul_(1 - group["lr"] * group["weight_decay"])
                p.sub_(x if wide else x.T, alpha=group["lr"] * 0.2 * max(p.shape) ** 0.5)


def windows(stream, starts, step: int) -> torch.Tensor:
    """A batch of WINDOW + 1 ids: half of the windows start with a paragraph, half anywhere. The places depend on the step alone."""
    random = torch.Generator().manual_seed(SEED * 1_000_003 + step)
    last = len(stream) - WINDOW - 1
    anywhere = torch.randint(0, last, (BATCH,), generator=random)
    paragraph = starts[torch.randint(0, len(starts), (BATCH,), generator=random)].clamp(max=last)
    at = torch.where(torch.arange(BATCH) < BATCH // 2, paragraph, anywhere)
    return torch.stack([stream[i : i + WINDOW + 1] for i in at.tolist()])


@torch.no_grad()
def held_out_nll(model, ids: torch.Tensor, size: int = WINDOW) -> torch.Tensor:
    """Mean NLL in nats of each non-overlapping window of `size` ids, every one from an empty state. f64 [windows]."""
    totals = []
    for at in range(0, len(ids) - 1, size):
        window = ids[at : at + size]
        log_probs = model(window[None], use_cache=False).logits[0, :-1].double().log_softmax(-1)
        totals.append(-log_probs.gather(1, window[1:, None]).mean())
    return torch.stack(totals)


def window_mean(nll: torch.Tensor, tokens: int, size: int = WINDOW) -> float:
    """Mean over all predicted tokens from the windows' means."""
    counts = torch.tensor([min(size, tokens - at) - 1 for at in range(0, tokens - 1, size)], dtype=torch.float64)
    return ((nll * counts).sum() / counts.sum()).item()


def rate(elapsed: float, budget: float, step: int) -> float:
    """Learning rate by steps while warming up, by the clock afterwards, so that training ends when it must."""
    left = max(0.0, budget - elapsed) / (budget * DECAY_SHARE)
    return PEAK_LR * min(1.0, (step + 1) / WARMUP_STEPS, left)


def share(parameters: list, loss: float, elapsed: float) -> tuple[float, float]:
    """Means over the workers: gradients in place, the loss, and the clock, so that all workers decide alike."""
    flat = torch.cat([*(p.grad.flatten() for p in parameters), torch.tensor([loss, elapsed])])
    torch.distributed.all_reduce(flat)
    *gradients, numbers = (flat / WORKERS).split([*(p.numel() for p in parameters), 2])
    for p, gradient in zip(parameters, gradients):
        p.grad.copy_(gradient.view_as(p))
    return tuple(numbers.tolist())


def train(rank: int, work: Path, minutes: float) -> None:
    """Trains until the budget is spent; continues from `work/checkpoint.pt` when there is one. Rank 0 evaluates and saves."""
    torch.set_num_threads(1)
    torch.distributed.init_process_group("gloo", init_method=f"file://{work.resolve()}/rendezvous", rank=rank, world_size=WORKERS)
    data = corpus(work)
    tokenizer = Tokenizer.from_file(str(work / "tokenizer.json"))
    held_out = torch.tensor(tokenizer.encode(data["held_out"]).ids)

    torch.manual_seed(SEED)
    model = OlmoHybridForCausalLM(OlmoHybridConfig(**CONFIG))
    if rank == 0:
        print(json.dumps(data["facts"]), len(held_out), "held-out tokens", model.num_parameters(), "parameters", flush=True)
        check_fast_functions(model)
    use(FAST)
    parameters = list(model.parameters())
    matrices = [p for name, p in model.named_parameters() if p.dim() == 2 and min(p.shape) >= 64 and "embed" not in name]
    rest = [p for p in parameters if all(p is not q for q in matrices)]
    optimizers = [
        Muon(matrices, {"lr": PEAK_LR, "weight_decay": WEIGHT_DECAY}),
        torch.optim.AdamW(rest, lr=PEAK_LR, betas=(0.9, 0.95), weight_decay=0.0, fused=True),
    ]
    average = copy.deepcopy(model).eval()
    step, elapsed, best, curve = 0, 0.0, math.inf, []
    checkpoint = work / "checkpoint.pt"
    if checkpoint.exists():
        saved = torch.load(checkpoint, weights_only=True)
        model.load_state_dict(saved["model"])
        average.load_state_dict(saved["average"])
        for optimizer, state in zip(optimizers, saved["optimizers"]):
            optimizer.load_state_dict(state)
        step, elapsed, best, curve = saved["step"], saved["elapsed"], saved["best"], saved["curve"]

    def save(name: str) -> None:
        state = {"model": model.state_dict(), "average": average.state_dict(), "optimizers": [o.state_dict() for o in optimizers]}
        torch.save(state | {"step": step, "elapsed": elapsed, "best": best, "curve": curve}, work / "checkpoint.tmp")
        (work / "checkpoint.tmp").replace(work / name)

    budget, losses, encoded = minutes * 60, [], None
    before = time.monotonic() - elapsed
    while elapsed < budget:
        decaying = elapsed > budget * (1 - DECAY_SHARE)
        if encoded is not None and decaying and not encoded[1] and rank == 0:
            save("before_decay.pt")  # to train longer another day, continue from this one
        epoch = (step * WINDOW * BATCH * 4 // data["facts"]["train_bytes"], decaying)  # about four bytes a token
        if epoch != encoded:
            stream, starts = encode_chapters(tokenizer, data["train"], 0.0 if decaying else BPE_DROPOUT)
            encoded = epoch
        model.train()
        batch = windows(stream, starts, step)[rank::WORKERS]
        logits = model(batch[:, :-1], use_cache=False).logits
        loss = F.cross_entropy(logits.flatten(0, 1), batch[:, 1:].flatten())
        loss.backward()
        mean_loss, elapsed = share(parameters, loss.item(), time.monotonic() - before)
        torch.nn.utils.clip_grad_norm_(parameters, CLIP)
        for optimizer in optimizers:
            for group in optimizer.param_groups:
                group["lr"] = rate(elapsed, budget, step)
            optimizer.step()
        model.zero_grad()
        step += 1
        if rank != 0:
            continue
        with torch.no_grad():
            for mean, now in zip(average.parameters(), parameters):
                mean.lerp_(now, 1 - min(EMA, (step + 1) / (step + 10)))
        losses.append(mean_loss)
        if step % 10 == 0:
            print(f"step {step} {elapsed / 60:.1f} min loss {sum(losses[-10:]) / len(losses[-10:]):.3f}", flush=True)
        if step % EVALUATE_EVERY == 0 or elapsed >= budget:
            nll = window_mean(held_out_nll(average, held_out), len(held_out))
            train_loss = sum(losses) / len(losses)
            curve.append({"step": step, "minutes": round(elapsed / 60, 1), "train": round(train_loss, 4), "held_out": round(nll, 4)})
            losses = []
            print(json.dumps(curve[-1]), flush=True)
            if nll < best:
                best = nll
                torch.save({"model": average.state_dict(), "facts": data["facts"], "curve": curve}, work / "best.pt")
            save("checkpoint.pt")


def start_training(work: Path, minutes: float) -> None:
    """Prepares the tokenizer once, then runs the workers."""
    work.mkdir(parents=True, exist_ok=True)
    if not (work / "tokenizer.json").exists():
        train_tokenizer(corpus(work)["train"]).save(str(work / "tokenizer.json"))
    (work / "rendezvous").unlink(missing_ok=True)
    torch.multiprocessing.spawn(train, (work, minutes), nprocs=WORKERS)


# -------------------------------------------------------------------------------------------------------------- export

PROMPTS = [
    "It was",
    "The evening",
    "Mr. Darcy",
    "Elizabeth looked",
    '"My dear Emma,"',
    "In the course of a few days",
    "Chapter 1\n\n",
    "She had never been so happy in her life, and",
]
GREEDY_TOKENS = 64
SAMPLE_PROMPTS = ["It was", "The evening", "Miss Woodhouse had not been long in the room when"]
SAMPLING = {"do_sample": True, "temperature": 0.7, "top_p": 0.9, "top_k": 0}


def write_tensors(path: Path, tensors: dict, metadata: dict) -> None:
    """A safetensors file with its metadata in order; the library writes it in a different order each time."""
    data = save_tensors(tensors, metadata)
    (size,) = struct.unpack("<Q", data[:8])
    header = json.loads(data[8 : 8 + size])
    header["__metadata__"] = metadata
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    path.write_bytes(struct.pack("<Q", len(text)) + text + data[8 + size :])


def write_json(path: Path, value: dict) -> None:
    path.write_text(json.dumps(value, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def export_model(work: Path, best: dict) -> OlmoHybridForCausalLM:
    """Writes the model folder under the released tensor names in bf16, reads it back with from_pretrained and compares."""
    model = OlmoHybridForCausalLM(OlmoHybridConfig(**CONFIG)).eval()
    model.load_state_dict(best["model"])
    model.to(torch.bfloat16).to(torch.float32)  # what the file will hold; without RoPE there is no buffer to spoil
    described = {"architectures": ["OlmoHybridForCausalLM"], "dtype": "bfloat16", "transformers_version": transformers.__version__}
    fields = [k for k in OlmoHybridConfig.__annotations__ if not k.startswith(("linear_a_log", "linear_dt", "base_model"))]
    config = {"model_type": model.config.model_type, **described, **{k: getattr(model.config, k) for k in fields}}
    MODEL_DIR.mkdir(parents=True, exist_ok=True)
    write_json(MODEL_DIR / "config.json", config)
    key_dim = CONFIG["linear_key_head_dim"] * CONFIG["num_attention_heads"]
    tensors = {}
    for name, tensor in model.state_dict().items():
        if name == "lm_head.weight":  # tied
            continue
        if name.endswith("conv1d.weight"):  # one fused convolution in memory, three in a released file
            for letter, part in zip("qkv", tensor.split([key_dim, key_dim, tensor.shape[0] - 2 * key_dim])):
                tensors[name.replace("conv1d", f"{letter}_conv1d")] = part
        else:
            tensors[name] = tensor
    tensors = {name: tensor.to(torch.bfloat16).contiguous() for name, tensor in sorted(tensors.items())}
    write_tensors(MODEL_DIR / "model.safetensors", tensors, {"format": "pt"})
    (MODEL_DIR / "tokenizer.json").write_bytes((work / "tokenizer.json").read_bytes())
    tokenizer_config = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "eos_token": "<|endoftext|>",
        "pad_token": "<|pad|>",
        "clean_up_tokenization_spaces": False,
        "model_max_length": CONFIG["max_position_embeddings"],
    }
    write_json(MODEL_DIR / "tokenizer_config.json", tokenizer_config)
    write_json(MODEL_DIR / "generation_config.json", {"eos_token_id": 0, "pad_token_id": 3, **SAMPLING})

    loaded, info = OlmoHybridForCausalLM.from_pretrained(MODEL_DIR, dtype=torch.float32, output_loading_info=True)
    assert not any(info[key] for key in ("missing_keys", "unexpected_keys", "mismatched_keys")), info
    assert loaded.model.rotary_emb is None, "expected NoPE"
    ids = torch.arange(4, 104)[None]
    assert torch.equal(loaded(ids).logits, model(ids).logits), "the saved folder does not give the trained model's logits"
    return loaded.eval()


@torch.no_grad()
def greedy(model, ids: list[int]) -> tuple[list[int], list[float]]:
    """GREEDY_TOKENS ids by argmax (an end-of-text id does not stop it) and at each step the top logit's lead over the second."""
    out = model(torch.tensor([ids]), use_cache=True)
    tokens, margins = [], []
    for _ in range(GREEDY_TOKENS):
        first, second = out.logits[0, -1].topk(2).values.tolist()
        tokens.append(out.logits[0, -1].argmax().item())
        margins.append(first - second)
        out = model(torch.tensor([tokens[-1:]]), past_key_values=out.past_key_values, use_cache=True)
    return tokens, margins


def write_goldens(model, tokenizer: Tokenizer, held_out: str) -> dict:
    """The held-out text, its perplexity and greedy continuations, by the release's unchanged code in f32."""
    GOLDEN_DIR.mkdir(parents=True, exist_ok=True)
    (GOLDEN_DIR / "heldout.txt").write_text(held_out, encoding="utf-8")
    ids = torch.tensor(tokenizer.encode(held_out).ids)
    nll = held_out_nll(model, ids)
    mean = window_mean(nll, len(ids))
    tensors = {
        "heldout_ids": ids.to(torch.int32),
        "heldout_nll": torch.tensor([mean], dtype=torch.float64),
        "heldout_nll_windows": nll,
    }
    for i, prompt in enumerate(PROMPTS):
        prompt_ids = tokenizer.encode(prompt).ids
        tokens, margins = greedy(model, prompt_ids)
        tensors[f"prompt_{i}_ids"] = torch.tensor(prompt_ids, dtype=torch.int32)
        tensors[f"prompt_{i}_greedy"] = torch.tensor(tokens, dtype=torch.int32)
        tensors[f"prompt_{i}_margins"] = torch.tensor(margins, dtype=torch.float32)
    weights = (MODEL_DIR / "model.safetensors").read_bytes()
    description = {
        "heldout_ids": "I32 [tokens], heldout.txt encoded without special tokens",
        "heldout_nll": "F64 [1], nats per predicted token: mean over all predicted tokens",
        "heldout_nll_windows": "F64 [windows], the mean of each window of 512 ids (the last is shorter); each window starts from "
        "an empty state and predicts its tokens 1..n-1; logits in f32, log-softmax and mean in f64",
        "prompt_<i>_ids": "I32 [n], the prompt, see `prompts`",
        "prompt_<i>_greedy": f"I32 [{GREEDY_TOKENS}], argmax continuation with the cache; an end-of-text id does not stop it",
        "prompt_<i>_margins": f"F32 [{GREEDY_TOKENS}], largest logit minus second largest at each step",
    }
    metadata = {
        "_comment": "src/embedded evaluated by the PyTorch release: held-out perplexity and greedy continuations",
        "description": json.dumps(description),
        "prompts": json.dumps(PROMPTS),
        "producer": "golden/train_demo.py export: OlmoHybridForCausalLM.from_pretrained(src/embedded, dtype=float32), one CPU thread",
        "torch": torch.__version__,
        "transformers": transformers.__version__,
        "model_sha256": hashlib.sha256(weights).hexdigest(),
    }
    write_tensors(GOLDEN_DIR / "expected.safetensors", tensors, metadata)
    # A token's text in the byte alphabet has one character a byte. The first token of each window is not predicted.
    lengths = torch.tensor([len(token) for token in map(tokenizer.id_to_token, ids.tolist())])
    lengths[::WINDOW] = 0
    bits_per_byte = mean * (len(ids) - len(nll)) / lengths.sum().item() / math.log(2)
    long = CONFIG["max_position_embeddings"]
    return {
        "tokens": len(ids),
        "nll": mean,
        "bits_per_byte": bits_per_byte,
        "nll_long": window_mean(held_out_nll(model, ids, long), len(ids), long),
    }


@torch.no_grad()
def sample(model, tokenizer: Tokenizer, prompt: str, seed: int, length: int = 100) -> str:
    """A continuation by the release's `generate` with the defaults of generation_config.json."""
    torch.manual_seed(seed)
    ids = torch.tensor([tokenizer.encode(prompt).ids])
    out = model.generate(ids, attention_mask=torch.ones_like(ids), max_new_tokens=length)
    return tokenizer.decode(out[0].tolist())


def write_card(model, tokenizer: Tokenizer, curve: list, chosen: dict, data: dict, held_out: dict) -> None:
    """The model card, from measured figures only."""
    facts, last = data["facts"], curve[-1]
    epoch = len(encode_chapters(tokenizer, data["train"], 0.0)[0])
    picked = [p for i, p in enumerate(curve) if i % (len(curve) // 9 or 1) == 0 or p in (chosen, last)]
    rows = "\n".join(
        f"| {p['step']}{' (shipped)' * (p == chosen)} | {p['step'] * WINDOW * BATCH / 1e6:.2f} M | {p['minutes']:.0f} "
        f"| {p['train']:.3f} | {p['held_out']:.3f} |"
        for p in picked
    )
    samples = []
    for seed, prompt in enumerate(SAMPLE_PROMPTS):
        lines = sample(model, tokenizer, prompt, seed).split("\n")
        samples.append(f"Prompt `{prompt}`, seed {seed}:\n\n" + "\n".join(f"> {line}".rstrip() for line in lines))
    card = CARD.format(
        parameters=f"{model.num_parameters():,}",
        megabytes=f"{sum(f.stat().st_size for f in MODEL_DIR.iterdir() if f.name != 'README.md') / 1e6:.1f}",
        novels="; ".join(facts["novels"]),
        steps=last["step"],
        chosen=chosen["step"],
        seen=f"{chosen['step'] * WINDOW * BATCH / 1e6:.1f}",
        epochs=f"{chosen['step'] * WINDOW * BATCH / epoch:.1f}",
        epoch=f"{epoch:,}",
        rows=rows,
        samples="\n\n".join(samples),
        nll=f"{held_out['nll']:.4f}",
        nll_long=f"{held_out['nll_long']:.4f}",
        perplexity=f"{math.exp(held_out['nll']):.2f}",
        bits=f"{held_out['bits_per_byte']:.3f}",
        byte_perplexity=f"{2 ** held_out['bits_per_byte']:.3f}",
        held_out_tokens=f"{held_out['tokens']:,}",
        minutes=f"{last['minutes']:.0f}",
        torch=torch.__version__,
        transformers=transformers.__version__,
        **{key: facts[key] for key in ("package", "sha256", "train_bytes", "held_out_bytes")},
        **{key: CONFIG[key] for key in ("hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads")},
        **{key: CONFIG[key] for key in ("linear_key_head_dim", "linear_value_head_dim", "max_position_embeddings", "vocab_size")},
        head_dim=CONFIG["hidden_size"] // CONFIG["num_attention_heads"],
        temperature=SAMPLING["temperature"],
        top_p=SAMPLING["top_p"],
    )
    (MODEL_DIR / "README.md").write_text(card, encoding="utf-8")


CARD = """---
license: apache-2.0
language: en
library_name: transformers
pipeline_tag: text-generation
---

# The embedded default model

A small OLMo Hybrid, trained from scratch on Jane Austen's six novels so that this repository has something of its own to
run: {parameters} parameters, {megabytes} MB with its tokenizer. It is a base model: it continues prose.

## What it is not

It is not a model released by Ai2 and shares no weights with one. It knows nothing but six novels: do not ask it for
facts. It follows no instructions. Its clauses are mostly grammatical, but its sentences wander and lose their subject; it
mixes the people of different novels freely and may repeat phrases of its source. That source is two hundred years old,
and so are the views of class, women and marriage that it repeats.

## Data and licence

The text is that of Debian's package {package} (Project Gutenberg's texts): {novels}. The novels are in the public
domain. Chapters became documents: hard line breaks joined, italics' underscores dropped, runs of hyphens turned into em
dashes, headings written as "Chapter N"; title pages and editors' notes left out. SHA-256 of all cleaned chapters:
`{sha256}`. One whole chapter of each novel ({held_out_bytes:,} bytes, `golden/demo/heldout.txt`) was kept from both the training and
the tokenizer; {train_bytes:,} bytes remained. The weights are under Apache-2.0, like the repository.

## Tokenizer

Byte-level BPE with {vocab_size} entries, trained on the training chapters, with the split pattern of the released tokenizer.
`<|endoftext|>` (0) ends a chapter; `<|im_start|>`, `<|im_end|>` and `<|pad|>` exist for the format's sake and were never trained.

## Architecture

`OlmoHybridForCausalLM` as in the release: {num_hidden_layers} layers, three Gated DeltaNet layers and one of full attention, NoPE, hidden size
{hidden_size}, {num_attention_heads} heads of {head_dim}, linear key heads of {linear_key_head_dim} and value heads of {linear_value_head_dim}, convolution over 4 tokens, beta in (0, 2),
intermediate size {intermediate_size}, tied embeddings, context {max_position_embeddings}, stored in bf16.

## Training

`golden/train_demo.py` with torch {torch} and transformers {transformers}, on two CPU cores shared with other work: {minutes} minutes, {steps} steps.
Windows of 512 tokens, 8 in a batch, half of them starting with a paragraph; Muon for the matrices, AdamW for the rest; warmup,
constant rate, then linear decay over the last 35% of the time; weight decay 0.1; BPE-dropout 0.03 before the decay. Shipped is a
moving average of the weights at step {chosen}, the best of the run by held-out loss (which is thereby slightly flattered): it has
seen {seen} M tokens, {epochs} passes over {epoch}.

| step | tokens | minutes | train loss | held-out loss |
|---|---|---|---|---|
{rows}

Train loss is the mean since the row's previous evaluation, under BPE-dropout before the decay; held-out loss is of the averaged weights in f32.
The distance between the two columns at the end is overfitting: under a million tokens of text are few, even for {epochs} passes.

## Evaluation

The held-out chapters, {held_out_tokens} tokens, in windows of 512 that each start from an empty state; the bf16 weights in f32 arithmetic,
by the release's code: **{nll} nats per token**, perplexity **{perplexity}** per token, {bits} bits per byte, perplexity {byte_perplexity} per byte.
In windows of {max_position_embeddings}, four times as long as any it was trained on: {nll_long} nats per token.

## Samples

By the release's `generate` with the defaults in `generation_config.json` (temperature {temperature}, top-p {top_p}), 100 tokens each,
verbatim and not selected (the first seeds):

{samples}
"""


def export(work: Path) -> None:
    """Writes everything that ships, from `work/best.pt`."""
    torch.set_num_threads(1)
    use(RELEASED)
    best = torch.load(work / "best.pt", weights_only=True)
    data = corpus(work)
    assert best["facts"]["sha256"] == data["facts"]["sha256"], "the text is not the one that was trained on"
    model = export_model(work, best)
    tokenizer = Tokenizer.from_file(str(MODEL_DIR / "tokenizer.json"))
    fast = PreTrainedTokenizerFast.from_pretrained(MODEL_DIR)
    assert fast(data["held_out"][:5000])["input_ids"] == tokenizer.encode(data["held_out"][:5000]).ids
    held_out = write_goldens(model, tokenizer, data["held_out"])
    curve = torch.load(work / "checkpoint.pt", weights_only=True)["curve"]
    write_card(model, tokenizer, curve, best["curve"][-1], data, held_out)
    print(json.dumps({**held_out, "perplexity": math.exp(held_out["nll"]), "step": best["curve"][-1]["step"]}))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("command", choices=["train", "export"])
    parser.add_argument("--work", type=Path, default=HERE / ".work", help="data, checkpoints and logs")
    parser.add_argument("--minutes", type=float, default=56, help="wall-clock budget of the training, resumptions included")
    arguments = parser.parse_args()
    if arguments.command == "train":
        start_training(arguments.work, arguments.minutes)
    else:
        export(arguments.work)
