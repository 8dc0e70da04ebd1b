"""Whether coordinates fit the micrographs as read, better in another way, or nowhere."""

import warnings

import numpy as np
import pytest
from PIL import Image

from picking.errors import InputWarning, UserError
from picking.formats.picks import Picks
from picking.inputs import placement
from picking.inputs.annotations import read_split
from picking.inputs.placement import check_placement, check_splits
from tests.fixtures.data_sets import (
    DIAMETER_PX,
    SIZE_PX,
    boxes,
    picture,
    some_centres,
    write_coco,
    write_csv,
)  # fmt: skip

NAMES = [f"{n}.png" for n in range(4)]
HEIGHT, WIDTH = SIZE_PX


@pytest.fixture(scope="module")
def micrographs(tmp_path_factory):
    """Paths of noisy micrographs of dark disks, and their centres (y, x), by name."""
    folder, rng = tmp_path_factory.mktemp("placed"), np.random.default_rng(0)
    centres = {name: some_centres(rng, 30) for name in NAMES}
    for name, listed in centres.items():
        Image.fromarray(picture(rng, listed)).save(folder / name)
    return {name: folder / name for name in NAMES}, centres


def check(
    paths, centres, frame="jpeg", flag="--frame", diameter_px=DIAMETER_PX, size_px=SIZE_PX,
    own_px=None,
):  # fmt: skip
    """Check centres (y, x) as the file has them, by name, in the frame that they are said to be."""
    picks = []
    for name, listed in centres.items():
        y, x = np.array(listed, float).reshape(-1, 2).T
        at = np.stack([size_px[0] - y if frame == "mrc" else y, x], axis=1)
        picks.append(Picks(name, at, np.full(len(y), np.nan), np.full(len(y), np.nan), size_px))
    files = [paths[NAMES[0]].with_name("a.star" if frame == "mrc" else "a.csv")]
    check_placement(picks, paths, files, None, flag, diameter_px, own_px or {})


def test_each_micrograph_is_looked_at_by_the_diameter_on_it(micrographs, monkeypatch):
    paths, centres = micrographs
    looked_at, look = {}, placement.contrast_ranks

    def spy(path, diameter_px):
        looked_at[path.name] = diameter_px
        return look(path, diameter_px)

    monkeypatch.setattr(placement, "contrast_ranks", spy)
    check(paths, centres, own_px={NAMES[2]: 1.5 * DIAMETER_PX})
    assert looked_at == dict.fromkeys(NAMES, DIAMETER_PX) | {NAMES[2]: 1.5 * DIAMETER_PX}


def moved(centres, move, n=None):
    return {name: [move(y, x) for y, x in listed[:n]] for name, listed in centres.items()}


def is_quiet(*args, **named):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        check(*args, **named)
    return True


FAULTS = {
    "upside down": (lambda y, x: (HEIGHT - y, x), "--frame mrc"),
    "width - x": (lambda y, x: (y, WIDTH - x), "mend the file"),
    "180 degrees": (lambda y, x: (HEIGHT - y, WIDTH - x), "mend the file"),
    "times 2": (lambda y, x: (y / 2, x / 2), "binned by 2"),
    "times 4": (lambda y, x: (y / 4, x / 4), "binned by 4"),
    "times 8": (lambda y, x: (y / 8, x / 8), "binned by 8"),
    "frame 'mrc'": (lambda y, x: ((HEIGHT - y) / 2, x / 2), "binned by 2"),
    "times 1.": (lambda y, x: (y / 1.77, x / 1.77), "in Å"),
}


@pytest.mark.parametrize("said", FAULTS)
@pytest.mark.parametrize("inverted", [False, True])
def test_coordinates_that_fit_better_in_another_way_are_refused_with_it(
    micrographs, tmp_path, said, inverted
):
    paths, centres = micrographs
    if inverted:
        for name, path in paths.items():
            Image.fromarray(255 - np.asarray(Image.open(path))).save(tmp_path / name)
        paths = {name: tmp_path / name for name in paths}
    move, cure = FAULTS[said]
    with pytest.raises(UserError) as error:
        check(paths, moved(centres, move))
    assert said in str(error.value) and cure in str(error.value) and "a.csv" in str(error.value)
    assert is_quiet(paths, centres)


def test_x_and_y_swapped_are_told_where_both_lie_on_the_micrograph(micrographs):
    paths, centres = micrographs
    square = {name: c[c[:, 1] < HEIGHT] for name, c in centres.items()}
    with pytest.raises(UserError, match="x and y swapped"):
        check(paths, moved(square, lambda y, x: (x, y)))


def test_the_frame_of_a_star_file_is_counted_from_the_first_row_of_the_mrc(micrographs):
    paths, centres = micrographs
    as_filed = moved(centres, lambda y, x: (HEIGHT - y, x))
    assert is_quiet(paths, as_filed, frame="mrc")
    with pytest.raises(UserError, match=r"a\.star: 1\d\d of 120 .*'mrc': give --truth-frame jpeg"):
        check(paths, centres, frame="mrc", flag="--truth-frame")
    with pytest.raises(UserError, match=r"times 2.*binned by 2"):
        check(paths, moved(as_filed, lambda y, x: (y / 2, x / 2)), frame="mrc")


def test_corners_taken_for_centres_are_warned_of_with_what_to_add(micrographs):
    paths, centres = micrographs
    with pytest.warns(InputWarning, match=r"\+15 px added to x and \+15 px to y.*corners"):
        check(paths, moved(centres, lambda y, x: (y - 15, x - 15)))


def test_coordinates_at_random_places_are_warned_of(micrographs):
    paths, centres = micrographs
    rng = np.random.default_rng(1)
    anywhere = {name: rng.random((30, 2)) * SIZE_PX for name in centres}
    with pytest.warns(InputWarning, match="no more contrast at the 120 coordinates"):
        check(paths, anywhere)


def test_few_picks_in_one_corner_without_contrast_are_warned_of(micrographs):
    paths, _ = micrographs
    rng = np.random.default_rng(2)
    corner = {name: rng.random((4, 2)) * SIZE_PX / 4.1 for name in paths}
    with pytest.warns(InputWarning, match="first 1/4"):
        check(paths, corner)


def test_true_picks_in_one_corner_are_believed(micrographs):
    paths, centres = micrographs
    corner = {
        n: [(y, x) for y, x in c if y < HEIGHT / 2 and x < WIDTH / 2] for n, c in centres.items()
    }
    assert sum(map(len, corner.values())) > 15 and is_quiet(paths, corner)


@pytest.mark.parametrize("frame", ["jpeg", "mrc"])
@pytest.mark.parametrize("fractions", [
    {"0.png": [(0.5, 0.2)]},
    {"0.png": [(0.5, 0.2), (0.1, 0.9)], "1.png": [(0.3, 1.0)]},
    {"0.png": [(10.2, 10.5), (10.1, 10.9), (10.4, 10.3)], "1.png": [(90, 80), (200, 100)]},
])  # fmt: skip
def test_fractions_of_a_micrograph_are_refused_with_the_reason(micrographs, fractions, frame):
    paths, _ = micrographs
    with pytest.raises(UserError, match=r"0.png.*fractions"):
        check(paths, fractions, frame=frame)
    if frame == "jpeg":  # also where no micrograph is given
        with pytest.raises(UserError, match=r"0.png.*fractions"):
            one = Picks("0.png", np.array([(0.1, 0.2), (0.5, 0.9)]), *np.full((2, 2), np.nan), None)
            check_placement([one], {}, [paths["0.png"].with_suffix(".csv")], None, "--frame", None)


def test_fractions_in_a_data_set_are_refused_before_they_count_as_duplicates(own_data, recwarn):
    for path in (own_data / "annotations").iterdir():
        path.unlink()
    for path in (own_data / "particle_coordinates").glob("train_*.csv"):
        write_csv(path, np.random.default_rng(0).random((9, 2)))
    with pytest.raises(UserError, match=r"train_00.* \(9\) .*fractions"):
        read_split(own_data, "train")
    assert not recwarn


def test_one_pick_near_the_corner_is_no_fraction(micrographs):
    paths, centres = micrographs
    assert is_quiet(paths, {**centres, "0.png": [(0.5, 0.5)]})


@pytest.mark.parametrize("n", [1, 3])
def test_nothing_is_said_of_few_picks_and_of_none(micrographs, n):
    paths, centres = micrographs
    rng = np.random.default_rng(3)
    assert is_quiet(paths, {name: rng.random((n, 2)) * SIZE_PX for name in centres})
    assert is_quiet(paths, moved(centres, lambda y, x: (y, x), n))
    assert is_quiet(paths, {name: [] for name in centres}) and is_quiet({**paths}, {})


def test_faint_particles_are_not_complained_of(tmp_path):
    """True picks of particles hardly brighter than noise fit no other way."""
    rng = np.random.default_rng(4)
    centres = {name: some_centres(rng, 30) for name in NAMES}
    for name, listed in centres.items():
        image = picture(rng, listed).astype(float) + rng.normal(0, 150, SIZE_PX)
        Image.fromarray(image.clip(0, 255).astype(np.uint8)).save(tmp_path / name)
    assert is_quiet({name: tmp_path / name for name in NAMES}, centres)


def test_micrographs_of_both_polarities_are_warned_of(micrographs, tmp_path):
    paths, centres = micrographs
    Image.fromarray(255 - np.asarray(Image.open(paths["1.png"]))).save(tmp_path / "1.png")
    with pytest.warns(InputWarning, match=r"darker .* in 0\.png and brighter in 1\.png"):
        check({**paths, "1.png": tmp_path / "1.png"}, centres)


def test_each_micrograph_is_seen_at_the_scale_of_its_own_particles(micrographs, tmp_path, recwarn):
    """Hollow shells have a bright middle, which is no other polarity."""
    paths, centres = micrographs
    (tmp_path / "train").mkdir()
    for name, path in paths.items():
        (tmp_path / "train" / name).write_bytes(path.read_bytes())
    rng = np.random.default_rng(5)
    shells = some_centres(rng, 12, SIZE_PX, 32, 64)
    image, (y, x) = rng.normal(140, 20, SIZE_PX), np.ogrid[:HEIGHT, :WIDTH]
    for at_y, at_x in shells:
        image[(abs(np.hypot(y - at_y, x - at_x) - 22)) < 8] -= 60
    Image.fromarray(image.clip(0, 255).astype(np.uint8)).save(tmp_path / "train/shells.png")
    annotation = {name: boxes(c) for name, c in centres.items()}
    annotation |= {"shells.png": boxes(shells, 60)}
    write_coco(tmp_path / "annotations/instances_train.json", annotation)
    check_splits({"train": read_split(tmp_path, "train")})
    assert not recwarn
    annotation["shells.png"] = boxes(shells)  # as if they were small
    write_coco(tmp_path / "annotations/instances_train.json", annotation)
    with pytest.warns(InputWarning, match=r"brighter in shells\.png"):
        check_splits({"train": read_split(tmp_path, "train")})


def test_a_data_set_is_held_against_its_micrographs_split_by_split(micrographs, tmp_path):
    paths, centres = micrographs
    for split in ("train", "val"):
        (tmp_path / split).mkdir()
        for name, path in paths.items():
            (tmp_path / split / name).write_bytes(path.read_bytes())
        listed = centres if split == "train" else moved(centres, lambda y, x: (y, WIDTH - x))
        annotation = {name: boxes(np.array(c)) for name, c in listed.items()}
        write_coco(tmp_path / f"annotations/instances_{split}.json", annotation)
    splits = {name: read_split(tmp_path, name) for name in ("train", "val")}
    check_splits({"train": splits["train"]})
    with pytest.raises(UserError, match=r"instances_val\.json.*width - x"):
        check_splits(splits)


@pytest.mark.parametrize("split", ["train", "val"])
def test_the_real_truth_is_believed_and_its_mirror_images_are_not(empiar10017, split):
    listed = read_split(empiar10017, split).micrographs
    paths, centres = {m.name: m.path for m in listed}, {m.name: m.centres_px for m in listed}
    paths |= {NAMES[0]: empiar10017 / NAMES[0]}  # for the name of the file of picks
    assert is_quiet(paths, centres, diameter_px=108, size_px=(4096, 4096))
    for move in (lambda y, x: (4096 - y, x), lambda y, x: (y, 4096 - x), lambda y, x: (x, y)):
        with pytest.raises(UserError, match=r"upside down|mirrored|swapped"):
            check(paths, moved(centres, move), diameter_px=108, size_px=(4096, 4096))


def test_one_micrograph_that_is_unlike_the_others_is_named(micrographs):
    paths, centres = micrographs
    odd = dict(centres)
    odd[NAMES[2]] = [(HEIGHT - y, x) for y, x in centres[NAMES[2]]]
    with pytest.warns(InputWarning, match=rf"on 1 of 4 .*upside down.*on {NAMES[2]}\), unlike"):
        check(paths, odd)
    odd[NAMES[0]] = [(HEIGHT - y, x) for y, x in centres[NAMES[0]]]
    with pytest.warns(InputWarning, match="on 2 of 4 .*upside down"):
        check(paths, odd)
