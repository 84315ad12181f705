"""Both twins with the weights of one module in memory at a time, and their sub-steps on disk.

The code that runs is the twins' own: a module finds its numbers when it is called, and loses them
when it returns. The tables of embeddings and output are given where the twins ask for them.
"""

from __future__ import annotations

import contextlib
import shutil
import tempfile
import weakref
from collections.abc import Callable, Iterator, Mapping, MutableMapping
from pathlib import Path
from typing import Any
from unittest import mock

import jax
import jax.numpy as jnp
import numpy as np
import torch
from flax import nnx
from torch import nn

import flax_transformer
import flax_transformer.model as flax_model
import flax_transformer.primitives as flax_primitives
import torch_transformer
import torch_transformer.model as torch_model
from parity.forward.recording import FLAX_LENT, TORCH_RECORDED
from transformer_spec import TransformerConfig, UserError, tied_weights, to_flax
from transformer_spec.door import UNFINISHED

Weights = Mapping[str, np.ndarray]
SOURCE, TARGET, OUTPUT = (f"{place}.weight" for place in (
    "encoder.embedding", "decoder.embedding", "decoder.finalFc"
))  # fmt: skip
POSITIONS = ("pos_embedding", "relative_bias")
FLAX_TABLES = (flax_primitives.Embed, flax_primitives.FrozenTable)


class Spilled(MutableMapping[str, np.ndarray]):
    """Arrays in a temporary folder, by name; each is read when it is asked for."""

    def __init__(self, plain: Callable[[Any], np.ndarray]) -> None:
        self.plain, self.folder = plain, tempfile.mkdtemp(prefix="parity-")
        end = weakref.finalize(self, shutil.rmtree, self.folder, ignore_errors=True)
        UNFINISHED[self.folder] = end
        self.files: dict[str, Path] = {}

    def __setitem__(self, name: str, value: Any) -> None:
        path = self.files.setdefault(name, Path(self.folder, f"{len(self.files)}.npy"))
        try:
            np.save(path, self.plain(value))
        except OSError as error:
            why = error.strerror or error
            message = f"cannot keep sub-steps in {self.folder}: {why}; TMPDIR names another folder"
            raise UserError(message) from None

    def __getitem__(self, name: str) -> np.ndarray:
        return np.load(self.files[name])

    def __delitem__(self, name: str) -> None:
        self.files.pop(name).unlink()

    def __iter__(self) -> Iterator[str]:
        return iter(self.files)

    def __len__(self) -> int:
        return len(self.files)


# The numbers come when a module is called: until then the model is a skeleton, as it should be.
LENT: dict[str, Any] = {"check_numbers": lambda model, tokens: None}


def tables(weights: Weights, config: TransformerConfig) -> dict[str, str]:
    """Property of a twin -> canonical name of the table that it gives."""
    tied = tied_weights(config)
    target, output = (tied.get(name, name) for name in (TARGET, OUTPUT))
    source = {} if config.feature_dim else {"source_table": SOURCE}
    return {**source, "target_table": target, "output_table": output}


@contextlib.contextmanager
def streamed_torch(
    config: TransformerConfig, weights: Weights, dtype: torch.dtype, place: str
) -> Iterator[torch_transformer.Transformer]:
    """The PyTorch twin without numbers of its own."""

    def tensor(name: str) -> torch.Tensor:
        wide = np.float64 if dtype == torch.float64 else np.float32
        return torch.from_numpy(weights[name].astype(wide)).to(place, dtype)

    model = torch_transformer.Transformer.skeleton(config, dtype)
    for name, module in model.named_modules():
        if isinstance(module, TORCH_RECORDED):
            _borrow(module, name, tensor)
        elif name.endswith(POSITIONS) and isinstance(module, nn.Embedding):
            module.weight = nn.Parameter(tensor(f"{name}.weight"), requires_grad=False)
        elif isinstance(module, torch_model.FrozenTable):
            module.weight = tensor(f"{name}.weight")
    given: dict[str, Any] = {
        table: property(lambda _, name=name: tensor(name))
        for table, name in tables(weights, config).items()
    } | LENT
    with mock.patch.multiple(torch_model.Transformer, **given):
        yield model.eval()


def _borrow(module: nn.Module, name: str, tensor: Callable[[str], torch.Tensor]) -> None:
    """Numbers for one call; an output projection is given its weight by the model."""
    leaves = [leaf for leaf in module.state_dict() if f"{name}.{leaf}" != OUTPUT]
    empty = {leaf: getattr(module, leaf) for leaf in leaves}

    def take(*_: Any) -> None:
        for leaf in leaves:
            value = tensor(f"{name}.{leaf}")
            parameter = isinstance(empty[leaf], nn.Parameter)
            setattr(module, leaf, nn.Parameter(value, False) if parameter else value)

    def give_back(*_: Any) -> None:
        for leaf, value in empty.items():
            setattr(module, leaf, value)

    module.register_forward_pre_hook(take)
    module.register_forward_hook(give_back)


@contextlib.contextmanager
def streamed_flax(
    config: TransformerConfig, weights: Weights, dtype: type
) -> Iterator[flax_transformer.Transformer]:
    """The Flax twin without numbers of its own, to be run as it is, not compiled."""

    def flax(name: str) -> tuple[str, jax.Array]:
        flax_name, array = to_flax(name, weights[name])
        return flax_name.rpartition(".")[2], jnp.asarray(np.ascontiguousarray(array), dtype)

    model = flax_transformer.Transformer.skeleton(config, dtype)
    modules: dict[str, Any] = {".".join(map(str, path)): m for path, m in nnx.iter_modules(model)}
    names = {id(module): name for name, module in modules.items()}
    for place, module in modules.items():
        if place.endswith(POSITIONS) and isinstance(module, FLAX_TABLES):
            _fill(module, place, flax)
    output = modules["decoder.finalFc"]
    if output.bias is not None:
        output.bias.set_value(flax("decoder.finalFc.bias")[1])
    given: dict[str, Any] = {
        table: property(lambda _, name=name: _table(name, weights, dtype))
        for table, name in tables(weights, config).items()
    } | LENT
    with contextlib.ExitStack() as stack:
        stack.enter_context(mock.patch.multiple(flax_model.Transformer, **given))
        for kind in FLAX_LENT:
            stack.enter_context(mock.patch.object(kind, "__call__", _lent(kind, names, flax)))
        yield model


def _table(name: str, weights: Weights, dtype: type) -> jax.Array:
    """(V, D), as the twin's properties give it whatever the leaf is."""
    return jnp.asarray(weights[name], dtype)


def _fill(module: nnx.Module, name: str, flax: Callable[[str], tuple[str, jax.Array]]) -> dict:
    """Give a module its numbers; what it had instead of them."""
    empty = {}
    leaves = ("weight", "bias") if getattr(module, "bias", None) is not None else ("weight",)
    for canonical in leaves:
        leaf, value = flax(f"{name}.{canonical}")
        variable = getattr(module, leaf)
        empty[leaf] = variable.get_value()
        variable.set_value(value)
    return empty


def _lent(kind: type, names: dict[int, str], flax: Callable) -> Callable:
    plain = kind.__call__

    def call(self: Any, x: jax.Array) -> jax.Array:
        empty = _fill(self, names[id(self)], flax)
        try:
            return plain(self, x)
        finally:
            for leaf, value in empty.items():
                getattr(self, leaf).set_value(value)

    return call
