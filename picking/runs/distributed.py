"""Processes that work on one run together, as torchrun starts them; without it: rank 0 of 1.

Every process trains on its part of each batch, scores its part of what is scored, and gets the
results of all: the numbers that one process would have. Only the first, rank 0, writes; the others
wait for it where they read what it wrote.
"""

import datetime
import os
from typing import Any, TypeVar

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from picking.errors import UserError, end_together
from picking.runs.devices import select_device

Network = TypeVar("Network", bound=nn.Module)


def n_started() -> int:
    """Return how many processes torchrun started, 1 without it; known before `start`."""
    return int(os.environ.get("WORLD_SIZE", 1))


def start(name: str, patience: datetime.timedelta | None = None) -> tuple[torch.device, int, int]:
    """Join the processes that torchrun started; return the device, the rank and the world size.

    name: as for `select_device`. patience: how long one waits for another; None: torch's minutes.
    From here on an error is told of once, by the first to meet one.
    """
    if n_started() == 1 or dist.is_initialized():
        return select_device(name), *place()
    store, rank, world_size = next(dist.rendezvous("env://"))

    def first_to_say() -> bool:
        try:
            return store.add("said", 1) == 1
        except RuntimeError:  # nobody is left to ask
            return True

    end_together(first_to_say)
    device = select_device(name)
    backend = "nccl" if device.type == "cuda" else "gloo"
    dist.init_process_group(
        backend, store=store, rank=rank, world_size=world_size, timeout=patience
    )
    return device, rank, world_size


def end() -> None:
    """Leave the processes of this run, once it has ended well: scripts call it last."""
    if dist.is_initialized():
        dist.destroy_process_group()


def place() -> tuple[int, int]:
    """Return this process's rank and the world size, (0, 1) outside torchrun."""
    return (dist.get_rank(), dist.get_world_size()) if dist.is_initialized() else (0, 1)


def is_first() -> bool:
    """Return whether this process is the one that writes."""
    return place()[0] == 0


def wait_for_all() -> None:
    """Return when every process has come here."""
    if dist.is_initialized():
        dist.barrier()


# What is shared out


def share_of_batch(batch_size: int) -> int:
    """Return how many of a batch each process has; raises `UserError` where shares are unequal."""
    _, world_size = place()
    if batch_size % world_size:
        raise UserError(
            f"{world_size} processes cannot share a batch of {batch_size} equally: set "
            f"training.batch_size (--batch-size) to a multiple of {world_size}"
        )
    return batch_size // world_size


def share_of_batches(n: int, batch_size: int) -> range:
    """Return where this process's batches of 0 to n - 1 start: batches are dealt in turn."""
    rank, world_size = place()
    return range(rank * batch_size, n, world_size * batch_size)


def share_of_places(n: int, batch_size: int) -> np.ndarray:
    """Return which of 0 to n - 1 are this process's, int64 (m,): those of `share_of_batches`."""
    rank, world_size = place()
    places = np.arange(n)
    return places[places // batch_size % world_size == rank]


def with_shared_statistics(network: Network, device: torch.device) -> Network:
    """Have batch norm see the whole batch where several GPUs share it; there is none for CPUs."""
    if place()[1] > 1 and device.type == "cuda":
        return nn.SyncBatchNorm.convert_sync_batchnorm(network)
    return network


def with_shared_gradients(network: nn.Module) -> nn.Module:
    """Have gradients averaged over the processes: scale a loss that all have by the world size."""
    return DistributedDataParallel(network) if place()[1] > 1 else network


# What is put together


def from_all(values: Tensor) -> Tensor:
    """Concatenate the (n, ...) tensors of all processes, in rank order.

    Gradients flow into this process's own part. Every process then computes the same loss of the
    global batch; since DistributedDataParallel averages gradients, scale it by the world size.
    """
    if not dist.is_initialized() or not len(values):  # of one shape everywhere
        return values
    parts = [torch.empty_like(values) for _ in range(dist.get_world_size())]
    dist.all_gather(parts, values.detach().contiguous())
    parts[dist.get_rank()] = values
    return torch.cat(parts)


def sum_of_all(values: Tensor) -> Tensor:
    """Return the sum over all processes, the same in each; gradients flow into the own values."""
    return from_all(values.unsqueeze(0)).sum(0) if dist.is_initialized() else values


def add_up(values: Tensor) -> None:
    """Replace ``values``, without gradient, by the sum over all processes."""
    if dist.is_initialized():
        dist.all_reduce(values)


def from_each(value: Any) -> list[Any]:
    """Return what each process gives, in rank order: anything that can be pickled."""
    if not dist.is_initialized():
        return [value]
    values: list[Any] = [None] * dist.get_world_size()
    dist.all_gather_object(values, value)
    return values


def put_together(own: dict[str, np.ndarray], places: np.ndarray, n: int) -> dict[str, np.ndarray]:
    """Return arrays (n, ...) by name of what every process has at its ``places``, (m, ...).

    A process without places may lack the names.
    """
    if not dist.is_initialized():
        return own
    whole: dict[str, np.ndarray] = {}
    for part_places, part in from_each((places, own)):
        for name, values in part.items():
            if name not in whole:
                whole[name] = np.empty((n, *values.shape[1:]), values.dtype)
            whole[name][part_places] = values
    return whole


def take_buffers_of_first(network: nn.Module) -> None:
    """Give every process the first one's buffers: without SyncBatchNorm they drift apart."""
    if dist.is_initialized():
        for buffer in network.buffers():
            dist.broadcast(buffer, 0)


def require_same(value: Any, what: str) -> None:
    """Raise `UserError` when processes differ in ``value``: they were started by hand, by node."""
    first, *others = from_each(value)
    if any(other != first for other in others):
        raise UserError(
            f"the processes of this run differ in their {what}: start the same command on every "
            "node, with the same data"
        )
