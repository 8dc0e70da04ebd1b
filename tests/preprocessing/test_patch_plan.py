"""Where patches lie: hidden positives, negatives and their rules, top-up."""

import numpy as np
import pytest

from picking.errors import UserError
from picking.preprocessing.patch_plan import split_priors
from tests.fixtures.data_sets import some_centres
from tests.fixtures.plans import PATCH_PX, SIZE_PX, plan, record, records


def arrays(one):
    return [
        one.labelled_px, one.hidden_px, one.negatives_px, one.off_centre_px,
        one.outlier_candidates_px,
    ]  # fmt: skip


def assert_same_plans(one, other):
    for a, b in zip(one, other, strict=True):
        assert a.micrograph.name == b.micrograph.name and a.n_outliers == b.n_outliers
        for rows, others in zip(arrays(a), arrays(b), strict=True):
            np.testing.assert_array_equal(rows, others)


def nearest(points, centres):
    """Distance of every point to the nearest of the centres."""
    return np.linalg.norm(points[:, None] - centres, axis=-1).min(axis=1)


def spacing(points):
    distances = np.linalg.norm(points[:, None] - points, axis=-1)
    return distances[np.triu_indices(len(points), 1)].min()


@pytest.mark.parametrize(
    ("n", "ratio", "hidden"), [(10, 0.3, 3), (9, 0.3, 2), (3, 0.3, 0), (7, 0.0, 0), (12, 0.95, 11)]
)
def test_of_each_micrograph_int_n_times_h_positives_are_hidden(n, ratio, hidden):
    listed = records([n, n])
    for one in plan(listed, hide_ratio=ratio):
        assert len(one.hidden_px) == hidden and len(one.labelled_px) == n - hidden
        together = np.concatenate([one.labelled_px, one.hidden_px])
        assert sorted(together.tolist()) == sorted(one.micrograph.centres_px.tolist())


def test_a_plan_depends_on_its_own_micrograph_alone():
    listed = records()
    whole = plan(listed)
    assert_same_plans(plan(listed[1:]), whole[1:])
    assert_same_plans(plan(listed[::-1]), whole[::-1])


def test_another_seed_another_split_or_another_name_is_another_plan():
    centres = records([11])[0].centres_px
    first = plan([record("a.png", centres)])
    for other in (
        plan([record("a.png", centres)], seed=43),
        plan([record("a.png", centres)], split="val"),
        plan([record("b.png", centres)]),
    ):
        assert (first[0].hidden_px != other[0].hidden_px).any()
        assert (first[0].negatives_px[0] != other[0].negatives_px[0]).any()


def test_negatives_are_far_apart_distinct_and_inside_the_margin():
    for one in plan(records(), margin_px=21, neg_per_pos=0.5):
        centres = one.micrograph.centres_px
        assert len(one.negatives_px) == round(0.5 * len(centres))
        assert nearest(one.negatives_px, centres).min() >= PATCH_PX
        assert spacing(one.negatives_px) >= PATCH_PX / 2
        assert (one.negatives_px >= 21).all()
        assert (one.negatives_px <= np.array(SIZE_PX) - 21).all()


def test_negatives_keep_away_from_a_particle_whose_centre_is_outside():
    centres = [*some_centres(np.random.default_rng(0), 11, SIZE_PX), (-6.0, 150.0)]
    (one,) = plan([record("a.png", centres)], neg_per_pos=100)
    assert one.n_outside == 1 and len(one.labelled_px) + len(one.hidden_px) == 11
    assert nearest(one.negatives_px, np.array([[-6.0, 150.0]])).min() >= PATCH_PX


@pytest.mark.parametrize("rule", ["far", "disjoint"])
def test_a_shortage_is_counted_and_never_relaxed(rule):
    (one,) = plan(records([11]), neg_per_pos=30, neg_rule=rule)
    assert one.n_negatives_wanted == 330
    assert 10 < len(one.negatives_px) == one.n_negative < 330
    assert spacing(one.negatives_px) >= PATCH_PX / 2
    if rule == "far":
        assert nearest(one.negatives_px, one.micrograph.centres_px).min() >= PATCH_PX


def crowded_and_roomy():
    rng = np.random.default_rng(1)
    crowd = np.stack(np.meshgrid(np.arange(10, 240, 28), np.arange(10, 300, 28)), -1).reshape(-1, 2)
    return [
        record("crowd.png", crowd),
        record("roomy_a.png", some_centres(rng, 4, SIZE_PX)),
        record("roomy_b.png", some_centres(rng, 5, SIZE_PX)),
    ]


def test_top_up_takes_what_is_missing_from_micrographs_with_room():
    listed = crowded_and_roomy()
    plain, topped = plan(listed, neg_per_pos=0.6), plan(listed, neg_per_pos=0.6, top_up=True)
    wanted = sum(p.n_negatives_wanted for p in plain)
    assert sum(p.n_negative for p in plain) < wanted == sum(p.n_negative for p in topped)
    assert plain[0].n_negative == topped[0].n_negative == 0
    extra = [t.n_negative - p.n_negative for t, p in zip(topped[1:], plain[1:], strict=True)]
    assert abs(extra[0] - extra[1]) <= 1
    for before, after in zip(plain, topped, strict=True):
        np.testing.assert_array_equal(
            after.negatives_px[: len(before.negatives_px)], before.negatives_px
        )
        np.testing.assert_array_equal(after.hidden_px, before.hidden_px)


def test_top_up_ends_when_there_is_no_room_anywhere():
    topped = plan(crowded_and_roomy(), neg_per_pos=20, top_up=True)
    wanted = sum(p.n_negatives_wanted for p in topped)
    assert sum(p.n_negative for p in topped) < wanted
    for one in topped[1:]:
        assert nearest(one.negatives_px, one.micrograph.centres_px).min() >= PATCH_PX


@pytest.mark.parametrize("rule", ["far", "disjoint"])
def test_hard_negatives_miss_particles_by_little_and_are_no_duplicates(rule):
    # Particles larger than the patch: by `disjoint`, ordinary negatives come as near.
    rng = np.random.default_rng(2)
    listed = [record("a.png", some_centres(rng, 10, SIZE_PX), diameter_px=44.0)]
    (one,) = plan(listed, hard_fraction=0.5, neg_rule=rule, patch_size_px=12, neg_per_pos=6)
    assert len(one.off_centre_px) == one.n_outliers == 15 and one.n_negative == 60
    assert len(one.outlier_candidates_px) == 4 * 15
    distances = nearest(one.off_centre_px, listed[0].centres_px)
    assert (distances >= 22).all() and (distances < 44).all()
    together = [one.negatives_px, one.off_centre_px, one.outlier_candidates_px]
    assert spacing(np.concatenate(together)) >= 6


@pytest.mark.parametrize("split", ["val", "test"])
def test_hard_negatives_are_for_train_only(split):
    (one,) = plan(records([10]), split=split, hard_fraction=0.5)
    assert len(one.negatives_px) == 10
    assert one.n_outliers == len(one.off_centre_px) == len(one.outlier_candidates_px) == 0


def test_a_patch_larger_than_the_image_is_refused():
    with pytest.raises(UserError, match=r"0\.png is 300 x 240 px, smaller than --patch-size 241"):
        plan(records([3]), patch_size_px=241)
    assert plan(records([3]), patch_size_px=240)[0].patch_size_px == 240


@pytest.mark.parametrize(
    ("counts", "priors"),
    [
        ((700, 300, 1000), [0.35, 0.5, 3 / 13]),  # of 1,000 particles, 30% hidden
        ((5, 0, 0), [1, 1, None]),  # no denominator
        ((0, 0, 0), [None] * 3),
    ],
)
def test_priors_follow_from_the_counts(counts, priors):
    found = split_priors(*counts)
    assert list(found) == ["actual_prior", "pool_prior", "unlabeled_prior"]
    assert list(found.values()) == pytest.approx(priors)
