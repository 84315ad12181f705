"""Both twins find what transformers' generate finds, with the settings of folders and drawn ones.

Everything computes in float64 but generate itself, which rounds to float32 on its way: ids must be
the same all the same, scores within that.
"""

import dataclasses
import functools
import json

import numpy as np
import pytest
from decoding_cases import flax_outputs, torch_outputs

from benchmarks.generate_judge import Judge, padded, random_settings
from convert import ConversionRequest, convert
from convert.checkpoints import load_weights_of
from training_recipe.searching.published import read_generation

pytestmark = pytest.mark.usefixtures("float64", "quick_compiling")

FOLDERS = (
    "marian", "bart", "mbart", "m2m100", "nllb", "mbart50", "marian-separate", "marian-multi",
)  # fmt: skip
OF_EVERYTHING = (3, 8, 9, 10, 30, 35)  # drawn settings in which each is told once at least
LONGEST = 17  # caches up to 16 columns have one stage, half as much to compile
ROUNDING = 2e-5


@dataclasses.dataclass
class Case:
    """A folder: its generation settings, the library's model, ours, and a dozen sources."""

    base: dict
    judge: Judge
    config: object
    weights: dict
    source: np.ndarray

    @functools.cached_property
    def likely(self) -> list[list[int]]:
        settings = self.base | {"num_beams": 1, "max_length": 20}
        return [row[0] for row in self.judge.outputs(self.source, settings)[0]]


@pytest.fixture(scope="module")
def case_of(hub_folders, tmp_path_factory):
    """A function: the case of a folder."""
    pytest.importorskip("transformers")

    @functools.cache
    def case_of(name: str) -> Case:
        folder, place = hub_folders(name), tmp_path_factory.mktemp("ours") / name
        convert(ConversionRequest(folder, place, to="flax"))
        config, weights = load_weights_of(place)
        exact = {key: array.astype(np.float64) for key, array in weights.items()}
        base = json.loads((folder / "generation_config.json").read_text())
        rng = np.random.default_rng(3)
        rows = [rng.integers(5, 300, size).tolist() for size in rng.integers(2, 14, 12)]
        source = padded([[*row, config.eos_id] for row in rows], config.pad_id)
        return Case(base, Judge(folder), config, exact, source)

    return case_of


def check(case, settings, outputs):
    """The outputs are generate's, all that are asked for, with their scores."""
    search, notes = read_generation(settings, case.config, "settings")
    assert notes == []
    ours = outputs(case.config, case.weights, case.source, search)
    theirs, scores = case.judge.outputs(case.source, settings)
    assert [[found.ids for found in row] for row in ours] == theirs
    if search.beam > 1:
        mine = [[found.score for found in row] for row in ours]
        np.testing.assert_allclose(mine, scores, rtol=ROUNDING, atol=ROUNDING)
    return ours


class TestFolders:
    @pytest.mark.sampled(12)
    @pytest.mark.parametrize("beam", [1, 4, 5])
    @pytest.mark.parametrize("name", FOLDERS)
    def test_torch(self, case_of, name, beam):
        case = case_of(name)
        settings = case.base | {"num_beams": beam, "max_length": 41}
        found = check(case, settings, torch_outputs)
        assert len({len(row[0].ids) for row in found}) > 1

    @pytest.mark.parametrize(
        ("name", "beam"),
        [
            ("marian", 4),
            pytest.param("bart", 5, marks=pytest.mark.thorough),
            ("mbart", 1),
            ("m2m100", 5),
            pytest.param("nllb", 4, marks=pytest.mark.thorough),
        ],
    )
    def test_flax(self, case_of, name, beam):
        case = case_of(name)
        check(case, case.base | {"num_beams": beam, "max_length": LONGEST}, flax_outputs)


class TestDrawnSettings:
    @pytest.mark.sampled(18)
    @pytest.mark.parametrize("number", range(36))
    def test_torch(self, case_of, number):
        case = case_of(FOLDERS[number % len(FOLDERS)])
        settings = random_settings(number, case.base, case.config.target_vocab_size, case.likely)
        check(case, settings, torch_outputs)

    @pytest.mark.sampled(3)
    @pytest.mark.parametrize("number", OF_EVERYTHING)
    def test_flax(self, case_of, number):
        case = case_of(FOLDERS[number % len(FOLDERS)])
        settings = random_settings(number, case.base, case.config.target_vocab_size, case.likely)
        check(case, settings, flax_outputs)


def test_padding_that_is_written_is_a_token_like_others(case_of):
    """m2m100 gives it no position; nobody would look for it, but a beam may hold it."""
    for name in ("m2m100", "bart"):
        case = case_of(name)
        forced = {"forced_bos_token_id": case.config.pad_id, "num_beams": 3, "max_length": LONGEST}
        found = check(case, case.base | forced, torch_outputs)
        assert all(row[0].ids[0] == case.config.pad_id for row in found)
