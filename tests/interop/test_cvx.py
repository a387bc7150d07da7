"""CVXPY problems: imported, they decide, and differentiate, as CVXPY and differences say."""

from __future__ import annotations

import jax
import numpy as np
import pytest

import decigrad as dg

cp = pytest.importorskip("cvxpy")


def least_squares(rng):
    A, b = cp.Parameter((6, 3), name="A"), cp.Parameter(6, name="b")
    x = cp.Variable(3, name="x")
    return cp.Problem(cp.Minimize(cp.sum_squares(A @ x - b)))


def bounded_least_squares(rng):
    A, b = cp.Parameter((6, 3), name="A"), cp.Parameter(6, name="b")
    x = cp.Variable(3, name="x")
    return cp.Problem(cp.Minimize(cp.sum_squares(A @ x - b)), [x >= -0.2, x <= 0.3])


def ridge(rng):
    A, weight = rng.normal(size=(8, 4)), cp.Parameter(nonneg=True, name="weight")
    x, b = cp.Variable(4, name="x"), cp.Parameter(8, name="b")
    return cp.Problem(cp.Minimize(cp.sum_squares(A @ x - b) + weight * cp.sum_squares(x)))


def lasso(rng):
    A, weight = rng.normal(size=(12, 4)), cp.Parameter(nonneg=True, name="weight")
    x, b = cp.Variable(4, name="x"), cp.Parameter(12, name="b")
    return cp.Problem(cp.Minimize(cp.sum_squares(A @ x - b) + weight * cp.norm1(x)))


def quadratic_program(rng):
    root = rng.normal(size=(4, 4))
    q, G, h = (
        cp.Parameter(4, name="q"),
        cp.Parameter((3, 4), name="G"),
        cp.Parameter(3, name="h", nonneg=True),
    )
    x = cp.Variable(4, name="x")
    goal = 0.5 * cp.quad_form(x, cp.psd_wrap(root.T @ root + np.eye(4))) + q @ x
    return cp.Problem(cp.Minimize(goal), [G @ x <= h, cp.sum(x) == 0.3])


def linear_program(rng):
    c, b = cp.Parameter(5, name="c"), cp.Parameter(name="b", nonneg=True)
    x = cp.Variable(5, name="x", nonneg=True)
    return cp.Problem(cp.Maximize(c @ x), [cp.sum(x) <= 1 + b, x <= 0.7])


def portfolio(rng):
    factor = rng.normal(size=(6, 2))
    mu, aversion = cp.Parameter(6, name="mu"), cp.Parameter(nonneg=True, name="aversion")
    w, f = cp.Variable(6, name="w"), cp.Variable(2, name="f")
    risk = cp.sum_squares(f) + cp.sum_squares(0.3 * w)
    return cp.Problem(cp.Maximize(mu @ w - aversion * risk), [f == factor.T @ w, cp.sum(w) == 1, w >= 0])


def weighted_risk(rng):
    root = rng.normal(size=(4, 4))
    weight, q, x = (
        cp.Parameter(nonneg=True, name="weight"),
        cp.Parameter(4, name="q"),
        cp.Variable(4, name="x"),
    )
    risk = cp.quad_form(x, cp.psd_wrap(root.T @ root + np.eye(4)))
    return cp.Problem(cp.Minimize(weight * risk + q @ x), [cp.sum(x) == 1, x >= -0.5])


def huber(rng):
    A, b = rng.normal(size=(8, 2)), cp.Parameter(8, name="b")
    x = cp.Variable(2, name="x")
    return cp.Problem(cp.Minimize(cp.sum(cp.huber(A @ x - b, 0.5)) + 0.01 * cp.sum_squares(x)))


def support_vector_machine(rng):
    X, y = cp.Parameter((10, 2), name="X"), np.sign(rng.normal(size=10))
    beta, v = cp.Variable(2, name="beta"), cp.Variable(name="v")
    hinge = cp.sum(cp.pos(1 - cp.multiply(y, X @ beta - v)))
    return cp.Problem(cp.Minimize(hinge / 10 + 0.2 * cp.sum_squares(beta) + 0.05 * v**2))


def matrices(rng):
    C, r = cp.Parameter((2, 3), name="C"), cp.Parameter(2, name="r", nonneg=True)
    X = cp.Variable((2, 3), name="X")
    return cp.Problem(
        cp.Minimize(cp.sum(cp.multiply(C, X)) + cp.sum_squares(X)), [cp.sum(X, axis=1) == r, X >= 0]
    )


def control(rng):
    A, B = rng.normal(size=(3, 3)) * 0.4, rng.normal(size=(3, 2))
    start, limit = cp.Parameter(3, name="start"), cp.Parameter(name="limit", nonneg=True)
    state, force = cp.Variable((3, 5), name="state"), cp.Variable((2, 4), name="force")
    rules = [state[:, 0] == start, cp.abs(force) <= 0.2 + limit]
    rules += [state[:, t + 1] == A @ state[:, t] + B @ force[:, t] for t in range(4)]
    return cp.Problem(cp.Minimize(cp.sum_squares(state) + cp.sum_squares(force)), rules)


def water_level(rng):
    demand = cp.Parameter(6, name="demand", nonneg=True)
    buy, level = cp.Variable(6, name="buy", bounds=[0, 2]), cp.Variable(7, name="level", nonneg=True)
    rules = [level[1:] == level[:-1] + buy - demand, level[0] == 0.5, level <= 3]
    return cp.Problem(cp.Minimize(cp.sum_squares(buy) + 0.1 * cp.sum(level)), rules)


PROBLEMS = [
    least_squares, bounded_least_squares, ridge, lasso, quadratic_program, linear_program, portfolio, huber,
    support_vector_machine, weighted_risk, matrices, control, water_level,
]  # fmt: skip
VERTICES = {linear_program}


def values(problem, rng):
    return {
        p.name(): rng.uniform(0.3, 1.0, p.shape) if p.is_nonneg() else rng.normal(size=p.shape)
        for p in problem.parameters()
    }


def by_cvxpy(problem, at):
    for p in problem.parameters():
        p.value = at[p.name()]
    problem.solve(cp.CLARABEL, tol_gap_abs=1e-11, tol_gap_rel=1e-11, tol_feas=1e-11)
    assert problem.status == cp.OPTIMAL
    return problem.value, {v.name(): np.array(v.value) for v in problem.variables()}


@pytest.mark.parametrize("make", PROBLEMS)
def test_decisions_and_values_are_those_of_cvxpy(make):
    rng = np.random.default_rng(1)
    problem = make(rng)
    model = dg.from_cvxpy(problem)
    assert model.sense == ("maximize" if isinstance(problem.objective, cp.Maximize) else "minimize")
    for _ in range(3):
        at = values(problem, rng)
        value, x = by_cvxpy(problem, at)
        mine = model.solve(at)
        assert mine.objective == pytest.approx(value, abs=1e-7, rel=1e-7)
        for name, each in x.items():
            assert mine.x[name] == pytest.approx(each, abs=2e-6)


@pytest.mark.parametrize("make", PROBLEMS)
def test_gradients_are_those_of_central_differences(make):
    rng = np.random.default_rng(2)
    problem = make(rng)
    layer = dg.DecisionLayer(dg.from_cvxpy(problem))
    at = values(problem, rng)
    names = [v.name() for v in problem.variables()]
    weights = {name: rng.normal(size=problem.var_dict[name].shape) for name in names}

    def loss(at):
        found = layer(at)
        return sum((weights[name] * found[name]).sum() for name in names)

    with jax.enable_x64(True):
        gradient = {
            name: np.asarray(g)
            for name, g in jax.grad(loss)({n: np.asarray(v) for n, v in at.items()}).items()
        }
        for name, value in at.items():
            for place in np.ndindex(value.shape):
                step = np.zeros(value.shape)
                step[place] = 1e-5
                difference = (loss({**at, name: value + step}) - loss({**at, name: value - step})) / 2e-5
                assert gradient[name][place] == pytest.approx(float(difference), abs=2e-6)
    if make not in VERTICES:
        assert any(np.abs(g).max() > 1e-3 for g in gradient.values())


def test_integers():
    rng = np.random.default_rng(0)
    gain, room = cp.Parameter(5, name="gain", nonneg=True), cp.Parameter(name="room", nonneg=True)
    take, count = cp.Variable(5, boolean=True, name="take"), cp.Variable(integer=True, name="count")
    rules = [rng.uniform(1, 2, 5) @ take <= room, count <= cp.sum(take) + 0.5]
    problem = cp.Problem(cp.Maximize(gain @ take + 0.1 * count), rules)
    model = dg.from_cvxpy(problem)
    for _ in range(3):
        gain.value, room.value = rng.uniform(0.5, 1.0, 5), rng.uniform(2.0, 5.0)
        problem.solve(cp.HIGHS)
        found = model.solve({"gain": gain.value, "room": room.value})
        assert found.objective == pytest.approx(problem.value, abs=1e-6)
        assert set(np.unique(found.x["take"])) <= {0.0, 1.0}


def test_bounds_in_parameters():
    low = cp.Parameter(3, name="low")
    x = cp.Variable(3, name="x", bounds=[low, 4])
    layer = dg.DecisionLayer(dg.from_cvxpy(cp.Problem(cp.Minimize(cp.sum_squares(x)))))
    assert layer({"low": [1.0, -1.0, 2.0]})["x"] == pytest.approx([1.0, 0.0, 2.0])


def refused(problem, error, message):
    with pytest.raises(error, match=message):
        dg.from_cvxpy(problem)


def test_what_is_refused():
    refused(3, dg.ModelError, "takes a cvxpy.Problem, got int")
    x, p = cp.Variable(2, name="x"), cp.Parameter(2, name="p", nonneg=True)
    refused(cp.Problem(cp.Minimize(cp.norm(x - p))), dg.UnsupportedModelError, "second-order")
    refused(cp.Problem(cp.Minimize(-cp.sum_squares(x))), dg.ModelError, "DCP rules")
    refused(cp.Problem(cp.Minimize(p[0] * p[1] * x[0]), [x >= 0]), dg.ModelError, "DPP rules")
    S = cp.Parameter((2, 2), symmetric=True, name="S")
    refused(cp.Problem(cp.Minimize(cp.sum(S @ x)), [x >= 0]), dg.ModelError, "'S' is symmetric")
    V = cp.Variable((2, 2), symmetric=True, name="V")
    refused(cp.Problem(cp.Minimize(cp.sum(V)), [V >= 1]), dg.ModelError, "'V' is symmetric")
