"""Picks in a folder of coordinate files, as the picking guide has it: RELION cuts particles."""

import re
import shutil
import subprocess

import mrcfile
import numpy as np
import pytest
import starfile

from picking.formats.coordinates import write_picks
from picking.formats.picks import select
from tests.fixtures import ROOT, pickers
from tests.fixtures.relion_project import (
    DIAMETER_ANGSTROM,
    needs_relion,
    require_centred,
    require_particles,
)

pytestmark = needs_relion


@pytest.fixture(scope="module")
def picks(relion_project, tmp_path_factory):
    """The folder of picks of the project by a network that takes what is dark for a particle."""
    folder = tmp_path_factory.mktemp("picked")
    with pytest.MonkeyPatch.context() as patch:
        pickers.know(patch)
        one_window = {**pickers.TILES, "side_px": 160, "tiles": 1}
        checkpoint = pickers.write_checkpoint(folder / "best_model.pt", input=one_window)
        pickers.call(
            "--checkpoint", checkpoint, "--micrographs", *relion_project.micrographs,
            "--diameter", f"{DIAMETER_ANGSTROM}A", "--pixel-size", 4, "--device", "cpu",
            "--output", folder / "picks", "--formats", "star", "box",
        )  # fmt: skip
    return folder / "picks"


def coordinate_folder(files, tmp_path):
    """Copy files so that their folder repeats the path of the micrographs; return RELION's flags.

    RELION leaves out of that path the job that the micrographs come from.
    """
    folder = tmp_path / "coords" / "Movies"
    folder.mkdir(parents=True)
    for path in files:
        shutil.copy(path, folder)
    return "--coord_dir", f"{folder.parent}/", "--coord_suffix", files[0].suffix


def number_of(picks):
    return sum(len(path.read_text().splitlines()) for path in (picks / "box").iterdir())


@pytest.mark.parametrize("kind", ["star", "box"])
def test_relion_cuts_every_particle_of_the_truth_in_our_files(kind, relion_project, tmp_path):
    truth = relion_project.truth
    files = write_picks(tmp_path / "picks", truth, [kind])
    n = sum(len(true.scores) for true in truth)
    require_particles(relion_project, tmp_path / "cut", n, *coordinate_folder(files, tmp_path))


@pytest.mark.parametrize("kind", ["star", "box"])
def test_relion_goes_on_where_a_micrograph_without_picks_has_no_file(
    kind, relion_project, tmp_path
):
    first, *others = relion_project.truth
    none = select(first, np.zeros(len(first.scores), bool))
    files = write_picks(tmp_path / "picks", [none, *others], [kind])
    assert len(files) == len(others)
    n = sum(len(true.scores) for true in others)
    require_particles(relion_project, tmp_path / "cut", n, *coordinate_folder(files, tmp_path))


@pytest.mark.parametrize("kind", ["star", "box"])
def test_relion_cuts_a_particle_of_every_pick(kind, picks, relion_project, tmp_path):
    files = sorted((picks / kind).iterdir())
    require_particles(
        relion_project, tmp_path / "cut", number_of(picks), *coordinate_folder(files, tmp_path)
    )


def test_the_guides_commands_make_particles_of_picks(picks, relion_project, tmp_path):
    (tmp_path / "Micrographs").symlink_to(relion_project.micrographs[0].parent)
    (tmp_path / "picks").symlink_to(picks)
    guide = (ROOT / "docs" / "picking_guide.md").read_text()
    blocks = re.findall(r"```bash\n([^`]*relion_preprocess[^`]*)```", guide)
    (commands,) = (block for block in blocks if "relion_import" in block)
    subprocess.run(["bash", "-e", "-c", commands], cwd=tmp_path, check=True, capture_output=True)
    blocks = starfile.read(tmp_path / "Extract" / "particles.star")
    assert len(blocks["particles"]) == number_of(picks) > 200
    stacks = sorted((tmp_path / "Extract").rglob("*.mrcs"))
    require_centred(np.concatenate([mrcfile.read(path) for path in stacks]))
