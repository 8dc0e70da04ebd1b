"""What is measured in the steps of an epoch."""

import pytest
import torch

from picking.config import PUConfig
from picking.pu_learning.log import warning_signs
from picking.pu_learning.train import STEP_METRICS, epoch_metrics, step_metrics
from picking.training.loop import Progress

TOTALS = {
    "pu_loss": 2.0,
    "consistency_loss": 1.0,
    "n_masked": 24,
    "n_masked_positive": 6,
    "n_pseudo_positive": 8,
    "sum_of_q": 10.0,
    "n_clipped": 1,
    "n_called_positive": 12,
    "logit_std": 6.0,
    "n_unlabeled": 32,
    "n_steps": 4,
}


def test_the_metrics_of_a_step_count_the_unlabeled():
    metrics = step_metrics(
        risk=torch.tensor(0.5),
        consistency=torch.tensor(0.25),
        mask=torch.tensor([True, True, True, False]),
        q=torch.tensor([0.5, 0.05, 0.95, 0.6]),
        clipped=torch.tensor(True),
        z_u=torch.tensor([0.0, -1.0, 1.0, 4.0]),
        z_n=torch.tensor([50.0, -50.0]),
    )
    assert metrics.dtype == torch.float64
    assert dict(zip(STEP_METRICS, metrics.tolist(), strict=True)) == {
        "pu_loss": 0.5,
        "consistency_loss": 0.25,
        "n_masked": 3,
        "n_masked_positive": 2,  # 0.5 counts as positive
        "n_pseudo_positive": 3,
        "sum_of_q": pytest.approx(2.1),
        "n_clipped": 1,
        "n_called_positive": 3,
        "logit_std": pytest.approx(3.5**0.5),
        "n_unlabeled": 4,
        "n_steps": 1,
    }


def test_where_nothing_is_unlabeled_its_metrics_are_of_nothing_and_no_sign_is_seen_in_them():
    nothing = torch.zeros(0)
    metrics = step_metrics(
        risk=torch.tensor(0.5),
        consistency=torch.tensor(0.0),
        mask=nothing.bool(),
        q=nothing,
        clipped=torch.tensor(False),
        z_u=nothing,
        z_n=torch.tensor([-2.0, -4.0]),
    )
    epoch = epoch_metrics(metrics.tolist())
    assert (epoch["train_loss"], epoch["logit_std"]) == (0.5, 1.0)
    for name in ("mask_rate", "mean_probability", "predicted_positive_share"):
        assert epoch[name] is None
    val = {"auc": 0.9, "predicted_positive_share": 0.1, "n_positive": 9, "n_negative": 90}
    recent = [{**epoch, "epoch": 3, "val": val}]
    progress = Progress(best=(0.9,), best_epoch=3)
    assert warning_signs(recent, progress, PUConfig(), 0.0, truth_known=False) == []


def test_the_metrics_of_an_epoch_are_means_over_its_steps_or_its_patches():
    totals = [TOTALS[name] for name in STEP_METRICS]
    assert epoch_metrics(totals) == {  # of 4 steps, 32 unlabeled patches or places
        "train_loss": 0.75,
        "pu_loss": 0.5,
        "consistency_loss": 0.25,
        "mask_rate": 24 / 32,
        "mask_rate_positive": 6 / 8,
        "mask_rate_negative": 18 / 24,
        "pseudo_positive_share": 6 / 24,
        "mean_probability": 10 / 32,
        "clipped_step_share": 1 / 4,
        "predicted_positive_share": 12 / 32,
        "logit_std": 1.5,
    }


def test_a_fraction_of_nothing_is_none():
    totals = {**TOTALS, "n_masked": 0, "n_masked_positive": 0, "n_pseudo_positive": 0}
    metrics = epoch_metrics(list(totals.values()))
    assert metrics["mask_rate"] == metrics["mask_rate_negative"] == 0
    assert metrics["mask_rate_positive"] is metrics["pseudo_positive_share"] is None
