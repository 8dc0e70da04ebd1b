"""Micrographs: the power spectrum against theory, signal, noise, and where particles lie."""

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter, gaussian_filter1d
from scipy.spatial import cKDTree

from picking.simulation.ctf import Optics, radial_power
from picking.simulation.junk import carbon_film, ice_crystals
from picking.simulation.micrograph import (
    place_particles,
    project,
    simulate_micrograph,
    splat,
)
from picking.simulation.proteins import PROTEINS
from tests.simulation.test_ctf import textbook_zeros


def spectrum_misfit(raw: np.ndarray, pixel_size_angstrom: float, defocus_angstrom: float) -> float:
    """Return the largest relative distance of the first three minima from the zeros of theory.

    Each minimum is looked for up to halfway to the next zero, on both sides.
    """
    zeros = textbook_zeros(defocus_angstrom, 4)
    frequency, power = radial_power(raw, pixel_size_angstrom)
    smooth = gaussian_filter1d(power, 2.0)
    misfits = []
    for zero, reach in zip(zeros[:3], np.diff(zeros) / 2, strict=True):
        window = np.flatnonzero(np.abs(frequency - zero) < reach)
        misfits.append(abs(frequency[window[smooth[window].argmin()]] / zero - 1))
    return max(misfits)


@pytest.mark.parametrize("defocus_angstrom", [12000.0, 20000.0])
def test_the_power_spectrum_has_its_zeros_where_theory_says(defocus_angstrom):
    optics = Optics(defocus_angstrom=defocus_angstrom)
    raw = simulate_micrograph(PROTEINS[1], optics, (640, 512), np.random.default_rng(1)).raw
    assert spectrum_misfit(raw, 2.0, defocus_angstrom) < 0.03
    for wrong in (0.9, 1.1):
        assert spectrum_misfit(raw, 2.0, wrong * defocus_angstrom) > 0.03


def test_angles_are_relions_in_the_frame_with_y_up():
    on_x, centre = np.array([[10.0, 0.0, 0.0]]), np.array([[20.0, 30.0]])
    image = project((64, 64), on_x, centre, np.array([[0.0, 0.0, 90.0]]), np.random.default_rng(0))
    # psi = 90 takes x to -y; y up is minus y down, so the point comes out 10 px below.
    assert np.unravel_index(image.argmax(), image.shape) == (30, 30)


def test_splatting_keeps_mass_and_centre():
    image = splat((20, 30), np.array([[7.3, 11.8]]), np.array([2.0]))
    assert image.sum() == pytest.approx(2)
    y, x = np.indices(image.shape)
    assert (image * y).sum() / 2 == pytest.approx(7.3, abs=1e-5)
    assert (image * x).sum() / 2 == pytest.approx(11.8, abs=1e-5)
    assert splat((20, 30), np.array([[-5.0, 3.0], [3.0, 31.0]]), np.ones(2)).sum() == 0


def disks(shape: tuple[int, int], centres_px: np.ndarray, radius_px: float) -> np.ndarray:
    y, x = np.indices(shape)
    return np.any([np.hypot(y - a, x - b) <= radius_px for a, b in centres_px], axis=0)


@pytest.mark.parametrize("snr", [0.03, 0.1])
def test_the_signal_to_noise_ratio_is_the_one_asked_for(snr):
    measured = []
    for protein in PROTEINS[:3]:
        image = simulate_micrograph(
            protein, Optics(), (512, 512), np.random.default_rng(3), snr=snr, density=0.8
        )
        relative = image.raw / image.raw.mean() - 1
        on = disks(image.raw.shape, image.centres_px, image.diameter_px / 2)
        around = disks(image.raw.shape, image.centres_px, image.diameter_px)
        # What is called signal is in the raw counts, once.
        slope = np.polyfit(image.signal[on], relative[on], 1)[0]
        assert slope == pytest.approx(1, abs=0.25)
        measured.append(image.signal[on].var() / relative[~around].var() / protein.contrast)
    assert np.mean(measured) == pytest.approx(snr, rel=0.25)


def test_particles_are_darker_than_what_surrounds_them_and_lie_where_the_truth_says():
    image = simulate_micrograph(
        PROTEINS[0], Optics(), (400, 512), np.random.default_rng(5), snr=0.1, density=1.5
    )
    radius_px = image.diameter_px / 2
    assert len(image.centres_px) >= 5

    def darkness(shift_px: tuple[float, float]) -> float:
        on = disks(image.raw.shape, image.centres_px + shift_px, radius_px / 2)
        return image.raw[on].mean() / image.raw.mean() - 1

    there = darkness((0, 0))
    assert there < -0.01
    for shift in ((0, 40), (40, 0), (0, -40), (-40, 0)):
        assert there < darkness(shift) - 0.01


def test_particles_touch_but_never_lie_on_top_of_each_other():
    centres = place_particles(60, 30.0, np.ones((400, 500)), np.random.default_rng(0))
    nearest = cKDTree(centres).query(centres, k=2)[0][:, 1]
    assert len(centres) == 60
    assert nearest.min() >= 0.9 * 30
    assert (nearest < 1.2 * 30).mean() > 0.25


def test_particles_keep_off_ice_and_mostly_off_carbon():
    appeal = np.ones((400, 400))
    appeal[:, :200] = 0
    centres = place_particles(40, 20.0, appeal, np.random.default_rng(0))
    assert len(centres) > 10
    assert centres[:, 1].min() >= 199
    # A crowded area takes what it can hold and says so by its number.
    assert len(place_particles(500, 50.0, np.ones((200, 200)), np.random.default_rng(0))) < 30


def test_the_carbon_edge_crosses_the_image_and_ice_is_where_it_is_dark():
    for seed in range(20):
        film = carbon_film((300, 400), 3000, np.random.default_rng(seed))
        assert 0.02 < (film > 0.5).mean() < 0.5
    assert ice_crystals((300, 400), 0, 2.0, np.random.default_rng(0)).max() == 0

    flaws = {"carbon": True, "n_crystals": 5}
    dose = Optics().dose_per_angstrom2 * 4
    plain, flawed = (
        gaussian_filter(
            simulate_micrograph(
                PROTEINS[0], Optics(), (300, 300), np.random.default_rng(2), density=0, **kind
            ).raw,
            5,
        )
        for kind in ({}, flaws)
    )
    assert plain.mean() == pytest.approx(dose, rel=0.03)
    assert plain.min() > 0.94 * dose
    assert flawed.min() < 0.94 * dose
