"""Models of every kind of config compute in CTranslate2 what they compute here."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from ctranslate2_apart import ask  # noqa: E402
from ctranslate2_cases import (  # noqa: E402
    LIMIT,
    batch,
    numbers,
    random_model,
    sentences,
    suppressed,
    their_search,
    token_scores,
    write_folder,
)

from convert.families.ctranslate2_names import check_expressible  # noqa: E402
from parity.twins.cases import pairwise_configs  # noqa: E402
from torch_transformer import Transformer  # noqa: E402
from torch_transformer.decoding import decode  # noqa: E402
from training_recipe.searching.search import Hypothesis, Search  # noqa: E402
from transformer_spec import Faults, TransformerConfig  # noqa: E402


def has_no_place(config: TransformerConfig) -> bool:
    """CTranslate2 norms embeddings after positions are added, and by the variance or the squares.

    It has no gate without a curve.
    """
    late = "learned_after_norm" in (config.encoder_positions, config.decoder_positions)
    gate = config.gated_ffn and config.activation == "identity"
    return (config.embedding_norm and late) or gate or config.norm == "std"


TEXTS = [config for config in pairwise_configs() if not config.feature_dim]
OTHERS = [config for config in TEXTS if has_no_place(config)]
CONFIGS = [config for config in TEXTS if config not in OTHERS]
BEAM, PATIENCE = 3, 2


class Case(NamedTuple):
    """One model: our greedy outputs of its sentences, and what CTranslate2 says of both."""

    model: Transformer
    rows: list[list[int]]
    greedy: list[Hypothesis]
    answer: dict[str, Any]


@pytest.fixture(scope="module")
def cases(tmp_path_factory) -> list[Case]:
    """All models, exported and asked in one process, in which there is no PyTorch."""
    folder = tmp_path_factory.mktemp("models")
    models = [random_model(config, seed) for seed, config in enumerate(CONFIGS, 10)]
    rows = [sentences(config) for config in CONFIGS]
    greedy = [_greedy(model, given) for model, given in zip(models, rows, strict=True)]
    jobs = []
    for number, model in enumerate(models):
        source = write_folder(folder / str(number), model)
        options = {
            "min_decoding_length": 0,
            "max_decoding_length": LIMIT,
            "suppress_sequences": suppressed(model.config),
        }
        beam = {"beam_size": BEAM, "patience": PATIENCE, "num_hypotheses": BEAM}
        jobs.append(
            {
                "source": str(source),
                "folder": f"{source}-ctranslate2",
                "sentences": [numbers([*row, model.config.eos_id]) for row in rows[number]],
                "outputs": [numbers(one.ids) for one in greedy[number]],
                "searches": [options | {"beam_size": 1}, options | beam],
            }
        )
    answers = ask("export_and_answer", jobs)
    return [Case(*case) for case in zip(models, rows, greedy, answers, strict=True)]


def _greedy(model: Transformer, rows: list[list[int]]) -> list[Hypothesis]:
    found = decode(model, batch(model.config, rows), Search(max_length=LIMIT))
    return [best for (best,) in found]


@pytest.mark.parametrize("number", range(len(CONFIGS)))
class TestEveryKindOfConfig:
    def test_greedy_outputs(self, cases, number):
        case = cases[number]
        found, _ = case.answer["found"]
        assert [tokens for ((tokens, _),) in found] == [numbers(one.ids) for one in case.greedy]

    def test_every_token_has_the_same_probability(self, cases, number):
        case = cases[number]
        outputs = [one.ids for one in case.greedy]
        ours = token_scores(case.model, case.rows, outputs)
        for mine, theirs in zip(ours, case.answer["scored"], strict=True):
            assert np.abs(np.array(mine) - theirs).max() <= 1e-4
        for one, mine in zip(case.greedy, ours, strict=True):
            count = min(len(one.ids) + 1, LIMIT)
            assert abs(one.log_probability - sum(mine[:count])) <= 1e-4

    def test_its_beam_search_finds_what_it_would_find_over_our_logits(self, cases, number):
        case = cases[number]
        _, found = case.answer["found"]
        for row, theirs in zip(case.rows, found, strict=True):
            expected = their_search(case.model, row, BEAM, PATIENCE)
            assert [tokens for tokens, _ in theirs] == [tokens for tokens, _ in expected]
            for (_, score), (_, mine) in zip(theirs, expected, strict=True):
                assert abs(score - mine) <= 1e-4


def test_outputs_of_several_lengths_are_among_them(cases):
    """Else the equalities above would say little."""
    lengths = {len(one.ids) for case in cases for one in case.greedy}
    assert len(lengths) >= 5 and {0, LIMIT} <= lengths


@pytest.mark.parametrize("config", OTHERS, ids=str)
def test_what_has_no_place_is_refused(config):
    faults = Faults()
    check_expressible(config, faults)
    told = " ".join(faults.messages)
    reasons = ("CTranslate2 norms after adding", "with activation 'identity'", "norm is 'std'")
    assert any(reason in told for reason in reasons)
