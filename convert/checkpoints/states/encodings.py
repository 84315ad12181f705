"""Weights that are stored in another form than their numbers: told by names, or by their makers.

Names: bitsandbytes 0.40 and later (``SCB``; ``absmax`` and ``quant_map``), GPTQ and AWQ
(``qweight`` with ``scales``), torch.nn.utils' weight_norm, spectral_norm and prune.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from convert.core.tensors import Header
from convert.formats.content import Unread, leaves
from transformer_spec import UserError

NARROW = "float8"
WIDEN = (
    "give the checkpoint from before, or, where no scales belong to them, save it with "
    "tensor.float() for each"
)
ORIGINAL = "they cannot be had back exactly: give the checkpoint before it was quantized"


@dataclass(frozen=True)
class Encoding:
    """What tensors with all of these endings behind one stem are, and what to do."""

    endings: tuple[str, ...]
    what: str


FLAT = (
    "many parameters laid end to end by FullyShardedDataParallel, cut among processes: save a full "
    "state dict of the model (fairseq: consolidate the shards with fairscale)"
)
ENCODINGS = (
    Encoding(("weight", "SCB"), f"quantized to 8 bits by bitsandbytes; {ORIGINAL}"),
    Encoding(
        ("weight.absmax", "weight.quant_map"), f"quantized to 4 bits by bitsandbytes; {ORIGINAL}"
    ),
    Encoding(("qweight", "scales"), f"quantized by GPTQ or AWQ; {ORIGINAL}"),
    Encoding(
        ("weight_g", "weight_v"),
        "split into length and direction by weight_norm; call torch.nn.utils.remove_weight_norm on "
        "each such module and save again",
    ),
    Encoding(
        ("parametrizations.weight.original0", "parametrizations.weight.original1"),
        "split into length and direction by weight_norm; call "
        "torch.nn.utils.parametrize.remove_parametrizations(module, 'weight') and save again",
    ),
    Encoding(("flat_param_0",), FLAT),  # of fairscale, which fairseq uses
    Encoding(("_flat_param",), FLAT),
    Encoding(
        ("weight_orig", "weight_mask"),
        "pruned with torch.nn.utils.prune; call prune.remove(module, 'weight') and save again",
    ),
    Encoding(
        ("weight_orig", "weight_u"),
        "divided by their norm by spectral_norm; call torch.nn.utils.remove_spectral_norm on each "
        "such module and save again",
    ),
)  # fmt: skip
# What torch calls to make tensors that are not read, by a part of its name.
MAKERS = {
    ".quantized.": f"quantized by torch; {ORIGINAL}",
    "_rebuild_qtensor": f"quantized by torch; {ORIGINAL}",
    "_rebuild_sparse_tensor": "sparse tensors; save them with to_dense()",
    "_rebuild_sparse_csr_tensor": "sparse tensors; save them with to_dense()",
    "_rebuild_nested_tensor": "nested tensors; save them padded, or one by one",
    "_rebuild_meta_tensor_no_storage": "on the meta device, without numbers; save the model after "
    "its weights are loaded",
    "_rebuild_wrapper_subclass": f"of a class of its own, as torchao quantizes; {ORIGINAL}",
}  # fmt: skip


def check_names(names: Mapping[str, Header], label: str) -> None:
    """A UserError where names or types show that weights are not stored as their numbers."""
    eight = [name for name, header in names.items() if header.dtype.name.startswith(NARROW)]
    if eight:
        kind = names[eight[0]].dtype
        _refuse(label, len(eight), eight[0], f"stored in 8 bits ({kind}); {WIDEN}")
    for encoding in ENCODINGS:
        first, *others = encoding.endings
        stems = [name.removesuffix(first) for name in names if f".{name}".endswith(f".{first}")]
        found = [stem for stem in stems if all(stem + other in names for other in others)]
        if found:
            _refuse(label, len(found), found[0] + first, encoding.what)


def check_objects(content: Mapping[Any, Any], label: str) -> None:
    """A UserError where tensors of a dict are of a kind that is not read."""
    for part, what in MAKERS.items():
        found = [str(name) for name, value in content.items() if _has(value, part)]
        if found:
            _refuse(label, len(found), found[0], what)


def _has(value: Any, name: str) -> bool:
    parts = value if isinstance(value, (tuple, list)) else (value,)
    return any(isinstance(part, Unread) and name in part.name for part in parts)


def _refuse(label: str, count: int, first: str, what: str) -> None:
    verb = "weight is" if count == 1 else "weights are"
    named = f"{first!r}, ..." if count > 1 else repr(first)
    raise UserError(f"{label}: {count} {verb} ({named}) {what}")


def is_plain(value: Any) -> bool:
    """Whether a part of a file has no tensor in it, of whatever kind."""
    strange = any(_has(value, part) for part in MAKERS)
    return not strange and next(leaves(value), None) is None
