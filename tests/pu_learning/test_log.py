"""Warning signs, the log of an epoch, success criteria."""

import copy

import pytest

from picking.config import LossConfig, PUConfig
from picking.pu_learning import log
from picking.pu_learning.train import epoch_metrics
from picking.runs.log import open_log
from picking.training.loop import Progress
from tests.pu_learning.test_train import TOTALS

HEALTHY = {
    "mask_rate": 0.7,
    "clipped_step_share": 0.1,
    "logit_std": 1.5,
    "val": {
        "auc": 0.8,
        "f1": 0.8,
        "ap_base_rate": 0.5,
        "predicted_positive_share": 0.5,
        "n_positive": 10,
        "n_negative": 500,
    },
}


def epochs(n, **changes):
    """A history of n healthy epochs, each with a better AUC, changed as asked.

    A change is one value for all epochs or a list of n; AUC and the like go into ``val``.
    """
    history = []
    for i in range(n):
        metrics = {**copy.deepcopy(HEALTHY), "epoch": i + 1}
        metrics["val"]["auc"] = 0.5 + 0.4 * i / n
        for name, value in changes.items():
            place = metrics["val"] if name in metrics["val"] else metrics
            place[name] = value[i] if isinstance(value, list) else value
        history.append(metrics)
    return history


def signs(history, rampup_epochs=0, truth_known=True):
    config = PUConfig(loss=LossConfig(rampup_epochs=rampup_epochs))
    best = max(history, key=lambda metrics: metrics["val"]["auc"])
    progress = Progress(best=(best["val"]["auc"],), best_epoch=best["epoch"])
    return log.warning_signs(history[-3:], progress, config, 0.23, truth_known)


# Warning signs


def test_a_healthy_run_has_no_warning_sign():
    assert signs(epochs(30)) == []
    assert signs(epochs(1)) == []


@pytest.mark.parametrize(
    ("name", "wrong", "right", "words"),
    [
        ("mask_rate", 0.19, 0.20, "lower loss.consistency_threshold"),
        ("mask_rate", 0.96, 0.95, "raise loss.consistency_threshold"),
        ("predicted_positive_share", 0.009, 0.01, "check loss.prior"),
        ("predicted_positive_share", 0.991, 0.99, "check loss.prior"),
        ("logit_std", 0.049, 0.05, "does not tell patches apart"),
        ("f1", 2 / 3, 0.667, "no better than calling everything positive (0.6667)"),
        ("f1", None, 0.667, "no better than calling everything positive (0.6667)"),
        ("clipped_step_share", 0.26, 0.25, "the unlabeled prior (0.23) is too high"),
    ],
)
def test_a_warning_sign_shows_beyond_its_bound_and_not_at_it(name, wrong, right, words):
    (sign,) = signs(epochs(5, **{name: wrong}))
    assert words in sign
    assert signs(epochs(5, **{name: right})) == []


def test_only_the_last_epoch_counts_but_for_auc_and_clipped_steps():
    once = [0.0] * 9 + [0.7]
    assert signs(epochs(10, mask_rate=once, logit_std=once, predicted_positive_share=once)) == []


def test_clipped_steps_are_a_sign_only_when_they_last_for_three_epochs():
    assert signs(epochs(2, clipped_step_share=0.9)) == []
    assert signs(epochs(5, clipped_step_share=[0.9, 0.9, 0.2, 0.9, 0.9])) == []
    assert len(signs(epochs(5, clipped_step_share=[0.1, 0.1, 0.9, 0.9, 0.9]))) == 1


@pytest.mark.parametrize(
    ("auc", "n_signs"),
    [
        ([0.6, 0.7, *[0.65] * 9], 0),
        ([0.6, 0.7, *[0.65] * 10], 1),
        ([0.6, 0.7, *[0.65] * 10, 0.71], 0),
        ([0.7] * 11, 1),  # equal to the best is no improvement
        ([1.0] * 30, 0),  # cannot improve
        ([1.0] * 29 + [0.99], 1),
    ],
)
def test_an_auc_that_does_not_improve_for_ten_epochs_is_a_sign(auc, n_signs):
    shown = signs(epochs(len(auc), auc=auc))
    assert len(shown) == n_signs and all("not improved for " in sign for sign in shown)


def test_the_mask_rate_is_no_sign_while_its_weight_rises():
    assert signs(epochs(3, mask_rate=0.0), rampup_epochs=3) == []
    assert len(signs(epochs(4, mask_rate=0.0), rampup_epochs=3)) == 1


# As the log of a network has it that learned from 30 picks, at AUC 0.95, and picks well
FEW_LABELS = {"predicted_positive_share": 0.0, "mask_rate": 0.99, "f1": None, "auc": 0.95}


@pytest.mark.parametrize("fraction", [0.0, 0.0001, 0.005])
def test_where_no_truth_is_known_none_need_be_called_positive(fraction):
    history = epochs(4, **{**FEW_LABELS, "predicted_positive_share": fraction})
    assert len(signs(history)) == 3
    assert signs(history, truth_known=False) == []


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"predicted_positive_share": 0.995}, "predicts one class"),
        ({"auc": 0.5}, "what chance may give"),
        ({"auc": 0.5, "n_positive": 1}, "what chance may give"),
        ({"logit_std": 0.01}, "does not tell patches apart"),
        ({"mask_rate": 0.1}, "lower loss.consistency_threshold"),
    ],
)
def test_where_no_truth_is_known_a_collapse_is_still_a_sign(changes, words):
    (sign,) = signs(epochs(4, **{**FEW_LABELS, **changes}), truth_known=False)
    assert words in sign


def test_the_first_epoch_of_windows_is_too_early_for_a_sign():
    early = {**FEW_LABELS, "mask_rate": 0.07, "auc": 0.5}
    assert signs(epochs(1, **early), truth_known=False) == []
    assert len(signs(epochs(2, **early), truth_known=False)) == 2


def test_of_windows_an_auc_that_falls_by_chance_is_no_sign_and_one_that_falls_for_good_is():
    for later, n_signs in (([0.95] * 12, 0), ([0.8] * 12, 1), ([0.8] * 11 + [0.96], 0)):
        history = epochs(13, **{**FEW_LABELS, "auc": [0.97, *later]})
        assert len(signs(history, truth_known=False)) == n_signs


def test_a_small_prior_is_not_shown_as_none():
    config = PUConfig(loss=LossConfig(rampup_epochs=0))
    history = epochs(3, **{**FEW_LABELS, "clipped_step_share": 0.3})
    (sign,) = log.warning_signs(history, Progress(best=(1.0,), best_epoch=3), config, 0.002, False)
    assert "(0.002)" in sign


# The log


def test_an_epoch_is_logged_in_the_form_that_users_know_and_says_what_the_best_is(capsys):
    metrics = {
        **epoch_metrics(list(TOTALS.values())),
        "epoch": 2,
        "val": {"auc": 0.7234, "precision": None, "recall": 0.6543},
    }
    metrics["mask_rate_positive"] = None
    lines = logged(capsys, metrics, Progress(epoch=2, best=(0.7234,), best_epoch=2))
    assert lines == [
        "Epoch 2/100",
        "  Train Loss: 0.7500",
        "    - PU Loss: 0.5000",
        "    - Consistency Loss: 0.2500",
        "  Consistency Mask Rate: 75.0%",
        "    - of pseudo-positives none, of pseudo-negatives 75.0%; clipped steps 25.0%",
        "",
        "  Val AUC: 0.7234",
        "  Val Precision: none",
        "  Val Recall: 0.6543",
        "  *** New best model! AUC: 0.7234 ***",
        "",
    ]
    kept = logged(capsys, metrics, Progress(epoch=2, best=(0.75,), best_epoch=1))
    assert kept[-2] == (
        "  *** Model kept: AUC 0.7234, within a standard error of the best 0.7500 ***"
    )
    other = logged(capsys, metrics, Progress(epoch=2, best=(0.9,), best_epoch=1), kept=False)
    assert other == [line for line in lines if "best" not in line]


def logged(capsys, metrics, progress, kept=True):
    """The lines on an epoch."""
    with open_log():
        log.log_epoch(metrics, 100, kept, progress)
    return capsys.readouterr().out.splitlines()


# Success criteria

GOOD = {
    "auc": 0.9,
    "predicted_positive_share": 0.5,
    "intervals": {"auc": [0.85, 0.95]},
    "at_val_threshold": {
        "precision": 0.8,
        "recall": 0.8,
        "balanced_accuracy": 0.8,
        "predicted_positive_share": 0.5,
    },
}
NAMES = ["validation AUC", "test AUC", "test precision", "test recall", "no collapse", "clearly"]


def met(test, val_auc=0.9):
    """Success criteria as name -> met, the name by its first words."""
    criteria = log.success_criteria({"auc": val_auc}, test)
    assert len(criteria) == len(NAMES)
    return {
        name: item["met"]
        for name, item in zip(NAMES, criteria, strict=True)
        if item["criterion"].startswith(name)
    }


def test_a_good_run_meets_every_criterion():
    assert met(GOOD) == dict.fromkeys(NAMES, True)


def test_each_criterion_fails_alone_at_its_bound():
    def changed(name, **values):
        test = copy.deepcopy(GOOD)
        for key, value in values.items():
            place = test["at_val_threshold"] if key in test["at_val_threshold"] else test
            place[key] = value
        return name, test

    for name, test in (
        changed("test AUC", auc=0.75),
        changed("test precision", precision=0.70),
        changed("test precision", precision=None),
        changed("test recall", recall=0.70),
        changed("no collapse", balanced_accuracy=0.5),  # called at random, in ordinary numbers
        changed("clearly", intervals={"auc": [0.632, 0.95]}),
    ):
        assert met(test) == {**dict.fromkeys(NAMES, True), name: False}
    assert met(GOOD, val_auc=0.80) == {**dict.fromkeys(NAMES, True), "validation AUC": False}


@pytest.mark.parametrize("fraction", [0.0, 0.005, 0.995, 1.0])
@pytest.mark.parametrize("threshold", ["half", "of validation"])
def test_calling_nearly_all_or_nearly_none_positive_is_a_collapse(fraction, threshold):
    test = copy.deepcopy(GOOD)
    place = test if threshold == "half" else test["at_val_threshold"]
    place["predicted_positive_share"] = fraction
    assert met(test)["no collapse"] is False


def test_without_a_test_split_or_with_one_class_in_it_nothing_is_said_of_test():
    unknown = {**dict.fromkeys(NAMES, None), "validation AUC": True}
    assert met(None) == met({**GOOD, "auc": None}) == unknown


def test_without_an_interval_the_auc_itself_must_beat_the_failed_attempt():
    assert met({**GOOD, "intervals": {"auc": None}})["clearly"] is True
    assert met({**GOOD, "auc": 0.6, "intervals": {"auc": None}})["clearly"] is False
