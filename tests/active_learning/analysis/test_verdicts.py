"""The hypothesis: the target with at most 40% of the images."""

import pytest

from tests.fixtures.run_folders import RISING, SLOW, verdict, write_run


def test_the_hypothesis_is_judged_on_the_mean_curve_of_the_seeds(tmp_path):
    for seed, offset in ((1, 0.02), (2, -0.01), (3, 0.02)):
        write_run(tmp_path, "entropy", [f1 + offset for f1 in RISING], seed)
    judged = verdict(tmp_path, "entropy", 0.6)
    assert judged["verdict"] == "holds"
    assert judged["share_needed"] == pytest.approx(0.39)
    assert (judged["n_seeds_reached"], judged["n_seeds"]) == (2, 3)
    assert judged["f1_at_limit"]["mean"] == pytest.approx(0.61)


@pytest.mark.parametrize(
    ("f1s", "target_f1", "expected", "share_needed"),
    [
        (RISING[:3], 0.45, "holds", 0.25),  # reached before 40% are complete
        (SLOW[:4], 0.6, "does not hold", None),
        (RISING, 0.65, "does not hold", 0.5),
        (RISING[:3], 0.6, "cannot be told", None),
        (RISING, None, "cannot be told", None),
    ],
)
def test_it_holds_does_not_hold_or_cannot_be_told(tmp_path, f1s, target_f1, expected, share_needed):
    write_run(tmp_path, "entropy", f1s)
    judged = verdict(tmp_path, "entropy", target_f1)
    assert judged["verdict"] == expected
    assert judged["target"] == target_f1
    assert judged["share_needed"] == pytest.approx(share_needed)


def test_it_cannot_be_told_while_only_some_seeds_are_that_far(tmp_path):
    write_run(tmp_path, "entropy", SLOW, 1)
    write_run(tmp_path, "entropy", SLOW[:3], 2)
    judged = verdict(tmp_path, "entropy", 0.6)
    assert judged["verdict"] == "cannot be told"
    assert (judged["n_seeds_covering"], judged["n_seeds"]) == (1, 2)


def test_a_first_set_beyond_40_percent_tells_nothing_about_less(tmp_path):
    write_run(tmp_path, "entropy", [0.5, 0.6], images=[50, 70])
    assert verdict(tmp_path, "entropy", 0.45)["verdict"] == "cannot be told"


@pytest.mark.parametrize(
    ("images", "pool", "target_f1", "expected"),
    [
        ([517, 1034, 1552, 2069], 5172, 0.7, "holds"),  # 2069 of 5172 are 40.004%
        ([3, 7, 10, 13], 33, 0.8, "does not hold"),  # 13 of 33 are 39.4%
    ],
)
def test_40_percent_is_the_rounded_number_of_images_that_the_schedule_has(
    tmp_path, images, pool, target_f1, expected
):
    write_run(tmp_path, "entropy", [0.4, 0.5, 0.6, 0.7], images=images, pool=pool)
    assert verdict(tmp_path, "entropy", target_f1)["verdict"] == expected
