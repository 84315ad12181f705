"""Both twins find the same outputs, the cache changes nothing, and the search is the right one."""

import dataclasses
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch

import flax_transformer
import torch_transformer
from flax_transformer import decoding as flax_decoding
from flax_transformer import decoding_state as flax_state
from torch_transformer import decoding as torch_decoding
from torch_transformer import decoding_state as torch_state
from training_recipe.backend import Search
from training_recipe.search import hypotheses, longest_output, never_produced, row_limits
from transformer_spec import TransformerConfig, UserError, to_flax, weight_shapes

pytestmark = pytest.mark.usefixtures("float64", "quick")

PLAIN = TransformerConfig(
    source_vocab_size=11, target_vocab_size=11, hidden_dim=6, inner_dim=7, num_heads=2,
    num_encoder_layers=1, num_decoder_layers=1, max_length=17,
)  # fmt: skip
FOREIGN = dataclasses.replace(
    PLAIN, num_decoder_layers=2, norm_position="pre", final_norm=True,
    positions_skip_padding=True, position_offset=2,
    decoder_positions="learned", embedding_norm=True, tied_embeddings="all", decoder_start_id=0,
)  # fmt: skip
CHANGES = [
    {},
    {"norm_position": "pre", "final_norm": True},
    {"positions_skip_padding": True, "position_offset": 2},
    {"decoder_positions": "learned", "position_offset": 1},
    {"decoder_positions": "none", "final_norm": True},
    {"decoder_start_id": 0},
    {"decoder_start_id": 0, "positions_skip_padding": True, "decoder_positions": "learned"},
    {"embedding_norm": True, "tied_embeddings": "all", "sinusoid_layout": "concatenated"},
    {"tied_embeddings": "target_output", "output_bias": "frozen"},
]
SEARCHES = {
    "greedy": Search(),
    "beam 4, no penalty": Search(beam=4, length_penalty=0.0, nbest=4),
    "beam 4, penalty 0.6": Search(beam=4, length_penalty=0.6, nbest=4),
    "beam 4, penalty 1": Search(beam=4, length_penalty=1.0, nbest=4),
    "beam 4, penalty 1.5": Search(beam=4, length_penalty=1.5, nbest=4),
    "beam 4, penalty -0.5": Search(beam=4, length_penalty=-0.5, nbest=4),
    "samples": Search(sample=True, nbest=3, temperature=0.7, seed=5),
}
SOURCE = np.array(
    [
        [4, 5, 6, 7, 8, 9, 10, 3],
        [7, 7, 3, 0, 0, 0, 0, 0],
        [0, 0, 0, 0, 0, 0, 0, 0],
        [10, 4, 1, 8, 3, 0, 0, 0],
        [7, 7, 3, 0, 0, 0, 0, 0],
    ]
)


@pytest.fixture(scope="module")
def quick():
    """Programs compiled for one use; one thread, as PyTorch's and XLA's wait for each other."""
    before = torch.get_num_threads(), jax.config.read("jax_disable_most_optimizations")
    torch.set_num_threads(1)
    jax.config.update("jax_disable_most_optimizations", True)
    yield
    torch.set_num_threads(before[0])
    jax.config.update("jax_disable_most_optimizations", before[1])


def random_weights(config, seed, gain=1.0):
    """Weights large enough that outputs differ from each other and end early or late."""
    draw = np.random.default_rng(seed)
    shapes = weight_shapes(config).items()
    return {name: gain * draw.normal(0, 0.7, shape) for name, shape in shapes}


def torch_model(config, weights):
    model = torch_transformer.Transformer(config, dtype=torch.float64)
    torch_transformer.load_weights(model, weights)
    return model


def flax_model(config, weights):
    model = flax_transformer.Transformer(config, dtype=np.float64)
    flax_transformer.load_weights(model, dict(to_flax(*item) for item in weights.items()))
    return model


def torch_outputs(config, weights, source, search):
    return torch_decoding.decode(torch_model(config, weights), source, search)


def flax_outputs(config, weights, source, search):
    return flax_decoding.decode(flax_model(config, weights), source, search)


both_twins = pytest.mark.parametrize("outputs", [torch_outputs, flax_outputs])


def assert_same(ours, theirs, bound=1e-11):
    assert [[h.ids for h in row] for row in ours] == [[h.ids for h in row] for row in theirs]
    for one, other in zip(itertools.chain(*ours), itertools.chain(*theirs), strict=True):
        assert one.score == pytest.approx(other.score, rel=0, abs=bound)
        assert one.log_probability == pytest.approx(other.log_probability, rel=0, abs=bound)


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
        message = "a cache of 1 columns, 0 in use, has no room for 2"
        source = torch.tensor(tokens)
        state = torch_state.start(model, torch.tensor(memory), source, 1)
        with pytest.raises(ValueError, match=message):
            torch_state.next_logits(model, source, state)
        source = jnp.array(tokens)
        state = flax_state.start(twin, jnp.array(memory), source, 1)
        with pytest.raises(ValueError, match=message):
            flax_state.next_logits(twin, source, state)
        with pytest.raises(UserError, match="longer than the model's max_length 17"):
            torch_state.start(model, torch.tensor(memory), torch.tensor(tokens), 18)

    def test_beams_share_one_memory(self):
        model = torch_model(PLAIN, random_weights(PLAIN, 1))
        source = torch.tensor(SOURCE)
        state = torch_state.start(model, model.encode(source), source, 4, outputs=3)
        assert {len(keys) for keys, _ in state.memory} == {5}
        assert {len(keys) for keys, _ in state.keys_values} == {15}


@pytest.mark.parametrize("name", SEARCHES)
@pytest.mark.parametrize("config", [PLAIN, FOREIGN], ids=["plain", "foreign"])
def test_twins_find_the_same(config, name):
    for seed in range(3):
        weights = random_weights(config, seed, 0.6)
        ours = torch_outputs(config, weights, SOURCE, SEARCHES[name])
        theirs = flax_outputs(config, weights, SOURCE, SEARCHES[name])
        assert_same(ours, theirs)
        if not SEARCHES[name].sample:
            assert ours[1] == ours[4]


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
        task = twin.Task(None, array([4, 4]), None, penalty, 1.0, None)
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


class TestSurroundings:
    """Neither the batch around a sentence nor its padding changes its outputs."""

    @pytest.mark.parametrize("name", ["greedy", "beam 4, penalty 1", "samples"])
    def test_torch(self, name):
        weights = random_weights(FOREIGN, 5, 0.6)
        together = torch_outputs(FOREIGN, weights, SOURCE, SEARCHES[name])
        for row, expected in zip(SOURCE, together, strict=True):
            alone = row[None, : max(1, (row != 0).sum())]
            assert_same(torch_outputs(FOREIGN, weights, alone, SEARCHES[name]), [expected])

    @pytest.mark.parametrize("name", ["greedy", "beam 4, penalty 1"])
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


def test_same_shape_is_compiled_once():
    outputs = flax_outputs(PLAIN, random_weights(PLAIN, 0), SOURCE, SEARCHES["beam 4, penalty 1"])
    before = flax_decoding.compiled._cache_size()
    for penalty in (0.0, 0.3):
        search = Search(beam=4, length_penalty=penalty)
        other = flax_outputs(PLAIN, random_weights(PLAIN, 1), SOURCE[::-1], search)
    assert flax_decoding.compiled._cache_size() == before
    assert other != outputs


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
