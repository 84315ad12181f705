"""OpenNMT-py checkpoints: the same logits in both twins, the same translations as CTranslate2."""

from dataclasses import replace

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("jax")

from ctranslate2_apart import ask  # noqa: E402
from family_checks import (  # noqa: E402
    assert_round_trip,
    assert_same_logits,
    batch,
    import_source,
    source_of,
)
from opennmt_reference import EMBEDDING, Checkpoint, Reference  # noqa: E402

import torch_transformer  # noqa: E402
from convert.core.rules import ASIDE  # noqa: E402
from convert.families.base import Source  # noqa: E402
from convert.families.opennmt.family import OpenNMT  # noqa: E402
from torch_transformer.decoding import decode  # noqa: E402
from training_recipe.searching.search import Search  # noqa: E402
from transformer_spec import TransformerConfig, UserError  # noqa: E402

FAMILY = OpenNMT()
pytestmark = pytest.mark.usefixtures("float64")
TIED = {"share_embeddings": True, "share_decoder_embeddings": True}
CHECKPOINTS = {
    "as saved by default": Checkpoint(),
    "all tied, attention biases": Checkpoint(
        qkv_bias=True, source_words=19, options=TIED | {"pos_ffn_activation_fn": "gelu"}
    ),
    "output tied, one half after the other": Checkpoint(
        ffn_bias=False,
        options={
            "share_decoder_embeddings": True,
            "position_encoding_type": "SinusoidalConcat",
            "norm_eps": 1e-4,
        },
    ),
    "no positions, odd width": Checkpoint(
        width=15, qkv_bias=True, ffn_bias=False, options={"position_encoding": False}
    ),
    "version 2": Checkpoint(qkv_bias=True, legacy_norms=True, generator="generator.0"),
}


def given(checkpoint: Checkpoint, **changes) -> Source:
    """A checkpoint as a source; without positions nothing in it shows the longest sequence."""
    options = checkpoint.opt()
    flags = {} if options["position_encoding"] else {"max_length": 30}
    settings = checkpoint.settings()
    if checkpoint.legacy_norms:
        for name in ("add_qkvbias", "add_ffnbias", "norm_eps", "attention_dropout"):
            del settings[name]
    return replace(source_of(checkpoint.state(), settings, flags), **changes)


def assert_imports(checkpoint: Checkpoint, source: Source) -> TransformerConfig:
    assert FAMILY.recognizes(source)
    config, canonical = import_source(FAMILY, source)
    source_ids, target_ids = batch(config)
    expected = Reference(checkpoint).logits(
        torch.from_numpy(source_ids), torch.from_numpy(target_ids)
    )
    assert_same_logits(FAMILY, config, canonical, source_ids, target_ids, expected.numpy())
    assert_round_trip(FAMILY, source)
    return config


@pytest.mark.parametrize("checkpoint", CHECKPOINTS.values(), ids=CHECKPOINTS)
def test_same_logits_and_bytes_there_and_back(checkpoint):
    config = assert_imports(checkpoint, given(checkpoint))
    assert (config.num_encoder_layers, config.num_decoder_layers) == (3, 2)
    assert (config.unk_id, config.pad_id, config.bos_id, config.eos_id) == (0, 1, 2, 3)
    assert config.max_length == (50 if checkpoint.opt()["position_encoding"] else 30)
    assert config.final_norm and config.norm_position == "pre"


def test_the_default_epsilon_is_that_of_opennmt():
    assert FAMILY.read_config(given(CHECKPOINTS["version 2"])).config.norm_epsilon == 1e-6


def test_one_table_for_words_alone_is_one_here():
    """Source and target share a table and the output has its own."""
    checkpoint = Checkpoint(source_words=19, options={"share_embeddings": True})
    source = given(checkpoint)
    assert assert_imports(checkpoint, source).tied_embeddings == "source_target"
    notes = FAMILY.read_config(source).notes
    assert not any("share_embeddings" in note for note in notes)


def test_tables_that_should_be_tied_and_differ_are_refused():
    checkpoint = CHECKPOINTS["all tied, attention biases"]
    state = checkpoint.state() | {"generator.weight": torch.ones(19, 18)}
    with pytest.raises(UserError, match=r"generator.weight: .*tied.* differ"):
        import_source(FAMILY, given(checkpoint, tensors=source_of(state).tensors))


def test_a_tied_output_that_is_not_stored():
    checkpoint = CHECKPOINTS["all tied, attention biases"]
    state = checkpoint.state()
    del state["generator.weight"]
    assert_imports(checkpoint, given(checkpoint, tensors=source_of(state).tensors))


def test_buffers_of_positions_are_kept_aside():
    _, canonical = import_source(FAMILY, given(Checkpoint()))
    aside = [name for name in canonical if name.startswith(ASIDE)]
    assert aside == [f"{ASIDE}{half}.{EMBEDDING}.pe.pe" for half in ("encoder", "decoder")]


def test_dropout_is_that_of_the_first_step():
    options = {"dropout": [0.3, 0.1], "attention_dropout": [0.2], "dropout_steps": [0, 9]}
    reading = FAMILY.read_config(given(Checkpoint(options=options)))
    config = reading.config
    rates = (config.dropout, config.attention_dropout, config.activation_dropout)
    assert rates == (0.3, 0.2, 0.3)
    assert "dropout [0.3, 0.1] changes during training" in " ".join(reading.notes)
    assert "dropout_steps [0, 9]" in " ".join(reading.notes)


# How much likelier </s> is made, so that some of the sentences end before the limit.
EOS_BIASES = {
    "as saved by default": 4.0,
    "all tied, attention biases": 6.0,
    "output tied, one half after the other": 2.5,
    "version 2": 3.5,
}


def judged_by_ctranslate2(name: str) -> Checkpoint:
    """CTranslate2 does not read norm_eps and takes 1e-5 whatever it says: it is set to that."""
    checkpoint = CHECKPOINTS[name]
    options = checkpoint.options | {"norm_eps": 1e-5}
    return replace(checkpoint, options=options, eos_bias=EOS_BIASES[name])


SENTENCES = [[7, 5, 11, 6], [9], [4, 13, 13], [16, 4, 8, 8, 5, 12], [6, 14], [10, 9, 5, 15, 15]]
LONGEST = 12


@pytest.fixture
def translator(request, tmp_path):
    """A checkpoint, and the folder of CTranslate2's own conversion of its file."""
    checkpoint = judged_by_ctranslate2(request.param)
    torch.save(checkpoint.saved(), tmp_path / "model.pt")
    folder = str(tmp_path / "converted")
    ask("convert_opennmt", str(tmp_path / "model.pt"), folder)
    return checkpoint, folder


def torch_twin(checkpoint: Checkpoint):
    """Our model in float32."""
    settings = given(checkpoint).settings | {"norm_eps": 1e-5}
    config, canonical = import_source(FAMILY, given(checkpoint, settings=settings))
    model = torch_transformer.Transformer(config)
    weights = {n: a for n, a in canonical.items() if not n.startswith(ASIDE)}
    torch_transformer.load_weights(model, weights)
    return model


def padded(rows: list[list[int]]) -> np.ndarray:
    """(B, longest) with padding 1."""
    width = max(map(len, rows))
    return np.array([row + [1] * (width - len(row)) for row in rows])


@pytest.mark.parametrize("translator", EOS_BIASES, indirect=True)
def test_ctranslate2_finds_the_same_translations_and_scores(translator):
    checkpoint, folder = translator
    words = checkpoint.vocab()
    sentences = [[words["src"][i] for i in row] for row in SENTENCES]
    hypotheses = decode(torch_twin(checkpoint), padded(SENTENCES), Search(max_length=LONGEST))
    ours = [[words["tgt"][i] for i in best.ids] for (best,) in hypotheses]
    found = ask(
        "translate",
        folder,
        sentences,
        beam_size=1,
        max_decoding_length=LONGEST,
        min_decoding_length=0,
        suppress_sequences=[["<blank>"], ["<s>"]],
    )
    assert found == ours
    assert len({len(tokens) == LONGEST for tokens in ours}) == 2
    scored = ask("score", folder, sentences, ours)
    for (best,), tokens, judged in zip(hypotheses, ours, scored, strict=True):
        count = len(tokens) + (len(tokens) < LONGEST)
        assert abs(best.log_probability - sum(judged[:count])) <= count * 2e-5


@pytest.mark.parametrize("translator", ["all tied, attention biases"], indirect=True)
def test_ctranslate2_gives_every_token_the_same_probability(translator):
    checkpoint, folder = translator
    words, model = checkpoint.vocab(), torch_twin(checkpoint)
    targets = [[5, 9], [4], [11, 17, 17, 6], [8, 0, 12], [10], [6, 6, 6]]
    judged = ask(
        "score",
        folder,
        [[words["src"][i] for i in row] for row in SENTENCES],
        [[words["tgt"][i] for i in row] for row in targets],
    )
    source = torch.from_numpy(padded(SENTENCES))
    target = torch.from_numpy(padded([[2, *row] for row in targets]))
    with torch.no_grad():
        log_p = torch.log_softmax(model(source, target), -1)
    for row, (tokens, scores) in enumerate(zip(targets, judged, strict=True)):
        mine = [float(log_p[row, i, token]) for i, token in enumerate([*tokens, 3])]
        assert np.abs(np.array(mine) - scores).max() <= 2e-5
