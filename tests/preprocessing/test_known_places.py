"""Windows where more is known than picks: what is no particle, junk, complete micrographs."""

import dataclasses
import math

import numpy as np
import pytest
from PIL import Image
from scipy.spatial import cKDTree

from picking.errors import InputWarning
from picking.inputs.annotations import Split
from picking.micrographs.junk import junk_mask
from picking.preprocessing.windows.plan import NEGATIVE_RADIUS, POSITIVE_RADIUS
from picking.preprocessing.windows.priors import (
    expected_particles,
    mean_of_complete,
    place_priors,
)
from picking.stores.patches import (
    IGNORED,
    NEAR_PICK,
    NO_PARTICLE,
    TAG_NO_PARTICLE,
    TAG_PARTICLE,
    TAG_WINDOW,
    UNKNOWN,
)
from tests.fixtures.data_sets import some_centres
from tests.fixtures.images import grain
from tests.fixtures.plans import record as record_of
from tests.preprocessing.test_windows import DIAMETER_PX, SIZE_PX, settings, store_of

WINDOW_PX = 32
REACH_PX, RING_PX = POSITIVE_RADIUS * DIAMETER_PX, NEGATIVE_RADIUS * DIAMETER_PX


def record(centres_px, folder=None, negatives_px=(), name="a.png", **more):
    negatives = np.array(negatives_px, float).reshape(-1, 2)
    one = record_of(name, centres_px, *([folder] if folder else []), diameter_px=DIAMETER_PX)
    return dataclasses.replace(one, negatives_px=negatives, **more)


def plan(*arguments, folder=None, more=None, **named):
    return settings(**(more or {})).plan_split("train", [record(*arguments, **named)], [SIZE_PX])[0]


def mask_of(folder, mask):
    """Write a mask of junk; return its path."""
    Image.fromarray(mask.astype(np.uint8) * 255).save(folder / "mask.png")
    return folder / "mask.png"


def at(rows):
    """Offsets of the px of windows from their middle, along y and x."""
    return np.indices(rows.shape[1:]) - rows.shape[1] // 2


def away(*centres_px):
    """How far each px of the scaled micrograph, at half the scale, is from the nearest centre."""
    pixels = np.moveaxis(np.indices((SIZE_PX[0] // 2, SIZE_PX[1] // 2)), 0, 2)
    nearest = np.rint(np.array(centres_px) / 2)
    return cKDTree(nearest).query(pixels.reshape(-1, 2))[0].reshape(pixels.shape[:2])


# What is known of a place


def known_by_rule(picks, negatives=(), junk=None, complete=False):
    """The same one rule after the other: a click is known best, then paint, then the rest."""
    known = np.full((SIZE_PX[0] // 2, SIZE_PX[1] // 2), NO_PARTICLE if complete else UNKNOWN)
    if complete:
        known[away(*picks) <= RING_PX / 2] = IGNORED
    if junk is not None:
        known[junk] = IGNORED
    if len(negatives):
        known[away(*negatives) <= REACH_PX / 2] = NO_PARTICLE
    known[away(*picks) <= REACH_PX / 2] = NEAR_PICK
    return known


@pytest.mark.parametrize("complete", [False, True])
@pytest.mark.parametrize("painted", [False, True])
def test_a_place_is_near_a_pick_or_no_particle_or_ignored_or_unknown(tmp_path, complete, painted):
    picks, negatives = [(100, 100), (300, 400)], [(100, 112), (200, 200), (350, 330)]
    junk = np.zeros((240, 320), bool)
    junk[80:, 150:] = True  # over a pick and a negative
    one = plan(
        picks, negatives_px=negatives, complete=complete,
        junk=mask_of(tmp_path, junk) if painted else None,
    )  # fmt: skip
    known, about_negatives = one.known_places(one.painted())
    wanted = known_by_rule(picks, negatives, junk if painted else None, complete)
    np.testing.assert_array_equal(known, wanted)
    clicked = away(*negatives) <= REACH_PX / 2
    np.testing.assert_array_equal(about_negatives == NO_PARTICLE, clicked & (wanted == NO_PARTICLE))
    same = (wanted != NO_PARTICLE) | clicked
    np.testing.assert_array_equal(about_negatives[same], wanted[same])
    assert (about_negatives[~same] == IGNORED).all()


@pytest.mark.parametrize("scale", [0.125, 0.5, 2])
def test_painted_junk_is_where_it_was_painted_whatever_the_scale_of_the_mask(tmp_path, scale):
    mask = np.zeros([round(n * scale) for n in SIZE_PX], bool)
    mask[: round(160 * scale), round(480 * scale) :] = True
    wanted = np.zeros((240, 320), bool)
    wanted[:80, 240:] = True
    np.testing.assert_array_equal(plan([], junk=mask_of(tmp_path, mask)).painted(), wanted)


# Windows


def test_negatives_have_windows_of_their_own_behind_the_others(tmp_path):
    picks, negatives = [(100, 100)], [(0, 0), (200, 300.4), (479.9, 639.9), (480, 5), (-1, 3)]
    records = [record(picks, tmp_path, negatives), record([(50, 60)], tmp_path, name="b.png")]
    for one in records:
        Image.fromarray(grain(SIZE_PX)).save(one.path)
    store, plans = store_of(tmp_path / "store", records, settings(), [SIZE_PX] * 2)
    kinds = [TAG_PARTICLE] + [TAG_WINDOW] * 50 + [TAG_NO_PARTICLE] * 3
    assert store.tag[store.micrograph == 0].tolist() == kinds
    assert store.tag[store.micrograph == 1].tolist() == kinds[:51]
    np.testing.assert_array_equal(store.about_negative, store.tag == TAG_NO_PARTICLE)
    assert not (store.label | store.labeled)[store.about_negative].any()
    np.testing.assert_allclose(store.centre[store.about_negative], negatives[:3], atol=1e-3)
    middle = WINDOW_PX // 2
    assert (store.picked[store.about_negative, middle, middle] == NO_PARTICLE).all()
    whole = store.picked[np.flatnonzero(store.about_negative)[1]]
    y, x = at(whole[None])
    np.testing.assert_array_equal(whole == NO_PARTICLE, y**2 + x**2 <= (REACH_PX / 2) ** 2)
    counts = store.counts
    assert (counts["n_patches"], counts["n_unlabeled"], counts["n_not_particles"]) == (105, 100, 3)
    assert [m.get("n_not_particles") for m in counts["micrographs"]] == [3, None]
    n_bytes = sum(np.load(path).nbytes for path in (tmp_path / "store/train").glob("*.npy"))
    assert n_bytes == sum(one.n_bytes for one in plans)


def test_a_store_knows_which_micrographs_are_complete_and_how_much_of_them_is_negative(tmp_path):
    picks = some_centres(np.random.default_rng(0), 5, SIZE_PX, 20, 45)
    records = [
        record(picks, tmp_path, complete=True),
        record(picks[:2], tmp_path, [picks[2]], "b.png"),
    ]
    for one in records:
        Image.fromarray(grain(SIZE_PX)).save(one.path)
    store, _ = store_of(tmp_path / "store", records, settings(), [SIZE_PX] * 2)
    assert store.complete.tolist() == [True, False] and store.counts["n_complete"] == 1
    windows = store.picked[(store.tag == TAG_WINDOW) & (store.micrograph == 0)]
    assert (windows != UNKNOWN).all()
    disk, area = math.pi * REACH_PX**2, np.prod(SIZE_PX)
    ring = math.pi * RING_PX**2
    negative = (1 - 5 * ring / area + disk / area) / 2
    unknown = (1 - 3 * disk / area) / 2
    assert store.counts["negative_share"] == pytest.approx(negative, rel=0.01)
    assert store.counts["unknown_share"] == pytest.approx(unknown, rel=0.01)


def test_windows_keep_from_painted_junk_and_all_others_stay_where_they_were(tmp_path):
    painted = np.zeros((48, 64), bool)
    painted[24:, :] = True
    many = {"per_micrograph": 400}
    one = plan([(100, 400)], junk=mask_of(tmp_path, painted), more=many)
    rows, noted = one.draw(grain(SIZE_PX))
    assert set(noted) == {"coarseness"} and [len(row) for row in rows] == [401, 401]
    windows_px = one.groups()[1].centres_px
    assert len(windows_px) == 400 and windows_px[:, 0].max() <= 240
    before_px = plan([(100, 400)], more=many).windows_px
    stayed = before_px[before_px[:, 0] < 240]
    assert len(stayed) > 150 and {*map(tuple, stayed)} < {*map(tuple, windows_px)}
    assert one.known_fractions == {"junk": 0.5}  # of the rest nothing is known
    assert (rows[1] == IGNORED).any()


def test_where_hardly_anything_is_not_painted_windows_lie_where_they_may(tmp_path):
    painted = np.ones((48, 64), bool)
    painted[:4, :4] = False
    one = plan([(10, 10)], junk=mask_of(tmp_path, painted), more={"per_micrograph": 300})
    windows_px = one.groups()[1].centres_px
    assert len(windows_px) == 300 and (windows_px <= 41).all()


def test_windows_lie_in_junk_that_nobody_painted(tmp_path):
    """A network that never saw junk takes it for particles (RESULTS 28)."""
    film = grain(SIZE_PX)
    film[:, :200] //= 2
    assert junk_mask(film, DIAMETER_PX)[:, :160].mean() > 0.9
    Image.fromarray(film).save(tmp_path / "a.png")
    store, plans = store_of(
        tmp_path / "store", [record([(100, 400)], tmp_path)], settings(), [SIZE_PX]
    )
    at_px = store.centre[store.tag == TAG_WINDOW]
    np.testing.assert_allclose(at_px, plans[0].windows_px, atol=1e-3)
    assert (at_px[:, 1] < 160).sum() > 5


def test_picks_alone_make_what_they_made_before_there_was_anything_else():
    one = plan([(100, 400)])
    rows, noted = one.draw(grain(SIZE_PX))
    assert set(noted) == {"coarseness"} and set(np.unique(rows[1])) == {UNKNOWN, NEAR_PICK}
    assert one.counts() == {"n_particles": 1} and len(one.identity()) == 4


@pytest.mark.parametrize("change", ["negatives_px", "complete", "junk"])
def test_rows_drawn_by_another_knowledge_are_void(tmp_path, change):
    value = {"negatives_px": [(5, 5)], "complete": True, "junk": mask_of(tmp_path, np.eye(9))}
    before, after = plan([(100, 400)]), plan([(100, 400)], **{change: value[change]})
    assert before.identity() != after.identity()


# The priors


def counted(complete, n_picked, expected, rng):
    """What each place of two micrographs is; the second may be complete."""
    where = {"near": [], "picked": [], "negative": [], "unknown": []}
    windows_px = np.indices(SIZE_PX).reshape(2, -1).T + 0.5
    places = [some_centres(rng, 45, SIZE_PX, margin_px=20, apart_px=41) for _ in range(2)]
    n_true = [expected, 20 if complete else expected]
    records = []
    for i in range(2):
        particles, rest = places[i][: n_true[i]], places[i][n_true[i] :]
        done = complete and i == 1
        picks = particles if done else particles[:n_picked]
        records.append(record(picks, negatives_px=rest[:5], complete=done))
        near, to_pick, to_negative = (
            cKDTree(one).query(windows_px)[0] for one in (particles, picks, rest[:5])
        )
        picked, negative = to_pick <= REACH_PX, to_negative <= REACH_PX
        ignored = (to_pick <= RING_PX) & ~picked & ~negative if done else picked & False
        negative = ~picked & ~ignored if done else negative
        where["near"].append(near <= REACH_PX)
        where["picked"].append(picked)
        where["negative"].append(negative)
        where["unknown"].append(~(picked | negative | ignored))
    return records, {name: np.concatenate(parts) for name, parts in where.items()}


@pytest.mark.parametrize("complete", [False, True])
@pytest.mark.parametrize("n_picked", [0, 8, 30])
def test_the_priors_are_what_counting_places_of_each_kind_gives(complete, n_picked):
    rng = np.random.default_rng(n_picked)
    records, where = counted(complete, n_picked, 30, rng)
    chosen = settings(expected_particles=30)
    plans = chosen.plan_split("train", records, [SIZE_PX] * 2)
    found = chosen.summary(plans, [])
    for name, share in (
        ("actual_prior", where["picked"].mean()),
        ("pool_prior", where["near"].mean()),
        ("unlabeled_prior", where["near"][where["unknown"]].mean()),
        ("negative_share", where["negative"].mean()),
        ("unknown_share", where["unknown"].mean()),
    ):
        # Drawn in px of the scaled micrograph, a disk is a little larger or smaller
        assert found[name] == pytest.approx(share, rel=0.02, abs=2e-4), name
    assert found["unlabeled_prior"] > 0 or n_picked == 30


def test_where_all_is_known_no_expected_number_is_needed():
    given = (settings(), [SIZE_PX] * 2, [10, 4])
    found = place_priors(*given, None, 0.0, [0.7, 0.9], [0.1, 0.05], True)
    disk = math.pi * REACH_PX**2 / np.prod(SIZE_PX)
    assert found["actual_prior"] == found["pool_prior"] == pytest.approx(7 * disk)
    assert found["unlabeled_prior"] == 0 == found["unknown_share"]
    one_only = place_priors(*given, None, 0.0, [0.7, 0.0], [0.1, 0.0], [True, False])
    assert one_only["unlabeled_prior"] is None and one_only["pool_prior"] is None
    assert one_only["unknown_share"] == pytest.approx((1 - 4 * disk) / 2)


def test_a_complete_micrograph_has_the_particles_that_are_picked_whatever_is_expected():
    known = settings(expected_particles=50)
    shares = ([0.9, 0.0], [0.01, 0.0], [True, False])
    found = place_priors(known, [SIZE_PX] * 2, [10, 10], None, 0.0, *shares)
    disk = math.pi * REACH_PX**2 / np.prod(SIZE_PX)
    assert found["pool_prior"] == pytest.approx(30 * disk)
    assert found["unlabeled_prior"] == pytest.approx(40 * disk / (1 - 10 * disk))


def test_negatives_do_not_change_what_is_known_of_positives_but_make_others_rarer_among_them():
    known, given = settings(expected_particles=50), ([SIZE_PX], [10])
    plain = place_priors(known, *given)
    found = place_priors(known, *given, negative_fractions=[0.3], ignored_fractions=[0.2])
    assert all(found[name] == plain[name] for name in ("actual_prior", "pool_prior"))
    left = 1 - plain["actual_prior"]
    ratio = found["unlabeled_prior"] / plain["unlabeled_prior"]
    assert ratio == pytest.approx(left / (left - 0.5))


# The number to expect


def splits_with(*counts):
    """Splits of micrographs with so many picks, those below 0 complete: with so many less."""
    members = [
        record(np.ones((abs(n), 2)), name=f"{i}.png", complete=n < 0) for i, n in enumerate(counts)
    ]
    return {"train": Split("train", tuple(members), "x", "", "")}


@pytest.mark.parametrize(
    ("counts", "mean"),
    [((3, 0, 4), None), ((3, -10, -20), 15), ((-10, -20), None), ((30, -10, -20), None)],
)
def test_complete_micrographs_tell_how_many_particles_to_expect_on_others(counts, mean):
    assert mean_of_complete((abs(n), n < 0) for n in counts) == mean


def test_a_complete_micrograph_may_have_more_picks_than_expected():
    expected_particles(5, splits_with(3, -50))
    expected_particles(5, splits_with(-50))
    with pytest.warns(InputWarning, match=r"1 of 2 micrographs have more picks \(e\.g\. 6 on 1"):
        expected_particles(5, splits_with(3, 6, -50))
