"""Marian's .npz: the same logits in both twins as transformers computes, and the way back."""

import numpy as np
import pytest
from messages import saying

torch = pytest.importorskip("torch")
pytest.importorskip("jax")
pytest.importorskip("transformers")

from ctranslate2_apart import ask  # noqa: E402
from family_checks import (  # noqa: E402
    assert_round_trip,
    batch,
    export_source,
    import_source,
    twin_logits,
)
from family_table import assert_measured, max_difference  # noqa: E402
from marian_cases import (  # noqa: E402
    CASES,
    HUGGING_FACE,
    OPTIONS,
    PRE_NORM,
    TOP,
    TWO_SIZES,
    Case,
    source,
)
from marian_judges import (  # noqa: E402
    bart,
    hugging_face_positions,
    marian_mt,
    marian_positions,
    mbart,
)

import torch_transformer  # noqa: E402
from convert.core.rules import ASIDE  # noqa: E402
from convert.families.marian_npz.family import MarianNpz  # noqa: E402
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


def assert_twins_agree(case: Case, model, flags: dict, left: bool = False) -> None:
    """Every position up to the padding, the start token's included."""
    config, canonical = import_source(FAMILY, source(case, TOP | flags))
    source_ids, target_ids = batch_of(case, config)
    source_ids = source_ids[:, ::-1].copy() if left else source_ids
    target_ids[:, 0] = config.decoder_start_id
    expected = logits_of(model, source_ids, target_ids, config.pad_id)
    seen = target_ids != config.pad_id
    seen[:, 0] = True
    assert expected.dtype == np.float64 and np.abs(expected).max() > 1e-2
    logits = twin_logits(config, canonical, source_ids, target_ids)
    words = [*range(case.targets), config.pad_id]
    logits = [found[:, :, words] for found in logits]
    expected = expected[:, :, words]
    assert_measured(FAMILY.name, "in", max_difference(logits, expected, seen))


def batch_of(case: Case, config):
    """Ids of words that the vocabularies have."""
    source_ids, target_ids = batch(config)
    for ids, size in ((source_ids, case.words), (target_ids, case.targets)):
        ids[(ids != config.pad_id) & (ids >= size)] = size - 1
    return source_ids, target_ids


class TestLogits:
    @pytest.mark.sampled(2)
    @pytest.mark.parametrize("case", TWO_SIZES.values(), ids=TWO_SIZES)
    def test_two_vocabularies_of_different_sizes(self, case):
        model = marian_mt(case, marian_positions(TOP["max_length"], case.width), 1e-6)
        assert_twins_agree(case, model, {})
        assert_round_trip(FAMILY, source(case))

    @pytest.mark.sampled(3)
    @pytest.mark.parametrize("case", CASES.values(), ids=CASES)
    def test_as_the_conversion_to_hugging_face(self, case):
        positions = hugging_face_positions(TOP["max_length"], case.width)
        model = marian_mt(case, positions, 1e-5)
        made = model.model.encoder.embed_positions.create_weight().double().numpy()
        assert np.abs(positions - made).max() < 1e-6
        assert_twins_agree(case, model, HUGGING_FACE)

    def test_padding_counts_as_a_position(self):
        model = marian_mt(Case(), hugging_face_positions(TOP["max_length"], 18), 1e-5)
        assert_twins_agree(Case(), model, HUGGING_FACE, left=True)

    @pytest.mark.parametrize("name", ["post swish, all tied", "post gelu, target tied"])
    def test_with_marian_s_own_positions_and_epsilon(self, name):
        case = CASES[name]
        model = marian_mt(case, marian_positions(TOP["max_length"], case.width), 1e-6)
        assert_twins_agree(case, model, {})

    @pytest.mark.sampled(2)
    @pytest.mark.parametrize("case", PRE_NORM.values(), ids=PRE_NORM)
    def test_further_norms(self, case):
        judge = mbart if case.pre else bart
        model = judge(case, marian_positions(TOP["max_length"], case.width), 1e-6)
        assert_twins_agree(case, model, {})


class TestAnotherReader:
    """CTranslate2 reads the same file, starts from a zero embedding itself, computes in float32."""

    @pytest.mark.parametrize("name", ["post gelu, target tied", "post, inputs tied, newer output"])
    def test_post_norm(self, tmp_path, name):
        self.assert_same_probabilities(CASES[name], tmp_path)

    def test_pre_norm(self, tmp_path):
        self.assert_same_probabilities(PRE_NORM["pre with embedding norm"], tmp_path)

    def assert_same_probabilities(self, case, folder):
        np.savez(folder / "model.npz", allow_pickle=False, **case.arrays())
        words = ["</s>", "<unk>", *(f"w{i}" for i in range(2, case.words))]
        lines = [f"{word}: {i}\n" for i, word in enumerate(words)]
        (folder / "vocab.yml").write_text("".join(lines))
        vocabularies = [str(folder / "vocab.yml")] * 2
        converted = str(folder / "converted")
        ask("convert_marian", str(folder / "model.npz"), vocabularies, converted)
        source_ids, target_ids = [3, 5, 8, 2, 4], [6, 2, 7, 9]
        sides = ([[words[i] for i in ids]] for ids in (source_ids, target_ids))
        expected = np.array(ask("score", converted, *sides)[0])
        ours = log_probabilities(case, [*source_ids, 0], [*target_ids, 0])
        assert expected.shape == (5,)
        assert np.abs(ours - expected).max() <= 2e-5


def log_probabilities(case: Case, source_ids: list[int], target_ids: list[int]) -> np.ndarray:
    """Of each target token, by the PyTorch twin; the padding token is none of the choices."""
    config, canonical = import_source(FAMILY, source(case, TOP | HUGGING_FACE))
    shifted = [config.decoder_start_id, *target_ids[:-1]]
    twin = torch_transformer.Transformer(config)
    weights = {n: array for n, array in canonical.items() if not n.startswith(ASIDE)}
    torch_transformer.load_weights(twin, weights)
    with torch.no_grad():
        logits = twin(torch.tensor([source_ids]), torch.tensor([shifted]))[0, :, : config.pad_id]
    return torch.log_softmax(logits, -1)[range(len(target_ids)), target_ids].numpy()


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

    def test_words_that_one_vocabulary_lacks(self):
        """They have zero embeddings; those of the target a bias that no sum of words brings up."""
        case = TWO_SIZES["more source words"]
        given = source(case)
        config, canonical = import_source(FAMILY, given)
        assert (config.source_vocab_size, config.target_vocab_size) == (14, 14)
        assert config.pad_id == config.decoder_start_id == 13
        assert not canonical["decoder.embedding.weight"][11:].any()
        bias = canonical["decoder.finalFc.bias"]
        assert bias[:11].any() and list(bias[11:]) == [-30000, -30000, 0]
        assert np.exp(bias.astype(np.float64)[11]) == 0
        _, note, *_ = FAMILY.read_config(given).notes
        assert "target vocabulary has 11 words: ids 11 to 12 are added" in note
        assert "never chosen" in note
        canonical["decoder.finalFc.bias"] = bias + 1
        with pytest.raises(UserError, match="last 3 of 14 biases were changed"):
            export_source(FAMILY, config, canonical, given)

    def test_more_target_words_and_no_bias(self):
        case = Case(tied=("",), target_words=17, omit_bias=True)
        config, canonical = import_source(FAMILY, source(case))
        assert config.output_bias == "none" and "decoder.finalFc.bias" not in canonical
        assert not canonical["encoder.embedding.weight"][13:].any()

    def test_a_trained_padding_row_does_not_go_back(self):
        given = source(Case())
        config, canonical = import_source(FAMILY, given)
        name = "encoder.embedding.weight"
        canonical[name] = canonical[name] + 1
        with pytest.raises(UserError, check=saying(name, "last 1 of its 14 rows")):
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
