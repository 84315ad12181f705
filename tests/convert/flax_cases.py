"""Flax names of the Hugging Face models, written down apart from the product's."""

import numpy as np
from huggingface_cases import TINY, random_model, saved
from transformers import (
    BartConfig,
    BartForConditionalGeneration,
    BlenderbotConfig,
    BlenderbotForConditionalGeneration,
    BlenderbotSmallConfig,
    BlenderbotSmallForConditionalGeneration,
    MarianConfig,
    MarianMTModel,
    MBartConfig,
    MBartForConditionalGeneration,
    PegasusConfig,
    PegasusForConditionalGeneration,
)

from convert.core.tensors import Held
from convert.families.base import Source
from convert.families.huggingface.flax import (
    BartFlax,
    BlenderbotFlax,
    BlenderbotSmallFlax,
    MarianFlax,
    MBartFlax,
    PegasusFlax,
)

CLASSES = {
    "marian": (MarianFlax(), MarianConfig, MarianMTModel),
    "bart": (BartFlax(), BartConfig, BartForConditionalGeneration),
    "mbart": (MBartFlax(), MBartConfig, MBartForConditionalGeneration),
    "pegasus": (PegasusFlax(), PegasusConfig, PegasusForConditionalGeneration),
    "blenderbot": (BlenderbotFlax(), BlenderbotConfig, BlenderbotForConditionalGeneration),
    "blenderbot-small": (
        BlenderbotSmallFlax(),
        BlenderbotSmallConfig,
        BlenderbotSmallForConditionalGeneration,
    ),
}


def flax_name(name: str, array: np.ndarray) -> tuple[str, np.ndarray]:
    """A PyTorch name and array as Flax modules have them: Embed, LayerNorm, Dense."""
    path, _, leaf = name.rpartition(".")
    if leaf != "weight":
        return name, array
    if path.endswith(("shared", "embed_positions")):
        return f"{path}.embedding", array
    if array.ndim == 1:
        return f"{path}.scale", array
    return f"{path}.kernel", np.ascontiguousarray(array.T)


def flax_case(kind: str, folder, tied: bool = True, **changes):
    """(PyTorch model, the same in Flax names); both halves of an untied one have one table."""
    _, config_class, model_class = CLASSES[kind]
    model = random_model(
        model_class, config_class(**(TINY | {"tie_word_embeddings": tied} | changes))
    )
    if not tied:
        for half in (model.model.encoder, model.model.decoder):
            half.embed_tokens.weight.data.copy_(model.model.shared.weight)
    source = saved(model, folder)
    gone = ("embed_tokens", "embed_positions") if kind == "pegasus" else ("embed_tokens",)
    arrays = {
        name: array
        for name, array in source.tensors.read_all().items()
        if not any(part in name for part in gone)
    }
    named = dict(flax_name(name, array) for name, array in arrays.items())
    return model, Source(Held(named), source.settings)


def torch_name(name: str, array: np.ndarray) -> tuple[str, np.ndarray]:
    """``flax_name`` the other way."""
    path, _, leaf = name.rpartition(".")
    if leaf not in ("kernel", "scale", "embedding"):
        return name, array
    return f"{path}.weight", np.ascontiguousarray(array.T if leaf == "kernel" else array)
