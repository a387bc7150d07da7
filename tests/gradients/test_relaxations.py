"""Relaxed and smoothed layers on integer models and on oracles: definitions, closed forms, refusals."""

from __future__ import annotations

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.optimize import linprog, minimize

import decigrad as dg
from decigrad import losses, native
from decigrad.errors import ModelError
from decigrad.gradients import DavisYin, RelaxationGradient, Relaxed, Smoothed
from decigrad.problems import (
    ranking_layer,
    risk_portfolio_layer,
    shortest_path_layer,
    shortest_path_model,
    terrain_layer,
    tsp_layer,
)

WEIGHTS, CAPACITY = np.array([3.0, 2.0, 4.0, 1.0]), 5.0
SETS = np.array([x for x in itertools.product([0.0, 1.0], repeat=4) if WEIGHTS @ x <= CAPACITY])
VALUES = np.random.default_rng(0).uniform(1.0, 6.0, (7, 4))


@pytest.fixture(autouse=True)
def float64():
    with jax.enable_x64(True):
        yield


def knapsack(sense="maximize"):
    m = dg.Model("knapsack")
    x, v = m.binary("x", shape=4), m.parameter("value", shape=4)
    m.maximize(v @ x) if sense == "maximize" else m.minimize(v @ x)
    m.subject_to(WEIGHTS @ x <= CAPACITY)
    return m


def layers(gradient, sense="maximize"):
    """The integer program on HiGHS, on a host oracle and on a device oracle."""
    host = dg.Oracle(lambda q: SETS[(q @ SETS.T).argmin(1)])
    return [
        dg.DecisionLayer(knapsack(sense), solver=solver, gradient=gradient)
        for solver in ("auto", host, dg.oracles.Enumeration(SETS))
    ]


def relaxed(value):
    """The fractional knapsack's vertex, by HiGHS through SciPy."""
    return linprog(-value, WEIGHTS[None], [CAPACITY], bounds=[(0.0, 1.0)] * 4).x


def smooth(value, mu):
    """The smoothed relaxation, by SciPy."""
    found = minimize(
        lambda x: -value @ x + 0.5 * mu * x @ x, np.full(4, 0.4), method="SLSQP", bounds=[(0.0, 1.0)] * 4,
        jac=lambda x: -value + mu * x, options={"ftol": 1e-14},
        constraints={"type": "ineq", "fun": lambda x: CAPACITY - WEIGHTS @ x},
    )  # fmt: skip
    return found.x


def pulled(layer, values, cotangent):
    slope = jax.jit(jax.grad(lambda v: (layer({"value": v})["x"] * cotangent).sum()))
    return np.asarray(slope(jnp.asarray(values)))


def on_the_host(layer, values, cotangent):
    """The pullback as training computes it with a host solver."""
    saved = layer.saved(layer.solve({"value": values}), {"x": cotangent})
    return -np.asarray(jax.grad(lambda v: layer.pairing({"value": v}, saved))(jnp.asarray(values)))


# ---------------------------------------------------------------------------------------------- relaxed


def test_the_relaxation_decides_by_its_vertex_and_does_not_move():
    for layer in layers(Relaxed()):
        np.testing.assert_allclose(layer({"value": VALUES})["x"], [*map(relaxed, VALUES)], atol=1e-9)
        np.testing.assert_allclose(pulled(layer, VALUES, np.arange(4.0)), 0.0, atol=1e-11)
        exact = layer.exact({"value": VALUES})["x"]
        np.testing.assert_allclose(exact, SETS[(VALUES @ SETS.T).argmax(1)], atol=1e-9)
    assert "gradient" in layers(Relaxed())[2].why
    assert layers(Relaxed())[2].solver.name == "highs"


@pytest.mark.parametrize("sense", ["maximize", "minimize"])
def test_relaxed_spo_plus_lies_above_the_integer_one_and_regret(sense):
    sign = 1.0 if sense == "maximize" else -1.0
    rng = np.random.default_rng(1)
    true, predicted = sign * VALUES, sign * (VALUES + rng.normal(size=VALUES.shape))
    features = np.zeros((len(true), 1))
    found, slopes = {}, {}
    for kind, gradient in (("relaxed", Relaxed()), ("integer", None)):
        layer = layers(gradient, sense)[2]
        labels = layer.exact.solve({"value": true})
        batch = losses.Batch(
            np.arange(7), features, {"value": true}, {}, labels.x, labels.objective, np.ones(7)
        )
        for loss in (losses.SPOPlus(), losses.Regret()):
            judged = layer.exact if isinstance(loss, losses.Regret) else layer
            queries = loss.queries(judged, {"value": predicted}, batch)
            answers = {label: judged.solve(q).x for label, q in queries.items()}

            def total(p, loss=loss, layer=layer, answers=answers, batch=batch):
                return loss.value(layer, {"value": p}, answers, batch)

            found[kind, loss] = np.asarray(total(predicted))
            slopes[kind, loss] = np.asarray(jax.grad(lambda p: total(p).sum())(jnp.asarray(predicted)))
    plus = losses.SPOPlus()
    assert (found["relaxed", plus] >= found["integer", plus] - 1e-9).all()
    assert (found["relaxed", plus] > found["integer", plus] + 1e-3).any()
    assert (found["integer", plus] >= found["relaxed", losses.Regret()] - 1e-9).all()
    # the definition: 2 (x*(v) − x_LP(2v̂ − v)), for costs to be minimized
    best = SETS[(VALUES @ SETS.T).argmax(1)]
    inner = np.array([*map(relaxed, sign * (2.0 * predicted - true))])
    np.testing.assert_allclose(slopes["relaxed", plus], -sign * 2.0 * (best - inner), atol=1e-9)


# ---------------------------------------------------------------------------------------------- smoothed


@pytest.mark.parametrize("relative", [False, True])
def test_smoothed_integer_models_against_scipy(relative):
    mu = 0.7
    size = np.sqrt((VALUES**2).mean(1)) if relative else np.ones(7)
    expected = np.array([smooth(v, mu * s) for v, s in zip(VALUES, size, strict=True)])
    cotangent = np.random.default_rng(2).normal(size=(7, 4))
    for layer in layers(Smoothed(mu, relative=relative)):
        np.testing.assert_allclose(layer({"value": VALUES})["x"], expected, atol=1e-6)
        assert not layer.solver.refuses(layer.gradient.program(layer.form.assemble({"value": VALUES[0]})))
        found = pulled(layer, VALUES, cotangent)
        np.testing.assert_allclose(on_the_host(layer, VALUES, cotangent), found, atol=1e-9)
    # differences of the smoothed decision with the size held fixed
    step = 1e-5
    for i, k in ((0, 0), (3, 2), (5, 1)):
        fixed = layers(Smoothed(mu * size[i]))[0]
        ends = [fixed({"value": VALUES[i] + d * np.eye(4)[k]})["x"] for d in (step, -step)]
        slope = (np.asarray(ends[0] - ends[1]) / (2 * step)) @ cotangent[i]
        assert found[i, k] == pytest.approx(slope, abs=1e-6)


@pytest.mark.parametrize("kind", ["quadratic", "barrier"])
def test_relative_smoothing_has_no_unit(kind):
    layer = layers(Smoothed(0.5, kind, relative=True))[2]
    one = layer.solve({"value": VALUES})
    cents = layer.solve({"value": 100.0 * VALUES})
    np.testing.assert_allclose(one.x["x"], cents.x["x"], atol=1e-7)
    name = next(n for n in one.duals if not n.startswith("x."))
    np.testing.assert_allclose(cents.duals[name], 100.0 * one.duals[name], rtol=1e-6, atol=1e-9)
    size = np.sqrt((VALUES[0] ** 2).mean())
    absolute = layers(Smoothed(0.5 * size, kind))[2].solve({"value": VALUES[0]})
    np.testing.assert_allclose(absolute.x["x"], one.x["x"][0], atol=1e-7)
    np.testing.assert_allclose(absolute.duals[name], one.duals[name][0], atol=1e-6)


def test_the_barrier_relaxes_integers_too():
    layer = layers(Smoothed(0.3, "barrier"))[2]
    x = np.asarray(layer({"value": VALUES})["x"])
    slack = CAPACITY - x @ WEIGHTS
    assert (slack > 0).all() and ((x > 0) & (x < 1)).all()
    # stationarity of −vᵀx − μ Σ log(slacks)
    gradient = -VALUES - 0.3 / x + 0.3 / (1.0 - x) + 0.3 * WEIGHTS / slack[:, None]
    np.testing.assert_allclose(gradient, 0.0, atol=1e-5)


# ----------------------------------------------------------------------------- gradient of the relaxation


def test_the_relaxation_gradient_decides_exactly_and_moves_smoothly():
    cotangent = np.random.default_rng(3).normal(size=(7, 4))
    for layer, reference in zip(
        layers(RelaxationGradient(0.7)), layers(Smoothed(0.7, relative=True)), strict=True
    ):
        exact = SETS[(VALUES @ SETS.T).argmax(1)]
        np.testing.assert_allclose(layer({"value": VALUES})["x"], exact, atol=1e-9)
        traced = jax.jit(lambda v, layer=layer: layer({"value": v})["x"])(VALUES)
        np.testing.assert_allclose(traced, exact, atol=1e-9)
        expected = pulled(reference, VALUES, cotangent)
        assert np.abs(expected).max() > 0.1
        np.testing.assert_allclose(pulled(layer, VALUES, cotangent), expected, atol=1e-9)
        np.testing.assert_allclose(on_the_host(layer, VALUES, cotangent), expected, atol=1e-9)
        assert isinstance(layer.exact.gradient, dg.KKT)


@pytest.mark.parametrize("kind", ["quadratic", "barrier"])
def test_the_value_of_the_relaxation_gradient_has_the_envelope_as_gradient(kind):
    """d(max vᵀx)/dv = x*, which the smoothed derivative of the decision leaves alone."""
    best = SETS[(VALUES @ SETS.T).argmax(1)]
    for layer in layers(RelaxationGradient(0.7, kind)):
        found, slope = jax.value_and_grad(lambda v, layer=layer: layer.value({"value": v}).sum())(VALUES)
        assert found == pytest.approx((VALUES * best).sum())
        np.testing.assert_allclose(slope, best, atol=1e-9)
    m = dg.Model()  # and in a constraint: min cᵀx with sum(x) = d is d·min(c)
    x, c, d = m.continuous("x", shape=3, lb=0.0), m.parameter("cost", shape=3), m.parameter("demand")
    m.minimize(c @ x)
    m.subject_to(dg.sum(x) == d)
    layer = dg.DecisionLayer(m, gradient=RelaxationGradient(0.7, kind))
    slope = jax.grad(layer.value)({"cost": jnp.array([1.0, 1.2, 1.5]), "demand": jnp.array(2.0)})
    np.testing.assert_allclose(slope["cost"], [2.0, 0.0, 0.0], atol=1e-9)
    assert slope["demand"] == pytest.approx(1.0)


def test_training_is_the_same_on_the_host_and_on_the_device():
    rng = np.random.default_rng(4)
    features = rng.normal(size=(24, 3))
    values = 3.0 + features @ rng.normal(size=(3, 4)) + 0.3 * rng.normal(size=(24, 4))
    data = dg.Dataset(features, targets={"value": values})
    weights = []
    for layer in layers(RelaxationGradient())[1:]:
        fitted = dg.fit(dg.Linear(), layer, data, selection=None, epochs=2, batch_size=8)
        assert np.abs(fitted.predictor.weight - fitted.two_stage.weight).max() > 1e-3
        weights.append(fitted.predictor.weight)
    np.testing.assert_allclose(weights[0], weights[1], atol=1e-9)


# ---------------------------------------------------------------------------------------------- refusals


def test_a_set_that_only_the_oracle_knows_is_refused():
    m = dg.Model()
    x, c = m.continuous("x", shape=4), m.parameter("value", shape=4)
    m.minimize(c @ x)
    for gradient in (Relaxed(), Smoothed(1.0), Smoothed(1.0, "barrier"), RelaxationGradient()):
        with pytest.raises(ModelError, match="known to the solver 'enumeration' alone"):
            dg.DecisionLayer(m, solver=dg.oracles.Enumeration(SETS), gradient=gradient)


PARTS = {
    "ranking": ranking_layer(4),
    "terrain": terrain_layer(3, 3),
    "risk": risk_portfolio_layer(np.eye(3), 0.5),
    "curved": dg.DecisionLayer(knapsack("minimize"), solver=dg.Oracle(np.zeros_like, vertex=False)),
    "own": dg.DecisionLayer(knapsack("minimize"), solver=dg.Oracle(np.zeros_like, stated=False)),
}


@pytest.mark.parametrize("layer", PARTS.values(), ids=PARTS)
def test_a_set_that_the_model_states_in_part_is_refused(layer):
    for gradient in (Relaxed(), Smoothed(1.0), Smoothed(1.0, "barrier"), RelaxationGradient(), DavisYin()):
        with pytest.raises(ModelError, match=r"states only a part of the set.* FrankWolfe"):
            layer.with_gradient(gradient)
    for loss in (losses.CaVE(), losses.AdjacentVertices()):
        with pytest.raises(ModelError, match="states only a part of the set"):
            loss.check(layer)
    losses.SPOPlus().check(layer)  # asks the solver


def test_relaxations_with_the_decisions_as_vertices_are_read():
    for layer in (tsp_layer(4), shortest_path_layer(2, 2), layers(None)[1]):
        assert layer.with_gradient(Relaxed()).solver.name == "highs"
        losses.CaVE().check(layer)


def test_a_named_solver_is_kept_where_it_can_and_unknown_ones_are_refused():
    active_set = "daqp" if native.missing() else "active-set"
    assert dg.DecisionLayer(knapsack(), solver="highs", gradient=Relaxed()).solver.name == "highs"
    assert dg.DecisionLayer(knapsack(), solver="highs", gradient=Smoothed(1.0)).solver.name == active_set
    kept = dg.DecisionLayer(knapsack(), gradient=Smoothed(1.0, relative=True))
    assert kept.solver.name == active_set
    with pytest.raises(ModelError, match="unknown solver"):
        dg.DecisionLayer(knapsack(), solver="simplex", gradient=Relaxed())
    with pytest.raises(ModelError, match="mu must be positive"):
        RelaxationGradient(0.0)


@pytest.mark.parametrize("kind", ["quadratic", "barrier"])
def test_training_through_the_interior_point_without_inequalities(kind):
    """A batch of programs that have equalities and bounds alone, in one trace: the same as on the host."""
    m = dg.Model()
    x, c = m.continuous("x", shape=3, lb=0.0), m.parameter("cost", shape=3)
    m.minimize(c @ x)
    m.subject_to(dg.sum(x) == 1.0)
    layer = dg.DecisionLayer(m, solver="interior-point", gradient=Smoothed(0.5, kind))
    costs, cotangent = np.random.default_rng(5).uniform(size=(2, 6, 3))
    slope = jax.jit(jax.grad(lambda c: (layer({"cost": c})["x"] * cotangent).sum()))(costs)
    saved = layer.saved(layer.solve({"cost": costs}), {"x": cotangent})
    expected = -jax.grad(lambda c: layer.pairing({"cost": c}, saved))(jnp.asarray(costs))
    np.testing.assert_allclose(slope, expected, atol=1e-6)


NAMES = "spo+ relaxed, qptl, intopt, dys, relaxation, fenchel-young, fenchel-young-entropy, frank-wolfe"


@pytest.mark.parametrize("name", NAMES.split(", "))
def test_the_methods_train_by_name_on_an_oracle(name):
    rng = np.random.default_rng(6)
    features = rng.normal(size=(20, 3))
    values = 4.0 + features @ rng.normal(size=(3, 4)) + 0.3 * rng.normal(size=(20, 4))
    data = dg.Dataset(features, targets={"value": values})
    fitted = dg.fit(dg.Linear(), layers(None)[2], data, name, selection=None, epochs=1, batch_size=10)
    assert np.isfinite(fitted.predictor.weight).all()
    assert np.abs(fitted.predictor.weight - fitted.two_stage.weight).max() > 1e-6
    assert sum(fitted.history["failed"]) == 0


def test_the_barrier_converges_on_every_sample():
    """Corrected steps went round in circles on one path in fifty; optimality by the formula."""
    costs, mu = np.random.default_rng(0).uniform(0.6, 2.2, (300, 40)), 0.03
    layer = dg.DecisionLayer(shortest_path_model(5, 5), gradient=Smoothed(mu, "barrier", relative=True))
    found = layer.solve({"cost": costs})
    x, program = found.raw.x, found.program
    force = program.q + program.A.rmatvec(found.raw.y) - mu / x + mu / (1.0 - x)
    np.testing.assert_allclose(force, 0.0, atol=1e-5)
    assert found.stats["iterations"].max() < 20
