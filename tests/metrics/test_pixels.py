import numpy as np
import pytest
import torch
from sklearn import metrics
from torch._subclasses.fake_tensor import FakeTensorMode

from picking.errors import UserError
from picking.mask_values import IGNORE
from picking.metrics.pixels import add, new_counts, pixel_metrics

SHAPE = (4, 160, 160)
# Fraction of particle pixels, and logits from (normal numbers, is a particle).
CASES = {
    "random": (0.3, lambda noise, y: noise),
    "well separated": (0.2, lambda noise, y: noise + 14 * y - 7),
    "overlapping": (0.2, lambda noise, y: noise + 1.5 * y - 3),
    "the wrong way round": (0.2, lambda noise, y: 2 * noise - 2 * y),
    "strongly imbalanced": (0.002, lambda noise, y: 2 * noise + 5 * y - 6),
    "mostly particle": (0.95, lambda noise, y: noise + y),
    "saturated": (0.2, lambda noise, y: 40 * noise + 90 * y - 60),
    "saturated and tied": (0.2, lambda noise, y: np.where(noise + 2 * y > 1, 1000.0, -1000.0)),
    "tied": (0.3, lambda noise, y: (noise + y).round(1)),
    "all alike": (0.3, lambda noise, y: np.full(y.shape, -1.7)),
}


def pixels(case, seed=0, shape=SHAPE):
    """Logits (B, 1, h, w) and masks."""
    fraction, logit = CASES[case]
    rng = np.random.default_rng(seed)
    masks = (rng.random(shape) < fraction).astype(np.uint8)
    z = logit(rng.normal(size=shape), masks.astype(float)).astype(np.float32)
    return torch.from_numpy(z).unsqueeze(1), torch.from_numpy(masks)


def counted(z, masks):
    counts = new_counts()
    add(counts, z, masks)
    return counts


@pytest.mark.parametrize("case", CASES)
def test_metrics_agree_with_scikit_learn_on_all_pixels(case):
    z, masks = pixels(case)
    result = pixel_metrics(counted(z, masks))
    y, score = masks.numpy().ravel(), z.double().numpy().ravel()
    called = score >= 0
    assert result["precision"] == (metrics.precision_score(y, called) if called.any() else None)
    assert result["recall"] == metrics.recall_score(y, called)
    assert result["f1_score"] == pytest.approx(metrics.f1_score(y, called), rel=1e-14)
    assert result["iou"] == metrics.jaccard_score(y, called)
    assert result["base_rate"] == y.mean()
    assert result["auc"] == pytest.approx(metrics.roc_auc_score(y, score), abs=1e-4)
    assert result["ap"] == pytest.approx(metrics.average_precision_score(y, score), abs=1e-4)


@pytest.mark.parametrize("case", CASES)
def test_best_f1_is_the_highest_there_is_and_its_threshold_reaches_it(case):
    z, masks = pixels(case)
    result = pixel_metrics(counted(z, masks))
    y, score = masks.numpy().ravel(), z.double().numpy().ravel()
    precision, recall, _ = metrics.precision_recall_curve(y, score)
    highest = (2 * precision * recall / np.maximum(precision + recall, 1e-9)).max()
    assert result["best_f1"] == pytest.approx(highest, abs=2e-3)
    assert result["best_f1"] >= result["f1_score"]
    with np.errstate(over="ignore"):
        called = 1 / (1 + np.exp(-score)) >= result["best_f1_threshold"]
    assert metrics.f1_score(y, called) == pytest.approx(result["best_f1"], abs=1e-6)


@pytest.mark.parametrize(
    ("background", "particle", "between"), [(-1, 3, 1), (-1000, 1000, 0), (-7, -2, -4.5)]
)
def test_the_best_threshold_lies_midway_between_background_and_particles(
    background, particle, between
):
    masks = torch.tensor([[[0, 1], [1, 0]]], dtype=torch.uint8)
    z = torch.where(masks == 1, float(particle), float(background))
    result = pixel_metrics(counted(z, masks))
    assert result["best_f1"] == 1
    expected = 1 / (1 + np.exp(-between))
    assert result["best_f1_threshold"] == pytest.approx(expected, rel=1e-3)


def test_adding_in_pieces_equals_adding_all_at_once():
    z, masks = pixels("overlapping")
    at_once, pieces = counted(z, masks), new_counts()
    for image, mask in zip(z, masks, strict=True):
        add(pieces, image[None], mask[None])
    assert torch.equal(pieces, at_once)
    assert at_once.dtype == torch.int64 and at_once.sum() == masks.numel()


def test_ignored_pixels_take_no_part_even_when_their_logits_are_not_finite():
    z, masks = pixels("overlapping")
    ignored = torch.rand(SHAPE, generator=torch.Generator().manual_seed(0)) < 0.4
    valid = pixel_metrics(counted(z.squeeze(1)[~ignored][None, None], masks[~ignored][None]))
    z[ignored.unsqueeze(1)] = np.nan
    masks[ignored] = IGNORE
    assert pixel_metrics(counted(z, masks)) == valid


def test_a_logit_of_zero_is_called_particle_and_the_next_one_below_is_not():
    below = -torch.finfo(torch.float32).tiny
    z = torch.tensor([[[0.0, -0.0, -below, below, -1e-9, 1e-9]]])
    result = pixel_metrics(counted(z, torch.tensor([[[1, 1, 1, 0, 0, 1]]], dtype=torch.uint8)))
    assert (result["precision"], result["recall"]) == (1, 1)


def test_bins_are_ordered_as_logits_are():
    # One pixel in each of many bins, the particles above all others: no pair is in a wrong order.
    z = torch.cat([torch.linspace(-250, 250, 4001), torch.linspace(-0.5, 0.5, 1001)]).sort()[0]
    for n_background in (1, 1000, 2501, 5001):
        masks = (torch.arange(len(z)) >= n_background).to(torch.uint8)
        result = pixel_metrics(counted(z[None, None], masks[None, None]))
        assert result["auc"] == pytest.approx(1, abs=1e-3) and result["best_f1"] > 0.999


def test_half_precision_logits_count_as_their_values_in_full_precision():
    z, masks = pixels("overlapping")
    for half in (z.half(), z.bfloat16()):
        assert torch.equal(counted(half, masks), counted(half.float(), masks))


def test_metrics_without_a_denominator_are_none():
    z = torch.full((1, 1, 2, 2), -3.0)
    nothing = pixel_metrics(new_counts())
    assert set(nothing.values()) == {None}
    no_particle = pixel_metrics(counted(z, torch.zeros(1, 2, 2, dtype=torch.uint8)))
    assert no_particle.pop("base_rate") == 0
    assert set(no_particle.values()) == {None}
    no_background = pixel_metrics(counted(z, torch.ones(1, 2, 2, dtype=torch.uint8)))
    assert no_background["auc"] is None and no_background["precision"] is None
    assert (no_background["recall"], no_background["f1_score"], no_background["ap"]) == (0, 0, 1)
    assert no_background["best_f1"] == 1 and no_background["best_f1_threshold"] < 0.048


@pytest.mark.parametrize("broken", [np.nan, -np.nan, np.inf, -np.inf])
def test_logits_that_are_not_finite_are_an_error_with_their_number(broken):
    z, masks = pixels("random")
    z[0, 0, :3, 0] = broken
    with pytest.raises(UserError, match=r"3 of 102,400 logits are not finite.*optimizer\.lr"):
        pixel_metrics(counted(z, masks))


def test_on_a_gpu_counts_stay_there_and_nothing_waits_for_a_value():
    with FakeTensorMode():  # asking a fake tensor for its value raises
        z = torch.empty(2, 1, 8, 8, device="cuda")
        masks = torch.empty(2, 8, 8, dtype=torch.uint8, device="cuda")
        try:
            z[0] + 1
        except RuntimeError as error:
            pytest.skip(f"this torch cannot fake a GPU without a driver: {error}")
        counts = new_counts("cuda")
        add(counts, z, masks)
        assert counts.device.type == "cuda"
