"""Losses as pure functions: PU and PNU risk, FixMatch consistency, focal and Dice loss.

Symbols: z logit (positive means particle), σ sigmoid, l(z) the loss of a positive at z, E_P, E_U
and E_N means over the labelled positives, the unlabeled and the known negatives of a batch. Logits
of half precision are converted to float32 first, and nothing waits for the GPU.
"""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from picking.mask_values import IGNORE

SURROGATES = ("logistic", "sigmoid")
# Arguments of `focal_dice`. The reference gives particles less weight (0.25) than background.
SEGMENTATION_PRESETS: dict[str, dict[str, float]] = {
    "default": {"alpha": 0.75, "gamma": 2.0, "focal_weight": 0.7, "dice_weight": 0.3},
    "reference": {"alpha": 0.25, "gamma": 2.0, "focal_weight": 0.7, "dice_weight": 0.3},
}
# Added to numerator and denominator of Dice.
DICE_SMOOTHING_PX = 1.0


def surrogate(z: Tensor, loss: str) -> Tensor:
    """Return l(z) in the shape of z: softplus(-z) for ``logistic``, σ(-z) for ``sigmoid``.

    The loss of a negative at z is l(-z). Only the logistic loss makes σ(z) a probability (it is
    proper), so its pseudo-labels are more precise. Raises `ValueError` for an unknown loss.
    """
    z = z.to(torch.promote_types(z.dtype, torch.float32))
    if loss == "logistic":
        return F.softplus(-z)
    if loss == "sigmoid":
        return torch.sigmoid(-z)
    raise ValueError(f"unknown loss {loss!r}: known are {', '.join(SURROGATES)}")


def negative_risk(
    z_positive: Tensor, z_unlabeled: Tensor, unlabeled_prior: float, loss: str = "logistic"
) -> Tensor:
    """Return r_minus = E_U[l(-z)] - π_U E_P[l(-z)], a scalar, of (n_P,) and (n_U,) logits.

    It estimates (1 - π_U) E_N[l(-z)], the risk of the negatives, which cannot be negative. An
    estimate below -β means that the batch is overfitted: `nnpu_risk` takes a clipped step.
    """
    of_unlabeled = surrogate(-z_unlabeled, loss).mean()
    of_positive = surrogate(-z_positive, loss).mean()
    return of_unlabeled - unlabeled_prior * of_positive


def nnpu_risk(
    z_positive: Tensor,
    z_unlabeled: Tensor,
    prior: float,
    unlabeled_prior: float,
    loss: str = "logistic",
    beta: float = 0.0,
    gamma: float = 1.0,
) -> tuple[Tensor, Tensor]:
    """Return the objective to differentiate and the risk to report, of one step of nnPU learning.

    With π_T = ``prior``, π_U = ``unlabeled_prior`` and s = (1 - π_T) / (1 - π_U)::

        r_minus = E_U[l(-z)] - π_U E_P[l(-z)]
        R       = π_T E_P[l(z)] + s max(0, r_minus)

        r_minus >= -β:  objective = π_T E_P[l(z)] + s r_minus   risk = the same
        r_minus <  -β:  objective = -γ s r_minus                risk = π_T E_P[l(z)] - s β

    The second line is the clipped step, away from overfitting. It is not the gradient of R, which
    would be that of π_T E_P[l(z)] alone. With π_T = π_U this is the algorithm of Kiryo et al.

    Args:
        z_positive: (n_P,) logits of labelled positives.
        z_unlabeled: (n_U,) logits of unlabeled patches.
        prior: π_T, the fraction of positives where the classifier will be used.
        unlabeled_prior: π_U, the fraction of positives among the unlabeled.
        loss: l, one of `SURROGATES`.
        beta: β >= 0, how far r_minus may fall below 0.
        gamma: γ in [0, 1], the size of a clipped step.

    Returns:
        Two scalars: the objective, and the risk, which has no gradient.

    Raises:
        ValueError: for no positives or no unlabeled, an unknown loss, or a prior out of range.

    Source: Kiryo et al., Positive-unlabeled learning with non-negative risk estimator, NeurIPS
    2017, algorithm 1; the two priors from Su et al., Positive-unlabeled learning from imbalanced
    data, IJCAI 2021.
    """
    if not 0 < prior < 1 or not 0 <= unlabeled_prior < 1:
        raise ValueError(
            f"prior {prior} must lie in (0, 1) and unlabeled_prior {unlabeled_prior} in [0, 1)"
        )
    if z_positive.numel() == 0 or z_unlabeled.numel() == 0:
        raise ValueError(
            f"a step needs both kinds of patches, got {z_positive.numel()} labelled positives "
            f"and {z_unlabeled.numel()} unlabeled"
        )
    s = (1 - prior) / (1 - unlabeled_prior)
    r_plus = prior * surrogate(z_positive, loss).mean()
    r_minus = negative_risk(z_positive, z_unlabeled, unlabeled_prior, loss)

    # torch.where instead of `if`: the branch is chosen on the device, without waiting for it.
    clipped = r_minus < -beta
    objective = torch.where(clipped, -gamma * s * r_minus, r_plus + s * r_minus)
    risk = torch.where(clipped, r_plus - s * beta, r_plus + s * r_minus)
    return objective, risk.detach()


def pnu_risk(
    z_positive: Tensor,
    z_unlabeled: Tensor,
    z_negative: Tensor,
    prior: float,
    unlabeled_prior: float,
    eta: float,
    loss: str = "logistic",
    beta: float = 0.0,
    gamma: float = 1.0,
    negative_weights: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """Return the objective to differentiate and the risk to report, with known negatives too.

    With π_T = ``prior`` and η = ``eta``, R_PU being the risk of `nnpu_risk` with its two priors::

        R_PN  = π_T E_P[l(z)] + (1 - π_T) E_N[l(-z)]
        R_PNU = (1 - η) R_PN + η R_PU

        objective = (1 - η) R_PN + η (objective of nnpu_risk)
        risk      = (1 - η) R_PN + η (risk of nnpu_risk)

    A clipped step is so for the part of R_PU alone: R_PN has nothing in it that could overfit below
    0. Both parts estimate the same risk where the negatives are a sample of all negatives, as on a
    micrograph that is picked completely; then η decides about their noise alone. Negatives that
    were chosen, as clicks on the worst false picks are, weigh more so than they would by their
    number. A batch without negatives has R_PU alone, exactly as `nnpu_risk` has it, and one without
    unlabeled R_PN alone, whatever η is.

    Args:
        z_positive: (n_P,) logits of labelled positives.
        z_unlabeled: (n_U,) logits of unlabeled places or patches.
        z_negative: (n_N,) logits of known negatives.
        prior: π_T, the fraction of positives where the classifier will be used.
        unlabeled_prior: π_U, the fraction of positives among the unlabeled.
        eta: η in [0, 1], the share of R_PU.
        loss: l, one of `SURROGATES`.
        beta: β >= 0, as in `nnpu_risk`.
        gamma: γ in [0, 1], as in `nnpu_risk`.
        negative_weights: (n_N,) weights >= 0 of the negatives in E_N; None: all the same.

    Returns:
        Two scalars: the objective, and the risk, which has no gradient.

    Raises:
        ValueError: for η out of range, for neither negatives nor unlabeled, and as `nnpu_risk`.

    Source: Sakai, du Plessis, Niu and Sugiyama, Semi-supervised classification based on
    classification from positive and unlabeled data, ICML 2017: PNU learning with η >= 0 there, and
    the non-negative R_PU of Kiryo et al. 2017 in place of the unbiased one. η < 0 there puts
    negatives and unlabeled (NU) in place of R_PU, for few positives and many negatives, which
    nobody who picks has.
    """
    if not 0 <= eta <= 1:
        raise ValueError(f"eta {eta} must lie in [0, 1]")
    if not z_negative.numel():
        return nnpu_risk(z_positive, z_unlabeled, prior, unlabeled_prior, loss, beta, gamma)
    if not 0 < prior < 1 or not z_positive.numel():
        raise ValueError(f"prior {prior} must lie in (0, 1), and {z_positive.numel()} positives")
    of_negative = surrogate(-z_negative, loss)
    if negative_weights is None:
        e_negative = of_negative.mean()
    else:
        e_negative = (negative_weights * of_negative).sum() / negative_weights.sum()
    r_pn = prior * surrogate(z_positive, loss).mean() + (1 - prior) * e_negative
    if not z_unlabeled.numel():
        return r_pn, r_pn.detach()
    objective, risk = nnpu_risk(z_positive, z_unlabeled, prior, unlabeled_prior, loss, beta, gamma)
    return (1 - eta) * r_pn + eta * objective, (1 - eta) * r_pn.detach() + eta * risk


def fixmatch_consistency(
    z_weak: Tensor,
    z_strong: Tensor,
    threshold: float | Tensor,
    pseudo_probability: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """Return the consistency loss, and which samples take part in it.

    With q = σ(z_weak) without gradient, ŷ = [q >= 0.5] and m = [max(q, 1 - q) >= τ]::

        L_c = (1/B) Σ m BCE(z_strong, ŷ)

    The divisor is the batch size, not Σ m, so that few confident samples make a small loss and not
    a noisy one.

    Args:
        z_weak: (B,) logits of the weak views; they get no gradient.
        z_strong: (B,) logits of the strong views of the same patches.
        threshold: τ, a number or (B,).
        pseudo_probability: (B,) probabilities to use instead of q, as from `align_distribution`.

    Returns:
        A scalar, 0 without a sample, and m as (B,) booleans.

    Source: Sohn et al., FixMatch, NeurIPS 2020, equation 4, in its binary form.
    """
    q = weak_probability(z_weak) if pseudo_probability is None else pseudo_probability.detach()
    each, mask = _pseudo_labelled(q, z_strong, threshold)
    return (each.mean() if each.numel() else each.sum()), mask


def pixel_consistency(
    z_weak: Tensor,
    z_strong: Tensor,
    inside: Tensor,
    threshold: float,
    whole: Callable[[Tensor], Tensor] = lambda sums: sums,
) -> tuple[Tensor, Tensor]:
    """Return the consistency loss of pixels and their mask rate, as in `fixmatch_consistency`.

    With m as there, over the n pixels of the whole batch that are inside::

        L_c = (1/n) Σ m BCE(z_strong, ŷ)        mask rate = (1/n) Σ m

    Args:
        z_weak: (B, 1, h, w) or (B, h, w) logits of the weak views; they get no gradient.
        z_strong: the same of the strong views, which show the same place at the same pixel.
        inside: bool (B, h, w), False where a view shows what is outside the image.
        threshold: τ.
        whole: where several processes share a batch, `distributed.sum_of_all`: it turns the (3,)
            sums over one process's part into those over the whole batch.

    Returns:
        Two scalars, both 0 when no pixel is inside. The mask rate has no gradient.

    Source: as `fixmatch_consistency`.
    """
    q, z_strong = weak_probability(z_weak).reshape(inside.shape), z_strong.reshape(inside.shape)
    each, mask = _pseudo_labelled(q, z_strong, threshold)
    counted = [(mask & inside).sum(), inside.sum()]
    sums = torch.stack([(each * inside).sum(), *(n.to(each.dtype) for n in counted)])
    each_sum, n_masked, n_inside = whole(sums)
    n_inside = n_inside.clamp(min=1)
    return each_sum / n_inside, (n_masked / n_inside).detach()


def _pseudo_labelled(q: Tensor, z_strong: Tensor, threshold: float | Tensor) -> tuple[Tensor, ...]:
    """Return m BCE(z_strong, [q >= 0.5]) and m = [max(q, 1 - q) >= τ], in the shape of q."""
    z_strong = z_strong.to(torch.promote_types(z_strong.dtype, torch.float32))
    mask = torch.maximum(q, 1 - q) >= threshold
    pseudo_label = (q >= 0.5).to(z_strong.dtype)
    each = F.binary_cross_entropy_with_logits(z_strong, pseudo_label, reduction="none")
    return mask * each, mask


def weak_probability(z_weak: Tensor) -> Tensor:
    """Return q = σ(z_weak) in the shape of z_weak, at least float32, without gradient."""
    z_weak = z_weak.detach()
    return torch.sigmoid(z_weak.to(torch.promote_types(z_weak.dtype, torch.float32)))


def align_distribution(q: Tensor, running_mean: Tensor, unlabeled_prior: float) -> Tensor:
    """Return q rescaled so that its mean moves to π_U: q·π_U/m, normalised over both classes.

    Args:
        q: (B,) probabilities of the weak views.
        running_mean: m, a scalar: the exponential mean of q over past batches, which the caller
            keeps as ``running_mean.lerp(q.mean(), 1 - decay)`` with a decay of 0.999.
        unlabeled_prior: π_U.

    Returns:
        (B,) probabilities.

    Source: Berthelot et al., ReMixMatch, ICLR 2020, section 3.1.
    """
    mean = running_mean.clamp(1e-6, 1 - 1e-6)
    positive = q * unlabeled_prior / mean
    negative = (1 - q) * (1 - unlabeled_prior) / (1 - mean)
    return positive / (positive + negative)


def adaptive_threshold(q: Tensor, state: Tensor, decay: float = 0.999) -> tuple[Tensor, Tensor]:
    """Return FreeMatch's threshold of each sample, and the state for the next batch.

    The state is two exponential means over the batches so far: of the confidence max(q, 1 - q), and
    of q. A class's threshold is the mean confidence, times the mean probability of the class over
    that of the commoner class. So it starts low, rises as the model gets surer, and is lower for
    the rarer class.

    Args:
        q: (B,) probabilities of the weak views.
        state: (2,) from the batch before, at first (0.5, 0.5); this batch is added before use.
        decay: of both means.

    Returns:
        (B,) thresholds for `fixmatch_consistency`, and the (2,) new state.

    Source: Wang et al., FreeMatch, ICLR 2023, self-adaptive thresholds, with two classes.
    """
    batch = torch.stack([torch.maximum(q, 1 - q).mean(), q.mean()]).detach()
    state = state.lerp(batch, 1 - decay)
    confidence, positive = state[0], state[1]
    commoner = torch.maximum(positive, 1 - positive)
    ratio = torch.where(q >= 0.5, positive, 1 - positive) / commoner
    return confidence * ratio, state


def focal_dice(
    z: Tensor,
    masks: Tensor,
    alpha: float,
    gamma: float,
    focal_weight: float,
    dice_weight: float,
    whole: Callable[[Tensor], Tensor] = lambda sums: sums,
) -> Tensor:
    """Return focal_weight * focal + dice_weight * Dice of a batch of segmentations, a scalar.

    With p = σ(z); at particles y = 1, p_t = p, α_t = α; at background y = 0, p_t = 1 - p,
    α_t = 1 - α; over all pixels of the batch that are not ignored::

        focal = mean of -α_t (1 - p_t)^γ log p_t
        Dice  = 1 - (2 Σ p y + 1) / (Σ p + Σ y + 1)

    The 1 makes Dice 0 when there is neither a particle nor a prediction. When all pixels are
    ignored, the loss and its gradient are 0.

    Args:
        z: (B, 1, h, w) or (B, h, w) logits.
        masks: (B, h, w) uint8: 1 particle, 0 background, `IGNORE` takes no part.
        alpha: α in [0, 1], the weight of particles; at 0.5 both classes have the same.
        gamma: γ >= 0; the larger, the less well classified pixels count; 0 is cross-entropy.
        focal_weight: weight of focal.
        dice_weight: weight of Dice.
        whole: where several processes share a batch, `distributed.sum_of_all`: it turns the (5,)
            sums over one process's part into those over the whole batch.

    Source: Lin et al., Focal loss for dense object detection, ICCV 2017; Milletari et al., V-Net,
    3DV 2016, with Σ p in place of Σ p².
    """
    valid = masks != IGNORE
    y = (masks == 1).to(torch.promote_types(z.dtype, torch.float32))
    takes_part = valid.to(y.dtype)  # converted once, for two products below
    # Set to 0, not multiplied by 0, so that the gradient is 0 where an ignored logit is not finite
    z = torch.where(valid, z.reshape(masks.shape).to(y.dtype), 0)

    z_t = z * (2 * y - 1)
    alpha_t = alpha * y + (1 - alpha) * (1 - y)
    # (1 - p_t)^γ as an exponential: a power has no finite gradient at 0 when γ < 1
    each = alpha_t * torch.exp(-gamma * F.softplus(z_t)) * F.softplus(-z_t)
    p = torch.sigmoid(z) * takes_part
    sums = [(each * takes_part).sum(), valid.sum().to(y.dtype), (p * y).sum(), p.sum(), y.sum()]
    each_sum, n_valid, overlap, p_sum, y_sum = whole(torch.stack(sums))

    focal = each_sum / n_valid.clamp(min=1)
    dice = 1 - (2 * overlap + DICE_SMOOTHING_PX) / (p_sum + y_sum + DICE_SMOOTHING_PX)
    return focal_weight * focal + dice_weight * dice
