"""What every training loop does besides its method.

The learning rate, the step, the position in the run, and the choice of the best weights.

A script's loop reads ::

    for batch in batches_left(state, loader, title, n_batches):
        set_rate(state.optimizer, cosine(...))
        loss = ...
        take_step(state, loss, grad_clip)
"""

import contextlib
import dataclasses
import math
import time
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import torch
from torch import Tensor, nn

from picking.config import ActiveOptimizerConfig, OptimizerConfig
from picking.errors import Stopped, UserError, raise_if_stopped
from picking.runs import distributed
from picking.runs.checkpoints import all_finite
from picking.seeds import stream_seed

CHECK_FINITE_EVERY = 50  # steps; looking at every loss would make a GPU wait


@dataclasses.dataclass
class Progress:
    """Where a run stands; saved in last.pt."""

    iteration: int = 0  # of active learning
    epoch: int = 0  # epochs finished, of this iteration
    batch: int = 0  # batches done of the epoch under way
    step: int = 0  # optimiser steps so far, over all iterations
    best: tuple[float, ...] = ()  # the best metrics of validation: AUC, or F1 and AP
    best_epoch: int = 0
    train_seconds: float = 0.0  # of this iteration


@dataclasses.dataclass(kw_only=True)
class State:
    """What changes while a run goes on.

    totals: float64 (n,), sums of the script's STEP_METRICS over the epoch so far. first_bad: int64
    (), the first batch of the epoch whose loss or gradient was not finite, -1 if none. since: the
    time at which the last step ended. The last two are not saved.
    """

    network: nn.Module
    optimizer: torch.optim.Optimizer
    totals: Tensor
    progress: Progress = dataclasses.field(default_factory=Progress)
    first_bad: Tensor = dataclasses.field(init=False)
    since: float = dataclasses.field(init=False)

    def __post_init__(self) -> None:
        self.weights = list(self.network.parameters())  # looked for once, not in every step
        self.begin_epoch()

    def begin_epoch(self) -> None:
        """Begin to time steps and to look for numbers that are not finite."""
        self.first_bad = torch.full((), -1, device=self.totals.device)
        self.since = time.monotonic()


def new_optimizer(
    network: nn.Module, settings: OptimizerConfig | ActiveOptimizerConfig
) -> torch.optim.Optimizer:
    """Return AdamW over all weights of a network."""
    return torch.optim.AdamW(
        network.parameters(),
        settings.lr,
        weight_decay=settings.weight_decay,
        fused=True,  # one pass over the weights, on CPU and GPU: the rest costs 5% of a step
    )


def trained(network: nn.Module, compiled: bool) -> nn.Module:
    """Return what to call in training: the network compiled, with gradients of all processes."""
    model: Any = torch.compile(network) if compiled else network
    return distributed.with_shared_gradients(model)


def cosine(step: int, n_steps: int, highest: float, lowest: float) -> float:
    """Return the learning rate of a step: half a cosine from ``highest`` to ``lowest``."""
    return lowest + (highest - lowest) * 0.5 * (1 + math.cos(math.pi * step / n_steps))


def set_rate(optimizer: torch.optim.Optimizer, rate: float) -> None:
    """Set the learning rate of all weights."""
    for group in optimizer.param_groups:
        group["lr"] = rate


def batches_left(
    state: State, batches: Iterable, title: str, n_batches: int, n_steps: float = math.inf
) -> Iterator[Any]:
    """Yield the batches that are left of an epoch, a step each; between two it may be stopped.

    title, n_batches: of the epoch, for the first process's progress bar. n_steps: of the run.
    Raises `Stopped`, or `UserError` after a loss or gradient that was not finite.
    """
    from tqdm import tqdm

    state.begin_epoch()
    off, n_done = None if distributed.is_first() else True, state.progress.batch
    for batch in tqdm(batches, title, n_batches, initial=n_done, disable=off, leave=False):
        if state.progress.step >= n_steps:
            break
        yield batch
        raise_if_stopped()
    require_finite(state)


def generator(device: torch.device, seed: int, *names: str | int) -> torch.Generator:
    """Return a generator of its own for a use in a step: nothing depends on earlier draws."""
    return torch.Generator(device).manual_seed(stream_seed(seed, *names))


def take_step(state: State, loss: Tensor, grad_clip: float) -> None:
    """Step against the gradient of ``loss`` (), of the whole batch, and count the step.

    grad_clip: the largest norm of the gradient, 0 for any. Raises `UserError` some steps after a
    loss or gradient that was not finite.
    """
    progress, (_, world_size) = state.progress, distributed.place()
    state.optimizer.zero_grad(set_to_none=True)
    (loss * world_size).backward()  # since gradients are averaged over the processes
    norm = nn.utils.clip_grad_norm_(state.weights, grad_clip or math.inf)
    state.optimizer.step()

    now = time.monotonic()
    progress.train_seconds += now - state.since
    state.since = now
    finite = torch.isfinite(loss.detach() + norm)
    is_first = (state.first_bad < 0) & ~finite
    state.first_bad = torch.where(is_first, progress.batch, state.first_bad)
    progress.step, progress.batch = progress.step + 1, progress.batch + 1
    if progress.step % CHECK_FINITE_EVERY == 0:
        require_finite(state)


def require_finite(state: State) -> None:
    """Raise `UserError` when a loss or gradient of this epoch was not finite."""
    progress, batch = state.progress, int(state.first_bad)
    if batch < 0:
        return
    step = progress.step - progress.batch + batch
    raise UserError(
        f"the loss or its gradient was not finite at step {step + 1} (epoch {progress.epoch + 1}, "
        f"batch {batch + 1}): lower optimizer.lr or set training.precision=fp32; the checkpoints "
        "from before are kept"
    )


@contextlib.contextmanager
def saving_on_stop(state: State, save: Callable[[], Any]) -> Iterator[None]:
    """Save where the run stands if it is stopped between two steps, or after the last.

    Not where several processes train: they do not stop after the same step.
    """
    try:
        yield
    except Stopped:
        if distributed.place()[1] == 1 and all_finite(state.totals, *state.weights):
            save()
        raise


def end_epoch(state: State) -> None:
    """Count an epoch, and begin the sums of the next one."""
    state.progress.epoch, state.progress.batch = state.progress.epoch + 1, 0
    state.totals.zero_()


def note_best(progress: Progress, reached: tuple[float, ...], slack: float = 0.0) -> bool:
    """Return whether the weights of this epoch are to be kept, and note what is the best so far.

    reached: metrics of validation; the first decides, the others where it is equal. Weights within
    ``slack`` of the best are kept too, but do not become the best.
    """
    best = progress.best
    kept = not best or reached > (best[0] - slack, *best[1:])
    if not best or reached > best:
        progress.best, progress.best_epoch = reached, progress.epoch
    return kept
