"""DAQP: closed forms, active sets near bounds, difficult data, statuses."""

from __future__ import annotations

from dataclasses import replace

import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from solvers.programs import (
    dense,
    infeasible,
    knapsack,
    near_bounds,
    nonconvex,
    program,
    simplex,
    unbounded,
    weakly_active,
)
from solvers.reference import sparsemax

from decigrad.program import Dense, Diagonal, RawResult, Status
from decigrad.solvers import DAQP
from decigrad.solvers.verification import Curvature, curvature, kkt_residual, settle


def simplex_program(c, mu):
    c = np.atleast_2d(np.asarray(c, dtype=float))
    n = c.shape[1]
    return program(Diagonal(np.full((1, n), mu)), c, np.ones((1, n)), np.ones(1), lb=0.0)


@pytest.mark.parametrize(
    ("c", "mu", "expected"),
    [
        ((0.2, 0.5, 0.1, 0.9), 1.0, (0.4, 0.1, 0.5, 0.0)),
        ((0.2, 0.5, 0.1, 0.9), 0.5, (0.4, 0.0, 0.6, 0.0)),
        ((-1.0, -0.8, -0.1), 1.0, (0.6, 0.4, 0.0)),
    ],
)
def test_published_sparsemax_values(c, mu, expected):
    raw = DAQP()(simplex_program(c, mu))
    np.testing.assert_allclose(raw.x[0], expected, atol=1e-15)


@given(seed=st.integers(0, 2**32 - 1), n=st.integers(2, 30), mu=st.sampled_from([0.05, 1.0, 20.0]))
def test_simplex_is_sparsemax(seed, n, mu):
    p = simplex(np.random.default_rng(seed), 3, n, mu)
    raw = DAQP()(p)
    expected = np.array([sparsemax(-c / mu) for c in p.q])
    np.testing.assert_allclose(raw.x, expected, atol=1e-13 * (1 + 1 / mu))
    assert ((raw.fixed < 0) == (raw.x == 0)).all()


@given(seed=st.integers(0, 2**32 - 1), gap=st.sampled_from([1e-3, 1e-5, 1e-7, 1e-9, 1e-10]))
def test_active_set_is_right_within_a_hair_of_a_bound(seed, gap):
    """x₀ is free `gap` above its bound; x₁ is held, its minimizer lying `gap` below."""
    p = near_bounds(np.random.default_rng(seed), gap=gap)
    raw = DAQP()(p)
    np.testing.assert_allclose(raw.x[:, 0], gap, rtol=1e-5)
    assert (raw.fixed[:, 0] == 0).all()
    assert (raw.x[:, 1] == 0).all()
    if gap > 2e-10:  # below that the multiplier counts as zero
        assert (raw.fixed[:, 1] == -1).all()


@given(seed=st.integers(0, 2**32 - 1))
def test_constraints_that_only_touch_are_inactive(seed):
    raw = DAQP()(weakly_active(np.random.default_rng(seed)))
    assert not raw.active.any()
    assert not raw.fixed.any()


def test_a_large_solution_is_solved_at_a_looser_tolerance():
    """Rounding at |x| ~ 1e7 exceeds the first primal tolerance."""
    rng = np.random.default_rng(0)
    p = dense(rng, 6, 20, 4, 30)
    p = replace(p, q=1e7 * p.q)
    raw = DAQP()(p)
    assert (raw.status == Status.OPTIMAL).all()
    assert kkt_residual(p, raw.x, raw.y, raw.z, raw.w).max() < 1e-9


@pytest.mark.parametrize("unit", [1e-12, 1e-6, 1e6, 1e12])
def test_the_unit_of_the_objective_does_not_matter(unit):
    p = dense(np.random.default_rng(1))
    raw, other = DAQP()(p), DAQP()(replace(p, P=Dense(unit * p.P.matrix), q=unit * p.q))
    assert (other.status == Status.OPTIMAL).all()
    np.testing.assert_allclose(other.x, raw.x, atol=1e-11)
    np.testing.assert_allclose(other.z / unit, raw.z, atol=1e-10)
    assert (other.active == raw.active).all()


def test_absent_rows_bounds_of_a_million_and_fixed_variables():
    rng = np.random.default_rng(2)
    p = dense(rng, 5)
    G = np.concatenate([p.G.matrix, rng.standard_normal((1, 3, p.n))], axis=1)
    h = np.concatenate([p.h, [[np.inf, 1e9, np.inf]]], axis=1)
    wide = replace(p, G=Dense(G), h=h, lb=np.full((1, p.n), -1e9), ub=np.full((1, p.n), 1e9))
    raw, other = DAQP()(p), DAQP()(wide)
    np.testing.assert_allclose(other.x, raw.x, atol=1e-11)
    assert not other.active[:, p.num_inequalities :].any()

    held = replace(
        p,
        lb=np.where(np.arange(p.n) == 0, raw.x[:1], -np.inf),
        ub=np.where(np.arange(p.n) == 0, raw.x[:1], np.inf),
    )
    fixed = DAQP()(held)
    assert (fixed.x[:, 0] == raw.x[0, 0]).all()
    assert (fixed.fixed[:, 0] != 0).all()  # even for sample 0, where its multiplier is zero
    np.testing.assert_allclose(fixed.x[0], raw.x[0], atol=1e-11)


def stacked(p, **changes):
    """Repeat a program so that some leaves can differ by sample."""
    return replace(p, **changes)


def test_every_kind_of_failure_in_one_batch():
    rng = np.random.default_rng(3)
    n = 4
    P = np.repeat(np.eye(n)[None], 6, axis=0)
    P[1, 0, 0] = np.nan
    P[2] = nonconvex(rng, n).P.matrix[0]
    P[4, 3, 3] = 0.0
    q = rng.standard_normal((6, n))
    q[4, 3] = -1.0
    lb, ub = np.full((6, n), -1.0), np.full((6, n), 1.0)
    lb[3, 0] = 2.0  # above its upper bound
    lb[4, 3], ub[4, 3] = -np.inf, np.inf
    p = program(Dense(P), q, lb=lb, ub=ub)
    raw = DAQP()(p)
    expected = [
        Status.OPTIMAL,
        Status.INVALID_DATA,
        Status.NONCONVEX,
        Status.PRIMAL_INFEASIBLE,
        Status.UNBOUNDED,
        0,
    ]
    assert raw.status.tolist() == expected
    for i in (0, 5):
        np.testing.assert_array_equal(raw.x[i], np.clip(-q[i], -1, 1))
    assert np.isnan(raw.x[1:5]).all()
    assert not raw.w[1:5].any()


@pytest.mark.parametrize(
    ("make", "status"),
    [(infeasible, Status.PRIMAL_INFEASIBLE), (unbounded, Status.UNBOUNDED), (nonconvex, Status.NONCONVEX)],
)
def test_programs_without_solution(make, status):
    for seed in range(5):
        assert DAQP()(make(np.random.default_rng(seed))).status.tolist() == [status]


def test_a_shared_nonconvex_or_invalid_matrix_fails_every_sample():
    p = nonconvex(np.random.default_rng(0))
    p = replace(p, q=np.zeros((3, p.n)))
    assert DAQP()(p).status.tolist() == [Status.NONCONVEX] * 3
    broken = replace(p, P=Dense(np.full_like(p.P.matrix, np.nan)))
    assert DAQP()(broken).status.tolist() == [Status.INVALID_DATA] * 3


def test_infinite_multipliers_of_a_failed_sample_do_not_reach_the_others():
    p = dense(np.random.default_rng(0), 3, 8, 2, 6)
    solved = DAQP()(p)
    left = {name: np.array(value) for name, value in vars(solved).items()}
    left["status"][1] = int(Status.ITERATION_LIMIT)
    for name in ("x", "y", "z", "w"):
        left[name][1] = np.inf
    found = settle(p, RawResult(**left), 1e-9)
    assert found.status.tolist() == [Status.OPTIMAL, Status.ITERATION_LIMIT, Status.OPTIMAL]
    assert np.isnan(found.x[1]).all() and not found.y[1].any() and not found.w[1].any()
    assert np.array_equal(found.x[::2], solved.x[::2])


def test_iteration_limit():
    p = dense(np.random.default_rng(0), 3, 20, 3, 30)
    assert DAQP(max_iterations=2)(p).status.tolist() == [Status.ITERATION_LIMIT] * 3


def test_refuses_integers_only():
    rng = np.random.default_rng(0)
    assert "integer" in DAQP().refuses(knapsack(rng))
    assert DAQP().refuses(dense(rng)) is None


def test_takes_jax_arrays_of_any_precision():
    p = simplex(np.random.default_rng(0))
    single = replace(p, q=jnp.asarray(p.q, dtype=jnp.float32))
    raw = DAQP()(single)
    assert raw.x.dtype == np.float64
    expected = np.array([sparsemax(-c) for c in np.asarray(single.q, dtype=np.float64)])
    np.testing.assert_allclose(raw.x, expected, atol=1e-13)


def test_arguments_are_not_written_to():
    p = dense(np.random.default_rng(0))
    for leaf in (p.q, p.h, p.b, p.P.matrix, p.G.matrix, p.A.matrix):
        leaf.flags.writeable = False
    assert (DAQP()(p).status == Status.OPTIMAL).all()


@given(seed=st.integers(0, 2**32 - 1), n=st.integers(1, 12), scale=st.sampled_from([1e-9, 1.0, 1e9]))
def test_curvature_of_matrices(seed, n, scale):
    rng = np.random.default_rng(seed)
    basis, _ = np.linalg.qr(rng.standard_normal((n, n)))
    eigenvalues = scale * (0.1 + rng.random((4, n)))
    eigenvalues[1, 0] = 0.0
    eigenvalues[2, 0] = -1e-6 * scale
    eigenvalues[3, 0] = -scale
    matrices = np.einsum("ij,bj,kj->bik", basis, eigenvalues, basis)
    matrices = (matrices + matrices.swapaxes(1, 2)) / 2
    kinds = curvature(Dense(matrices))
    assert kinds[0] == Curvature.DEFINITE
    if n > 1:
        assert kinds.tolist() == [2, 1, 0, 0]
    assert curvature(Diagonal(eigenvalues))[0] == Curvature.DEFINITE
    assert curvature(Diagonal(eigenvalues))[3] == Curvature.INDEFINITE
