"""Junk of simulated micrographs: drawn apart from all else, and free of particles."""

import dataclasses

import numpy as np
import pytest

from picking.errors import UserError
from picking.simulation.junk import KINDS
from picking.simulation.plans import Arguments, check_arguments, plan_dataset, simulate_planned

ASKED = Arguments(n_train=12, n_val=0, n_test=0, size_px=(160, 200), pixel_size_angstrom=8.0)


def test_junk_changes_nothing_else_of_a_plan_and_has_every_kind():
    without = plan_dataset(ASKED)
    some = plan_dataset(dataclasses.replace(ASKED, junk=0.5))
    all_of_them = plan_dataset(dataclasses.replace(ASKED, junk=1.0))
    assert not any(plan.junk for plan in without)
    assert 0 < sum(bool(plan.junk) for plan in some) < len(some)
    assert all(plan.junk for plan in all_of_them)
    assert {kind for plan in all_of_them for kind in plan.junk} == set(KINDS)
    for one, other in zip(without, some, strict=True):
        assert dataclasses.replace(other, junk=()) == one


def test_a_micrograph_without_junk_stays_the_same_to_the_bit_in_a_set_with_junk():
    some = plan_dataset(dataclasses.replace(ASKED, junk=0.5))
    for one, other in zip(plan_dataset(ASKED), some, strict=True):
        same = np.array_equal(simulate_planned(one).raw, simulate_planned(other).raw)
        assert same == (not other.junk)


@pytest.mark.parametrize("kind", KINDS)
def test_no_particle_lies_in_junk_and_a_step_of_thickness_is_none(kind):
    plan = dataclasses.replace(plan_dataset(ASKED)[0], junk=(kind,), carbon=False, n_crystals=0)
    image = simulate_planned(plan)
    assert image.junk.any() == (kind != "step")
    assert len(image.centres_px)
    assert not image.junk[tuple(image.centres_px.astype(int).T)].any()


@pytest.mark.parametrize("fraction", [-0.1, 1.5])
def test_a_fraction_of_junk_beyond_all_micrographs_is_refused(fraction):
    with pytest.raises(UserError, match="--junk"):
        check_arguments(dataclasses.replace(ASKED, junk=fraction), 0)
