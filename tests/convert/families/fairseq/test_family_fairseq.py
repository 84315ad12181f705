"""fairseq's transformer: the same logits as the classes of transformers, and the way back."""

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import pytest

pytest.importorskip("torch")
pytest.importorskip("jax")
pytest.importorskip("transformers")

import fairseq_cases as cases  # noqa: E402
from family_checks import (  # noqa: E402
    assert_round_trip,
    assert_same_logits,
    batch,
    import_source,
    source_of,
)

from convert.core.rules import ASIDE  # noqa: E402
from convert.families.fairseq.family import Fairseq  # noqa: E402
from transformer_spec import UserError  # noqa: E402

FAMILY = Fairseq()
pytestmark = pytest.mark.usefixtures("float64")


@dataclass(frozen=True)
class Case:
    """A model of transformers, and the settings that fairseq has of it beside the usual ones."""

    make: Callable = cases.m2m100
    changed: dict = field(default_factory=dict)
    tied: str = "all"
    positions: str = "sinusoidal"
    settings: dict = field(default_factory=dict)

    def model(self):
        model = self.make(**self.changed)
        if self.tied != "all":
            model = cases.untied(model)
        if self.tied == "target_output":
            model.lm_head.weight = model.model.decoder.embed_tokens.weight
        return cases.without_positions(model) if self.positions == "none" else model

    def all_settings(self, model) -> dict:
        tied = {
            "share_all_embeddings": self.tied == "all",
            "share_decoder_input_output_embed": self.tied != "none",
            "no_token_positional_embeddings": self.positions == "none",
        }
        learned = {f"{half}_learned_pos": self.positions == "learned" for half in cases.HALVES}
        return cases.settings_of(model, **tied, **learned, **self.settings)

    def source(self, form: Callable = dict, model=None, flags=None):
        model = model or self.model()
        state = form(cases.state_of(model, self.positions != "learned"))
        if self.positions == "none":
            state = {name: array for name, array in state.items() if "embed_positions" not in name}
        return source_of(state, self.all_settings(model), flags)


POST = {"layernorm_embedding": False}
CASES = {
    "pre relu, all tied": Case(),
    "pre tanh gelu, target tied": Case(
        changed={"activation_function": "gelu_new", "d_model": 12, "encoder_layers": 1},
        tied="target_output",
    ),
    "pre silu, nothing tied": Case(
        changed={"activation_function": "silu", "scale_embedding": False}, tied="none"
    ),
    "pre without positions": Case(positions="none"),
    "post gelu, learned": Case(cases.bart, positions="learned"),
    "post relu, learned, nothing tied": Case(
        cases.bart,
        {"activation_function": "relu", "scale_embedding": False, "decoder_layers": 1},
        "none",
        "learned",
    ),
    "post relu, sinusoidal": Case(cases.vaswani, settings=POST, tied="target_output"),
    "pre gelu, learned, both norms": Case(cases.mbart, positions="learned"),
}
FORMS = {"0.12": dict, "0.12 with copies": cases.with_copies, "2018": cases.legacy}
ANY_CASE = pytest.mark.parametrize("case", CASES.values(), ids=CASES)
ANY_FORM = pytest.mark.parametrize("form", FORMS.values(), ids=FORMS)


class TestLogits:
    @pytest.mark.sampled(4)
    @ANY_CASE
    def test_padding_on_the_right(self, case):
        model = case.model()
        config, canonical = import_source(FAMILY, case.source(model=model))
        source_ids, target_ids = batch(config)
        target_ids[:, 0] = config.decoder_start_id
        expected = cases.logits_of(model, source_ids, target_ids)
        assert_same_logits(FAMILY, config, canonical, source_ids, target_ids, expected)

    def test_padding_on_the_left_as_fairseq_pads_sources(self):
        model = Case().model()
        config, canonical = import_source(FAMILY, Case().source(model=model))
        source_ids, target_ids = (ids[:, ::-1].copy() for ids in batch(config))
        expected = cases.logits_of(model, source_ids, target_ids)
        assert_same_logits(FAMILY, config, canonical, source_ids, target_ids, expected)


class TestTensors:
    @ANY_CASE
    @ANY_FORM
    def test_round_trip(self, case, form):
        assert_round_trip(FAMILY, with_version(case.source(form)))

    @ANY_CASE
    @ANY_FORM
    def test_every_form_is_the_same_model(self, case, form):
        config, canonical = import_source(FAMILY, case.source(form))
        again, plain = import_source(FAMILY, case.source())
        assert config == again
        weights = {name for name in canonical if not name.startswith(ASIDE)}
        assert weights == {name for name in plain if not name.startswith(ASIDE)}
        for name in weights:
            assert np.array_equal(canonical[name], plain[name]), name

    def test_what_has_no_place_is_kept_aside_with_the_reason(self):
        given = Case().source(cases.with_copies)
        config, canonical = import_source(FAMILY, given)
        aside = {name.removeprefix(ASIDE) for name in canonical if name.startswith(ASIDE)}
        copies = {f"{part}_{leaf}" for part in ("in_proj", "out_proj", "fc1", "fc2")
                  for leaf in ("weight", "bias")}  # fmt: skip
        halves = ("version", "embed_positions._float_tensor")
        assert aside == {f"encoder.layers.{i}.{name}" for i in (0, 1) for name in copies} | {
            f"{half}.{name}" for half in cases.HALVES for name in halves
        }
        reasons = {rule.sources[0]: rule.reason for rule in FAMILY.rules(config, given)}
        assert "fills again when it loads" in reasons["encoder.layers.0.in_proj_weight"]

    @pytest.mark.parametrize("name", ["encoder.embed_tokens", "decoder.output_projection"])
    def test_shared_tables_that_differ_are_refused(self, name):
        given = Case().source()
        arrays = given.tensors.read_all()
        arrays[f"{name}.weight"] = arrays[f"{name}.weight"] + 1
        with pytest.raises(UserError, match=r"decoder.output_projection.weight: .* differ"):
            import_source(FAMILY, source_of(arrays, given.settings))

    def test_a_table_that_is_shared_may_be_stored_once(self):
        given = Case().source()
        arrays = given.tensors.read_all()
        for name in ("encoder.embed_tokens.weight", "decoder.output_projection.weight"):
            del arrays[name]
        once = source_of(arrays, given.settings)
        config, canonical = import_source(FAMILY, once)
        assert (config.source_vocab_size, config.tied_embeddings) == (19, "all")
        assert np.array_equal(
            canonical["encoder.embedding.weight"], arrays["decoder.embed_tokens.weight"]
        )
        assert_round_trip(FAMILY, once)

    def test_an_output_of_its_own_must_be_there(self):
        case = CASES["post relu, learned, nothing tied"]
        given = case.source()
        arrays = given.tensors.read_all()
        del arrays["decoder.output_projection.weight"]
        with pytest.raises(UserError, match="missing 'decoder.output_projection.weight'"):
            import_source(FAMILY, source_of(arrays, given.settings))

    def test_wrong_missing_and_extra_tensors_are_named(self):
        given = Case().source()
        arrays = given.tensors.read_all()
        del arrays["encoder.layers.1.self_attn.k_proj.bias"]
        arrays["decoder.layers.2.fc1.weight"] = np.zeros((15, 11), np.float32)
        arrays["decoder.layers.3.fc1.weight"] = np.zeros((11, 15), np.float32)
        with pytest.raises(UserError) as error:
            import_source(FAMILY, source_of(arrays, given.settings))
        assert "missing 'encoder.layers.1.self_attn.k_proj.bias'" in str(error.value)
        assert "wrong shape of 'decoder.layers.2.fc1.weight'" in str(error.value)
        assert "extra 'decoder.layers.3.fc1.weight'" in str(error.value)


def with_version(source):
    """A mark that survives: numbers other than the model's own."""
    arrays = source.tensors.read_all()
    arrays["encoder.version"] = np.array([3.5], np.float32)
    return source_of(arrays, source.settings)
