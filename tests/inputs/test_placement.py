"""Whether coordinates fit the micrographs as read, or upside down."""

import numpy as np
import pytest

from picking.errors import UserError
from picking.formats.coordinates import read_picks
from picking.formats.picks import Picks, flip_y
from picking.inputs.placement import compare_frames, contrast, is_wrong
from picking.micrographs.reading import read_micrograph
from tests.fixtures.data_sets import DIAMETER_PX, SIZE_PX, picture, some_centres


@pytest.fixture
def rng():
    return np.random.default_rng(0)


def picks_at(centres, size_px=SIZE_PX):
    n = len(centres)
    centres = np.array(centres, float).reshape(-1, 2)
    return Picks("a.jpg", centres, np.full(n, np.nan), np.full(n, DIAMETER_PX), size_px)


@pytest.mark.parametrize("sign", [1, -1])
def test_picks_in_the_wrong_frame_fit_the_image_better_upside_down(rng, sign):
    centres = some_centres(rng, 60)
    response = contrast(picture(rng, centres) if sign == 1 else 255 - picture(rng, centres), 20)
    picks = picks_at(centres)
    right, wrong = compare_frames(picks, response), compare_frames(flip_y(picks), response)
    assert wrong == right[::-1] and sum(right) == 60 and right[0] > 48
    assert is_wrong(*wrong) and not is_wrong(*right)


def test_scores_at_any_scale_tell_the_frame_too(rng):
    centres = some_centres(rng, 60)
    scores, picks = 255 - picture(rng, centres).astype(float), picks_at(centres)
    for response in (scores, scores.reshape(80, 4, 96, 4).mean(axis=(1, 3))):
        assert is_wrong(*compare_frames(flip_y(picks), response))
        assert not is_wrong(*compare_frames(picks, response))


def test_nothing_is_said_of_noise_of_few_picks_and_of_none(rng):
    picks, noise = picks_at(some_centres(rng, 60)), rng.normal(size=SIZE_PX)
    for one in (picks, flip_y(picks)):
        assert not is_wrong(*compare_frames(one, noise))
    assert compare_frames(picks, np.zeros(SIZE_PX)) == (0, 0)
    assert compare_frames(picks_at([]), noise) == (0, 0)
    assert [is_wrong(*n) for n in ((0, 0), (1, 4), (10, 40), (4500, 5500))] == [0, 0, 1, 0]
    with pytest.raises(UserError, match=r"a\.jpg"):
        compare_frames(picks_at([[9, 9]], size_px=None), noise)


def test_the_frame_of_the_real_truth_is_told_from_its_mirror_image(empiar10017):
    (t, *_) = read_picks([empiar10017 / "annotations" / "instances_val.json"], {})
    response = contrast(read_micrograph(empiar10017 / "val" / t.name), 108)
    assert is_wrong(*compare_frames(flip_y(t), response))
    assert not is_wrong(*compare_frames(t, response))
