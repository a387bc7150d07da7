"""Davis–Yin splitting: the smoothed relaxation, and the derivative of one step as published."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from solvers.reference import sparsemax

import decigrad as dg
from decigrad import losses
from decigrad.errors import ModelError
from decigrad.gradients import DavisYin, Smoothed
from decigrad.gradients.davis_yin import STEP
from decigrad.problems import shortest_path_model

PATHS = dg.oracles.GridPath(3, 3)
WEIGHTS = np.array([3.0, 2.0, 4.0, 1.0])


@pytest.fixture(autouse=True)
def float64():
    with jax.enable_x64(True):
        yield


def knapsack(sense="maximize"):
    m = dg.Model("knapsack")
    x, v = m.binary("x", shape=4), m.parameter("cost", shape=4)
    m.maximize(v @ x) if sense == "maximize" else m.minimize(v @ x)
    m.subject_to(WEIGHTS @ x <= 5.0)
    return m


def pulled(layer, costs, cotangent):
    slope = jax.jit(jax.grad(lambda c: (layer({"cost": c})["x"] * cotangent).sum()))
    return np.asarray(slope(jnp.asarray(costs)))


@pytest.mark.parametrize("make", [lambda: shortest_path_model(3, 3), knapsack], ids=["path", "knapsack"])
@pytest.mark.parametrize("mu", [0.3, 2.0])
def test_the_forward_value_is_that_of_the_smoothed_relaxation(make, mu):
    costs = np.random.default_rng(0).uniform(0.5, 4.0, (6, make().parameters["cost"].size))
    layer = dg.DecisionLayer(make(), gradient=DavisYin(mu, tolerance=1e-9))
    exact = dg.DecisionLayer(make(), gradient=Smoothed(mu, relative=True))
    found, expected = layer.solve({"cost": costs}), exact.solve({"cost": costs})
    np.testing.assert_allclose(found.x["x"], expected.x["x"], atol=1e-6)
    program, raw = found.program, found.raw
    force = program.stationarity(raw.x, raw.y, raw.z, raw.w)
    np.testing.assert_allclose(force, 0.0, atol=1e-5)
    assert (raw.z >= 0).all() and (raw.z * (program.h - program.G.matvec(raw.x)) < 1e-5).all()
    assert (raw.w * (program.ub - raw.x) < 1e-5).all() and (raw.w * (program.lb - raw.x) < 1e-5).all()
    traced = jax.jit(lambda c: layer({"cost": c})["x"])(costs)
    np.testing.assert_allclose(traced, found.x["x"], atol=1e-12)


@pytest.mark.parametrize(("size", "mu"), [(1e-5, 1e5), (1e-5, 1e2), (1.0, 1e5), (1.0, 1.0), (1e5, 1e-5)])
def test_the_decision_is_as_good_in_every_unit(size, mu):
    """On the simplex of any size it is size · sparsemax(−c / (mu·s·size)); errors by what the cost moves."""
    m = dg.Model()
    x, c = m.continuous("x", shape=3, lb=0.0), m.parameter("cost", shape=3)
    m.minimize(c @ x)
    m.subject_to(dg.sum(x) == size)
    costs = np.array([[1.0, 1.2, 1.5], [1.0, 0.4, 0.9]])
    scaled = costs / (mu * np.sqrt((costs**2).mean(1, keepdims=True)))
    expected = size * np.stack([sparsemax(-v / size) for v in scaled])
    found = dg.DecisionLayer(m, gradient=DavisYin(mu)).solve({"cost": costs})
    np.testing.assert_allclose(found.x["x"], expected, atol=1e-5 * min(size, 1.0 / mu))


def test_the_backward_pass_is_the_derivative_of_one_step():
    """∂P_B(T(u))/∂q = −α D Π: D marks entries inside the bounds, Π projects on the null space of the rows."""
    rng = np.random.default_rng(1)
    model = shortest_path_model(3, 3)
    costs, cotangent = rng.uniform(0.5, 4.0, (5, PATHS.size())), rng.normal(size=(5, PATHS.size()))
    layer = dg.DecisionLayer(model, solver=PATHS, gradient=DavisYin(0.5))
    A = model.form.assemble({"cost": costs[0]}).A.matrix
    null = np.eye(A.shape[1]) - np.linalg.pinv(A) @ A
    x = np.asarray(layer({"cost": costs})["x"])
    inside = ((x > 1e-6) & (x < 1.0 - 1e-6)).astype(float)
    assert 0 < inside.mean() < 1
    size = np.sqrt((costs**2).mean(1, keepdims=True))
    expected = -STEP / 0.5 * (inside * cotangent) @ null / size
    np.testing.assert_allclose(pulled(layer, costs, cotangent), expected, atol=1e-9)
    saved = layer.saved(layer.solve({"cost": costs}), {"x": cotangent})
    by_host = -jax.grad(lambda c: layer.pairing({"cost": c}, saved))(jnp.asarray(costs))
    np.testing.assert_allclose(by_host, expected, atol=1e-9)


def test_inequalities_come_with_slacks():
    """The same with a row G: Π projects (x, s) on the null space of (G, I), scaled to a unit row of G."""
    costs, cotangent = np.random.default_rng(2).uniform(1.0, 6.0, (2, 5, 4))
    layer = dg.DecisionLayer(knapsack(), gradient=DavisYin(0.7, relative=False, tolerance=1e-9))
    found = pulled(layer, costs, cotangent)
    rows = np.append(WEIGHTS / np.linalg.norm(WEIGHTS), 1.0)
    null = np.eye(5) - np.outer(rows, rows) / (rows @ rows)
    x = np.asarray(layer({"cost": costs})["x"])
    inside = ((x > 1e-6) & (x < 1.0 - 1e-6)).astype(float)
    expected = STEP / 0.7 * (inside * cotangent) @ null[:4, :4]  # of values, which are maximized
    np.testing.assert_allclose(found, expected, atol=1e-9)
    down = dg.DecisionLayer(knapsack("minimize"), gradient=layer.gradient)
    np.testing.assert_allclose(pulled(down, -costs, cotangent), -found, atol=1e-9)
    saved = layer.saved(layer.solve({"cost": costs}), {"x": cotangent})
    by_host = -jax.grad(lambda c: layer.pairing({"cost": c}, saved))(jnp.asarray(costs))
    np.testing.assert_allclose(by_host, found, atol=1e-9)


def test_failures_are_alone_and_refusals_are_named():
    costs = np.random.default_rng(3).uniform(0.5, 4.0, (4, 4))
    costs[1, 2] = np.nan
    layer = dg.DecisionLayer(knapsack(), gradient=DavisYin(), throw=False)
    found = layer.solve({"cost": costs})
    assert found.failed.tolist() == [1]
    slope = pulled(layer, costs, np.ones((4, 4)))
    np.testing.assert_array_equal(slope[1], 0.0)
    assert np.isfinite(slope).all() and np.abs(slope).max() > 0
    short = dg.DecisionLayer(knapsack(), gradient=DavisYin(iterations=2), throw=False)
    assert (short.solve({"cost": costs[:1]}).status == dg.Status.ITERATION_LIMIT).all()
    with pytest.raises(ModelError, match="mu > 0"):
        DavisYin(0.0)
    m = dg.Model()
    x, c = m.continuous("x", 2, lb=0.0), m.parameter("cost", shape=2)
    m.minimize(c @ x + dg.sum_squares(x))
    with pytest.raises(ModelError, match="curvature"):
        dg.DecisionLayer(m, gradient=DavisYin())


def test_it_trains():
    rng = np.random.default_rng(4)
    features = rng.normal(size=(30, 3))
    costs = 3.0 + features @ rng.normal(size=(3, PATHS.size())) + rng.normal(size=(30, PATHS.size()))
    data = dg.Dataset(features, targets={"cost": costs})
    layer = dg.DecisionLayer(shortest_path_model(3, 3), solver=PATHS, gradient=DavisYin())
    fitted = dg.fit(dg.Linear(), layer, data, losses.Regret(), selection=None, epochs=4, batch_size=10)
    assert np.abs(fitted.predictor.weight - fitted.two_stage.weight).max() > 1e-3
    assert sum(fitted.history["failed"]) == 0
