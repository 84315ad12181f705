"""Float32 copies of weights that were trained in half precision, which trainers keep apart.

They lie flat, or without names, in the order of an optimizer's parameters, so they are told and
not read.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from typing import Any

from convert.checkpoints.folders.odd_places import GATHER
from convert.core.tensors import Tensors
from convert.formats.content import ContentFile, children, is_array
from transformer_spec.errors import printable_name

# fp32_groups_flat, fp32_groups and single_partition_of_fp32_groups of DeepSpeed, fp32_from_fp16 of
# apex, fp32_from_fp16_params of Megatron, master_params of people's own loops.
NAMES = re.compile(r"fp32_groups|fp32_from_(fp|bf|float)16|fp32_param|master_(param|weight)", re.I)
HALF = ("float16", "bfloat16")
DEPTH = 4  # keys above them that are looked through
PARTITIONED = "*_optim_states.pt"
IN_FILE = (
    "{} holds float32 masters of the weights ({:,} numbers), which are not read: the weights are "
    "the {} ones; for the masters, copy them into a float32 model where it was trained, and save "
    "its state_dict()"
)
BESIDE = (
    "the weights are the {} ones: their float32 masters are in {} beside, which are not read; for "
    "the masters, {}"
)


def masters(file: ContentFile, weights: Tensors) -> list[str]:
    """Notes of float32 masters in a file or beside it, where the weights read are rounded ones."""
    half = {str(header.dtype) for header in weights.values()} & set(HALF)
    if not half:
        return []
    kind, notes = min(half), list[str]()
    for place, part in _named(file.content, ()):
        numbers = sum(math.prod(array.shape) for array in _arrays(part))
        if numbers:
            notes.append(IN_FILE.format(printable_name(place), numbers, kind))
    beside = sorted(file.path.parent.glob(PARTITIONED)) if _is_deepspeed(file) else []
    return notes + [BESIDE.format(kind, PARTITIONED, GATHER)] * bool(beside and not notes)


def _is_deepspeed(file: ContentFile) -> bool:
    return "ds_version" in file.members(file.content)


def _named(part: Any, keys: tuple[str, ...]) -> Iterator[tuple[str, Any]]:
    """What lies under a usual name of masters, by its keys joined with dots."""
    for key, value in children(part):
        place = (*keys, str(key))
        if NAMES.search(str(key)):
            yield ".".join(place), value
        elif len(place) < DEPTH and not is_array(value):
            yield from _named(value, place)


def _arrays(part: Any, depth: int = DEPTH) -> list[Any]:
    """The arrays of float32 in a part, in the lists of groups and those of parameters."""
    if is_array(part):
        return [part] if str(part.dtype) == "float32" else []
    inner = children(part) if depth else ()
    return [array for _, value in inner for array in _arrays(value, depth - 1)]
