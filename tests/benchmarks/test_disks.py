"""How far disks about particles overlap."""

import math

import numpy as np
import pytest

from benchmarks.disks import covered


def test_disks_apart_cover_their_number_times_a_disk_and_two_in_one_place_half_of_it():
    apart = np.array([[50.5, 50.5], [50.5, 120.5], [130.5, 80.5]])
    n_a, near = covered(apart, [200, 200])
    assert n_a == pytest.approx(3 * math.pi * 100 / 200**2)
    assert near == pytest.approx(n_a, rel=0.02)
    n_a, near = covered(np.repeat(apart, 2, axis=0), [200, 200])
    assert near == pytest.approx(n_a / 2, rel=0.02)


def test_a_margin_does_not_count():
    n_a, near = covered(np.array([[100.5, 100.5]]), [200, 200], margin_px=50)
    assert (n_a, near) == pytest.approx((math.pi * 100 / 100**2,) * 2, rel=0.02)
