"""What a run learns from: patches, or windows about a few picks; and how a network scores them.

`open_input` decides which of the two a store holds. Nothing else asks: both classes have the same
methods, so that training, priors, log and checkpoints are written once. P are the labelled rows of
a batch, which come first, N those about known negatives, U the others; z are logits, (n,).
"""

import dataclasses
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from picking.config import AugmentationConfig, ModelConfig, PUConfig, TrainingConfig
from picking.errors import UserError, raise_if_stopped
from picking.metrics import classification
from picking.metrics.calibration import Calibration
from picking.micrographs.preparation import PREPARATION
from picking.pu_learning.calibration import calibrate
from picking.runs import distributed
from picking.seeds import stream
from picking.stores.patches import NEAR_PICK, NO_PARTICLE, UNKNOWN, PatchStore
from picking.training.augment import strong_view, to_float, weak_view, window_views
from picking.training.scoring import autocast


@dataclasses.dataclass(frozen=True)
class _Rows:
    """Rows of a store; a batch to learn from is ``input[rows]``.

    side_px: of what the network sees. truth_known: whether the class of U is known too. note: for
    the log.
    """

    store: PatchStore
    side_px: int
    augmentation: AugmentationConfig
    truth_known: ClassVar[bool] = True
    note: ClassVar[str] = ""

    def __len__(self) -> int:
        return len(self.store)

    @property
    def wants(self) -> dict[str, Any]:
        """What picking must do to a micrograph to get such input: goes into checkpoints."""
        return {
            "patch_size_px": self.store.patch_size_px,
            "preparation": PREPARATION,
            "coarseness": self.store.coarseness,
            **(self.store.windows or {}),
        }


class Patches(_Rows):
    """Patches of known class, some of them labelled; a network has one logit for each."""

    def __getitem__(self, rows: np.ndarray) -> np.ndarray:
        """Return a copy of these rows' patches, uint8 (n, p, p)."""
        return self.store[rows]

    def check(self, model: ModelConfig) -> None:
        """Raise `UserError` when the patches do not suit the network."""
        if model.backbone == "unet":
            raise UserError(
                f"model.backbone is unet, but {self.store.folder} holds patches: choose a ResNet"
            )
        if self.side_px > self.store.patch_size_px:
            raise UserError(
                f"data.input_size_px is {self.side_px}, but the store's patches have "
                f"{self.store.patch_size_px} px: choose that or less, or make larger patches"
            )

    def views(
        self, patches: Tensor, n_p: int, n_n: int, generator: torch.Generator
    ) -> tuple[Tensor, Tensor, tuple[Tensor, ...]]:
        """Return weak views of a batch, strong views of its U, and what `split` needs: nothing.

        patches: uint8 (B, p, p), ``n_p`` of P and none of N. Returns float32 (B, 1, s, s) and
        (B - n_p, 1, s, s), on the generator's device.
        """
        seen = self._shrunk(patches, generator.device)
        weak = weak_view(seen, generator, self.augmentation)
        return weak, strong_view(seen[n_p:], generator, self.augmentation), ()

    def weak_views(
        self, patches: Any, n_p: int, generator: torch.Generator
    ) -> tuple[Tensor, tuple[Tensor, ...]]:
        """Return the weak views of `views`, of P and U, and what `split` needs."""
        return weak_view(self._shrunk(patches, generator.device), generator, self.augmentation), ()

    def split(
        self, z_p: Tensor, z_n: Tensor, z_u: Tensor, known: Sequence[Tensor]
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Return the logits of the labelled, the unlabeled and the negatives, and their weights."""
        return z_p, z_u, z_n, torch.ones_like(z_n)

    def unlabeled(self, z_u: Tensor, known: Sequence[Tensor]) -> Tensor:
        """Return the logits of the unlabeled, weak or strong: of patches, all."""
        return z_u

    def logits(self, network: nn.Module, patches: np.ndarray, device: torch.device) -> Tensor:
        """Return the logits (B,) of patches as stored, uint8 (B, p, p)."""
        return network(to_float(self._shrunk(patches, device)))

    def _shrunk(self, patches: Tensor | np.ndarray, device: torch.device) -> Tensor:
        """Bring uint8 (B, p, p) to the device and, by block means, to uint8 (B, s, s)."""
        patches = torch.as_tensor(patches).to(device, non_blocking=True)
        if patches.shape[-1] == self.side_px:
            return patches
        smaller = F.adaptive_avg_pool2d(patches.float().unsqueeze(1), self.side_px).squeeze(1)
        return smaller.round_().to(torch.uint8)

    def held_out(
        self, network: nn.Module, rows: np.ndarray, settings: TrainingConfig, device: torch.device
    ) -> tuple[np.ndarray, np.ndarray]:
        """Return the scores of what is labelled and of what is not among these rows."""
        probability, labeled = score(network, self, settings, device), self.store.labeled[rows]
        return probability[rows][labeled], probability[rows][~labeled]

    def threshold(self, probability: np.ndarray) -> float:
        """Return the threshold that goes with a checkpoint: the one of the highest F1."""
        return classification.best_f1_threshold(self.store.label, probability)

    def slack(self, val: dict) -> float:
        """Return how far AUC may fall below the best and the weights still be kept."""
        return 0.0

    def calibration(
        self, network: nn.Module, prior: float, settings: TrainingConfig, device: torch.device
    ) -> Calibration | None:
        """Return what makes probabilities of scores: of patches nothing does."""
        return None


class Windows(_Rows):
    """Windows about a few picks and of anywhere; a U-Net has a logit for every place of a crop.

    Places near a pick are labelled, in any window; the class of the others is not known, unless
    somebody said that they are no particle. See picking/preprocessing/windows/. A window is at
    least twice as wide as ``side_px``, the crop that the network sees. P are the windows about
    picks, N those about what is no particle.
    """

    truth_known: ClassVar[bool] = False
    note: ClassVar[str] = (
        "Nothing is known of what is not labelled, so the checkpoint is chosen by the AUC of "
        "labelled against unlabeled windows on the held-out micrographs: the last one that is "
        "within a standard error of the best before it. Particles among the unlabeled count as "
        "errors there: AUC is below what it would be against the truth, and precision, F1 and ECE "
        "say nothing of picking. pick_particles.py --evaluate does, on a micrograph picked in full"
    )

    def __getitem__(self, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return copies of these rows' windows and what is known of their places.

        Two of uint8 (n, S, S).
        """
        return self.store[rows], np.array(self.store.picked[rows])

    def check(self, model: ModelConfig) -> None:
        """Raise `UserError` when the windows do not suit the network."""
        if model.backbone != "unet":
            raise UserError(
                f"model.backbone is {model.backbone}, but {self.store.folder} holds windows: "
                "choose unet"
            )
        if self.side_px % 2**model.depth:
            raise UserError(
                f"data.input_size_px is {self.side_px}, but with model.depth {model.depth} it "
                f"must be a multiple of {2**model.depth}"
            )
        if self.side_px > self.store.patch_size_px // 2:
            raise UserError(
                f"data.input_size_px is {self.side_px}, but of windows of "
                f"{self.store.patch_size_px} px at most half is seen at once: lower it"
            )

    def views(
        self, batch: Sequence[Tensor], n_p: int, n_n: int, generator: torch.Generator
    ) -> tuple[Tensor, Tensor, tuple[Tensor, ...]]:
        """Return weak views of a batch, strong views of its U, and what `split` needs.

        batch: windows and what is known of their places, two of uint8 (B, S, S), ``n_p`` of P and
        ``n_n`` of N. Returns float32 (B, 1, s, s) and (B - n_p - n_n, 1, s, s), place for place the
        same; and what is known of the places of P, N and U, three of uint8 (n, s, s).
        """
        windows, known = (
            torch.as_tensor(part).to(generator.device, non_blocking=True) for part in batch
        )
        weak, strong, places = window_views(
            windows, known, n_p + n_n, self.side_px, self.store.windows["reach_px"], generator,
            self.augmentation,
        )  # fmt: skip
        return weak, strong, tuple(places.split([n_p, n_n, len(strong)]))

    def weak_views(
        self, batch: Any, n_p: int, generator: torch.Generator
    ) -> tuple[Tensor, tuple[Tensor, ...]]:
        """Return the weak views of `views`, of P and U, and what `split` needs."""
        weak, _, known = self.views(batch, n_p, 0, generator)
        return weak, known

    def split(
        self, z_p: Tensor, z_n: Tensor, z_u: Tensor, known: Sequence[Tensor]
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Return the logits of the labelled, the unlabeled and the negatives, and their weights.

        known: of the places of P, N and U, uint8 (n,). Labelled are the places near a pick, and
        unlabeled those of U of which nothing is known. Negatives are the known ones of N, which
        were clicked, and of U. Where there are both, those of U weigh no more in all than those of
        N, which are few beside the places of a complete micrograph.
        """
        of_p, of_n, of_u = known
        labelled = torch.cat(
            [z[of == NEAR_PICK] for z, of in ((z_p, of_p), (z_n, of_n), (z_u, of_u))]
        )
        clicked, others = z_n[of_n == NO_PARTICLE], z_u[of_u == NO_PARTICLE]
        weight = min(1.0, len(clicked) / len(others)) if len(clicked) and len(others) else 1.0
        weights = torch.cat([torch.ones_like(clicked), torch.full_like(others, weight)])
        return labelled, self.unlabeled(z_u, known), torch.cat([clicked, others]), weights

    def unlabeled(self, z_u: Tensor, known: Sequence[Tensor]) -> Tensor:
        """Return the logits, weak or strong, of the places of U of which nothing is known."""
        return z_u[known[2] == UNKNOWN]

    def logits(self, network: nn.Module, windows: np.ndarray, device: torch.device) -> Tensor:
        """Return the logits (B,) of the middles, px [S // 2, S // 2], of windows uint8 (B, S, S).

        The middle comes to lie at px [s // 2, s // 2] of a crop.
        """
        middle = slice(start := windows.shape[-1] // 2 - self.side_px // 2, start + self.side_px)
        seen = torch.as_tensor(windows).to(device, non_blocking=True)[:, middle, middle]
        return network(to_float(seen))[:, 0, self.side_px // 2, self.side_px // 2]

    @torch.no_grad()
    def held_out(
        self, network: nn.Module, rows: np.ndarray, settings: TrainingConfig, device: torch.device
    ) -> tuple[np.ndarray, np.ndarray]:
        """Return scores of places near a pick and of unknown ones, one of each window.

        Positives among the unlabeled lie anywhere near a particle; the labelled must too, so each
        of them is scored at a random place near its pick. Processes score a part each and get all.
        """
        network.eval()
        labeled, reach = self.store.labeled[rows], int(self.store.windows["reach_px"])
        offsets = np.argwhere(np.ones((2 * reach + 1,) * 2)) - reach
        offsets = offsets[(offsets**2).sum(axis=1) <= reach**2]
        rng = stream(settings.seed, "estimate", "places")
        moved = {row: rng.choice(offsets) for row in rows[labeled]}
        scores = torch.zeros(len(rows), dtype=torch.float64, device=device)
        n_parts = math.ceil(len(rows) / settings.eval_batch_size)
        rank, world_size = distributed.place()
        for part in np.array_split(np.arange(len(rows)), n_parts)[rank::world_size]:
            windows = self.store[rows[part]]
            for i in np.flatnonzero(labeled[part]):
                windows[i] = np.roll(windows[i], moved[rows[part][i]], axis=(0, 1))
            scores[part] = torch.sigmoid(self.logits(network, windows, device).double())
        distributed.add_up(scores)
        middle = self.store.patch_size_px // 2
        unknown = self.store.picked[rows, middle, middle] == UNKNOWN
        probability = scores.cpu().numpy()
        return probability[labeled], probability[~labeled & unknown]

    def threshold(self, probability: np.ndarray) -> float:
        """Return 0.5: the best one against labels is no use where most are not labelled."""
        return 0.5

    def slack(self, val: dict) -> float:
        """Return a standard error of AUC: of epochs that labels cannot tell apart, take the last.

        val: metrics of validation.
        """
        return classification.auc_standard_error(val["auc"], val["n_positive"], val["n_negative"])

    def calibration(
        self, network: nn.Module, prior: float, settings: TrainingConfig, device: torch.device
    ) -> Calibration | None:
        """Return what makes probabilities of the scores of candidates, see `calibrate`.

        prior: the fraction of places near a particle where the store does not know it.
        """
        known = self.store.counts["pool_prior"]
        how = (settings.seed, settings.precision, device)
        return calibrate(network.eval(), self.store, self.side_px, known or prior, *how)


Input = Patches | Windows


def open_input(folder: Path, split: str, config: PUConfig) -> Input:
    """Open a split of a patch store; raises `UserError` when it does not suit the config."""
    store = PatchStore(folder, split)
    kind = Patches if store.windows is None else Windows
    opened = kind(store, config.data.input_size_px, config.augmentation)
    opened.check(config.model)
    return opened


@torch.no_grad()
def score(
    network: nn.Module, data: Input, settings: TrainingConfig, device: torch.device
) -> np.ndarray:
    """Return the probability of the positive class of every patch, float64 (n,).

    Of windows it is that of their middle. Processes score a part each and get all of them.
    """
    network.eval()
    n, size = len(data), settings.eval_batch_size
    probability = torch.zeros(n, dtype=torch.float64, device=device)
    for start in distributed.share_of_batches(n, size):
        raise_if_stopped()
        rows = slice(start, start + size)
        with autocast(settings.precision, device):
            z = data.logits(network, data.store[rows], device)
        probability[rows] = torch.sigmoid(z.double())
    distributed.add_up(probability)
    if not torch.isfinite(probability).all():
        raise UserError(
            "the network's scores are not finite: lower optimizer.lr or set training.precision=fp32"
        )
    return probability.cpu().numpy()
