"""What holds for every oracle: one answer under jit, vmap, any batch and precision; oracles are values."""

from __future__ import annotations

import inspect
import pickle
from dataclasses import replace

import jax
import numpy as np
import pytest
from oracles.reference import answer, linear
from oracles.registry import ORACLES, integer_costs
from solvers.programs import boxed

from decigrad import oracles
from decigrad.program import Status

EACH = pytest.mark.parametrize("name", ORACLES)


def test_every_oracle_is_in_the_registry():
    named = [kind for kind in vars(oracles).values() if inspect.isclass(kind)]
    not_of_a_set = oracles.LinearOracle, oracles.Oracle, oracles.Gurobi, oracles.ORTools
    built = {kind for kind in named if kind not in not_of_a_set}
    assert built == {type(oracle) for oracle in ORACLES.values()}


@EACH
def test_an_answer_depends_on_its_own_costs_alone(name):
    oracle, cost = ORACLES[name], integer_costs(name, 12)
    x = answer(oracle, cost)
    np.testing.assert_array_equal(answer(oracle, cost[::-1])[::-1], x)
    np.testing.assert_array_equal(answer(oracle, cost[5:6]), x[5:6])
    np.testing.assert_array_equal(answer(oracle, 0.25 * cost), x)


@EACH
def test_single_precision_and_transformations_change_nothing(name):
    oracle, cost = ORACLES[name], integer_costs(name, 12)
    x = answer(oracle, cost)
    if oracle.host:
        np.testing.assert_array_equal(oracle.minimize(cost.astype(np.float32), linear(cost)), x)
        return

    def alone(c: jax.Array) -> jax.Array:
        return oracle.minimize(c[None], linear(cost))[0]

    found = jax.jit(jax.vmap(alone))(cost.astype(np.float32))
    assert found.dtype == np.float32
    np.testing.assert_array_equal(found, x)


@EACH
def test_an_oracle_is_a_solver(name):
    oracle, cost = ORACLES[name], integer_costs(name, 12)
    x = answer(oracle, cost)
    cost[1, 0], cost[2, 1] = np.nan, np.inf
    broken = np.isin(np.arange(12), (1, 2))
    p = linear(cost)
    assert oracle.refuses(p) is None
    with jax.enable_x64(True):
        raw = oracle(p) if oracle.host else jax.jit(oracle)(p)
    np.testing.assert_array_equal(raw.status, np.where(broken, Status.INVALID_DATA, Status.OPTIMAL))
    np.testing.assert_array_equal(raw.x, np.where(broken[:, None], np.nan, x))


@pytest.mark.parametrize("name", ["top-k", "assignment"])
def test_costs_may_be_shared_by_samples_that_differ_otherwise(name):
    oracle, cost = ORACLES[name], integer_costs(name, 1)
    raw = oracle(replace(linear(cost), b=np.zeros((3, 0))))
    np.testing.assert_array_equal(raw.x, np.repeat(answer(oracle, cost), 3, axis=0))


@EACH
def test_oracles_are_values(name):
    oracle = ORACLES[name]
    same = pickle.loads(pickle.dumps(oracle))
    assert same == oracle
    assert hash(same) == hash(oracle)
    assert [other for other in ORACLES.values() if other == oracle] == [oracle]
    assert len({same, *ORACLES.values()}) == len(ORACLES)
    assert isinstance(oracle.name, str)
    assert name.startswith(oracle.name)
    assert len(repr(oracle)) < 100


def test_content_makes_oracles_different():
    assert oracles.Knapsack([1, 2], 2) == oracles.Knapsack(np.array([1.0, 2.0]), 2)
    assert oracles.Knapsack([1, 2], 2) != oracles.Knapsack([2, 1], 2)
    assert oracles.Knapsack([1, 2], 2) != oracles.Knapsack([1, 2])
    assert oracles.Enumeration([[0.0, 1.0]]) == oracles.Enumeration([[-0.0, 1]])
    points = np.zeros((1, 2))
    oracle = oracles.Enumeration(points)
    points[:] = 1.0  # the oracle has its own copy
    assert oracle == oracles.Enumeration(np.zeros((1, 2)))
    with pytest.raises(ValueError, match="read-only"):
        oracle.points.array[:] = 1


@EACH
def test_programs_that_are_not_for_an_oracle_are_refused(name):
    oracle = ORACLES[name]
    assert "curvature" in oracle.refuses(boxed(np.random.default_rng(0)))
    wrong = oracle.size() + 1
    assert f"the model {wrong}" in oracle.refuses(linear(np.ones((1, wrong))))


@pytest.mark.parametrize("name", ["grid path", "top-k"])
def test_a_compiled_oracle_holds_no_traces(name):
    """Tables that an oracle keeps are NumPy arrays: a second trace may use them."""
    oracle, cost = pickle.loads(pickle.dumps(ORACLES[name])), integer_costs(name, 3)
    for _ in range(2):
        x = jax.jit(lambda c: oracle.minimize(c, linear(cost)))(cost)
        np.testing.assert_array_equal(x, answer(oracle, cost))
