"""All that changes while a run goes on: what `last.pt` holds, and `best_model.pt` in part.

Random numbers are not in it: they follow from the seed and the step (see picking/seeds.py).
"""

import dataclasses
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from picking.errors import UserError
from picking.metrics.calibration import Calibration
from picking.pu_learning.priors import Priors
from picking.runs.checkpoints import (
    load_checkpoint,
    load_moments,
    load_weights,
    moments_of,
    reading,
    save_checkpoint,
)
from picking.training import loop
from picking.training.loop import Progress

# In a run's folder: what it goes on from, and its best weights
LAST, BEST = "checkpoints/last.pt", "checkpoints/best_model.pt"


@dataclasses.dataclass(kw_only=True)
class State(loop.State):
    """What changes while a run goes on.

    average: of the network's weights, exponential. initial: the weights that the run began with,
    where a share of them is kept in what is evaluated and saved. adaptive: float32 (3,), the
    running means behind `adaptive_threshold` (2) and `align_distribution` (1).
    """

    average: nn.Module | None
    initial: dict[str, Tensor] | None = None
    adaptive: Tensor
    priors: Priors = dataclasses.field(init=False)  # resolved, or loaded

    def save(self, path: Path) -> None:
        """Write last.pt."""
        save_checkpoint(
            path,
            {
                "kind": "pu_run",
                "network": self.network.state_dict(),
                "average": self.average.state_dict() if self.average else None,
                "initial": self.initial,
                "optimizer": moments_of(self.optimizer),
                "totals": self.totals,
                "adaptive": self.adaptive,
                "progress": dataclasses.asdict(self.progress),
                "priors": dataclasses.asdict(self.priors),
            },
        )

    def save_every(self, n_steps: int, path: Path) -> None:
        """Write last.pt after every ``n_steps`` of the run, unless a loss was not finite."""
        if self.progress.step % n_steps == 0:
            loop.require_finite(self)
            self.save(path)

    def save_best(
        self, path: Path, network: nn.Module, config: dict, wants: dict, threshold: float, val: dict
    ) -> None:
        """Write best_model.pt: the weights of ``network`` and all that is needed to use them.

        wants: how patches are made of a micrograph, `wants` of an input.
        """
        save_checkpoint(
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
        last = load_checkpoint(path, device)
        if last["kind"] != "pu_run":
            raise UserError(f"{path} is not the state of a run: start anew under another name")
        load_weights(self.network, last.get("network"), path)
        if self.average is not None:
            load_weights(self.average, last.get("average"), path)
        load_moments(self.optimizer, last.get("optimizer"), path)
        with reading(path):
            self.initial = last["initial"]
            self.totals.copy_(last["totals"])
            self.adaptive.copy_(last["adaptive"])
            self.progress = Progress(**last["progress"])
            self.priors = Priors(**last["priors"])


def load_best(path: Path, device: torch.device) -> dict[str, Any]:
    """Load what `State.save_best` wrote; raises `UserError` when it is another or damaged."""
    best = load_checkpoint(path, device)
    if best["kind"] != "pu_classifier":
        raise UserError(f"{path} is no model to evaluate: give best_model.pt")
    return best


def keep_calibration(path: Path, best: dict[str, Any], calibration: Calibration | None) -> None:
    """Write best_model.pt once more with the calibration, where there is one.

    best: what the file holds, which gets it too.
    """
    if calibration is not None:
        best["calibration"] = calibration._asdict()
        save_checkpoint(path, best)


@torch.no_grad()
def update_average(state: State, highest_decay: float, step: int) -> None:
    """Move the weights of the average, if one is kept, to the network's.

    By 1 - min(highest, (1 + t) / (10 + t)), t being the step; buffers, batch norm's statistics, are
    copied.
    """
    average, network = state.average, state.network
    if average is None:
        return
    decay = min(highest_decay, (1 + step) / (10 + step))
    for old, new in zip(average.parameters(), network.parameters(), strict=True):
        old.lerp_(new, 1 - decay)
    for buffer, source in zip(average.buffers(), network.buffers(), strict=True):
        buffer.copy_(source)


@torch.no_grad()
def mix_initial(
    shown: nn.Module, trained: nn.Module, initial: dict[str, Tensor], share: float
) -> None:
    """Give ``shown`` the weights of ``trained`` and, by a share, those that the run began with.

    What forty picks taught is kept, and less is lost of what was known before. Wortsman et al.,
    Robust fine-tuning of zero-shot models (WiSE-FT), CVPR 2022.
    """
    mixed = {
        name: value.lerp(initial[name], share) if value.is_floating_point() else value
        for name, value in trained.state_dict().items()
    }
    shown.load_state_dict(mixed)
