"""Proteins as sums of Gaussians with point-group symmetry, and orientations to see them in.

Coordinates of a density are (x, y, z) in Å, right-handed, the symmetry axis along z.
"""

import math
from dataclasses import dataclass

import numpy as np

from picking.seeds import stream

GAUSSIANS_PER_PROTEIN = 600
DOMAINS_PER_PROTEIN = 24
GAUSSIAN_SIGMA_ANGSTROM = 4.5


@dataclass(frozen=True)
class Protein:
    """A protein as a recipe: the same name gives the same density in every data set.

    cavity: radius of the empty centre as a fraction of the outer radius. height: extent along the
    symmetry axis over the extent across it. contrast: its raw signal-to-noise ratio over the one
    asked for. particles_per_um2: mean number in an area, before crowding.
    """

    name: str
    symmetry: str
    diameter_angstrom: float
    cavity: float
    height: float
    contrast: float
    particles_per_um2: float


# The first three differ most; a set of n proteins takes the first n.
PROTEINS = (
    Protein("SIM-001", "C4", 125, 0.20, 0.75, 0.8, 950),
    Protein("SIM-002", "D7", 165, 0.45, 0.95, 0.9, 800),
    Protein("SIM-003", "I", 220, 0.72, 1.00, 0.85, 600),
    Protein("SIM-004", "D2", 180, 0.25, 0.60, 1.0, 600),
    Protein("SIM-005", "C1", 210, 0.00, 0.80, 1.2, 440),
    Protein("SIM-006", "C3", 140, 0.00, 1.00, 0.8, 740),
    Protein("SIM-007", "D3", 150, 0.35, 0.50, 0.9, 700),
    Protein("SIM-008", "C6", 190, 0.50, 0.40, 1.0, 560),
    Protein("SIM-009", "D5", 135, 0.30, 0.70, 0.8, 760),
    Protein("SIM-010", "C2", 160, 0.10, 0.70, 0.9, 660),
    Protein("SIM-011", "I", 180, 0.60, 1.00, 0.7, 580),
    Protein("SIM-012", "C12", 200, 0.60, 0.50, 0.9, 540),
)


def symmetry_operators(symmetry: str) -> np.ndarray:
    """Return the rotations of a point group, float64 (order, 3, 3): C<n>, D<n> or I.

    The n-fold axis is z; of the icosahedron, two-fold axes are x, y and z.
    """
    if symmetry == "I":
        golden = (1 + math.sqrt(5)) / 2
        generators = [_rotation((1, 1, 1), 3), _rotation((0, 1, golden), 5)]
    else:
        generators = [_rotation((0, 0, 1), int(symmetry[1:]))]
        if symmetry[0] == "D":
            generators.append(_rotation((1, 0, 0), 2))
    operators = [np.eye(3)]
    for operator in operators:  # grows until every product is in it
        for generator in generators:
            product = generator @ operator
            if not any(np.allclose(product, known) for known in operators):
                operators.append(product)
    return np.array(operators)


def _rotation(axis: tuple[float, float, float], fold: int) -> np.ndarray:
    """Return the rotation by 2 pi / fold about an axis, (3, 3), by Rodrigues' formula."""
    x, y, z = np.array(axis) / np.linalg.norm(axis)
    cross = np.array([[0, -z, y], [z, 0, -x], [-y, x, 0]])
    angle = 2 * math.pi / fold
    return np.eye(3) + math.sin(angle) * cross + (1 - math.cos(angle)) * cross @ cross


def protein_gaussians(protein: Protein) -> np.ndarray:
    """Return the centres (x, y, z) in Å of the Gaussians that make the protein, float64 (n, 3).

    One asymmetric unit of a few globular domains, drawn from the protein's name, and its
    symmetric copies; their centre of mass is the origin, and none is further out than the radius.
    """
    rng = stream(0, "protein", protein.name)
    operators = symmetry_operators(protein.symmetry)
    radius = protein.diameter_angstrom / 2
    n_unit = max(12, GAUSSIANS_PER_PROTEIN // len(operators))
    n_domains = max(2, DOMAINS_PER_PROTEIN // len(operators))
    # Side by side, domains of this size fill the shell
    fraction = (1 - protein.cavity**3) / (n_domains * len(operators))
    domain_radius = 0.9 * radius * fraction ** (1 / 3)
    direction = rng.normal(size=(n_domains, 3))
    direction /= np.linalg.norm(direction, axis=1, keepdims=True)
    distance = rng.uniform(protein.cavity**3, 1, (n_domains, 1)) ** (1 / 3) * radius
    domains = direction * np.minimum(distance, radius - domain_radius)
    unit = np.repeat(domains, math.ceil(n_unit / n_domains), axis=0)
    unit += rng.normal(0, domain_radius / math.sqrt(5), unit.shape)
    unit *= (1, 1, protein.height)
    points = np.einsum("oij,nj->oni", operators, unit).reshape(-1, 3)
    points -= points.mean(axis=0)
    outer = radius - GAUSSIAN_SIGMA_ANGSTROM
    points *= outer / np.quantile(np.linalg.norm(points, axis=1), 0.95)
    return points * np.minimum(1, outer / np.linalg.norm(points, axis=1, keepdims=True))


def random_angles(n: int, rng: np.random.Generator) -> np.ndarray:
    """Return n uniformly random orientations as rot, tilt, psi in degrees, float64 (n, 3)."""
    rot, psi = rng.uniform(-180, 180, (2, n))
    tilt = np.degrees(np.arccos(rng.uniform(-1, 1, n)))
    return np.stack([rot, tilt, psi], axis=1)


def rotation_matrices(angles_deg: np.ndarray) -> np.ndarray:
    """Return the matrices (n, 3, 3) that turn a density before projection along z.

    angles_deg: (n, 3), rot, tilt, psi in RELION's convention: A = Rz(psi) Ry(tilt) Rz(rot), each
    a turn of the axes, so Rz(a) = [[cos a, sin a, 0], [-sin a, cos a, 0], [0, 0, 1]].
    """
    c, s = np.cos(np.radians(angles_deg)).T, np.sin(np.radians(angles_deg)).T
    zero, one = np.zeros(len(angles_deg)), np.ones(len(angles_deg))
    rot = np.array([[c[0], s[0], zero], [-s[0], c[0], zero], [zero, zero, one]])
    tilt = np.array([[c[1], zero, -s[1]], [zero, one, zero], [s[1], zero, c[1]]])
    psi = np.array([[c[2], s[2], zero], [-s[2], c[2], zero], [zero, zero, one]])
    return np.einsum("ijn,jkn,kln->nil", psi, tilt, rot)
