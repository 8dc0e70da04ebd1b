import numpy as np
import pytest

from picking.preprocessing.negatives import (
    GRID_STEP_PX,
    allowed_grid,
    draw_apart,
    keep_apart,
    off_centre_grid,
)
from picking.seeds import stream

SIZE_PX = (250, 331)


def some_particles(seed, n):
    """Centres (y, x), some of them beyond the edges, and diameters, all in px."""
    rng = np.random.default_rng(seed)
    return rng.uniform(-40, np.array(SIZE_PX) + 40, (n, 2)), rng.uniform(8, 60, n)


def grid_points(size_px):
    """All grid points, (rows, columns, 2), (y, x) in px."""
    y, x = (np.arange(0, size, GRID_STEP_PX) for size in size_px)
    return np.stack(np.meshgrid(y, x, indexing="ij"), axis=-1).astype(float)


def within_margin(points, size_px, margin_px):
    low, high = np.full(2, margin_px), np.array(size_px) - margin_px
    return ((points >= low) & (points <= high)).all(axis=-1)


@pytest.mark.parametrize("rule", ["far", "disjoint"])
@pytest.mark.parametrize(
    ("n", "patch", "margin"), [(0, 32, 0), (1, 32, 0), (7, 33, 16), (20, 8, 3)]
)
@pytest.mark.parametrize("seed", [0, 1])
def test_the_grid_allows_exactly_the_points_that_the_rule_does(rule, n, patch, margin, seed):
    centres, diameters = some_particles(seed, n)
    points = grid_points(SIZE_PX)
    expected = within_margin(points, SIZE_PX, margin)
    for centre, diameter in zip(centres, diameters, strict=True):
        if rule == "far":
            distances = np.linalg.norm(points - centre, axis=-1)
            expected &= distances >= max(patch, 1.5 * diameters.mean())
        else:  # the square about the point meets no disk
            nearest = np.clip(centre, points - patch / 2, points + patch / 2)
            expected &= np.linalg.norm(nearest - centre, axis=-1) >= diameter / 2
    grid = allowed_grid(SIZE_PX, centres, diameters, patch, rule, margin)
    np.testing.assert_array_equal(grid, expected)
    assert grid.any()


def test_the_far_distance_itself_is_allowed_and_one_step_less_is_not():
    grid = allowed_grid((90, 90), np.array([[30.0, 30.0]]), np.array([10.0]), 30, "far")
    assert grid[60 // GRID_STEP_PX, 30 // GRID_STEP_PX]
    assert not grid[57 // GRID_STEP_PX, 30 // GRID_STEP_PX]


@pytest.mark.parametrize("off_px", [0, 40, 3e4, 1e8])
def test_regions_larger_than_any_memory_are_cleared_where_the_grid_is(off_px):
    centre, edge_px = np.array([-off_px, 100.0]), 60.0  # down to this row the disk reaches
    grid = np.ones((84, 111), bool)
    keep_apart(grid, centre[None], off_px + edge_px)
    expected = np.linalg.norm(grid_points(SIZE_PX) - centre, axis=-1) >= off_px + edge_px
    np.testing.assert_array_equal(grid, expected)
    assert grid.any() and not grid.all()
    keep_apart(grid, centre[None], 3 * off_px + 1e3)
    assert not grid.any()


def test_off_centre_points_miss_every_particle_by_half_a_diameter_and_one_by_less_than_a_whole():
    centres, diameters = some_particles(4, 9)
    points = grid_points(SIZE_PX)
    ratios = np.linalg.norm(points[:, :, None] - centres, axis=-1) / diameters
    expected = (ratios >= 0.5).all(axis=2) & (ratios < 1).any(axis=2)
    expected &= within_margin(points, SIZE_PX, 10)
    np.testing.assert_array_equal(off_centre_grid(SIZE_PX, centres, diameters, 10), expected)


def drawn(n, spacing_px=16.0, seed=5, grid=None):
    if grid is None:
        grid = allowed_grid(SIZE_PX, *some_particles(6, 8), 32, "far", 12)
    return grid, draw_apart(grid, n, spacing_px, stream(seed, "negatives"))


def pairwise(centres):
    distances = np.linalg.norm(centres[:, None] - centres, axis=-1)
    return distances[np.triu_indices(len(centres), 1)]


def test_drawn_centres_are_allowed_distinct_and_apart():
    grid, centres = drawn(30)
    assert centres.shape == (30, 2)
    rows, columns = (centres / GRID_STEP_PX).astype(int).T
    assert grid[rows, columns].all() and (centres % GRID_STEP_PX == 0).all()
    assert pairwise(centres).min() >= 16


def test_drawing_ends_only_when_no_allowed_centre_is_left():
    grid, centres = drawn(10**6)
    assert 30 < len(centres) < 10**6
    assert pairwise(centres).min() >= 16
    points = grid_points(SIZE_PX)[grid]
    nearest = np.linalg.norm(points[:, None] - centres, axis=-1).min(axis=1)
    assert nearest.max() < 16


@pytest.mark.parametrize("n", [0, 1, 17, 40])
def test_a_larger_number_gives_the_same_centres_and_further_ones(n):
    np.testing.assert_array_equal(drawn(n)[1], drawn(45)[1][:n])


def test_the_draw_follows_from_the_seed_and_leaves_the_grid_as_it_was():
    grid, first = drawn(20)
    before = grid.copy()
    np.testing.assert_array_equal(first, drawn(20, grid=grid)[1])
    np.testing.assert_array_equal(grid, before)
    assert (first != drawn(20, seed=6)[1]).any()


def test_drawn_centres_are_spread_over_the_whole_allowed_area():
    _, centres = drawn(10**6, spacing_px=6, grid=np.ones((100, 100), bool))
    counts = np.histogram2d(*centres.T, bins=4, range=[[0, 300], [0, 300]])[0]
    assert counts.min() > 0.7 * counts.max()


def test_an_empty_grid_gives_no_centre():
    assert drawn(5, grid=np.zeros((4, 4), bool))[1].shape == (0, 2)
