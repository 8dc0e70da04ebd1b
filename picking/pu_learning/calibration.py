"""The calibration of a network that learned from windows: from candidates on held-out micrographs.

Candidates are what picking finds (picking/detection/scores/peaks.py), here in whole windows. Those
in windows at random are a sample of all; since a known fraction of places lies near a particle, so
is how many of them are particles, about. Those at held-out picks are particles.
"""

import math

import numpy as np
import torch
from torch import nn

from picking.detection.scores.peaks import segmentation_picks
from picking.detection.scores.score_map import segmentation_map
from picking.errors import raise_if_stopped, warn
from picking.metrics.calibration import Calibration, fit_calibration
from picking.seeds import stream
from picking.stores.patches import PatchStore

N_WINDOWS = 128  # at random
RIM = 0.25  # of what the network sees in training: nearer to a window's edge it knows too little


def calibrate(
    network: nn.Module,
    store: PatchStore,
    side_px: int,
    prior: float,
    seed: int,
    precision: str,
    device: torch.device,
) -> Calibration | None:
    """Return what makes probabilities of scores; None, with a warning, where nothing tells it.

    network: a U-Net in evaluation mode. store: of windows that it did not learn from. side_px: of
    what it saw in training. prior: the fraction of places near a particle.
    """
    rim_px, reach_px = round(RIM * side_px), store.windows["reach_px"]
    inner_px = store.patch_size_px - 2 * rim_px
    particle_px = store.windows["scale"] * store.windows["diameter_px"]

    def candidates(row: int) -> tuple[np.ndarray, np.ndarray]:
        """Return where a window's candidates lie, px from its middle (n, 2), and their scores."""
        raise_if_stopped()
        window = np.array(store.patches[row])
        found = segmentation_picks(
            segmentation_map(network, window, window.shape, precision, device),
            "", particle_px, 2 * reach_px / particle_px,
        )  # fmt: skip
        return found.centres_px - (store.patch_size_px // 2 + 0.5), found.scores

    # 1. All candidates in windows at random, but near the rim
    unlabeled = np.flatnonzero(~store.labeled & ~store.about_negative)
    drawn = stream(seed, "calibration").permutation(unlabeled)[:N_WINDOWS]
    of_all = []
    for row in drawn.tolist():
        offsets_px, scores = candidates(row)
        of_all.append(scores[(np.abs(offsets_px) < inner_px / 2).all(axis=1)])
    n_expected = len(drawn) * inner_px**2 * prior / (math.pi * reach_px**2)

    # 2. Those at picks; where there is none, a particle was missed
    picked = []
    labeled = np.flatnonzero(store.labeled)
    for row in labeled.tolist():
        offsets_px, scores = candidates(row)
        distance_px = np.hypot(*offsets_px.T)
        if len(scores) and distance_px.min() <= particle_px / 2:
            picked.append(scores[np.argmin(distance_px)])
    found = (len(picked) + 1) / (len(labeled) + 1)  # as if one more were found: ten say little
    calibration = fit_calibration(np.concatenate(of_all), picked, n_expected, found)
    if calibration is None:
        warn(
            f"the scores are not calibrated: {len(picked)} of {len(labeled)} held-out picks have a "
            "candidate, and nothing tells particles from other candidates: choose a threshold with "
            "--expected-particles"
        )
    return calibration
