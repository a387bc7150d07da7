"""Estimated gradients: formulas, closed forms, host and device alike, failures, and what they refuse."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.stats import norm

import decigrad as dg
from decigrad.errors import ModelError
from decigrad.gradients import IMLE, BlackBox, Identity, Perturbed
from decigrad.problems import selection_layer

ESTIMATORS = [
    BlackBox(0.7),
    Identity(),
    Identity("none"),
    Identity("both"),
    Perturbed(0.5, 4),
    Perturbed(0.3, 4, "multiplicative"),
    IMLE(0.4, 0.8, 3),
    IMLE(0.4, 0.8, 2, kappa=2),
    IMLE(0.2, 0.1, 2, adaptive=True),
]


@pytest.fixture(autouse=True)
def float64():
    with jax.enable_x64(True):
        yield


def choose(gradient, n=2, host=False, sense="minimize"):
    """Choose the cheapest of n."""
    m = dg.Model("choice")
    x, c = m.continuous("x", shape=n, lb=0.0), m.parameter("cost", shape=n)
    m.minimize(c @ x) if sense == "minimize" else m.maximize(c @ x)
    m.subject_to(dg.sum(x) == 1.0)
    if host:
        oracle = dg.Oracle(lambda q: np.eye(n)[q.argmin(-1)])
    else:
        oracle = dg.Oracle(lambda q: jnp.eye(n, dtype=q.dtype)[jnp.argmin(q, -1)], jax=True)
    return dg.DecisionLayer(m, solver=oracle, gradient=gradient)


def pulled(layer, costs, cotangent):
    costs = jnp.asarray(costs)
    return np.asarray(jax.grad(lambda c: (layer({"cost": c})["x"] * cotangent).sum())(costs))


def test_black_box_by_hand():
    # q = (1, 2), x̄ = (3, 0): λ = .7 ‖q‖/‖x̄‖ moves q to (1 + .7 √5, 2), where the second is cheaper.
    length = 0.7 * np.sqrt(5.0) / 3.0
    found = pulled(choose(BlackBox(0.7)), [1.0, 2.0], np.array([3.0, 0.0]))
    np.testing.assert_allclose(found, np.array([-1.0, 1.0]) / length, atol=1e-12)
    np.testing.assert_array_equal(pulled(choose(BlackBox(0.1)), [1.0, 2.0], np.array([3.0, 0.0])), 0.0)
    np.testing.assert_array_equal(pulled(choose(BlackBox(0.1)), [1.0, 2.0], np.zeros(2)), 0.0)


def test_identity_by_hand():
    q, bar = np.array([1.0, 2.0]), np.array([3.0, 0.5])
    np.testing.assert_allclose(pulled(choose(Identity("none")), q, bar), -bar)
    size = np.sqrt(2.5)
    jacobian = np.eye(2) / size - np.outer(q, q) / (2 * size**3)
    np.testing.assert_allclose(pulled(choose(Identity("norm")), q, bar), -jacobian @ bar, atol=1e-12)
    np.testing.assert_allclose(pulled(choose(Identity("mean")), q, bar), bar.mean() - bar, atol=1e-12)


def test_perturbed_estimates_the_expected_decision_and_its_slope():
    q, sigma = np.array([1.7, 1.2]), 0.5
    scale = sigma * np.sqrt((q**2).mean()) * np.sqrt(2.0)
    layer = choose(Perturbed(sigma, 100_000))
    first, slope = norm.cdf((q[1] - q[0]) / scale), norm.pdf((q[1] - q[0]) / scale) / scale
    np.testing.assert_allclose(layer({"cost": q})["x"], [first, 1.0 - first], atol=6e-3)
    np.testing.assert_allclose(pulled(layer, q, np.array([1.0, 0.0])), [-slope, slope], atol=2e-2)
    factor = choose(Perturbed(sigma, 100_000, "multiplicative"))
    spread = sigma * np.sqrt(2.0)
    at = norm.cdf((np.log(q[1]) - np.log(q[0])) / spread)
    np.testing.assert_allclose(factor({"cost": q})["x"], [at, 1.0 - at], atol=6e-3)
    steep = norm.pdf((np.log(q[1]) - np.log(q[0])) / spread) / spread
    np.testing.assert_allclose(
        pulled(factor, q, np.array([1.0, 0.0])), [-steep / q[0], steep / q[1]], atol=2e-2
    )


def test_perturbations_with_gumbel_noise_give_softmax():
    """IMLE's noise for one nonzero entry is Gumbel's, whose perturbed choice is a softmax."""
    q = np.array([0.3, 1.0, -0.5])
    size = np.sqrt((q**2).mean())
    layer = choose(IMLE(sigma=1.0 / size, samples=50_000, kappa=1), n=3, sense="maximize")
    found = np.asarray(layer({"cost": q})["x"])
    np.testing.assert_allclose(found, np.exp(q) / np.exp(q).sum(), atol=0.02)


@pytest.mark.parametrize("gradient", [ESTIMATORS[i] for i in (0, 3, 5, 8)], ids=repr)
def test_training_is_the_same_on_the_host_and_on_the_device(gradient):
    rng = np.random.default_rng(0)
    features = rng.normal(size=(40, 3))
    costs = 2.0 + np.abs(features @ rng.normal(size=(3, 4)) + 0.3 * rng.normal(size=(40, 4)))
    data = dg.Dataset(features, targets={"cost": costs})
    fits = [
        dg.fit(dg.Linear(), choose(gradient, 4, host), data, selection=None, epochs=3, batch_size=8)
        for host in (False, True)
    ]
    moved = np.abs(fits[0].predictor.weight - fits[0].two_stage.weight).max()
    assert moved > 1e-4
    np.testing.assert_allclose(fits[0].predictor.weight, fits[1].predictor.weight, atol=1e-9)


@pytest.mark.parametrize("gradient", ESTIMATORS, ids=repr)
def test_shapes_batches_and_failures(gradient):
    layer = choose(gradient, 3)
    costs = np.random.default_rng(1).uniform(0.5, 2.0, (2, 5, 3))
    assert layer({"cost": costs})["x"].shape == (2, 5, 3)
    bad = costs.copy()
    bad[0, 3, 1] = np.nan
    found = pulled(layer, bad, np.ones((2, 5, 3)) * np.arange(3))
    assert np.isfinite(found).all()
    np.testing.assert_array_equal(found[0, 3], 0.0)
    assert layer.exact({"cost": costs[0]})["x"].max() == 1.0


@pytest.mark.parametrize("gradient", ESTIMATORS, ids=repr)
def test_predicted_constraints_are_refused(gradient):
    m = dg.Model()
    x, d = m.continuous("x", 2, lb=0.0), m.parameter("d")
    m.minimize(dg.sum(x))
    m.subject_to(dg.sum(x) >= d)
    with pytest.raises(ModelError, match=r"cost alone, but \['d'\] enter constraints"):
        dg.DecisionLayer(m, gradient=gradient)


@pytest.mark.parametrize(
    "make",
    [
        lambda: BlackBox(0.0),
        lambda: Identity("other"),
        lambda: Perturbed(samples=1),
        lambda: Perturbed(kind="other"),
        lambda: IMLE(lam=-1.0),
    ],
)
def test_senseless_settings_are_refused(make):
    with pytest.raises(ModelError):
        make()


@pytest.mark.parametrize(
    "gradient",
    [dg.BlackBox(), dg.Identity(), dg.Perturbed(samples=3), dg.IMLE(samples=2), dg.IMLE(adaptive=True)],
    ids=str,
)
def test_solver_calls_are_counted_as_they_are_made(gradient):
    asked = []

    def cheapest(costs):
        asked.append(len(costs))
        return np.eye(4)[costs.argmin(1)]

    layer = dg.DecisionLayer(selection_layer(4, 1).model, solver=dg.Oracle(cheapest), gradient=gradient)
    rng = np.random.default_rng(0)
    data = dg.Dataset(rng.normal(size=(12, 2)), targets={"cost": rng.normal(size=(12, 4))})
    found = dg.fit(
        dg.Linear(), layer, data, dg.losses.Regret(), selection=None, epochs=2, batch_size=4, progress=False
    )
    assert found.solver_calls == sum(asked)
