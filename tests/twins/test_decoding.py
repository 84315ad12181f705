"""Both twins find the same outputs, the cache changes nothing, and the search is the right one."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from decoding_cases import (
    CHANGES,
    FOREIGN,
    PLAIN,
    RELATIVE,
    SEARCHES,
    SOURCE,
    assert_same,
    both_twins,
    flax_model,
    flax_outputs,
    random_weights,
    torch_model,
    torch_outputs,
)
from messages import saying

from flax_transformer import decoding as flax_decoding
from flax_transformer import decoding_state as flax_state
from torch_transformer import decoding as torch_decoding
from torch_transformer import decoding_state as torch_state
from training_recipe.searching.search import Search, longest_output, never_produced
from transformer_spec import UserError, weight_shapes

pytestmark = pytest.mark.usefixtures("float64", "quick_compiling")


class TestCache:
    """Parts of 2, 1, 2 and 1 tokens over a cache that is longer than they are."""

    SOURCE = np.array([[4, 5, 6, 7, 8, 9, 10, 5, 4, 3], [9, 0, 8, 3, 0, 0, 0, 0, 0, 0]])

    def target(self, config):
        target = np.array([[2, 5, 6, 7, 9, 4], [2, 8, 0, 0, 10, 5]])
        target[:, 0] = config.decoder_start_id
        return target

    @pytest.mark.parametrize("changes", CHANGES, ids=str)
    def test_torch(self, changes):
        config = dataclasses.replace(PLAIN, num_decoder_layers=2, **changes)
        model = torch_model(config, random_weights(config, 1))
        source, target = torch.tensor(self.SOURCE), torch.tensor(self.target(config))
        with torch.no_grad():
            memory = model.encode(source)
            state = torch_state.start(model, memory, source, 9)
            parts = []
            for tokens in target.split([2, 1, 2, 1], 1):
                logits, state = torch_state.next_logits(model, tokens, state)
                parts.append(logits)
            difference = torch.cat(parts, 1) - model.decode(target, memory, source)
        assert difference.abs().max() <= 1e-11

    @pytest.mark.sampled(1)
    @pytest.mark.parametrize("changes", CHANGES, ids=str)
    def test_flax(self, changes):
        config = dataclasses.replace(PLAIN, num_decoder_layers=2, **changes)
        model = flax_model(config, random_weights(config, 1))
        source, target = jnp.array(self.SOURCE), jnp.array(self.target(config))
        memory = model.encode(source)
        state = flax_state.start(model, memory, source, 9)
        parts = []
        for tokens in jnp.split(target, [2, 3, 5], 1):
            logits, state = flax_state.next_logits(model, tokens, state)
            parts.append(logits)
        difference = jnp.concatenate(parts, 1) - model.decode(target, memory, source)
        assert jnp.abs(difference).max() <= 1e-11

    def test_no_room(self):
        model = torch_model(PLAIN, random_weights(PLAIN, 1))
        twin = flax_model(PLAIN, random_weights(PLAIN, 1))
        memory = np.zeros((1, 2, 6))
        tokens = np.full((1, 2), 4)
        no_room = saying("1 columns", "0 in use", "no room for 2")
        source = torch.tensor(tokens)
        state = torch_state.start(model, torch.tensor(memory), source, 1)
        with pytest.raises(ValueError, check=no_room):
            torch_state.next_logits(model, source, state)
        source = jnp.array(tokens)
        state = flax_state.start(twin, jnp.array(memory), source, 1)
        with pytest.raises(ValueError, check=no_room):
            flax_state.next_logits(twin, source, state)
        with pytest.raises(UserError, match="longer than the model's max_length 17"):
            torch_state.start(model, torch.tensor(memory), torch.tensor(tokens), 18)

    def test_beams_share_one_memory(self):
        model = torch_model(PLAIN, random_weights(PLAIN, 1))
        source = torch.tensor(SOURCE)
        state = torch_state.start(model, model.encode(source), source, 4, outputs=3)
        assert {len(keys) for keys, _ in state.memory} == {5}
        assert {values.shape[2] for _, values in state.keys_values} == {12}

    def test_samples_share_the_memory_and_no_cells(self):
        model = torch_model(PLAIN, random_weights(PLAIN, 1))
        twin = flax_model(PLAIN, random_weights(PLAIN, 1))
        source = torch.tensor(SOURCE)
        for state in (
            torch_state.start(model, model.encode(source), source, 4, groups=3),
            flax_state.start(twin, twin.encode(jnp.array(SOURCE)), jnp.array(SOURCE), 4, groups=3),
        ):  # fmt: skip
            assert {len(keys) for keys, _ in state.memory} == {5}
            assert {values.shape[:3] for _, values in state.keys_values} == {
                (15, PLAIN.num_heads, 4)
            }


# Of the plain model one of each kind; of the other one a beam and what ends it.
KEPT = {
    "plain": ("greedy", "beam 4, penalty 1", "beam 4, penalty -0.5", "samples"),
    "foreign": ("beam 4, no penalty", "beam 4, penalty 1"),
}
EACH = [
    pytest.param(config, name, marks=() if kept else pytest.mark.thorough, id=f"{of}-{name}")
    for of, config in (("plain", PLAIN), ("foreign", FOREIGN))
    for name in SEARCHES
    for kept in [name in KEPT[of]]
]


@pytest.mark.sampled(3)
@pytest.mark.parametrize(("config", "name"), EACH)
def test_twins_find_the_same(config, name):
    for seed in range(3):
        weights = random_weights(config, seed, 0.6)
        ours = torch_outputs(config, weights, SOURCE, SEARCHES[name])
        theirs = flax_outputs(config, weights, SOURCE, SEARCHES[name])
        assert_same(ours, theirs)
        if not SEARCHES[name].sample:
            assert ours[1] == ours[4]


def test_twins_find_the_same_with_relative_positions():
    """Beams whose outputs end early and late, over several stages of the cache."""
    weights, search = random_weights(RELATIVE, 1, 0.6), SEARCHES["beam 4, penalty 1"]
    ours = torch_outputs(RELATIVE, weights, SOURCE, search)
    assert_same(ours, flax_outputs(RELATIVE, weights, SOURCE, search))
    assert len({len(best.ids) for row in ours for best in row}) > 2


@pytest.mark.parametrize("name", ["greedy", "beam 4, no penalty"])
def test_twins_break_ties_alike(name):
    """A model that finds every token as likely as every other."""
    weights = {n: np.zeros(shape) for n, shape in weight_shapes(PLAIN).items()}
    ours = torch_outputs(PLAIN, weights, SOURCE, SEARCHES[name])
    assert_same(ours, flax_outputs(PLAIN, weights, SOURCE, SEARCHES[name]))
    assert ours[0][0].ids == ([1] * 17 if name == "greedy" else [])


def test_torch_top_orders_ties_as_jax_does():
    draw = np.random.default_rng(0)
    values = draw.integers(0, 4, (50, 23)).astype(float)
    values[:, ::3] = -np.inf
    for count in (1, 2, 9, 23):
        ours = torch_decoding.top(torch.tensor(values), count)
        theirs = jax.lax.top_k(values, count)
        for one, other in zip(ours, theirs, strict=True):
            assert np.array_equal(one.numpy(), other)


class TestSurroundings:
    """Neither the batch around a sentence nor its padding changes its outputs."""

    @pytest.mark.parametrize("name", ["greedy", "beam 4, penalty 1", "samples"])
    def test_torch(self, name):
        weights = random_weights(FOREIGN, 5, 0.6)
        together = torch_outputs(FOREIGN, weights, SOURCE, SEARCHES[name])
        for row, expected in zip(SOURCE, together, strict=True):
            alone = row[None, : max(1, (row != 0).sum())]
            assert_same(torch_outputs(FOREIGN, weights, alone, SEARCHES[name]), [expected])

    @pytest.mark.parametrize(
        "name", [pytest.param("greedy", marks=pytest.mark.thorough), "beam 4, penalty 1"]
    )
    def test_flax(self, name):
        weights = random_weights(FOREIGN, 5, 0.6)
        together = flax_outputs(FOREIGN, weights, SOURCE, SEARCHES[name])
        padded = np.pad(SOURCE[[3, 0]], ((0, 0), (0, 4)))
        apart = flax_outputs(FOREIGN, weights, padded, SEARCHES[name])
        assert_same(apart, [together[3], together[0]])


class TestSamples:
    def test_frequencies(self):
        """First tokens are drawn as often as the model says, at a temperature of 2."""
        weights = random_weights(PLAIN, 0, 0.6)
        search = Search(sample=True, nbest=4000, temperature=2.0, max_length=1)
        found = torch_outputs(PLAIN, weights, SOURCE[:1], search)[0]
        model = torch_model(PLAIN, weights)
        with torch.no_grad():
            logits = model(torch.tensor(SOURCE[:1]), torch.tensor([[2]]))[0, -1].numpy()
        expected = np.where(never_produced(PLAIN), 0, np.exp(logits / 2))
        expected /= expected.sum()
        drawn = np.bincount([h.ids[0] if h.ids else 3 for h in found], minlength=11)
        error = np.sqrt(expected * (1 - expected) / 4000)
        assert (np.abs(drawn / 4000 - expected) <= 4 * error).all()

    def test_seed(self):
        weights = random_weights(PLAIN, 1, 0.3)

        def ids(**changes):
            search = dataclasses.replace(SEARCHES["samples"], **changes)
            found = torch_outputs(PLAIN, weights, SOURCE, search)
            return [[h.ids for h in row] for row in found]

        assert ids() == ids() != ids(seed=6)
        assert ids()[0][0] != ids()[0][1]

    @both_twins
    def test_few_choices(self, outputs):
        weights = random_weights(PLAIN, 1, 0.6)
        greedy = torch_outputs(PLAIN, weights, SOURCE, Search())
        one = outputs(PLAIN, weights, SOURCE, Search(sample=True, top_k=1))
        assert_same(one, greedy)
        cold = torch_outputs(PLAIN, weights, SOURCE, Search(sample=True, temperature=1e-30))
        assert_same(cold, greedy)

    def test_top_k_leaves_the_likeliest(self):
        log_p = torch.log(torch.tensor([[0.1, 0.4, 0.3, 0.2]])).repeat(1000, 1)
        numbers = torch.linspace(0, 0.999, 1000)
        assert set(torch_decoding.draw(log_p, numbers, 1.0, 2).tolist()) == {1, 2}


def test_caches_grow_in_stages():
    assert flax_state.stages(1) == [1] and flax_state.stages(16) == [16]
    assert flax_state.stages(30) == [15, 30]
    assert flax_state.stages(70) == [35, 70]


@pytest.mark.parametrize(
    "name",
    [
        "beam 4, penalty 0.6",
        pytest.param("greedy", marks=pytest.mark.thorough),
        pytest.param("samples", marks=pytest.mark.thorough),
    ],
)
def test_outputs_do_not_depend_on_the_stages(name: str, monkeypatch: pytest.MonkeyPatch):
    found, weights = {}, random_weights(PLAIN, 0)
    weights["decoder.finalFc.bias"][PLAIN.eos_id] = -100.0  # written to the end
    for most in (1, 3):
        monkeypatch.setattr(flax_state, "MOST_STAGES", most)
        monkeypatch.setattr(flax_state, "SHORTEST_STAGE", 2)
        flax_decoding.compiled_for_processor.clear_cache()
        found[most] = flax_outputs(PLAIN, weights, SOURCE, SEARCHES[name])
    flax_decoding.compiled_for_processor.clear_cache()
    length = longest_output(SOURCE.shape[1], PLAIN, SEARCHES[name])
    longest = max(len(output.ids) for outputs in found[1] for output in outputs)
    assert longest > flax_state.stages(length)[1]  # so that the last stage was needed
    assert_same(found[3], found[1])


def test_same_shape_is_compiled_once():
    outputs = flax_outputs(PLAIN, random_weights(PLAIN, 0), SOURCE, SEARCHES["beam 4, penalty 1"])
    before = flax_decoding.compiled_for_processor._cache_size()
    for penalty in (0.0, 0.3):
        search = Search(beam=4, length_penalty=penalty)
        other = flax_outputs(PLAIN, random_weights(PLAIN, 1), SOURCE[::-1], search)
    assert flax_decoding.compiled_for_processor._cache_size() == before
    assert other != outputs
