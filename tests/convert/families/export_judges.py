"""For each family that is written: a model that it holds, and code that is not ours to compute it.

A judge reads nothing but the folder that was written: the tensors under their names, and the
settings beside them.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import t5x_cases
import torch
import tutorial_reference
import whisper_cases
from flax_cases import torch_name
from huggingface_cases import library_logits, loaded, our_config
from t5_cases import CLASSES as T5_CLASSES
from t5_cases import our_t5, t5_logits, torch_arrays
from torch import nn
from transformers import (
    BartForConditionalGeneration,
    BlenderbotForConditionalGeneration,
    BlenderbotSmallForConditionalGeneration,
    FSMTForConditionalGeneration,
    M2M100ForConditionalGeneration,
    MarianMTModel,
    MBartForConditionalGeneration,
    PegasusForConditionalGeneration,
    PLBartForConditionalGeneration,
    WhisperForConditionalGeneration,
)

from convert.checkpoints.reading import open_content
from convert.families.registry import FAMILIES
from convert.families.t5x.config import SEMANTICS as T5X_FIELDS
from convert.families.tutorial import SEMANTICS
from convert.formats.gin import read_gin
from transformer_spec import TransformerConfig

Ids = tuple[np.ndarray, np.ndarray]
CLASSES: dict[str, Any] = {
    "marian": MarianMTModel,
    "bart": BartForConditionalGeneration,
    "mbart": MBartForConditionalGeneration,
    "m2m100": M2M100ForConditionalGeneration,
    "plbart": PLBartForConditionalGeneration,
    "pegasus": PegasusForConditionalGeneration,
    "blenderbot": BlenderbotForConditionalGeneration,
    "blenderbot-small": BlenderbotSmallForConditionalGeneration,
    "fsmt": FSMTForConditionalGeneration,
}


class Judge(NamedTuple):
    """A config that the family holds, and (folder, its config, ids) -> logits (B, T, V)."""

    held: TransformerConfig
    logits: Callable[[Path, TransformerConfig, Ids], np.ndarray]


def written(folder: Path) -> dict[str, np.ndarray]:
    return open_content(folder).tensors.read_all()


def library(model_class: Any, folder: Path, config: TransformerConfig, ids: Ids) -> np.ndarray:
    settings = json.loads((folder / "config.json").read_text())
    return library_logits(_loaded(model_class, written(folder), settings, folder), *ids)


def of_flax_names(model_class: Any, folder: Path, _: TransformerConfig, ids: Ids) -> np.ndarray:
    """The PyTorch class with what Flax modules hold: one table for both halves."""
    arrays = dict(torch_name(name, array) for name, array in written(folder).items())
    for half in ("encoder", "decoder"):
        arrays[f"model.{half}.embed_tokens.weight"] = arrays["model.shared.weight"].copy()
    settings = json.loads((folder / "config.json").read_text())
    if settings["tie_word_embeddings"]:
        arrays = {name: array for name, array in arrays.items() if "embed_tokens" not in name}
    return library_logits(_loaded(model_class, arrays, settings, folder), *ids)


def _loaded(model_class: Any, arrays: dict, settings: dict, folder: Path) -> Any:
    return loaded(model_class, arrays, settings, folder.parent / f"{folder.name}-library")


def t5_folder(folder: Path, config: TransformerConfig, ids: Ids) -> np.ndarray:
    """The PyTorch class with norms in float64; of Flax names, what they stand for."""
    settings = json.loads((folder / "config.json").read_text())
    model_class = T5_CLASSES[settings["model_type"]][1]
    model = _loaded(model_class, torch_arrays(written(folder)), settings, folder)
    return t5_logits(model, *ids, output_scale=config.output_scale)


def tutorial(folder: Path, config: TransformerConfig, ids: Ids) -> np.ndarray:
    names = tutorial_reference.Sizes.__dataclass_fields__
    sizes = tutorial_reference.Sizes(**{name: getattr(config, name) for name in names})
    return tutorial_reference.logits(written(folder), sizes, *ids)


def torch_nn(folder: Path, _: TransformerConfig, ids: Ids) -> np.ndarray:
    """nn.Transformer with the arguments that config.json gives, in the module it describes."""
    settings = json.loads((folder / "config.json").read_text())
    module = Described(settings["torch.nn.Transformer"], settings["wrapper"]).double().eval()
    module.load_state_dict({n: torch.from_numpy(a) for n, a in written(folder).items()})
    with torch.no_grad():
        return module(*map(torch.from_numpy, ids)).numpy()


class Described(nn.Module):
    """What config.json of a written torch.nn.Transformer asks for, under the usual names."""

    def __init__(self, arguments: dict[str, Any], around: dict[str, Any]) -> None:
        super().__init__()
        self.around, D = around, arguments["d_model"]
        activation = arguments["activation"]
        if activation not in ("relu", "gelu"):
            arguments = arguments | {
                "activation": eval(activation, {"torch": torch, "functools": functools})
            }
        self.transformer = nn.Transformer(**arguments)
        if not around["final_norm"]:
            self.transformer.encoder.norm = self.transformer.decoder.norm = None
        self.src_emb = nn.Embedding(around["source_vocab_size"], D)
        self.tgt_emb = nn.Embedding(around["target_vocab_size"], D)
        bias = around["output_bias"] != "none"
        self.generator = nn.Linear(D, around["target_vocab_size"], bias=bias)
        rows = around["max_length"] + around["position_offset"]
        for side, half in (("src", "encoder"), ("tgt", "decoder")):
            if around[f"{half}_positions"].startswith(("learned", "frozen")):
                setattr(self, f"{side}_pos", nn.Embedding(rows, D))
            if around["embedding_norm"]:
                eps, biases = arguments["layer_norm_eps"], arguments["bias"]
                setattr(self, f"{side}_norm", nn.LayerNorm(D, eps=eps, bias=biases))
        if around["tied_embeddings"] in ("all", "source_target"):
            self.tgt_emb.weight = self.src_emb.weight
        if around["tied_embeddings"] in ("all", "target_output"):
            self.generator.weight = self.tgt_emb.weight

    def embed(self, tokens: torch.Tensor, side: str, half: str) -> torch.Tensor:
        """(B, L) -> (B, L, D)"""
        real = (tokens != self.around["pad_id"]).long()
        places = torch.arange(tokens.shape[1]).expand(tokens.shape)
        if self.around["positions_skip_padding"]:
            places = (real.cumsum(1) - 1) * real
        places = places + self.around["position_offset"]
        x = getattr(self, f"{side}_emb")(tokens) * self.around["embedding_scale"]
        if self.around[f"{half}_positions"] in ("learned", "frozen"):
            x = x + getattr(self, f"{side}_pos")(places)
        elif self.around[f"{half}_positions"] == "sinusoidal":
            x = x + self.sinusoids(places, x.shape[-1])
        x = getattr(self, f"{side}_norm")(x) if self.around["embedding_norm"] else x
        late = self.around[f"{half}_positions"] == "learned_after_norm"
        return x + getattr(self, f"{side}_pos")(places) if late else x

    def sinusoids(self, places: torch.Tensor, D: int) -> torch.Tensor:
        """2i/d: an odd width has one sine more; i/(d/2-1): it has a column of zeros at the end."""
        paper = self.around["sinusoid_frequency"] == "2i/d"
        i = torch.arange(D - D // 2 if paper else D // 2, dtype=torch.float64)
        angles = places[..., None] * 10000 ** -(2 * i / D if paper else i / (D // 2 - 1))
        sines, cosines = angles.sin(), angles.cos()
        if self.around["sinusoid_layout"] == "interleaved":
            table = torch.stack([sines, cosines], -1).flatten(-2)
        else:
            table = torch.cat([sines, cosines[..., : D // 2]], -1)
        return nn.functional.pad(table, (0, max(0, D - table.shape[-1])))[..., :D]

    def forward(self, source: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        """(B, S), (B, T) -> (B, T, V)"""
        pad = self.around["pad_id"]
        ahead = torch.ones(target.shape[1], target.shape[1], dtype=torch.bool).triu(1)
        states = self.transformer(
            self.embed(source, "src", "encoder"),
            self.embed(target, "tgt", "decoder"),
            tgt_mask=ahead,
            src_key_padding_mask=source == pad,
            tgt_key_padding_mask=target == pad,
            memory_key_padding_mask=source == pad,
        )
        return self.generator(states)


def t5x(folder: Path, config: TransformerConfig, ids: Ids) -> np.ndarray:
    """T5X's formulas on its arrays, with what its gin file says of them."""
    (place,) = folder.glob("checkpoint_*")
    arrays, told = t5x_cases.stored(place), read_gin(folder / "config.gin")
    case = t5x_cases.Case(
        activations=told["network.T5Config.mlp_activations"],
        heads_apart=config.relative_per_layer,
        per_layer=config.relative_per_layer,
        own_tables="token_embedder.embedding" not in arrays,
        own_output=not told["network.T5Config.logits_via_embedding"],
    )
    biases = "relative_position_biases.RelativePositionBiases"
    return t5x_cases.logits(arrays, case, *ids, told.get(f"{biases}.max_distance", 128))


def whisper(folder: Path, _: TransformerConfig, given: Ids) -> np.ndarray:
    """The PyTorch class; of Flax names and of OpenAI's, with what they stand for."""
    arrays, place = written(folder), folder / "config.json"
    if place.is_file():
        settings = json.loads(place.read_text())
        if any(name.endswith(".kernel") for name in arrays):
            arrays = dict(whisper_cases.torch_name(name, array) for name, array in arrays.items())
    else:
        dims = torch.load(folder / "model.pt", weights_only=True)["dims"]
        ids = dict.fromkeys(("pad_token_id", "bos_token_id", "eos_token_id"), 0)
        settings = {"model_type": "whisper", **ids, **whisper_cases.settings_of_dims(dims)}
        arrays = {whisper_cases.from_openai(name): array for name, array in arrays.items()}
    model = _loaded(WhisperForConditionalGeneration, arrays, settings, folder)
    return whisper_cases.library_logits(model, *given)


def _judges() -> dict[str, Judge]:
    judges = {}
    for name, model_class in CLASSES.items():
        held = our_config(FAMILIES[name], tied_embeddings="all", pad_id=1)
        judges[name] = Judge(held, functools.partial(library, model_class))
        if f"{name}-flax" in FAMILIES:
            judges[f"{name}-flax"] = Judge(held, functools.partial(of_flax_names, model_class))
    for name in T5_CLASSES:
        judges[name] = Judge(our_t5(name), t5_folder)
        if f"{name}-flax" in FAMILIES:
            judges[f"{name}-flax"] = Judge(our_t5(name), t5_folder)
    plain = our_config(FAMILIES["marian"], pad_id=0)
    judges["tutorial"] = Judge(replace(plain, **SEMANTICS), tutorial)
    judges["torch-nn"] = Judge(replace(plain, final_norm=True, output_bias="trained"), torch_nn)
    sizes = {"source_vocab_size": 29, "target_vocab_size": 29, "hidden_dim": 15, "inner_dim": 7}
    layers = {"num_heads": 3, "num_encoder_layers": 2, "num_decoder_layers": 1, "max_length": 13}
    kept = {"relative_buckets": 8, "relative_max_distance": 6, "gated_ffn": True}
    kept |= {"activation": "gelu_tanh", "tied_embeddings": "source_target", "head_dim": 4}
    kept |= {"bos_id": 0}
    judges["t5x"] = Judge(TransformerConfig(**sizes, **layers, **T5X_FIELDS, **kept), t5x)
    sounds = {"feature_dim": 5, "max_source_length": 7, "source_vocab_size": 0}
    sounds |= {"hidden_dim": 12, "inner_dim": 48}
    heard = our_config(FAMILIES["whisper"], tied_embeddings="target_output", pad_id=1, **sounds)
    heard = replace(heard, activation="gelu", dropout=0.0)
    names = ("whisper", "whisper-flax", "whisper-openai")
    return judges | {name: Judge(heard, whisper) for name in names}


JUDGES = _judges()
