"""SCIP: every integer point counted by hand, statuses, derivatives of the continuous part."""

from __future__ import annotations

import itertools
from dataclasses import replace

import jax
import numpy as np
import pytest
from solvers.programs import dense, nonconvex, program
from solvers.reference import clarabel_solution

import decigrad as dg
from decigrad.program import Dense, Diagonal, QuadraticProgram, Status
from decigrad.solvers import choose

pytest.importorskip("pyscipopt")
from decigrad.solvers import SCIP


def switched(rng: np.random.Generator, diagonal: bool, batch: int = 3, pairs: int = 4) -> QuadraticProgram:
    """0 ≤ x_j ≤ 2 k_j with binary k: a quadratic in x, a fixed charge for each k, at most three of them."""
    n = 2 * pairs
    here = np.arange(n) < pairs
    if diagonal:
        P = Diagonal(np.where(here, rng.uniform(0.5, 2.0, n), 0.0)[None])
    else:
        root = rng.normal(size=(pairs, pairs))
        matrix = np.zeros((n, n))
        matrix[:pairs, :pairs] = root.T @ root + 0.3 * np.eye(pairs)
        P = Dense(matrix[None])
    q = np.concatenate([rng.normal(-1.5, 1.0, (batch, pairs)), rng.uniform(0.1, 0.6, (batch, pairs))], axis=1)
    links = np.concatenate([np.eye(pairs), -2.0 * np.eye(pairs)], axis=1)
    G = np.concatenate([links, (~here).astype(float)[None]])
    h = np.append(np.zeros(pairs), 3.0)
    found = program(P, q, G=G, h=h, lb=0.0, ub=np.where(here, 5.0, 1.0))
    return replace(found, integer=tuple(range(pairs, n)))


def by_enumeration(p: QuadraticProgram, i: int) -> float:
    """The best value over all integer points, what is left by Clarabel."""
    one, best = p.sample(i).numpy(), np.inf
    for point in itertools.product((0.0, 1.0), repeat=len(p.integer)):
        lb, ub = np.array(one.lb), np.array(one.ub)
        lb[:, list(p.integer)] = ub[:, list(p.integer)] = point
        status, x = clarabel_solution(replace(one, lb=lb, ub=ub, integer=()))
        if status == "Solved":
            best = min(best, float(np.asarray(one.objective(x[None]))[0]))
    return best


@pytest.mark.parametrize("diagonal", [True, False])
@pytest.mark.parametrize("seed", range(8))
def test_the_best_of_all_integer_points(seed: int, diagonal: bool) -> None:
    p = switched(np.random.default_rng(seed), diagonal)
    raw = SCIP()(p)
    assert raw.status.tolist() == [Status.OPTIMAL] * 3
    values = np.asarray(p.objective(raw.x))
    assert values == pytest.approx([by_enumeration(p, i) for i in range(3)], abs=1e-7)
    whole = raw.x[:, list(p.integer)]
    assert np.array_equal(whole, np.round(whole))
    assert (raw.fixed[:, list(p.integer)] == 1).all()


def test_integers_alone_have_a_closed_form() -> None:
    centre = np.array([[1.3, -0.6, 2.5 - 1e-6], [0.2, 3.9, -1.49]])
    p = replace(program(Diagonal(np.ones((1, 3))), -centre, lb=-3.0, ub=3.0), integer=(0, 1, 2))
    assert np.array_equal(SCIP()(p).x, np.clip(np.round(centre), -3, 3))


def allocation() -> dg.Model:
    """Shares that pay a fixed charge to be used, two at most."""
    m = dg.Model("allocation")
    x, use = m.continuous("x", shape=4, lb=0.0, ub=1.0), m.binary("use", shape=4)
    c = m.parameter("cost", shape=4)
    m.minimize(dg.sum(c * x) + dg.sum_squares(x) + 0.05 * dg.sum(use))
    m.subject_to(dg.sum(x) == 1.0)
    m.subject_to(x <= use)
    m.subject_to(dg.sum(use) <= 2)
    return m


def test_fix_and_differentiate() -> None:
    m = allocation()
    costs = np.array([[0.8, 1.0, 1.2, 0.9], [0.1, 0.15, 0.9, 0.3]])
    layer = dg.DecisionLayer(m)
    assert layer.why.startswith("SCIP: 4 integer variables")
    found = layer.solve({"cost": costs})
    # With two shares used, x = ½ ± (difference of their costs)/4.
    assert found.x["use"].tolist() == [[1, 0, 0, 1], [1, 1, 0, 0]]
    assert found.x["x"] == pytest.approx(np.array([[0.525, 0, 0, 0.475], [0.5125, 0.4875, 0, 0]]), abs=1e-12)
    with jax.enable_x64(True):
        jacobian = jax.jacrev(lambda c: layer({"cost": c})["x"])(costs[0])
        expected = np.zeros((4, 4))
        expected[np.ix_([0, 3], [0, 3])] = [[-0.25, 0.25], [0.25, -0.25]]
        assert np.asarray(jacobian) == pytest.approx(expected, abs=1e-12)
        envelope = jax.grad(lambda c: layer.value({"cost": c}))(costs[0])
        assert np.asarray(envelope) == pytest.approx(found.x["x"][0], abs=1e-12)


def test_the_relaxation_learns_where_integers_do_not_move() -> None:
    rng = np.random.default_rng(0)
    features = rng.normal(size=(60, 3))
    costs = 1.0 + features @ rng.normal(size=(3, 4)) * 0.3
    layer = dg.DecisionLayer(allocation(), gradient=dg.RelaxationGradient())
    data = dg.Dataset(features, {"cost": costs})
    result = dg.fit(dg.Linear(), layer, data, loss="regret", seed=0, epochs=2, selection=None, progress=False)
    assert dg.evaluate(result.predictor, layer, data).regret.min() >= -1e-9


def test_statuses() -> None:
    p = switched(np.random.default_rng(0), False)
    clash = replace(p, h=np.where(np.arange(5) == 4, -1.0, p.h))
    assert SCIP()(clash).status.tolist() == [Status.PRIMAL_INFEASIBLE] * 3
    assert np.isnan(SCIP()(clash).x).all()
    open_sides = {"lb": np.full((1, 8), -np.inf), "ub": np.full((1, 8), np.inf)}
    free = replace(p, P=Diagonal(np.append(1.0, np.zeros(7))[None]), **open_sides)
    assert SCIP()(free).status.tolist() == [Status.UNBOUNDED] * 3
    q = np.array(p.q)
    q[1, 0] = np.nan
    mixed = SCIP()(replace(p, q=q))
    assert mixed.status.tolist() == [Status.OPTIMAL, Status.INVALID_DATA, Status.OPTIMAL]
    assert np.array_equal(mixed.x[0], SCIP()(p).x[0])
    saddle = replace(nonconvex(np.random.default_rng(0)), integer=(0,))
    assert SCIP()(saddle).status.tolist() == [Status.NONCONVEX]
    empty = replace(
        p, G=Dense(np.concatenate([p.G.matrix, np.zeros((1, 1, 8))], axis=1)), h=np.append(p.h[0], -1.0)[None]
    )
    assert SCIP()(empty).status.tolist() == [Status.PRIMAL_INFEASIBLE] * 3


def test_a_time_limit_keeps_the_best_point() -> None:
    rng = np.random.default_rng(0)
    n = 40
    root = rng.normal(size=(n, n))
    p = program(Dense((root.T @ root)[None]), (-root.T @ root @ rng.uniform(0, 1, n))[None], lb=0.0, ub=1.0)
    found = SCIP(time_limit=0.5)(replace(p, integer=tuple(range(n))))
    assert found.status.tolist() == [Status.TIME_LIMIT]
    assert set(np.unique(found.x)) <= {0.0, 1.0}


def test_what_it_is_for() -> None:
    p = dense(np.random.default_rng(0))
    assert "has none" in SCIP().refuses(p)
    assert choose(replace(p, integer=(0,)))[0] == SCIP()
    with pytest.raises(dg.ModelError, match="time_limit"):
        SCIP(time_limit=0.0)
