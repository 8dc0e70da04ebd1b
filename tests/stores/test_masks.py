"""Images and masks as they are drawn: disks, frames, tiles, what is ignored."""

import dataclasses
import zlib

import numpy as np
import pytest

from picking.mask_values import IGNORE
from picking.stores.masks import MaskSettings, draw_mask
from tests.fixtures.data_sets import picture, some_centres
from tests.fixtures.plans import record

SIZE_PX = (300, 420)  # neither square nor a multiple of a working size
FRAMES = {
    "stretch": ("stretch", 1),
    "pad": ("pad", 1),
    "stretched tiles": ("stretch", 3),
    "padded tiles": ("pad", 3),
}


def plan(centres_px, resize="stretch", tiles=1, side_px=120, margin_px=0, disk=1.0):
    settings = MaskSettings(side_px, resize, tiles, margin_px, disk)
    return settings.plan_split("train", [record("a.png", centres_px, diameter_px=40.0)], [SIZE_PX])[
        0
    ]


def together(one, rows):
    """Images of a plan put side by side where they belong: (n, S, S) -> (R * S, C * S)."""
    n_rows, n_columns = one.grid
    side_px = rows.shape[-1]
    return rows.reshape(n_rows, n_columns, side_px, side_px).swapaxes(1, 2).reshape(
        n_rows * side_px, n_columns * side_px
    )  # fmt: skip


def centre_of(weights):
    """Centre of mass (y, x) of an image in px whose first px spans [0, 1]."""
    y, x = (np.arange(n) + 0.5 for n in weights.shape)
    return np.array([weights.sum(axis=1) @ y, weights.sum(axis=0) @ x]) / weights.sum()


# Disks


@pytest.mark.parametrize("frame", FRAMES)
@pytest.mark.parametrize("disk", [1.0, 0.6])
@pytest.mark.parametrize("centre", [(150.0, 210.0), (73.4, 301.9), (200.25, 95.5)])
def test_a_disk_has_its_fraction_of_the_area_and_the_centre_of_its_particle(frame, centre, disk):
    resize, tiles = FRAMES[frame]
    one = plan([centre], resize, tiles, side_px=200, disk=disk)
    image = np.zeros(SIZE_PX, np.uint8)
    (_, drawn), _ = one.draw(image)
    whole = together(one, drawn)
    assert set(np.unique(drawn)) <= {0, 1, IGNORE}
    scale_y, scale_x = one.scale
    area = (whole == 1).sum()
    assert area == pytest.approx(np.pi * (disk * 40) ** 2 / 4 * scale_y * scale_x, rel=0.05)
    assert np.abs(centre_of(whole == 1) / one.scale - centre).max() * max(one.scale) < 0.25


@pytest.mark.parametrize("frame", FRAMES)
def test_image_and_mask_have_the_same_frame(frame):
    """A dark disk of the image, found by its grey levels, lies where the mask has it."""
    resize, tiles = FRAMES[frame]
    y, x = (np.arange(n) + 0.5 for n in SIZE_PX)
    image = np.full(SIZE_PX, 200, np.uint8)
    image[(y[:, None] - 83.5) ** 2 + (x - 257.5) ** 2 <= 20**2] = 50
    one = plan([(83.5, 257.5)], resize, tiles)
    (images, drawn), _ = one.draw(image)
    darkness = np.maximum(110.0 - together(one, images), 0)  # beyond what the background does
    mask = together(one, drawn)
    darkness[mask == IGNORE] = 0
    assert np.abs(centre_of(darkness) - centre_of(mask == 1)).max() < 0.25
    assert darkness[mask == 1].mean() > 80 and darkness[mask == 0].mean() < 1


def test_stretching_scales_each_axis_by_itself_and_padding_scales_both_alike():
    stretched, padded = plan([(1, 1)]), plan([(1, 1)], "pad")
    assert stretched.scaled_px == (120, 120) and padded.scaled_px == (86, 120)
    np.testing.assert_allclose(stretched.scale, [120 / 300, 120 / 420])
    np.testing.assert_allclose(padded.scale, [86 / 300, 120 / 420])
    assert abs(padded.scale[0] / padded.scale[1] - 1) < 0.01


def test_what_is_padded_is_mirrored_and_ignored():
    rng = np.random.default_rng(0)
    one = plan(some_centres(rng, 8, SIZE_PX), "pad")
    (images, drawn), noted = one.draw(rng.integers(0, 256, SIZE_PX, dtype=np.uint8))
    assert one.grid == (1, 1) and images.shape == drawn.shape == (1, 120, 120)
    np.testing.assert_array_equal(images[0, 86:], images[0, 84 : 84 - (120 - 86) : -1])
    assert (drawn[0, 86:] == IGNORE).all() and (drawn[0, :86] != IGNORE).all()
    assert noted["n_ignored"] == (120 - 86) * 120


@pytest.mark.parametrize("resize", ["stretch", "pad"])
def test_tiles_put_together_are_the_whole_scaled_micrograph(resize):
    rng = np.random.default_rng(1)
    centres = some_centres(rng, 25, SIZE_PX)
    image = picture(rng, centres, SIZE_PX)
    tiled, whole = plan(centres, resize, 3, 60), plan(centres, resize, 1, 180)
    (images, drawn), _ = tiled.draw(image)
    ((image_at_once,), (mask_at_once,)), _ = whole.draw(image)
    height, width = tiled.scaled_px
    assert whole.scaled_px == (height, width)
    for parts, at_once in ((images, image_at_once), (drawn, mask_at_once)):
        np.testing.assert_array_equal(
            together(tiled, parts)[:height, :width], at_once[:height, :width]
        )


def test_particles_that_touch_have_smaller_disks_apart_and_of_their_own_diameters():
    centres, diameters_px = [(150.0, 100.0), (150.0, 134.0)], np.array([40.0, 30.0])
    whole, apart = (plan(centres, side_px=600, disk=disk) for disk in (1.0, 0.6))
    rows = []
    for one in (whole, apart):
        one = dataclasses.replace(one, diameters_px=diameters_px)
        row = draw_mask(one)[300] == 1  # through both centres
        rows.append(np.flatnonzero(np.diff(row.astype(int))) + 1)
    assert [len(edges) for edges in rows] == [2, 4]
    expected = [100 - 12, 100 + 12, 134 - 9, 134 + 9]
    np.testing.assert_allclose(rows[1] / whole.scale[1], expected, atol=0.8)


def test_tiles_that_hold_nothing_of_the_micrograph_are_left_out():
    one = plan([(5, 5)], "pad", 4, 30)  # 86 px of 120 px are filled
    assert one.grid == (3, 4) and one.n_rows == 12
    (_, drawn), _ = one.draw(np.zeros(SIZE_PX, np.uint8))
    assert (drawn != IGNORE).any(axis=(1, 2)).all()
    assert plan([(5, 5)], "stretch", 4, 30).grid == (4, 4)


def test_every_particle_is_counted_once_in_the_tile_of_its_centre_and_drawn_in_all_it_meets():
    centres = [(99.0, 139.0), (101.0, 141.0), (250.0, 10.0)]  # tiles are 100 x 140 px
    one = plan(centres, tiles=3, side_px=40)
    assert one.particles_per_image() == [1, 0, 0, 0, 1, 0, 1, 0, 0]
    (_, drawn), _ = one.draw(np.zeros(SIZE_PX, np.uint8))
    assert [int((mask == 1).any()) for mask in drawn] == [1, 1, 0, 1, 1, 0, 1, 0, 0]


def test_centres_in_the_last_fraction_of_a_px_belong_to_the_last_tile():
    one = plan([(299.9999999, 419.9999999)], "pad", 3, 40)
    assert one.particles_per_image()[-1] == 1 == sum(one.particles_per_image())


def test_a_particle_whose_centre_is_outside_is_dropped_and_one_at_the_border_is_cut_off():
    one = plan([(-1.0, 200.0), (0.5, 100.0), (299.0, 419.0)])
    mask = draw_mask(one)
    assert one.n_outside == 1 and sum(one.particles_per_image()) == 2
    x = (np.arange(120) + 0.5) / one.scale[1]
    np.testing.assert_array_equal(mask[0] == 1, np.abs(x - 100) <= 20)
    assert mask[-1, -1] == 1


def test_px_nearer_to_the_edge_than_the_margin_are_ignored():
    one = plan([(150, 20)], margin_px=25)
    mask = draw_mask(one)
    y, x = ((np.arange(120) + 0.5) / s for s in one.scale)
    nearest_y, nearest_x = (np.minimum(p, n - p) for p, n in zip((y, x), SIZE_PX, strict=True))
    near = np.minimum(nearest_y[:, None], nearest_x) < 25
    np.testing.assert_array_equal(mask == IGNORE, near)
    assert (mask == 1).any()  # the rest of the particle that reaches out of the margin
    assert not (draw_mask(plan([(150, 20)])) == IGNORE).any()


def test_what_the_journal_notes_is_what_was_drawn():
    rng = np.random.default_rng(2)
    one = plan(some_centres(rng, 25, SIZE_PX), "pad", 3, 60, margin_px=10)
    (images, drawn), noted = one.draw(rng.integers(0, 256, SIZE_PX, dtype=np.uint8))
    assert noted["image_checksums"] == [zlib.crc32(image.tobytes()) for image in images]
    assert noted["n_positive"] == (drawn == 1).sum() > 0
    assert noted["n_ignored"] == (drawn == IGNORE).sum() > 0
