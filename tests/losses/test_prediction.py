"""Losses of the prediction: their formula, and what they refuse."""

import numpy as np
import pytest

import decigrad as dg
from decigrad.errors import ModelError
from decigrad.losses import MSE, Batch, LeastSquares


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
