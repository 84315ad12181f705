"""Vocabularies that were trained here as the tokenizer of a Marian folder."""

import json

import numpy as np
import pytest
from folders_of_hub import sentences
from messages import says
from safetensors.numpy import save_file

from convert.conversion import ConversionRequest, convert
from convert.conversion.opening import open_model
from training_recipe.searching.search import Search
from training_recipe.text.vocabulary import build_vocabulary
from transformer_spec import TransformerConfig, initial_weights

pytest.importorskip("transformers")
pytestmark = pytest.mark.filterwarnings("ignore:Recommended. pip install sacremoses")
SHAPE = {
    "hidden_dim": 16, "inner_dim": 24, "num_heads": 4, "num_encoder_layers": 1,
    "num_decoder_layers": 1, "max_length": 64, "final_norm": False, "activation": "silu",
    "sinusoid_layout": "concatenated", "output_bias": "none",
}  # fmt: skip


def write_model(folder, pair, **config):
    """A folder of ours that a Marian can hold."""
    sizes = {"source_vocab_size": pair[0].size, "target_vocab_size": pair[1].size}
    made = TransformerConfig(**SHAPE, **sizes, **config)
    (folder / "vocabulary").mkdir(parents=True)
    for side, vocabulary in zip(("source", "target"), pair, strict=True):
        vocabulary.save(folder / "vocabulary", side)
    made.save(folder / "config.json")
    (folder / "settings.json").write_text(
        json.dumps({"settings": {"source_lang": "en", "target_lang": "de"}})
    )
    save_file(initial_weights(made, 3), folder / "model.safetensors")
    return folder


def pieces(texts, size=300, algorithm="unigram"):
    return build_vocabulary("sentencepiece", texts, size, algorithm=algorithm)


@pytest.fixture(scope="module", params=["shared", "separate"])
def folders(request, tmp_path_factory):
    """A folder of ours and what is written of it for the library."""
    english, german = (sentences("train", language)[:800] for language in ("en", "de"))
    if request.param == "shared":
        pair, tied = (pieces(english + german),) * 2, "all"
    else:
        pair, tied = (pieces(english), pieces(german, 250, "bpe")), "target_output"
    place = tmp_path_factory.mktemp(request.param)
    folder = write_model(place / "mine", pair, tied_embeddings=tied)
    convert(ConversionRequest(folder, place / "marian", to="marian"))
    return folder, place / "marian"


def test_the_library_has_our_ids(folders) -> None:
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(folders[1])
    assert type(tokenizer).__name__ == "MarianTokenizer"
    assert (tokenizer.source_lang, tokenizer.target_lang) == ("en", "de")
    source, target = open_model(folders[0]).text()
    assert len(tokenizer) == source.size
    english = [*sentences("test_2016_flickr", "en")[:150], "", "  ½ of a   Ω ☃ café\t", "A\u00adB"]
    german = sentences("test_2016_flickr", "de")[:150]
    ids = tokenizer(english).input_ids
    assert ids == [[*source.encode(text), source.eos_id] for text in english]
    wanted = tokenizer(text_target=german).input_ids
    assert wanted == [[*target.encode(text), target.eos_id] for text in german]
    known = [ids for ids in wanted if target.unk_id not in ids]  # which the library leaves out
    texts = tokenizer.batch_decode(known, skip_special_tokens=True)
    assert len(known) > 100 and texts == [target.decode(ids) for ids in known]


def test_it_comes_back_with_the_same_ids_and_weights(folders) -> None:
    mine, marian = (open_model(folder) for folder in folders)
    for one, other in zip(mine.text(), marian.text(), strict=True):
        for text in sentences("val", "de")[:50]:
            assert one.encode(text) == other.encode(text)
    weights, again = mine.weights(), marian.weights()
    assert weights.keys() <= again.keys()
    assert all(np.array_equal(again[name], array) for name, array in weights.items())


def test_generate_does_what_our_search_does(folders) -> None:
    import torch
    from transformers import AutoModelForSeq2SeqLM, AutoTokenizer

    import torch_transformer
    from torch_transformer.decoding import decode

    opened = open_model(folders[0])
    ours = torch_transformer.Transformer(opened.config, seed=0)
    torch_transformer.load_weights(ours, opened.weights())
    theirs = AutoModelForSeq2SeqLM.from_pretrained(folders[1]).double().eval()
    settings = theirs.generation_config
    assert (settings.num_beams, settings.max_length) == (5, 65)
    texts = sentences("val", "en")[:4]
    batch = AutoTokenizer.from_pretrained(folders[1])(texts, padding=True, return_tensors="pt")
    for beam in (1, 5):
        with torch.no_grad():
            found = theirs.generate(**batch, num_beams=beam, max_length=16).tolist()
        source = batch.input_ids.numpy().astype(np.int32)
        wanted = decode(ours.double().eval(), source, Search(beam, max_length=15))
        special = (opened.config.pad_id, opened.config.eos_id)
        plain = [[token for token in row[1:] if token not in special] for row in found]
        assert plain == [row[0].ids for row in wanted]


def test_characters_are_no_tokenizer_of_the_library(tmp_path) -> None:
    vocabulary = build_vocabulary("characters", ["a man runs"])
    folder = write_model(tmp_path / "mine", (vocabulary, vocabulary), tied_embeddings="all")
    done = convert(ConversionRequest(folder, tmp_path / "marian", to="marian"))
    says(done.notes, "no tokenizer", "characters", "sentencepiece")
    names = {path.name for path in (tmp_path / "marian").iterdir()}
    wanted = {"config.json", "conversion.json", "generation_config.json", "model.safetensors"}
    assert names == wanted


def test_other_families_and_models_without_text_say_why(tmp_path) -> None:
    vocabulary = build_vocabulary("characters", ["a man runs"])
    bart = {"encoder_positions": "learned", "decoder_positions": "learned", "position_offset": 2}
    shape = SHAPE | {"activation": "gelu", "sinusoid_layout": "interleaved"}
    config = TransformerConfig(
        **shape, **bart, source_vocab_size=vocabulary.size, target_vocab_size=vocabulary.size,
        tied_embeddings="all", embedding_norm=True, pad_id=0, embedding_scale=1.0,
    )  # fmt: skip
    folder = write_model(tmp_path / "mine", (vocabulary, vocabulary), tied_embeddings="all")
    config.save(folder / "config.json")
    save_file(initial_weights(config, 3), folder / "model.safetensors")
    done = convert(ConversionRequest(folder, tmp_path / "bart", to="bart"))
    says(done.notes, "no tokenizer", "marian alone")
    assert (tmp_path / "bart/generation_config.json").is_file()
