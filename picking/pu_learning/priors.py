"""The two priors of the risk, from config, store or an estimate, and the weight of negatives."""

import dataclasses
import math

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import ArrayLike
from torch import nn

from picking.config import PUConfig
from picking.errors import UserError, raise_if_stopped
from picking.pu_learning.inputs import Input
from picking.pu_learning.samplers import PUBatchSampler
from picking.runs import distributed
from picking.seeds import stream
from picking.stores.patches import PatchStore
from picking.training import loop
from picking.training.networks import new_network


@dataclasses.dataclass(frozen=True)
class Priors:
    """The two priors of the risk, and where each came from: data, config or estimate."""

    prior: float
    prior_source: str
    unlabeled_prior: float
    unlabeled_prior_source: str


def resolve_priors(config: PUConfig, data: Input, device: torch.device) -> Priors:
    """Return the two priors of the risk from the config, the store's counts or an estimate.

    Where the store cannot tell π_U, it is estimated. Raises `UserError` when a prior stays unknown
    or does not lie between 0 and 1.
    """
    loss, counts = config.loss, data.store.counts
    prior: float | None
    unlabeled: float | None
    if isinstance(loss.prior, float):
        prior, prior_source = loss.prior, "config"
    else:
        prior, prior_source = counts[f"{loss.prior}_prior"], "data"
    if loss.one_prior and prior is not None:
        unlabeled, source = prior, prior_source
    elif isinstance(loss.unlabeled_prior, float):
        unlabeled, source = loss.unlabeled_prior, "config"
    elif loss.unlabeled_prior == "data" and counts["unlabeled_prior"] is not None:
        unlabeled, source = counts["unlabeled_prior"], "data"
    else:
        network = new_network(config, "estimate", "init").to(device)
        unlabeled, source = estimate_unlabeled_prior(network, config, data, device), "estimate"
    if prior is None:  # pool: the labelled, and the positives among the others
        actual = counts["actual_prior"] or 0.0
        unknown = counts.get("unknown_share", 1 - actual)
        prior, prior_source = actual + unknown * unlabeled, source
    if not 0 < prior < 1 or not 0 <= unlabeled < 1:
        raise UserError(
            f"the priors are {prior} ({prior_source}) and {unlabeled} among the unlabeled "
            f"({source}), but must lie between 0 and 1: there are too few negatives or "
            "positives in the store, or loss.prior needs a number"
        )
    return Priors(prior, prior_source, unlabeled, source)


def eta_of(config: PUConfig, priors: Priors, store: PatchStore) -> float:
    """Return η, the share of R_PU in the PNU risk: a number of the config, or from what is known.

    With v the fraction of places that are known negatives, u that of unknown ones and π_U of these
    positive, `auto` weighs the two estimates of the risk of negatives by their numbers of these::

        1 - η = v / (v + u (1 - π_U))            at least π_T min(1, n_N / n_P)

    As if both were one sample, it is the weight of least variance where the known ones are a sample
    of all, as on complete micrographs. Clicks are few, some thousandth of all places, but were
    chosen where the network errs. Each of the n_N clicks weighs about as much as each of the n_P
    picks, in (1 - η) E_N beside π_T E_P, and all of them no more than all picks.
    """
    negative, n_clicked = store.counts.get("negative_share", 0.0), int(store.about_negative.sum())
    if not (negative or n_clicked):
        return 1.0
    if isinstance(config.loss.eta, float):
        return config.loss.eta
    unknown = store.counts.get("unknown_share", 1.0) * (1 - priors.unlabeled_prior)
    weight = negative / (negative + unknown) if negative else 0.0
    return 1 - max(weight, priors.prior * min(1.0, n_clicked / int(store.labeled.sum())))


def estimate_unlabeled_prior(
    network: nn.Module, config: PUConfig, data: Input, device: torch.device
) -> float:
    """Estimate the fraction of positives among the unlabeled: P against U, then best bins.

    ``network``, a new one, learns on half of the micrographs to tell labelled from unlabeled; its
    scores on the other half go to `best_bin_estimate`. An upper bound where the classes overlap.
    Raises `UserError` when a half lacks labelled or unlabeled patches.
    """
    seed, store = config.training.seed, data.store
    rng = stream(seed, "estimate", "halves")
    # Where everything is known there is nothing to estimate from
    used = store.labeled | ~(store.about_negative | store.complete[store.micrograph])
    picked = np.unique(store.micrograph[store.labeled])
    # Half of those with labels and half of the others
    shuffled = [rng.permutation(m) for m in (picked, np.setdiff1d(store.micrograph, picked))]
    fitted = np.isin(store.micrograph, np.concatenate([m[: len(m) // 2] for m in shuffled]))
    fit_rows, held_rows = np.flatnonzero(fitted & used), np.flatnonzero(~fitted & used)
    for rows in (fit_rows, held_rows):
        if store.labeled[rows].all() or not store.labeled[rows].any():
            raise UserError(
                "loss.unlabeled_prior 'estimate' needs labelled and unlabeled patches in both "
                f"halves of the {len(store.names)} training micrographs: give a number, or make "
                "the store of a few picks with --expected-particles"
            )
    sampler = PUBatchSampler(
        store.labeled[fit_rows], config.training.batch_size, config.data.batch_ratio, seed=seed
    )
    generator = loop.generator(device, seed, "estimate", "views")
    optimizer = torch.optim.AdamW(network.parameters(), config.optimizer.lr)
    # Each process takes all of these steps, few beside a run's: the estimate is that of one process
    for step in range(config.loss.estimate_steps):
        raise_if_stopped()
        if step % len(sampler) == 0:
            sampler.set_epoch(step // len(sampler))
            batches = iter(sampler)
        batch, n_p = data[fit_rows[next(batches)]], sampler.n_pos_per_batch
        weak, known = data.weak_views(batch, n_p, generator)
        z = network(weak)
        z_p, z_u, _, _ = data.split(
            z[:n_p].flatten(), z.new_empty(0), z[n_p:].flatten(), [part.flatten() for part in known]
        )
        loss = F.softplus(-z_p).mean() + F.softplus(z_u).mean()
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
    estimate = best_bin_estimate(*data.held_out(network, held_rows, config.training, device))
    # GPUs round differently; all processes must use the same number
    return float(distributed.from_all(torch.tensor([estimate], device=device))[0])


def best_bin_estimate(
    scores_positive: ArrayLike, scores_unlabeled: ArrayLike, delta: float = 0.1, gamma: float = 0.01
) -> float:
    """Estimate π_U, the fraction of positives in U, from scores that separate P from U.

    With q_p(c) and q_u(c) the fractions of P and U that score at least c, ĉ minimises ::

        q_u/q_p + (1+γ)/q_p · (sqrt(ln(4/δ) / 2n_u) + sqrt(ln(4/δ) / 2n_p))

    and the estimate is q_u(ĉ)/q_p(ĉ), at most 1. It is biased upward where the classes overlap:
    treat it as an upper bound.

    Args:
        scores_positive: (n_p,) scores of labelled positives that the scorer was not trained on.
        scores_unlabeled: (n_u,) scores of unlabeled patches, likewise held out.
        delta: δ, the probability that the bound fails.
        gamma: γ, the slack of the bound.

    Raises:
        ValueError: when a side is empty or a score is not finite.

    Source: Garg et al., Mixture proportion estimation and PU learning: a modern approach, NeurIPS
    2021, algorithm 1.
    """
    positive = np.sort(np.asarray(scores_positive, np.float64))
    unlabeled = np.sort(np.asarray(scores_unlabeled, np.float64))
    if not len(positive) or not len(unlabeled):
        raise ValueError(
            f"best bin estimation needs scores of both sides, got {len(positive)} of labelled "
            f"positives and {len(unlabeled)} of unlabeled patches"
        )
    if not (np.isfinite(positive).all() and np.isfinite(unlabeled).all()):
        raise ValueError("best bin estimation needs finite scores")

    # Fractions change at scores only; above the highest score of P, q_p is 0.
    cuts = np.unique(np.concatenate([positive, unlabeled]))
    cuts = cuts[cuts <= positive[-1]]
    q_p = 1 - np.searchsorted(positive, cuts) / len(positive)
    q_u = 1 - np.searchsorted(unlabeled, cuts) / len(unlabeled)
    log_term = math.log(4 / delta)
    width = math.sqrt(log_term / (2 * len(unlabeled))) + math.sqrt(log_term / (2 * len(positive)))
    best = np.argmin((q_u + (1 + gamma) * width) / q_p)
    return min(1.0, float(q_u[best] / q_p[best]))
