"""Frank–Wolfe on oracles against the quadratic program with stated constraints, and Fenchel–Young losses."""

from __future__ import annotations

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.optimize import linprog

import decigrad as dg
from decigrad import losses
from decigrad.errors import ModelError
from decigrad.gradients import FrankWolfe, Smoothed
from decigrad.problems import shortest_path_model

PATHS = dg.oracles.GridPath(3, 4)
EDGES = PATHS.size()


@pytest.fixture(autouse=True)
def float64():
    with jax.enable_x64(True):
        yield


def host(oracle):
    """The same oracle as a function on the host."""
    return dg.Oracle(lambda q: np.asarray(oracle.minimize(jnp.asarray(q), None)))


def simplex(solver, gradient, n=4, sense="minimize"):
    m = dg.Model("simplex")
    x, c = m.continuous("x", shape=n, lb=0.0), m.parameter("cost", shape=n)
    m.minimize(c @ x) if sense == "minimize" else m.maximize(c @ x)
    m.subject_to(dg.sum(x) == 1.0)
    return dg.DecisionLayer(m, solver=solver, gradient=gradient)


def pulled(layer, costs, cotangent):
    slope = jax.jit(jax.grad(lambda c: (layer({"cost": c})["x"] * cotangent).sum()))
    return np.asarray(slope(jnp.asarray(costs)))


def on_the_host(layer, costs, cotangent):
    saved = layer.saved(layer.solve({"cost": costs}), {"x": cotangent})
    return -np.asarray(jax.grad(lambda c: layer.pairing({"cost": c}, saved))(jnp.asarray(costs)))


def test_the_published_sparsemax():
    """min cᵀx + (μ/2)‖x‖² over the simplex: (.4, .1, .5, 0) at μ = 1, (.4, 0, .6, 0) at μ = ½."""
    costs = np.array([0.2, 0.5, 0.1, 0.9])
    for mu, expected in ((1.0, [0.4, 0.1, 0.5, 0.0]), (0.5, [0.4, 0.0, 0.6, 0.0])):
        layer = simplex(dg.oracles.Simplex(4), FrankWolfe(mu, relative=False))
        np.testing.assert_allclose(layer({"cost": costs})["x"], expected, atol=1e-10)
        support = np.array(expected) > 0
        jacobian = -(np.diag(support * 1.0) - np.outer(support, support) / support.sum()) / mu
        found = jax.jit(jax.jacrev(lambda c, layer=layer: layer({"cost": c})["x"]))(costs)
        np.testing.assert_allclose(found, jacobian, atol=1e-10)
        np.testing.assert_allclose(layer.exact({"cost": costs})["x"], [0.0, 0.0, 1.0, 0.0])


@pytest.mark.parametrize("on_host", [False, True])
@pytest.mark.parametrize("mu", [0.1, 3.0])
def test_paths_against_the_quadratic_program(mu, on_host):
    """The hull of the paths is the flow polytope, so the exact layer on its constraints must agree."""
    rng = np.random.default_rng(0)
    costs, cotangent = rng.uniform(0.5, 2.0, (6, EDGES)), rng.normal(size=(6, EDGES))
    model = shortest_path_model(3, 4)
    layer = dg.DecisionLayer(model, solver=host(PATHS) if on_host else PATHS, gradient=FrankWolfe(mu))
    stated = dg.DecisionLayer(model, gradient=Smoothed(mu, relative=True))
    np.testing.assert_allclose(layer({"cost": costs})["x"], stated({"cost": costs})["x"], atol=1e-8)
    expected = pulled(stated, costs, cotangent)
    np.testing.assert_allclose(pulled(layer, costs, cotangent), expected, atol=1e-6)
    np.testing.assert_allclose(on_the_host(layer, costs, cotangent), expected, atol=1e-6)


def test_sets_without_constraints():
    """Any points: the minimizer of the quadratic program in their weights, and differences of it."""
    rng = np.random.default_rng(1)
    points = rng.normal(size=(12, 5))
    m = dg.Model("points")
    x, c = m.continuous("x", shape=5), m.parameter("cost", shape=5)
    m.minimize(c @ x)
    layer = dg.DecisionLayer(
        m, solver=dg.oracles.Enumeration(points), gradient=FrankWolfe(0.8, relative=False)
    )
    weights = dg.Model("weights")
    w, k = weights.continuous("w", shape=12, lb=0.0), weights.parameter("cost", shape=5)
    weights.minimize(k @ (points.T @ w) + 0.4 * dg.sum_squares(points.T @ w))
    weights.subject_to(dg.sum(w) == 1.0)
    costs = rng.normal(size=(8, 5))
    expected = np.array([points.T @ weights.solve({"cost": c}).x["w"] for c in costs])
    np.testing.assert_allclose(layer({"cost": costs})["x"], expected, atol=1e-8)
    cotangent, step = rng.normal(size=5), 1e-6
    found = pulled(layer, costs, cotangent)
    for i, j in itertools.product(range(3), range(5)):
        ends = [layer({"cost": costs[i] + d * np.eye(5)[j]})["x"] @ cotangent for d in (step, -step)]
        assert found[i, j] == pytest.approx(float(ends[0] - ends[1]) / (2 * step), abs=1e-6)


def test_few_iterations_give_the_best_of_what_was_found_and_converged_samples_stop():
    calls = []

    def counted(q):
        calls.append(len(q))
        return np.asarray(PATHS.minimize(jnp.asarray(q), None))

    costs = np.random.default_rng(2).uniform(0.5, 2.0, (4, EDGES))
    model = shortest_path_model(3, 4)
    values = []
    for iterations in (1, 2, 3, 40):
        gradient = FrankWolfe(2.0, iterations)
        layer = dg.DecisionLayer(model, solver=dg.Oracle(counted), gradient=gradient)
        x = layer.solve({"cost": costs}).x["x"]
        size = np.sqrt((costs**2).mean(1))
        values.append((costs * x).sum(1) + size * (x**2).sum(1))
    assert (np.diff(values, axis=0) <= 1e-12).all()
    assert 6 < len(calls) < 6 + 30


def test_maximizing_is_minimizing_the_negative_and_failures_stay_alone():
    rng = np.random.default_rng(3)
    costs, cotangent = rng.normal(size=(5, 4)), rng.normal(size=(5, 4))
    down = simplex(dg.oracles.Simplex(4), FrankWolfe())
    up = simplex(dg.oracles.Simplex(4), FrankWolfe(), sense="maximize")
    np.testing.assert_allclose(up({"cost": -costs})["x"], down({"cost": costs})["x"], atol=1e-12)
    np.testing.assert_allclose(pulled(up, -costs, cotangent), -pulled(down, costs, cotangent), atol=1e-12)
    bad = costs.copy()
    bad[2, 1] = np.nan
    found = pulled(down, bad, cotangent)
    np.testing.assert_array_equal(found[2], 0.0)
    np.testing.assert_allclose(found[[0, 4]], pulled(down, costs, cotangent)[[0, 4]], atol=1e-12)
    with pytest.raises(ModelError, match="mu > 0"):
        FrankWolfe(0.0)


# ------------------------------------------------------------------------------------------ Fenchel–Young


def fenchel_young(layer, predicted, costs):
    labels = layer.exact.solve({"cost": costs})
    lead = costs.shape[:-1]
    parts = (np.zeros(lead, int), np.zeros((*lead, 1)), {"cost": costs}, {}, labels.x, labels.objective)
    batch, loss = losses.Batch(*parts, np.ones(lead)), losses.FenchelYoung()
    loss.check(layer)

    def value(p):
        queries = loss.queries(layer, {"cost": jax.lax.stop_gradient(p)}, batch)
        answers = {label: layer(query) for label, query in queries.items()}
        return loss.value(layer, {"cost": p}, answers, batch)

    slope = jax.grad(lambda p: value(p).sum())(jnp.asarray(predicted))
    return np.asarray(value(predicted)), np.asarray(slope), labels.x["x"], layer({"cost": predicted})["x"]


@pytest.mark.parametrize(
    ("gradient", "oracle"),
    [(Smoothed(0.7), "auto"), (Smoothed(0.7, relative=True), "auto"), (FrankWolfe(0.7), PATHS)],
    ids=repr,
)
def test_never_negative_zero_at_the_label_and_its_gradient(gradient, oracle):
    rng = np.random.default_rng(4)
    costs, predicted = rng.uniform(0.5, 2.0, (2, 3, EDGES)), rng.uniform(0.5, 2.0, (2, 3, EDGES))
    layer = dg.DecisionLayer(shortest_path_model(3, 4), solver=oracle, gradient=gradient)
    value, slope, label, decided = fenchel_young(layer, predicted, costs)
    assert value.shape == (2, 3)
    assert (value > 0).all()
    np.testing.assert_allclose(slope, label - decided, atol=1e-9)
    # the loss bounds the distance: f_Ω is strongly convex
    mu = 0.7 * np.sqrt((predicted**2).mean(-1)) if gradient.relative else 0.7
    assert (value >= 0.5 * mu * ((label - np.asarray(decided)) ** 2).sum(-1) - 1e-9).all()
    # and vanishes where the regularized decision is the label: edges off the path cost enough
    far = np.where(label > 0.5, 0.1, 10.0)
    if not gradient.relative:
        np.testing.assert_allclose(fenchel_young(layer, far, costs)[0], 0.0, atol=1e-9)


def test_sparsemax_loss():
    """Martins and Astudillo (2016): −z_y + ½ Σ_{S} (z_j² − τ²) + ½ with z = −c/μ, times μ."""
    rng = np.random.default_rng(5)
    predicted, costs, mu = rng.normal(size=(20, 4)), rng.normal(size=(20, 4)), 0.6
    layer = simplex(dg.oracles.Simplex(4), FrankWolfe(mu, relative=False))
    value = fenchel_young(layer, predicted, costs)[0]
    for c, y, found in zip(predicted, costs.argmin(1), value, strict=True):
        z = -c / mu
        ordered = np.sort(z)[::-1]
        size = max(k for k in range(1, 5) if 1 + k * ordered[k - 1] > ordered[:k].sum())
        tau = (ordered[:size].sum() - 1) / size
        support = z > tau
        expected = -z[y] + 0.5 * (z[support] ** 2 - tau**2).sum() + 0.5
        assert found == pytest.approx(mu * expected, abs=1e-9)


def test_what_fenchel_young_refuses():
    with pytest.raises(ModelError, match="regularizes its decision"):
        losses.FenchelYoung().check(simplex("auto", None))
    with pytest.raises(ModelError, match="barrier is infinite"):
        losses.FenchelYoung().check(simplex("auto", Smoothed(1.0, "barrier")))
    m = dg.Model()
    x, c = m.continuous("x", lb=0.0), m.parameter("cost")
    m.minimize(c * x + dg.abs(x - 1.0))
    m.subject_to(x <= 3.0)
    with pytest.raises(ModelError, match="auxiliary"):
        losses.FenchelYoung().check(dg.DecisionLayer(m, gradient=Smoothed(1.0)))
    with pytest.raises(ModelError, match="curvature"):
        quadratic = dg.Model()
        x, c = quadratic.continuous("x", lb=0.0), quadratic.parameter("cost")
        quadratic.minimize(c * x + x * x)
        dg.DecisionLayer(quadratic, gradient=FrankWolfe())


def test_training_is_the_same_on_the_host_and_on_the_device():
    rng = np.random.default_rng(6)
    features = rng.normal(size=(24, 3))
    costs = 3.0 + features @ rng.normal(size=(3, EDGES)) + 0.3 * rng.normal(size=(24, EDGES))
    data = dg.Dataset(features, targets={"cost": costs})
    weights = []
    for solver in (PATHS, host(PATHS)):
        layer = dg.DecisionLayer(shortest_path_model(3, 4), solver=solver, gradient=FrankWolfe())
        fitted = dg.fit(
            dg.Linear(), layer, data, losses.FenchelYoung(), selection=None, epochs=2, batch_size=8
        )
        assert np.abs(fitted.predictor.weight - fitted.two_stage.weight).max() > 1e-3
        weights.append(fitted.predictor.weight)
    np.testing.assert_allclose(weights[0], weights[1], atol=1e-9)


def test_the_solver_may_be_a_general_one():
    """Answers of HiGHS on the stated model: the same hull."""
    costs = np.random.default_rng(7).uniform(0.5, 2.0, (3, EDGES))
    layer = dg.DecisionLayer(shortest_path_model(3, 4), gradient=FrankWolfe(1.0))
    assert layer.solver.name == "highs"
    expected = dg.DecisionLayer(shortest_path_model(3, 4), gradient=Smoothed(1.0, relative=True))
    np.testing.assert_allclose(layer({"cost": costs})["x"], expected({"cost": costs})["x"], atol=1e-8)
    flow = np.zeros((12, EDGES))
    for e, (tail, head) in enumerate(PATHS.edges()):
        flow[tail, e], flow[head, e] = 1.0, -1.0
    supply = np.zeros(12)
    supply[0], supply[-1] = 1.0, -1.0
    for c, x in zip(costs, layer.exact({"cost": costs})["x"], strict=True):
        assert c @ np.asarray(x) == pytest.approx(linprog(c, A_eq=flow, b_eq=supply).fun)
