"""Patches and windows as inputs: what is scored, what is split, what is refused."""

import numpy as np
import pytest
import torch
from torch import nn

from models import UNet
from picking.config import TrainingConfig
from picking.pu_learning.inputs import Windows, open_input, score
from picking.runs import distributed
from tests.fixtures.pu_runs import UNET, as_windows, config_with

CPU = torch.device("cpu")


@pytest.mark.parametrize(("window_px", "input_px"), [(32, 16), (33, 16), (35, 17)])
def test_the_score_of_a_window_is_what_a_map_says_of_its_middle(window_px, input_px):
    windows = np.random.default_rng(0).integers(0, 256, (20, window_px, window_px), dtype=np.uint8)
    found = score(nn.Identity(), Windows(windows, input_px, None), TrainingConfig(), CPU)
    z = (windows[:, window_px // 2, window_px // 2] - 128.0) / 20
    np.testing.assert_allclose(found, 1 / (1 + np.exp(-z)), rtol=1e-4)


def test_processes_score_the_windows_of_an_estimate_in_shares(store, tmp_path, monkeypatch):
    config = config_with(tmp_path, *UNET, "training.eval_batch_size=8")
    windows = open_input(as_windows(store, tmp_path), "train", config)
    arguments = (UNet(width=2, depth=2), np.arange(3, len(windows)), config.training, CPU)
    alone = np.concatenate(windows.held_out(*arguments))
    shares = []
    for rank in range(2):
        monkeypatch.setattr(distributed, "place", lambda rank=rank: (rank, 2))
        shares.append(np.concatenate(windows.held_out(*arguments)))
    assert all(0 < np.count_nonzero(share) < len(alone) for share in shares)
    np.testing.assert_array_equal(sum(shares), alone)


def test_places_near_a_pick_are_labelled_and_the_strong_views_keep_the_others(store, tmp_path):
    config = config_with(tmp_path, *UNET)
    windows = open_input(as_windows(store, tmp_path), "train", config)
    picked, others = np.flatnonzero(windows.store.labeled), np.flatnonzero(~windows.store.labeled)
    batch = windows[np.concatenate([picked[:3], others[:5]])]
    weak, strong, known = windows.views(batch, 3, 0, torch.Generator().manual_seed(0))
    assert weak.shape == (8, 1, 16, 16) and strong.shape == (5, 1, 16, 16)
    of_p, of_n, of_u = (part.flatten() for part in known)
    assert of_p.any() and not len(of_n) and not of_u.any()  # the fixture's others lie near none
    of_u[:7] = 1
    z_p, z_u = torch.arange(3 * 256.0), torch.arange(-5 * 256.0, 0)
    labelled, unlabeled, negative, _ = windows.split(z_p, z_p[:0], z_u, (of_p, of_n, of_u))
    assert labelled.tolist() == [*z_p[of_p == 1].tolist(), *z_u[:7].tolist()]
    assert torch.equal(unlabeled, z_u[7:]) and not len(negative)
    assert torch.equal(windows.unlabeled(z_u, (of_p, of_n, of_u)), z_u[7:])


def known_logits(*codes):
    """Logits that are all different, and what is known of their places."""
    known = [torch.tensor(one, dtype=torch.uint8) for one in codes]
    starts = np.cumsum([0, *(len(one) for one in codes)])
    return [torch.arange(len(k)) + float(s) for k, s in zip(known, starts, strict=False)], known


def test_each_place_is_in_one_term_of_the_risk_and_what_is_ignored_in_none():
    windows = Windows(None, 16, None)
    (z_p, z_n, z_u), known = known_logits([1, 0, 2, 3], [2, 0, 3, 1], [0, 1, 2, 3, 0, 2])
    labelled, unlabeled, negative, weights = windows.split(z_p, z_n, z_u, known)
    assert labelled.tolist() == [0, 7, 9]  # near a pick, in windows of any kind
    assert unlabeled.tolist() == windows.unlabeled(z_u, known).tolist() == [8, 12]
    assert negative.tolist() == [4, 10, 13]  # not those about picks, which are near particles all
    assert weights.tolist() == [1, 0.5, 0.5]  # the clicked one weighs as much as all others


def test_negatives_of_one_kind_all_weigh_the_same():
    windows = Windows(None, 16, None)
    for codes, n in ((([1], [2, 2], [0, 2]), 3), (([1], [], [0, 2, 2]), 2), (([1], [2], [0]), 1)):
        *_, weights = windows.split(*(parts := known_logits(*codes))[0], parts[1])
        assert weights.tolist() == [1.0] * n
