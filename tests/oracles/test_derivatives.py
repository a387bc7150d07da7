"""What an oracle's answers determine of derivatives, and the refusal of what they do not."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import decigrad as dg
from decigrad.errors import ModelError
from decigrad.oracles import Knapsack
from decigrad.solvers import HiGHS

WEIGHTS = np.array([3.0, 1.0, 4.0, 2.0])
VALUES = np.array([[2.0, 0.3, 3.0, 1.0], [1.0, 1.1, 0.5, 1.7], [0.2, 0.1, 2.0, 0.4]])
REFUSED = r"no derivative of 'capacity', which enters constraints \(h\)"


def knapsack() -> dg.Model:
    m = dg.Model("knapsack")
    x = m.binary("x", shape=4)
    m.maximize(dg.sum(m.parameter("value", shape=4) * x))
    m.subject_to(WEIGHTS @ x <= m.parameter("capacity", known=True))
    return m


def penalty(decisions, parameters):
    """Regret's cost where the capacity was predicted: value lost, and a fine for the excess."""
    excess = jnp.maximum(WEIGHTS @ decisions["x"] - parameters["capacity"], 0.0)
    return 5.0 * excess - parameters["value"] @ decisions["x"]


def ball(cost):
    """The minimizer of cᵀx over the unit ball: a set without vertices."""
    return -cost / np.sqrt((cost**2).sum(axis=-1, keepdims=True))


def free(n: int = 2) -> dg.Model:
    m = dg.Model("ball")
    x = m.continuous("x", shape=n)
    m.minimize(dg.sum(m.parameter("cost", shape=n) * x))
    return m


def data(n: int = 24) -> dg.Dataset:
    rng = np.random.default_rng(0)
    features = rng.uniform(-1.0, 1.0, (n, 2))
    value = 2.0 + features @ rng.uniform(-1.0, 1.0, (2, 4))
    return dg.Dataset(features, targets={"value": value, "capacity": 5.0 + features[:, 0]})


def test_the_value_of_a_solution_has_a_derivative_in_the_cost_alone():
    found = knapsack().solve({"value": VALUES[0], "capacity": 5.0}, solver=Knapsack(WEIGHTS))
    np.testing.assert_array_equal(found.gradient("value"), found.x["x"])
    np.testing.assert_array_equal(found.implicit_gradient("value"), found.x["x"])
    np.testing.assert_array_equal(found.sensitivity_matrix("value"), np.zeros((4, 4)))
    assert found.duals == {}
    for derivative in (found.gradient, found.implicit_gradient, found.sensitivity_matrix):
        with pytest.raises(ModelError, match=REFUSED):
            derivative("capacity")
    with pytest.raises(ModelError, match="enters constraints"):
        found.sensitivity_matrix()


def test_a_solver_with_multipliers_keeps_all_of_them():
    found = knapsack().solve({"value": VALUES[0], "capacity": 5.0}, solver=HiGHS())
    assert found.duals
    assert found.sensitivity_matrix().shape == (4, 5)


@pytest.mark.parametrize("oracle", [Knapsack(WEIGHTS), dg.Oracle(lambda c: -1.0 * (c < -1.0))])
def test_a_layer_refuses_when_the_derivative_is_formed(oracle):
    layer = dg.DecisionLayer(knapsack(), ["value", "capacity"], solver=oracle)
    capacity = jnp.array([5.0, 4.0, 3.0])

    def total(value, capacity):
        return layer({"value": value, "capacity": capacity})["x"].sum()

    for transformed in (lambda f, **k: jax.grad(f, **k), lambda f, **k: jax.jit(jax.grad(f, **k))):
        np.testing.assert_array_equal(transformed(total)(VALUES, capacity), np.zeros(VALUES.shape))
        with pytest.raises(ModelError, match=r"enters constraints \(h\)"):
            transformed(total, argnums=1)(VALUES, capacity)
    solved = layer.solve({"value": VALUES, "capacity": capacity}, throw=False)
    assert solved.duals == {}
    with pytest.raises(ModelError, match=REFUSED):
        layer.saved(solved, {"x": np.ones((3, 4))})


@pytest.mark.parametrize("host", [False, True])
def test_training_through_a_predicted_capacity_is_refused_and_the_score_function_is_not(host):
    exact = Knapsack(WEIGHTS)
    oracle = HostKnapsack(exact) if host else exact
    layer = dg.DecisionLayer(knapsack(), ["value", "capacity"], solver=oracle)
    with pytest.raises(ModelError, match=REFUSED):
        dg.fit(dg.Linear(), layer, data(), dg.losses.Regret(penalty), progress=False)
    loss = dg.losses.ScoreFunction(cost=penalty, samples=2)
    found = dg.fit(dg.Linear(), layer, data(), loss, selection=None, epochs=1, progress=False)
    assert np.isfinite(found.history["loss"]).all()


class HostKnapsack(Knapsack):
    """The same on the host: its training takes the path without callbacks."""

    host = True

    def __init__(self, exact: Knapsack) -> None:
        super().__init__(WEIGHTS)
        object.__setattr__(self, "exact", exact)

    def minimize(self, cost, program):
        with jax.enable_x64(True):
            return np.array(self.exact.minimize(jnp.asarray(cost), program))


def test_a_decision_that_is_no_vertex_has_no_derivative_in_the_cost_either():
    cost = np.array([3.0, 4.0])
    oracle = dg.Oracle(ball, vertex=False)
    found = free().solve({"cost": cost}, solver=oracle)
    np.testing.assert_allclose(found.gradient("cost"), [-0.6, -0.8])
    with pytest.raises(ModelError, match=r"no derivative of 'cost', which enters the cost \(q\)"):
        found.sensitivity_matrix("cost")
    layer = dg.DecisionLayer(free(), solver=oracle)
    with pytest.raises(ModelError, match="enters the cost"):
        jax.grad(lambda c: layer({"cost": c})["x"].sum())(jnp.asarray(cost))
    rng = np.random.default_rng(0)
    features = rng.standard_normal((20, 2))
    samples = dg.Dataset(features, targets={"cost": features + 0.1})
    with pytest.raises(ModelError, match="enters the cost"):
        dg.fit(dg.Linear(), layer, samples, progress=False)
    options = {"selection": None, "epochs": 2, "progress": False}
    assert dg.fit(dg.Linear(), layer, samples, dg.losses.SPOPlus(), **options).history["failed"] == [0, 0]
    estimated = layer.with_gradient(dg.gradients.BlackBox())
    assert dg.fit(dg.Linear(), estimated, samples, **options).history["failed"] == [0, 0]


@pytest.mark.parametrize(
    "layer",
    [
        dg.DecisionLayer(free(), solver=dg.Oracle(ball, vertex=False)),
        dg.DecisionLayer(free(), solver=dg.Oracle(ball), gradient=dg.gradients.BlackBox()),
    ],
    ids=["oracle", "estimated"],
)
def test_the_optimal_value_has_the_gradient_of_the_envelope_theorem(layer):
    cost = jnp.array([[3.0, 4.0], [-1.0, 0.0]])  # min cᵀx over the unit ball is −‖c‖
    found = jax.grad(lambda c: layer.value({"cost": c}).sum())(cost)
    np.testing.assert_allclose(found, [[-0.6, -0.8], [1.0, 0.0]], atol=1e-6)


def test_the_optimal_value_has_no_derivative_in_constraints():
    layer = dg.DecisionLayer(knapsack(), ["value", "capacity"], solver=Knapsack(WEIGHTS))
    with pytest.raises(ModelError, match="enters constraints"):
        jax.grad(lambda b: layer.value({"value": VALUES[0], "capacity": b}))(5.0)
