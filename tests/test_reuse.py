"""Reusing decisions: the best of those seen, feasible by instance, counted, seeded."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import decigrad as dg
from decigrad import reuse
from decigrad.errors import ModelError
from decigrad.losses import CILO, Imitation, PerturbationGradient, Regret, SPOPlus
from decigrad.problems import shortest_path_layer, shortest_path_samples
from decigrad.reuse import DecisionPool

OPTIONS = {"epochs": 4, "selection": None, "batch_size": 8, "progress": False}


def knapsack(curved: bool = False) -> dg.DecisionLayer:
    """Values predicted; weights fixed, capacity and curvature known by instance."""
    m = dg.Model("knapsack")
    x = m.continuous("x", 4, lb=0.0, ub=1.0)
    c, room, bend = (
        m.parameter("c", shape=4),
        m.parameter("room", known=True),
        m.parameter("bend", known=True),
    )
    m.maximize(c @ x - bend * bend * dg.sum(x * x) if curved else c @ x + bend)
    m.subject_to(np.array([1.0, 2.0, 3.0, 4.0]) @ x <= room)
    return dg.DecisionLayer(m)


@pytest.mark.parametrize("curved", [False, True], ids=["linear", "curved"])
def test_the_answer_is_the_best_feasible_decision_by_brute_force(curved):
    rng = np.random.default_rng(0)
    layer = knapsack(curved)
    given = {"c": rng.normal(size=(6, 4)), "room": rng.uniform(0.5, 8.0, 6), "bend": rng.normal(size=6)}
    points = rng.integers(0, 2, (12, 4)).astype(float)[:, : layer.form.n]
    pool = DecisionPool(np.concatenate([points, points, np.full((1, 4), np.nan)]))
    assert len(pool) == len(np.unique(points, axis=0))
    found = pool.best(layer.programs(given)[0], 6)
    for i in range(6):
        each = {name: value[i] for name, value in given.items()}
        fits = [p for p in points if p @ [1.0, 2.0, 3.0, 4.0] <= each["room"] + 1e-9]
        values = [float(layer.objective({"x": p}, each)) for p in fits]
        if not fits:
            assert np.isnan(found[i]).all()
        else:
            assert float(layer.objective({"x": found[i]}, each)) == pytest.approx(max(values))
            assert any(np.array_equal(found[i], p) for p in fits)


def fit(loss: Any, ratio: float, layer: dg.DecisionLayer | None = None, **options: Any) -> dg.FitResult:
    features, costs, _ = shortest_path_samples(40, rows=3, cols=3)
    data = dg.Dataset(features, {"cost": costs})
    layer = shortest_path_layer(3, 3) if layer is None else layer
    return dg.fit(dg.Linear(), layer, data, loss, solve_ratio=ratio, **{**OPTIONS, **options})


@pytest.mark.parametrize("loss", [SPOPlus(), PerturbationGradient(), CILO()], ids=repr)
def test_a_complete_pool_trains_as_the_solver_does_without_solving(loss):
    features, costs, _ = shortest_path_samples(40, rows=3, cols=3)
    random = np.random.default_rng(0).exponential(size=(40, 12))
    every = shortest_path_layer(3, 3).solve({"cost": random}).x["x"]
    assert len(np.unique(every, axis=0)) == 6  # all paths are optimal for some sample

    def trained(ratio: float) -> dg.FitResult:  # data remember their labels: fresh ones, to count those too
        data = dg.Dataset(np.concatenate([features, features]), {"cost": np.concatenate([costs, random])})
        return dg.fit(dg.Linear(), shortest_path_layer(3, 3), data, loss, solve_ratio=ratio, **OPTIONS)

    solved, pooled = trained(1.0), trained(0.0)
    np.testing.assert_allclose(pooled.predictor.weight, solved.predictor.weight, atol=1e-9)
    steps = 4 * 80 * loss.solves
    assert (solved.solver_calls, solved.saved_calls) == (80 + steps, 0)
    assert (pooled.solver_calls, pooled.saved_calls) == (80, steps)


def test_steps_are_drawn_with_the_seed_and_host_and_device_agree():
    host = dg.DecisionLayer(shortest_path_layer(3, 3).model, solver="highs")
    first, again, other = fit(SPOPlus(), 0.3), fit(SPOPlus(), 0.3), fit(SPOPlus(), 0.3, seed=1)
    np.testing.assert_array_equal(first.predictor.weight, again.predictor.weight)
    assert first.saved_calls == again.saved_calls and first.solver_calls + first.saved_calls == 40 + 160
    assert 60 < first.saved_calls < 160 and np.any(first.predictor.weight != other.predictor.weight)
    np.testing.assert_allclose(fit(SPOPlus(), 0.3, host).predictor.weight, first.predictor.weight, atol=1e-9)


def test_cross_validation_counts_what_it_saves():
    folds = dg.CrossValidation(folds=2, weights=(0.1,))
    full, part = (fit(SPOPlus(), ratio, selection=folds, epochs=2) for ratio in (1.0, 0.5))
    assert part.saved_calls > 0 and part.solver_calls < full.solver_calls


def test_instances_without_a_known_decision_are_solved(monkeypatch):
    rng = np.random.default_rng(0)
    features, rooms = rng.normal(size=(24, 2)), rng.uniform(0.5, 8.0, 24)
    values = 1.0 + np.abs(features @ rng.normal(size=(2, 4)))

    def trained(ratio: float) -> dg.FitResult:
        data = dg.Dataset(features, {"c": values}, {"room": rooms, "bend": np.zeros(24)})
        return dg.fit(dg.Linear(), knapsack(), data, SPOPlus(), solve_ratio=ratio, **OPTIONS)

    solved, pooled = trained(1.0), trained(0.0)  # each has its own optimal decision, at least
    assert (pooled.saved_calls, pooled.solver_calls) == (4 * 24, 24) and not any(pooled.history["failed"])
    monkeypatch.setattr(reuse, "LARGEST", 0)
    empty = trained(0.0)
    assert (empty.saved_calls, empty.solver_calls) == (0, solved.solver_calls)
    np.testing.assert_allclose(empty.predictor.weight, solved.predictor.weight, atol=1e-12)


def test_what_needs_a_derivative_is_refused():
    with pytest.raises(ModelError, match="no derivative"):
        fit(Imitation(), 0.5, shortest_path_layer(3, 3).with_gradient(dg.BlackBox()))
    with pytest.raises(ModelError, match="no derivative"):
        fit(Regret(), 0.5, shortest_path_layer(3, 3).with_gradient(dg.BlackBox()))
    with pytest.raises(ModelError, match="between 0 and 1"):
        fit(SPOPlus(), 1.5)
