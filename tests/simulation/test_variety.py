"""Micrographs that have nothing in common."""

import dataclasses

import numpy as np

from picking.simulation.plans import simulate_planned
from picking.simulation.variety import (
    COVERED,
    DIAMETER_PX,
    EMPTY,
    lowpassed,
    plan_varied,
    simulate_varied,
)


def test_the_same_seed_gives_the_same_plans_and_fewer_are_the_first_of_more():
    assert plan_varied(5, seed=3) == plan_varied(9, seed=3)[:5] != plan_varied(5, seed=4)


def test_no_two_structures_are_alike_and_all_ranges_are_covered():
    plans = plan_varied(400, seed=0)
    proteins = [plan.protein for plan in plans]
    assert len({protein.name for protein in proteins}) == len(
        {p.diameter_angstrom for p in proteins}
    )
    diameters = np.array([protein.diameter_angstrom for protein in proteins])
    assert 80 <= diameters.min() < 90 and 320 < diameters.max() <= 360
    wide = diameters / [plan.pixel_size_angstrom for plan in plans]
    assert DIAMETER_PX[0] <= wide.min() and wide.max() <= DIAMETER_PX[1]
    heights = np.array([protein.height for protein in proteins])
    assert heights.min() < 0.45 and heights.max() > 1.7
    assert {p.symmetry for p in proteins} > {"C1", "D7", "I"}
    empty = np.mean([plan.density == 0 for plan in plans])
    assert abs(empty - EMPTY) < 0.04
    assert {kind for plan in plans for kind in plan.junk} >= {"film", "ice", "aggregate"}
    covered = np.array(
        [p.particles_per_um2 * np.pi * (p.diameter_angstrom / 2e4) ** 2 for p in proteins]
    )
    assert COVERED[0] <= covered.min() and covered.max() <= COVERED[1]


def test_a_micrograph_shows_as_many_particles_as_planned_and_an_empty_one_none():
    plan = next(p for p in plan_varied(60, seed=0) if p.density and not p.junk and not p.carbon)
    image = simulate_planned(plan)
    assert image.raw.shape == plan.size_px
    area_um2 = np.prod(plan.size_px) * (plan.pixel_size_angstrom * 1e-4) ** 2
    wanted = plan.protein.particles_per_um2 * area_um2
    assert 0.4 * wanted < len(image.centres_px) < 1.6 * wanted
    assert not len(simulate_planned(dataclasses.replace(plan, density=0.0)).centres_px)


def test_a_third_is_low_passed_and_keeps_its_particles_where_they_are():
    plans = plan_varied(40, seed=0)
    changed = []
    for plan in plans[:12]:
        small = dataclasses.replace(plan, size_px=(128, 128))
        plain, varied = simulate_planned(small), simulate_varied(small)
        np.testing.assert_array_equal(plain.centres_px, varied.centres_px)
        changed.append(not np.array_equal(plain.raw, varied.raw))
        if changed[-1]:
            assert np.diff(varied.raw).std() < np.diff(plain.raw).std() / 3
            np.testing.assert_array_equal(simulate_varied(small).raw, varied.raw)
    assert 2 <= sum(changed) <= 8


def test_a_low_pass_takes_what_is_finer_than_a_third_of_a_diameter():
    y = np.arange(400)
    wave = np.outer(np.sin(2 * np.pi * 4 * y / 40), np.ones(64))  # 4 periods a diameter of 40 px
    coarse = np.outer(np.sin(2 * np.pi * y / 80), np.ones(64))
    for seed in range(5):
        rng = np.random.default_rng(seed)
        assert lowpassed(coarse, 40, rng)[40:-40].std() > 0.9 * coarse.std()
        assert lowpassed(wave, 40, rng)[40:-40].std() < 0.65 * wave.std()
