"""PyTorch modules of other code as a side: a class of transformers, or any that convert knows.

A PyTorch module whose weights belong to a family that ``convert`` knows shows its sub-steps and its
gradients under canonical names: a module is the one whose weight the family's rules rename.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import torch
from torch import nn

from convert.checkpoints.folders.location import locate
from convert.core.operations import Copy
from convert.core.pipeline import Converted, check_source
from convert.core.rules import ASIDE, Rule
from convert.core.tensors import Held
from convert.families.base import Family, Source
from convert.families.huggingface.library_class import LibraryClass
from convert.families.registry import FAMILIES, recognize
from convert.families.sinusoids import rounding_of
from parity.forward.ids import Ids
from parity.forward.number_formats import NUMPY, as_float64, in_format, in_precision
from parity.forward.recording import recorded_torch
from parity.forward.substeps import CONVOLUTIONS, LOGITS
from parity.sides.functions import check_logits, from_function
from parity.sides.side import Side, Trace, Weights
from transformer_spec import Faults, TransformerConfig, UserError, trained_names, weight_shapes
from transformer_spec.errors import closest

SPEECH = "whisper"
LONGEST_REASON = 300


@dataclass
class TorchModule(Side):
    """A PyTorch module with a family: ``call(module, source, target, real)`` gives logits."""

    module: nn.Module = field(default_factory=nn.Module)
    family: Family | None = None
    settings: dict[str, Any] | None = None
    call: Callable[..., torch.Tensor] = lambda *_: torch.zeros(())

    def held_bytes(self) -> int:
        """The module's gradients; the module itself is in memory already."""
        return sum(array.nbytes for array in (self.weights or {}).values())

    def source(self, arrays: Weights | None = None) -> Source:
        held = arrays if arrays is not None else state_of(self.module)
        return Source(Held(held, self.what), self.settings)

    def rules(self) -> list[Rule]:
        assert self.family is not None
        return self.family.rules(self.config, self.source())

    def modules(self) -> dict[str, str]:
        """Path of a module -> canonical name, for every weight that is renamed and nothing else."""
        names = dict(self.module.named_modules())
        found = {}
        for rule in self.rules():
            if len(rule.sources) == 1 and isinstance(rule.operation, Copy):
                theirs, _, leaf = rule.sources[0].rpartition(".")
                ours = rule.targets[0].rpartition(".")[0]
                if leaf == "weight" and _is_step(names.get(theirs)):
                    found[theirs] = ours
        return {path: name for path, name in found.items() if name != LOGITS}

    def first_layers(self, modules: dict[str, str]) -> dict[str, str]:
        """The first layer of each half: the module that holds all that is in it."""
        inside: dict[str, list[str]] = {}
        for path, name in modules.items():
            if ".enc_layers.0." in name or ".dec_layers.0." in name:
                inside.setdefault(name.partition(".")[0], []).append(path)
        return {self._around(paths): half for half, paths in inside.items()}

    def _around(self, paths: list[str]) -> str:
        """The innermost module around all of these that is called itself."""
        parts = [path.split(".") for path in paths]
        count = next(n for n, level in enumerate(zip(*parts, strict=False)) if len(set(level)) > 1)
        while isinstance(self.module.get_submodule(".".join(parts[0][:count])), nn.ModuleList):
            count -= 1
        return ".".join(parts[0][:count])

    def trace(self, ids: Ids, precision: str) -> Trace:
        if precision not in NUMPY:
            return {}
        modules = self.modules()
        with (
            torch.no_grad(),
            in_format(self.module, self.torch_place, precision) as module,
            in_precision(precision),
            _wide_norms(precision),
            recorded_torch(module, modules, self.first_layers(modules)) as found,
        ):
            logits = self.run(module, ids)
        steps = {name: self.rows_first(name, x) for name, x in found.items()}
        return {name: as_float64(x) for name, x in {**steps, LOGITS: logits}.items()}

    def rows_first(self, step: str, found: torch.Tensor) -> torch.Tensor:
        """A sub-step as (B, K, D): some modules have the length first, convolutions last."""
        if step in CONVOLUTIONS:
            return found.transpose(1, 2)
        turned = self.family is not None and self.family.length_first
        return found.transpose(0, 1) if turned else found

    def run(self, module: nn.Module, ids: Ids) -> torch.Tensor:
        source_real, target_real = ids.real(self.config)
        arrays = (*ids, source_real, target_real)
        tensors = [torch.from_numpy(array).to(self.torch_place) for array in arrays]
        if self.config.feature_dim:
            tensors[0] = tensors[0].to(next(module.parameters()).dtype)
        logits = self.call(module, *tensors)
        check_logits(logits, ids, self)
        return logits

    def gradients(self, ids: Ids) -> tuple[float, Weights] | None:
        given, wanted, _ = ids.for_loss(self.config)
        with in_format(self.module, self.torch_place, "float64") as module:
            with in_precision("float64"), _wide_norms("float64"):
                logits = self.run(module, Ids(ids.source, given)).flatten(0, 1)
            labels, pad = torch.from_numpy(wanted).flatten().to(logits.device), self.config.pad_id
            loss = nn.functional.cross_entropy(logits, labels, ignore_index=pad)
            loss.backward()
            return float(loss.detach()), self.canonical_gradients(module)

    def untrained_rows(self) -> dict[str, int]:
        """``padding_idx`` of PyTorch's Embedding."""
        rows = [getattr(m, "padding_idx", None) for m in self.module.modules()]
        row = next((row for row in rows if row is not None), None)
        if row is None:
            return {}
        tables = [name for name in weight_shapes(self.config) if name.endswith("embedding.weight")]
        return {name: row for name in tables if "pos_embedding" not in name}

    def canonical_gradients(self, module: nn.Module) -> Weights:
        """Gradients go to canonical names as the weights do."""
        held = state_of(module)
        named = dict(module.named_parameters(remove_duplicate=False))
        found = {}
        for name, array in held.items():
            gradient = named[name].grad if name in named else None
            found[name] = np.zeros_like(array) if gradient is None else as_float64(gradient)
        canonical = Converted(Held(found), self.rules())
        return {n: canonical.read(n) for n in trained_names(self.config) if n in canonical}


class SpeechModule(TorchModule):
    """A class of transformers that refuses features of any other length than its own."""

    whole_sources = True


def _is_step(module: nn.Module | None) -> bool:
    """A projection, a convolution or a norm; libraries have norms of their own."""
    named = type(module).__name__.endswith(("LayerNorm", "RMSNorm"))
    return isinstance(module, (nn.Linear, nn.Conv1d, nn.LayerNorm)) or named


@contextlib.contextmanager
def _wide_norms(precision: str) -> Iterator[None]:
    """T5's norms compute in float32 whatever the model is: here in float64, where that is asked."""
    wide = torch.float64 if precision == "float64" else torch.float32
    with mock.patch.object(torch, "float32", wide):
        yield


def state_of(module: nn.Module) -> Weights:
    """The state of a module as arrays; a number format without NumPy's is read as float32."""
    arrays = {}
    for name, tensor in module.state_dict().items():
        plain = tensor.detach().cpu()
        plain = plain.float() if plain.dtype == torch.bfloat16 else plain
        arrays[name] = plain.numpy().copy()
    return arrays


def open_library_side(given: str, config: TransformerConfig | None = None) -> Side:
    """``hf:FOLDER`` or ``module:FILE.py:FUNCTION``, whose model alone has ``config``."""
    kind, _, rest = given.partition(":")
    return hugging_face(given, Path(rest)) if kind == "hf" else from_function(given, rest, config)


def hugging_face(given: str, folder: Path) -> TorchModule:
    """The class of transformers that the folder's config.json names."""
    refuse_ours(folder)
    folder = locate(folder).weights
    if not (folder / "config.json").is_file():
        raise UserError(f"{folder} has no config.json; hf: takes a folder of transformers")
    settings = read_settings(folder / "config.json")
    check_class(folder, settings)
    try:
        import transformers
    except ImportError:
        raise UserError("hf: needs transformers: pip install transformers") from None
    transformers.utils.logging.disable_progress_bar()
    hears = settings.get("model_type") == SPEECH
    auto = transformers.AutoModelForSpeechSeq2Seq if hears else transformers.AutoModelForSeq2SeqLM
    try:
        with in_precision("float64"):
            module = auto.from_pretrained(
                folder, local_files_only=True, dtype=torch.float64, attn_implementation="eager"
            )
            _use_exact_sinusoids(module)
    except Exception as error:  # whatever the library meets in damaged settings and weights
        reason = " ".join(f"{type(error).__name__}: {error}".split())
        shown = reason if len(reason) <= LONGEST_REASON else f"{reason[:LONGEST_REASON]} ..."
        raise UserError(f"transformers cannot read {folder}: {shown}") from error
    what = f"{type(module).__name__} of transformers {transformers.__version__}"
    call, kind = (call_speech, SpeechModule) if hears else (call_hugging_face, TorchModule)
    return of_module(given, what, module, settings, call, kind)


@torch.no_grad()
def _use_exact_sinusoids(module: nn.Module) -> None:
    """Tables that a file holds as float32 rounds them, computed again by the library's own code.

    A table that is further off is a table of its own, and stays.
    """
    for table in module.modules():
        if not isinstance(table, nn.Embedding):
            continue
        own: Any = table
        if hasattr(table, "create_weight"):
            exact = own.create_weight()
        elif hasattr(table, "get_embedding"):
            exact = own.get_embedding(*table.weight.shape, table.padding_idx)
        else:
            continue
        if (table.weight - exact).abs().max() <= rounding_of(exact.float().numpy()):
            table.weight.copy_(exact)


def refuse_ours(folder: Path) -> None:
    """A UserError for a run or a folder that convert wrote."""
    path = folder / "config.json"
    if path.is_file() and {"format_version", "model"} <= read_settings(path).keys():
        raise UserError(
            f"{folder} is a run or a converted folder, which transformers does not read; "
            "give it without hf:"
        )


def check_class(folder: Path, settings: dict[str, Any]) -> None:
    """A class that no family of ``convert`` is of is a UserError."""
    said = settings.get("model_type")
    families = (family for family in FAMILIES.values() if isinstance(family, LibraryClass))
    types = list(dict.fromkeys(family.model_type for family in families))
    if said is not None and said not in types:
        near = closest(said, types) if isinstance(said, str) else ""
        raise UserError(
            f"{folder} is of model_type {said!r} by its config.json, which convert does not read; "
            f"those of Hugging Face that it reads: {', '.join(types)}{near}"
        )


def read_settings(path: Path) -> dict[str, Any]:
    """The JSON object of a config.json; anything else is a UserError."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise UserError(f"{path} cannot be read as JSON ({error}): get it again") from None
    if not isinstance(content, dict):
        raise UserError(f"{path} holds no JSON object but a {type(content).__name__}: get it again")
    return content


def call_hugging_face(module, source, target, source_real, target_real) -> torch.Tensor:
    return module(
        input_ids=source,
        attention_mask=source_real.long(),
        decoder_input_ids=target,
        decoder_attention_mask=target_real.long(),
        use_cache=False,
    ).logits


def call_speech(module, features, target, source_real, target_real) -> torch.Tensor:
    """Frames last, as transformers has them; it masks no frame."""
    return module(
        input_features=features.transpose(1, 2),
        decoder_input_ids=target,
        decoder_attention_mask=target_real.long(),
        use_cache=False,
    ).logits


def of_module(given, what, module, settings, call, kind=TorchModule) -> TorchModule:
    """A side of a module whose names and settings show its family."""
    source = Source(Held(state_of(module), what), settings)
    family = recognize(source)
    config = family.read_config(source).config if family else None
    if family is None or config is None:
        raise UserError(f"{given}: {what} is of no family that convert knows")
    rules = family.rules(config, source)
    faults = Faults()
    check_source(source.tensors, rules, weight_shapes(config), faults)
    faults.raise_if_any(f"{given}: {what}")
    canonical = Converted(source.tensors, rules)
    weights = {n: canonical.read(n) for n in canonical if not n.startswith(ASIDE)}
    return kind(
        given, what, "torch", config, weights,
        module=module, family=family, settings=settings, call=call,
    )  # fmt: skip
