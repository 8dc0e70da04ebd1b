"""The microscope's contrast transfer function against the textbook."""

import math

import numpy as np
import pytest
from scipy import constants

from picking.simulation.ctf import Optics, ctf_zeros


def textbook_zeros(defocus_angstrom: float, n: int) -> np.ndarray:
    """Find the CTF's zeros by sign changes of the textbook formula in SI units, in 1/Å."""
    volts, cs, amplitude = 300e3, 2.7e-3, 0.1
    momentum2 = 2 * constants.m_e * constants.e * volts
    momentum2 *= 1 + constants.e * volts / (2 * constants.m_e * constants.c**2)
    wavelength = constants.h / math.sqrt(momentum2)
    s = np.linspace(1e6, 2.5e9, 500_000)
    defocus = defocus_angstrom * 1e-10
    chi = 2 * np.pi * (cs * wavelength**3 * s**4 / 4 - defocus * wavelength * s**2 / 2)
    contrast = math.sqrt(1 - amplitude**2) * np.sin(chi) - amplitude * np.cos(chi)
    return s[:-1][np.diff(np.sign(contrast)) != 0][:n] * 1e-10


def test_the_zeros_that_the_figure_marks_are_those_of_the_textbook():
    for defocus_angstrom in (9000.0, 25000.0):
        found = ctf_zeros(Optics(defocus_angstrom=defocus_angstrom), 5)
        np.testing.assert_allclose(found, textbook_zeros(defocus_angstrom, 5), rtol=1e-4)


def test_the_ctf_changes_sign_where_the_textbook_says_up_to_high_frequency():
    ctf = Optics(pixel_size_angstrom=1.0, defocus_angstrom=15000.0).ctf((1, 16384))[0]
    changes = np.flatnonzero(np.diff(np.sign(ctf)))[:16]
    zeros = textbook_zeros(15000.0, 16)
    assert zeros[-1] > 0.2  # where spherical aberration counts
    assert np.abs((changes + 0.5) / 16384 - zeros).max() < 1 / 16384


def test_the_ctf_makes_dense_matter_dark_and_treats_both_axes_alike():
    ctf = Optics(b_factor_angstrom2=80.0).ctf((60, 80))
    assert ctf.shape == (60, 41)
    assert ctf[0, 0] == pytest.approx(-0.1)
    # 6 steps of 1/(60 px) along y and 8 of 1/(80 px) along x are one frequency.
    assert ctf[6, 0] == pytest.approx(ctf[0, 8], rel=1e-5)
    assert ctf[-6, 0] == pytest.approx(ctf[6, 0])
    without = Optics(b_factor_angstrom2=0.0).ctf((60, 80))
    assert ctf[0, 40] / without[0, 40] == pytest.approx(math.exp(-80 * 0.25**2 / 4), rel=1e-4)
    assert np.abs(without).max() <= 1 + 1e-6
