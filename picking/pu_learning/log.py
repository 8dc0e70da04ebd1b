"""What a training run tells its user: log lines, warnings, success criteria, results.json."""

import logging
from pathlib import Path
from typing import Any

import yaml

from picking.config import PUConfig, plain
from picking.metrics.classification import auc_standard_error, trivial_f1
from picking.pu_learning.priors import Priors
from picking.pu_learning.samplers import PUBatchSampler
from picking.pu_learning.state import State
from picking.runs.folder import environment, now
from picking.runs.log import shown
from picking.training.loop import Progress

# The users' guide: what a good run on the full data set reaches.
TARGETS = {
    "auc": ("Test AUC", 0.85, 0.90),
    "ap": ("Test AP", 0.90, 0.95),
    "precision": ("Precision", 0.85, 0.92),
    "recall": ("Recall", 0.75, 0.85),
    "f1": ("F1", 0.80, 0.88),
}
TARGET_MASK_RATE = (0.60, 0.80)
FAILED_ATTEMPT_AUC = 0.632
PLATEAU_EPOCHS = 10
HIGHEST_BY_CHANCE = 0.7  # AUC; of two or three picks chance alone would allow any

logger = logging.getLogger(__name__)


def log_start(
    config: PUConfig,
    sampler: PUBatchSampler,
    priors: Priors,
    replaced_prior: float | None,
    eta: float,
    device: Any,
    n_steps: int,
) -> None:
    """Log what the run does and with what.

    replaced_prior: the number that loss.prior was before --use-data-prior. eta: of the PNU risk.
    """
    chosen, n_negative = config.loss, sampler.n_neg_per_batch
    logger.info(
        f"Device: {device}, {sampler.world_size} process(es)\n"
        f"Patches: {len(sampler.positive):,} labelled positives, {len(sampler.unlabeled):,} "
        f"unlabeled; {sampler.n_pos_per_batch} + {sampler.n_unl_per_batch} in every batch"
        + (f", and {n_negative} of {len(sampler.negative):,} negatives\n" if n_negative else "\n")
        + f"Steps: {n_steps:,}, {len(sampler):,} an epoch (a pass over the unlabeled)\n"
        f"Prior (π_T): {priors.prior:.4f} from {priors.prior_source} (loss.prior: {chosen.prior})"
    )
    if replaced_prior is not None:
        logger.info(
            f"--use-data-prior: the data's {priors.prior:.4f}, in place of {replaced_prior:.4f} "
            "from loss.prior of the configuration"
        )
    logger.info(
        f"Prior of the unlabeled (π_U): {priors.unlabeled_prior:.4f} from "
        f"{priors.unlabeled_prior_source} (loss.unlabeled_prior: {chosen.unlabeled_prior})"
    )
    if eta < 1:
        logger.info(
            f"Weight of the known negatives (1 - η): {1 - eta:.4f} (loss.eta: {chosen.eta})"
        )
    if chosen.one_prior:
        logger.info(
            "WARNING: loss.one_prior uses one prior for both; where the unlabeled set has another "
            "share of positives, that moves the decision threshold"
        )
    logger.info(
        f"Early stopping: after {config.training.early_stopping_patience} epochs without a better "
        "validation AUC; trained from scratch\n"
        "Config:\n" + yaml.safe_dump(plain(config), sort_keys=False)
    )


def log_epoch(metrics: dict, n_epochs: int, kept: bool, progress: Progress) -> None:
    """Log an epoch in the form that the users know.

    kept: whether its weights are; they may fall short of the best, by a standard error at most.
    """
    val, auc = metrics["val"], metrics["val"]["auc"]
    best = ""
    if kept and progress.best_epoch == metrics["epoch"]:
        best = f"  *** New best model! AUC: {auc:.4f} ***\n"
    elif kept:
        of_best = f"within a standard error of the best {progress.best[0]:.4f}"
        best = f"  *** Model kept: AUC {auc:.4f}, {of_best} ***\n"
    logger.info(
        f"Epoch {metrics['epoch']}/{n_epochs}\n"
        f"  Train Loss: {metrics['train_loss']:.4f}\n"
        f"    - PU Loss: {metrics['pu_loss']:.4f}\n"
        f"    - Consistency Loss: {metrics['consistency_loss']:.4f}\n"
        f"  Consistency Mask Rate: {_percent(metrics['mask_rate'])}\n"
        f"    - of pseudo-positives {_percent(metrics['mask_rate_positive'])}, of pseudo-negatives "
        f"{_percent(metrics['mask_rate_negative'])}; clipped steps "
        f"{_percent(metrics['clipped_step_share'])}\n"
        f"\n"
        f"  Val AUC: {auc:.4f}\n"
        f"  Val Precision: {shown(val['precision'])}\n"
        f"  Val Recall: {shown(val['recall'])}\n{best}"
    )


def warning_signs(
    recent: list[dict],
    progress: Progress,
    config: PUConfig,
    unlabeled_prior: float,
    truth_known: bool = True,
) -> list[str]:
    """Return what looks wrong after the last of the ``recent`` epochs, each with what to try.

    recent: metrics of up to the last three epochs or more. Without ``truth_known`` validation
    has labelled and unlabeled windows, nearly all of which are rightly called negative; a network
    of few labels may call none positive at 0.5 and pick well, so its ranking is judged instead.
    """
    last, val = recent[-1], recent[-1]["val"]
    first = config.loss.rampup_epochs if truth_known else max(1, config.loss.rampup_epochs)
    ramped, n_stale = last["epoch"] > first, last["epoch"] - progress.best_epoch
    mask_rate, fraction = last["mask_rate"], val["predicted_positive_share"]
    clipped = [metrics["clipped_step_share"] for metrics in recent[-3:]]
    signs = [
        (
            ramped and mask_rate is not None and mask_rate < 0.20,
            f"mask rate {_percent(mask_rate)} is under 20%: few pseudo-labels count; lower "
            "loss.consistency_threshold",
        ),
        (
            not (0.01 if truth_known else 0) <= fraction <= 0.99,
            f"{_percent(fraction)} of validation are called positive: the model predicts one "
            "class; check loss.prior and optimizer.lr",
        ),
        (
            last["logit_std"] < 0.05,
            f"logits deviate by {last['logit_std']:.3f} only: the model does not tell patches "
            "apart; check the data's montage and optimizer.lr",
        ),
        (
            len(clipped) == 3 and min(clipped) > 0.25,
            "over 25% of the steps of three epochs were clipped: the unlabeled prior "
            f"({unlabeled_prior:.2g}) is too high, or the model overfits",
        ),
    ]
    if truth_known:
        lowest_f1 = trivial_f1(val["ap_base_rate"])
        signs += [
            (
                ramped and mask_rate is not None and mask_rate > 0.95,
                f"mask rate {_percent(mask_rate)} is over 95%: wrong pseudo-labels count too; "
                "raise loss.consistency_threshold",
            ),
            (
                n_stale >= PLATEAU_EPOCHS and val["auc"] < 1,
                f"validation AUC has not improved for {n_stale} epochs: try another optimizer.lr, "
                "or stop here",
            ),
            (
                (val["f1"] or 0.0) <= lowest_f1,
                f"validation F1 {shown(val['f1'])} is no better than calling everything positive "
                f"({lowest_f1:.4f}): train longer, or check loss.prior",
            ),
        ]
    else:
        chance = min(0.5 + 2 * _auc_error(val, 0.5), HIGHEST_BY_CHANCE)
        best = progress.best[0]
        below = [best - one["val"]["auc"] - 2 * _auc_error(one["val"]) for one in recent[-3:]]
        signs += [
            (
                last["epoch"] > 1 and val["auc"] <= chance,
                f"validation AUC {val['auc']:.4f} is what chance may give: the model does not tell "
                "picks from other places; check the data's montage, loss.prior and optimizer.lr",
            ),
            (
                n_stale >= PLATEAU_EPOCHS and min(below) > 0,
                f"validation AUC was {best:.4f} {n_stale} epochs ago and is clearly "
                "lower since: the model overfits; lower optimizer.lr or training.max_steps",
            ),
        ]
    return [sign for shows, sign in signs if shows]


def _auc_error(val: dict, auc: float | None = None) -> float:
    """Return the standard error of an AUC on validation, of its own where none is given."""
    auc = val["auc"] if auc is None else auc
    return auc_standard_error(auc, val["n_positive"], val["n_negative"])


def success_criteria(val: dict, test: dict | None) -> list[dict]:
    """Return the users' success criteria, each with its value and whether it is met.

    Precision and recall are at the validation threshold. ``met`` is None where the test split
    is missing or has one class only.
    """
    criteria = [("validation AUC > 0.80", val["auc"], val["auc"] > 0.80)]
    on_test: list[tuple] = [(None, None)] * 5
    if test is not None and test["auc"] is not None:
        at = test["at_val_threshold"]
        precision, recall, balanced = at["precision"], at["recall"], at["balanced_accuracy"]
        called = (test["predicted_positive_share"], at["predicted_positive_share"])
        has_both = all(0.01 <= fraction <= 0.99 for fraction in called)
        low_auc = (test["intervals"]["auc"] or [test["auc"]])[0]
        on_test = [
            (test["auc"], test["auc"] > 0.75),
            (precision, (precision or 0) > 0.70),
            (recall, recall > 0.70),
            (balanced, has_both and balanced > 0.55),
            (low_auc, low_auc > FAILED_ATTEMPT_AUC),
        ]
    names = (
        "test AUC > 0.75",
        "test precision > 0.70",
        "test recall > 0.70",
        "no collapse (1 to 99% called positive, balanced accuracy > 0.55)",
        f"clearly better than {FAILED_ATTEMPT_AUC} (lower end of the AUC's interval)",
    )
    criteria += [(name, *pair) for name, pair in zip(names, on_test, strict=True)]
    return [{"criterion": name, "value": value, "met": met} for name, value, met in criteria]


def results(
    report: dict, best: dict, state: State, n_steps: int, mask_rate: float, truth_known: bool
) -> dict:
    """Return the content of results.json; without ``truth_known`` no criterion can be judged."""
    test = report.get("test")
    source, criteria = "0.5, not chosen", []
    if truth_known:
        source = "highest F1 on validation at the best epoch"
        criteria = success_criteria(report["val"], test)
    return {
        "test": test,
        "val": report["val"],
        **best["priors"],
        "threshold": best["threshold"],
        "threshold_source": source,
        "calibration": best.get("calibration"),
        "truth_known": truth_known,
        "success_criteria": criteria,
        "targets": {
            name: {"low": low, "high": high, "reached": test and test[name]}
            for name, (_, low, high) in TARGETS.items()
        },
        "mask_rate": mask_rate,
        "best_epoch": best["epoch"],
        "epochs_run": state.progress.epoch,
        "steps_run": state.progress.step,
        "steps_planned": n_steps,
        "train_seconds": state.progress.train_seconds,
        "parameters": sum(p.numel() for p in state.network.parameters()),
        "finished": now(),
        **environment(),
    }


def log_end(content: dict, folder: Path) -> None:
    """Log the metrics, the guide's targets beside them, and the success criteria."""
    truth_known = content.get("truth_known", True)  # older versions did not say
    for split in ("val", "test"):
        if content[split]:
            log_split(split, content[split], truth_known)
    if content.get("calibration"):
        logger.info(
            "Scores of picks will be about the probability to be a particle, by the candidates on "
            "held-out micrographs. Where nothing else is known, the threshold is "
            f"{content['calibration']['threshold']:.2f}, for the highest F1 to be expected; "
            "pick_particles.py finds a better one with --choose-threshold"
        )
    elif not truth_known:
        logger.info(
            "The threshold 0.5 was not chosen, and scores of picks may all be lower: let "
            "pick_particles.py find one, with --expected-particles or --choose-threshold"
        )
    test = content["test"]
    if test:
        logger.info("The guide's targets for the full data set (at 0.5)")
        for name, (title, low, high) in TARGETS.items():
            logger.info(f"  {title:<12} {shown(test[name]):<6}   target {low:.2f} to {high:.2f}")
    if content["success_criteria"]:
        low, high = TARGET_MASK_RATE
        rate = _percent(content["mask_rate"])
        logger.info(f"  {'Mask rate':<12} {rate}    target {low:.0%} to {high:.0%}\n")
        logger.info("Success criteria (precision and recall at the validation threshold)")
    for item in content["success_criteria"]:
        met = {True: "met", False: "NOT met", None: "no test data"}[item["met"]]
        logger.info(f"  {met:<13} {shown(item['value']):<6}   {item['criterion']}")
    logger.info(f"\nResults: {folder / 'results.json'}")
    logger.info(f"TensorBoard: tensorboard --logdir {folder.parent}")


def log_split(split: str, report: dict, truth_known: bool = True) -> None:
    """Log a split's metrics with their intervals."""
    at, intervals = report["at_val_threshold"], report["intervals"]
    names = ("positives", "negatives") if truth_known else ("labelled", "unlabeled")
    logger.info(
        f"{split}: {report['n_positive']:,} {names[0]}, {report['n_negative']:,} {names[1]}; "
        "95% intervals from resampling micrographs"
    )
    logger.info(f"  {'':<18}at 0.5{'':<24}at the validation threshold {at['threshold']:.4f}")
    for name in ("precision", "recall", "f1", "specificity", "balanced_accuracy"):
        one = f"{shown(report[name])} {_interval(intervals[name])}"
        other = f"{shown(at[name])} {_interval(intervals['at_val_threshold'][name])}"
        logger.info(f"  {name:<18}{one:<30}{other}")
    logger.info(f"  {'AUC':<18}{shown(report['auc'])} {_interval(intervals['auc'])}")
    base = f"(base rate {shown(report['ap_base_rate'])})"
    logger.info(f"  {'AP':<18}{shown(report['ap'])} {_interval(intervals['ap'])} {base}")
    logger.info(f"  {'ECE':<18}{shown(report['ece'])}\n")


def _percent(value: float | None) -> str:
    return "none" if value is None else f"{value:.1%}"


def _interval(bounds: list[float] | None) -> str:
    return "" if bounds is None else f"[{bounds[0]:.4f}, {bounds[1]:.4f}]"
