"""The interior point method and its polish, against Clarabel, closed forms and the optimality conditions."""

from __future__ import annotations

import sys
from dataclasses import replace
from functools import cache
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from solvers import programs
from solvers.programs import FAMILIES, program, zero
from solvers.reference import clarabel_solution, sparsemax

sys.path.insert(0, str(Path(__file__).parents[2]))  # benchmarks/ stands beside tests/

from benchmarks import derivatives
from decigrad.program import Dense, Diagonal, QuadraticProgram, RawResult, Status, batched
from decigrad.solvers.daqp import DAQP
from decigrad.solvers.interior_point import InteriorPoint
from decigrad.solvers.polish import polish
from decigrad.solvers.verification import kkt_residual

INF = np.inf
seeds = st.integers(0, 2**32 - 1)


@pytest.fixture(autouse=True)
def float64():
    with jax.enable_x64(True):
        yield


def solve(p: QuadraticProgram, **options) -> RawResult:
    raw = InteriorPoint(**options)(p)
    return RawResult(**{name: np.array(value) for name, value in vars(raw).items()})


def stacked(*parts: QuadraticProgram) -> QuadraticProgram:
    """One batch of all samples, every leaf by sample."""

    def join(*leaves: np.ndarray) -> np.ndarray:
        sizes = [part.batch_size for part in parts]
        return np.concatenate(
            [np.broadcast_to(leaf, (size, *leaf.shape[1:])) for leaf, size in zip(leaves, sizes, strict=True)]
        )

    return jax.tree_util.tree_map(join, *parts)


def many(family: str, batches: int = 8) -> QuadraticProgram:
    """Samples of `batches` draws of a family as one batch: one compilation."""
    draws = [FAMILIES[family](np.random.default_rng(seed), 4) for seed in range(batches)]
    return stacked(*draws)


@pytest.mark.parametrize("family", ["everything varies", "redundant", "badly scaled", "low rank", "grid"])
def test_solutions_satisfy_the_optimality_conditions(family):
    p = many(family)
    raw = solve(p)
    assert (raw.status == Status.OPTIMAL).all()
    assert kkt_residual(p, raw.x, raw.y, raw.z, raw.w).max() < 1e-11
    held = np.where(raw.fixed < 0, p.lb, np.where(raw.fixed > 0, p.ub, raw.x))
    np.testing.assert_array_equal(raw.x, held)
    assert ((raw.z > 0) >= raw.active).all()
    for i in range(0, p.batch_size, 7):
        status, x = clarabel_solution(p, i)
        assert status == "Solved"
        assert p.sample(i).objective(raw.x[i : i + 1])[0] <= p.sample(i).objective(x[None])[0] + 1e-7
        if family != "badly scaled":
            np.testing.assert_allclose(raw.x[i], x, atol=1e-5)


@cache
def _simplex() -> QuadraticProgram:
    rng = np.random.default_rng(0)
    c = rng.standard_normal((40, 4)) * 10.0 ** rng.uniform(-2, 2, (40, 1))
    c[0] = 0.2, 0.5, 0.1, 0.9
    return program(Diagonal(np.ones((1, 4))), c, np.ones((1, 4)), np.ones(1), lb=0.0, ub=1.0)


def test_simplex_is_sparsemax():
    p = _simplex()
    raw = solve(p)
    expected = np.stack([sparsemax(-c) for c in p.q])
    np.testing.assert_allclose(raw.x[0], [0.4, 0.1, 0.5, 0.0], atol=1e-14)
    np.testing.assert_allclose(raw.x, expected, atol=1e-13)
    np.testing.assert_array_equal(raw.x == 0, raw.fixed < 0)


def test_log_barrier_on_the_simplex():
    """w = μ/(c − λ) with Σw = 1, TARGETS of the project: a closed form up to one scalar."""
    c = np.array([[0.2, 0.5, 0.1, 0.9], [1.0, 1.0, 1.0, 1.0]])
    p = program(zero(4), c, np.ones((1, 4)), np.ones(1), lb=0.0, linear=True)
    raw = solve(p, barrier=0.1)
    np.testing.assert_allclose(raw.x[0], [0.30488, 0.15924, 0.43860, 0.09728], atol=5e-6)
    np.testing.assert_allclose(raw.x[1], 0.25, atol=1e-9)
    np.testing.assert_allclose(-raw.w, 0.1 / raw.x, rtol=1e-6)
    assert not raw.fixed.any()


def _failures() -> tuple[QuadraticProgram, list[int]]:
    """Good and bad samples in one batch of box- and row-constrained programs."""
    rng = np.random.default_rng(5)

    def base() -> QuadraticProgram:
        G, lb, ub = rng.standard_normal((2, 3)), np.full(3, -1.0), np.full(3, 1.0)
        return program(
            Dense(np.eye(3)[None]), rng.standard_normal(3), np.ones((1, 3)), [0.5], G, [2.0, 2.0], lb, ub
        )

    clash = base()
    clash.b[:] = 10.0
    rows_clash = base()
    rows_clash.G.matrix[0, 1], rows_clash.h[0] = -rows_clash.G.matrix[0, 0], [-0.5, -0.5]
    crossed = base()
    crossed.lb[0, 1] = 2.0
    ray = base()
    ray.P.matrix[0, 2], ray.P.matrix[0, :, 2] = 0.0, 0.0
    ray.A.matrix[:], ray.b[:], ray.G.matrix[..., 2] = [[1.0, 1.0, 0.0]], 0.0, 0.0
    ray.ub[0, 2], ray.q[0, 2] = INF, -1.0
    concave = base()
    concave.P.matrix[0, 0, 0] = -0.5
    nan, infinite = base(), base()
    nan.q[0, 1], infinite.A.matrix[0, 0, 0] = np.nan, INF
    held = base()
    held.lb[0, 0] = held.ub[0, 0] = 0.25
    parts = [base(), clash, rows_clash, base(), crossed, ray, concave, base(), nan, infinite, held, base()]
    codes = {1: 1, 2: 1, 4: 1, 5: 2, 6: 3, 8: 7, 9: 7}
    return stacked(*parts), [codes.get(i, 0) for i in range(len(parts))]


def test_failed_samples_are_named_and_leave_their_neighbours_alone():
    p, expected = _failures()
    raw = solve(p)
    assert raw.status.tolist() == expected
    bad = raw.status != Status.OPTIMAL
    assert np.isnan(raw.x[bad]).all()
    for value in (raw.y, raw.z, raw.w, raw.active, raw.fixed):
        assert not value[bad].any()
    good = np.flatnonzero(~bad)
    assert kkt_residual(p.take(good), *(a[good] for a in (raw.x, raw.y, raw.z, raw.w))).max() < 1e-11
    assert raw.fixed[10, 0] != 0  # lb = ub


@pytest.mark.parametrize("linear", [False, True])
def test_infeasible_and_unbounded_are_certified(linear):
    rng = np.random.default_rng(0)
    p = stacked(*(programs.infeasible(rng, linear=linear) for _ in range(10)))
    assert (solve(p).status == Status.PRIMAL_INFEASIBLE).all()
    p = stacked(*(programs.unbounded(rng, linear=linear) for _ in range(10)))
    assert (solve(p).status == Status.UNBOUNDED).all()


def test_free_variables_and_no_constraints():
    rng = np.random.default_rng(0)
    P = programs.definite(rng, 5)
    q = rng.standard_normal((3, 5))
    raw = solve(program(Dense(P), q))
    np.testing.assert_allclose(raw.x, -np.linalg.solve(P[0], q.T).T, rtol=1e-11)


def test_under_jit_and_vmap_free_batches():
    p = jax.tree_util.tree_map(jnp.asarray, _simplex())

    @jax.jit
    def total(q):
        return InteriorPoint()(replace(p, q=q)).x.sum(-1)

    np.testing.assert_allclose(total(p.q), 1.0, atol=1e-12)


def test_refusals():
    rng = np.random.default_rng(0)
    assert "integer" in InteriorPoint().refuses(programs.knapsack(rng))
    assert InteriorPoint().refuses(_simplex()) is None
    with pytest.raises(ValueError, match="tolerance 1e-09 is below what float32 can reach"):
        InteriorPoint()(jax.tree_util.tree_map(lambda a: jnp.asarray(a, jnp.float32), _simplex()))
    with pytest.raises(ValueError, match="barrier must be positive"):
        InteriorPoint(barrier=0.0)
    with pytest.raises(ValueError, match="tolerance > 0"):
        InteriorPoint(tolerance=0.0)


def test_float32_with_a_tolerance_it_can_reach():
    p = _simplex()
    raw = InteriorPoint(tolerance=1e-4)(jax.tree_util.tree_map(lambda a: jnp.asarray(a, jnp.float32), p))
    assert raw.x.dtype == jnp.float32
    assert (np.asarray(raw.status) == Status.OPTIMAL).all()
    np.testing.assert_allclose(raw.x, np.stack([sparsemax(-c) for c in p.q]), atol=2e-3)


def test_the_iteration_limit_is_reported():
    p = many("everything varies", 1)
    raw = solve(p, max_iterations=1, polish=False)
    assert (raw.status == Status.ITERATION_LIMIT).all()
    assert np.isnan(raw.x).all()


@pytest.mark.parametrize("curvature", ["dense", "low-rank"])
def test_a_wrong_active_set_is_never_called_optimal(curvature):
    """Constraints 1e-3 … 1e-9 from switching: the set is that from which the program was built, or none."""
    structure, rng = derivatives.Structure(3, curvature), np.random.default_rng(11)
    stated = derivatives.model(structure, {})
    samples = [derivatives.draw(structure, "near vertex", rng) for _ in range(60)]
    values = {name: np.stack([s.values[name] for s in samples]) for name in stated.parameters}
    form = stated.form
    p = stacked(*(batched(form.assemble({k: v[i] for k, v in values.items()})) for i in range(len(samples))))
    raw = solve(p)
    found = raw.status == Status.OPTIMAL
    assert found.mean() > 0.8
    assert set(raw.status.tolist()) <= {int(Status.OPTIMAL), int(Status.NUMERICAL_ERROR)}
    expected = np.stack([s.x for s in samples])
    np.testing.assert_allclose(raw.x[found], expected[found], atol=1e-9)
    np.testing.assert_array_equal(raw.active[found], np.stack([s.active for s in samples])[found])
    np.testing.assert_array_equal(raw.fixed[found], np.stack([s.fixed for s in samples])[found])


# ------------------------------------------------------------------------------------------------ polish


def guessed(
    p: QuadraticProgram, active: np.ndarray, fixed: np.ndarray, x: np.ndarray | None = None
) -> RawResult:
    batch = p.batch_size
    return RawResult(
        x=np.zeros((batch, p.n)) if x is None else x,
        y=np.zeros((batch, p.num_equalities)),
        z=np.zeros((batch, p.num_inequalities)),
        w=np.zeros((batch, p.n)),
        active=active,
        fixed=fixed.astype(np.int8),
        status=np.zeros(batch, np.int32),
        iterations=np.zeros(batch, np.int32),
    )


@settings(max_examples=30)
@given(seed=seeds)
def test_polish_finds_the_solution_from_any_active_set_of_bounds(seed):
    """Strictly convex with bounds alone: principal pivoting ends from a random guess."""
    rng = np.random.default_rng(seed)
    root = rng.standard_normal((8, 8))
    P = Dense((root @ root.T + np.eye(8))[None])
    p = program(P, 4 * rng.standard_normal((6, 8)), lb=-1.0, ub=1.0)
    raw, verified = polish(p, guessed(p, np.zeros((6, 0), bool), rng.integers(-1, 2, (6, 8))))
    assert verified.all()
    assert kkt_residual(p, raw.x, raw.y, raw.z, raw.w).max() < 1e-11


@settings(max_examples=30)
@given(seed=seeds)
def test_polish_with_an_equality_verifies_no_wrong_answer(seed):
    """From a random guess it may cycle: it says so and changes nothing. A solver's set is confirmed."""
    rng = np.random.default_rng(seed)
    p = programs.boxed(rng, 6, 8)
    guess = guessed(p, np.zeros((6, 0), bool), rng.integers(-1, 2, (6, 8)))
    raw, verified = polish(p, guess)
    assert kkt_residual(p, raw.x, raw.y, raw.z, raw.w)[verified].max(initial=0.0) < 1e-11
    np.testing.assert_array_equal(raw.x[~verified], guess.x[~verified])
    np.testing.assert_array_equal(raw.fixed[~verified], guess.fixed[~verified])
    assert polish(p, DAQP()(p))[1].all()


@settings(max_examples=20)
@given(seed=seeds)
def test_polish_corrects_rows(seed):
    rng = np.random.default_rng(seed)
    p = programs.dense(rng, 4, n=12, p=3, m=6)
    raw, verified = polish(p, guessed(p, rng.random((4, 6)) < 0.5, np.zeros((4, 12))))
    assert verified.all()
    assert kkt_residual(p, raw.x, raw.y, raw.z, raw.w).max() < 1e-11


def test_polish_is_the_same_in_jax():
    rng = np.random.default_rng(0)
    p = programs.boxed(rng, 6, 8)
    guess = guessed(p, np.zeros((6, 0), bool), rng.integers(-1, 2, (6, 8)))
    raw, _ = polish(p, guess)
    other, verified = jax.jit(polish)(*jax.tree_util.tree_map(jnp.asarray, (p, guess)))
    assert verified.all()
    np.testing.assert_allclose(other.x, raw.x, atol=1e-13)
    np.testing.assert_array_equal(other.fixed, raw.fixed)


def test_weakly_active_constraints_are_inactive_and_held_variables_fixed():
    p = programs.weakly_active(np.random.default_rng(0), 3, 4)
    fixed = np.zeros((3, 4))
    fixed[:, 0] = -1
    raw, verified = polish(p, guessed(p, np.ones((3, 1), bool), fixed))
    assert verified.all()
    assert not raw.active.any()
    assert not raw.fixed.any()
    p.ub[:, 0] = 0.0
    raw, verified = polish(p, guessed(p, np.ones((3, 1), bool), fixed))
    assert verified.all()
    assert (raw.fixed[:, 0] != 0).all()


def test_polish_returns_what_it_cannot_verify_as_given():
    """An infeasible program has no KKT point."""
    p = programs.infeasible(np.random.default_rng(0))
    x = np.full((1, 5), 0.125)
    raw, verified = polish(p, guessed(p, np.zeros((1, 6), bool), np.zeros((1, 5)), x))
    assert not verified.any()
    np.testing.assert_array_equal(raw.x, x)


def test_ties_keep_the_nearest_point_of_the_optimal_face():
    p = program(zero(3), np.array([[1.0, 1.0, 2.0]]), np.ones((1, 3)), np.ones(1), lb=0.0, linear=True)
    x = np.array([[0.7, 0.3 + 1e-7, 1e-8]])
    raw, verified = polish(p, guessed(p, np.zeros((1, 0), bool), np.array([[0, 0, -1]]), x))
    assert verified.all()
    np.testing.assert_allclose(raw.x, [[0.7 - 5e-8, 0.3 + 5e-8, 0.0]], atol=1e-12)
