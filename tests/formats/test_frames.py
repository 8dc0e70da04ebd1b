import numpy as np
import pytest

from picking.errors import UserError
from picking.formats.coordinates import read_picks
from picking.formats.frames import FrameCheck, contrast, frame_check
from picking.formats.micrographs import read_micrograph
from picking.formats.picks import Picks, turn
from tests.fixtures.data_sets import DIAMETER_PX, SIZE_PX, picture, some_centres


@pytest.fixture
def rng():
    return np.random.default_rng(0)


def picks_at(centres, size_px=SIZE_PX):
    centres = np.array(centres, dtype=float).reshape(-1, 2)
    unknown = np.full(len(centres), np.nan)
    return Picks("a.jpg", centres, unknown, unknown, size_px)


@pytest.mark.parametrize("sign", [1, -1])
def test_picks_in_the_wrong_frame_fit_the_image_better_upside_down(rng, sign):
    centres = some_centres(rng, 60)
    image = picture(rng, centres)
    response = contrast(image if sign == 1 else 255 - image, DIAMETER_PX)
    picks = picks_at(centres)
    right, wrong = frame_check(picks, response), frame_check(turn(picks), response)
    assert wrong == FrameCheck(right.n_mirrored, right.n_as_read) and sum(right) == 60
    assert right.n_as_read > 48
    assert wrong.contradicted and not right.contradicted


def test_scores_at_any_scale_tell_the_frame_too(rng):
    centres = some_centres(rng, 60)
    scores = 255 - picture(rng, centres).astype(float)
    picks = picks_at(centres)
    for response in (scores, scores.reshape(80, 4, 96, 4).mean(axis=(1, 3))):
        assert frame_check(turn(picks), response).contradicted
        assert not frame_check(picks, response).contradicted


def test_nothing_is_said_of_noise_of_few_picks_and_of_none(rng):
    centres = some_centres(rng, 60)
    picks = picks_at(centres)
    noise = rng.normal(size=SIZE_PX)
    assert not frame_check(picks, noise).contradicted
    assert not frame_check(turn(picks), noise).contradicted
    assert frame_check(picks, np.zeros(SIZE_PX)) == FrameCheck(0, 0)
    assert frame_check(picks_at([]), noise) == FrameCheck(0, 0)
    assert not FrameCheck(0, 0).contradicted
    assert not FrameCheck(1, 4).contradicted and FrameCheck(10, 40).contradicted
    assert not FrameCheck(4500, 5500).contradicted
    with pytest.raises(UserError, match=r"a\.jpg: its size is unknown"):
        frame_check(picks_at(centres, size_px=None), noise)


def test_the_frame_of_the_real_truth_is_told_from_its_mirror_image(empiar10017):
    (t, *_) = read_picks([empiar10017 / "annotations" / "instances_val.json"], {})
    response = contrast(read_micrograph(empiar10017 / "val" / t.name), 108)
    assert frame_check(turn(t), response).contradicted
    assert not frame_check(t, response).contradicted
