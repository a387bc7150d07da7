"""Functions as oracles, what they may do wrong, and oracles in a decision layer."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from oracles.reference import answer, costs, linear

import decigrad as dg
from decigrad.errors import ModelError, SolveError, UnsupportedModelError
from decigrad.oracles import Assignment, GridPath, Knapsack, TopK
from decigrad.program import Status
from decigrad.solvers import HiGHS


def cheapest(cost):
    """The unit vector of the least cost; works on NumPy and on JAX arrays, single and batched."""
    return 1.0 * (cost == cost.min(axis=-1, keepdims=True))


def choice(n: int = 3) -> dg.Model:
    """One of n items."""
    m = dg.Model("choice")
    x = m.continuous("x", shape=n, lb=0.0, ub=1.0)
    m.minimize(dg.sum(m.parameter("cost", shape=n) * x))
    m.subject_to(dg.sum(x) == 1.0, name="one")
    return m


def grid_model(oracle: GridPath) -> dg.Model:
    """The shortest path as a flow of one unit."""
    edges, n = oracle.edges(), oracle.size()
    flow = np.zeros((oracle.rows * oracle.cols, n))
    flow[edges[:, 0], np.arange(n)] = 1.0
    flow[edges[:, 1], np.arange(n)] = -1.0
    supply = np.zeros(len(flow))
    supply[[0, -1]] = 1.0, -1.0
    m = dg.Model("path")
    x = m.continuous("x", shape=n, lb=0.0, ub=1.0)
    m.minimize(dg.sum(m.parameter("cost", shape=n) * x))
    m.subject_to(flow @ x == supply, name="flow")
    return m


@pytest.mark.parametrize(
    "oracle",
    [
        dg.Oracle(cheapest),
        dg.Oracle(cheapest, batched=False),
        dg.Oracle(cheapest, jax=True),
        dg.Oracle(cheapest, jax=True, batched=False),
        dg.Oracle(lambda cost: cheapest(cost).tolist()),
        dg.Oracle(lambda cost: cheapest(cost).astype(int), jax=True),
    ],
    ids=["host", "host single", "jax", "jax single", "lists", "jax integers"],
)
def test_a_function_is_an_oracle(oracle):
    cost = np.random.default_rng(0).standard_normal((6, 3))
    layer = dg.DecisionLayer(choice(), solver=oracle)
    np.testing.assert_array_equal(layer.solve({"cost": cost}).x["x"], cheapest(cost))
    np.testing.assert_array_equal(layer({"cost": cost[0]})["x"], cheapest(cost[0]))
    with jax.enable_x64(True):
        np.testing.assert_array_equal(jax.jit(layer)({"cost": cost})["x"], cheapest(cost))
    assert layer.solver.host is not oracle.jax


def test_functions_are_compared_by_identity():
    assert dg.Oracle(cheapest) == dg.Oracle(cheapest, name="another")
    assert dg.Oracle(cheapest) != dg.Oracle(lambda cost: cheapest(cost))
    assert dg.Oracle(cheapest) != dg.Oracle(cheapest, jax=True)


def fails_above_one(cost):
    """An oracle that cannot take a cost above 1."""
    if (cost > 1.0).any():
        raise RuntimeError("too expensive")
    return cheapest(cost)


@pytest.mark.parametrize("batched", [True, False])
def test_an_exception_is_laid_at_its_sample(batched):
    cost = np.array([[0.1, 0.2, 0.3], [0.5, 2.0, 0.1], [0.3, 0.2, 0.1], [1.5, 0.0, 0.1]])
    layer = dg.DecisionLayer(choice(), solver=dg.Oracle(fails_above_one, batched=batched))
    found = layer.solve({"cost": cost}, throw=False)
    optimal, error = int(Status.OPTIMAL), int(Status.ORACLE_ERROR)
    assert found.status.tolist() == [optimal, error, optimal, error]
    np.testing.assert_array_equal(found.x["x"][[0, 2]], cheapest(cost[[0, 2]]))
    assert np.isnan(found.x["x"][[1, 3]]).all()
    with pytest.raises(SolveError, match="sample 1 ended with ORACLE_ERROR") as caught:
        layer.solve({"cost": cost})
    assert "2 of 4 samples failed: [1, 3]" in caught.value.__notes__[0]


def test_an_exception_on_every_sample_names_the_first_and_keeps_the_original():
    layer = dg.DecisionLayer(choice(), solver=dg.Oracle(fails_above_one))
    cost = np.full((3, 3), 2.0)
    assert layer.solve({"cost": cost}, throw=False).status.tolist() == [Status.ORACLE_ERROR] * 3
    with pytest.raises(SolveError, match=r"sample 0 ended with ORACLE_ERROR: .*too expensive") as caught:
        layer.solve({"cost": cost})
    assert isinstance(caught.value.__cause__, RuntimeError)
    with pytest.raises(SolveError, match="too expensive") as caught:
        choice().solve({"cost": cost[0]}, solver=layer.solver)
    assert isinstance(caught.value.__cause__, RuntimeError)
    assert choice().solve({"cost": cost[0]}, solver=layer.solver, throw=False).status == Status.ORACLE_ERROR


def test_an_oracle_may_run_out_of_time_on_a_sample():
    def slow_above_one(cost):
        if (cost > 1.0).any():
            raise TimeoutError
        return cheapest(cost)

    cost = np.array([[0.1, 0.2], [2.0, 1.0], [0.3, 0.2]])
    found = dg.DecisionLayer(free(2), solver=dg.Oracle(slow_above_one)).solve({"cost": cost}, throw=False)
    assert found.status.tolist() == [Status.OPTIMAL, Status.TIME_LIMIT, Status.OPTIMAL]


def free(n: int) -> dg.Model:
    """No constraints: the oracle alone knows the set."""
    m = dg.Model("free")
    m.minimize(dg.sum(m.parameter("cost", shape=n) * m.continuous("x", shape=n)))
    return m


def test_a_sample_without_solution_is_not_taken_for_an_unbounded_model():
    layer = dg.DecisionLayer(free(2), solver=dg.Oracle(lambda c: np.where(c[:, :1] > 1, np.nan, cheapest(c))))
    with pytest.raises(SolveError, match="sample 1 ended with NO_SOLUTION"):
        layer.solve({"cost": [[0.1, 0.2], [2.0, 1.0]]})
    with pytest.raises(SolveError, match="ended with NO_SOLUTION"):
        free(2).solve({"cost": [2.0, 1.0]}, solver=layer.solver)


def test_what_is_no_failure_of_a_sample_is_raised():
    def interrupted(cost):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        dg.DecisionLayer(choice(), solver=dg.Oracle(interrupted)).solve({"cost": np.ones((2, 3))})


@pytest.mark.parametrize("jax_function", [False, True])
def test_an_infeasible_answer_is_found(jax_function):
    def twice_where_negative(cost):
        return cheapest(cost) * (1.0 + (cost[:, :1] < 0))

    cost = np.array([[0.1, 0.2, 0.3], [-0.5, 2.0, 0.1], [0.3, 0.2, 0.1]])
    layer = dg.DecisionLayer(choice(), solver=dg.Oracle(twice_where_negative, jax=jax_function))
    found = layer.solve({"cost": cost}, throw=False)
    assert found.status.tolist() == [Status.OPTIMAL, Status.INFEASIBLE_POINT, Status.OPTIMAL]
    assert np.isnan(found.x["x"][1]).all()
    with pytest.raises(SolveError, match="sample 1 ended with INFEASIBLE_POINT"):
        layer.solve({"cost": cost})


@pytest.mark.parametrize("block", ["lb", "ub", "A", "G"])
def test_every_stated_constraint_is_checked(block):
    point = np.array([[1.0, 2.0]])
    stated = {
        "lb": {"lb": np.array([0.0, 2.5])},
        "ub": {"ub": np.array([0.5, 3.0])},
        "A": {"A": np.ones((1, 2)), "b": np.array([3.001])},
        "G": {"G": np.ones((2, 2)), "h": np.array([np.inf, 2.999])},
    }[block]
    oracle = dg.Oracle(lambda cost: np.repeat(point, len(cost), axis=0))
    assert oracle(linear(np.ones((2, 2)), **stated)).status.tolist() == [Status.INFEASIBLE_POINT] * 2
    assert oracle(linear(np.ones((2, 2)))).status.tolist() == [Status.OPTIMAL] * 2


def test_nan_answers_and_nan_costs():
    oracle = dg.Oracle(lambda cost: np.where(cost[:, :1] > 1, np.nan, cheapest(cost)))
    cost = np.array([[0.1, 0.2], [2.0, 1.0], [np.nan, 0.0], [0.0, np.inf]])
    raw = oracle(linear(cost))
    expected = [Status.OPTIMAL, Status.NO_SOLUTION, Status.INVALID_DATA, Status.INVALID_DATA]
    assert raw.status.tolist() == expected
    assert np.isnan(raw.x[1:]).all()
    assert not raw.active.any()
    assert not raw.fixed.any()
    layer = dg.DecisionLayer(choice(2), solver=oracle)
    found = layer.solve({"cost": cost[[0, 2]]}, throw=False)
    assert found.status.tolist() == [Status.OPTIMAL, Status.INVALID_DATA]


@pytest.mark.parametrize("jax_function", [False, True])
@pytest.mark.parametrize(
    "function", [lambda cost: cost[:, :2], lambda cost: cost[0], lambda cost: 1.0], ids=["n", "B", "scalar"]
)
def test_a_wrong_shape_is_misuse(function, jax_function):
    layer = dg.DecisionLayer(choice(), solver=dg.Oracle(function, jax=jax_function))
    with pytest.raises(ModelError, match=r"must return solutions of shape \(2, 3\), got"):
        layer.solve({"cost": np.ones((2, 3))}, throw=False)


def test_a_wrong_shape_on_one_sample_stays_misuse():
    def short_above_one(cost):
        return cheapest(cost)[: 1 if (cost > 1.0).any() else None]

    def fails_then_short(cost):
        if len(cost) > 1:
            raise RuntimeError
        return cheapest(cost)[:, :2]

    cost = {"cost": np.array([[0.1, 0.2, 0.3], [0.5, 2.0, 0.1]])}
    with pytest.raises(ModelError, match="must return an array of numbers"):
        dg.DecisionLayer(choice(), solver=dg.Oracle(short_above_one, batched=False)).solve(cost, throw=False)
    with pytest.raises(ModelError, match=r"solutions of shape \(1, 3\), got \(1, 2\)"):
        dg.DecisionLayer(choice(), solver=dg.Oracle(fails_then_short)).solve(cost, throw=False)


def test_an_oracle_may_write_into_the_costs_it_is_given():
    def greedy(cost):
        best = cheapest(cost)
        cost[:] = 0.0
        return best

    cost = np.array([[0.1, 0.2, 0.3], [0.3, 0.2, 0.1]])
    layer = dg.DecisionLayer(choice(), solver=dg.Oracle(greedy))
    np.testing.assert_array_equal(layer.solve({"cost": cost}).x["x"], cheapest(cost))
    assert cost.all()


def test_models_that_are_not_for_an_oracle_are_refused():
    with pytest.raises(UnsupportedModelError, match="3 variables, the model 4"):
        dg.DecisionLayer(choice(4), solver=TopK(3, 1))
    m = dg.Model("curved")
    x = m.continuous("x", shape=3)
    m.minimize(dg.sum(x * x))
    with pytest.raises(UnsupportedModelError, match="curvature"):
        dg.DecisionLayer(m, solver=TopK(3, 1))


def test_grid_path_decides_for_a_flow_model():
    oracle = GridPath(4, 5)
    model, cost = grid_model(oracle), costs(np.random.default_rng(0), 40, oracle.size())
    layer = dg.DecisionLayer(model, solver=oracle)
    found = layer.solve({"cost": cost})
    np.testing.assert_array_equal(found.x["x"], answer(oracle, cost))
    by_simplex = dg.DecisionLayer(model, solver=HiGHS()).solve({"cost": cost})
    np.testing.assert_allclose(found.objective, by_simplex.objective, atol=1e-9)
    inside = jax.jit(jax.vmap(lambda c: layer({"cost": c})["x"]))(jnp.asarray(cost))
    np.testing.assert_allclose((inside * cost).sum(axis=1), found.objective, atol=1e-5)


def test_an_oracle_for_another_grid_is_found_out():
    wide, high = GridPath(2, 3), GridPath(3, 2)
    assert wide.size() == high.size()
    found = dg.DecisionLayer(grid_model(wide), solver=high).solve({"cost": np.ones((2, 7))}, throw=False)
    assert found.status.tolist() == [Status.INFEASIBLE_POINT] * 2


def test_knapsack_with_a_capacity_known_by_sample_decides_for_a_maximization():
    weights, rng = np.array([3.0, 1.0, 4.0, 1.0, 5.0]), np.random.default_rng(0)
    m = dg.Model("knapsack")
    x = m.binary("x", shape=5)
    value, capacity = m.parameter("value", shape=5), m.parameter("capacity", known=True)
    m.maximize(dg.sum(value * x))
    m.subject_to(weights @ x <= capacity, name="weight")
    data = {"value": rng.uniform(-0.2, 1.0, (30, 5)), "capacity": rng.integers(0, 15, 30).astype(float)}
    found = dg.DecisionLayer(m, solver=Knapsack(weights)).solve(data)
    assert (found.x["x"] @ weights <= data["capacity"]).all()
    by_branching = dg.DecisionLayer(m, solver=HiGHS()).solve(data)
    np.testing.assert_allclose(found.objective, by_branching.objective, atol=1e-12)
    np.testing.assert_array_equal(found.x["x"], by_branching.x["x"])


def test_a_host_oracle_decides_inside_jit():
    n = 3
    m = dg.Model("assignment")
    x = m.continuous("x", shape=n * n, lb=0.0)
    m.minimize(dg.sum(m.parameter("cost", shape=n * n) * x))
    m.subject_to(np.kron(np.eye(n), np.ones(n)) @ x == np.ones(n), name="rows")
    m.subject_to(np.kron(np.ones(n), np.eye(n)) @ x == np.ones(n), name="columns")
    cost = np.random.default_rng(0).standard_normal((5, n * n))
    layer = dg.DecisionLayer(m, solver=Assignment(n))
    np.testing.assert_array_equal(jax.jit(layer)({"cost": cost})["x"], layer.solve({"cost": cost}).x["x"])
