"""Patches cut from images, and the rows of a store that they become."""

import numpy as np
import pytest
from PIL import Image

from picking.micrographs.preparation import prepare
from picking.preprocessing.cutting import cut_patches
from picking.stores.patches import TAG_NEGATIVE, TAG_OFF_CENTRE, TAG_OUTLIER, TAG_PARTICLE
from tests.fixtures.plans import PATCH_PX, cut, plan, records_on_disk


@pytest.fixture
def images(tmp_path):
    return records_on_disk(tmp_path / "images")


def mirrored(i, n):
    """Index i beyond an axis of length n, mirrored without repeating the edge."""
    i = abs(i)
    return i if i < n else 2 * (n - 1) - i


@pytest.mark.parametrize("patch", [8, 9, 32, 60])
def test_a_patch_is_the_crop_around_its_centre_mirrored_beyond_the_edge(patch):
    rng = np.random.default_rng(0)
    image = rng.integers(0, 256, (60, 77), dtype=np.uint8)
    centres = np.array([[30, 40], [0, 0], [59, 76], [3, 70], [58, 1]])
    cut = cut_patches(image, centres, patch)
    assert cut.shape == (5, patch, patch) and cut.dtype == np.uint8
    for one, (y, x) in zip(cut, centres, strict=True):
        assert one[patch // 2, patch // 2] == image[y, x]  # the centre has not moved
        rows = [mirrored(y - patch // 2 + k, 60) for k in range(patch)]
        columns = [mirrored(x - patch // 2 + k, 77) for k in range(patch)]
        np.testing.assert_array_equal(one, image[np.ix_(rows, columns)])


def test_centres_between_pixels_go_to_the_nearest_one_of_the_image():
    image = np.arange(40 * 50, dtype=np.uint16).reshape(40, 50).astype(np.uint8)
    centres = np.array([[10.4, 20.6], [39.7, 49.9], [0.0, 0.3]])
    assert cut_patches(image, centres, 8)[:, 4, 4].tolist() == [
        image[10, 21], image[39, 49], image[0, 0]
    ]  # fmt: skip


def test_rows_follow_the_plan_and_every_patch_is_the_crop_at_its_centre(tmp_path, images):
    plans = plan(images, hard_fraction=0.5)
    assert not cut(tmp_path / "store", plans).unreadable
    rows = np.load(tmp_path / "store" / "train" / "patches.npy", mmap_mode="r")
    index = np.load(tmp_path / "store" / "train" / "index.npz")
    assert len(rows) == sum(p.n_rows for p in plans) == len(index["tag"])
    for i, one in enumerate(plans):
        here = index["micrograph"] == i
        image = prepare(np.asarray(Image.open(one.micrograph.path)), (20, 20))
        np.testing.assert_array_equal(
            rows[here], cut_patches(image, index["centre"][here], PATCH_PX)
        )
        for tag, labeled, planned in (
            (TAG_PARTICLE, True, one.labelled_px),
            (TAG_PARTICLE, False, one.hidden_px),
            (TAG_NEGATIVE, False, one.negatives_px),
            (TAG_OFF_CENTRE, False, one.off_centre_px),
        ):
            kind = here & (index["tag"] == tag) & (index["labeled"] == labeled)
            np.testing.assert_array_equal(index["centre"][kind], planned.astype(np.float32))
        outliers = index["centre"][here & (index["tag"] == TAG_OUTLIER)]
        assert len(outliers) == one.n_outliers > 0
        candidates = {tuple(c) for c in one.outlier_candidates_px.tolist()}
        assert {tuple(c) for c in outliers.tolist()} <= candidates
    np.testing.assert_array_equal(index["label"], index["tag"] == TAG_PARTICLE)
    assert not (index["labeled"] & (index["label"] == 0)).any()


def test_outliers_are_the_candidates_that_look_unlike_the_others(tmp_path, images):
    one = plan(images, hard_fraction=1.0)[2]
    assert one.n_outliers == 6 and len(one.outlier_candidates_px) > 12
    ice = one.outlier_candidates_px[7:9]
    image = np.array(Image.open(one.micrograph.path))
    for y, x in ice.astype(int):
        image[max(0, y - 20) : y + 20, max(0, x - 20) : x + 20] = 255
    Image.fromarray(image).save(one.micrograph.path)
    cut(tmp_path / "store", [one])
    index = np.load(tmp_path / "store" / "train" / "index.npz")
    chosen = index["centre"][index["tag"] == TAG_OUTLIER].tolist()
    assert len(chosen) == 6 and all(centre in chosen for centre in ice.tolist())
