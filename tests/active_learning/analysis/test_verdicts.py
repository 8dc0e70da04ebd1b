"""The hypothesis: the target with at most 40% of the images."""

import pytest

from tests.fixtures.run_folders import RISING, SLOW, verdict, write_run


def test_the_hypothesis_holds_where_the_mean_curve_gets_there_with_40_percent(tmp_path):
    for seed, offset in ((1, 0.02), (2, -0.01), (3, 0.02)):
        write_run(tmp_path, "random", SLOW, seed)
        write_run(tmp_path, "entropy", [f1 + offset for f1 in RISING], seed)
    found = verdict(tmp_path, "entropy", 0.6)
    assert found["verdict"] == "holds"
    assert found["share_needed"] == pytest.approx(0.39)
    assert (found["n_seeds_reached"], found["n_seeds"]) == (2, 3)
    assert "2 by themselves" in found["words"]
    assert "more seeds are needed" in found["words"]  # 0.61 ± 0.04 leaves 0.6 open
    assert "Random does not reach it with as little" in found["words"]


def test_where_random_gets_there_too_the_verdict_says_that_choice_did_not_help(tmp_path):
    write_run(tmp_path, "random", [f1 + 0.01 for f1 in RISING])
    write_run(tmp_path, "entropy", RISING)
    words = verdict(tmp_path, "entropy", 0.6)["words"]
    assert "HOLDS" in words
    assert "But random does so too, with 39.0%: the active choice is not what" in words
    assert "One seed only" in words


def test_the_hypothesis_does_not_hold_where_40_percent_were_covered_in_vain(tmp_path):
    write_run(tmp_path, "random", RISING)
    write_run(tmp_path, "entropy", SLOW[:4])
    found = verdict(tmp_path, "entropy", 0.6)
    assert found["verdict"] == "does not hold"
    assert "Random does reach it, with 40.0%" in found["words"]
    later = verdict(tmp_path, "random", 0.65)
    assert later["verdict"] == "does not hold"
    assert "but with 50.0%" in later["reason"]
    assert "Nor does random reach it with 40%." in verdict(tmp_path, "entropy", 0.65)["words"]


@pytest.mark.parametrize(
    ("f1s", "target_f1", "words"),
    [
        (RISING, None, "there is no target (run --strategy full, or give --target-f1)"),
        (RISING[:3], 0.6, "complete iterations go up to 30.0% of the images so far"),
    ],
)
def test_the_hypothesis_cannot_be_told_without_target_or_iterations(
    tmp_path, f1s, target_f1, words
):
    write_run(tmp_path, "entropy", f1s)
    found = verdict(tmp_path, "entropy", target_f1)
    assert found["verdict"] == "cannot be told"
    assert words in found["words"]


def test_it_cannot_be_told_while_only_some_seeds_are_that_far(tmp_path):
    write_run(tmp_path, "entropy", SLOW, 1)
    write_run(tmp_path, "entropy", SLOW[:3], 2)
    found = verdict(tmp_path, "entropy", 0.6)
    assert found["verdict"] == "cannot be told"
    assert "reach 40% of the images on 1 of 2 seeds so far" in found["reason"]


def test_it_holds_before_40_percent_are_complete_if_the_target_is_reached(tmp_path):
    write_run(tmp_path, "entropy", RISING[:3])
    found = verdict(tmp_path, "entropy", 0.45)
    assert (found["verdict"], found["share_needed"]) == ("holds", pytest.approx(0.25))


def test_a_first_set_beyond_40_percent_tells_nothing_about_less(tmp_path):
    write_run(tmp_path, "entropy", [0.5, 0.6], images=[50, 70])
    assert verdict(tmp_path, "entropy", 0.45)["verdict"] == "cannot be told"


def test_40_percent_is_the_rounded_number_of_images_that_the_schedule_has(tmp_path):
    # 2069 of 5172 images are 40.004%
    images = [517, 1034, 1552, 2069]
    write_run(tmp_path, "entropy", [0.5, 0.6, 0.7, 0.7303], images=images, pool=5172)
    assert verdict(tmp_path, "entropy")["verdict"] == "holds"
    # 13 of 33 are 39.4%
    write_run(tmp_path / "small", "entropy", [0.5, 0.6, 0.7], images=[3, 7, 13], pool=33)
    assert verdict(tmp_path / "small", "entropy", 0.8)["verdict"] == "does not hold"
