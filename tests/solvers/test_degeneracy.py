"""Dependent active constraints: each one with a positive multiplier in some dual solution is active."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import linprog
from solvers.programs import degenerate, dense, program, redundant, transport

from decigrad import native
from decigrad.program import Dense, Diagonal, Status
from decigrad.solvers import DAQP, ActiveSet
from decigrad.solvers.degeneracy import _largest_support, complete
from decigrad.solvers.verification import kkt_residual

COMPILED = pytest.mark.skipif(native.missing() is not None, reason="needs the compiled core")


def always_active(normals: np.ndarray, force: np.ndarray) -> np.ndarray:
    """Which λᵢ can be positive among λ ≥ 0 with Nᵀλ = force, by one linear program each."""
    greatest = []
    for i in range(len(normals)):
        found = linprog(-np.eye(len(normals))[i], A_eq=normals.T, b_eq=force, bounds=(0, 1e4))
        greatest.append(-found.fun if found.status == 0 else 0.0)
    return np.array(greatest) > 1e-7


def test_bounds_that_a_row_makes_redundant_are_found():
    """min ½‖x‖² − 2x₁ − 2x₂ with x ≤ ½ and x₁ + x₂ ≤ 1: the row alone would let x move along (1, −1)."""
    p = program(Diagonal(np.ones((1, 2))), np.array([[-2.0, -2.0]]), G=np.ones((1, 2)), h=np.ones(1), ub=0.5)
    raw = DAQP()(p)
    np.testing.assert_array_equal(raw.x, [[0.5, 0.5]])
    np.testing.assert_allclose([raw.z[0, 0], *raw.w[0]], [1.0, 0.5, 0.5])  # of least norm
    assert raw.active.all()
    assert (raw.fixed == 1).all()


@pytest.mark.parametrize("solver", [DAQP(), pytest.param(ActiveSet(), marks=COMPILED)], ids=lambda s: s.name)
def test_a_variable_that_an_equality_and_its_bounds_hold_counts_once(solver):
    """The same beside x₀ = 0.3, which is said twice: still nothing may move along (0, 1, −1)."""
    p = program(
        Diagonal(np.ones((1, 3))), np.array([[0.0, -2.0, -2.0]]), A=np.array([[1.0, 0.0, 0.0]]),
        b=np.array([0.3]), G=np.array([[0.0, 1.0, 1.0]]), h=np.ones(1),
        lb=np.array([0.3, -np.inf, -np.inf]), ub=np.array([0.3, 0.5, 0.5]),
    )  # fmt: skip
    raw = solver(p)
    np.testing.assert_allclose(raw.x, [[0.3, 0.5, 0.5]], atol=1e-15)
    assert raw.active.all()
    assert (raw.fixed != 0).all()


@settings(max_examples=25)
@given(seed=st.integers(0, 2**32 - 1), n=st.integers(2, 5))
def test_the_active_set_spans_all_constraints_with_a_possible_multiplier(seed, n):
    """Then the solution can move along exactly the directions of the critical cone's hull."""
    p = degenerate(np.random.default_rng(seed), 3, n)
    raw = DAQP()(p)
    assert (raw.status == Status.OPTIMAL).all()
    assert kkt_residual(p, raw.x, raw.y, raw.z, raw.w).max() < 1e-9
    force = -(p.P.matvec(raw.x) + p.q)
    for i in range(3):
        G, active = p.G.matrix[0], raw.active[i]
        full = always_active(G, force[i])
        assert (full >= active).all()
        assert np.linalg.matrix_rank(G[active]) == np.linalg.matrix_rank(G[full])


def test_largest_support_where_the_least_norm_has_a_wrong_sign():
    normals = np.array([[1.0, 0.0], [0.0, 1.0], [1.0, 3.0], [-1.0, 1.0]])
    force = np.array([1.0, 0.05])
    assert np.linalg.lstsq(normals.T, force, rcond=None)[0].min() < 0
    found = _largest_support(normals, np.ones(4), force)
    np.testing.assert_allclose(normals.T @ found, force, atol=1e-12)
    assert (found > 1e-6).all()


@settings(max_examples=10)
@given(seed=st.integers(0, 2**32 - 1))
def test_repeated_rows_share_the_multiplier(seed):
    """Rows 4..7 repeat rows 0..3, row 8 is three times row 0: the least norm makes them proportional."""
    p = redundant(np.random.default_rng(seed))
    raw = DAQP()(p)
    np.testing.assert_allclose(raw.z[:, 4:8], raw.z[:, :4], atol=1e-10)
    np.testing.assert_allclose(raw.z[:, 8], 3 * raw.z[:, 0], atol=1e-10)
    assert (raw.active[:, 4:8] == raw.active[:, :4]).all()
    assert kkt_residual(p, raw.x, raw.y, raw.z, raw.w).max() < 1e-10


def test_regular_samples_and_linear_programs_are_left_as_they_are():
    rng = np.random.default_rng(0)
    for p in (dense(rng), transport(rng)):
        raw = DAQP()(p)
        again = complete(p, raw)
        for name, value in vars(raw).items():
            np.testing.assert_array_equal(value, getattr(again, name))


def test_independent_constraints_that_only_touch_stay_inactive():
    p = program(Dense(np.eye(2)[None]), np.array([[-1.0, -2.0]]), G=np.eye(2), h=np.array([1.0, 1.5]))
    raw = DAQP()(p)
    assert raw.active.tolist() == [[False, True]]
