"""Proteins: symmetry, size, orientations."""

import numpy as np
import pytest
from scipy import stats
from scipy.spatial import cKDTree

from picking.simulation.proteins import (
    PROTEINS,
    protein_gaussians,
    random_angles,
    rotation_matrices,
    symmetry_operators,
)


@pytest.mark.parametrize(("symmetry", "order"), [("C1", 1), ("C4", 4), ("D7", 14), ("I", 60)])
def test_symmetry_operators_are_a_group_of_rotations_of_the_right_order(symmetry, order):
    operators = symmetry_operators(symmetry)
    assert len(operators) == order
    np.testing.assert_allclose(np.linalg.det(operators), 1)
    np.testing.assert_allclose(
        operators @ operators.transpose(0, 2, 1), [np.eye(3)] * order, atol=1e-9
    )
    flat = cKDTree(operators.reshape(order, 9))
    assert len(flat.query_pairs(1e-3)) == 0  # all different
    products = np.einsum("aij,bjk->abik", operators, operators).reshape(-1, 9)
    assert flat.query(products)[0].max() < 1e-9  # closed


@pytest.mark.parametrize("protein", PROTEINS, ids=lambda protein: protein.name)
def test_a_density_has_its_symmetry_its_size_and_its_centre_at_the_origin(protein):
    points = protein_gaussians(protein)
    tree = cKDTree(points)
    for operator in symmetry_operators(protein.symmetry):
        assert tree.query(points @ operator.T)[0].max() < 1e-6
    np.testing.assert_allclose(points.mean(axis=0), 0, atol=0.02 * protein.diameter_angstrom)
    reach = np.linalg.norm(points, axis=1).max()
    assert 0.9 * protein.diameter_angstrom / 2 < reach <= protein.diameter_angstrom / 2


def test_an_icosahedral_density_does_not_have_a_cyclic_symmetry_it_lacks():
    points = protein_gaussians(PROTEINS[2])
    turned = points @ symmetry_operators("C7")[1].T
    assert cKDTree(points).query(turned)[0].max() > 1


def test_orientations_are_uniform():
    matrices = rotation_matrices(random_angles(20_000, np.random.default_rng(0)))
    np.testing.assert_allclose(
        matrices @ matrices.transpose(0, 2, 1), [np.eye(3)] * 20_000, atol=1e-9
    )
    # The angle of a uniformly random rotation has the distribution (a - sin a) / pi.
    angles = np.arccos(np.clip((np.trace(matrices, axis1=1, axis2=2) - 1) / 2, -1, 1))
    assert stats.kstest(angles, lambda a: (a - np.sin(a)) / np.pi).pvalue > 1e-3
    # Every matrix element is uniform in [-1, 1].
    for element in matrices.reshape(-1, 9).T:
        assert stats.kstest(element, stats.uniform(-1, 2).cdf).pvalue > 1e-4
