"""A small library of its own: one model class, a config.json, names that no other library has.

python examples/lantern.py writes the folder lantern/; docs/adding-a-family.md teaches it to the
converter.
"""

import json
import math
from pathlib import Path

import torch
from torch import Tensor, nn

FOLDER = Path("lantern")
CONFIG = {
    "model_type": "lantern",
    "words": 50,
    "width": 24,
    "inner": 40,
    "heads": 3,
    "depth": 2,
    "longest": 30,
    "act": "gelu",
    "norm_first": True,
    "eps": 1e-6,
    "drop": 0.1,
    "pad": 0,
    "start": 1,
    "end": 2,
}
ACTIVATIONS = {"gelu": nn.GELU, "relu": nn.ReLU}


class Look(nn.Module):
    """Attention with one matrix for queries, keys and values, in that order."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.heads = heads

    def forward(self, states: Tensor, others: Tensor, seen: Tensor) -> Tensor:
        weights, biases = self.qkv.weight.chunk(3), self.qkv.bias.chunk(3)
        given = zip((states, others, others), weights, biases, strict=True)
        asked, keys, values = (
            nn.functional.linear(x, w, b).unflatten(-1, (self.heads, -1)).transpose(1, 2)
            for x, w, b in given
        )
        scores = asked @ keys.transpose(-1, -2) / math.sqrt(asked.shape[-1])
        found = scores.masked_fill(~seen, -1e9).softmax(-1) @ values
        return self.out(found.transpose(1, 2).flatten(2))


class Layer(nn.Module):
    """One of either half; the decoder's have a second attention."""

    def __init__(self, config: dict, decoder: bool) -> None:
        super().__init__()
        width, inner = config["width"], config["inner"]
        names = ("look", "listen")[: 1 + decoder]
        norms = {name: nn.LayerNorm(width, config["eps"]) for name in (*names, "think")}
        self.parts = nn.ModuleDict({name: Look(width, config["heads"]) for name in names})
        activation = ACTIVATIONS[config["act"]]()
        self.parts["think"] = nn.Sequential(
            nn.Linear(width, inner), activation, nn.Linear(inner, width)
        )
        self.norms = nn.ModuleDict(norms)
        self.norm_first, self.drop = config["norm_first"], nn.Dropout(config["drop"])

    def around(self, name: str, states: Tensor, *others: Tensor | None) -> Tensor:
        """A part, its residual sum and its norm; None among ``others`` stands for the states."""
        norm, part = self.norms[name], self.parts[name]
        given = norm(states) if self.norm_first else states
        states = states + self.drop(part(given, *(given if x is None else x for x in others)))
        return states if self.norm_first else norm(states)

    def forward(self, states: Tensor, seen: Tensor, read: Tensor | None, source: Tensor) -> Tensor:
        states = self.around("look", states, None, seen)
        if read is not None:
            states = self.around("listen", states, read, source)
        return self.around("think", states)


class Lantern(nn.Module):
    """``model(source, target)``: ids (B, S), (B, T) -> logits (B, T, V)."""

    def __init__(self, config: dict) -> None:
        super().__init__()
        self.config, width = config, config["width"]
        self.words = nn.Embedding(config["words"], width)  # of both halves and of the output
        self.places = nn.ModuleList(nn.Embedding(config["longest"], width) for _ in range(2))
        self.enc, self.dec = (
            nn.ModuleList(Layer(config, decoder) for _ in range(config["depth"]))
            for decoder in (False, True)
        )
        last = [nn.LayerNorm(width, config["eps"]) for _ in range(2 * config["norm_first"])]
        self.last = nn.ModuleList(last)

    def half(self, number: int, ids: Tensor, seen: Tensor, *read: Tensor | None) -> Tensor:
        places = self.places[number](torch.arange(ids.shape[1]))
        states = self.words(ids) * math.sqrt(self.config["width"]) + places
        for layer in (self.enc, self.dec)[number]:
            states = layer(states, seen, *read)
        return self.last[number](states) if self.last else states

    def forward(self, source: Tensor, target: Tensor) -> Tensor:
        pad, length = self.config["pad"], target.shape[1]
        there = (source != pad)[:, None, None]
        read = self.half(0, source, there, None, there)
        earlier = torch.ones(length, length).tril().bool() & (target != pad)[:, None, None]
        return self.half(1, target, earlier, read, there) @ self.words.weight.T


def load(folder: str | Path = FOLDER) -> Lantern:
    """The model of a folder."""
    config = json.loads((Path(folder) / "config.json").read_text(encoding="utf-8"))
    model = Lantern(config)
    model.load_state_dict(torch.load(Path(folder) / "model.pt"))
    return model.eval()


def save(model: Lantern, folder: str | Path) -> None:
    """The two files of a model."""
    Path(folder).mkdir()
    text = json.dumps(model.config, indent=2)
    (Path(folder) / "config.json").write_text(text + "\n", encoding="utf-8")
    torch.save(model.state_dict(), Path(folder) / "model.pt")


if __name__ == "__main__":
    torch.manual_seed(0)
    save(Lantern(CONFIG), FOLDER)
