"""The compiled active set: closed forms, failures alone, equal bits, warm starts, systems, jit, fuzz."""

from __future__ import annotations

import shutil
import subprocess
from dataclasses import replace
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from solvers.programs import (
    dense,
    everything_varies,
    grid,
    infeasible,
    low_rank,
    nonconvex,
    program,
    redundant,
    simplex,
    transport,
    unbounded,
)
from solvers.reference import sparsemax

import decigrad as dg
from benchmarks import fuzz
from decigrad import kkt, native
from decigrad.kkt.solution import _solve_general
from decigrad.program import Dense, Diagonal, LowRank, RawResult, Status
from decigrad.solvers import DAQP, ActiveSet, choose
from decigrad.solvers.verification import kkt_residual

NATIVE = Path(__file__).parents[2] / "native"
compiled = pytest.mark.skipif(native.missing() is not None, reason="needs the compiled core")


def assert_same_bits(one: RawResult, other: RawResult) -> None:
    for name, value in vars(one).items():
        np.testing.assert_array_equal(value, getattr(other, name), err_msg=name)


def taken(raw: RawResult, index) -> RawResult:
    return RawResult(**{name: value[index] for name, value in vars(raw).items()})


def unsolved_by_the_core(p) -> np.ndarray:
    """Samples that go on to DAQP."""
    active, fixed = np.zeros((p.batch_size, p.num_inequalities), bool), np.zeros((p.batch_size, p.n), np.int8)
    *_, verdict, _ = native.solve(p, active, fixed, warm=False, limit=1000)
    return verdict > native.UNSETTLED


# ------------------------------------------------------------------------------------------- closed forms


@compiled
@pytest.mark.parametrize("n", [2, 7, 40])
@pytest.mark.parametrize("mu", [0.05, 1.0, 20.0])
def test_simplex_is_sparsemax(n, mu):
    p = simplex(np.random.default_rng(n), 5, n, mu)
    raw = ActiveSet()(p)
    np.testing.assert_allclose(raw.x, [sparsemax(-c / mu) for c in p.q], atol=1e-13 * (1 + 1 / mu))
    assert ((raw.fixed < 0) == (raw.x == 0)).all()


@compiled
def test_one_variable_and_absent_blocks():
    """min ½x² − 3x, alone, below a bound, below a row, held, and within infinite sides."""
    P, q = Diagonal(np.ones((1, 1))), np.array([[-3.0]])
    solver = ActiveSet()
    assert solver(program(P, q)).x == 3.0
    assert solver(program(P, q, ub=2.0)).x == 2.0
    row = solver(program(P, q, G=np.array([[2.0]]), h=np.array([2.0])))
    assert row.x == 1.0 and row.z == 1.0 and row.active.all()
    held = solver(program(P, q, lb=0.5, ub=0.5))
    assert held.x == 0.5 and held.fixed.all() and held.w == 2.5
    assert solver(program(P, q, G=np.array([[1.0]]), h=np.array([np.inf]))).x == 3.0
    equal = solver(program(P, q, A=np.array([[2.0]]), b=np.array([5.0])))
    assert equal.x == 2.5 and equal.y == 0.25
    point = solver(program(P, q, A=np.array([[2.0]]), b=np.array([5.0]), lb=2.5, ub=2.5))
    assert point.x == 2.5 and point.status == Status.OPTIMAL


@compiled
def test_a_bound_of_a_billion_does_not_blunt_the_opposite_one():
    p = program(
        Diagonal(np.ones((1, 3))), np.array([[1e-4, -1.0, 5.0]]), lb=0.0, ub=np.array([1e9, 1e12, 1e20])
    )
    assert not unsolved_by_the_core(p).any()
    raw = ActiveSet()(p)
    assert raw.x.tolist() == [[0.0, 1.0, 0.0]]
    assert raw.fixed.tolist() == [[-1, 0, -1]]


@compiled
@pytest.mark.parametrize("unit", [1e-8, 1e-4, 1e4])
def test_the_unit_of_a_row_does_not_loosen_it(unit):
    """x₁ + x₂ ≤ 1 in any unit: the projection of (1, 1) is (½, ½)."""
    p = program(Diagonal(np.ones((1, 2))), -np.ones((1, 2)), G=unit * np.ones((1, 2)), h=np.array([unit]))
    raw = ActiveSet()(p)
    np.testing.assert_allclose(raw.x, 0.5, atol=1e-14)
    assert raw.active.all()


@compiled
def test_dependent_equalities_of_a_flow():
    """All rows of a flow's balance, one of which is redundant; quadratic costs, against elimination of it."""
    p = grid(np.random.default_rng(0), 4)
    p = replace(p, P=Diagonal(np.ones((1, p.n))), linear=False)
    raw = ActiveSet()(p)
    less = ActiveSet()(replace(p, A=Dense(p.A.matrix[:, 1:]), b=p.b[:, 1:]))
    assert (raw.status == Status.OPTIMAL).all()
    np.testing.assert_allclose(raw.x, less.x, atol=1e-13)
    np.testing.assert_allclose(raw.y.sum(1), 0.0, atol=1e-12)  # of least norm: orthogonal to A's null rows
    wrong = replace(p, b=p.b + np.eye(1, p.b.shape[1]))
    assert (ActiveSet()(wrong).status == Status.PRIMAL_INFEASIBLE).all()


# ----------------------------------------------------------------------------------------------- statuses


@compiled
@pytest.mark.parametrize("leaf", ["P", "A", "G"])
@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_numbers_that_are_none_in_a_matrix(leaf, value):
    p = dense(np.random.default_rng(0))
    matrix = np.array(getattr(p, leaf).matrix)
    matrix[0, 0, 0] = value
    assert ActiveSet()(replace(p, **{leaf: Dense(matrix)})).status.tolist() == [Status.INVALID_DATA] * 4


@compiled
@pytest.mark.parametrize(
    ("make", "status"),
    [(infeasible, Status.PRIMAL_INFEASIBLE), (unbounded, Status.UNBOUNDED), (nonconvex, Status.NONCONVEX)],
)
def test_programs_without_solution(make, status):
    for seed in range(3):
        assert ActiveSet()(make(np.random.default_rng(seed))).status.tolist() == [status]


@compiled
@pytest.mark.parametrize("bad", ["nan", "nonconvex", "unbounded", "crossed", "zero row"])
def test_a_failure_leaves_its_neighbours_alone(bad):
    p = everything_varies(np.random.default_rng(0), 5)
    leaves = {"q": np.array(p.q), "lb": np.array(p.lb), "h": np.array(p.h)}
    P, G = np.array(p.P.matrix), np.array(p.G.matrix)
    if bad == "nan":
        leaves["q"][2, 0] = np.nan
    elif bad == "nonconvex":
        P[2] -= 5 * np.eye(p.n)
        leaves["lb"][2] = -9.0
    elif bad == "unbounded":
        P[2], G[2], leaves["h"][2] = 0.0, 0.0, 1.0
        leaves["lb"][2], leaves["ub"] = -np.inf, np.where(np.arange(5)[:, None] == 2, np.inf, p.ub)
    elif bad == "crossed":
        leaves["lb"][2, 0] = 100.0
        leaves["ub"] = np.minimum(p.ub, 50.0)
    else:
        G[2, 0], leaves["h"][2, 0] = 0.0, -1.0
    raw = ActiveSet()(replace(p, P=Dense(P), G=Dense(G), **leaves))
    expected = DAQP()(replace(p, P=Dense(P), G=Dense(G), **leaves)).status
    assert raw.status.tolist() == expected.tolist() and raw.status[2] != Status.OPTIMAL
    others = np.array([0, 1, 3, 4])
    base = replace(p, ub=leaves.get("ub", p.ub))
    assert_same_bits(taken(raw, others), ActiveSet()(base.take(others)))


@compiled
def test_iteration_limit():
    p = dense(np.random.default_rng(0), 3, 20, 3, 30)
    assert ActiveSet(max_iterations=2)(p).status.tolist() == [Status.ITERATION_LIMIT] * 3


# ------------------------------------------------------------------------- reproducible, warm, and systems


@compiled
@pytest.mark.parametrize("make", [dense, everything_varies, low_rank, redundant, transport])
def test_threads_and_order_change_no_bit(make):
    p = make(np.random.default_rng(1), 70)
    raw = ActiveSet(threads=1)(p)
    assert_same_bits(raw, ActiveSet(threads=2)(p))
    order = np.random.default_rng(2).permutation(70)
    assert_same_bits(taken(raw, order), ActiveSet(threads=1)(p.take(order)))


@compiled
def test_matrices_repeated_by_sample_give_the_same():
    p = dense(np.random.default_rng(0), 6)
    own = replace(p, **{k: Dense(np.repeat(getattr(p, k).matrix, 6, 0)) for k in ("P", "A", "G")})
    np.testing.assert_allclose(ActiveSet()(own).x, ActiveSet()(p).x, atol=1e-12)


@compiled
@pytest.mark.parametrize("make", [dense, everything_varies, low_rank, redundant, transport])
def test_where_it_starts_changes_time_alone(make):
    rng = np.random.default_rng(3)
    p = make(rng, 40)
    cold = ActiveSet()(p)
    right = ActiveSet()(p, start=cold)
    np.testing.assert_allclose(right.x, cold.x, atol=1e-10)
    if make is not redundant:  # whose full active sets are dependent
        assert right.iterations.sum() < cold.iterations.sum()
    neighbour = taken(cold, np.roll(np.arange(40), 1))
    nonsense = replace(
        cold,
        active=rng.random(cold.active.shape) < 0.5,
        fixed=rng.integers(-1, 2, cold.fixed.shape).astype(np.int8),
    )
    for start in (neighbour, nonsense):
        raw = ActiveSet()(p, start=start)
        np.testing.assert_allclose(raw.x, cold.x, atol=1e-10)
        assert kkt_residual(p, raw.x, raw.y, raw.z, raw.w).max() < 1e-10


def operators(kind: str, rng: np.random.Generator, copies: int, n: int):
    if kind == "dense":
        root = rng.standard_normal((copies, n, n))
        return Dense(root @ root.swapaxes(1, 2) / n + 0.1 * np.eye(n))
    diagonal = 0.2 + rng.random((copies, n))
    if kind == "diagonal":
        return Diagonal(diagonal)
    return LowRank(diagonal, rng.standard_normal((copies, 2, n)), rng.random((copies, 2)))


@compiled
@pytest.mark.parametrize("copies", [1, 6])
@pytest.mark.parametrize("kind", ["dense", "diagonal", "low rank"])
def test_systems_of_any_active_set_as_by_elimination(kind, copies):
    """Independent sets and dependent ones, three right-hand sides, against the general solution."""
    rng = np.random.default_rng(0)
    n, me, mi, batch = 8, 2, 6, 6
    G = rng.standard_normal((copies, mi, n))
    G[:, 3], G[:, 4] = G[:, 0], G[:, 1] + G[:, 2]
    A = rng.standard_normal((copies, me, n))
    p = program(operators(kind, rng, copies, n), np.zeros((batch, n)), A, np.zeros(me), G, np.zeros(mi))
    active = rng.random((batch, mi)) < 0.4
    active[0], active[1, [0, 3]], active[2, [1, 2, 4]] = False, True, True
    held = rng.random((batch, n)) < 0.2
    kz, kw = np.where(active, 0.0, np.inf), np.where(held, 0.0, np.inf)
    rhs = rng.standard_normal((batch, 2 * n + me + mi, 3))
    rhs[:, n:] = 0.0  # sides that dependent constraints agree on
    v, singular = kkt.solve(p, kz, kw, rhs)
    expected, dependent = _solve_general(p, kz, kw, rhs.swapaxes(1, 2), 0.0)
    np.testing.assert_allclose(v, expected.swapaxes(1, 2), atol=1e-8 * (1 + abs(expected).max()))
    assert singular.tolist() == dependent.tolist() and singular[1] and singular[2]


# --------------------------------------------------------------------------------------- without the core


def test_without_the_core_it_says_so_and_others_serve(monkeypatch):
    monkeypatch.setattr(native, "missing", lambda: "installed without its compiled core")
    p = simplex(np.random.default_rng(0))
    assert "compiled core" in ActiveSet().refuses(p)
    assert choose(p)[0] == DAQP()


# ----------------------------------------------------------------------------------------------- inside jit


@pytest.fixture(scope="module")
def blend():
    """A layer whose parameters enter the cost, a row's side and a bound, and values of them."""
    m = dg.Model()
    x = m.continuous("x", shape=4, lb=0.0)
    c, cap = m.parameter("cost", shape=4), m.parameter("cap")
    m.minimize(dg.sum(c * x) + dg.sum(x * x))
    m.subject_to(dg.sum(x) == 1.0)
    m.subject_to(x[0] + 2 * x[1] <= cap)
    m.subject_to(x[2] <= 0.8 * cap)
    rng = np.random.default_rng(0)
    values = {"cost": rng.normal(size=(2, 5, 4)), "cap": rng.uniform(0.3, 0.6, (2, 5))}
    return dg.DecisionLayer(m, solver="active-set", throw=False), values


@compiled
def test_inside_jit_as_outside(blend):
    layer, values = blend
    values = {**values, "cap": values["cap"].copy()}
    values["cap"][1, 2] = -1.0
    with jax.enable_x64(True):
        weight = jnp.asarray(np.random.default_rng(1).normal(size=4))

        def value(values):
            return jnp.sum(jnp.nan_to_num(layer(values)["x"]) @ weight)

        inside, gradient = jax.jit(jax.value_and_grad(value))(values)
        decisions = jax.jit(lambda v: layer(v)["x"])(values)
        nested = jax.jit(jax.vmap(jax.vmap(lambda c, cap: layer({"cost": c, "cap": cap})["x"])))(
            values["cost"], values["cap"]
        )
    eager = layer.solve(values)
    assert eager.status[1, 2] == Status.PRIMAL_INFEASIBLE
    assert (eager.status == Status.OPTIMAL).sum() == 9
    np.testing.assert_allclose(decisions, eager.x["x"], atol=1e-14)
    np.testing.assert_allclose(nested, eager.x["x"], atol=1e-14)
    assert np.isnan(decisions[1, 2]).all()
    assert not np.asarray(gradient["cost"])[1, 2].any()
    assert np.asarray(gradient["cap"])[1, 2] == 0.0
    assert float(inside) == pytest.approx(np.nansum(eager.x["x"] @ np.asarray(weight)))


@compiled
def test_derivatives_inside_jit_against_central_differences(blend):
    layer, values = blend
    at = {name: value[0, :3] for name, value in values.items()}
    rng = np.random.default_rng(2)
    moved = {name: rng.normal(size=value.shape) for name, value in at.items()}
    step = 1e-6
    ends = [layer.solve({n: v + s * step * moved[n] for n, v in at.items()}) for s in (1, -1)]
    assert (ends[0].raw.fixed == ends[1].raw.fixed).all() and (ends[0].raw.active == ends[1].raw.active).all()
    slope = (ends[0].x["x"] - ends[1].x["x"]) / (2 * step)
    with jax.enable_x64(True):
        _, tangent = jax.jit(lambda: jax.jvp(lambda v: layer(v)["x"], (at,), (moved,)))()
        curved = jax.jit(lambda: jax.jvp(jax.grad(lambda v: layer.value(v).sum()), (at,), (moved,))[1])()
    np.testing.assert_allclose(tangent, slope, atol=1e-8)
    np.testing.assert_allclose(curved["cost"], slope, atol=1e-8)  # the gradient of the value is the decision


@compiled
def test_float32_inside_jit(blend):
    layer, values = blend
    single = {name: value.astype(np.float32) for name, value in values.items()}
    found = jax.jit(lambda v: layer(v)["x"])(single)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, layer.solve(values).x["x"], atol=1e-5)


# ------------------------------------------------------------------------------------------------ sanitizers


@compiled
def test_random_and_degenerate_programs():
    assert sum(found.mismatches for found in fuzz.run(1000, seed=1)) == 0


@compiled
@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_a_hundred_thousand_random_and_degenerate_programs():
    found = list(fuzz.run(100_000))
    assert sum(f.samples for f in found) >= 100_000
    assert [f for f in found if f.mismatches] == []


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("sanitizer", ["address,undefined", "thread"])
def test_kernel_under_sanitizers(sanitizer, tmp_path):
    """`native/check.cpp` checks the optimality conditions of its own random batches."""
    if (compiler := shutil.which("c++")) is None:
        pytest.skip("needs a C++ compiler")
    flags = ["-std=c++17", "-O1", "-g", "-pthread", f"-fsanitize={sanitizer}", "-fno-sanitize-recover=all"]
    empty = tmp_path / "empty.cpp"
    empty.write_text("int main() {}")
    if subprocess.run(
        [compiler, *flags, str(empty), "-o", str(tmp_path / "empty")], capture_output=True
    ).returncode:
        pytest.skip(f"the compiler has no {sanitizer} sanitizer")
    made = tmp_path / "check"
    subprocess.run(
        [compiler, *flags, str(NATIVE / "check.cpp"), "-o", str(made)], check=True, capture_output=True
    )
    done = subprocess.run([made, "300"], capture_output=True, text=True, timeout=500)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]
