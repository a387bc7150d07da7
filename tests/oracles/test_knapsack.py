"""Knapsacks against enumeration and HiGHS."""

from __future__ import annotations

import jax
import numpy as np
import pytest
from oracles.reference import answer, assert_first_minimizer, costs, linear, subsets
from scipy.optimize import LinearConstraint, milp

from decigrad.errors import ModelError
from decigrad.oracles import Knapsack, MultiKnapsack
from decigrad.program import Status


def best_value(cost: np.ndarray, weights: np.ndarray, capacities: np.ndarray) -> float:
    """The optimal value by branch and bound."""
    rows = LinearConstraint(weights, ub=capacities)
    options = {"mip_rel_gap": 0.0}
    return milp(cost, constraints=rows, integrality=np.ones(len(cost)), bounds=(0, 1), options=options).fun


@pytest.mark.parametrize("seed", range(4))
def test_knapsack_is_the_first_of_all_subsets(seed):
    rng = np.random.default_rng(seed)
    n, scale = int(rng.integers(1, 10)), int(rng.choice([1, 3, 100]))
    weights = scale * rng.integers(0, 8, n)
    capacity = int(rng.integers(0, weights.sum() + 3))
    points = subsets(n)
    points = points[points @ weights <= capacity]
    cost = costs(rng, 500, n)
    x = answer(Knapsack(weights, capacity), cost)
    assert_first_minimizer(x, cost, points)
    assert not x[cost >= 0].any()


def test_large_knapsack_against_branch_and_bound():
    rng = np.random.default_rng(0)
    weights = rng.integers(30, 80, 40)
    cost = -weights * rng.uniform(0.8, 1.2, (12, 40))
    x = answer(Knapsack(weights, 600), cost)
    assert (x @ weights <= 600).all()
    for c, found in zip(cost, x, strict=True):
        assert c @ found == pytest.approx(best_value(c, weights[None], np.array([600])), rel=1e-9)


def test_capacities_that_differ_by_sample():
    rng = np.random.default_rng(1)
    weights, capacity = np.array([4.0, 2.0, 6.0, 8.0, 2.0]), np.arange(-1.0, 25.0)
    capacity[5:8] += 0.5
    capacity[8] -= 1e-12  # a capacity of 7.999…, from arithmetic
    capacity = np.append(capacity, np.inf)
    cost = costs(rng, len(capacity), 5)
    p = linear(cost, G=weights[None], h=capacity[:, None])
    oracle = Knapsack(weights)
    assert oracle.refuses(p) is None
    for x64 in (True, False):
        with jax.enable_x64(x64):
            raw = jax.jit(oracle)(p)
        assert raw.status.tolist() == [Status.NO_SOLUTION] + [Status.OPTIMAL] * (len(capacity) - 1)
        assert np.isnan(raw.x[0]).all()
        points = subsets(5)
        for i in range(1, len(capacity)):
            inside = points[points @ weights <= capacity[i] + 1e-9]
            assert_first_minimizer(np.asarray(raw.x[i : i + 1]), cost[i : i + 1], inside)


def test_a_capacity_that_is_not_given_must_be_stated_by_the_model():
    assert "only inequality; this model has 0" in Knapsack([1, 2]).refuses(linear(np.ones((1, 2))))


def test_knapsacks_are_checked():
    for arguments, message in [
        (([1, -2], 3), "must not be negative"),
        (([1, 2.5], 3), "must be integers, got 2.5"),
        (([[1, 2]], 3), "nonempty array with 1 axes"),
        (([], 3), "nonempty"),
        (([1, 2], -1), "capacity must not be negative"),
        (([1, 2], 2.5), "capacity must be integers"),
        (([1, np.nan], 3), "NaN"),
        (([1, 10**9], 10**9), "HiGHS"),
    ]:
        with pytest.raises(ModelError, match=message):
            Knapsack(*arguments)


@pytest.mark.parametrize("seed", range(4))
def test_multi_knapsack_is_the_best_of_all_subsets(seed):
    rng = np.random.default_rng(seed)
    n, m = int(rng.integers(1, 11)), int(rng.integers(1, 4))
    weights = np.round(rng.uniform(0, 5, (m, n)), 1) * (rng.random((m, n)) < 0.9)
    capacities = np.round(rng.uniform(0, 0.7) * weights.sum(axis=1), 1)
    oracle = MultiKnapsack(weights, capacities)
    points = subsets(n)
    points = points[(points @ weights.T <= capacities + 1e-9).all(axis=1)]
    maximal = [p for p in points if not ((points >= p).all(axis=1) & (points != p).any(axis=1)).any()]
    np.testing.assert_array_equal(oracle.sets, sorted(map(tuple, maximal), reverse=True))
    cost = costs(rng, 500, n)
    x = answer(oracle, cost)
    assert not x[cost >= 0].any()
    np.testing.assert_allclose((cost * x).sum(axis=1), (cost @ points.T).min(axis=1), atol=1e-12)
    assert (x @ weights.T <= capacities + 1e-9).all()
    chosen = np.argmin(np.minimum(cost, 0)[:250] @ oracle.sets.T, axis=1)  # integer costs: exact
    np.testing.assert_array_equal(x[:250], oracle.sets[chosen] * (cost[:250] < 0))


def test_multi_knapsack_of_the_published_size():
    """The weights that PyEPO draws for 32 items, 2 constraints and seed 42, with capacity 20."""
    rng = np.random.default_rng(0)
    weights = np.random.RandomState(42).choice(range(300, 800), size=(2, 32)) / 100
    capacities = np.array([20.0, 20.0])
    oracle = MultiKnapsack(weights, capacities)
    assert len(oracle.sets) == 4880
    cost = np.concatenate([-rng.integers(1, 30, (4, 32)), rng.uniform(-1, 0.5, (4, 32))])
    x = answer(oracle, cost)
    assert (x @ weights.T <= capacities + 1e-9).all()
    for c, found in zip(cost, x, strict=True):
        assert c @ found == pytest.approx(best_value(c, weights, capacities), rel=1e-9)


def test_multi_knapsacks_are_checked():
    for arguments, message in [
        (([1.0, 2.0], [3.0]), "nonempty array with 2 axes"),
        (([[1.0, 2.0]], [3.0, 4.0]), "need 1 capacities, got 2"),
        (([[1.0, -2.0]], [3.0]), "weights must not be negative"),
        (([[1.0, 2.0]], [-3.0]), "capacities must not be negative"),
        (([[1.0, np.inf]], [3.0]), "infinite"),
        ((np.ones((1, 30)), [15.0]), "more than 200000 sets .* HiGHS"),
        ((np.ones((1, 6)), [3.0], 19), "more than 19 sets"),
    ]:
        with pytest.raises(ModelError, match=message):
            MultiKnapsack(*arguments)
    assert len(MultiKnapsack(np.ones((1, 6)), [3.0], 20).sets) == 20
