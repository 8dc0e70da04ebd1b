"""Losses against formulas written out in NumPy and numeric gradients."""

import math

import numpy as np
import pytest
import torch

from picking.mask_values import IGNORE
from picking.training.losses import (
    SEGMENTATION_PRESETS,
    adaptive_threshold,
    align_distribution,
    fixmatch_consistency,
    focal_dice,
    negative_risk,
    nnpu_risk,
    pnu_risk,
    surrogate,
    weak_probability,
)
from tests.fixtures.gpu import fake_gpu

ORDINARY = ([1.2, -0.3, 0.8], [0.4, -1.1, 2.0, -0.2, 0.9])
# Positives far above every unlabeled patch: the estimated risk of negatives is below 0.
OVERFITTED = ([4.0, 3.0, 5.0], [-3.0, -2.5, -4.0, -3.5, -2.0])


def l_numpy(z, loss):
    return np.log1p(np.exp(-z)) if loss == "logistic" else 1 / (1 + np.exp(z))


def nnpu_numpy(z_p, z_u, prior, unlabeled_prior, loss, beta, gamma):
    """Objective and risk, written out from the papers' formulas in float64."""
    z_p, z_u = np.asarray(z_p, float), np.asarray(z_u, float)
    s = (1 - prior) / (1 - unlabeled_prior)
    positive = prior * sum(l_numpy(z_p, loss)) / len(z_p)
    r_minus = sum(l_numpy(-z_u, loss)) / len(z_u)
    r_minus -= unlabeled_prior * sum(l_numpy(-z_p, loss)) / len(z_p)
    if r_minus >= -beta:
        return positive + s * r_minus, positive + s * r_minus
    return -gamma * s * r_minus, positive - s * beta


def kiryo_numpy(x, t, prior, loss, beta, gamma):
    """The reference implementation: one prior, x all logits, t = 1 for P and -1 for U."""
    positive, unlabeled = (t == 1).astype(float), (t == -1).astype(float)
    n_positive, n_unlabeled = positive.sum(), unlabeled.sum()
    y_positive, y_unlabeled = l_numpy(x, loss), l_numpy(-x, loss)
    positive_risk = np.sum(prior * positive / n_positive * y_positive)
    negative_risk = np.sum((unlabeled / n_unlabeled - prior * positive / n_positive) * y_unlabeled)
    if negative_risk < -beta:
        return -gamma * negative_risk, positive_risk - beta
    return positive_risk + negative_risk, positive_risk + negative_risk


def numeric_gradient(function, z, step=1e-6):
    z = np.asarray(z, float)
    each = np.eye(len(z)) * step
    return np.array([(function(z + e) - function(z - e)) / (2 * step) for e in each])


def torch_step(z_p, z_u, *args, **kwargs):
    """Objective, risk and both gradients of one step in float64."""
    z_p = torch.tensor(z_p, dtype=torch.float64, requires_grad=True)
    z_u = torch.tensor(z_u, dtype=torch.float64, requires_grad=True)
    objective, risk = nnpu_risk(z_p, z_u, *args, **kwargs)
    assert not risk.requires_grad
    objective.backward()
    return objective.item(), risk.item(), z_p.grad.numpy(), z_u.grad.numpy()


@pytest.mark.parametrize("loss", ["logistic", "sigmoid"])
@pytest.mark.parametrize(("logits", "clipped"), [(ORDINARY, False), (OVERFITTED, True)])
@pytest.mark.parametrize(("beta", "gamma"), [(0.0, 1.0), (0.05, 0.5), (9.0, 1.0)])
def test_step_equals_an_independent_computation_in_value_and_gradient(
    logits, clipped, loss, beta, gamma
):
    z_p, z_u = logits
    rest = (0.47, 0.231, loss, beta, gamma)
    r_minus = negative_risk(torch.tensor(z_p), torch.tensor(z_u), 0.231, loss)
    assert (r_minus.item() < -beta) == (clipped and beta < 9)  # beta lets it fall that far

    objective, risk, grad_p, grad_u = torch_step(z_p, z_u, *rest)
    expected_objective, expected_risk = nnpu_numpy(z_p, z_u, *rest)
    assert objective == pytest.approx(expected_objective, abs=1e-12)
    assert risk == pytest.approx(expected_risk, abs=1e-12)
    expected_p = numeric_gradient(lambda z: nnpu_numpy(z, z_u, *rest)[0], z_p)
    expected_u = numeric_gradient(lambda z: nnpu_numpy(z_p, z, *rest)[0], z_u)
    np.testing.assert_allclose(grad_p, expected_p, atol=1e-8)
    np.testing.assert_allclose(grad_u, expected_u, atol=1e-8)


@pytest.mark.parametrize("loss", ["logistic", "sigmoid"])
@pytest.mark.parametrize("logits", [ORDINARY, OVERFITTED])
def test_equal_priors_give_the_reference_implementation_of_kiryo(logits, loss):
    z_p, z_u = logits
    x, t = np.array(z_p + z_u), np.array([1] * len(z_p) + [-1] * len(z_u))
    objective, risk, grad_p, grad_u = torch_step(z_p, z_u, 0.4, 0.4, loss, 0.02, 0.7)
    expected_objective, expected_risk = kiryo_numpy(x, t, 0.4, loss, 0.02, 0.7)
    assert objective == pytest.approx(expected_objective, abs=1e-12)
    assert risk == pytest.approx(expected_risk, abs=1e-12)
    expected = numeric_gradient(lambda z: kiryo_numpy(z, t, 0.4, loss, 0.02, 0.7)[0], x)
    np.testing.assert_allclose(np.concatenate([grad_p, grad_u]), expected, atol=1e-8)


def test_the_sign_of_the_gradient_of_unlabeled_logits_turns_in_a_clipped_step():
    _, _, grad_p, grad_u = torch_step(*ORDINARY, 0.47, 0.231)
    assert (grad_u > 0).all() and (grad_p < 0).all()
    _, _, grad_p, grad_u = torch_step(*OVERFITTED, 0.47, 0.231)
    assert (grad_u < 0).all() and (grad_p > 0).all()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_logits_are_computed_with_in_float32(dtype):
    z_p, z_u = (torch.tensor(z).to(dtype) for z in ORDINARY)
    for loss in ("logistic", "sigmoid"):
        objective, risk = nnpu_risk(z_p, z_u, 0.47, 0.231, loss)
        expected, _ = nnpu_numpy(z_p.float(), z_u.float(), 0.47, 0.231, loss, 0.0, 1.0)
        assert objective.dtype == risk.dtype == torch.float32
        assert objective.item() == pytest.approx(expected, abs=1e-6)
    consistency, _ = fixmatch_consistency(z_u, z_u, 0.0)
    assert consistency.dtype == torch.float32


# Known negatives besides

NEGATIVE = [0.7, -2.0, 1.5, -0.4]
WEIGHTS = [1.0, 1.0, 0.25, 0.0]


def pnu_numpy(z_p, z_u, z_n, prior, unlabeled_prior, eta, loss, beta, gamma, weights):
    """Objective and risk by the formulas of Sakai et al., with the PU part of Kiryo et al."""
    w = np.ones(len(z_n)) if weights is None else np.asarray(weights, float)
    l_p, l_n = l_numpy(np.asarray(z_p, float), loss), l_numpy(-np.asarray(z_n, float), loss)
    r_pn = prior * sum(l_p) / len(l_p) + (1 - prior) * sum(w * l_n) / sum(w)
    parts = nnpu_numpy(z_p, z_u, prior, unlabeled_prior, loss, beta, gamma)
    return tuple((1 - eta) * r_pn + eta * part for part in parts)


@pytest.mark.parametrize("loss", ["logistic", "sigmoid"])
@pytest.mark.parametrize("logits", [ORDINARY, OVERFITTED])
@pytest.mark.parametrize("eta", [0.0, 0.3, 0.95, 1.0])
@pytest.mark.parametrize("weights", [None, WEIGHTS])
def test_a_step_with_negatives_equals_an_independent_computation(logits, loss, eta, weights):
    given = [np.array(z) for z in (*logits, NEGATIVE)]
    rest = (0.3, 0.231, eta, loss, 0.02, 0.7)
    w = None if weights is None else torch.tensor(weights, dtype=torch.float64)
    z = [torch.tensor(one, dtype=torch.float64, requires_grad=True) for one in given]
    objective, risk = pnu_risk(*z, *rest, w)
    assert not risk.requires_grad
    objective.backward()
    assert (objective.item(), risk.item()) == pytest.approx(
        pnu_numpy(*given, *rest, weights), abs=1e-12
    )
    for n, one in enumerate(z):

        def value(changed, n=n):
            return pnu_numpy(*given[:n], changed, *given[n + 1 :], *rest, weights)[0]

        np.testing.assert_allclose(one.grad, numeric_gradient(value, given[n]), atol=1e-8)


@pytest.mark.parametrize("logits", [ORDINARY, OVERFITTED])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_without_negatives_a_step_is_that_of_nnpu_to_the_last_bit(logits, dtype):
    def step(risk, *arguments):
        z = [torch.tensor(one, dtype=dtype, requires_grad=True) for one in logits]
        none = [torch.zeros(0, dtype=dtype)] if risk is pnu_risk else []
        found = risk(*z, *none, *arguments)
        found[0].backward()
        return [*found, *(one.grad for one in z)]

    wanted = step(nnpu_risk, 0.47, 0.231)
    for eta in (0.0, 0.3, 1.0):
        for one, other in zip(step(pnu_risk, 0.47, 0.231, eta), wanted, strict=True):
            assert torch.equal(one, other)


def test_without_unlabeled_a_step_is_that_of_positives_and_negatives():
    z_p, z_n = torch.tensor(ORDINARY[0]).double(), torch.tensor(NEGATIVE).double()
    wanted = 0.3 * l_numpy(z_p.numpy(), "logistic").mean()
    wanted += 0.7 * l_numpy(-z_n.numpy(), "logistic").mean()
    for eta in (0.0, 0.9, 1.0):
        found = pnu_risk(z_p, z_p[:0], z_n, 0.3, 0.0, eta)
        assert found[0].item() == found[1].item() == pytest.approx(wanted, abs=1e-12)


def test_both_parts_estimate_one_risk_where_the_negatives_are_a_sample_of_all():
    rng, n, prior, unlabeled_prior = np.random.default_rng(0), 400_000, 0.2, 0.05
    positive, negative = (torch.from_numpy(rng.normal(at, 1, n)) for at in (1.0, -1.0))
    is_positive = torch.from_numpy(rng.random(n) < unlabeled_prior)
    unlabeled = torch.where(is_positive, positive.flip(0), negative.flip(0))
    risks = [
        pnu_risk(positive, unlabeled, negative, prior, unlabeled_prior, eta)[1].item()
        for eta in (0.0, 0.5, 1.0)
    ]
    assert risks == pytest.approx([risks[0]] * 3, abs=4e-3)
    # Were known negatives left among the unlabeled, whose prior is that of the others, not so
    mixed = torch.cat([unlabeled, negative])
    assert abs(pnu_risk(positive, mixed, negative, prior, 0.05, 1.0)[1] - risks[0]) > 8e-3


def test_an_impossible_eta_or_a_side_without_patches_is_refused():
    z = torch.zeros(2)
    for eta in (-0.1, 1.1, float("nan")):
        with pytest.raises(ValueError, match="eta"):
            pnu_risk(z, z, z, 0.5, 0.3, eta)
    with pytest.raises(ValueError, match="0 positives"):
        pnu_risk(z[:0], z, z, 0.5, 0.3, 0.5)
    with pytest.raises(ValueError, match="0 unlabeled"):
        pnu_risk(z, z[:0], z[:0], 0.5, 0.3, 0.5)


def test_the_consistency_of_nothing_is_nothing():
    loss, mask = fixmatch_consistency(torch.zeros(0), torch.zeros(0, requires_grad=True), 0.9)
    loss.backward()
    assert loss.item() == 0 and not len(mask)


def test_huge_logits_keep_the_logistic_risk_finite():
    z = torch.tensor([1e4, -1e4], requires_grad=True)
    objective, _ = nnpu_risk(z, -z, 0.47, 0.231)
    objective.backward()
    assert torch.isfinite(objective) and torch.isfinite(z.grad).all()


@pytest.mark.parametrize("prior", [0.0, 1.0, -0.1, float("nan")])
def test_a_prior_out_of_range_is_refused(prior):
    with pytest.raises(ValueError, match="prior"):
        nnpu_risk(torch.zeros(2), torch.zeros(2), prior, 0.3)


def test_an_empty_side_or_an_unknown_loss_is_refused():
    with pytest.raises(ValueError, match="0 labelled"):
        nnpu_risk(torch.zeros(0), torch.zeros(2), 0.5, 0.3)
    with pytest.raises(ValueError, match="logistic, sigmoid"):
        surrogate(torch.zeros(2), "hinge")


def test_consistency_divides_by_the_batch_and_not_by_the_mask():
    z_weak = torch.tensor([4.0, -4.0, 0.1, 0.2])  # two confident, two not
    z_strong = torch.tensor([0.5, 0.5, -9.0, 9.0])
    loss, mask = fixmatch_consistency(z_weak, z_strong, 0.9)
    assert mask.tolist() == [True, True, False, False]
    # -ln σ(0.5) for the pseudo-positive and -ln(1 - σ(0.5)) for the pseudo-negative, over 4.
    expected = (math.log1p(math.exp(-0.5)) + math.log1p(math.exp(0.5))) / 4
    assert loss.item() == pytest.approx(expected, rel=1e-6)


def test_consistency_accepts_both_classes_at_the_same_confidence():
    logit = math.log(0.9 / 0.1)
    z_weak = torch.tensor([logit + 0.01, logit - 0.01, -logit - 0.01, -logit + 0.01])
    _, mask = fixmatch_consistency(z_weak, torch.zeros(4), 0.9)
    assert mask.tolist() == [True, False, True, False]


def test_consistency_gives_no_gradient_to_the_weak_view_nor_to_masked_strong_views():
    z_weak = torch.tensor([4.0, 0.1, -4.0], requires_grad=True)
    z_strong = torch.tensor([0.0, 0.0, 0.0], requires_grad=True)
    loss, mask = fixmatch_consistency(z_weak, z_strong, 0.9)
    loss.backward()
    assert z_weak.grad is None and not mask.requires_grad
    assert not weak_probability(z_weak).requires_grad
    # d BCE / dz = σ(z) - ŷ: towards 1 for the first, towards 0 for the last.
    np.testing.assert_allclose(z_strong.grad, [-0.5 / 3, 0.0, 0.5 / 3], atol=1e-7)


def test_consistency_without_a_confident_sample_is_zero_and_differentiable():
    z_strong = torch.zeros(3, requires_grad=True)
    loss, mask = fixmatch_consistency(torch.zeros(3), z_strong, 0.9)
    loss.backward()
    assert loss.item() == 0 and not mask.any() and (z_strong.grad == 0).all()


def test_a_threshold_for_each_sample_is_applied_to_that_sample():
    z_weak = torch.tensor([1.0, 1.0])  # q = 0.731
    _, mask = fixmatch_consistency(z_weak, torch.zeros(2), torch.tensor([0.7, 0.8]))
    assert mask.tolist() == [True, False]


def test_given_probabilities_replace_those_of_the_weak_view():
    z_weak, z_strong = torch.tensor([4.0]), torch.tensor([0.5])
    loss, mask = fixmatch_consistency(z_weak, z_strong, 0.9, torch.tensor([0.02]))
    assert mask.all() and loss.item() == pytest.approx(math.log1p(math.exp(0.5)))


def test_aligned_probabilities_are_bayes_rule_with_the_prior_exchanged():
    # Odds of q times the odds of π over the odds of the running mean.
    q = torch.tensor([0.2, 0.5, 0.9], dtype=torch.float64)
    aligned = align_distribution(q, torch.tensor(0.6, dtype=torch.float64), 0.25)
    odds = q / (1 - q) * (0.25 / 0.75) / (0.6 / 0.4)
    np.testing.assert_allclose(aligned, odds / (1 + odds), atol=1e-12)
    same = align_distribution(q, torch.tensor(0.25, dtype=torch.float64), 0.25)
    np.testing.assert_allclose(same, q, atol=1e-12)


def test_alignment_stays_finite_when_the_model_has_collapsed():
    for mean in (0.0, 1.0):
        aligned = align_distribution(torch.tensor([0.0, 0.5, 1.0]), torch.tensor(mean), 0.25)
        assert torch.isfinite(aligned).all()


def test_adaptive_threshold_follows_the_means_and_is_lower_for_the_rarer_class():
    q = torch.tensor([0.95, 0.1, 0.1, 0.05])
    threshold, state = adaptive_threshold(q, torch.tensor([0.5, 0.5]), decay=0.9)
    confidence = 0.9 * 0.5 + 0.1 * (0.95 + 0.9 + 0.9 + 0.95) / 4
    positive = 0.9 * 0.5 + 0.1 * (0.95 + 0.1 + 0.1 + 0.05) / 4
    np.testing.assert_allclose(state, [confidence, positive], atol=1e-6)
    rarer = confidence * positive / (1 - positive)
    np.testing.assert_allclose(threshold, [rarer, confidence, confidence, confidence], atol=1e-6)
    _, mask = fixmatch_consistency(torch.logit(q), torch.zeros(4), threshold)
    assert mask.all()


# Focal and Dice

PLAIN = {"alpha": 0.5, "gamma": 0.0}
ONLY_FOCAL = {"focal_weight": 1.0, "dice_weight": 0.0}
ONLY_DICE = {"focal_weight": 0.0, "dice_weight": 1.0}


def batch(seed=0, shape=(3, 8, 10), ignored=0.2):
    """Logits (float64) that are somewhat right, and masks with ignored pixels."""
    rng = np.random.default_rng(seed)
    masks = (rng.random(shape) < 0.3).astype(np.uint8)
    z = torch.from_numpy(rng.normal(size=shape) * 2 + 2 * masks - 1)
    masks[rng.random(shape) < ignored] = IGNORE
    return z, torch.from_numpy(masks)


def numpy_loss(z, masks, alpha, gamma, focal_weight, dice_weight):
    """Pixel by pixel from the formula."""
    z, masks = z.numpy().ravel(), masks.numpy().ravel()
    focal, overlap, predicted, particle, n = 0.0, 0.0, 0.0, 0.0, 0
    for logit, y in zip(z, masks, strict=True):
        if y == IGNORE:
            continue
        p = 1 / (1 + np.exp(-logit))
        p_t, alpha_t = (p, alpha) if y == 1 else (1 - p, 1 - alpha)
        focal -= alpha_t * (1 - p_t) ** gamma * np.log(p_t)
        overlap, predicted, particle, n = overlap + p * y, predicted + p, particle + y, n + 1
    dice = 1 - (2 * overlap + 1) / (predicted + particle + 1)
    return focal_weight * focal / n + dice_weight * dice


@pytest.mark.parametrize(
    "arguments",
    [
        *SEGMENTATION_PRESETS.values(),
        {**PLAIN, **ONLY_FOCAL},
        {"alpha": 0.9, "gamma": 0.5, **ONLY_FOCAL},
        {**PLAIN, **ONLY_DICE},
    ],
)
def test_focal_dice_equals_an_independent_computation_and_its_gradient_the_numeric_one(arguments):
    z, masks = batch()
    expected = numpy_loss(z, masks, **arguments)
    assert focal_dice(z, masks, **arguments).item() == pytest.approx(expected, abs=1e-12)
    with_channel = focal_dice(z.float().unsqueeze(1), masks, **arguments)
    assert with_channel.shape == () and with_channel.item() == pytest.approx(expected, rel=1e-5)
    z.requires_grad_()
    assert torch.autograd.gradcheck(lambda logits: focal_dice(logits, masks, **arguments), z)


def test_ignored_pixels_have_no_influence_and_no_gradient_whatever_their_logit():
    z, masks = batch()
    ignored = masks == IGNORE
    arguments = SEGMENTATION_PRESETS["default"]
    expected = focal_dice(z, masks, **arguments)
    wild = torch.tensor([np.nan, np.inf, -np.inf, 1e30], dtype=z.dtype)
    broken = z.clone()
    broken[ignored] = wild[torch.arange(int(ignored.sum())) % 4]
    broken.requires_grad_()
    loss = focal_dice(broken, masks, **arguments)
    loss.backward()
    assert torch.equal(loss, expected)
    assert (broken.grad[ignored] == 0).all() and (broken.grad[~ignored] != 0).all()


def test_without_a_valid_pixel_loss_and_gradient_are_zero_and_without_particle_dice_is():
    z = torch.randn(2, 1, 4, 4, requires_grad=True)
    masks = torch.full((2, 4, 4), IGNORE, dtype=torch.uint8)
    loss = focal_dice(z, masks, **SEGMENTATION_PRESETS["default"])
    loss.backward()
    assert loss.item() == 0 and (z.grad == 0).all()
    nothing = torch.full((2, 4, 4), -100.0)
    assert focal_dice(nothing, torch.zeros_like(masks), **PLAIN, **ONLY_DICE).item() == 0


@pytest.mark.parametrize("gamma", [0.0, 0.5, 2.0])
def test_extreme_logits_give_a_finite_loss_and_gradient(gamma):
    values = torch.tensor([0.0, 1e-3, 30.0, 110.0, 1e4, 1e30])
    z = torch.stack([values, -values]).repeat(1, 2).unsqueeze(0).requires_grad_()
    masks = torch.tensor([0, 1], dtype=torch.uint8).repeat_interleave(6).expand(1, 2, 12)
    loss = focal_dice(z, masks, 0.75, gamma, 0.7, 0.3)
    loss.backward()
    assert torch.isfinite(loss) and torch.isfinite(z.grad).all()


def test_half_precision_logits_are_summed_in_full_precision():
    z, masks = batch(shape=(2, 300, 300))  # sums far beyond the 256 that bfloat16 counts to
    z = z.bfloat16().unsqueeze(1)
    arguments = SEGMENTATION_PRESETS["default"]
    expected = focal_dice(z.double(), masks, **arguments).item()
    with torch.autocast("cpu", torch.bfloat16):
        loss = focal_dice(z, masks, **arguments)
    assert loss.dtype == torch.float32 and loss.item() == pytest.approx(expected, rel=1e-5)


def test_on_a_gpu_nothing_waits_for_a_value():
    with fake_gpu() as masks:
        z = torch.empty(4, 1, 32, 32, device="cuda", requires_grad=True)
        assert focal_dice(z, masks, **SEGMENTATION_PRESETS["default"]).device.type == "cuda"
