"""The searches find what an exhaustive one finds, and settings that none can follow are refused."""

import dataclasses
import itertools

import jax.numpy as jnp
import numpy as np
import pytest
import torch
from decoding_cases import (
    FOREIGN,
    PLAIN,
    SOURCE,
    both_twins,
    flax_outputs,
    random_weights,
    torch_model,
    torch_outputs,
)
from messages import saying

from flax_transformer import decoding as flax_decoding
from torch_transformer import decoding as torch_decoding
from training_recipe.searching.search import (
    Search,
    check_search,
    hypotheses,
    longest_output,
    never_produced,
    row_limits,
)
from transformer_spec import UserError, weight_shapes

pytestmark = pytest.mark.usefixtures("float64", "quick_compiling")


def log_probability(model, source, ids):
    """Of a whole output by one full forward pass; ids with eos if it ended."""
    target = torch.tensor([[model.config.decoder_start_id, *ids[:-1]]])
    with torch.no_grad():
        table = torch.log_softmax(model(torch.tensor(source)[None], target), -1)[0]
    return sum(float(table[column, token]) for column, token in enumerate(ids))


class TestSearch:
    TINY = dataclasses.replace(PLAIN, source_vocab_size=6, target_vocab_size=6, max_length=9)
    PENALTIES = (0.0, 0.6, 1.0, 1.5, -0.7)

    @both_twins
    def test_wide_beam_is_exhaustive(self, outputs):
        """All outputs of at most 4 tokens over unk, eos, 4 and 5."""
        source = np.array([4, 5, 3])
        weights = random_weights(self.TINY, 3, 0.5)
        model = torch_model(self.TINY, weights)
        prefixes = [p for n in range(4) for p in itertools.product((1, 4, 5), repeat=n)]
        known = {p: log_probability(model, source, [*p, 3]) for p in prefixes}
        for penalty in self.PENALTIES:
            search = Search(beam=32, nbest=5, length_penalty=penalty, max_length=4)
            found = outputs(self.TINY, weights, source[None], search)[0]
            scores = {p: total / (len(p) + 1) ** penalty for p, total in known.items()}
            ranked = sorted(scores, key=lambda p: -scores[p])[:5]
            assert [tuple(h.ids) for h in found] == ranked
            for h in found:
                assert h.score == pytest.approx(scores[tuple(h.ids)], abs=1e-11)
                assert h.log_probability == pytest.approx(known[tuple(h.ids)], abs=1e-11)

    @pytest.mark.parametrize("seed", range(2))
    def test_stopping_early_loses_nothing(self, seed, monkeypatch):
        weights = random_weights(PLAIN, seed, 0.5)
        for penalty in self.PENALTIES:
            search = Search(beam=3, nbest=3, length_penalty=penalty)
            early = torch_outputs(PLAIN, weights, SOURCE, search)
            with monkeypatch.context() as patch:
                patch.setattr(torch_decoding, "settled", lambda live, finished, task: False)
                assert torch_outputs(PLAIN, weights, SOURCE, search) == early

    @pytest.mark.parametrize("twin", [torch_decoding, flax_decoding])
    @pytest.mark.parametrize(("penalty", "reach"), [(0.0, -1.0), (1.0, -1 / 4), (-1.0, -3.0)])
    def test_settled_when_nothing_better_is_in_reach(self, twin, penalty, reach):
        """2 tokens of probability e^-1, of at most 4: a longer or the next length scores best."""
        array = torch.tensor if twin is torch_decoding else jnp.array
        lengths = array([[2, 2]] * 2)
        live = twin.Outputs(None, array([[-1.0, -9.0]] * 2), lengths)
        worst = np.array([reach, np.nextafter(reach, -np.inf)])
        sums = np.stack([worst + 0.1, worst], 1) * 2**penalty
        finished = twin.Outputs(None, array(sums), lengths)
        task = twin.Task(None, array([4, 4]), None, penalty, 1.0, None, None)
        assert twin.settled(live, finished, task).tolist() == [True, False]

    def test_early_stops_happen(self, monkeypatch):
        weights = random_weights(PLAIN, 0, 0.5)
        weights["decoder.finalFc.bias"][3] += 3
        steps = []
        step = torch_decoding.beam_step
        monkeypatch.setattr(torch_decoding, "beam_step", lambda *a: (steps.append(1), step(*a))[1])
        torch_outputs(PLAIN, weights, SOURCE[:1], Search(beam=3, length_penalty=0.0))
        assert len(steps) < 17

    def test_greedy_takes_the_likeliest(self):
        model = torch_model(FOREIGN, random_weights(FOREIGN, 2))
        for row, (found,) in zip(
            SOURCE, torch_decoding.decode(model, SOURCE, Search()), strict=True
        ):
            ids = []
            for _ in range(row_limits(row[None], FOREIGN, Search())[0]):
                target = torch.tensor([[0, *ids]])
                with torch.no_grad():
                    logits = model(torch.tensor(row)[None], target)[0, -1].numpy()
                ids.append(int(np.where(never_produced(FOREIGN), -np.inf, logits).argmax()))
                if ids[-1] == 3:
                    break
            assert found.ids == [token for token in ids if token != 3]
            assert found.log_probability == pytest.approx(
                log_probability(model, row, ids) if ids else 0, abs=1e-11
            )

    @both_twins
    def test_limits(self, outputs):
        """Each row has its own; an output that does not end is returned at its limit."""
        weights = random_weights(PLAIN, 0, 0.1)
        weights["decoder.finalFc.bias"][[0, 2, 3]] = 50, 50, -50
        for search in (Search(beam=4, nbest=4), Search()):
            found = outputs(PLAIN, weights, SOURCE, search)
            assert [len(row[0].ids) for row in found] == [17, 16, 0, 17, 16]
            assert all({0, 2, 3}.isdisjoint(h.ids) for row in found for h in row)
            assert found[0][0].score == pytest.approx(found[0][0].log_probability / 17)
        found = torch_outputs(PLAIN, weights, SOURCE, Search(max_length=3))
        assert [len(row[0].ids) for row in found] == [3, 3, 0, 3, 3]

    @both_twins
    def test_row_of_padding(self, outputs):
        search = Search(beam=4, nbest=4)
        found = outputs(PLAIN, random_weights(PLAIN, 0), np.zeros_like(SOURCE), search)
        assert [[(h.ids, h.score) for h in row] for row in found] == [[([], 0.0)]] * 5

    @both_twins
    def test_diverged_model(self, outputs):
        weights = {n: np.full(s, np.nan) for n, s in weight_shapes(PLAIN).items()}
        for search in (Search(), Search(beam=4, nbest=4)):
            found = outputs(PLAIN, weights, SOURCE, search)
            assert [(h.ids, h.score) for h in found[0]] == [([], -np.inf)]

    def test_too_long_a_source(self):
        with pytest.raises(UserError, match="a sequence of 18 tokens"):
            torch_outputs(PLAIN, random_weights(PLAIN, 0), np.full((1, 18), 4), Search())

    def test_at_least_float32(self):
        logits = torch.randn(2, 1, 5, dtype=torch.bfloat16)
        found = torch_decoding.log_probabilities(logits, torch.zeros(5, dtype=torch.bool))
        assert found.dtype == torch.float32
        logits = jnp.ones((2, 1, 5), jnp.bfloat16)
        assert flax_decoding.log_probabilities(logits, jnp.zeros(5, bool)).dtype == jnp.float32


class TestSettings:
    def test_all_faults_at_once(self):
        search = Search(
            beam=0, nbest=2, max_length=0, top_k=-1, seed=-1, length_penalty=np.nan, temperature=0
        )
        with pytest.raises(UserError, match="cannot search: 7 faults") as caught:
            torch_outputs(PLAIN, random_weights(PLAIN, 0), SOURCE, search)
        names = ("beam is 0", "nbest is 2", "max_length is 0", "top_k is -1", "seed is -1")
        for name in (*names, "length_penalty is nan", "temperature is 0"):
            assert name in str(caught.value)

    def test_sampling_has_no_beam(self):
        with pytest.raises(UserError, match="beam is 2; sampling has none"):
            flax_outputs(PLAIN, random_weights(PLAIN, 0), SOURCE, Search(beam=2, sample=True))

    def test_longest_output(self):
        assert longest_output(3, PLAIN, Search()) == 16
        assert longest_output(4, PLAIN, Search()) == 17
        assert longest_output(3, PLAIN, Search(rule="generate", min_length=16)) == 17
        assert longest_output(3, PLAIN, Search(rule="generate", min_length=15)) == 16
        assert longest_output(4, PLAIN, Search(max_length=5)) == 5
        assert longest_output(4, PLAIN, Search(max_length=50)) == 17

    def test_start_token_that_ends_outputs_too(self):
        """Some families begin with the token that also ends a sequence."""
        config = dataclasses.replace(PLAIN, decoder_start_id=3)
        assert np.flatnonzero(never_produced(config)).tolist() == [0, 2]

    def test_best_first(self):
        tokens = np.array([[[4, 5, 3], [6, 3, 0], [7, 3, 0]]])
        sums, lengths = np.array([[-3.0, -1.0, -np.inf]]), np.array([[3, 2, 2]])
        search = Search(beam=3, nbest=3, length_penalty=2.0)
        found = hypotheses(tokens, sums, lengths, PLAIN, search)[0]
        assert [h.ids for h in found] == [[6], [4, 5]]
        assert [h.score for h in found] == [-1 / 4, -3 / 9]


@pytest.mark.parametrize(
    "wrong", [{"beam": "5"}, {"nbest": 2.5}, {"seed": None}, {"temperature": "x"}]
)
def test_what_is_no_number_is_named(wrong) -> None:
    ((name, value),) = wrong.items()
    with pytest.raises(UserError, check=saying(name, repr(value), "number")):
        check_search(Search(**wrong))
