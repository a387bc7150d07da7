"""Tours and routes against dynamic programs and enumeration, in any order and after any history."""

from __future__ import annotations

import functools
import itertools
import threading

import numpy as np
import pytest
from oracles.reference import answer, costs, linear

from decigrad.errors import ModelError
from decigrad.oracles import CVRP, TSP, routing
from decigrad.oracles.cutting_planes import CuttingPlanes
from decigrad.program import Status


def square(cost: np.ndarray, n: int) -> np.ndarray:
    """Edge costs [B, E] as matrices [B, n, n]."""
    table = np.zeros((len(cost), n, n))
    i, j = np.triu_indices(n, 1)
    table[:, i, j] = table[:, j, i] = cost
    return table


def shortest_tours(cost: np.ndarray, n: int) -> np.ndarray:
    """Lengths [B] of the shortest tours, by the dynamic program of Held and Karp (1962) over sets."""
    table = square(cost, n)
    ends = {(1 << (j - 1), j): table[:, 0, j] for j in range(1, n)}
    for size in range(2, n):
        for members in itertools.combinations(range(1, n), size):
            mask = sum(1 << (j - 1) for j in members)
            for j in members:
                rest = mask ^ (1 << (j - 1))
                ends[mask, j] = functools.reduce(
                    np.minimum, [ends[rest, k] + table[:, k, j] for k in members if k != j]
                )
    full = (1 << (n - 1)) - 1
    return functools.reduce(np.minimum, [ends[full, j] + table[:, j, 0] for j in range(1, n)])


def assert_tours(x: np.ndarray, n: int) -> None:
    assert np.isin(x, (0.0, 1.0)).all()
    adjacent = square(x, n)
    assert (adjacent.sum(axis=1) == 2).all()
    reached = np.linalg.matrix_power(adjacent + np.eye(n), n)  # walks of length n reach the whole component
    assert (reached > 0).all()


@pytest.mark.parametrize("n", range(3, 10))
def test_tours_are_shortest(n):
    oracle = TSP(n)
    cost = costs(np.random.default_rng(n), 80, oracle.size())
    x = answer(oracle, cost)
    assert_tours(x, n)
    np.testing.assert_allclose((cost * x).sum(axis=1), shortest_tours(cost, n), atol=1e-8)


def test_clusters_need_subtour_cuts():
    """Far apart clusters of cities: the relaxation without cuts would tour each on its own."""
    rng = np.random.default_rng(0)
    centers = np.repeat([[0.0, 0.0], [10.0, 0.0], [0.0, 10.0]], 3, axis=0)
    i, j = TSP(9).edges().T
    place = centers + rng.normal(size=(60, 9, 2))
    cost = np.linalg.norm(place[:, i] - place[:, j], axis=-1)
    x = answer(TSP(9), cost)
    assert_tours(x, 9)
    np.testing.assert_allclose((cost * x).sum(axis=1), shortest_tours(cost, 9), rtol=1e-12)


@pytest.mark.parametrize("oracle", [TSP(12), CVRP(6, [3, 4, 2, 5, 1, 2], 8, 3)], ids=["tsp", "cvrp"])
@pytest.mark.parametrize("ties", [True, False])
def test_answers_do_not_depend_on_history(oracle, ties):
    """A fresh model for every sample, one for all, and one that has gone through them backwards agree."""
    rng = np.random.default_rng(1)
    size = (40, oracle.size())
    cost = rng.integers(0, 4, size).astype(float) if ties else rng.uniform(0.0, 1.0, size)
    kind = routing._tours if isinstance(oracle, TSP) else routing._routes
    build = kind.__wrapped__
    one = build(oracle)
    x = one.minimize(cost)
    np.testing.assert_array_equal(one.minimize(cost[::-1])[::-1], x)
    np.testing.assert_array_equal(np.concatenate([build(oracle).minimize(c[None]) for c in cost]), x)
    np.testing.assert_array_equal(one.minimize(2.0**40 * cost), x)


def test_threads_share_a_solver():
    cost = np.random.default_rng(2).uniform(size=(4, 20, TSP(10).size()))
    expected = [answer(TSP(10), c) for c in cost]
    found = {}

    def work(k: int) -> None:
        found[k] = TSP(10).minimize(cost[k], linear(cost[k]))

    threads = [threading.Thread(target=work, args=(k,)) for k in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    np.testing.assert_array_equal(np.stack([found[k] for k in range(4)]), np.stack(expected))


def test_idle_cuts_leave_and_come_back():
    oracle = TSP(12)
    solver = routing._tours.__wrapped__(oracle)
    cost = np.random.default_rng(3).uniform(size=(150, oracle.size()))
    first = solver.minimize(cost)
    assert 0 < len(solver._cuts) == len(solver._limits) == solver._highs.getNumRow() - 12 < 150
    np.testing.assert_array_equal(solver.minimize(cost), first)


def route_plans(n: int, demands: np.ndarray, capacity: float, vehicles: int, single: bool) -> np.ndarray:
    """All feasible edge uses [K, E]: every order of customers, cut into consecutive routes."""
    edge = {pair: e for e, pair in enumerate(itertools.combinations(range(n + 1), 2))}
    plans = set()
    for order in itertools.permutations(range(1, n + 1)):
        for cuts in itertools.product((False, True), repeat=n - 1):
            marks = [0, *(k + 1 for k, cut in enumerate(cuts) if cut), n]
            routes = [order[a:b] for a, b in itertools.pairwise(marks)]
            if len(routes) > vehicles or (not single and min(map(len, routes)) == 1):
                continue
            if max(demands[np.array(r) - 1].sum() for r in routes) > capacity:
                continue
            x = np.zeros(len(edge), int)
            for r in routes:
                for a, b in itertools.pairwise((0, *r, 0)):
                    x[edge[min(a, b), max(a, b)]] += 1
            plans.add(tuple(x.tolist()))
    return np.array(sorted(plans), float)


@pytest.mark.parametrize("single", [True, False])
@pytest.mark.parametrize(("n", "vehicles"), [(2, 2), (3, 2), (4, 3), (5, 2), (5, 4), (6, 3)])
def test_routes_are_cheapest(n, vehicles, single):
    rng = np.random.default_rng(10 * n + vehicles)
    demands = rng.integers(1, 5, n)
    capacity = max(demands.max(), np.ceil(1.25 * demands.sum() / vehicles))
    oracle = CVRP(n, demands, capacity, vehicles, single)
    plans = route_plans(n, demands, capacity, vehicles, single)
    cost = costs(rng, 60, oracle.size())
    if not len(plans):
        assert np.isnan(answer(oracle, cost)).all()
        return
    x = answer(oracle, cost)
    assert set(map(tuple, x.tolist())) <= set(map(tuple, plans.tolist()))
    np.testing.assert_allclose((cost * x).sum(axis=1), (cost @ plans.T).min(axis=1), atol=1e-8)


def test_one_vehicle_for_all_is_a_traveling_salesman():
    cost = np.random.default_rng(4).uniform(size=(30, TSP(9).size()))
    routes = answer(CVRP(8, np.ones(8), 8.0, 1), cost)
    np.testing.assert_array_equal(routes, answer(TSP(9), cost))


def test_demands_that_cannot_be_packed_have_no_routes():
    oracle = CVRP(3, [2, 2, 2], 3, 2)  # each vehicle takes one of three customers
    cost = np.random.default_rng(5).uniform(size=(2, 6))
    raw = oracle(linear(cost))
    assert (raw.status == int(Status.NO_SOLUTION)).all()
    assert np.isnan(raw.x).all()


def test_loads_in_decimals_are_not_refused_for_rounding():
    cost = np.zeros((1, 6))
    assert answer(CVRP(3, [0.1, 0.1, 0.1], 0.3, 1, single=False), cost)[0].sum() == 4


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: TSP(2), "at least 3"),
        (lambda: TSP(4.0), "num_cities"),
        (lambda: CVRP(3, [1, 2], 5, 1), "as many demands"),
        (lambda: CVRP(2, [1, 7], 5, 1), "exceeds the capacity"),
        (lambda: CVRP(2, [1, -1], 5, 1), "negative"),
        (lambda: CVRP(2, [1, 1], 5, 0), "vehicles"),
        (lambda: CVRP(2, [1, 1], np.inf, 1), "capacity"),
    ],
)
def test_senseless_instances_are_refused(build, message):
    with pytest.raises(ModelError, match=message):
        build()


def test_a_failure_leaves_the_model_as_it_was(monkeypatch):
    oracle = TSP(14)
    solver = routing._tours.__wrapped__(oracle)
    cost = np.random.default_rng(6).uniform(size=(60, oracle.size()))
    expected = solver.minimize(cost)
    relaxation = CuttingPlanes._relaxation

    def third(self, c, best):  # fails below a branch
        if self._bounds[1] is not self._upper:
            raise RuntimeError("lost")
        return relaxation(self, c, best)

    failed = 0
    for c, x in zip(cost, expected, strict=True):
        with monkeypatch.context() as patch:
            patch.setattr(CuttingPlanes, "_relaxation", third)
            try:
                np.testing.assert_array_equal(solver.minimize(c[None])[0], x)
            except RuntimeError:
                failed += 1
        np.testing.assert_array_equal(solver.minimize(c[None])[0], x)
    assert failed
