"""The entropic term: closed forms on the simplex, optimality and differences elsewhere, what it refuses."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.optimize import minimize
from scipy.special import logsumexp, softmax

import decigrad as dg
from decigrad import losses
from decigrad.errors import ModelError
from decigrad.gradients import Smoothed

WEIGHTS, CAPACITY = np.array([3.0, 2.0, 4.0, 1.0]), 5.0


@pytest.fixture(autouse=True)
def float64():
    with jax.enable_x64(True):
        yield


def simplex(mu, sense="minimize", relative=False):
    m = dg.Model("simplex")
    x, c = m.continuous("x", shape=4, lb=0.0), m.parameter("cost", shape=4)
    m.minimize(c @ x) if sense == "minimize" else m.maximize(c @ x)
    m.subject_to(dg.sum(x) == 1.0)
    return dg.DecisionLayer(m, gradient=Smoothed(mu, "entropy", relative))


def knapsack(mu):
    m = dg.Model("knapsack")
    x, v = m.binary("x", shape=4), m.parameter("value", shape=4)
    b = m.parameter("capacity", value=CAPACITY)
    m.maximize(v @ x)
    m.subject_to(WEIGHTS @ x <= b)
    return dg.DecisionLayer(m, gradient=Smoothed(mu, "entropy"))


def test_the_simplex_gives_softmax_and_its_jacobian():
    rng = np.random.default_rng(0)
    costs = rng.normal(size=(20, 4))
    for mu in (0.02, 0.3, 5.0):
        layer = simplex(mu)
        expected = softmax(-costs / mu, axis=1)
        np.testing.assert_allclose(layer({"cost": costs})["x"], expected, atol=1e-10)
        jacobian = jax.jit(jax.jacrev(lambda c, layer=layer: layer({"cost": c})["x"]))(costs[0])
        p = expected[0]
        np.testing.assert_allclose(jacobian, -(np.diag(p) - np.outer(p, p)) / mu, atol=1e-8)
    up = simplex(0.3, "maximize")({"cost": -costs})["x"]
    np.testing.assert_allclose(up, softmax(-costs / 0.3, axis=1), atol=1e-10)
    size = np.sqrt((costs**2).mean(1, keepdims=True))
    scaled = simplex(0.3, relative=True)({"cost": 1e3 * costs})["x"]
    np.testing.assert_allclose(scaled, softmax(-costs / (0.3 * size), axis=1), atol=1e-10)


def test_second_derivatives():
    costs = np.array([0.2, 0.5, 0.1, 0.9])
    layer, weights = simplex(0.5), np.array([1.0, -2.0, 0.5, 3.0])
    hessian = jax.jit(jax.hessian(lambda c: layer({"cost": c})["x"] @ weights))(costs)
    expected = jax.hessian(lambda c: jax.nn.softmax(-c / 0.5) @ weights)(jnp.asarray(costs))
    np.testing.assert_allclose(hessian, expected, atol=1e-7)


def test_active_bounds_and_rows_against_scipy_and_differences():
    rng = np.random.default_rng(1)
    values, cotangent = rng.uniform(1.0, 6.0, (6, 4)), rng.normal(size=(6, 4))
    layer, mu = knapsack(0.8), 0.8
    x = np.asarray(layer({"value": values})["x"])
    assert (x > 1.0 - 1e-9).any()
    for v, found in zip(values, x, strict=True):
        best = minimize(
            lambda x, v=v: -v @ x + mu * (x @ np.log(x)), np.full(4, 0.4), method="SLSQP",
            bounds=[(1e-9, 1.0)] * 4, options={"ftol": 1e-13, "maxiter": 500},
            constraints={"type": "ineq", "fun": lambda x: CAPACITY - WEIGHTS @ x},
        )  # fmt: skip
        np.testing.assert_allclose(found, best.x, atol=2e-5)
        assert -v @ found + mu * (found @ np.log(found)) <= best.fun + 1e-9
    full = {"value": jnp.asarray(values), "capacity": jnp.full(6, CAPACITY)}
    pulled = jax.jit(jax.grad(lambda p: (layer(p)["x"] * cotangent).sum()))(full)
    saved = layer.saved(layer.solve(full), {"x": cotangent})
    by_host = jax.grad(lambda p: -layer.pairing(p, saved))(full)
    step = 1e-5
    for name, direction in (("value", rng.normal(size=(6, 4))), ("capacity", np.ones(6))):
        np.testing.assert_allclose(by_host[name], pulled[name], atol=1e-9)
        ends = [layer({**full, name: full[name] + d * direction})["x"] for d in (step, -step)]
        slope = (np.asarray(ends[0] - ends[1]) / (2 * step) * cotangent).sum(1)
        found = (np.asarray(pulled[name]) * direction).reshape(6, -1).sum(1)
        np.testing.assert_allclose(found, slope, atol=1e-6)


def test_fenchel_young_is_the_cross_entropy_of_softmax():
    rng = np.random.default_rng(2)
    predicted, costs, mu = rng.normal(size=(9, 4)), rng.normal(size=(9, 4)), 0.6
    layer, loss = simplex(mu), losses.FenchelYoung()
    loss.check(layer)
    labels = layer.exact.solve({"cost": costs})
    parts = (np.arange(9), np.zeros((9, 1)), {"cost": costs}, {}, labels.x, labels.objective, np.ones(9))
    batch = losses.Batch(*parts)
    answers = {k: layer(q) for k, q in loss.queries(layer, {"cost": predicted}, batch).items()}
    value = loss.value(layer, {"cost": predicted}, answers, batch)
    entropy = logsumexp(-predicted / mu, axis=1) + predicted[np.arange(9), costs.argmin(1)] / mu
    np.testing.assert_allclose(value, mu * entropy, atol=1e-9)


def test_entries_that_are_forced_to_zero_and_failures():
    m = dg.Model()
    x, c, b = m.continuous("x", shape=4, lb=0.0), m.parameter("cost", shape=4), m.parameter("b")
    m.minimize(c @ x)
    m.subject_to([dg.sum(x) == b, x[0] <= 0.0])
    layer = dg.DecisionLayer(m, gradient=Smoothed(0.5, "entropy"), throw=False)
    costs = np.array([0.2, 0.5, 0.1, 0.9])
    found = layer.solve({"cost": costs, "b": np.array([1.0, -1.0, 2.0])})
    expected = np.append(0.0, softmax(-costs[1:] / 0.5))
    np.testing.assert_allclose(found.x["x"][0], expected, atol=1e-9)
    np.testing.assert_allclose(found.x["x"][2], 2.0 * expected, atol=1e-9)
    assert found.failed.tolist() == [1]


def test_variables_that_may_be_negative_are_refused():
    m = dg.Model()
    x, c = m.continuous("x", shape=2), m.parameter("cost", shape=2)
    m.minimize(c @ x)
    m.subject_to(dg.sum(x) == 1.0)
    with pytest.raises(ModelError, match="entropy needs variables with lb >= 0"):
        dg.DecisionLayer(m, gradient=Smoothed(1.0, "entropy"))
