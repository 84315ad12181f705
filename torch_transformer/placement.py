"""Where the numbers of a training run lie: on one device, or spread over a mesh of processes.

On a mesh the weights are split by their rows over ``fsdp`` processes, layer by layer, and each
layer is whole only while it computes (FSDP2; Zhao et al. 2023, "PyTorch FSDP"). Optimizer and
averages see plain tensors on either: the part of each weight that this process holds.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import TYPE_CHECKING, TypeGuard, TypeVar

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh

from torch_transformer.model import Transformer
from torch_transformer.processes import reaching_all
from torch_transformer.weights import set_weights, tensors, to_array, to_tensor
from training_recipe.batching.batches import Batch
from training_recipe.batching.rows import share
from training_recipe.distributed.mesh import AXES
from training_recipe.distributed.processes import Processes, World

if TYPE_CHECKING:
    from torch.distributed.fsdp import FSDPModule
    from torch.distributed.tensor import DTensor

Read = Callable[[str], np.ndarray]
Tensors = dict[str, Tensor]
T = TypeVar("T")


class OneDevice:
    """Everything on one device of one process."""

    def __init__(self, device: torch.device) -> None:
        self.device = device

    def reaching(self) -> contextlib.AbstractContextManager[None]:
        """A block in which this process may wait for others."""
        return contextlib.nullcontext()

    def spread(self, objective: nn.Module, network: Transformer) -> None:
        """Lay a skeleton and the objective around it over the devices."""

    def fill(self, network: Transformer, read: Read) -> None:
        """Give a network its weights, one at a time."""
        set_weights(network, lambda name: np.array(read(name), order="C"))
        network.to(self.device)

    def parts(self, network: Transformer) -> Tensors:
        """What this process holds of every stored weight: what an optimizer changes."""
        return tensors(network)

    def own(self, array: np.ndarray, like: Tensor) -> Tensor:
        """This process's part of an array that belongs to a stored weight, in row order."""
        return torch.from_numpy(np.array(array, order="C")).to(self.device)

    def whole(self, part: Tensor, like: Tensor) -> np.ndarray:
        """The array of which every process holds a part, as it does of a stored weight."""
        return to_array(part).copy()

    def gradients(self, stored: Tensors, parts: Tensors) -> list[Tensor]:
        """The gradients of all parts; ``parts`` are those of ``stored`` weights.

        A weight that the loss does not depend on has a gradient of zeros, as in JAX: it has moments
        and decays like the others.
        """
        gradients = []
        for part in parts.values():
            part.grad = torch.zeros_like(part) if part.grad is None else part.grad
            gradients.append(part.grad)
        return gradients

    def share(self, batch: Batch) -> tuple[Batch, int]:
        """This process's rows of a batch, and the first of them."""
        return batch, 0

    def sum(self, number: Tensor) -> Tensor:
        """The sum of what all processes give."""
        return number

    def norm(self, gradients: list[Tensor]) -> Tensor:
        """The global norm of all gradients."""
        return torch.nn.utils.get_total_norm(gradients)

    def last_of_step(self, objective: nn.Module, last: bool) -> None:
        """Say before a batch whether gradients are to be summed over the processes after it."""

    def finish(self, objective: nn.Module) -> None:
        """Give memory back after a computation without a gradient."""

    def model(self, network: Transformer) -> Transformer:
        """A model with all weights whole."""
        return network

    def each_row(self, compute: Callable[[np.ndarray], T], rows: np.ndarray) -> list[T]:
        """What is computed of the rows, in parts that follow each other."""
        return [compute(rows)]


class Spread(OneDevice):
    """A mesh of processes, each with a device and with rows of its own of every batch."""

    def __init__(self, device: torch.device, world: World) -> None:
        super().__init__(device)
        self.processes = world.processes
        sizes = world.mesh.data, world.mesh.fsdp
        with reaching_all():
            both = init_device_mesh(device.type, sizes, mesh_dim_names=AXES)
        self.one_copy, self.places = both["fsdp"], world.mesh.fsdp
        # One copy has none to be summed with; fully_shard would ask for that sum all the same.
        self.mesh = self.one_copy if world.mesh.data == 1 else both

    def reaching(self) -> contextlib.AbstractContextManager[None]:
        return reaching_all()

    def spread(self, objective: nn.Module, network: Transformer) -> None:
        from torch.distributed.fsdp import fully_shard

        for module in (*network.encoder.enc_layers, *network.decoder.dec_layers, objective):
            fully_shard(module, mesh=self.mesh)
            split = _split(module)
            split.set_gradient_divide_factor(1.0)
            split.set_force_sum_reduction_for_comms(True)
        objective.to_empty(device=self.device)

    @torch.no_grad()
    def fill(self, network: Transformer, read: Read) -> None:
        for name, tensor in tensors(network).items():
            _part(tensor).copy_(self.own(read(name), tensor))

    def parts(self, network: Transformer) -> Tensors:
        return {name: _part(tensor) for name, tensor in tensors(network).items()}

    def own(self, array: np.ndarray, like: Tensor) -> Tensor:
        if _is_split(like):
            each = -(-len(array) // self.places)
            first = each * self.one_copy.get_local_rank()
            array = array[first : first + each]
        return to_tensor(np.array(array, order="C")).to(self.device)

    @torch.no_grad()
    def whole(self, part: Tensor, like: Tensor) -> np.ndarray:
        if not _is_split(like):
            return super().whole(part, like)
        each = -(-len(like) // self.places)
        padded = part.new_zeros(each, *like.shape[1:])
        padded[: len(part)] = part
        gathered = part.new_empty(each * self.places, *like.shape[1:])
        with reaching_all():
            dist.all_gather(list(gathered.chunk(self.places)), padded, self.one_copy.get_group())
        return to_array(gathered[: len(like)]).copy()

    def gradients(self, stored: Tensors, parts: Tensors) -> list[Tensor]:
        for name, part in parts.items():
            gradient = stored[name].grad
            part.grad = None if gradient is None else _part(gradient)
        return super().gradients(stored, parts)

    def share(self, batch: Batch) -> tuple[Batch, int]:
        return share(batch, self.processes.index, self.processes.count)

    def sum(self, number: Tensor) -> Tensor:
        with reaching_all():
            dist.all_reduce(number)
        return number

    def norm(self, gradients: list[Tensor]) -> Tensor:
        norm = super().norm(gradients)
        if self.places == 1:
            return norm
        square = norm.square()
        with reaching_all():
            dist.all_reduce(square, group=self.one_copy.get_group())
        return square.sqrt()

    def last_of_step(self, objective: nn.Module, last: bool) -> None:
        _split(objective).set_requires_gradient_sync(last)

    def finish(self, objective: nn.Module) -> None:
        # Else the root stays whole, and its next computation would not see new weights.
        _split(objective).reshard()

    def model(self, network: Transformer) -> Transformer:
        held = tensors(network)
        model = Transformer.skeleton(network.config, next(iter(held.values())).dtype)
        set_weights(model, lambda name: self.whole(_part(held[name]), held[name]))
        return model.to(self.device)

    def each_row(self, compute: Callable[[np.ndarray], T], rows: np.ndarray) -> list[T]:
        """Every process computes its rows; all get all, in the order of the processes."""
        return each_row(self.processes, compute, rows)


def each_row(processes: Processes, compute: Callable[[np.ndarray], T], rows: np.ndarray) -> list[T]:
    """What the processes compute of rows, each of its own; an error of one is an error of all."""
    own = np.array_split(rows, processes.count)[processes.index]
    with processes.together():
        found = [compute(own)] if len(own) else []
    return [part for parts in processes.gather(found) for part in parts]


def placement_of(world: World, device: torch.device) -> OneDevice:
    """Where the numbers of a world of processes lie."""
    return OneDevice(device) if world.is_one_device else Spread(device, world)


def _split(module: nn.Module) -> FSDPModule:
    """A module that fully_shard has been given."""
    from torch.distributed.fsdp import FSDPModule

    assert isinstance(module, FSDPModule)
    return module


def _is_split(tensor: Tensor) -> TypeGuard[DTensor]:
    """Whether processes hold parts of a stored weight; those that are not trained are whole."""
    from torch.distributed.tensor import DTensor

    return isinstance(tensor, DTensor)


@torch.no_grad()
def _part(tensor: Tensor) -> Tensor:
    """What this process holds of a stored weight or of its gradient, in the same memory."""
    return tensor.to_local() if _is_split(tensor) else tensor
