"""The trainer: it says when a gradient is zero."""

from __future__ import annotations

import logging

import numpy as np
import pytest

import decigrad as dg
from decigrad.gradients import BlackBox, Relaxed, Smoothed
from decigrad.losses import Imitation, Regret


def choice(curvature: float = 0.0, binary: bool = False) -> dg.DecisionLayer:
    """One of three, at predicted costs."""
    m = dg.Model("choice")
    x = m.binary("x", shape=3) if binary else m.continuous("x", shape=3, lb=0.0, ub=1.0)
    cost = m.parameter("cost", shape=3) @ x
    m.minimize(cost + curvature * dg.sum(x * x) if curvature else cost)
    m.subject_to(dg.sum(x) == 1.0)
    return dg.DecisionLayer(m)


def order() -> dg.DecisionLayer:
    """Predictions on the right-hand side, so that the linear decision moves with them."""
    m = dg.Model("order")
    x = m.continuous("x", shape=3, lb=0.0, ub=9.0)
    m.minimize(dg.sum(x))
    m.subject_to(x >= m.parameter("cost", shape=3))
    return dg.DecisionLayer(m)


SHORTAGE = Regret(lambda x, p: ((x["x"] - 2.0 * p["cost"]) ** 2).sum())

CASES = {
    "linear": (choice(), Regret()),
    "integer": (choice(binary=True), Regret()),
    "relaxed": (choice(binary=True).with_gradient(Relaxed()), Regret()),
    "oracle": (dg.problems.shortest_path_layer(2, 2), Regret()),
    "imitation": (choice(), Imitation()),
    "another cost": (choice(), SHORTAGE),
    "quadratic": (choice(0.4), Regret()),
    "constraints": (order(), SHORTAGE),
    "barrier": (choice().with_gradient(Smoothed(1.0, "barrier")), Imitation()),
    "estimated": (choice().with_gradient(BlackBox()), Regret()),
}


@pytest.mark.parametrize("name", CASES)
def test_a_gradient_of_zero_is_said_exactly_where_nothing_moves(name, caplog):
    layer, loss = CASES[name]
    rng = np.random.default_rng(0)
    features, size = rng.normal(size=(24, 2)), layer.parameters["cost"].shape
    cost = 2.0 + 0.6 * (features[:, :1] * features[:, 1:]) + 0.3 * rng.normal(size=(24, *size))
    with caplog.at_level(logging.WARNING, logger="decigrad"):
        fitted = dg.fit(
            dg.Linear(), layer, dg.Dataset(features, {"cost": np.abs(cost)}), loss, selection=None, epochs=2
        )
    moved = np.abs(fitted.predictor.weight - fitted.two_stage.weight).max() > 1e-6
    said = [record.getMessage() for record in caplog.records if "cannot train" in record.getMessage()]
    assert len(said) == (not moved)
    assert all(f"{type(loss).__name__} cannot train {layer.model.name!r}" in text for text in said)
