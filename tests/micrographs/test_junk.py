"""Junk: found where it was put, nothing where there is none, whatever contrast and orientation."""

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter

from picking.micrographs.junk import MUCH_COARSER, coarseness, coarsest, junk_mask
from picking.micrographs.preparation import scale_micrograph
from picking.simulation import junk
from picking.simulation.ctf import Optics
from picking.simulation.micrograph import Simulated, simulate_micrograph
from picking.simulation.proteins import PROTEINS

SIZE_PX = (448, 512)


def simulated(kind: str | None, seed: int, protein: int = 0, **others) -> Simulated:
    """Return a micrograph near the working scale, with junk of a kind or without."""
    optics = Optics(pixel_size_angstrom=8.0, defocus_angstrom=15000.0)
    junk = {"junk": (kind,), "junk_rng": np.random.default_rng(100 + seed)} if kind else {}
    settings = {"snr": 0.3, **junk, **others}
    rng = np.random.default_rng(seed)
    return simulate_micrograph(PROTEINS[protein], optics, SIZE_PX, rng, **settings)


def mask_of(image: Simulated) -> np.ndarray:
    return junk_mask(image.raw, image.diameter_px)


def n_lost(image: Simulated, mask: np.ndarray) -> int:
    """Return how many particles have their centre in the mask."""
    return int(mask[tuple(image.centres_px.astype(int).T)].sum())


@pytest.fixture(scope="module")
def with_film() -> Simulated:
    return simulated("film", 2)


@pytest.mark.parametrize(
    ("kind", "seed", "protein", "recall", "precision"),
    [
        ("film", 0, 0, 0.97, 0.9),
        ("film", 5, 1, 0.97, 0.85),
        ("foil", 1, 1, 0.97, 0.9),
        ("foil", 6, 2, 0.97, 0.9),
        ("ice", 2, 2, 0.9, 0.8),
        ("ice", 4, 0, 0.9, 0.8),
        ("aggregate", 1, 1, 0.8, 0.7),
        ("aggregate", 4, 0, 0.8, 0.6),
    ],
)
def test_the_mask_covers_what_spoils_a_micrograph_and_little_else(
    kind, seed, protein, recall, precision
):
    image = simulated(kind, seed, protein)
    mask = mask_of(image)
    assert mask.shape == SIZE_PX and mask.dtype == bool
    assert (mask & image.junk).sum() >= recall * image.junk.sum() > 0
    assert (mask & image.junk).sum() >= precision * mask.sum()
    assert n_lost(image, mask) <= 0.1 * len(image.centres_px)


@pytest.mark.parametrize("kind", [None, "step"])
@pytest.mark.parametrize(
    ("protein", "others"),
    [
        (0, {}),
        (1, {"density": 4.0}),  # crowded
        (2, {"density": 0.2, "snr": 0.5}),  # few, and clear ones
        (3, {"snr": 0.02}),  # hardly to be seen
        (4, {"density": 0.0}),
    ],
)
def test_nothing_is_junk_on_a_micrograph_without(kind, protein, others):
    for seed in range(3):
        image = simulated(kind, seed, protein, **others)
        assert not image.junk.any()
        assert not mask_of(image).any()


def test_a_steep_slope_of_thickness_is_no_junk():
    image = simulated(None, 1)
    y, x = np.indices(SIZE_PX)
    deviation = image.raw.std()
    for slope in (y / SIZE_PX[0], (x / SIZE_PX[1]) ** 2, np.hypot(y, x) / 500):
        assert not junk_mask(image.raw - 5 * deviation * slope, image.diameter_px).any()


@pytest.mark.parametrize("sigma_px", [0.0, 1.0, 8.0])
def test_noise_is_no_junk_and_neither_is_nothing_at_all(sigma_px):
    noise = np.random.default_rng(0).normal(size=SIZE_PX)
    assert not junk_mask(gaussian_filter(noise, sigma_px, mode="wrap"), 20.0).any()
    assert not junk_mask(np.full(SIZE_PX, 7, np.uint8), 20.0).any()


def test_contrast_and_offset_do_not_matter(with_film):
    mask, raw = mask_of(with_film), with_film.raw
    for other in (3e-4 * raw - 20, 500 * raw + 1e4):
        assert (junk_mask(other, with_film.diameter_px) != mask).mean() < 1e-3
    grey = 128 + 32 * (raw - np.median(raw)) / raw.std()
    grey = np.clip(np.rint(grey), 0, 255).astype(np.uint8)
    assert (junk_mask(grey, with_film.diameter_px) != mask).mean() < 0.02


def test_a_mirrored_micrograph_has_the_mirrored_mask(with_film):
    mask = mask_of(with_film)
    assert mask.any()
    for axes in (0, 1, (0, 1)):
        mirrored = junk_mask(np.flip(with_film.raw, axes).copy(), with_film.diameter_px)
        assert (np.flip(mirrored, axes) != mask).mean() < 1e-3
    turned = junk_mask(with_film.raw.T.copy(), with_film.diameter_px)
    assert (mask != turned.T).mean() < 1e-3


def test_a_frame_of_drawn_out_px_is_junk_and_changes_nothing_within():
    image = simulated(None, 3)
    framed = np.pad(image.raw[12:-9, 7:], ((12, 9), (7, 0)), mode="edge")
    mask = junk_mask(framed, image.diameter_px)
    assert mask[:12].all() and mask[-9:].all() and mask[:, :7].all()
    assert not mask[13:-10, 8:].any()


def test_film_over_more_than_half_is_not_taken_for_junk_nor_is_the_hole_in_it():
    image = simulated(None, 3)
    y, x = np.indices(SIZE_PX)
    raw = np.where(np.hypot(y - 200, x - 250) < 150, image.raw, 0.4 * image.raw)
    mask = junk_mask(raw, image.diameter_px)
    assert mask.mean() < 0.25  # the edge between them
    assert not mask[(np.hypot(y - 200, x - 250) < 100)].any()


# Junk all over


@pytest.mark.parametrize("protein", [0, 1, 2])
def test_crystals_all_over_are_much_coarser_than_any_micrograph_with_particles(
    protein, monkeypatch
):
    usual = [simulated(kind, 7, protein) for kind in (None, "film", "ice", "aggregate")]
    clean = [coarseness(image.raw, image.diameter_px) for image in usual]
    monkeypatch.setattr(junk, "patch", lambda shape, *_: np.ones(shape, np.float32))
    spoilt = simulated("ice", 7, protein)
    assert max(clean) < 1.5 * min(clean)
    assert coarseness(spoilt.raw, spoilt.diameter_px) > MUCH_COARSER * max(clean)


def test_neither_contrast_nor_scale_matters_to_coarseness():
    image = simulated(None, 3)
    here = coarseness(image.raw, image.diameter_px)
    assert coarseness(100 - 3 * image.raw, image.diameter_px) == pytest.approx(here, rel=1e-3)
    enlarged = scale_micrograph(image.raw, (3 * SIZE_PX[0], 2 * SIZE_PX[1]))
    there = coarseness(enlarged, image.diameter_px * np.array([3, 2]))
    assert there == pytest.approx(here, rel=0.25)  # scaling twice costs some of the fine noise


@pytest.mark.parametrize(
    "image", [np.eye(15), np.ones((64, 64)), np.kron(np.eye(8), np.ones((8, 8)))]
)
def test_coarseness_is_unknown_of_a_tiny_image_and_without_fine_noise(image):
    assert coarseness(image, 20) is None


def test_the_coarsest_of_those_that_are_known():
    noted = [{"coarseness": 0.4}, {"coarseness": None}, {}, {"coarseness": 0.7}]
    assert coarsest(noted) == 0.7
    assert coarsest([{}]) is None
