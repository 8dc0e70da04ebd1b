"""Picking: what is refused, in one sentence and before anything is written."""

import mrcfile
import numpy as np
import pytest
from PIL import Image

from tests.fixtures.pickers import classifier_content, refused, write_checkpoint

NO_OUTPUT = {"output": None}


@pytest.fixture
def mistake(checkpoint, disks, tmp_path):
    """Run the command with some flags changed, or left out with None; return the sentence."""

    def run(**changed):
        flags = {
            "checkpoint": checkpoint,
            "micrographs": disks.folder / "*.jpg",
            "output": tmp_path / "out",
            "diameter": "20px",
            "device": "cpu",
            **changed,
        }
        given = [(f"--{name.replace('_', '-')}", v) for name, v in flags.items() if v is not None]
        sentence = refused(*(part for item in given for part in item))
        assert not (tmp_path / "out").exists()
        return sentence

    return run


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"micrographs": "{data}/*.mrc"}, "*.mrc"),
        ({"micrographs": "{data}/truth.json"}, "truth.json is no micrograph"),
        ({"diameter": "150A"}, "--pixel-size"),
        ({"diameter": "150"}, "--diameter is '150'"),
        ({"diameter": "0px"}, "--diameter is '0px'"),
        ({"diameter": "107px"}, "a.jpg is 384 x 320 px, and should be 3 diameters wide at least"),
        ({"diameter": "4px"}, "is 4 px on a.jpg, and below 6 px nothing can be told"),
        ({"diameter": "150A", "pixel_size": "0"}, "--pixel-size is 0"),
        ({"diameter": None}, "--diameter is missing"),
        (NO_OUTPUT, "--output"),
        ({"checkpoint": None}, "--checkpoint"),
        ({"checkpoint": "{data}/none.pt"}, "none.pt"),
        ({"threshold": "1.5"}, "--threshold is '1.5'"),
        ({"threshold": "nan"}, "--threshold is 'nan'"),
        ({"annotated_margin": "far"}, "--annotated-margin is 'far'"),
        ({"picks": "{data}/truth.json"}, "--picks, not both"),
        ({"choose_threshold": "{data}/truth.json"}, "a threshold is chosen first"),
        ({"expected_particles": "12", "evaluate": "x"}, "a threshold is chosen first"),
        ({"expected_particles": "12", "threshold": "0.2"}, "leave --threshold out"),
        ({"expected_particles": "0"}, "--expected-particles is"),
        ({"expected_particles": "0", **NO_OUTPUT}, "--output"),
        ({"expected_particles": "-3", **NO_OUTPUT}, "--expected-particles is"),
        ({"expected_particles": "nan", **NO_OUTPUT}, "--expected-particles is"),
        ({"expected_particles": "inf", **NO_OUTPUT}, "--expected-particles is"),
        ({"expected_particles": "5000", **NO_OUTPUT}, "--expected-particles 5000"),
        ({"expected_particles": "3", "choose_threshold": "x", **NO_OUTPUT}, "--choose-threshold"),
        ({"expected_particles": "3", "precision": "0.9", **NO_OUTPUT}, "--precision"),
        ({"precision": "0.9"}, "--precision"),
        ({"evaluate": "{data}/none.json"}, "none.json"),
        ({"device": "cuda:7"}, "cuda:7"),
    ],
)
def test_mistakes_on_the_command_line_are_named(mistake, disks, changed, words):
    changed = {k: v and v.replace("{data}", str(disks.folder)) for k, v in changed.items()}
    assert words in mistake(**changed)


def test_a_stack_is_refused_before_anything_is_scored(mistake, tmp_path):
    with mrcfile.new(tmp_path / "movie.mrc") as mrc:
        mrc.set_data(np.zeros((3, 8, 8), np.float32))
    assert "average the movie first" in mistake(micrographs=tmp_path / "movie.mrc")


def test_micrographs_whose_picks_would_be_one_file_are_refused(mistake, tmp_path):
    for folder in ("one", "two"):
        (tmp_path / folder).mkdir()
        Image.fromarray(np.zeros((32, 32), np.uint8)).save(tmp_path / folder / "a.png")
    assert "one/a.png" in mistake(micrographs=tmp_path / "*/a.png")


@pytest.mark.parametrize(("known_px", "words"), [(107.0, "3 diameters wide"), (4.0, "4 px on a")])
def test_a_diameter_that_only_the_network_knows_is_held_against_the_micrographs(
    checkpoint, disks, tmp_path, known_px, words
):
    wants = {"patch_size_px": 64, "scale": 1.0, "diameter_px": known_px, "reach_px": 5.0}
    write_checkpoint(checkpoint, **classifier_content("unet", **wants))
    message = refused(
        "--checkpoint", checkpoint, "--micrographs", disks.folder / "*.jpg", "--device", "cpu",
        "--output", tmp_path / "out",
    )  # fmt: skip
    assert words in message and "check --diameter" in message and not (tmp_path / "out").exists()


def test_a_diameter_that_would_blow_up_the_micrograph_is_refused(checkpoint, disks, tmp_path):
    wants = {"patch_size_px": 64, "scale": 100.0, "diameter_px": 20.0, "reach_px": 5.0}
    write_checkpoint(checkpoint, **classifier_content("unet", **wants))
    message = refused(
        "--checkpoint", checkpoint, "--micrographs", disks.folder / "a.jpg", "--device", "cpu",
        "--output", tmp_path / "out", "--diameter", "6px",
    )  # fmt: skip
    assert "a.jpg" in message and "check --diameter" in message
