"""The devices and processes that translate: each has the whole weights, and rows of its own."""

from __future__ import annotations

import zlib
from collections.abc import Mapping, Sequence

from training_recipe.distributed.joining import Joining
from training_recipe.distributed.mesh import read_mesh
from training_recipe.distributed.processes import World
from training_recipe.options.joining import check_whole
from training_recipe.searching.search import Search
from twinformer.frameworks import joined_for_good


def world_of(backend: str, device: str, mesh: str) -> World:
    """The world of a mesh, asked for from Python: this process joins where torchrun started it."""
    asked = read_mesh(mesh)
    check_whole(asked)
    return joined_for_good(backend, Joining(device=device, mesh=asked))


def agree_on(
    world: World, texts: Sequence[str], search: Search, batches: Mapping[str, object]
) -> None:
    """Raise a UserError in all processes where one was asked for something else than the first.

    ``batches`` are the settings, by name, that decide which texts are decoded together.
    """
    if world.processes.count == 1:
        return
    content = "\n".join(texts).encode("utf-8", "surrogatepass")
    asked = {"how many texts": len(texts), "the texts": zlib.crc32(content), "how": repr(search)}
    world.processes.agree("the texts or the search", {**asked, **batches})


def agree_on_ids(world: World, ids: Sequence[Sequence[int]]) -> None:
    """Raise a UserError in all processes where one makes other tokens of the texts."""
    if world.processes.count > 1:
        found = zlib.crc32(repr([list(each) for each in ids]).encode())
        world.processes.agree("the tokens of the texts", found)
