"""HiGHS: paths and knapsacks against enumeration, integer conventions, limits, changing data."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from solvers.programs import boxed, grid, infeasible, knapsack, program, tied, transport, unbounded, zero
from solvers.reference import clarabel_solution, enumerate_binaries

from decigrad.errors import ModelError
from decigrad.program import Dense, Status
from decigrad.solvers import HiGHS
from decigrad.solvers.highs import LinearModel, _scales
from decigrad.solvers.verification import kkt_residual


def shortest_path(costs: np.ndarray, side: int) -> float:
    """Dynamic program over the grid of `solvers.programs.grid`, whose edges point right and down."""
    across, down = (
        costs[: side * (side - 1)].reshape(side, side - 1),
        costs[side * (side - 1) :].reshape(side - 1, side),
    )
    best = np.full((side, side), np.inf)
    best[0, 0] = 0.0
    for i in range(side):
        for j in range(side):
            if j:
                best[i, j] = min(best[i, j], best[i, j - 1] + across[i, j - 1])
            if i:
                best[i, j] = min(best[i, j], best[i - 1, j] + down[i - 1, j])
    return best[-1, -1]


@settings(max_examples=20)
@given(seed=st.integers(0, 2**32 - 1), side=st.integers(2, 8))
def test_shortest_paths(seed, side):
    p = grid(np.random.default_rng(seed), 3, side)
    raw = HiGHS()(p)
    expected = [shortest_path(c, side) for c in p.q]
    np.testing.assert_allclose(p.objective(raw.x), expected, rtol=1e-13)
    assert np.isin(raw.x, (0.0, 1.0)).all()


@settings(max_examples=12)
@given(seed=st.integers(0, 2**32 - 1), n=st.integers(3, 11))
def test_knapsack_is_the_best_of_all_subsets(seed, n):
    p = knapsack(np.random.default_rng(seed), 3, n)
    raw = HiGHS()(p)
    assert (raw.status == Status.OPTIMAL).all()
    for i in range(3):
        value, x = enumerate_binaries(p, i)
        np.testing.assert_array_equal(raw.x[i], x)
        assert p.objective(raw.x)[i] == pytest.approx(value, rel=1e-13)
    assert (raw.fixed == 1).all()
    assert not raw.active.any()


@settings(max_examples=12)
@given(seed=st.integers(0, 2**32 - 1))
def test_mixed_integers_satisfy_the_conditions_of_the_program_that_holds_them(seed):
    p = knapsack(np.random.default_rng(seed), 3, 6, continuous=3)
    raw = HiGHS()(p)
    integers = list(p.integer)
    np.testing.assert_array_equal(raw.x[:, integers], np.round(raw.x[:, integers]))
    assert (raw.fixed[:, integers] == 1).all()
    lb, ub = np.repeat(p.lb, 3, axis=0), np.repeat(p.ub, 3, axis=0)
    lb[:, integers] = ub[:, integers] = raw.x[:, integers]
    held = replace(p, lb=lb, ub=ub, integer=())
    assert kkt_residual(held, raw.x, raw.y, raw.z, raw.w).max() < 1e-11
    for i in range(3):  # the best over all integer parts, each completed by Clarabel
        best = np.inf
        for part in np.ndindex(*(2,) * 6):
            if (p.G.matrix[0][:, :6] @ part <= p.h[0]).all():
                one = replace(p.sample(i), integer=())
                bounds = np.array([*part, 0.0, 0.0, 0.0]), np.array([*part, 1.0, 1.0, 1.0])
                if p.q[i] @ bounds[1] < best:  # all fractions for nothing bound the completion from below
                    x = clarabel_solution(replace(one, lb=bounds[0][None], ub=bounds[1][None]))[1]
                    best = min(best, float(p.q[i] @ x))
        assert p.objective(raw.x)[i] == pytest.approx(best, rel=1e-7)


def test_integer_samples_do_not_depend_on_each_other():
    p = knapsack(np.random.default_rng(5), 6, 10, continuous=2)
    raw, order = HiGHS()(p), np.array([3, 0, 5, 1, 4, 2])
    shuffled = HiGHS()(p.take(order))
    for name, value in vars(raw).items():
        np.testing.assert_array_equal(value[order], getattr(shuffled, name), err_msg=name)


def test_ties_go_to_a_vertex():
    p = tied(np.random.default_rng(0))
    raw = HiGHS()(p)
    assert np.isin(raw.x, (0.0, 1.0)).all()
    assert (raw.fixed[:, 2:] == -1).all()
    assert not raw.fixed[:, :2].any()  # the reduced costs of both ends of the tied edge are zero


@given(seed=st.integers(0, 2**32 - 1), unit=st.sampled_from([1e-9, 1e-3, 1e3, 1e9]))
def test_the_unit_of_the_costs_does_not_matter(seed, unit):
    p = transport(np.random.default_rng(seed), 2)
    raw, other = HiGHS()(p), HiGHS()(replace(p, q=unit * p.q))
    np.testing.assert_allclose(other.x, raw.x, atol=1e-11)
    assert (other.fixed == raw.fixed).all()
    assert (other.active == raw.active).all()


@settings(max_examples=10)
@given(seed=st.integers(0, 2**32 - 1), leaf=st.sampled_from(["b", "h", "lb", "ub", "A", "G"]))
def test_any_leaf_may_differ_by_sample(seed, leaf):
    rng = np.random.default_rng(seed)
    p = transport(rng, 3)
    if leaf in "AG":
        matrix = np.repeat(getattr(p, leaf).matrix, 3, axis=0)
        p = replace(p, **{leaf: Dense(matrix * (1 + 0.01 * rng.random(matrix.shape)))})
    else:
        value = np.repeat(getattr(p, leaf), 3, axis=0)
        p = replace(p, **{leaf: value + 0.01 * rng.random(value.shape)})
    raw = HiGHS()(p)
    for i in range(3):
        status, x = clarabel_solution(p, i)
        assert raw.status[i] == (Status.OPTIMAL if status == "Solved" else Status.PRIMAL_INFEASIBLE)
        if status == "Solved":
            assert p.objective(raw.x)[i] == pytest.approx(p.q[i] @ x, abs=1e-7)


def test_badly_scaled_linear_program():
    rng = np.random.default_rng(4)
    p = transport(rng)
    unit, row = 10.0 ** rng.uniform(-4, 4, p.n), 10.0 ** rng.uniform(-3, 3, p.num_inequalities)
    other = replace(
        p,
        q=p.q / unit,
        A=Dense(p.A.matrix / unit),
        G=Dense(row[:, None] * p.G.matrix / unit),
        h=row * p.h,
        lb=p.lb * unit,
        ub=p.ub * unit,
    )
    raw, scaled = HiGHS()(p), HiGHS()(other)
    np.testing.assert_allclose(scaled.x / unit, raw.x, atol=1e-10)
    assert (scaled.fixed == raw.fixed).all()
    assert (scaled.active == raw.active).all()


def test_scale_factors_are_powers_of_two_and_leave_good_matrices_alone():
    rng = np.random.default_rng(0)
    matrix = 10.0 ** rng.uniform(-5, 5, (6, 1)) * (0.5 + rng.random((6, 8))) * 10.0 ** rng.uniform(-5, 5, 8)
    row, column = np.nonzero(matrix)
    r, c = _scales(row, column, np.abs(matrix[row, column]), 6, 8)
    assert (np.frexp(r)[0] == 0.5).all()
    assert (np.frexp(c)[0] == 0.5).all()
    scaled = r[:, None] * matrix * c
    assert scaled.max() / scaled.min() < 20
    r, c = _scales(*np.nonzero(np.eye(3)), np.ones(3), 3, 3)
    assert (r == 1).all()
    assert (c == 1).all()


@pytest.mark.parametrize(
    ("make", "status"), [(infeasible, Status.PRIMAL_INFEASIBLE), (unbounded, Status.UNBOUNDED)]
)
def test_programs_without_solution(make, status):
    for seed in range(5):
        p = make(np.random.default_rng(seed), linear=True)
        assert HiGHS()(p).status.tolist() == [status]
        assert HiGHS()(replace(p, integer=(0,))).status.tolist() == [status]


def test_integrality_alone_can_be_infeasible():
    """2 x₀ + 2 x₁ = 1 has solutions, but none in integers."""
    p = program(zero(2), np.ones((1, 2)), np.full((1, 2), 2.0), np.ones(1), lb=0.0, ub=5.0, linear=True)
    assert HiGHS()(p).status.tolist() == [Status.OPTIMAL]
    assert HiGHS()(replace(p, integer=(0, 1))).status.tolist() == [Status.PRIMAL_INFEASIBLE]


def test_time_limit_keeps_the_best_point_found():
    """A market-split problem: feasible at once with the slacks, not proved within the limit."""
    rng = np.random.default_rng(0)
    rows, n = 4, 36
    D = rng.integers(0, 100, (rows, n)).astype(float)
    A = np.concatenate([D, np.eye(rows), -np.eye(rows)], axis=1)
    q = np.concatenate([np.zeros(n), np.ones(2 * rows)])
    ub = np.concatenate([np.ones(n), np.full(2 * rows, np.inf)])
    p = program(zero(len(q)), q, A, D.sum(axis=1) // 2, lb=0.0, ub=ub, integer=tuple(range(n)), linear=True)
    raw = HiGHS(time_limit=0.4)(p)
    assert raw.status.tolist() == [Status.TIME_LIMIT]
    assert np.isfinite(raw.x).all()
    np.testing.assert_allclose(p.A.matvec(raw.x), p.b, atol=1e-6)
    np.testing.assert_array_equal(raw.x[:, :n], np.round(raw.x[:, :n]))
    assert not raw.w.any()


def test_the_time_limit_is_for_each_sample():
    model = LinearModel()
    for _ in range(3):
        model.load(np.ones(2), np.ones((1, 2)), np.ones(1), np.ones(1), np.zeros(2), np.ones(2))
        assert model.run(5.0) is Status.OPTIMAL
    p = transport(np.random.default_rng(0), 8)
    assert (HiGHS(time_limit=5.0)(p).status == Status.OPTIMAL).all()


def test_iteration_limit():
    p = transport(np.random.default_rng(0), 2, 20)
    raw = HiGHS(max_iterations=1)(p)
    assert raw.status.tolist() == [Status.ITERATION_LIMIT] * 2
    assert np.isnan(raw.x).all()


def test_refuses_quadratic_objectives():
    rng = np.random.default_rng(0)
    assert "quadratic" in HiGHS().refuses(boxed(rng))
    assert HiGHS().refuses(transport(rng)) is None
    assert HiGHS().refuses(knapsack(rng)) is None


def test_writes_nothing_to_the_terminal(capfd):
    HiGHS()(transport(np.random.default_rng(0)))
    HiGHS()(knapsack(np.random.default_rng(0)))
    assert capfd.readouterr() == ("", "")


def matrices_by_sample(rng: np.random.Generator, batch: int = 5):
    p = transport(rng, batch)
    return replace(p, A=Dense(np.repeat(p.A.matrix, batch, axis=0) * rng.choice([1.0, 2.0], (batch, 1, 1))))


@pytest.mark.parametrize("workers", [2, 3, 8])
@pytest.mark.parametrize("make", [transport, grid, tied, knapsack, matrices_by_sample])
def test_workers_change_nothing(make, workers):
    p = make(np.random.default_rng(0), 5)
    alone, shared = HiGHS()(p), HiGHS(workers=workers)(p)
    for name in ("x", "y", "z", "w", "active", "fixed", "status", "iterations"):
        np.testing.assert_array_equal(getattr(shared, name), getattr(alone, name), err_msg=name)


def test_workers_are_at_least_one():
    with pytest.raises(ModelError, match="workers must be at least 1"):
        HiGHS(workers=0)
