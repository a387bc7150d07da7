"""Every host solver on every family of programs: optimality, agreement with Clarabel, independence.

A new solver is one entry in `SOLVERS`, a new family one in `programs.FAMILIES`.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from solvers.programs import FAMILIES, LINEAR, QUADRATIC, program
from solvers.reference import clarabel_solution

from decigrad import native
from decigrad.program import Dense, QuadraticProgram, RawResult, Status
from decigrad.solvers import DAQP, ActiveSet, HiGHS
from decigrad.solvers.verification import kkt_residual

SOLVERS = {"daqp": (DAQP(), FAMILIES), "highs": (HiGHS(), LINEAR), "active-set": (ActiveSet(), FAMILIES)}
COMPILED = pytest.mark.skipif(native.missing() is not None, reason="needs the compiled core")
CASES = [
    pytest.param(solver, family, marks=[COMPILED] if solver == "active-set" else [])
    for solver, (_, families) in SOLVERS.items()
    for family in families
]
NOT_UNIQUE = {"tied"}

cases = pytest.mark.parametrize(("solver", "family"), CASES)
seeds = given(seed=st.integers(0, 2**32 - 1))


def draw(family: str, seed: int, batch: int = 4) -> QuadraticProgram:
    return FAMILIES[family](np.random.default_rng(seed), batch)


def solve(solver: str, program: QuadraticProgram) -> RawResult:
    return SOLVERS[solver][0](program)


def assert_same_bits(one: RawResult, other: RawResult) -> None:
    for name, value in vars(one).items():
        np.testing.assert_array_equal(value, getattr(other, name), err_msg=name)


@cases
@settings(max_examples=15)
@seeds
def test_solution_satisfies_the_optimality_conditions(solver, family, seed):
    p = draw(family, seed)
    raw = solve(solver, p)
    assert (raw.status == Status.OPTIMAL).all()
    assert kkt_residual(p, raw.x, raw.y, raw.z, raw.w).max() < 1e-10
    assert ((raw.z > 0) >= raw.active).all()
    held = np.where(raw.fixed < 0, p.lb, np.where(raw.fixed > 0, p.ub, raw.x))
    size = 1 + np.abs(raw.x).max(axis=1, keepdims=True)
    assert (np.abs(raw.x - held) < 1e-10 * size).all()
    slack = np.where(raw.active, p.h - p.G.matvec(raw.x), 0.0)
    assert (np.abs(slack) < 1e-10 * (size + np.abs(p.h))).all()


@cases
@settings(max_examples=6)
@seeds
def test_agrees_with_clarabel(solver, family, seed):
    p = draw(family, seed, 2)
    raw = solve(solver, p)
    value = p.objective(raw.x)
    for i in range(p.batch_size):
        status, x = clarabel_solution(p, i)
        assert status in ("Solved", "AlmostSolved")
        other = p.sample(i).objective(x[None])[0]
        assert value[i] == pytest.approx(other, rel=1e-8, abs=1e-8)
        if family not in NOT_UNIQUE:
            np.testing.assert_allclose(raw.x[i], x, atol=2e-5 * (1 + np.abs(x).max()))


@cases
@settings(max_examples=6)
@seeds
def test_batch_equals_loop_to_the_bit(solver, family, seed):
    p = draw(family, seed)
    raw = solve(solver, p)
    for i in range(p.batch_size):
        alone = solve(solver, p.sample(i))
        for name, value in vars(raw).items():
            np.testing.assert_array_equal(value[i], getattr(alone, name)[0], err_msg=name)


@cases
@settings(max_examples=6)
@seeds
def test_order_of_samples_and_earlier_calls_do_not_matter(solver, family, seed):
    p = draw(family, seed, 6)
    first = solve(solver, p)
    order = np.random.default_rng(seed).permutation(6)
    shuffled = solve(solver, p.take(order))
    assert_same_bits(RawResult(**{k: v[order] for k, v in vars(first).items()}), shuffled)
    assert_same_bits(first, solve(solver, p))


@pytest.mark.parametrize("solver", SOLVERS)
@settings(max_examples=10)
@seeds
def test_bad_samples_leave_their_neighbours_alone(solver, seed):
    rng = np.random.default_rng(seed)
    family = "transport" if solver == "highs" else "dense"
    good = draw(family, seed, 5)
    q, h = np.array(good.q), np.repeat(good.h, 5, axis=0)
    q[1, 2] = rng.choice([np.nan, np.inf])
    h[3] = -1e3 * np.abs(good.G.matrix).sum(axis=-1) - 1e6
    h[3, 1:] = -h[3, 0]
    G = np.array(good.G.matrix)
    bad = replace(good, q=q, h=h, G=Dense(G), lb=np.maximum(good.lb, -50.0), ub=np.minimum(good.ub, 50.0))
    raw = solve(solver, bad)
    assert raw.status.tolist() == [0, Status.INVALID_DATA, 0, Status.PRIMAL_INFEASIBLE, 0]
    for i in (1, 3):
        assert np.isnan(raw.x[i]).all()
        assert not any(np.any(getattr(raw, name)[i]) for name in ("y", "z", "w", "active", "fixed"))
    neighbours = [0, 2, 4]
    clean = replace(bad, q=good.q, h=np.repeat(good.h, 5, axis=0))
    kept = RawResult(**{name: value[neighbours] for name, value in vars(raw).items()})
    assert_same_bits(kept, solve(solver, clean.take(np.array(neighbours))))


@cases
@settings(max_examples=5)
@seeds
def test_rows_in_another_order_and_objective_in_another_unit(solver, family, seed):
    p = draw(family, seed, 2)
    raw = solve(solver, p)
    order = np.random.default_rng(seed).permutation(p.num_inequalities)
    unit = 1000.0
    P = Dense(unit * p.P.dense())
    other = replace(p, P=P, q=unit * p.q, G=Dense(p.G.matrix[:, order]), h=p.h[:, order])
    again = solve(solver, other)
    assert (again.status == Status.OPTIMAL).all()
    np.testing.assert_allclose(p.objective(again.x), p.objective(raw.x), rtol=1e-9, atol=1e-9)
    if family not in NOT_UNIQUE and not (solver == "highs" and family == "grid"):
        size = 1 + np.abs(raw.x).max()
        np.testing.assert_allclose(again.x, raw.x, atol=1e-8 * size)
    if family in ("dense", "boxed", "simplex", "everything varies"):  # multipliers are unique
        np.testing.assert_allclose(again.z / unit, raw.z[:, order], atol=1e-7)
        np.testing.assert_allclose(again.w / unit, raw.w, atol=1e-7)
        assert (again.active == raw.active[:, order]).all()


@pytest.mark.parametrize("family", LINEAR)
@settings(max_examples=8)
@seeds
def test_the_two_solvers_agree_on_linear_programs(family, seed):
    p = draw(family, seed)
    simplex, active_set = solve("highs", p), solve("daqp", p)
    np.testing.assert_allclose(p.objective(simplex.x), p.objective(active_set.x), rtol=1e-11, atol=1e-11)
    if family not in NOT_UNIQUE:
        np.testing.assert_allclose(simplex.x, active_set.x, atol=1e-10)


@settings(max_examples=20)
@given(seed=st.integers(0, 2**32 - 1), family=st.sampled_from(sorted(QUADRATIC)))
def test_weak_duality(seed, family):
    """The dual objective −½xᵀPx − bᵀy − hᵀz − (bounds) equals the primal one at the solution."""
    p = draw(family, seed, 3)
    raw = solve("daqp", p)
    bound = np.where(raw.w > 0, p.ub, np.where(raw.w < 0, p.lb, 0.0))
    h = np.where(np.isfinite(p.h), p.h, 0.0)
    quadratic = 0.5 * (raw.x * p.P.matvec(raw.x)).sum(-1)
    dual = -quadratic - (p.b * raw.y).sum(-1) - (h * raw.z).sum(-1) - (bound * raw.w).sum(-1)
    np.testing.assert_allclose(p.objective(raw.x), dual, rtol=1e-9, atol=1e-9)


def test_a_program_without_constraints():
    p = program(Dense(np.array([[[2.0, 0.5], [0.5, 1.0]]])), np.array([[1.0, -1.0], [0.0, 0.0]]))
    raw = solve("daqp", p)
    np.testing.assert_allclose(p.P.matvec(raw.x), -p.q, atol=1e-14)
