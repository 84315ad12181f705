"""The rule of generate in both twins: the same outputs, whatever the batch, and odd settings.

That they are generate's: tests/training_recipe/searching/test_published_outputs.py.
"""

import dataclasses

import jax.numpy as jnp
import numpy as np
import pytest
import torch
from decoding_cases import (
    FOREIGN,
    PLAIN,
    SOURCE,
    assert_same,
    both_twins,
    flax_outputs,
    random_weights,
    torch_outputs,
)

from flax_transformer import decoding as flax_decoding
from torch_transformer import decoding as torch_decoding
from training_recipe.searching.search import Search
from transformer_spec import weight_shapes

pytestmark = pytest.mark.usefixtures("float64", "quick_compiling")

GENERATE = Search(
    beam=3, nbest=2, max_length=12, rule="generate", no_repeat_ngram_size=2, min_length=2,
    repetition_penalty=1.2, banned=((4,), (5, 6)), suppressed_first=(7,), early_stopping="never",
    encoder_no_repeat_ngram_size=3, encoder_repetition_penalty=0.9, end_ids=(3, 9),
    exponential_decay_length_penalty=(4, 1.05), forced_last_id=3, renormalize=True,
)  # fmt: skip
SETTINGS = {
    "everything": GENERATE,
    "greedy": dataclasses.replace(GENERATE, beam=1, nbest=1, early_stopping=False),
    "open length": dataclasses.replace(GENERATE, max_length=None, forced_first_id=8, start_id=6),
    "samples": Search(
        sample=True, nbest=3, rule="generate", top_k=6, top_p=0.8, seed=3, suppressed=(6,)
    ),
}


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=() if name == "everything" else pytest.mark.thorough)
        for name in SETTINGS
    ],
)
def test_twins_find_the_same(name):
    """And neither other rows nor padding change what is found."""
    search, weights = SETTINGS[name], random_weights(FOREIGN, 1, 0.6)
    ours = torch_outputs(FOREIGN, weights, SOURCE, search)
    assert_same(ours, flax_outputs(FOREIGN, weights, SOURCE, search))
    assert ours[1] == ours[4] or search.sample
    for row, expected in zip(SOURCE, ours, strict=True):
        alone = row[None, : max(1, (row != 0).sum())]
        assert_same(torch_outputs(FOREIGN, weights, alone, search), [expected])


@both_twins
def test_rows_without_an_output(outputs):
    search = Search(beam=3, nbest=2, max_length=12, rule="generate")
    found = outputs(PLAIN, random_weights(PLAIN, 0), np.zeros_like(SOURCE), search)
    assert [[(h.ids, h.score) for h in row] for row in found] == [[([], 0.0)]] * 5
    weights = {name: np.full(shape, np.nan) for name, shape in weight_shapes(PLAIN).items()}
    found = outputs(PLAIN, weights, SOURCE, search)
    assert [(h.ids, h.score) for h in found[0]] == [([], -np.inf)]


@both_twins
def test_forced_and_start_tokens_of_the_exact_rule(outputs):
    """Even one that no search writes by itself can be forced; its probability is 1."""
    weights = random_weights(FOREIGN, 2, 0.6)
    search = Search(beam=3, max_length=8, forced_first_id=0, start_id=5)
    found = outputs(FOREIGN, weights, SOURCE, search)
    assert all(row[0].ids[0] == 0 for row in found if row[0].ids)
    plain = torch_outputs(FOREIGN, weights, SOURCE, Search(beam=3, max_length=8))
    assert [row[0].ids for row in plain] != [row[0].ids for row in found]
    greedy = outputs(FOREIGN, weights, SOURCE, dataclasses.replace(search, beam=1))
    assert greedy[0][0].ids[0] == 0 and greedy[0][0].log_probability <= 0


def test_a_language_is_no_other_program():
    """Tokens that change from call to call are numbers given to one program."""
    weights, before = random_weights(FOREIGN, 1, 0.6), None
    for token in (4, 7):
        search = dataclasses.replace(GENERATE, forced_first_id=token, start_id=token, seed=token)
        found = flax_outputs(FOREIGN, weights, SOURCE, search)
        assert found[0][0].ids[0] == token
        count = flax_decoding.compiled_for_processor._cache_size()
        before = before or count
        assert count == before


def test_samples_come_from_the_nucleus():
    """Shares 0.5, 0.3, 0.15 and 0.05: the fewest that make 0.7 are two; one is always left."""
    log_p = torch.log(torch.tensor([[0.05, 0.5, 0.15, 0.3]])).repeat(500, 1)
    numbers = torch.linspace(0, 0.999, 500)
    for top_p, drawn in ((0.7, {1, 3}), (0.0, {1}), (1.0, {0, 1, 2, 3})):
        assert set(torch_decoding.draw(log_p, numbers, 1.0, 0, top_p).tolist()) == drawn
        given = jnp.array(log_p.numpy()), jnp.array(numbers.numpy())
        assert set(flax_decoding.draw(*given, 1.0, 0, top_p).tolist()) == drawn
