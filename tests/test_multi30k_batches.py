"""Padding and number of compiled shapes on Multi30k, where the project's data folder has it."""

from pathlib import Path

import pytest

from training_recipe.preparation import prepare_new
from training_recipe.request import make_request
from transformer_spec.errors import Faults

DATA = Path(__file__).parent.parent.parent / "shared/data/multi30k"
TOKENIZED = "{}.lc.norm.tok"


@pytest.mark.skipif(not DATA.is_dir(), reason=f"{DATA} is not there")
def test_less_than_a_tenth_is_padding_in_twelve_shapes() -> None:
    """As in the published setting: 10,000 joint BPE units, batches of 4,096 tokens."""
    splits = {"data": "train", "valid": "val", "test": "test_2016_flickr"}
    paths = {name: str(DATA / TOKENIZED.format(part)) for name, part in splits.items()}
    flags = {"source_lang": "en", "target_lang": "de", "shared_vocabulary": True}
    flags |= {"sentencepiece_algorithm": "bpe", "source_vocab_size": 10_000, "batch_tokens": 4096}
    request = make_request(paths | flags | {"batch_shapes": 12, "preset": "small"}, Faults())
    prepared = prepare_new(request.settings, request.model)
    plan = prepared.plan
    assert len(prepared.corpus.train) == 29_000
    assert len(plan.shapes) <= 12
    assert 0.05 < plan.padding < 0.10
    (note,) = [note for note in prepared.notes if note.startswith("batches: ")]
    assert f"{plan.padding:.1%} padding, {len(plan.shapes)} shapes" in note
