"""Gurobi and OR-Tools against HiGHS on the programs of models; skipped where the package is absent."""

from __future__ import annotations

import importlib
import importlib.util
from dataclasses import replace

import numpy as np
import pytest
from oracles.reference import linear
from solvers.programs import grid, infeasible, knapsack, program, transport, unbounded, zero

import decigrad as dg
from decigrad.errors import ModelError
from decigrad.oracles import Gurobi, ORTools
from decigrad.program import Dense, Status
from decigrad.solvers import HiGHS


def needs(package: str) -> pytest.MarkDecorator:
    absent = importlib.util.find_spec(package) is None
    return pytest.mark.skipif(absent, reason=f"{package} is not installed")


LINEAR = [
    pytest.param(lambda **k: Gurobi(**k), id="gurobi", marks=needs("gurobipy")),
    *(
        pytest.param(lambda s=s, **k: ORTools(s, **k), id=s or "ortools", marks=needs("ortools"))
        for s in (None, "glop", "scip", "highs")
    ),
]
INTEGER = [
    *LINEAR[:2],
    *LINEAR[3:],
    pytest.param(lambda **k: ORTools("cp-sat", **k), id="cp-sat", marks=needs("ortools")),
]


def market_split() -> dg.Model:
    weights = np.random.default_rng(0).integers(0, 100, (4, 36))
    m = dg.Model("market split")
    x, slack = m.binary("x", shape=36), m.integer("slack", shape=4, lb=0.0, ub=2000.0)
    m.minimize(dg.sum(m.parameter("cost", shape=4) * slack))
    m.subject_to(weights @ x + slack >= weights.sum(1) // 2)
    m.subject_to(weights @ x - slack <= weights.sum(1) // 2)
    return m


@pytest.mark.parametrize("oracle", LINEAR)
@pytest.mark.parametrize("make", [transport, grid])
def test_linear_programs(oracle, make):
    p = make(np.random.default_rng(0), 6)
    raw = oracle()(p)
    assert (raw.status == Status.OPTIMAL).all()
    np.testing.assert_allclose((p.q * raw.x).sum(1), (p.q * HiGHS()(p).x).sum(1), rtol=1e-7)


@pytest.mark.parametrize("oracle", INTEGER)
def test_integer_programs(oracle):
    for seed in range(4):
        p = knapsack(np.random.default_rng(seed), 6, 12)
        raw, expected = oracle()(p), HiGHS()(p)
        assert (raw.status == Status.OPTIMAL).all()
        np.testing.assert_array_equal(raw.x, expected.x)


@pytest.mark.parametrize("oracle", LINEAR)
def test_data_that_differ_by_sample(oracle):
    rng = np.random.default_rng(1)
    p = transport(rng, 5)
    scaled = p.A.matrix * rng.choice([1.0, 2.0], (5, 1, 1))
    varied = replace(p, A=Dense(scaled), b=p.b * scaled[:, :1].max(axis=2) / p.A.matrix.max())
    raw = oracle()(varied)
    np.testing.assert_array_equal(raw.status, HiGHS()(varied).status)
    np.testing.assert_allclose((p.q * raw.x).sum(1), (p.q * HiGHS()(varied).x).sum(1), rtol=1e-7)


@pytest.mark.parametrize("oracle", LINEAR)
def test_an_answer_depends_on_its_own_costs_alone(oracle):
    p = grid(np.random.default_rng(2), 6)
    x = oracle()(p).x
    np.testing.assert_array_equal(oracle()(p.take(np.arange(6)[::-1])).x[::-1], x)
    np.testing.assert_array_equal(oracle()(p.sample(3)).x, x[3:4])


@pytest.mark.parametrize("oracle", LINEAR)
def test_programs_without_solution(oracle):
    rng = np.random.default_rng(0)
    failing = {Status.PRIMAL_INFEASIBLE, Status.UNBOUNDED, Status.NO_SOLUTION, Status.NUMERICAL_ERROR}
    for p in (infeasible(rng, linear=True), unbounded(rng, linear=True)):
        raw = oracle()(p)
        assert set(raw.status.tolist()) <= failing
        assert np.isnan(raw.x).all()
    broken = oracle()(linear(np.array([[1.0, np.nan], [1.0, 2.0]]), lb=0.0))
    assert broken.status.tolist() == [Status.INVALID_DATA, Status.OPTIMAL]


@pytest.mark.parametrize("oracle", [LINEAR[0], LINEAR[3], INTEGER[-1]])
def test_a_time_limit_is_reported_by_sample(oracle):
    layer = dg.DecisionLayer(market_split(), solver=oracle(time_limit=0.3))
    found = layer.solve({"cost": np.array([[0.0] * 4, [1.0] * 4])}, throw=False)
    assert found.status.tolist() == [Status.OPTIMAL, Status.TIME_LIMIT]


@pytest.mark.parametrize("oracle", LINEAR)
def test_an_external_solver_trains(oracle):
    m = dg.Model("choice")
    x = m.continuous("x", shape=3, lb=0.0, ub=1.0)
    m.minimize(dg.sum(m.parameter("cost", shape=3) * x))
    m.subject_to(dg.sum(x) == 1.0)
    rng = np.random.default_rng(0)
    features = rng.standard_normal((20, 2))
    data = dg.Dataset(features, {"cost": features @ rng.standard_normal((2, 3))})
    options = {"selection": None, "epochs": 2, "progress": False}
    layers = [dg.DecisionLayer(m, solver=s) for s in (oracle(), HiGHS())]
    found, expected = (dg.fit(dg.Linear(), layer, data, dg.losses.SPOPlus(), **options) for layer in layers)
    np.testing.assert_allclose(found.history["loss"], expected.history["loss"], atol=1e-9)


@needs("ortools")
def test_solvers_that_do_not_fit_are_refused():
    p = program(zero(2), np.ones((1, 2)), integer=(0,), linear=True)
    assert "use 'scip'" in ORTools("glop").refuses(p)
    assert "use 'scip'" in ORTools("cp-sat").refuses(p)
    assert ORTools("scip").refuses(p) is None
    with pytest.raises(ModelError, match="must be one of glop, scip, cp-sat, highs, got 'cbc'"):
        ORTools("cbc")


@pytest.mark.parametrize(("kind", "extra"), [(Gurobi, "gurobi"), (ORTools, "ortools")])
def test_an_absent_package_names_its_extra(kind, extra, monkeypatch):
    def absent(name, *arguments):
        raise ImportError(name)

    monkeypatch.setattr(importlib, "import_module", absent)
    with pytest.raises(ImportError, match=rf"pip install 'decigrad\[{extra}\]'"):
        kind()
