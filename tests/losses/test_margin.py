"""Losses with a margin, a budget or an imitated decision, against brute force on an enumerated set."""

from __future__ import annotations

from itertools import product
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.optimize import linprog

import decigrad as dg
from decigrad.errors import ModelError
from decigrad.losses import CILO, Batch, Imitation, SPOPlus, StructuredHinge
from decigrad.registry import METHODS

POINTS = np.array([p for p in product((0.0, 1.0), repeat=4) if sum(p) == 2])
KNOWN = np.array([0.2, -0.1, 0.3, 0.0])
SPREAD = np.array([1.0, 2.0, 3.0, 2.0])
LOSSES = [
    StructuredHinge(),
    StructuredHinge(2.0),
    StructuredHinge(0.3, "cost"),
    CILO(0.1),
    CILO(0.0, (0.5, 5.0)),
    Imitation(),
]
named = pytest.mark.parametrize("loss", LOSSES, ids=repr)


def two_of_four(sense: str = "minimize") -> dg.DecisionLayer:
    """Choose two of four items; maximizing states −c and −w."""
    m = dg.Model("two of four")
    x = m.continuous("x", shape=4, lb=0.0, ub=1.0)
    c, w = m.parameter("cost", shape=4), m.parameter("known", shape=4, known=True)
    objective = dg.sum(c * x) + dg.sum(w * x)
    m.minimize(objective + 1.0) if sense == "minimize" else m.maximize(objective - 1.0)
    m.subject_to(dg.sum(x) == 2.0)
    return dg.DecisionLayer(m, solver=dg.oracles.TopK(4, 2))


LAYER = two_of_four()


def value(loss: Any, predicted: Any, true: np.ndarray, layer: dg.DecisionLayer = LAYER) -> Any:
    sign = layer.sign
    known = {"known": np.broadcast_to(sign * KNOWN, true.shape)}
    optimal, lead = layer.solve({"cost": true, **known}), true.shape[:-1]
    batch = Batch(
        np.zeros(lead, int), None, {"cost": true}, known, optimal.x, optimal.objective, np.ones(lead),
        spread={"cost": SPREAD}, key=jax.random.PRNGKey(0),
    )  # fmt: skip
    queries = loss.queries(layer, {"cost": jax.lax.stop_gradient(predicted)}, batch)
    answers = {label: layer.solve(query).x for label, query in queries.items()}
    return loss.value(layer, {"cost": predicted}, answers, batch)


def drawn(*shape: int) -> tuple[np.ndarray, np.ndarray]:
    return tuple(np.random.default_rng(3).normal(size=(2, *shape, 4)))


@named
def test_the_value_is_that_of_the_definition(loss):
    predicted, true = drawn(20)
    with jax.enable_x64(True):
        found = np.asarray(value(loss, predicted, true))
    for i in range(20):
        hat, truth = (POINTS @ (c[i] + KNOWN) + 1.0 for c in (predicted, true))
        star, made = POINTS[truth.argmin()], POINTS[hat.argmin()]
        if isinstance(loss, Imitation):
            expected = np.abs(made - star).sum()
        elif isinstance(loss, CILO):
            beta = truth.min() + loss.budget * abs(truth.min())
            expected = max((hat + h * truth).min() - h * beta for h in (0.0, *loss.lengths)) - hat.min()
        else:
            distance = np.abs(POINTS - star).sum(1) * SPREAD.mean()
            margin = distance if loss.kind == "hamming" else truth - truth.min()
            expected = (loss.margin * margin - hat).max() + hat[truth.argmin()]
        assert found[i] == pytest.approx(expected, abs=1e-10)
    assert found.min() >= -1e-12


@named
def test_the_gradient_is_the_slope_of_the_value(loss):
    if isinstance(loss, Imitation):
        return  # its gradient is that of the decision: see below
    predicted, true = drawn(3)
    with jax.enable_x64(True):
        found = np.asarray(jax.grad(lambda p: value(loss, p, true).sum())(jnp.asarray(predicted)))
        for i, j in product(range(3), range(4)):
            step = np.zeros((3, 4))
            step[i, j] = 1e-6
            ends = [float(value(loss, predicted + s * step, true).sum()) for s in (1.0, -1.0)]
            assert found[i, j] == pytest.approx((ends[0] - ends[1]) / 2e-6, abs=1e-5)


@named
def test_maximizing_the_negative_is_the_same_and_lanes_lead(loss):
    predicted, true = drawn(2, 3)
    with jax.enable_x64(True):
        found = value(loss, predicted, true)
        np.testing.assert_allclose(value(loss, -predicted, -true, two_of_four("maximize")), found, atol=1e-10)
        assert found.shape == (2, 3)
        np.testing.assert_allclose(value(loss, predicted[1, 1:2], true[1, 1:2]), found[1, 1:2], atol=1e-12)


def test_spo_plus_is_twice_the_hinge_with_half_the_true_cost_as_margin():
    predicted, true = drawn(10)
    with jax.enable_x64(True):
        hinge = value(StructuredHinge(0.5, "cost"), predicted, true)
        np.testing.assert_allclose(value(SPOPlus(), predicted, true), 2.0 * hinge, atol=1e-10)


def test_cilo_is_the_price_of_the_budget():
    """With a fine grid of lengths: min f(x; ĉ) over mixtures of decisions within the budget, less V(ĉ)."""
    predicted, true = drawn(10)
    loss = CILO(0.2, tuple(np.geomspace(1e-3, 1e3, 4000)))
    with jax.enable_x64(True):
        found = np.asarray(value(loss, predicted, true))
    for i in range(10):
        hat, truth = (POINTS @ (c[i] + KNOWN) + 1.0 for c in (predicted, true))
        beta = truth.min() + 0.2 * abs(truth.min())
        best = linprog(hat, truth[None], [beta], np.ones((1, len(hat))), [1.0])
        assert found[i] == pytest.approx(best.fun - hat.min(), rel=2e-2, abs=1e-9)
        assert found[i] <= best.fun - hat.min() + 1e-9


def test_imitation_goes_through_the_gradient_of_the_layer():
    predicted, true = drawn(6)
    layer = LAYER.with_gradient(dg.Identity("none"))
    with jax.enable_x64(True):
        known = np.broadcast_to(KNOWN, true.shape)
        star = LAYER.solve({"cost": true, "known": known}).x["x"]
        made = LAYER.solve({"cost": predicted, "known": known}).x["x"]
        batch = Batch(None, None, {}, {}, {"x": star}, None, np.ones(6))

        def total(c: Any) -> Any:
            answers = {"decision": layer({"cost": c, "known": known})}
            return Imitation().value(layer, {"cost": c}, answers, batch).sum()

        np.testing.assert_allclose(jax.grad(total)(jnp.asarray(predicted)), -2.0 * (made - star), atol=1e-12)


# ----------------------------------------------------------------------------------------- refused, trained


@pytest.mark.parametrize("case", ["two parameters", "product", "sum", "bounds"])
def test_a_hamming_margin_needs_a_priced_decision_between_zero_and_one(case):
    m = dg.Model()
    x = m.continuous("x", shape=2, lb=0.0, ub=2.0 if case == "bounds" else 1.0)
    c = m.parameter("cost", shape=2)
    objective = {"product": 2.0 * (c @ x), "sum": dg.sum(c) * x[0] + x[1]}.get(case, c @ x)
    if case == "two parameters":
        objective = objective + m.parameter("other") * x[0]
    m.minimize(objective)
    m.subject_to(dg.sum(x) == 1.0)
    layer = dg.DecisionLayer(m)
    with pytest.raises(ModelError, match="use kind='cost'"):
        StructuredHinge().check(layer)
    StructuredHinge(0.5, "cost").check(layer)


@pytest.mark.parametrize(
    "make",
    [
        lambda: StructuredHinge(0.0),
        lambda: StructuredHinge(1.0, "cost"),
        lambda: StructuredHinge(kind="other"),
        lambda: CILO(-0.1),
        lambda: CILO(lengths=()),
        lambda: CILO(lengths=(1.0, 0.5)),
    ],
)
def test_senseless_settings_are_refused(make):
    with pytest.raises(ModelError):
        make()


@pytest.mark.parametrize("name", ["cilo", "structured-hinge", "imitation"])
def test_training_on_the_host_and_on_the_device_is_the_same(name):
    rng = np.random.default_rng(0)
    features = rng.normal(size=(30, 3))
    data = dg.Dataset(
        features, {"cost": np.abs(features @ rng.normal(size=(3, 4)))}, {"known": np.zeros((30, 4))}
    )
    method = METHODS[name].make()
    host = dg.DecisionLayer(
        LAYER.model, solver=dg.Oracle(lambda q: np.asarray(LAYER.solver.minimize(q, None)))
    )
    fits = [
        dg.fit(dg.Linear(), method.layer(layer), data, method.loss, epochs=2, batch_size=8, selection=None)
        for layer in (LAYER, host)
    ]
    if name != "imitation":  # the noise of an estimate differs
        np.testing.assert_allclose(fits[0].predictor.weight, fits[1].predictor.weight, atol=1e-9)
    for fit in fits:
        assert np.abs(fit.predictor.weight - fit.two_stage.weight).max() > 1e-4
