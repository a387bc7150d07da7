"""Surrogates, perturbed and pool losses: published identities, definitions, and what they refuse."""

from __future__ import annotations

import functools
from itertools import product
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from losses.precision import in_float64
from scipy.stats import norm

import decigrad as dg
from decigrad import losses
from decigrad.errors import ModelError
from decigrad.losses import Batch, Regret

SPREAD = np.array([1.0, 2.0, 3.0])


def simplex(sense: str = "minimize", quadratic: float = 0.0) -> dg.DecisionLayer:
    """min cᵀx + quadratic ‖x‖² over the simplex; maximizing states −c."""
    m = dg.Model("simplex")
    x, c = m.continuous("x", shape=3, lb=0.0), m.parameter("cost", shape=3)
    objective = dg.sum(c * x)
    if quadratic:
        objective = objective + (quadratic if sense == "minimize" else -quadratic) * dg.sum(x * x)
    m.minimize(objective) if sense == "minimize" else m.maximize(objective)
    m.subject_to(dg.sum(x) == 1.0)
    return dg.DecisionLayer(m)


LAYER, CURVED = simplex(), simplex(quadratic=0.3)
POOL = {"x": np.eye(3)}


def batch_of(layer: dg.DecisionLayer, costs: np.ndarray, key: int = 0) -> Batch:
    optimal, lead = layer.solve({"cost": costs}), costs.shape[:-1]
    parts = (np.zeros(lead, int), np.zeros((*lead, 1)), {"cost": costs}, {}, optimal.x, optimal.objective)
    return Batch(*parts, np.ones(lead), spread={"cost": SPREAD}, pool=POOL, key=jax.random.PRNGKey(key))


def value(loss: Any, layer: dg.DecisionLayer, predicted: Any, costs: np.ndarray, key: int = 0) -> Any:
    batch = batch_of(layer, costs, key)
    queries = loss.queries(layer, {"cost": jax.lax.stop_gradient(predicted)}, batch)
    answers = {label: layer.solve(query).x for label, query in queries.items()}
    return loss.value(layer, {"cost": predicted}, answers, batch)


def gradient(
    loss: Any, layer: dg.DecisionLayer, predicted: np.ndarray, costs: np.ndarray, key: int = 0
) -> Any:
    batch = batch_of(layer, costs, key)
    queries = loss.queries(layer, {"cost": predicted}, batch)
    answers = {label: layer.solve(query).x for label, query in queries.items()}

    def total(predicted: Any) -> Any:
        return loss.value(layer, {"cost": predicted}, answers, batch).sum()

    return np.asarray(jax.grad(total)(jnp.asarray(predicted)))


DECISION_LOSSES = [
    losses.SPOPlus(),
    losses.PerturbationGradient(0.1),
    losses.PerturbationGradient(0.2, "central"),
    losses.PerturbationGradient(0.1, "forward"),
    losses.PerturbedFenchelYoung(0.5, 3),
    losses.PerturbedFenchelYoung(0.5, 2, "multiplicative"),
    losses.PerturbedFenchelYoung(0.5, 4, antithetic=True),
    losses.ScoreFunction(0.5, 4),
    losses.NCE(),
    losses.MAP(),
    losses.MAP(margin=False),
    losses.PointwiseRank(),
    losses.PairwiseRank(),
    losses.ListwiseRank(),
]
named = pytest.mark.parametrize("loss", DECISION_LOSSES, ids=repr)
costs = st.lists(st.floats(-5, 5), min_size=6, max_size=6).map(lambda v: np.array(v).reshape(2, 3))
drawn = settings(max_examples=25, suppress_health_check=[HealthCheck.too_slow], deadline=None)


# ------------------------------------------------------------------------------------------------ SPO+, PG


@in_float64
def test_the_published_example_of_spo_plus():
    true, predicted = np.array([[1.0, 2.0, 4.0]]), np.array([[3.0, 2.5, 1.0]])
    assert float(value(Regret(), LAYER, predicted, true)[0]) == pytest.approx(3.0)
    assert float(value(losses.SPOPlus(), LAYER, predicted, true)[0]) == pytest.approx(7.0)
    np.testing.assert_allclose(gradient(losses.SPOPlus(), LAYER, predicted, true), [[2.0, 0.0, -2.0]])


@in_float64
def test_spo_plus_on_an_interval():
    m = dg.Model()
    x, c = m.continuous("x", lb=-0.5, ub=0.5), m.parameter("cost")
    m.minimize(c * x)
    layer = dg.DecisionLayer(m)
    for predicted in (-1.0, 0.2, 0.4, 0.6, 3.0):
        found = value(losses.SPOPlus(), layer, np.array([predicted]), np.array([1.0]))
        assert float(found[0]) == pytest.approx(max(0.0, 1.0 - 2.0 * predicted))


@drawn
@given(costs, costs)
@in_float64
def test_spo_plus_bounds_regret_and_vanishes_at_the_truth(predicted, true):
    for layer in (LAYER, CURVED):
        plus, regret = (np.asarray(value(x, layer, predicted, true)) for x in (losses.SPOPlus(), Regret()))
        assert (plus >= regret - 1e-9).all()
        np.testing.assert_allclose(value(losses.SPOPlus(), layer, true, true), 0.0, atol=1e-9)


@drawn
@given(costs, costs, st.floats(0.1, 0.9))
@in_float64
def test_spo_plus_is_convex_along_a_line(predicted, other, share):
    true, loss = np.array([[1.0, -0.5, 0.3], [2.0, 0.1, 0.2]]), losses.SPOPlus()
    between = np.asarray(value(loss, CURVED, share * predicted + (1 - share) * other, true))
    ends = share * value(loss, CURVED, predicted, true) + (1 - share) * value(loss, CURVED, other, true)
    assert (between <= np.asarray(ends) + 1e-9).all()


@drawn
@given(costs, costs)
@in_float64
def test_directional_gradients_enclose_regret(predicted, true):
    for layer in (LAYER, CURVED):
        regret = np.asarray(value(Regret(), layer, predicted, true))
        back = np.asarray(value(losses.PerturbationGradient(1e-3), layer, predicted, true))
        forward = np.asarray(value(losses.PerturbationGradient(1e-3, "forward"), layer, predicted, true))
        assert (forward <= regret + 1e-8).all() and (regret <= back + 1e-8).all()


# --------------------------------------------------------------------------------------- all of them alike


@named
@pytest.mark.parametrize("layer", [LAYER, CURVED], ids=["linear", "curved"])
@in_float64
def test_the_gradient_is_the_slope_of_the_value(loss, layer):
    """Also of those whose decisions move: by the envelope theorem the value's slope does not see it."""
    if isinstance(loss, losses.ScoreFunction):
        pytest.skip("its value is a mean of draws; its gradient is that of the expectation, tested below")
    rng = np.random.default_rng(4)
    predicted, true = rng.uniform(0.5, 2.0, (2, 3, 3))
    found = gradient(loss, layer, predicted, true)
    for i, j in product(range(3), range(3)):
        step = np.zeros((3, 3))
        step[i, j] = 1e-6
        ends = [np.asarray(value(loss, layer, predicted + s * step, true)).sum() for s in (1.0, -1.0)]
        assert found[i, j] == pytest.approx((ends[0] - ends[1]) / 2e-6, abs=1e-5)


@named
@in_float64
def test_maximizing_the_negative_is_the_same(loss):
    rng = np.random.default_rng(5)
    predicted, true = rng.uniform(0.5, 2.0, (2, 4, 3))
    twin = simplex("maximize")
    up = functools.partial(batch_of, twin)
    np.testing.assert_allclose(up(-true).optimal["x"], batch_of(LAYER, true).optimal["x"], atol=1e-12)
    if loss in (losses.ScoreFunction(0.5, 4),) or getattr(loss, "kind", "") == "additive":
        # The noise is drawn for the stated parameter: with −z for z it is the same draw.
        loss = _mirrored(loss)
    found = value(loss, twin, -predicted, -true)
    expected = value(_plain(loss), LAYER, predicted, true)
    np.testing.assert_allclose(found, expected, atol=1e-10)
    np.testing.assert_allclose(
        gradient(loss, twin, -predicted, -true), -gradient(_plain(loss), LAYER, predicted, true), atol=1e-10
    )


class _Mirror:
    """A loss whose noise is −z in place of z."""

    def __init__(self, loss: Any) -> None:
        self.loss = loss

    def _with(self, method: str, *arguments: Any) -> Any:
        from decigrad.losses import perturbed

        original = perturbed.noise
        perturbed.noise = lambda *a: {name: -z for name, z in original(*a).items()}
        try:
            return getattr(self.loss, method)(*arguments)
        finally:
            perturbed.noise = original

    def queries(self, *arguments: Any) -> Any:
        return self._with("queries", *arguments)

    def value(self, *arguments: Any) -> Any:
        return self._with("value", *arguments)


def _mirrored(loss: Any) -> Any:
    return _Mirror(loss)


def _plain(loss: Any) -> Any:
    return loss.loss if isinstance(loss, _Mirror) else loss


@named
@in_float64
def test_lanes_and_samples_lead(loss):
    rng = np.random.default_rng(6)
    predicted, true = rng.uniform(0.5, 2.0, (2, 2, 4, 3))
    found = value(loss, LAYER, predicted, true)
    assert found.shape == (2, 4)
    if not hasattr(loss, "sigma"):
        np.testing.assert_allclose(found[1, 2], value(loss, LAYER, predicted[1, 2:3], true[1, 2:3])[0])


@pytest.mark.parametrize(
    "loss", [x for x in DECISION_LOSSES if not isinstance(x, losses.ScoreFunction)], ids=repr
)
def test_predicted_constraints_and_nonlinear_costs_are_refused(loss):
    m = dg.Model()
    x, c = m.continuous("x", 2, lb=0.0, ub=3.0), m.parameter("c", shape=2)
    m.minimize(dg.sum(dg.exp(c) * x))
    with pytest.raises(ModelError, match=r"affine in \['c'\]"):
        loss.check(dg.DecisionLayer(m))
    m = dg.Model()
    x, d = m.continuous("x", 2, lb=0.0), m.parameter("d")
    m.minimize(dg.sum(x))
    m.subject_to(dg.sum(x) >= d)
    with pytest.raises(ModelError, match=r"\['d'\] enter constraints"):
        loss.check(dg.DecisionLayer(m))


STATED = [  # whether affine in c, whatever its sign and size
    (True, lambda c, k, x: c @ x),
    (True, lambda c, k, x: dg.sum((2.0 * c - k) / dg.exp(k) * x) + c[0] * (1.0 - dg.sum(x))),
    (True, lambda c, k, x: (c[::-1] @ np.array([[1.0, 2.0], [0.0, 3.0]])) @ x + dg.sum_squares(x - k)),
    (False, lambda c, k, x: dg.abs(c) @ x),
    (False, lambda c, k, x: dg.sum(dg.maximum(c, -3.0) * x)),
    (False, lambda c, k, x: dg.sum(dg.maximum(c, 2e3 + k) * x)),
    (False, lambda c, k, x: dg.sum(dg.log(c) * x)),
    (False, lambda c, k, x: (c * c[0]) @ x),
    (False, lambda c, k, x: (k / c) @ x),
    (False, lambda c, k, x: dg.sum(x) + dg.sum_squares(c - x)),
]


@pytest.mark.parametrize(("affine", "stated"), STATED)
def test_what_is_affine_somewhere_only_is_refused(affine, stated):
    m = dg.Model()
    x, c, k = m.continuous("x", 2, lb=0.0, ub=3.0), m.parameter("c", shape=2), m.parameter("k", shape=2)
    m.minimize(stated(c, k, x))
    layer = dg.DecisionLayer(m, predicts=["c"])

    def objective(c: np.ndarray) -> float:
        return float(layer.objective({"x": np.array([1.0, 2.0])}, {"c": c, "k": np.ones(2)}))

    if affine:
        losses.SPOPlus().check(layer)
        ends = [objective(np.array(c)) for c in ([-4e3, 5.0], [0.0, 2.0], [4e3, -1.0])]
        assert ends[0] + ends[2] == pytest.approx(2.0 * ends[1])
    else:
        with pytest.raises(ModelError, match="affine"):
            losses.SPOPlus().check(layer)


@pytest.mark.parametrize(
    "make",
    [
        lambda: losses.PerturbationGradient(0.0),
        lambda: losses.PerturbationGradient(0.1, "sideways"),
        lambda: losses.PerturbedFenchelYoung(sigma=-1.0),
        lambda: losses.PerturbedFenchelYoung(kind="other"),
        lambda: losses.ScoreFunction(samples=1),
        lambda: losses.PairwiseRank(-1.0),
        lambda: losses.ListwiseRank(0.0),
    ],
)
def test_senseless_settings_are_refused(make):
    with pytest.raises(ModelError):
        make()


# ------------------------------------------------------------------------------------------------ perturbed


def two() -> dg.DecisionLayer:
    """Choose one of two: the first with probability Φ((c₂ − c₁)/(√2 σ)) under normal noise."""
    m = dg.Model()
    x, c = m.continuous("x", shape=2, lb=0.0), m.parameter("cost", shape=2)
    m.minimize(c @ x)
    m.subject_to(dg.sum(x) == 1.0)
    choose = dg.Oracle(lambda q: jnp.eye(2, dtype=q.dtype)[jnp.argmin(q, -1)], jax=True)
    return dg.DecisionLayer(m, solver=choose)


@in_float64
def test_perturbed_losses_estimate_the_closed_form():
    layer, samples = two(), 400_000
    true, predicted = np.array([[1.0, 2.0]]), np.array([[1.7, 1.2]])
    optimal = np.array([[1.0, 0.0]])
    batch = Batch(
        np.zeros(1, int), None, {"cost": true}, {}, {"x": optimal}, np.ones(1), np.ones(1),
        spread={"cost": np.ones(2)}, pool=None, key=jax.random.PRNGKey(0),
    )  # fmt: skip
    scale = 0.8 * np.sqrt(2.0)
    first = norm.cdf((predicted[0, 1] - predicted[0, 0]) / scale)
    slope = norm.pdf((predicted[0, 1] - predicted[0, 0]) / scale) / scale

    def of(loss: Any) -> np.ndarray:
        answers = {k: layer.solve(q).x for k, q in loss.queries(layer, {"cost": predicted}, batch).items()}
        total = lambda p: loss.value(layer, {"cost": p}, answers, batch).sum()  # noqa: E731
        return np.asarray(jax.grad(total)(jnp.asarray(predicted)))[0]

    young = of(losses.PerturbedFenchelYoung(0.8, samples))
    np.testing.assert_allclose(young, [1.0 - first, first - 1.0], atol=5e-3)
    # Expected regret is the probability of the second times 1.
    score = of(losses.ScoreFunction(0.8, samples))
    np.testing.assert_allclose(score, [slope, -slope], atol=1e-2)


# ---------------------------------------------------------------------------------------------- on the pool


@in_float64
def test_pool_losses_by_hand():
    true, predicted = np.array([[1.0, 2.0, 4.0]]), np.array([[3.0, 2.5, 1.0]])

    def of(loss: Any) -> float:
        return float(value(loss, LAYER, predicted, true)[0])

    assert of(losses.NCE()) == pytest.approx(3.0 - 6.5 / 3)
    assert of(losses.MAP(margin=False)) == pytest.approx(3.0 - 1.0)
    assert of(losses.MAP()) == pytest.approx(2.0 + 3.0)  # ĉ − c = (2, ½, −3)
    assert of(losses.PointwiseRank()) == pytest.approx((4.0 + 0.25 + 9.0) / 3)
    assert of(losses.PairwiseRank(0.0)) == pytest.approx((0.0 + 0.5 + 2.0) / 3)
    assert of(losses.PairwiseRank()) == pytest.approx((0.0 + 1.5 + 5.0) / 3)
    tau = 0.5 * true.std()
    p, q = (np.exp(-c / tau) / np.exp(-c / tau).sum() for c in (true[0], predicted[0]))
    assert of(losses.ListwiseRank()) == pytest.approx(-tau * (p * np.log(q)).sum())


# ------------------------------------------------------------------------------------------------- training


@pytest.mark.parametrize(
    "loss", [losses.SPOPlus(), losses.PerturbedFenchelYoung(0.5, 2), losses.PairwiseRank()], ids=repr
)
def test_training_is_the_same_on_the_host_and_on_the_device(loss):
    rng = np.random.default_rng(0)
    features = rng.normal(size=(40, 3))
    costs = 2.0 + np.abs(features @ rng.normal(size=(3, 2)) + 0.3 * rng.normal(size=(40, 2)))
    data = dg.Dataset(features, targets={"cost": costs})
    device = two()
    host = dg.DecisionLayer(device.model, solver=dg.Oracle(lambda q: np.eye(2)[q.argmin(-1)]))
    options = {"epochs": 3, "batch_size": 8, "selection": dg.CrossValidation(folds=2, weights=(0.1,))}
    fits = [dg.fit(dg.Linear(), layer, data, loss, **options) for layer in (device, host)]
    np.testing.assert_allclose(fits[0].chosen["gain"], fits[1].chosen["gain"], atol=1e-9)
    np.testing.assert_allclose(fits[0].predictor.weight, fits[1].predictor.weight, atol=1e-9)
    free = [
        dg.fit(dg.Linear(), layer, data, loss, **{**options, "selection": None}) for layer in (device, host)
    ]
    assert np.abs(free[0].predictor.weight - free[0].two_stage.weight).max() > 1e-4
    np.testing.assert_allclose(free[0].predictor.weight, free[1].predictor.weight, atol=1e-9)
    # the labels are those of the first fit, which the dataset remembers
    assert free[0].solver_calls == free[1].solver_calls == 3 * 40 * loss.solves
