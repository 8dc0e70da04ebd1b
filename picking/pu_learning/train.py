"""The epochs of a run: PU or PNU risk and FixMatch; the method is `train_one_epoch`."""

import copy
import logging
import math
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader
from torch.utils.tensorboard import SummaryWriter

from picking.config import PUConfig, plain
from picking.errors import raise_if_stopped
from picking.metrics import classification
from picking.metrics.rates import ratio
from picking.pu_learning import log
from picking.pu_learning.inputs import Input, score
from picking.pu_learning.samplers import PUBatchSampler
from picking.pu_learning.state import BEST, LAST, State, mix_initial, update_average
from picking.pu_learning.tensorboard import write_epoch
from picking.runs import distributed
from picking.runs.folder import add_metrics, keep_metrics
from picking.seeds import stream_seed
from picking.training import loop
from picking.training.losses import (
    adaptive_threshold,
    align_distribution,
    fixmatch_consistency,
    negative_risk,
    pnu_risk,
    weak_probability,
)
from picking.training.scoring import autocast

# What train_one_epoch adds up over its steps; counts are over the unlabeled of the batch.
STEP_METRICS = (
    "pu_loss",
    "consistency_loss",
    "n_masked",
    "n_masked_positive",
    "n_pseudo_positive",
    "sum_of_q",
    "n_clipped",
    "n_called_positive",
    "logit_std",
    "n_unlabeled",
    "n_steps",
)

logger = logging.getLogger(__name__)


def train(
    config: PUConfig,
    state: State,
    loader: DataLoader,
    sampler: PUBatchSampler,
    val_data: Input,
    folder: Path,
    board: SummaryWriter | None,
    eta: float,
) -> None:
    """Run the epochs that are left; leaves best_model.pt and last.pt in the run folder.

    state: where the run stands. loader: batches of the ``sampler``. val_data: what chooses the best
    weights. folder: of the run. board: TensorBoard's writer, None but in the first process. eta: of
    the PNU risk.
    """
    progress, settings, val_store = state.progress, config.training, val_data.store
    n_epochs, n_steps = length_of_run(config, len(sampler))
    model = loop.trained(state.network, settings.compile)
    learned: Any = state.average if settings.ema_decay else state.network
    evaluated = learned if state.initial is None else copy.deepcopy(learned)
    metrics_path, last = folder / "metrics.jsonl", folder / LAST
    unlabeled_prior, patience = state.priors.unlabeled_prior, settings.early_stopping_patience
    recent = keep_metrics(metrics_path, progress.epoch)

    while progress.epoch < n_epochs and progress.epoch - progress.best_epoch < patience:
        raise_if_stopped()
        sampler.set_epoch(progress.epoch, progress.batch)
        with loop.saving_on_stop(state, lambda: state.save(last)):
            train_one_epoch(config, state, model, loader, sampler, n_steps, last, eta)
            distributed.take_buffers_of_first(learned)
            if state.initial is not None:
                mix_initial(evaluated, learned, state.initial, settings.initial_share)
            probability = score(evaluated, val_data, settings, state.totals.device)
        trained = epoch_metrics(state.totals.tolist())
        loop.end_epoch(state)

        threshold = val_data.threshold(probability)
        val = classification.patch_metrics(
            val_store.label, probability, val_store.micrograph, threshold, n_bootstrap=0
        )
        del val["intervals"]
        kept = loop.note_best(progress, (val["auc"],), val_data.slack(val))
        rate = learning_rate(config, progress.step - 1, n_steps)
        place = {"epoch": progress.epoch, "step": progress.step}
        recent = [*recent[-2:], {**place, **trained, "val": val, "lr": rate}]
        log.log_epoch(recent[-1], n_epochs, kept, progress)
        for sign in log.warning_signs(
            recent, progress, config, unlabeled_prior, val_data.truth_known
        ):
            logger.warning(f"  WARNING: {sign}")
        write_epoch(board, recent[-1], unlabeled_prior, val_store, probability, kept)
        # last.pt is written last: until then a killed run does this epoch again
        if kept:
            state.save_best(folder / BEST, evaluated, plain(config), val_data.wants, threshold, val)
        add_metrics(metrics_path, recent[-1])
        state.save(last)
    if progress.epoch < n_epochs:
        logger.info(f"Early stopping: no better validation AUC in {patience} epochs")


def train_one_epoch(
    config: PUConfig,
    state: State,
    model: nn.Module,
    loader: DataLoader,
    sampler: PUBatchSampler,
    n_steps: int,
    last: Path,
    eta: float,
) -> None:
    """Take the steps that are left of an epoch; add up `STEP_METRICS` in state.totals.

    state: where the run stands. model: calls state.network, compiled or shared. loader: batches of
    the ``sampler``, P first, then N, then U. n_steps: of the run. last: where the state is saved
    amid the epoch. eta: of the PNU risk.
    """
    settings, loss, priors = config.training, config.loss, state.priors
    data, device = cast(Input, loader.dataset), state.totals.device
    weight = consistency_weight(config, state.progress.epoch)
    n_p, n_n = sampler.n_pos_per_process, sampler.n_neg_per_process
    model.train()

    title = f"Epoch {state.progress.epoch + 1}"
    for batch in loop.batches_left(state, loader, title, len(sampler), n_steps):
        step = state.progress.step
        torch.manual_seed(stream_seed(settings.seed, "dropout", step, sampler.rank))
        generator = loop.generator(device, settings.seed, "views", step, sampler.rank)
        loop.set_rate(state.optimizer, learning_rate(config, step, n_steps))

        # One forward on [P weak, N weak, U weak, U strong]: batch norm sees one distribution
        weak, strong, known = data.views(batch, n_p, n_n, generator)
        with autocast(settings.precision, device):
            z = model(torch.cat([weak, strong]))
        # Of windows, `places` says what is known of each; all parts are of the global batch
        parts = (*z.float().split([n_p, n_n, len(strong), len(strong)]), *known)
        z_p, z_n, z_u, z_s, *places = (distributed.from_all(part.flatten()) for part in parts)
        z_p, z_u, z_n, weights_n = data.split(z_p, z_n, z_u, places)

        # PNU, or nnPU where there are no negatives: `objective` is differentiated, `risk` reported
        prior, prior_u = priors.prior, priors.unlabeled_prior
        objective, risk = pnu_risk(
            z_p, z_u, z_n, prior, prior_u, eta, loss.surrogate, loss.beta, loss.gamma, weights_n
        )
        r_minus = negative_risk(z_p.detach(), z_u.detach(), prior_u, loss.surrogate)

        # FixMatch: pseudo-labels from the weak views, by the average if that teaches
        z_t = z_u
        if settings.ema_teacher:
            z_t = data.unlabeled(teacher_logits(config, state, weak[n_p + n_n :]), places)
        q, threshold = pseudo_labels(config, state, z_t)
        z_s = data.unlabeled(z_s, places)
        consistency, mask = fixmatch_consistency(z_u, z_s, threshold, pseudo_probability=q)
        consistency = weight * consistency

        loop.take_step(state, objective + consistency, config.optimizer.grad_clip)
        update_average(state, settings.ema_decay or 0.999, step)
        clipped = r_minus < -loss.beta
        state.totals += step_metrics(risk, consistency, mask, q, clipped, z_u, z_n)
        state.save_every(settings.checkpoint_every_steps, last)


def step_metrics(
    risk: Tensor,
    consistency: Tensor,
    mask: Tensor,
    q: Tensor,
    clipped: Tensor,
    z_u: Tensor,
    z_n: Tensor,
) -> Tensor:
    """Return a step's `STEP_METRICS`, float64, without waiting for the device.

    risk, consistency and clipped are scalars; mask, q and z_u are (n,), of the unlabeled; z_n is
    (m,), of the known negatives.
    """
    pseudo_positive, z_u = q >= 0.5, z_u.detach()
    spread = z_u if z_u.numel() else z_n.detach()
    metrics = {
        "pu_loss": risk,
        "consistency_loss": consistency.detach(),
        "n_masked": mask.sum(),
        "n_masked_positive": (mask & pseudo_positive).sum(),
        "n_pseudo_positive": pseudo_positive.sum(),
        "sum_of_q": q.sum(),
        "n_clipped": clipped,
        "n_called_positive": (z_u >= 0).sum(),
        "logit_std": spread.std(unbiased=False),
        "n_unlabeled": torch.full_like(risk, z_u.numel()),
        "n_steps": torch.ones_like(risk),
    }
    return torch.stack([metrics[name].double() for name in STEP_METRICS])


def epoch_metrics(totals: list[float]) -> dict[str, float | None]:
    """Return the epoch's training metrics from the sums of `STEP_METRICS`; None: of nothing."""
    t = dict(zip(STEP_METRICS, totals, strict=True))
    n_steps = t["n_steps"]
    n_unlabeled = t["n_unlabeled"]
    n_pseudo_negative = n_unlabeled - t["n_pseudo_positive"]
    return {
        "train_loss": (t["pu_loss"] + t["consistency_loss"]) / n_steps,
        "pu_loss": t["pu_loss"] / n_steps,
        "consistency_loss": t["consistency_loss"] / n_steps,
        "mask_rate": ratio(t["n_masked"], n_unlabeled),
        "mask_rate_positive": ratio(t["n_masked_positive"], t["n_pseudo_positive"]),
        "mask_rate_negative": ratio(t["n_masked"] - t["n_masked_positive"], n_pseudo_negative),
        "pseudo_positive_share": ratio(t["n_masked_positive"], t["n_masked"]),
        "mean_probability": ratio(t["sum_of_q"], n_unlabeled),
        "clipped_step_share": t["n_clipped"] / n_steps,
        "predicted_positive_share": ratio(t["n_called_positive"], n_unlabeled),
        "logit_std": t["logit_std"] / n_steps,
    }


def consistency_weight(config: PUConfig, epoch: int) -> float:
    """Return the weight of FixMatch's loss in an epoch, from 0: it rises along a ramp."""
    ramp = min(1.0, (epoch + 1) / max(1, config.loss.rampup_epochs))
    return config.loss.lambda_consistency * ramp


def teacher_logits(config: PUConfig, state: State, weak: Tensor) -> Tensor:
    """Return what the average says of all processes' weak views, (n, 1, s, s) here: (m,)."""
    assert state.average is not None
    with torch.no_grad(), autocast(config.training.precision, weak.device):
        return distributed.from_all(state.average(weak).float().flatten())


def pseudo_labels(config: PUConfig, state: State, z_t: Tensor) -> tuple[Tensor, float | Tensor]:
    """Return the probabilities (n,) that FixMatch teaches, and the confidence to count from.

    z_t: logits (n,) of weak views of the unlabeled, by the network or its average. Moves the
    running means in state.adaptive.
    """
    q, threshold = weak_probability(z_t), config.loss.consistency_threshold
    if not len(q):  # everything in the batch is known
        return q, threshold
    if config.loss.distribution_alignment:
        state.adaptive[2].lerp_(q.mean(), 0.001)
        q = align_distribution(q, state.adaptive[2], state.priors.unlabeled_prior)
    if not config.loss.adaptive_threshold:
        return q, threshold
    adapted, state.adaptive[:2] = adaptive_threshold(q, state.adaptive[:2])
    return q, adapted


def length_of_run(config: PUConfig, steps_per_epoch: int) -> tuple[int, int]:
    """Return epochs and steps: training.epochs, cut short by training.max_steps."""
    total_steps = config.training.epochs * steps_per_epoch
    total_steps = min(total_steps, config.training.max_steps or total_steps)
    return math.ceil(total_steps / steps_per_epoch), total_steps


def learning_rate(config: PUConfig, step: int, total_steps: int) -> float:
    """Return the rate of a step: constant, or half a cosine from lr to 0."""
    highest = config.optimizer.lr
    lowest = highest if config.optimizer.scheduler == "constant" else 0.0
    return loop.cosine(step, total_steps, highest, lowest)
