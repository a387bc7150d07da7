"""Losses of the prediction: their formula, and what they refuse."""

import numpy as np
import pytest

import decigrad as dg
from decigrad.errors import ModelError
from decigrad.losses import MSE, Batch, LeastSquares, Quantile


def layer() -> dg.DecisionLayer:
    m = dg.Model("two parameters")
    x = m.continuous("x", shape=3, lb=0.0, ub=1.0)
    c, tilt = m.parameter("cost", shape=3), m.parameter("tilt")
    m.minimize(dg.sum(c * x) + tilt * x[0] + dg.sum(x * x))
    return dg.DecisionLayer(m, solver="daqp")


def test_mse_is_the_mean_over_the_entries_of_all_parameters():
    rng = np.random.default_rng(0)
    predicted = {"cost": rng.normal(size=(2, 5, 3)), "tilt": rng.normal(size=(2, 5))}
    true = {"cost": rng.normal(size=(2, 5, 3)), "tilt": rng.normal(size=(2, 5))}
    batch = Batch(None, None, true, {}, {}, None, None)
    for loss in (MSE(), LeastSquares()):
        assert loss.queries(layer(), predicted, batch) == {} and not loss.decides
        found = loss.value(layer(), predicted, {}, batch)
        expected = ((predicted["cost"] - true["cost"]) ** 2).sum(-1) + (predicted["tilt"] - true["tilt"]) ** 2
        np.testing.assert_allclose(found, expected / 4)


def test_prediction_losses_take_any_layer():
    m = dg.Model("demand")
    x = m.continuous("x", lb=0.0)
    m.minimize(x * x)
    m.subject_to(x >= m.parameter("demand"))
    MSE().check(dg.DecisionLayer(m, solver="daqp"))


@pytest.mark.parametrize("ridge", [-1.0, np.nan])
def test_a_negative_penalty_is_refused(ridge):
    with pytest.raises(ModelError, match="ridge must be ≥ 0"):
        LeastSquares(ridge=ridge)


def test_the_pinball_loss_is_least_at_the_quantile():
    rng = np.random.default_rng(1)
    true = {"cost": rng.exponential(size=(41, 3)), "tilt": rng.normal(size=41)}
    batch = Batch(None, None, true, {}, {}, None, None)

    def total(q: float, at: dict[str, np.ndarray]) -> float:
        same = {n: np.broadcast_to(v, true[n].shape) for n, v in at.items()}
        return float(np.sum(Quantile(q).value(layer(), same, {}, batch)))

    for q in (0.2, 0.5, 0.9):
        best = {n: np.quantile(v, q, axis=0, method="inverted_cdf") for n, v in true.items()}
        for name in true:
            for move in (-0.05, 0.05):
                assert total(q, best) < total(q, {**best, name: best[name] + move})
    error = {n: v + 2.0 for n, v in true.items()}
    np.testing.assert_allclose(Quantile(0.3).value(layer(), error, {}, batch), 0.7 * 2.0, atol=1e-6)


@pytest.mark.parametrize("q", [0.0, 1.0, np.nan])
def test_a_level_outside_the_unit_interval_is_refused(q):
    with pytest.raises(ModelError, match="q must lie between 0 and 1"):
        Quantile(q)
