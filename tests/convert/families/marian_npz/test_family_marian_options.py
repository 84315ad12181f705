"""Marian's options: mapped, refused by name, or said in a note."""

from dataclasses import replace

import numpy as np
import pytest
from messages import faults_say, saying, says

pytest.importorskip("torch")
pytest.importorskip("jax")

from family_checks import source_of  # noqa: E402
from marian_cases import HUGGING_FACE, OPTIONS, TOP, Case, as_text, source  # noqa: E402

from convert.families.marian_npz.family import MarianNpz  # noqa: E402
from convert.formats.flat_yaml import read_flat_yaml  # noqa: E402
from transformer_spec import UserError  # noqa: E402

FAMILY = MarianNpz()


class TestConfig:
    def test_recognized_by_its_options(self):
        assert FAMILY.recognizes(source(Case()))
        assert not FAMILY.recognizes(source_of({"Wemb": np.zeros((2, 2))}))

    def test_the_text_of_usual_options_is_read(self):
        options = Case().options()
        assert read_flat_yaml(as_text(options).tobytes().rstrip(b"\0").decode(), "x") == options

    def test_fields(self):
        config = FAMILY.read_config(source(Case())).config
        assert (config.num_heads, config.hidden_dim, config.inner_dim) == (3, 18, 7)
        assert (config.num_encoder_layers, config.num_decoder_layers) == (2, 3)
        assert (config.eos_id, config.unk_id, config.max_length) == (0, 1, 24)
        assert (config.norm_epsilon, config.sinusoid_frequency) == (1e-6, "i/(d/2-1)")
        assert (config.output_bias, config.tied_embeddings) == ("trained", "all")

    def test_notes_say_what_was_added_and_assumed(self):
        added, length, positions = FAMILY.read_config(source(Case(), {})).notes
        assert "token 13 is added" in added
        assert "max_length is 1000" in length
        assert "--sinusoid-frequency 2i/d --norm-epsilon 1e-5" in positions
        assert len(FAMILY.read_config(source(Case(), TOP | HUGGING_FACE)).notes) == 1

    def test_dropouts_where_they_are_saved(self):
        given = source(Case(), transformer_dropout=0.3, transformer_dropout_ffn=0.2)
        config = FAMILY.read_config(given).config
        assert (config.dropout, config.activation_dropout) == (0.3, 0.2)

    def test_dropout_elsewhere_is_said(self):
        given = source(Case(), transformer_preprocess="d", transformer_postprocess="an")
        notes = FAMILY.read_config(given).notes
        says(notes, "dropout", "'d'", "'an'")

    def test_older_files_lack_options(self):
        named = ("type", "dim-vocabs", "dim-emb", "enc-depth", "dec-depth", "tied-embeddings-all",
                 "transformer-heads", "transformer-dim-ffn", "transformer-preprocess",
                 "transformer-postprocess")  # fmt: skip
        options = {name: Case().options()[name] for name in named}
        arrays = Case().arrays() | {OPTIONS: as_text(options)}
        old, new = (FAMILY.read_config(s) for s in (source(Case(), arrays=arrays), source(Case())))
        assert old.config == new.config

    def test_every_unsupported_option_is_named_at_once(self):
        wrong = {
            "transformer-ffn-depth": 3,
            "transformer-decoder-ffn-depth": 1,
            "transformer-decoder-dim-ffn": 9,
            "transformer-decoder-autoreg": "average-attention",
            "transformer-no-projection": True,
            "transformer-no-bias": True,
            "transformer-no-affine": True,
            "transformer-pool": True,
            "transformer-train-position-embeddings": True,
            "transformer-disable-position-embeddings": True,
            "transformer-attention-mask": "alibi",
            "transformer-ffn-activation": "prelu",
            "transformer-postprocess-emb": "h",
            "transformer-postprocess-top": "na",
            "transformer-tied-layers": [1, 1, 2],
            "type": "s2s",
            "right-left": True,
            "ulr": True,
            "lemma-dim-emb": 4,
            "lemma-dependency": "re-embedding",
            "factors-combine": "concat",
            "factors-dim-emb": 3,
            "special-vocab": ["a"],
            "input-types": ["sequence", "class"],
            "tied-embeddings": "perhaps",
            "transformer-postprocess": "dhn",
            "dim-vocabs": [13, 0],
            "a-new-option": 1,
        }
        with pytest.raises(UserError) as error:
            FAMILY.read_config(source(Case(), **wrong))
        assert f"{len(wrong)} faults" in str(error.value)
        for name, value in wrong.items():
            assert f"{name} is {value!r}" in str(error.value) or name in (
                "transformer-postprocess",
                "a-new-option",
            )
        assert "transformer-preprocess '' with transformer-postprocess 'dhn'" in str(error.value)
        assert "a-new-option = 1 is not known" in str(error.value)

    @pytest.mark.parametrize("name", ["dim-emb", "transformer-heads", "dim-vocabs", "type"])
    def test_options_that_must_be_there(self, name):
        with pytest.raises(UserError, match=f"{name} is (missing|None)"):
            FAMILY.read_config(source(Case(), **{name: None}))

    def test_two_sizes_of_one_table(self):
        with pytest.raises(UserError) as error:
            FAMILY.read_config(source(Case(), **{"dim-vocabs": [13, 12]}))
        assert "dim-vocabs is [13, 12], but one table serves both halves" in str(error.value)
        with pytest.raises(
            UserError, match=r"decoder_Wemb has shape \[13, 18\]; dim-vocabs says 12"
        ):
            FAMILY.read_config(source(Case(tied=()), **{"dim-vocabs": [13, 12]}))

    @pytest.mark.parametrize("name", ["Wpos", "Wtype"])
    def test_tables_without_a_place(self, name):
        arrays = Case().arrays() | {name: np.zeros((3, 18), np.float32)}
        with pytest.raises(UserError, match=f"{name}: .* no place"):
            FAMILY.read_config(source(Case(), arrays=arrays))

    def test_tables_that_do_not_fit_the_options(self):
        arrays = Case().arrays() | {OPTIONS: Case(tied=()).arrays()[OPTIONS]}
        with pytest.raises(UserError, match="encoder_Wemb is not in the file"):
            FAMILY.read_config(source(Case(), arrays=arrays))

    def test_flags_against_the_file(self):
        flags = {"num_heads": 2, "pad_id": 0, "eos_id": 2}
        with pytest.raises(UserError) as error:
            FAMILY.read_config(source(Case(), flags))
        faults_say(error.value.faults, ("num_heads", "given as 2", 3), ("pad_id", "given as 0", 13))
        assert "eos_id" not in str(error.value)

    def test_odd_widths(self):
        with pytest.raises(UserError, check=saying("dim-emb", 15, "even")):
            FAMILY.read_config(source(replace(Case(), width=15)))

    def test_options_that_are_no_text(self):
        arrays = Case().arrays() | {OPTIONS: np.zeros(3, np.float32)}
        with pytest.raises(UserError, match="is float32, not bytes of text"):
            FAMILY.read_config(source(Case(), arrays=arrays))
        arrays[OPTIONS] = np.array([200, 200], np.uint8)
        with pytest.raises(UserError, match="is not UTF-8 text"):
            FAMILY.read_config(source(Case(), arrays=arrays))
        del arrays[OPTIONS]
        with pytest.raises(UserError, match=f"has no {OPTIONS}"):
            FAMILY.read_config(source(Case(), arrays=arrays))
