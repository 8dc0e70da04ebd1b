"""All that changes while a run goes on: what `last.pt` holds, and `best_model.pt` in part.

Random numbers are not in it: they follow from the seed and the step (see picking/seeds.py).
"""

import dataclasses
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from picking.config import PUConfig, number
from picking.errors import UserError
from picking.pu_learning.priors import Priors
from picking.runs import checkpoints, folder


@dataclasses.dataclass
class Progress:
    """Where a run stands; saved in last.pt."""

    epoch: int = number(0, 0)  # epochs finished
    batch: int = number(0, 0)  # batches done of the epoch under way
    step: int = number(0, 0)
    best_auc: float = -1.0
    best_epoch: int = number(0, 0)
    train_seconds: float = number(0.0, 0)


@dataclasses.dataclass
class State:
    """All that changes while a run goes on, and nothing else: what last.pt holds.

    totals: float64, sums of `reports.STEP_FIGURES` over the epoch so far. adaptive: float32 (3,),
    the running means behind `adaptive_threshold` (2) and `align_distribution` (1).
    """

    network: nn.Module
    average: nn.Module | None
    optimizer: torch.optim.Optimizer
    totals: Tensor
    adaptive: Tensor
    progress: Progress = dataclasses.field(default_factory=Progress)
    priors: Priors | None = None

    def save(self, path: Path) -> None:
        """Write last.pt."""
        folder.save_checkpoint(
            path,
            {
                "kind": "pu_run",
                "network": self.network.state_dict(),
                "average": self.average.state_dict() if self.average else None,
                "optimizer": checkpoints.moments_of(self.optimizer),
                "totals": self.totals,
                "adaptive": self.adaptive,
                "progress": dataclasses.asdict(self.progress),
                "priors": dataclasses.asdict(self.priors) if self.priors else None,
            },
        )

    def save_best(
        self,
        path: Path,
        network: nn.Module,
        config: dict,
        wants: dict,
        threshold: float,
        val: dict,
    ) -> None:
        """Write best_model.pt: the weights of ``network`` and all that is needed to use them.

        wants: how patches are made of a micrograph, `wants` of an input.
        """
        assert self.priors is not None
        folder.save_checkpoint(
            path,
            {
                "kind": "pu_classifier",
                "config": config,
                "input": wants,
                "network": network.state_dict(),
                "threshold": threshold,
                "epoch": self.progress.epoch,
                "step": self.progress.step,
                "val": val,
                "priors": dataclasses.asdict(self.priors),
            },
        )

    def load(self, path: Path, device: torch.device) -> None:
        """Read last.pt."""
        last = folder.load_checkpoint(path, device)
        if last["kind"] != "pu_run":
            raise UserError(f"{path} is not the state of a run: start anew under another name")
        folder.load_weights(self.network, last.get("network"), path)
        if self.average is not None:
            folder.load_weights(self.average, last.get("average"), path)
        checkpoints.load_optimizer(self.optimizer, last.get("optimizer"), path)
        checkpoints.load_tensor(self.totals, last.get("totals"), path)
        checkpoints.load_tensor(self.adaptive, last.get("adaptive"), path)
        self.progress = checkpoints.as_dataclass(Progress, last.get("progress"), path)
        self.priors = checkpoints.as_dataclass(Priors, last.get("priors"), path)


def require_place(
    progress: Progress, n_epochs: int, n_steps: int, steps_per_epoch: int, path: Path
) -> None:
    """Raise `UserError` when last.pt stands where no run of so many epochs and steps can."""
    steps_before = progress.epoch * steps_per_epoch + progress.batch
    in_place = progress.epoch <= n_epochs and progress.batch <= steps_per_epoch
    if not in_place or progress.step != min(steps_before, n_steps):
        raise checkpoints.damaged(path, f"it stands at step {progress.step} of {n_steps}")


def load_best(path: Path, device: torch.device) -> dict[str, Any]:
    """Load what `State.save_best` wrote; raises `UserError` when it is another or damaged."""
    best = folder.load_checkpoint(path, device)
    if best["kind"] != "pu_classifier":
        raise UserError(f"{path} is no model to evaluate: give best_model.pt")
    checkpoints.require(best, path, config=dict, network=dict, threshold=float, epoch=int)
    if not 0 <= best["threshold"] <= 1:
        raise checkpoints.damaged(path, "threshold is not from 0 to 1")
    checkpoints.as_dataclass(Priors, best.get("priors"), path)
    return best


def uses_average(config: PUConfig) -> bool:
    """Return whether an exponential average of the weights is kept."""
    return config.training.ema_decay > 0 or config.training.ema_teacher


@torch.no_grad()
def update_average(average: nn.Module, network: nn.Module, highest_decay: float, step: int) -> None:
    """Move the average's weights to the network's, by 1 - min(highest, (1 + t) / (10 + t)).

    Buffers, batch norm's statistics, are copied.
    """
    decay = min(highest_decay, (1 + step) / (10 + step))
    for old, new in zip(average.parameters(), network.parameters(), strict=True):
        old.lerp_(new, 1 - decay)
    for buffer, source in zip(average.buffers(), network.buffers(), strict=True):
        buffer.copy_(source)
