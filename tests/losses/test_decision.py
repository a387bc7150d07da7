"""Regret: its formula, its sign, its gradient, other costs, and what it refuses."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from losses.precision import in_float64

import decigrad as dg
from decigrad.errors import ModelError
from decigrad.losses import Batch, Regret


def model(sense: str = "minimize") -> dg.Model:
    m = dg.Model("simplex")
    x = m.continuous("x", shape=3, lb=0.0, ub=1.0)
    c = m.parameter("cost", shape=3)
    objective = dg.sum(c * x) + 0.5 * dg.sum(x * x)
    m.minimize(objective) if sense == "minimize" else m.maximize(-objective)
    m.subject_to(dg.sum(x) == 1.0)
    return m


MODEL = model()
LAYER = dg.DecisionLayer(MODEL, solver="daqp")
LINEAR_COST = dg.sum(MODEL.parameters["cost"] * MODEL.variables["x"])


def batch_of(layer: dg.DecisionLayer, costs: np.ndarray) -> Batch:
    optimal = layer.solve({"cost": costs})
    lead = costs.shape[:-1]
    return Batch(
        np.zeros(lead, int),
        np.zeros((*lead, 1)),
        {"cost": costs},
        {},
        optimal.x,
        optimal.objective,
        np.ones(lead),
    )


def value(loss: Regret, layer: dg.DecisionLayer, predicted: np.ndarray, costs: np.ndarray) -> np.ndarray:
    batch = batch_of(layer, costs)
    queries = loss.queries(layer, {"cost": predicted}, batch)
    answers = {label: layer.solve(query).x for label, query in queries.items()}
    return np.asarray(loss.value(layer, {"cost": predicted}, answers, batch))


costs = st.lists(st.floats(-5, 5), min_size=6, max_size=6).map(lambda v: np.array(v).reshape(2, 3))


# Examples are drawn in no time, but a loaded machine makes wall time say otherwise.
@settings(max_examples=30, suppress_health_check=[HealthCheck.too_slow])
@given(costs, costs)
@in_float64
def test_regret_is_the_difference_of_objectives_and_never_negative(predicted, true):
    found = value(Regret(), LAYER, predicted, true)
    for i in range(2):
        decision, best = (MODEL.solve({"cost": c[i]}, solver="daqp").x["x"] for c in (predicted, true))
        expected = (true[i] @ decision + 0.5 * decision @ decision) - (true[i] @ best + 0.5 * best @ best)
        assert found[i] == pytest.approx(expected, abs=1e-10)
    assert found.min() >= -1e-10
    np.testing.assert_array_equal(value(Regret(), LAYER, true, true), 0.0)


@in_float64
def test_maximizing_turns_the_sign_once():
    rng = np.random.default_rng(0)
    predicted, true = rng.normal(size=(2, 5, 3))
    twin = dg.DecisionLayer(model("maximize"), solver="daqp")
    np.testing.assert_allclose(
        value(Regret(), twin, predicted, true), value(Regret(), LAYER, predicted, true), atol=1e-10
    )


@in_float64
def test_a_cost_is_an_expression_or_a_function():
    rng = np.random.default_rng(1)
    predicted, true = rng.normal(size=(2, 4, 5, 3))  # lanes and samples lead
    expression = value(Regret(cost=LINEAR_COST), LAYER, predicted, true)
    function = value(Regret(cost=lambda x, p: p["cost"] @ x["x"]), LAYER, predicted, true)
    assert expression.shape == function.shape == (4, 5)
    np.testing.assert_allclose(expression, function, atol=1e-12)
    decisions, best = (LAYER.solve({"cost": c}).x["x"] for c in (predicted, true))
    np.testing.assert_allclose(expression, (true * (decisions - best)).sum(-1), atol=1e-12)
    assert expression.min() < 0  # scored on another function than the one minimized


@in_float64
def test_an_expression_and_a_function_train_alike():
    rng = np.random.default_rng(2)
    features = rng.normal(size=(20, 2))
    data = dg.Dataset(features, {"cost": 1 + features @ rng.normal(size=(2, 3)) + features[:, :1] ** 2})
    costs = (LINEAR_COST, lambda x, p: (p["cost"] * x["x"]).sum())
    fits = [
        dg.fit(dg.Linear(), LAYER, data, Regret(cost=cost), selection=None, epochs=2, batch_size=8)
        for cost in costs
    ]
    np.testing.assert_allclose(fits[0].predictor.weight, fits[1].predictor.weight, atol=1e-12)
    plain = dg.fit(dg.Linear(), LAYER, data, Regret(), selection=None, epochs=2, batch_size=8)
    assert np.abs(plain.predictor.weight - fits[0].predictor.weight).max() > 1e-4


@in_float64
def test_its_gradient_is_that_of_the_decision():
    rng = np.random.default_rng(3)
    predicted, true = rng.normal(size=(2, 3))
    layer = dg.DecisionLayer(MODEL, solver="daqp")
    batch = batch_of(layer, true[None])

    def loss(c):
        return Regret().value(layer, {"cost": c[None]}, {"decision": layer({"cost": c[None]})}, batch)[0]

    slope = jax.grad(loss)(jnp.asarray(predicted))
    for i in range(3):
        step = 1e-6 * np.eye(3)[i]
        numeric = (value(Regret(), layer, (predicted + step)[None], true[None])) - (
            value(Regret(), layer, (predicted - step)[None], true[None])
        )
        assert float(slope[i]) == pytest.approx(float(numeric[0]) / 2e-6, abs=1e-6)


def test_equal_losses_share_compiled_steps():
    assert Regret() == Regret() and hash(Regret()) == hash(Regret())
    assert Regret(LINEAR_COST) == Regret(LINEAR_COST) != Regret()


# ------------------------------------------------------------------------------------------------ refused


@pytest.mark.parametrize("where", ["right-hand side", "row", "bound"])
def test_predicted_parameters_in_constraints_need_a_cost(where):
    m = dg.Model("demand")
    d = m.parameter("demand")
    x = m.continuous("x", lb=0.0, ub=d if where == "bound" else 9.0)
    m.minimize(x * x)
    if where != "bound":
        m.subject_to(x >= d if where == "right-hand side" else d * x >= 1.0)
    layer = dg.DecisionLayer(m, solver="daqp")
    with pytest.raises(ModelError, match=r"\['demand'\] enter constraints.*pass cost="):
        Regret().check(layer)
    Regret(cost=x).check(layer)


def test_a_cost_is_one_number_of_this_model():
    with pytest.raises(ModelError, match=r"one number, got shape \(3,\)"):
        Regret(cost=MODEL.variables["x"] * 2.0).check(LAYER)
    with pytest.raises(ModelError, match="belongs to another model"):
        Regret(cost=dg.sum(model().variables["x"])).check(LAYER)
