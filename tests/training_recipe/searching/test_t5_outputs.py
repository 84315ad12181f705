"""Both twins find what generate finds with T5, mT5, UMT5, and halves of different depth.

Everything computes in float64, the library's norms and generate too.
"""

import dataclasses
import functools
import itertools
import json

import numpy as np
import pytest
from decoding_cases import flax_outputs, torch_outputs
from t5_folders import KINDS, norms_in_float64, write_model

from convert import ConversionRequest, convert
from convert.checkpoints import load_weights_of
from training_recipe.searching.published import load_search, read_generation

pytestmark = pytest.mark.usefixtures("float64", "quick_compiling")

ROWS, LONGEST = 64, 17
SUMMARY = {"summarization": {"num_beams": 4, "prefix": "summarize: ", "min_length": 30}}


@dataclasses.dataclass
class Case:
    """The library's model, ours, and sources of several lengths."""

    base: dict
    judge: object
    config: object
    weights: dict
    source: np.ndarray


@pytest.fixture(scope="module")
def case_of(tmp_path_factory):
    """A function: the case of a kind."""
    pytest.importorskip("transformers")
    from benchmarks.generate_judge import Judge, padded

    @functools.cache
    def case_of(kind: str) -> Case:
        place = tmp_path_factory.mktemp(kind)
        folder = write_model(place / "theirs", kind, ROWS)
        convert(ConversionRequest(folder, place / "ours", to="torch"))
        config, weights = load_weights_of(place / "ours")
        exact = {name: array.astype(np.float64) for name, array in weights.items()}
        base = json.loads((folder / "generation_config.json").read_text())
        draw = np.random.default_rng(3)
        rows = [draw.integers(3, ROWS, size).tolist() for size in (2, 29, 7, 13, 5, 23)]
        source = padded([[*row, config.eos_id] for row in rows], config.pad_id)
        return Case(base, Judge(folder), config, exact, source)

    return case_of


def check(case, outputs, **settings):
    """Ids and scores of all outputs that are asked for."""
    told = {**case.base, "max_length": LONGEST, **settings}
    search, _ = read_generation(told, case.config, "settings")
    ours = outputs(case.config, case.weights, case.source, search)
    with norms_in_float64():
        theirs, scores = case.judge.outputs(case.source, told)
    assert [[found.ids for found in row] for row in ours] == theirs
    if search.beam > 1:
        mine = [[found.score for found in row] for row in ours]
        np.testing.assert_allclose(mine, scores, rtol=0, atol=1e-11)
    assert len({tuple(row[0].ids) for row in ours}) > 1


OTHERS = [*itertools.product(("t5-v1.1", "mt5"), (1,)), *itertools.product(KINDS, (5,))]
ALIKE = (pytest.param(*case, marks=pytest.mark.thorough) for case in OTHERS)


@pytest.mark.sampled(4)
@pytest.mark.parametrize(
    ("kind", "beam"),
    [("t5", 1), ("deep", 1), ("umt5", 1), *((kind, 4) for kind in KINDS), *ALIKE],
)
def test_torch(case_of, kind, beam):
    check(case_of(kind), torch_outputs, num_beams=beam, max_length=41)


@pytest.mark.parametrize(
    ("kind", "beam"),
    [
        ("t5", 5),
        pytest.param("deep", 1, marks=pytest.mark.thorough),
        pytest.param("mt5", 4, marks=pytest.mark.thorough),
        pytest.param("umt5", 4, marks=pytest.mark.thorough),
    ],
)
def test_flax(case_of, kind, beam):
    check(case_of(kind), flax_outputs, num_beams=beam)


def test_what_the_first_t5_was_published_with(case_of):
    """The settings of its summaries, as a user of generate would give them."""
    asked = {"num_beams": 4, "length_penalty": 2.0, "no_repeat_ngram_size": 3, "min_length": 9}
    check(case_of("t5"), torch_outputs, early_stopping=True, num_return_sequences=3, **asked)


def test_settings_of_tasks_are_no_settings_of_the_search(tmp_path):
    """generate reads none of task_specific_params, and neither is it read here."""
    folder = write_model(tmp_path / "t5", "t5", ROWS, task_specific_params=SUMMARY)
    assert "summarize" in (folder / "config.json").read_text()
    for name in ("whole", "old"):
        done = convert(ConversionRequest(folder, tmp_path / name, to="torch"))
        assert load_search(tmp_path / name / "search.json").beam == 1
        assert any("has no max_length" in note for note in done.notes)
        (folder / "generation_config.json").unlink(missing_ok=True)
