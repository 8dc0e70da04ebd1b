"""The annotator of benchmarks.clicks: what it pays, and what it says."""

import numpy as np
import pytest
from scipy.spatial import cKDTree

from benchmarks.clicks import BOX, OPENING, OVERLOOKED, SCATTER, SHOWN, WAYS, Annotator
from picking.formats.picks import Picks, select
from tests.fixtures.data_sets import some_centres
from tests.fixtures.plans import record

SIZE_PX, DIAMETER_PX, N = (900, 900), 30.0, 100
NAMES = ("a", "b", "c")


def micrographs():
    rng = np.random.default_rng(0)
    return [
        record(f"{name}.png", some_centres(rng, N, SIZE_PX, 20, 50), diameter_px=DIAMETER_PX)
        for name in NAMES
    ]


def candidates_of(listed):
    """Every particle, at scores from 0.5 up, and as many places that are none, at lower ones."""
    found, rng = {}, np.random.default_rng(1)
    for one in listed:
        anywhere = rng.uniform(0, SIZE_PX[0], (5 * N, 2))
        false = anywhere[cKDTree(one.centres_px).query(anywhere)[0] > DIAMETER_PX][:N]
        centres = np.concatenate([one.centres_px + 2, false])
        scores = np.concatenate([np.linspace(0.5, 0.9, N), np.linspace(0.3, 0.4, len(false))])
        found[one.path.stem] = Picks(one.name, centres, scores, np.full(len(scores), 30.0), SIZE_PX)
    return found


@pytest.mark.parametrize("way", [way for way in WAYS if way != "corrected"])
def test_what_is_paid_is_what_was_clicked_and_opened_and_no_more_than_the_budget(way):
    listed = micrographs()
    annotator = Annotator(listed, DIAMETER_PX, seed=0)
    for budget in (40, 150, 400):
        annotator.spend(way, budget, candidates_of(listed), half=0.2)
        counts = annotator.counts
        clicks = counts["picks"] + counts["negatives"]
        opened, rest = divmod(annotator.paid - clicks, OPENING)
        assert rest == 0 and opened >= counts["micrographs"] > 0
        assert budget - OPENING <= annotator.paid <= budget or way == "whole"
        assert annotator.paid <= budget


def test_what_is_clicked_lies_about_particles_and_what_is_rejected_does_not():
    listed = micrographs()
    for way in ("random", "false"):
        annotator = Annotator(listed, DIAMETER_PX, seed=0)
        annotator.spend(way, 300, candidates_of(listed), half=0.2)
        for sheet in annotator.sheets.values():
            tree = cKDTree(sheet.truth.centres_px)
            if sheet.picks_px:
                away = tree.query(np.array(sheet.picks_px))[0]
                assert 0 < np.median(away) < 2 * SCATTER * DIAMETER_PX + 2
            if sheet.negatives_px:
                assert tree.query(np.array(sheet.negatives_px))[0].min() >= DIAMETER_PX / 2
        assert (annotator.counts["negatives"] > 0) == (way == "false")


def test_the_highest_scores_are_all_true_here_and_the_lowest_all_false():
    listed = micrographs()
    first = {}
    for way in ("score", "false"):
        annotator = Annotator(listed, DIAMETER_PX, seed=0)
        annotator.spend(way, OPENING + SHOWN + 1, candidates_of(listed), half=0.2)
        first[way] = (annotator.counts["picks"], annotator.counts["negatives"])
    assert first == {"score": (SHOWN, 0), "false": (0, SHOWN)}


def test_whole_micrographs_are_complete_but_for_what_was_overlooked():
    annotator = Annotator(micrographs(), DIAMETER_PX, seed=0)
    annotator.spend("whole", 3 * (N + OPENING) + 1, {}, half=0.5)
    assert annotator.counts["complete"] == 3
    assert 1 - 3 * OVERLOOKED < annotator.counts["picks"] / (3 * N) < 1


def test_without_proposals_clicks_fall_on_particles_at_random_on_all_micrographs():
    annotator = Annotator(micrographs(), DIAMETER_PX, seed=0)
    annotator.spend("uncertain", 110, {}, half=0.5)
    assert annotator.counts == {"picks": 75, "negatives": 0, "complete": 0, "micrographs": 3}


def test_a_corrected_box_has_all_its_particles_and_costs_its_errors_alone():
    annotator = Annotator(micrographs(), DIAMETER_PX, seed=0)
    annotator.spend("corrected", OPENING + BOX, candidates_of(micrographs()), half=0.2)
    sheet = next(sheet for sheet in annotator.sheets.values() if sheet.opened)
    tree = cKDTree(sheet.truth.centres_px)
    false = tree.query(np.array(sheet.picks_px))[0] > DIAMETER_PX / 2  # overlooked
    assert false.sum() <= 3 * OVERLOOKED * BOX
    assert tree.query(np.array(sheet.negatives_px))[0].min() >= DIAMETER_PX / 2
    # Every particle has a proposal here, so that what is paid are rejections and the acceptance
    opened = annotator.counts["micrographs"]
    assert annotator.paid == opened * (OPENING + 1) + annotator.counts["negatives"] <= 110
    assert annotator.counts["picks"] + annotator.counts["negatives"] > BOX


def test_a_micrograph_with_few_proposals_is_corrected_as_a_whole_and_is_complete():
    few = {
        stem: select(picks, picks.scores >= 0.7)
        for stem, picks in candidates_of(micrographs()).items()
    }
    annotator = Annotator(micrographs(), DIAMETER_PX, seed=0)
    annotator.spend("corrected", 10 * N, few, half=0.2)
    assert annotator.counts["complete"] == 3 and annotator.counts["negatives"] == 0
    proposed = sum(len(picks.scores) for picks in few.values())
    missed = annotator.counts["picks"] - proposed
    assert 3 * N * (1 - 2 * OVERLOOKED) < annotator.counts["picks"] <= 3 * N
    assert annotator.paid == 3 * (OPENING + 1) + missed
