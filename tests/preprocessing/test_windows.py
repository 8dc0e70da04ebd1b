"""Windows about a few picks: where they lie, the fraction of positives among them, their store."""

import itertools
import math
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from scipy.spatial import cKDTree

from picking.errors import UserError
from picking.files import write_json
from picking.inputs.annotations import Split
from picking.micrographs.preparation import PREPARATION, prepare, scale_micrograph
from picking.preprocessing.cutting import cut_patches, patch_writer
from picking.preprocessing.metadata import count_splits
from picking.preprocessing.windows.plan import PARTICLE_PX, POSITIVE_RADIUS
from picking.preprocessing.windows.priors import place_priors
from picking.preprocessing.windows.settings import WindowSettings
from picking.stores.journal import Journal
from picking.stores.patches import TAG_PARTICLE, TAG_WINDOW, PatchStore
from picking.stores.writer import write_split
from tests.fixtures.data_sets import some_centres
from tests.fixtures.images import grain
from tests.fixtures.plans import record as record_of

SIZE_PX = (480, 640)
DIAMETER_PX = 40.0


def settings(**changes):
    values = dict(window_px=32, diameter_px=DIAMETER_PX, per_micrograph=50, seed=42)
    return WindowSettings(**({"expected_particles": None} | values | changes))


def record(name, centres_px, folder=Path("none")):
    return record_of(name, centres_px, folder, DIAMETER_PX)


def plan(centres_px, split="train", size_px=SIZE_PX, **changes):
    return settings(**changes).plan_split(split, [record("a.png", centres_px)], [size_px])[0]


def image_files(folder, names):
    """Write an image of each name, the n-th about grey level 20 n + 8; return the paths."""
    folder.mkdir(parents=True, exist_ok=True)
    for n, name in enumerate(names):
        Image.fromarray(grain(SIZE_PX, 20 * n + 6)).save(folder / name)
    return [folder / name for name in names]


# Where windows lie


def test_unlabeled_windows_cover_the_whole_micrograph_evenly():
    windows_px = plan([(100, 100)], per_micrograph=20_000).windows_px
    count, _, _ = np.histogram2d(*windows_px.T, bins=(4, 5), range=[(0, n) for n in SIZE_PX])
    assert count.sum() == 20_000
    np.testing.assert_allclose(count, 1000, atol=5 * 1000**0.5)
    # up to the very edges, where a window hangs over
    assert (windows_px.min(axis=0) < 1).all() and (
        windows_px.max(axis=0) > np.array(SIZE_PX) - 2
    ).all()


def test_windows_stay_on_the_micrograph_and_picks_beyond_it_are_counted():
    centres = [(0, 0), (479.9, 639.9), (240, 0), (-3, 5)]
    one = plan(centres, per_micrograph=2000)
    assert one.n_outside == 1
    np.testing.assert_array_equal(one.labelled_px, centres[:3])
    assert (one.windows_px >= 0).all() and (one.windows_px < SIZE_PX).all()


@pytest.mark.parametrize("size_px", [(64, 640), (480, 60)])
def test_a_window_as_large_as_the_micrograph_is_refused(size_px):
    with pytest.raises(UserError, match=r"a\.png is .* px, no larger than .* check --diameter"):
        plan([(20, 20)], size_px=size_px)
    one = plan([(20, 20)], size_px=(66, 642))  # the window has 32 px after scaling
    assert one.scaled_px == (33, 321)
    assert settings().scale * DIAMETER_PX == pytest.approx(PARTICLE_PX)


def test_every_micrograph_has_windows_of_its_own_and_so_has_every_seed():
    centres, sizes = [(100, 100), (300, 200)], [SIZE_PX] * 3
    together = settings().plan_split("train", [record(n, centres) for n in "abc"], sizes)
    backwards = settings().plan_split("train", [record(n, centres) for n in "cb"], sizes[:2])
    for one, other in ((together[1], backwards[1]), (together[2], backwards[0])):
        np.testing.assert_array_equal(one.windows_px, other.windows_px)
    other_seed = settings(seed=1).plan_split("train", [record("a", centres)], sizes[:1])
    other_split = settings().plan_split("val", [record("a", centres)], sizes[:1])
    for one, other in itertools.combinations([*together, *other_seed, *other_split], 2):
        assert not (one.windows_px == other.windows_px).any()


# The priors


def test_the_priors_are_what_counting_places_near_particles_and_near_no_pick_gives():
    particles = some_centres(np.random.default_rng(1), 50, SIZE_PX, margin_px=20, apart_px=41)
    n, n_picked, reach_px = 200_000, 20, POSITIVE_RADIUS * DIAMETER_PX
    windows_px = plan(particles[:1], per_micrograph=n).windows_px
    near = cKDTree(particles).query(windows_px)[0] <= reach_px
    picked = cKDTree(particles[:n_picked]).query(windows_px)[0] <= reach_px
    priors = place_priors(settings(expected_particles=50), [SIZE_PX], [n_picked])
    for name, counted in (
        ("actual", picked.mean()), ("pool", near.mean()), ("unlabeled", near[~picked].mean())
    ):  # fmt: skip
        prior = priors[f"{name}_prior"]
        assert counted == pytest.approx(prior, abs=4 * math.sqrt(prior / n)), name


def test_without_an_expected_number_only_the_picked_fraction_is_known():
    priors = place_priors(settings(), [SIZE_PX] * 2, [10, 0])
    wanted = 10 * math.pi * 10**2 / (480 * 640) / 2
    assert priors.pop("actual_prior") == pytest.approx(wanted)
    assert priors == {"pool_prior": None, "unlabeled_prior": None}


def test_where_more_is_picked_than_expected_nothing_is_left_among_the_unlabeled():
    priors = place_priors(settings(expected_particles=10), [SIZE_PX] * 2, [12, 10])
    assert priors["pool_prior"] == priors["actual_prior"] > 0 == priors["unlabeled_prior"]


@pytest.mark.parametrize("n", [0, -5, math.nan, math.inf, 2000])
def test_an_impossible_number_of_particles_is_refused(n):
    with pytest.raises(UserError, match=r"--expected-particles .* on one micrograph"):
        place_priors(settings(expected_particles=n), [SIZE_PX], [0])


# The store


def blobs(centres_px, size_px, sigma_px):
    """Bright blobs, px k spanning [k, k + 1], on the ground of a chessboard, uint8 (h, w)."""
    y, x = (np.arange(n) + 0.5 for n in size_px)
    image = 59.0 + 2 * (np.indices(size_px).sum(axis=0) % 2)
    for cy, cx in centres_px:
        image += 150 * np.exp(-((y[:, None] - cy) ** 2 + (x - cx) ** 2) / (2 * sigma_px**2))
    return np.rint(image).clip(0, 255).astype(np.uint8)


def store_of(folder, records, chosen, sizes_px):
    """Fill a store of one split from the plan of these micrographs."""
    plans = chosen.plan_split("train", records, sizes_px)
    (folder / "train").mkdir(parents=True)
    journal = Journal(folder / ".journal", {"splits": ["train"]})
    assert not write_split([patch_writer(folder / "train", plans, journal)], n_workers=0)
    listed = {"train": Split("train", tuple(records), "x", "", "")}
    noted = {"train": journal.noted("train")}
    parts = count_splits(chosen, {"train": plans}, noted, listed, {"train": []})
    description = chosen.description(journal.content_hash())
    write_json(folder / "metadata.json", {**description, **parts})
    return PatchStore(folder, "train"), plans


@pytest.mark.parametrize("window_px", [32, 33])
def test_the_middle_of_a_stored_window_is_its_centre_after_scaling(tmp_path, window_px):
    size_px = (331, 402)
    particles = some_centres(np.random.default_rng(3), 12, size_px, margin_px=45, apart_px=75)
    particles += np.random.default_rng(4).random((12, 2))
    Image.fromarray(blobs(particles, size_px, 5.0)).save(tmp_path / "a.png")
    chosen, records = settings(window_px=window_px), [record("a.png", particles, tmp_path)]
    store, plans = store_of(tmp_path / "store", records, chosen, [size_px])
    # On even ground a blob is white throughout
    mass = np.maximum(store[np.flatnonzero(store.labeled)].astype(float) - 200, 0)
    at = np.arange(window_px) + 0.5
    middle = np.stack([(mass.sum(axis=2) @ at), (mass.sum(axis=1) @ at)], axis=1)
    middle /= mass.sum(axis=(1, 2))[:, None]
    scaled = particles * np.array(plans[0].scaled_px) / size_px
    # A window begins on a whole px, so it is up to half a px off
    expected = window_px // 2 + scaled - np.rint(scaled)
    np.testing.assert_allclose(middle, expected, atol=0.12)


def test_a_store_of_windows_says_what_is_known_and_how_to_scale(tmp_path):
    rng = np.random.default_rng(0)
    centres = [some_centres(rng, n, SIZE_PX) for n in (3, 0, 2)]
    records = [record(f"{n}.png", c, tmp_path) for n, c in zip("abc", centres, strict=True)]
    for path in image_files(tmp_path, ["a.png", "b.png", "c.png"]):
        Image.fromarray(rng.integers(0, 256, SIZE_PX, dtype=np.uint8)).save(path)
    chosen = settings(expected_particles=20)
    store, plans = store_of(tmp_path / "store", records, chosen, [SIZE_PX] * 3)

    assert store.patches.shape == (3 * 50 + 5, 32, 32)
    n_bytes = sum(np.load(path).nbytes for path in (tmp_path / "store/train").glob("*.npy"))
    assert n_bytes == sum(plan.n_bytes for plan in plans)  # what the disk is asked for
    wanted = {"scale": 0.5, "diameter_px": 40.0, "reach_px": 5.0}
    assert store.windows == wanted and store.metadata["preparation"] == PREPARATION
    np.testing.assert_array_equal(store.label.astype(bool), store.labeled)
    np.testing.assert_array_equal(store.tag == TAG_PARTICLE, store.labeled)
    np.testing.assert_array_equal(store.tag == TAG_WINDOW, ~store.labeled)
    for i, one in enumerate(plans):
        own = store.micrograph == i
        np.testing.assert_allclose(store.centre[own & store.labeled], one.labelled_px, atol=1e-3)
        np.testing.assert_allclose(store.centre[own & ~store.labeled], one.windows_px, atol=1e-3)
        image = np.asarray(Image.open(one.micrograph.path))
        prepared = prepare(scale_micrograph(image, (240, 320)), (PARTICLE_PX, PARTICLE_PX))
        wanted = cut_patches(prepared, store.centre[own] / 2, 32)
        np.testing.assert_array_equal(store[np.flatnonzero(own)], wanted)
    assert [store.counts[f"n_{n}"] for n in ("labeled", "unlabeled", "patches")] == [5, 150, 155]
    assert store.counts["pool_prior"] == pytest.approx(20 * math.pi * 100 / (480 * 640))
    assert [m["n_particles"] for m in store.counts["micrographs"]] == [3, 0, 2]


@pytest.mark.parametrize("window_px", [32, 33])
def test_windows_say_where_they_are_near_any_pick_of_their_micrograph(tmp_path, window_px):
    rng, size_px = np.random.default_rng(5), (331, 402)
    centres = rng.random((9, 2)) * size_px  # some at the very edge, where windows are mirrored
    image_files(tmp_path, ["a.png"])
    Image.fromarray(grain(size_px)).save(tmp_path / "a.png")
    records, chosen = [record("a.png", centres, tmp_path)], settings(window_px=window_px)
    store, plans = store_of(tmp_path / "store", records, chosen, [size_px])
    (height, width), half = plans[0].scaled_px, window_px // 2
    scale = np.array([height, width]) / size_px

    def pixel(px):
        return np.minimum(np.rint(px * scale).astype(int), [height - 1, width - 1])

    def mirrored(at, n):
        at = np.abs(at)
        return np.where(at >= n, 2 * (n - 1) - at, at)

    picks_px = np.array([pixel(c) for c in centres])
    for row in range(len(store)):
        middle = pixel(store.centre[row].astype(float))
        y, x = (mirrored(m + np.arange(window_px) - half, n) for m, n in zip(
            middle, (height, width), strict=True))  # fmt: skip
        away = np.hypot(y[:, None, None] - picks_px[:, 0], x[:, None] - picks_px[:, 1])
        np.testing.assert_array_equal(store.picked[row], away.min(axis=2) <= 5.0)
    assert store.picked[store.labeled].any(axis=(1, 2)).all()


# What is noted


def test_only_where_there_are_picks_is_it_noted_how_coarse_a_micrograph_is():
    clean = np.random.default_rng(0).normal(128, 9, SIZE_PX).astype(np.float32)
    assert 0 < plan([(100, 400)]).draw(clean)[1]["coarseness"] < 1
    assert plan([]).draw(clean)[1] == {}


def test_the_priors_are_of_the_area_that_junk_leaves():
    known = settings(expected_particles=50)
    whole = place_priors(known, [SIZE_PX], [20])
    half = place_priors(known, [SIZE_PX], [20], None, [0.5])
    assert half["actual_prior"] == pytest.approx(2 * whole["actual_prior"])
    assert half["pool_prior"] == pytest.approx(whole["pool_prior"])  # as dense as elsewhere
    # Painted but for what is lost in scaling: there is no place of which to know anything
    nearly = place_priors(known, [SIZE_PX] * 2, [20, 0], None, [0.0, 1.0])
    assert nearly["actual_prior"] == pytest.approx(whole["actual_prior"] / 2)
    assert 0 < nearly["unlabeled_prior"] < nearly["pool_prior"] < 2 * whole["pool_prior"]
