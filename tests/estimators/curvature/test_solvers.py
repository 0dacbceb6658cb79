import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from estimators.curvature.conjugate_gradients import ConjugateGradients
from estimators.curvature.solvers import CholeskySolver, RootSolver
from workers.errors import ConfigError


def system(seed, p=12, rank=12, r=4):
    rng = np.random.default_rng(seed)
    factor = rng.normal(size=(rank, p))
    return torch.from_numpy(factor.T @ factor / rank), torch.from_numpy(rng.normal(size=(r, p)))


@settings(deadline=None, max_examples=25)
@given(seed=st.integers(0, 10_000), damping=st.floats(1e-2, 10))
def test_both_solvers_equal_numpy(seed, damping):
    matrix, sides = system(seed)
    expected = np.linalg.solve(matrix.numpy() + damping * np.eye(12), sides.numpy().T).T
    exact = CholeskySolver(matrix, damping)(sides)
    np.testing.assert_allclose(exact.values, expected, rtol=1e-8, atol=1e-10)
    assert exact.residual < 1e-12
    iterative = ConjugateGradients(lambda v: v @ matrix, damping, 1e-10, 200)(sides)
    np.testing.assert_allclose(iterative.values, expected, rtol=1e-6, atol=1e-7)
    assert iterative.residual < 2e-10
    assert iterative.unconverged == 0
    assert 0 < iterative.iterations <= 200


def test_conjugate_gradients_end_after_as_many_steps_as_distinct_eigenvalues():
    matrix = torch.diag(torch.tensor([1.0, 1.0, 2.0, 2.0, 5.0], dtype=torch.float64))
    solution = ConjugateGradients(lambda v: v @ matrix, 0.0, 1e-12, 100)(torch.ones(2, 5, dtype=torch.float64))
    assert solution.iterations == 3


@settings(deadline=None, max_examples=25)
@given(seed=st.integers(0, 10_000), damping=st.floats(1e-2, 10), rank=st.integers(1, 30))
def test_the_solver_by_roots_equals_numpy(seed, damping, rank):
    rng = np.random.default_rng(seed)
    roots, sides = rng.normal(size=(rank, 12)), rng.normal(size=(4, 12))
    expected = np.linalg.solve(roots.T @ roots + damping * np.eye(12), sides.T).T
    solution = RootSolver(torch.from_numpy(roots), damping)(torch.from_numpy(sides))
    np.testing.assert_allclose(solution.values, expected, rtol=1e-7, atol=1e-9)
    assert solution.residual < 1e-9


def test_a_matrix_of_few_roots_needs_damping():
    with pytest.raises(ConfigError, match="rank 2 of 5"):
        RootSolver(torch.ones(2, 5, dtype=torch.float64), 0.0)


def test_a_zero_side_has_a_zero_solution():
    matrix, sides = system(0)
    sides[1] = 0
    solution = ConjugateGradients(lambda v: v @ matrix, 0.1, 1e-8, 100)(sides)
    assert not solution.values[1].any()
    assert solution.unconverged == 0
    nothing = ConjugateGradients(lambda v: v @ matrix, 0.1, 1e-8, 100)(torch.zeros_like(sides))
    assert nothing.iterations == 0
    assert nothing.residual == 0


def test_what_does_not_converge_is_counted():
    matrix, sides = system(1)
    solution = ConjugateGradients(lambda v: v @ matrix, 1e-6, 1e-10, 2)(sides)
    assert solution.iterations == 2
    assert solution.unconverged == 4
    true = (sides - solution.values @ (matrix + 1e-6 * torch.eye(12, dtype=torch.float64))).norm(dim=1)
    assert solution.residual == pytest.approx(float((true / sides.norm(dim=1)).max()))


def test_negative_curvature_stops_a_side_and_is_counted():
    matrix = torch.diag(torch.tensor([1.0, -3.0], dtype=torch.float64))
    solution = ConjugateGradients(lambda v: v @ matrix, 0.0, 1e-8, 50)(torch.tensor([[1.0, 0.0], [0.0, 1.0]]).double())
    assert solution.unconverged == 1
    assert torch.isfinite(solution.values).all()


def test_a_singular_matrix_is_refused_with_its_damping():
    matrix, _ = system(2, rank=3)
    with pytest.raises(ConfigError, match=r"damping -1 is not positive definite"):
        CholeskySolver(matrix, -1.0)
