"""Marian's .npz: the same logits in both twins as transformers computes, and the way back."""

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("jax")
pytest.importorskip("transformers")

from family_checks import (  # noqa: E402
    LOGIT_BOUND,
    assert_round_trip,
    batch,
    export_source,
    import_source,
    twin_logits,
)
from marian_cases import CASES, HUGGING_FACE, OPTIONS, PRE_NORM, TOP, Case, source  # noqa: E402
from marian_judges import (  # noqa: E402
    bart,
    hugging_face_positions,
    marian_mt,
    marian_positions,
    mbart,
)

from convert.families.base import ASIDE  # noqa: E402
from convert.families.marian_npz import MarianNpz  # noqa: E402
from transformer_spec import UserError  # noqa: E402

FAMILY = MarianNpz()
pytestmark = pytest.mark.usefixtures("float64")


def logits_of(model, source_ids: np.ndarray, target_ids: np.ndarray, pad: int) -> np.ndarray:
    mask = target_ids != pad
    mask[:, 0] = True
    with torch.no_grad():
        output = model(
            input_ids=torch.from_numpy(source_ids),
            attention_mask=torch.from_numpy((source_ids != pad).astype(np.int64)),
            decoder_input_ids=torch.from_numpy(target_ids),
            decoder_attention_mask=torch.from_numpy(mask.astype(np.int64)),
            use_cache=False,
        )
    return output.logits.numpy()


def assert_twins_agree(case: Case, model, flags: dict) -> None:
    """Every position up to the padding, the start token's included."""
    config, canonical = import_source(FAMILY, source(case, TOP | flags))
    source_ids, target_ids = batch(config)
    target_ids[:, 0] = config.decoder_start_id
    expected = logits_of(model, source_ids, target_ids, config.pad_id)
    seen = target_ids != config.pad_id
    seen[:, 0] = True
    assert expected.dtype == np.float64 and np.abs(expected).max() > 1e-2
    for logits in twin_logits(config, canonical, source_ids, target_ids):
        assert np.abs(logits - expected)[seen].max() <= LOGIT_BOUND


class TestLogits:
    @pytest.mark.parametrize("case", CASES.values(), ids=CASES)
    def test_as_the_conversion_to_hugging_face(self, case):
        positions = hugging_face_positions(TOP["max_length"], case.width)
        model = marian_mt(case, positions, 1e-5)
        made = model.model.encoder.embed_positions.create_weight().double().numpy()
        assert np.abs(positions - made).max() < 1e-6
        assert_twins_agree(case, model, HUGGING_FACE)

    @pytest.mark.parametrize("case", CASES.values(), ids=CASES)
    def test_with_marian_s_own_positions_and_epsilon(self, case):
        model = marian_mt(case, marian_positions(TOP["max_length"], case.width), 1e-6)
        assert_twins_agree(case, model, {})

    @pytest.mark.parametrize("case", PRE_NORM.values(), ids=PRE_NORM)
    def test_further_norms(self, case):
        judge = mbart if case.pre else bart
        model = judge(case, marian_positions(TOP["max_length"], case.width), 1e-6)
        assert_twins_agree(case, model, {})


class TestTensors:
    @pytest.mark.parametrize("case", [*CASES.values(), *PRE_NORM.values()], ids=[*CASES, *PRE_NORM])
    def test_round_trip(self, case):
        assert_round_trip(FAMILY, source(case))

    def test_every_layer_has_the_number_of_tensors_that_marian_saves(self):
        config, _ = import_source(FAMILY, source(Case()))
        theirs = [name for rule in FAMILY.rules(config, source(Case())) for name in rule.sources]
        assert sum(name.startswith("encoder_l1_") for name in theirs) == 16
        assert sum(name.startswith("decoder_l1_") for name in theirs) == 26

    def test_the_padding_row_is_zero_in_table_and_bias(self):
        config, canonical = import_source(FAMILY, source(Case()))
        assert config.pad_id == config.decoder_start_id == 13
        assert canonical["encoder.embedding.weight"].shape == (14, 18)
        assert not canonical["encoder.embedding.weight"][13].any()
        assert canonical["decoder.finalFc.bias"][13] == 0

    def test_a_trained_padding_row_does_not_go_back(self):
        given = source(Case())
        config, canonical = import_source(FAMILY, given)
        canonical["encoder.embedding.weight"] = canonical["encoder.embedding.weight"] + 1
        with pytest.raises(UserError, match="encoder.embedding.weight: the last 1 of its 14 rows"):
            export_source(FAMILY, config, canonical, given)

    def test_tables_that_grew_apart_do_not_go_back(self):
        case = CASES["post, inputs tied, newer output"]
        config, canonical = import_source(FAMILY, source(case))
        canonical["decoder.embedding.weight"] = canonical["decoder.embedding.weight"] * 2
        with pytest.raises(UserError, match=r"encoder.embedding.weight, decoder.*differ"):
            export_source(FAMILY, config, canonical, source(case))

    def test_options_are_kept_as_they_are(self):
        _, canonical = import_source(FAMILY, source(Case()))
        assert canonical[ASIDE + OPTIONS].tobytes() == Case().arrays()[OPTIONS].tobytes()

    def test_wrong_missing_and_extra_tensors_are_named(self):
        arrays = Case().arrays()
        del arrays["encoder_l2_self_Wq"]
        arrays["decoder_l3_context_bo"] = np.zeros((1, 7), np.float32)
        arrays["decoder_l4_ffn_b1"] = np.zeros((1, 7), np.float32)
        with pytest.raises(UserError) as error:
            import_source(FAMILY, source(Case(), arrays=arrays))
        assert "missing 'encoder_l2_self_Wq': expected float [18, 18]" in str(error.value)
        assert "wrong shape of 'decoder_l3_context_bo'" in str(error.value)
        assert "extra 'decoder_l4_ffn_b1'" in str(error.value)
