"""What the simulator says of its particles is what RELION makes of it: the protein comes out.

Halves that agree prove frame, angles, defocus and the CTF's sign at once. They agree as well in a
map of the wrong hand, which only the density that was simulated shows.
"""

import mrcfile
import numpy as np
import pytest
import starfile
from scipy.ndimage import gaussian_filter

from picking.simulation.proteins import GAUSSIAN_SIGMA_ANGSTROM, PROTEINS, protein_gaussians
from tests.fixtures.relion_project import (
    BOX_PX,
    DIAMETER_PX,
    PIXEL_SIZE_ANGSTROM,
    PROTEIN,
    extract,
    needs_relion,
    relion,
)

pytestmark = needs_relion
INDICES = np.indices((BOX_PX,) * 3) - BOX_PX // 2
DISTANCE_PX = np.sqrt((INDICES**2).sum(axis=0))
SHELL = np.rint(np.fft.ifftshift(DISTANCE_PX)).astype(int).ravel()


@pytest.fixture(scope="module")
def halves(relion_project, tmp_path_factory):
    """The folder of maps of both halves of the particles, as refinements name them."""
    folder = tmp_path_factory.mktemp("reconstructed")
    particles = relion_project.particles.relative_to(relion_project.root)
    cut = extract(relion_project, folder, "--reextract_data_star", particles)
    for half in (1, 2):
        relion(
            relion_project, "reconstruct", "--i", cut.star, "--subset", half, "--ctf",
            "--sym", "C4", "--o", folder / f"half{half}_class001_unfil.mrc",
        )  # fmt: skip
    return folder


def true_density():
    """The protein as it was simulated, (z, y, x), the origin at the middle voxel."""
    (protein,) = (protein for protein in PROTEINS if protein.name == PROTEIN)
    at = protein_gaussians(protein)[:, ::-1] / PIXEL_SIZE_ANGSTROM + BOX_PX // 2 + 0.5
    points, _ = np.histogramdd(at, BOX_PX, [(0, BOX_PX)] * 3)
    return gaussian_filter(points, GAUSSIAN_SIGMA_ANGSTROM / PIXEL_SIZE_ANGSTROM)


def shell_correlation(a, b):
    """The Fourier shell correlation of two maps, by distance from the origin."""
    a, b = (np.fft.fftn(volume).ravel() for volume in (a, b))
    power = np.bincount(SHELL, abs(a) ** 2) * np.bincount(SHELL, abs(b) ** 2)
    return np.bincount(SHELL, (a * b.conj()).real) / np.sqrt(power)


def test_the_map_is_the_simulated_protein_white_and_of_its_hand(halves):
    truth, shells = true_density(), slice(4, 16)  # 56 to 15 Å
    other_hand = np.roll(truth[::-1], 1, axis=0)  # mirrored in the plane of the origin
    for half in (1, 2):
        density = mrcfile.read(halves / f"half{half}_class001_unfil.mrc")
        density = density * (DISTANCE_PX < 0.6 * DIAMETER_PX)
        assert shell_correlation(density, truth)[shells].mean() > 0.85
        assert shell_correlation(density, other_hand)[shells].mean() < 0.2


def test_the_halves_agree_as_far_as_so_few_particles_can(halves, relion_project):
    with mrcfile.new(halves / "mask.mrc") as file:
        file.set_data((0.6 * DIAMETER_PX + 5 - DISTANCE_PX).clip(0, 5).astype(np.float32) / 5)
    relion(
        relion_project, "postprocess", "--i", halves / "half1_class001_unfil.mrc", "--angpix",
        PIXEL_SIZE_ANGSTROM, "--mask", halves / "mask.mrc", "--o", halves / "postprocess",
    )  # fmt: skip
    general = starfile.read(halves / "postprocess.star")["general"]
    assert float(general["rlnFinalResolution"]) < 15
