import numpy as np
import pytest

from picking.errors import InputWarning, UserError
from picking.formats.picks import Picks, flip_y, inside, merge_duplicates, select


def picks_at(centres_px, size_px=None):
    n = len(centres_px)
    return Picks("a.jpg", np.array(centres_px, float), np.arange(n) / n, np.full(n, 20.0), size_px)


def test_the_first_pixel_is_inside_and_the_height_is_not():
    corners = [[0, 0], [99.9, 199.9], [100, 50], [50, 200], [-0.1, 50], [50, -0.1]]
    many = picks_at([*corners, *[[50, 50]] * 40])
    assert inside(many, (100, 200)).tolist() == [True] * 2 + [False] * 4 + [True] * 40


def test_centres_far_outside_are_refused_with_the_numbers():
    shrunk = picks_at([[50, 60], [3000, 40], [-20, 3838]])
    with pytest.raises(UserError) as error:
        inside(shrunk, (100, 200))
    for words in ("2 of 3 centres", "200 x 100 px", "to 3838, y from -20 to 3000"):
        assert words in str(error.value)


def test_a_single_stray_centre_is_no_reason_to_refuse():
    assert inside(picks_at([[50, 60], [500, 60]]), (100, 200)).tolist() == [True, False]


def test_another_image_size_than_stated_is_refused_with_both_sizes():
    with pytest.raises(UserError, match="3838 x 3710 px, but the image has 200 x 100"):
        inside(picks_at([[50, 60]], size_px=(3710, 3838)), (100, 200))


def test_a_selection_keeps_what_belongs_together():
    picks = picks_at([[1, 2], [3, 4], [5, 6]])
    few = select(picks, picks.scores > 0.3)
    assert few.centres_px.tolist() == [[3, 4], [5, 6]]
    assert few.scores.tolist() == picks.scores[1:].tolist() and len(few.diameters_px) == 2


def test_turned_twice_picks_are_where_they_were():
    picks = picks_at([[10, 20], [30.5, 40]], size_px=(100, 200))
    assert flip_y(picks).centres_px.tolist() == [[90, 20], [69.5, 40]]
    assert flip_y(flip_y(picks)).centres_px.tolist() == picks.centres_px.tolist()
    with pytest.raises(UserError, match=r"a\.jpg: its height is unknown"):
        flip_y(picks_at([[1, 2]]))


# Listed twice


def duplicates(picks, *args):
    """How many are merged, and what is said, of which there must be one line."""
    with pytest.warns(InputWarning) as said:
        (merged,) = merge_duplicates([picks], "a.star", *args)
    (line,) = said
    return merged, str(line.message)


def test_of_what_is_listed_twice_within_a_tenth_of_a_diameter_the_first_stays():
    picks = picks_at([[10, 10], [50, 50], [10, 10], [51, 51], [52, 52], [50, 52.1]])  # 20 px wide
    merged, said = duplicates(picks)
    assert merged.centres_px.tolist() == [[10, 10], [50, 50], [52, 52], [50, 52.1]]
    assert merged.scores.tolist() == picks.scores[[0, 1, 4, 5]].tolist()
    assert "a.star: 2 of 6 particles" in said and "x 10, y 10 on a.jpg" in said


def test_without_diameters_the_one_given_counts_and_without_that_the_same_place_alone():
    picks = picks_at([[10, 10], [11, 10], [10, 10], [40, 40]])
    picks.diameters_px[:] = np.nan
    assert duplicates(picks, 20.0)[0].centres_px.tolist() == [[10, 10], [40, 40]]
    assert duplicates(picks)[0].centres_px.tolist() == [[10, 10], [11, 10], [40, 40]]


@pytest.mark.filterwarnings("error")
def test_neighbours_on_a_micrograph_and_the_same_place_on_two_are_no_duplicates():
    close = picks_at([[10, 10], [12.1, 10], [10, 12.1]])
    assert merge_duplicates([close, close], "a.star", 20.0)[1].centres_px.tolist() == [
        [10, 10], [12.1, 10], [10, 12.1]
    ]  # fmt: skip
    assert len(merge_duplicates([picks_at([[1, 2]])], "a.star")[0].scores) == 1
    assert not len(merge_duplicates([select(close, np.zeros(3, bool))], "a.star")[0].scores)


@pytest.mark.parametrize("in_mrc", [False, True])
def test_centres_outside_say_that_x_and_y_are_swapped_where_that_fits(in_mrc):
    y, x = np.array([30.0, 380, 60, 300]), np.array([620.0, 40, 500, 90])
    swapped = np.stack([448 - x if in_mrc else x, y], axis=1)
    unknown = np.full(4, np.nan)
    with pytest.raises(UserError, match=r"x from 30 to 380, y from .*x and y are probably swapped"):
        inside(Picks("a.mrc", swapped, unknown, unknown, None), (448, 640))
    twice = np.stack([y, x], axis=1) * 2
    with pytest.raises(UserError, match="another scale"):
        inside(Picks("a.mrc", twice, unknown, unknown, None), (448, 640))


@pytest.mark.parametrize(
    ("stated_px", "words"),
    [
        ((224, 320), "another scale: multiply them and the size by 2,"),
        ((1344, 1920), "another scale: multiply them and the size by 0.3333,"),
        ((640, 448), "width and height are swapped"),
        ((448, 448), "of another image, or of a part of it"),
    ],
)
def test_another_size_than_the_images_says_what_to_do(stated_px, words):
    picks = Picks("a.mrc", np.array([[30.0, 20]]), np.ones(1), np.ones(1), stated_px)
    with pytest.raises(UserError, match=rf"a\.mrc: annotated as .* has 640 x 448 px: .*{words}"):
        inside(picks, (448, 640))
