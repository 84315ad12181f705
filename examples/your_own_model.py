"""A translation model as people write them: names of its own, nothing of this program in it.

python examples/your_own_model.py writes my_model.pt; docs/your-own-model.md goes on with it.
"""

import math
from pathlib import Path

import torch
from torch import Tensor, nn

WIDTH, INNER, HEADS, DEPTH, LONGEST = 32, 64, 4, 2, 40
SOURCE_WORDS, TARGET_WORDS, PADDING = 60, 50, 0
FILE = Path("my_model.pt")


class Attend(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.ask, self.match, self.read, self.mix = (nn.Linear(WIDTH, WIDTH) for _ in range(4))

    def forward(self, states: Tensor, others: Tensor, visible: Tensor) -> Tensor:
        given = (self.ask(states), self.match(others), self.read(others))
        asked, keys, values = (x.unflatten(-1, (HEADS, -1)).transpose(1, 2) for x in given)
        scores = asked @ keys.transpose(-1, -2) / math.sqrt(WIDTH // HEADS)
        weights = scores.masked_fill(~visible, -1e9).softmax(-1)
        return self.mix((weights @ values).transpose(1, 2).flatten(2))


class Think(nn.Sequential):
    def __init__(self) -> None:
        super().__init__(nn.Linear(WIDTH, INNER), nn.GELU(), nn.Linear(INNER, WIDTH))


class Reader(nn.Module):
    """One layer of the encoder."""

    def __init__(self) -> None:
        super().__init__()
        self.self_attend, self.think = Attend(), Think()
        self.norm1, self.norm2 = nn.LayerNorm(WIDTH), nn.LayerNorm(WIDTH)

    def forward(self, states: Tensor, visible: Tensor) -> Tensor:
        normed = self.norm1(states)
        states = states + self.self_attend(normed, normed, visible)
        return states + self.think(self.norm2(states))


class Writer(nn.Module):
    """One layer of the decoder."""

    def __init__(self) -> None:
        super().__init__()
        self.self_attend, self.source_attend, self.think = Attend(), Attend(), Think()
        self.norm1, self.norm2, self.norm3 = (nn.LayerNorm(WIDTH) for _ in range(3))

    def forward(self, states: Tensor, read: Tensor, earlier: Tensor, visible: Tensor) -> Tensor:
        normed = self.norm1(states)
        states = states + self.self_attend(normed, normed, earlier)
        states = states + self.source_attend(self.norm2(states), read, visible)
        return states + self.think(self.norm3(states))


class Translator(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.source_words = nn.Embedding(SOURCE_WORDS, WIDTH)
        self.target_words = nn.Embedding(TARGET_WORDS, WIDTH)
        self.source_places = nn.Embedding(LONGEST, WIDTH)
        self.target_places = nn.Embedding(LONGEST, WIDTH)
        self.readers = nn.ModuleList(Reader() for _ in range(DEPTH))
        self.writers = nn.ModuleList(Writer() for _ in range(DEPTH))
        self.read_norm, self.write_norm = nn.LayerNorm(WIDTH), nn.LayerNorm(WIDTH)
        self.say = nn.Linear(WIDTH, TARGET_WORDS)

    def forward(self, source: Tensor, target: Tensor) -> Tensor:
        visible = (source != PADDING)[:, None, None]
        read = self.source_words(source) * math.sqrt(WIDTH)
        read = read + self.source_places(torch.arange(source.shape[1]))
        for reader in self.readers:
            read = reader(read, visible)
        read, length = self.read_norm(read), target.shape[1]
        earlier = (target != PADDING)[:, None, None] & torch.ones(length, length).tril().bool()
        states = self.target_words(target) * math.sqrt(WIDTH)
        states = states + self.target_places(torch.arange(length))
        for writer in self.writers:
            states = writer(states, read, earlier, visible)
        return self.say(self.write_norm(states))


def make() -> Translator:
    """The model with the weights of its file."""
    model = Translator()
    model.load_state_dict(torch.load(FILE))
    return model.eval()


if __name__ == "__main__":
    torch.manual_seed(0)
    torch.save(Translator().state_dict(), FILE)
