"""Steps on an imported model are those of torch.optim.AdamW on the model of transformers.

The library's own ids, labels and loss are compared with ours in float64, dropout off, for every
family of folders; the weights after three steps are compared under canonical names.
"""

import contextlib
import dataclasses
import inspect
import sys
from itertools import pairwise

import numpy as np
import pytest
from folders_of_hub import sentences
from small_training import largest_difference
from t5_folders import USUAL, norms_in_float64, pieces_of_t5, write, write_model

from convert.conversion.opening import open_model
from convert.core.pipeline import Converted
from convert.core.tensors import Held
from training_recipe.backend import Checkpoint
from training_recipe.batching.batches import Batch, BatchPlan, encode_pairs
from training_recipe.corpora.corpus import Example
from training_recipe.options.settings import TrainingSettings
from training_recipe.preparation import frames_of
from training_recipe.text.model_vocabularies import spoken
from transformer_spec import DROPOUTS
from twinformer.frameworks import training_backend
from twinformer.training.beginning import learns_padding

FAMILIES = ("marian", "marian-separate", "bart", "mbart", "mbart50", "m2m100", "nllb")
OF_T5 = ("t5-v1.1", "t5", "umt5")
LANGUAGES = {
    "m2m100": {"src_lang": "en", "tgt_lang": "de"},
    "nllb": {"src_lang": "eng_Latn", "tgt_lang": "deu_Latn"},
}
# Trained as another family is.
SAME_TRAINING = ("marian-separate", "mbart", "mbart50", "nllb")
# In JAX; the twins agree, and PyTorch takes the steps of each family with --thorough.
SAME_MODEL = ("marian-separate", "bart", "mbart", "mbart50", "m2m100", "nllb")
CODES = {name: (said["src_lang"], said["tgt_lang"]) for name, said in LANGUAGES.items()}
ALIKE = (pytest.param(name, marks=pytest.mark.thorough) for name in OF_T5[1:])
NAMES = (*FAMILIES, OF_T5[0], *ALIKE)
ROWS, STEPS, BOUND = 4, 3, 1e-11
# Softmax does not see a key's bias: its gradient is rounding alone, near 1e-15, which Adam divides
# by eps. With 1e-6 that is nothing, and every other weight moves as far as with any.
EPS = 1e-6
SETTINGS = TrainingSettings(
    dtype="float64",
    device="cpu",
    label_smoothing=0.0,
    clip_norm=0.0,
    weight_decay=0.01,
    adam_beta2=0.999,
    adam_eps=EPS,
)
RATES = (1e-3, 7e-4, 4e-4)
pytestmark = [
    pytest.mark.usefixtures("both_frameworks", "float64", "quick_compiling"),
    pytest.mark.filterwarnings("ignore:Recommended. pip install sacremoses"),
]


class Library:
    """A folder's model in its own library, and the batches that it trains on."""

    def __init__(self, name: str, folder) -> None:
        from huggingface_cases import use_float64_sinusoids

        from parity.sides.library import hugging_face

        self.side = hugging_face(f"hf:{folder}", folder)
        self.model, self.is_t5 = self.side.module.eval(), name in OF_T5
        if name.startswith("marian"):
            use_float64_sinusoids(self.model)
        self.opened = open_model(folder)
        self.ids = list(tokenized(name, folder))
        self.results: dict[float, tuple[list[float], dict]] = {}

    def batches(self) -> list[Batch]:
        """Our batches of the library's ids: the labels, and what its decoder reads for them."""
        pad, made = self.opened.config.pad_id, []
        for source, labels in self.ids:
            given = shifted(self.model, labels).masked_fill(labels == pad, pad)
            arrays = (source.numpy(), given.numpy(), labels.numpy())
            made.append(Batch(*(array.astype(np.int32) for array in arrays), pad_id=pad))
        return made

    def trained(self, clip_norm: float) -> tuple[list[float], dict[str, np.ndarray]]:
        """Losses and canonical weights of the steps by the library and torch's optimizer."""
        if clip_norm not in self.results:
            before = {n: tensor.clone() for n, tensor in self.model.state_dict().items()}
            self.results[clip_norm] = self._train(clip_norm)
            self.model.load_state_dict(before)
        return self.results[clip_norm]

    def _train(self, clip_norm: float) -> tuple[list[float], dict[str, np.ndarray]]:
        import torch
        from huggingface_cases import in_float64

        from parity.sides.library import state_of

        parameters = [p for p in self.model.parameters() if p.requires_grad]
        groups = [
            {"params": [p for p in parameters if p.ndim > 1], "weight_decay": 0.01},
            {"params": [p for p in parameters if p.ndim == 1], "weight_decay": 0.0},
        ]
        optimizer, losses = torch.optim.AdamW(groups, betas=(0.9, 0.999), eps=EPS), []
        pad = self.opened.config.pad_id
        for rate, (source, labels) in zip(RATES, self.ids, strict=True):
            optimizer.zero_grad()
            ignored = labels.masked_fill(labels == pad, -100)
            widened = norms_in_float64() if self.is_t5 else contextlib.nullcontext()
            with in_float64(), widened:
                seen = (source != pad).long()
                loss = self.model(input_ids=source, attention_mask=seen, labels=ignored).loss
            loss.backward()
            if clip_norm:
                torch.nn.utils.clip_grad_norm_(parameters, clip_norm)
            for group in optimizer.param_groups:
                group["lr"] = rate
            optimizer.step()
            losses.append(float(loss.detach()))
        found = Converted(Held(state_of(self.model)), self.side.rules())
        return losses, {n: found.read(n) for n in found if n in self.opened.weights()}


def shifted(model, labels):
    """What the library's own code makes the decoder's input of labels."""
    if hasattr(model, "_shift_right"):
        return model._shift_right(labels)
    module = sys.modules[type(model).__module__]
    shift, pad = module.shift_tokens_right, model.config.pad_token_id
    if len(inspect.signature(shift).parameters) == 2:  # mBART: the language comes first
        return shift(labels, pad)
    return shift(labels, pad, model.config.decoder_start_token_id)


def texts() -> list[list[str]]:
    """A few short sources and their targets for each step."""
    pairs = zip(sentences("val", "en"), sentences("val", "de"), strict=True)
    short = [pair for pair in pairs if len(pair[0]) + len(pair[1]) < 80][: ROWS * STEPS]
    return [list(column) for column in zip(*short, strict=True)]


def tokenized(name: str, folder):
    """Source ids and labels of a few short sentences for each step, as the library makes them."""
    from transformers import AutoTokenizer, T5Tokenizer

    reader = T5Tokenizer if name in OF_T5 else AutoTokenizer
    tokenizer = reader.from_pretrained(folder, **LANGUAGES.get(name, {}))
    columns = texts()
    every = tokenizer(columns[0], text_target=columns[1], padding="longest", return_tensors="pt")
    longest = tokenizer.pad({"input_ids": every["labels"]}, return_tensors="pt")["input_ids"]
    for first, last in pairwise(range(0, ROWS * STEPS + 1, ROWS)):
        yield every["input_ids"][first:last], longest[first:last]


def folder_of_t5(kind: str, place):
    """A random model beside pieces of the texts' own."""
    english, german = sentences("val", "en"), sentences("val", "de")
    write(place, pieces_of_t5((*english, *german), 300), USUAL)
    return write_model(place, kind, 512, dropout_rate=0.0)


@pytest.fixture(scope="module")
def library(hub_folders, tmp_path_factory):
    """A function: the library's side of a family, made once."""
    made = {}

    def get(name: str) -> Library:
        if name not in made:
            own = name in OF_T5
            place = folder_of_t5(name, tmp_path_factory.mktemp(name)) if own else hub_folders(name)
            made[name] = Library(name, place)
        return made[name]

    return get


def steps(
    library: Library, backend: str, count: int = STEPS, **changes
) -> tuple[list[float], dict[str, np.ndarray]]:
    """Losses and weights of the same steps by ours."""
    opened = library.opened
    changes = {"padding_gradient": learns_padding(opened)} | changes
    config = dataclasses.replace(opened.config, **dict.fromkeys(DROPOUTS, 0.0))
    state = Checkpoint({n: w.astype(np.float64) for n, w in opened.weights().items()})
    settings = dataclasses.replace(SETTINGS, **changes)
    trainer, losses = training_backend(backend)(config, settings, state), []
    for number, batch in enumerate(library.batches()[:count], 1):
        result = trainer.train_step([batch], number, RATES[number - 1])
        losses.append(float(result.loss_sum) / batch.tokens)
    return losses, trainer.state().weights


@pytest.mark.parametrize(
    ("name", "backend"),
    [
        pytest.param(name, backend, marks=pytest.mark.thorough if again else ())
        for name in (*FAMILIES, *OF_T5)
        for backend in ("torch", "jax")
        for again in [
            name in (*OF_T5[1:], *SAME_TRAINING) or (backend == "jax" and name in SAME_MODEL)
        ]
    ],
)
def test_three_steps(library, name: str, backend: str) -> None:
    expected, weights = library(name).trained(clip_norm=0.0)
    losses, ours = steps(library(name), backend)
    assert np.abs(np.subtract(losses, expected)).max() <= BOUND
    assert largest_difference(ours, weights) <= BOUND
    moved = library(name).opened.weights()["encoder.embedding.weight"]
    assert np.abs(ours["encoder.embedding.weight"] - moved).max() > 1e-3


@pytest.mark.parametrize("name", NAMES)
def test_batches_are_the_library_s(library, name: str) -> None:
    """Ids, frames, labels and what the decoder begins with, of texts by our vocabularies."""
    found = library(name)
    codes = CODES.get(name)
    pair = spoken(found.opened.text(), codes and ",".join(codes))
    examples = [Example(source, (target,)) for source, target in zip(*texts(), strict=True)]
    start = pair[1].start_id
    plan = BatchPlan(
        encode_pairs(examples, *pair),
        budget=10**6,
        max_shapes=1,
        pad_id=found.opened.config.pad_id,
        decoder_start_id=found.opened.config.decoder_start_id if start is None else start,
        frames=frames_of(pair),
    )
    ours, theirs = plan.batch(1), found.batches()
    for side in ("source", "target_in", "target_out"):
        expected = np.concatenate([getattr(batch, side) for batch in theirs])
        assert sorted(map(tuple, getattr(ours, side))) == sorted(map(tuple, expected)), side


@pytest.mark.parametrize("name", ["marian", "mbart"])
def test_only_a_start_of_padding_is_looked_up_without_a_gradient(library, name: str) -> None:
    """Without the setting, Marian's row of padding learns otherwise, and nothing else does."""
    (_, with_it), (_, without) = (
        steps(library(name), "torch", 1, padding_gradient=learns) for learns in (True, False)
    )
    table, pad = "encoder.embedding.weight", library(name).opened.config.pad_id
    rows = np.flatnonzero(np.abs(with_it[table] - without[table]).max(1))
    assert list(rows) == ([pad] if name == "marian" else [])
    others = with_it.keys() - {table}
    assert all(np.array_equal(with_it[other], without[other]) for other in others)


def test_the_norm_that_clips_lacks_torch_s_epsilon(library) -> None:
    """clip_grad_norm_ divides by the norm plus 1e-6: weights differ by less than that share."""
    expected, weights = library("marian").trained(clip_norm=0.5)
    losses, ours = steps(library("marian"), "torch", clip_norm=0.5)
    assert np.abs(np.subtract(losses, expected)).max() <= 1e-6
    assert largest_difference(ours, weights) <= 1e-6 * max(RATES)
