"""BART, mBART and transformers with sinusoids of fairseq, written for transformers' classes."""

import json
from argparse import Namespace

import numpy as np
import pytest

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

from convert_cases import convert  # noqa: E402
from fairseq_cases import bart, logits_of, mbart, settings_of, state_of, vaswani  # noqa: E402
from family_checks import batch  # noqa: E402
from family_table import LOGIT_BOUND, assert_measured  # noqa: E402
from huggingface_cases import library_logits, loaded  # noqa: E402

from convert.formats.safetensors import open_safetensors  # noqa: E402
from transformer_spec import TransformerConfig  # noqa: E402

pytestmark = pytest.mark.usefixtures("float64")
MODELS = {
    "bart": (bart, transformers.BartForConditionalGeneration),
    "mbart": (mbart, transformers.MBartForConditionalGeneration),
}


def written(model, folder, name: str, sinusoidal: bool = False, *flags: str):
    """The folder that the command writes of a fairseq checkpoint of a model."""
    state = {n: torch.from_numpy(a) for n, a in state_of(model, sinusoidal).items()}
    arch = {"arch": "transformer_wmt_en_de" if sinusoidal else f"{name}_large"}
    more = {"encoder_learned_pos": not sinusoidal, "decoder_learned_pos": not sinusoidal}
    more |= {"layernorm_embedding": not sinusoidal} | arch
    settings = Namespace(**settings_of(model, **more))
    torch.save({"model": state, "args": settings}, folder / f"{name}.fairseq.pt")
    convert(folder / f"{name}.fairseq.pt", folder / name, "--to", name, *flags)
    return folder / name


def in_library(model_class, folder):
    """What the library loads, its numbers in float64."""
    settings = json.loads((folder / "config.json").read_text())
    arrays = open_safetensors(folder / "model.safetensors").read_all()
    return loaded(model_class, arrays, settings, folder / "again")


def ids_of(model):
    config = model.config
    sizes = dict(source_vocab_size=config.vocab_size, target_vocab_size=config.vocab_size,
                 hidden_dim=4, inner_dim=4, num_heads=1, num_encoder_layers=1, num_decoder_layers=1,
                 max_length=16, pad_id=1)  # fmt: skip
    source, target = batch(TransformerConfig(**sizes))
    target[:, 0] = config.decoder_start_token_id
    return source, target


def difference(one: np.ndarray, other: np.ndarray, target: np.ndarray) -> float:
    return float(np.abs(one - other)[target != 1].max())


@pytest.mark.parametrize("name", MODELS)
def test_a_model_of_fairseq_in_the_class_of_transformers(name, tmp_path, capsys):
    make, model_class = MODELS[name]
    model = make()
    folder = written(model, tmp_path, name)
    assert "positions are counted over every token" in capsys.readouterr().out
    ids = ids_of(model)
    again = in_library(model_class, folder)
    found = difference(library_logits(again, *ids), logits_of(model, *ids), ids[1])
    assert_measured("fairseq", "out", found)
    convert(folder, tmp_path / "back", "--to", "torch")
    assert not TransformerConfig.load(tmp_path / "back/config.json").positions_skip_padding


def test_our_own_model_keeps_the_positions_of_fairseq(tmp_path, capsys):
    written(bart(), tmp_path, "bart")
    capsys.readouterr()
    convert(tmp_path / "bart.fairseq.pt", tmp_path / "ours", "--to", "torch")
    assert "positions are counted" not in capsys.readouterr().out
    assert TransformerConfig.load(tmp_path / "ours/config.json").positions_skip_padding


def test_sinusoids_of_fairseq_in_fsmt(tmp_path):
    model = vaswani()
    folder = written(model, tmp_path, "fsmt", True)
    again = in_library(transformers.FSMTForConditionalGeneration, folder)
    ids = ids_of(model)
    found = difference(library_logits(again, *ids), logits_of(model, *ids), ids[1])
    assert found <= LOGIT_BOUND
    assert_measured("fairseq", "out", found)


def test_plain_positions_where_they_are_asked_for(tmp_path, capsys):
    """The flag says it of our own model too, and then nothing is left to be said of the target."""
    model = bart()
    folder = written(model, tmp_path, "bart", False, "--no-positions-skip-padding")
    said = capsys.readouterr().out
    assert "positions_skip_padding is False by your word" in said
    assert said.count("pad on the right") == 1
    ids = ids_of(model)
    again = in_library(transformers.BartForConditionalGeneration, folder)
    assert difference(library_logits(again, *ids), logits_of(model, *ids), ids[1]) <= LOGIT_BOUND
    flags = ("--to", "torch", "--no-positions-skip-padding")
    convert(tmp_path / "bart.fairseq.pt", tmp_path / "ours", *flags)
    assert not TransformerConfig.load(tmp_path / "ours/config.json").positions_skip_padding
