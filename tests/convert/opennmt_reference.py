"""OpenNMT-py's Transformer as it publishes it, in plain float64, with random checkpoints of it.

Pre-norm layers, a norm after the last one, embeddings times sqrt(D) where sinusoids are added and
untouched where not. The options are those that OpenNMT-py 3.5.1 saves when nothing is changed.
"""

import json
import math
from argparse import Namespace
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor

DEFAULTS = Path(__file__).with_name("opennmt_py_3_5_options.json")
EMBEDDING = "embeddings.make_embedding"
SPECIALS = ["<unk>", "<blank>", "<s>", "</s>"]
ADDED_WHILE_TRAINING = {"_all_transform": {"filtertoolong"}, "data_task": "seq2seq", "brnn": False,
                        "tgt_file_prefix": False}  # fmt: skip


@dataclass(frozen=True)
class Checkpoint:
    """What a random checkpoint is made of; ``options`` replace those that are saved unchanged."""

    heads: int = 3
    width: int = 18
    inner: int = 7
    encoder_layers: int = 3
    decoder_layers: int = 2
    source_words: int = 17
    target_words: int = 19
    qkv_bias: bool = False
    ffn_bias: bool = True
    legacy_norms: bool = False
    generator: str = "generator"
    rows: int = 50
    eos_bias: float = 0.0
    options: dict = field(default_factory=dict)

    def opt(self) -> dict:
        """The saved options."""
        model = {
            "encoder_type": "transformer", "decoder_type": "transformer", "heads": self.heads,
            "hidden_size": self.width, "enc_hid_size": self.width, "dec_hid_size": self.width,
            "word_vec_size": self.width, "src_word_vec_size": self.width,
            "tgt_word_vec_size": self.width, "transformer_ff": self.inner,
            "enc_layers": self.encoder_layers, "dec_layers": self.decoder_layers,
            "position_encoding": True, "add_qkvbias": self.qkv_bias, "add_ffnbias": self.ffn_bias,
            "self_attn_type": "scaled-dot",
        }  # fmt: skip
        saved = json.loads(DEFAULTS.read_text(encoding="utf-8"))
        return saved | ADDED_WHILE_TRAINING | model | self.options

    def vocab(self) -> dict:
        """Token lists as a checkpoint has them."""
        sides = {"src": ("s", self.source_words), "tgt": ("t", self.target_words)}
        shared = self.opt()["share_embeddings"]
        words = {
            side: SPECIALS + [f"{'w' if shared else letter}{i}" for i in range(count - 4)]
            for side, (letter, count) in sides.items()
        }
        return words | {"data_task": "seq2seq", "decoder_start_token": "<s>"}

    def settings(self) -> dict:
        """What a family is given as settings."""
        return self.opt() | {"vocab": self.vocab()}

    def state(self) -> dict[str, Tensor]:
        """Random float32 tensors, those of the generator after its prefix; tied ones are equal."""
        state = _random(self._shapes())
        state[f"{self.generator}.bias"][SPECIALS.index("</s>")] += self.eos_bias
        opt = self.opt()
        if opt["share_embeddings"]:
            state[f"decoder.{EMBEDDING}.emb_luts.0.weight"] = state[
                f"encoder.{EMBEDDING}.emb_luts.0.weight"
            ]
        if opt["share_decoder_embeddings"]:
            table = state[f"decoder.{EMBEDDING}.emb_luts.0.weight"]
            state[f"{self.generator}.weight"] = table
        if opt["position_encoding"]:
            table = sinusoids(self.rows, self.width, opt["position_encoding_type"]).float()
            for half in ("encoder", "decoder"):
                state[f"{half}.{EMBEDDING}.pe.pe"] = table[:, None, :]
        return state

    def saved(self) -> dict:
        """The content of the file that OpenNMT-py writes."""
        state = self.state()
        generator = {n.removeprefix("generator."): a for n, a in state.items() if "generator" in n}
        model = {n: a for n, a in state.items() if "generator" not in n}
        opt = Namespace(**self.opt())
        return {"model": model, "generator": generator, "vocab": self.vocab(), "opt": opt}

    def _shapes(self) -> dict[str, tuple[int, ...]]:
        D, F = self.width, self.inner
        shapes = {
            f"encoder.{EMBEDDING}.emb_luts.0.weight": (self.source_words, D),
            f"decoder.{EMBEDDING}.emb_luts.0.weight": (self.target_words, D),
            f"{self.generator}.weight": (self.target_words, D),
            f"{self.generator}.bias": (self.target_words,),
        }
        linears, norms = {}, ["encoder.layer_norm", "decoder.layer_norm"]
        for layer, attentions, layer_norms in self.layers():
            for attention in attentions:
                parts = ("linear_query", "linear_keys", "linear_values", "final_linear")
                linears |= {f"{layer}.{attention}.{part}": (D, D) for part in parts}
            linears |= {f"{layer}.feed_forward.w_1": (F, D), f"{layer}.feed_forward.w_2": (D, F)}
            norms += [f"{layer}.{norm}" for norm in (*layer_norms, "feed_forward.layer_norm")]
        for name, shape in linears.items():
            shapes[f"{name}.weight"] = shape
            if self.qkv_bias if "_attn." in name else self.ffn_bias:
                shapes[f"{name}.bias"] = shape[:1]
        for leaf in self.norm_leaves():
            shapes |= {f"{name}.{leaf}": (D,) for name in norms}
        return shapes

    def layers(self):
        """(prefix, attentions, norms) of every layer."""
        for i in range(self.encoder_layers):
            yield f"encoder.transformer.{i}", ["self_attn"], ["layer_norm"]
        for i in range(self.decoder_layers):
            layer = f"decoder.transformer_layers.{i}"
            yield layer, ["self_attn", "context_attn"], ["layer_norm_1", "layer_norm_2"]

    def norm_leaves(self) -> tuple[str, str]:
        return ("a_2", "b_2") if self.legacy_norms else ("weight", "bias")


def _random(shapes: dict[str, tuple[int, ...]]) -> dict[str, Tensor]:
    """Norm weights around 1, everything else around 0."""
    generator = torch.Generator().manual_seed(5)
    state = {}
    for name, shape in shapes.items():
        center = 1.0 if "layer_norm" in name and name.endswith(("weight", "a_2")) else 0.0
        state[name] = center + 0.4 * torch.randn(shape, generator=generator)
    return state


def sinusoids(rows: int, width: int, kind: str) -> Tensor:
    """(rows, width) float64 of sin and cos of p * rate, in turn or one half after the other."""
    half = width // 2
    if kind == "SinusoidalInterleaved":
        rates = [10000 ** (-2 * i / width) for i in range(half)]
    else:
        rates = [10000 ** (-i / (half - 1)) for i in range(half)]
    angles = [[p * rate for rate in rates] for p in range(rows)]
    if kind == "SinusoidalInterleaved":
        table = [[f(a) for a in row for f in (math.sin, math.cos)] for row in angles]
    else:
        table = [[f(a) for f in (math.sin, math.cos) for a in row] for row in angles]
    return torch.tensor(table, dtype=torch.float64)


class Reference:
    """The forward pass of a checkpoint in float64; padding is token 1."""

    def __init__(self, checkpoint: Checkpoint) -> None:
        self.checkpoint, self.opt = checkpoint, checkpoint.opt()
        self.state = {name: value.double() for name, value in checkpoint.state().items()}

    def logits(self, source: Tensor, target: Tensor) -> Tensor:
        """(B, S), (B, T) -> (B, T, V)."""
        blocked = (source == 1)[:, None, None, :]
        memory = self.embed("encoder", source)
        for i in range(self.checkpoint.encoder_layers):
            layer = f"encoder.transformer.{i}"
            x = self.norm(f"{layer}.layer_norm", memory)
            memory = memory + self.attend(f"{layer}.self_attn", x, x, blocked)
            memory = memory + self.feed_forward(layer, memory)
        memory = self.norm("encoder.layer_norm", memory)
        states = self.decode(target, memory, blocked)
        return self.linear(self.checkpoint.generator, states)

    def decode(self, target: Tensor, memory: Tensor, blocked: Tensor) -> Tensor:
        length = target.shape[1]
        future = torch.arange(length)[None, :] > torch.arange(length)[:, None]
        unseen = (target == 1)[:, None, None, :] | future
        y = self.embed("decoder", target)
        for i in range(self.checkpoint.decoder_layers):
            layer = f"decoder.transformer_layers.{i}"
            x = self.norm(f"{layer}.layer_norm_1", y)
            y = y + self.attend(f"{layer}.self_attn", x, x, unseen)
            x = self.norm(f"{layer}.layer_norm_2", y)
            y = y + self.attend(f"{layer}.context_attn", x, memory, blocked)
            y = y + self.feed_forward(layer, y)
        return self.norm("decoder.layer_norm", y)

    def embed(self, half: str, tokens: Tensor) -> Tensor:
        x = self.state[f"{half}.{EMBEDDING}.emb_luts.0.weight"][tokens]
        if not self.opt["position_encoding"]:
            return x
        width, kind = x.shape[-1], self.opt["position_encoding_type"]
        return x * math.sqrt(width) + sinusoids(tokens.shape[1], width, kind)

    def norm(self, name: str, x: Tensor) -> Tensor:
        weight, bias = (self.state[f"{name}.{leaf}"] for leaf in self.checkpoint.norm_leaves())
        centred = x - x.mean(-1, keepdim=True)
        variance = (centred**2).mean(-1, keepdim=True)
        return weight * centred / torch.sqrt(variance + self.opt["norm_eps"]) + bias

    def linear(self, name: str, x: Tensor) -> Tensor:
        y = x @ self.state[f"{name}.weight"].T
        return y + self.state[f"{name}.bias"] if f"{name}.bias" in self.state else y

    def attend(self, name: str, x: Tensor, memory: Tensor, blocked: Tensor) -> Tensor:
        """Queries from x over keys and values from memory; True in ``blocked`` is not seen."""
        heads = self.checkpoint.heads
        q, k, v = (
            self.linear(f"{name}.linear_{part}", y).unflatten(-1, (heads, -1)).transpose(1, 2)
            for part, y in (("query", x), ("keys", memory), ("values", memory))
        )
        scores = q / math.sqrt(q.shape[-1]) @ k.transpose(2, 3)
        weights = torch.softmax(scores.masked_fill(blocked, -1e18), -1)
        return self.linear(f"{name}.final_linear", (weights @ v).transpose(1, 2).flatten(2))

    def feed_forward(self, layer: str, x: Tensor) -> Tensor:
        h = self.linear(
            f"{layer}.feed_forward.w_1", self.norm(f"{layer}.feed_forward.layer_norm", x)
        )
        if self.opt["pos_ffn_activation_fn"] == "gelu":
            h = 0.5 * h * (1 + torch.erf(h / math.sqrt(2)))
        else:
            h = h.clamp(min=0)
        return self.linear(f"{layer}.feed_forward.w_2", h)
