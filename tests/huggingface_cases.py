"""Random models of Hugging Face transformers, saved by the library itself, and their logits.

The library computes its sinusoids in float32 whatever the model's format is; here the same code
runs in float64, so that the comparison sees the formula and not its rounding.
"""

import contextlib
import json
from pathlib import Path
from unittest import mock

import numpy as np
import pytest
import torch
import transformers
from family_checks import (
    assert_round_trip,
    assert_same_logits,
    batch,
    export_source,
    import_source,
    twin_logits,
)
from family_table import LOGIT_BOUND
from safetensors.numpy import save_file

from convert.core.tensors import Held
from convert.families.base import Source
from convert.formats.safetensors import open_safetensors
from transformer_spec import TransformerConfig, UserError, initial_weights, weight_shapes

transformers.logging.set_verbosity_error()
transformers.logging.disable_progress_bar()

SINUSOIDAL = ("Marian", "Pegasus", "FSMT")  # classes that keep their sinusoids as parameters
STORED = ("PegasusForConditionalGeneration", "FSMTForConditionalGeneration")

# three heads of five, no two sizes alike
TINY = {
    "vocab_size": 29,
    "d_model": 15,
    "encoder_layers": 1,
    "decoder_layers": 2,
    "encoder_attention_heads": 3,
    "decoder_attention_heads": 3,
    "encoder_ffn_dim": 7,
    "decoder_ffn_dim": 7,
    "max_position_embeddings": 13,
    "scale_embedding": True,
    "pad_token_id": 1,
    "eos_token_id": 2,
    "bos_token_id": 0,
    "decoder_start_token_id": 2,
}
# The same, as fields of ours.
OURS = {
    "source_vocab_size": 29,
    "target_vocab_size": 29,
    "hidden_dim": 15,
    "inner_dim": 7,
    "num_heads": 3,
    "num_encoder_layers": 2,
    "num_decoder_layers": 1,
    "max_length": 13,
}


@contextlib.contextmanager
def in_float64():
    """New modules, and the library's sinusoids, in float64."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    with (
        mock.patch.object(torch, "FloatTensor", torch.DoubleTensor),
        mock.patch.object(torch.Tensor, "float", torch.Tensor.double),
    ):
        yield
    torch.set_default_dtype(before)


def random_model(model_class, config, seed: int = 0):
    """A float64 model with every number random: weights, biases, norms, output bias."""
    with in_float64():
        model = model_class(config).eval()
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, tensor in model.state_dict().items():
            if "embed_positions" in name and model_class.__name__.startswith(SINUSOIDAL):
                continue
            tensor.normal_(0, 0.3, generator=generator)
            if "norm" in name and name.endswith("weight"):
                tensor.add_(1)
    return with_decoder_scale(model)


def with_decoder_scale(model):
    """Blenderbot-small as in transformers 4: 5 leaves the decoder's own ``embed_scale`` unused."""
    if type(model).__name__.startswith("BlenderbotSmall"):
        decoder = model.model.decoder
        assert decoder.embed_tokens is not model.model.encoder.embed_tokens
        decoder.embed_tokens.register_forward_hook(lambda *call: call[2] * decoder.embed_scale)
    return model


def saved(model, folder: Path, flags=None) -> Source:
    """What save_pretrained wrote, as the converter sees it."""
    model.save_pretrained(folder)
    return source_at(folder, flags)


def source_at(folder: Path, flags=None) -> Source:
    settings = json.loads((folder / "config.json").read_text())
    return Source(open_safetensors(folder / "model.safetensors"), settings, flags or {})


def with_tensors(source: Source, **changes) -> Source:
    """Tensors of a source replaced, added, or left out (None); dots in names are ``__``."""
    arrays = source.tensors.read_all()
    for name, array in changes.items():
        arrays[name.replace("__", ".")] = array
    return Source(
        Held({n: a for n, a in arrays.items() if a is not None}), source.settings, source.flags
    )


def with_settings(source: Source, **changes) -> Source:
    return Source(source.tensors, {**(source.settings or {}), **changes}, source.flags)


def ids_of(config: TransformerConfig) -> tuple[np.ndarray, np.ndarray]:
    """(source, target) ids; the target begins as decoding does."""
    source, target = batch(config)
    target[:, 0] = config.decoder_start_id
    return source, target


def library_logits(model, source: np.ndarray, target: np.ndarray) -> np.ndarray:
    """The library's own logits, padding masked and the first target token seen."""
    pad = model.config.pad_token_id
    seen = target != pad
    seen[:, 0] = True
    with torch.no_grad(), in_float64():
        return model(
            input_ids=torch.from_numpy(source),
            attention_mask=torch.from_numpy(source != pad).long(),
            decoder_input_ids=torch.from_numpy(target),
            decoder_attention_mask=torch.from_numpy(seen).long(),
            use_cache=False,  # FSMT makes no mask at all with a cache
        ).logits.numpy()


def assert_imported(family, model, source: Source) -> TransformerConfig:
    """Same logits as the library's model, the first position included; the way back exact."""
    config, canonical = import_source(family, source)
    ids = ids_of(config)
    expected = library_logits(model, *ids)
    assert_same_logits(family, config, canonical, *ids, expected)
    for logits in twin_logits(config, canonical, *ids):
        assert np.abs(logits - expected)[:, 0].max() <= LOGIT_BOUND
    assert_round_trip(family, source)
    return config


def our_weights(config: TransformerConfig, seed: int = 0) -> dict[str, np.ndarray]:
    """A model of ours with every number random."""
    draw = np.random.default_rng(seed)
    return {
        name: value + draw.normal(0, 0.2, value.shape)
        for name, value in initial_weights(config, seed, np.float64).items()
    }


def exported(family, model_class, config: TransformerConfig, weights, folder: Path):
    """A model of ours written for the library and loaded by it."""
    arrays = export_source(family, config, weights)
    return loaded(model_class, arrays, family.write_settings(config, None), folder)


def loaded(model_class, arrays: dict[str, np.ndarray], settings: dict, folder: Path):
    """Arrays and settings as a model of the library, nothing missing or left over."""
    folder.mkdir(exist_ok=True)
    save_file(
        {name: np.ascontiguousarray(array) for name, array in arrays.items()},
        folder / "model.safetensors",
        {"format": "pt"},
    )
    (folder / "config.json").write_text(json.dumps(settings))
    with in_float64():
        model, report = model_class.from_pretrained(
            folder, dtype=torch.float64, output_loading_info=True
        )
    if model_class.__name__ in STORED:
        if not any("embed_positions" in name for name in arrays):  # as in Flax: computed anew
            tables = {key for key in report["missing_keys"] if "embed_positions" in key}
            report["missing_keys"] = set(report["missing_keys"]) - tables
        use_float64_sinusoids(model)
    assert not any(report.values()), report
    return with_decoder_scale(model.eval())


def use_float64_sinusoids(model) -> None:
    """Files hold sinusoids in float32; the library's own code gives them in float64."""
    with torch.no_grad(), in_float64():
        for half in (model.model.encoder, model.model.decoder):
            table = half.embed_positions
            if hasattr(table, "create_weight"):
                exact = table.create_weight()
            else:
                exact = table.get_embedding(*table.weight.shape, table.padding_idx)
            assert (table.weight - exact).abs().max() < 1e-7
            table.weight.copy_(exact)


def assert_exported(family, model_class, config: TransformerConfig, folder: Path) -> None:
    """The library's logits of a model of ours are ours; what it saves again is what we wrote."""
    weights = our_weights(config)
    model = exported(family, model_class, config, weights, folder / "ours")
    ids = ids_of(config)
    assert_same_logits(family, config, weights, *ids, library_logits(model, *ids), "out")
    again = saved(model, folder / "again")
    assert shapes(again.tensors) == shapes(family.written(config).tensors)
    back, arrays = import_source(family, again)
    for name in weight_shapes(config):
        assert np.array_equal(arrays[name], weights[name]), name
    if config.output_bias == "none" and family.output_bias:
        assert not arrays["decoder.finalFc.bias"].any()
    free = ("unk_id", "output_bias")
    assert {**back.to_dict(), **{name: None for name in free}} == {
        **config.to_dict(),
        **{name: None for name in free},
    }


def shapes(tensors) -> dict[str, tuple[int, ...]]:
    return {name: tuple(header.shape) for name, header in tensors.items()}


def our_config(family, **changes) -> TransformerConfig:
    """A config of ours that the family can hold, with token ids that are not its own."""
    pad = changes.get("pad_id", 0)
    fixed = {**family.fields, "position_offset": family.position_offset(pad)}
    return TransformerConfig(**{**OURS, **fixed, "output_bias": "none", **changes})


def fault_of(call, *arguments) -> str:
    """The message of the UserError that a call ends with."""
    with pytest.raises(UserError) as raised:
        call(*arguments)
    return str(raised.value)


def settings_only(**settings) -> Source:
    return Source(Held({}), settings)


def assert_damage_is_named(family, source: Source, name: str) -> None:
    """A weight that is missing, has another shape, or is no weight of the model."""
    key = name.replace(".", "__")
    array = source.tensors.read_all()[name]
    assert f"missing '{name}'" in fault_of(
        import_source, family, with_tensors(source, **{key: None})
    )
    wrong = with_tensors(source, **{key: array[:-1]})
    assert f"wrong shape of '{name}'" in fault_of(import_source, family, wrong)
    extra = with_tensors(source, **{f"{key}_old": array})
    assert f"extra '{name}_old'" in fault_of(import_source, family, extra)
