"""Padding and number of compiled shapes on Multi30k, where it is there, and on lengths like its."""

from pathlib import Path

import numpy as np
import pytest

from benchmarks.training_sizes import MULTI30K, multi30k_folders
from training_recipe.batching.shapes import partition
from training_recipe.corpora.downloads import corpus_folder
from training_recipe.options.request import make_request
from training_recipe.preparation import prepare_new
from transformer_spec.errors import Faults

TOKENIZED = "{}.lc.norm.tok"
DATA = next(iter(multi30k_folders()), None)
MISSING = f"Multi30k is neither in {MULTI30K} nor in {corpus_folder('multi30k-en-de')}"


@pytest.mark.skipif(DATA is None, reason=MISSING)
def test_less_than_a_tenth_is_padding_in_twelve_shapes() -> None:
    """As in the published setting: 10,000 joint BPE units, batches of 4,096 tokens."""
    splits = {"data": "train", "valid": "val", "test": "test_2016_flickr"}
    paths = {name: str(Path(DATA or "") / TOKENIZED.format(part)) for name, part in splits.items()}
    flags = {"source_lang": "en", "target_lang": "de", "shared_vocabulary": True}
    flags |= {"sentencepiece_algorithm": "bpe", "source_vocab_size": 10_000, "batch_tokens": 4096}
    request = make_request(paths | flags | {"batch_shapes": 12, "preset": "small"}, Faults())
    prepared = prepare_new(request.settings, request.model)
    plan = prepared.plan
    assert any(": 29,000 train, " in note for note in prepared.notes)
    assert len(plan.shapes) <= 12
    assert 0.05 < plan.padding < 0.10
    (note,) = [note for note in prepared.notes if note.startswith("batches: ")]
    assert f"{plan.padding:.1%} padding, {len(plan.shapes)} shapes" in note


def test_lengths_like_its_in_twelve_shapes() -> None:
    """Logarithms drawn with the means, deviations and correlation of Multi30k's 10,000 units.

    Drawn tails are longer than its own: there is a little more padding than in the corpus itself.
    """
    english, own = np.random.default_rng(0).standard_normal((2, 29_000))
    german = 0.857 * english + np.sqrt(1 - 0.857**2) * own
    source, target = np.exp(2.655 + 0.291 * english), np.exp(2.660 + 0.320 * german)
    lengths = np.rint([source, target]).astype(int)
    boxes = partition(*lengths, 4096, 12)
    assert len(boxes) <= 12
    entries = sum(box.batches * box.rows * (box.source + box.target) for box in boxes)
    assert 0.05 < 1 - lengths.sum() / entries < 0.105
