"""Micrographs to look at: tiles of a pyramid, thumbnails, and what is kept of them."""

import io
import os
import time

import mrcfile
import numpy as np
import pytest
from PIL import Image

from picking.errors import UserError
from picking.labelling.viewing import pictures as pictures_module
from picking.labelling.viewing.pictures import Pictures
from picking.labelling.viewing.pyramid import TILE_PX, make_pyramid
from picking.labelling.viewing.thumbnails import features, make_thumbnail


def disk_in_noise(size_px=(600, 700), centre_px=(150, 500), radius_px=60, noise=1.0, seed=0):
    """Raw counts with a dark disk, float32."""
    y, x = np.mgrid[: size_px[0], : size_px[1]]
    raw = np.random.default_rng(seed).normal(1000, 30 * noise, size_px)
    raw[np.hypot(y - centre_px[0], x - centre_px[1]) < radius_px] -= 60
    return raw.astype(np.float32)


def write_mrc(path, raw):
    with mrcfile.new(path) as file:
        file.set_data(np.flipud(raw))
    return path


def decoded(jpeg):
    return np.asarray(Image.open(io.BytesIO(jpeg)))


def test_levels_halve_until_one_tile_holds_the_whole():
    pyramid = make_pyramid(disk_in_noise((700, 1030)))
    assert [level.shape for level in pyramid.levels] == [
        (700, 1030),
        (350, 515),
        (175, 258),
        (88, 129),
    ]
    assert pyramid.size_px == (700, 1030)


def test_a_px_of_a_level_is_the_mean_of_its_square():
    pyramid = make_pyramid(np.random.default_rng(0).integers(0, 256, (512, 512), np.uint8))
    fine, coarse = (level.astype(float) for level in pyramid.levels[:2])
    means = fine.reshape(256, 2, 256, 2).mean(axis=(1, 3))
    inner = (fine.reshape(256, 2, 256, 2).min(axis=(1, 3)) > 0) & (
        fine.reshape(256, 2, 256, 2).max(axis=(1, 3)) < 255
    )
    assert np.abs(means - coarse)[inner].max() <= 1


def test_tiles_put_together_are_the_level():
    pyramid = make_pyramid(disk_in_noise())
    rows, columns = (-(-n // TILE_PX) for n in pyramid.size_px)
    whole = np.block(
        [[decoded(pyramid.tile(0, r, c)) for c in range(columns)] for r in range(rows)]
    ).astype(float)
    assert whole.shape == pyramid.size_px
    assert np.abs(whole - pyramid.levels[0]).mean() < 4


@pytest.mark.parametrize("where", [(-1, 0, 0), (9, 0, 0), (0, 3, 0), (0, 0, 3), (0, -1, 0)])
def test_a_tile_that_there_is_not_is_an_error(where):
    with pytest.raises(IndexError):
        make_pyramid(disk_in_noise()).tile(*where)


def test_a_dark_particle_is_seen_at_every_level_in_counts_of_any_unit():
    for unit in (1e-3, 1.0, 1e4):
        for k, level in enumerate(make_pyramid(disk_in_noise() * unit).levels):
            centre = level[150 >> k, (500 >> k) - 2 : (500 >> k) + 3]
            assert level.mean() - centre.mean() > 40, (unit, k)
            assert 100 < level.mean() < 220


def test_a_micrograph_without_contrast_is_grey():
    assert (make_pyramid(np.full((300, 300), 7, np.float32)).levels[0] == 128).all()


def test_pictures_are_in_the_frame_of_the_jpeg(tmp_path):
    path = write_mrc(tmp_path / "a.mrc", disk_in_noise())
    level = Pictures({"a.mrc": path}, None).pyramid("a.mrc").levels[0]
    assert level[150, 500] < level[450, 500] - 20
    small = decoded(make_thumbnail(path).jpeg)
    assert small.shape == (137, 160)
    assert small[34, 114] < small[103, 114] - 40


def test_features_tell_crowded_from_empty_and_not_where_particles_are():
    empty = features(disk_in_noise(radius_px=0)[:160, :160])
    crowds = []
    for seed in (1, 2):
        rng = np.random.default_rng(seed)
        image = rng.normal(0, 1, (160, 160)).astype(np.float32)
        y, x = np.mgrid[:160, :160]
        for cy, cx in rng.uniform(0, 160, (60, 2)):
            image[np.hypot(y - cy, x - cx) < 6] -= 3
        crowds.append(features(image))
    assert np.linalg.norm(crowds[0] - crowds[1]) < 0.3 * np.linalg.norm(crowds[0] - empty)
    assert not features(np.ones((20, 30), np.float32)).any()


def test_what_was_made_once_comes_from_the_cache_and_a_new_file_is_read_again(tmp_path):
    path = write_mrc(tmp_path / "a.mrc", disk_in_noise())
    first = Pictures({"a.mrc": path}, tmp_path / "cache").pyramid("a.mrc")
    raw = path.read_bytes()
    stamp = path.stat()
    path.write_bytes(bytes(len(raw)))  # what is in it is of no interest as long as nothing tells
    os.utime(path, ns=(stamp.st_atime_ns, stamp.st_mtime_ns))
    again = Pictures({"a.mrc": path}, tmp_path / "cache").pyramid("a.mrc")
    assert all(np.array_equal(a, b) for a, b in zip(first.levels, again.levels, strict=True))
    os.utime(path)
    with pytest.raises(UserError, match=r"a\.mrc"):
        Pictures({"a.mrc": path}, tmp_path / "cache").pyramid("a.mrc")


def test_a_damaged_cache_is_made_again(tmp_path):
    path = write_mrc(tmp_path / "a.mrc", disk_in_noise())
    first = Pictures({"a.mrc": path}, tmp_path / "cache").pyramid("a.mrc")
    (kept,) = (tmp_path / "cache" / "pyramids").iterdir()
    kept.write_bytes(kept.read_bytes()[:1000])
    again = Pictures({"a.mrc": path}, tmp_path / "cache").pyramid("a.mrc")
    assert np.array_equal(first.levels[0], again.levels[0])


def test_the_cache_and_the_memory_are_bounded_and_the_last_used_stay(tmp_path, monkeypatch):
    paths = {f"{n}.mrc": write_mrc(tmp_path / f"{n}.mrc", disk_in_noise(seed=n)) for n in range(5)}
    n_bytes = make_pyramid(disk_in_noise()).n_bytes
    monkeypatch.setattr(pictures_module, "MEMORY_BYTES", 2.5 * n_bytes)
    monkeypatch.setattr(pictures_module, "DISK_BYTES", 3.5 * n_bytes)
    pictures = Pictures(paths, tmp_path / "cache")
    for name in paths:
        pictures.pyramid(name)
    kept = {path.stem for path in (tmp_path / "cache" / "pyramids").iterdir()}
    assert kept == {pictures.stamp(f"{n}.mrc") for n in (2, 3, 4)}
    assert [name for name, _ in pictures._pyramids] == ["3.mrc", "4.mrc"]


def test_a_cache_that_cannot_be_written_is_no_loss(tmp_path):
    path = write_mrc(tmp_path / "a.mrc", disk_in_noise())
    (tmp_path / "cache").write_text("a file in its place")
    assert Pictures({"a.mrc": path}, tmp_path / "cache").pyramid("a.mrc").size_px == (600, 700)


def test_what_is_wanted_soon_is_made_ahead_in_the_background(tmp_path):
    paths = {f"{n}.mrc": write_mrc(tmp_path / f"{n}.mrc", disk_in_noise(seed=n)) for n in range(3)}
    (tmp_path / "1.mrc").write_bytes(b"no micrograph")
    pictures = Pictures(paths, None)
    pictures.prepare(paths, pictures_module.LATER, thumbnails=True)
    pictures.prepare(["2.mrc"])
    pictures.begin()
    give_up = time.monotonic() + 30
    while len(pictures.features()) < 2 and time.monotonic() < give_up:
        time.sleep(0.01)
    pictures.end()
    assert [*pictures.features()] == ["0.mrc", "2.mrc"]
    assert [name for name, _ in pictures._pyramids] == ["2.mrc"]


def test_a_micrograph_that_vanished_is_a_sentence(tmp_path):
    with pytest.raises(UserError, match=r"gone\.mrc cannot be read \(No such file"):
        Pictures({"gone.mrc": tmp_path / "gone.mrc"}, None).pyramid("gone.mrc")
