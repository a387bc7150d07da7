"""One small sample on the host takes a shortcut: the same solution as the general elimination."""

import numpy as np
import pytest

from decigrad import kkt
from decigrad.kkt import solution
from decigrad.program import Dense, Diagonal, QuadraticProgram


def program(rng, n, me, mi, diagonal, duplicated=False):
    square = rng.normal(size=(n, n))
    P = Diagonal(rng.uniform(0.1, 2, (1, n))) if diagonal else Dense((square @ square.T + np.eye(n))[None])
    A = rng.normal(size=(1, me, n))
    if duplicated:
        A[0, -1] = A[0, 0]
    zeros = [np.zeros((1, k)) for k in (n, me, mi)]
    return QuadraticProgram(
        P, zeros[0], np.zeros(1), Dense(A), zeros[1], Dense(rng.normal(size=(1, mi, n))), zeros[2],
        np.zeros((1, n)), np.ones((1, n)),
    )  # fmt: skip


def compliances(rng, n, mi):
    return np.where(rng.random((1, mi)) < 0.5, 0.0, np.inf), np.where(rng.random((1, n)) < 0.3, 0.0, np.inf)


@pytest.mark.parametrize("diagonal", [True, False])
def test_agrees_with_elimination(diagonal, monkeypatch):
    rng = np.random.default_rng(0)
    taken = 0
    for _ in range(150):
        n, me, mi = rng.integers(2, 7), rng.integers(0, 2), rng.integers(0, 3)
        p = program(rng, n, me, mi, diagonal)
        kz, kw = compliances(rng, n, mi)
        rhs = rng.normal(size=(1, 2 * n + me + mi, 3))
        taken += solution._solve_alone(p, kz[0], kw[0], rhs[0].T) is not None
        alone, flag = kkt.solve(p, kz, kw, rhs)
        with monkeypatch.context() as patch:
            patch.setattr(solution, "ALONE", 0)
            general, expected = kkt.solve(p, kz, kw, rhs)
        np.testing.assert_allclose(alone, general, rtol=1e-8, atol=1e-8 * (1 + np.abs(general).max()))
        assert flag == expected
    assert taken > 75


def test_leaves_dependent_rows_and_soft_constraints_to_elimination():
    rng = np.random.default_rng(0)
    p = program(rng, 4, 2, 1, True, duplicated=True)
    rows = rng.normal(size=(2, 11))
    free, let_go = np.full(4, np.inf), np.full(1, np.inf)
    assert solution._solve_alone(p, let_go, free, rows) is None
    p = program(rng, 4, 1, 1, True)
    assert solution._solve_alone(p, np.full(1, 0.5), free, rows[:, :10]) is None
    assert solution._solve_alone(p, let_go, free, rows[:, :10]) is not None
