"""The trainer: it says when a gradient is zero, and keeps held-out labels from its lanes."""

from __future__ import annotations

import logging

import numpy as np
import pytest

import decigrad as dg
from decigrad import steps
from decigrad.compiled import float64
from decigrad.gradients import BlackBox, Relaxed, Smoothed
from decigrad.losses import MAP, NCE, Imitation, ListwiseRank, PairwiseRank, PointwiseRank, Regret, SPOPlus
from decigrad.predictors import initialized, least_squares
from decigrad.trainer import Trainer


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


# ------------------------------------------------------------------------------------------ held-out labels

PARTS = [np.arange(8), np.arange(4, 12)]
FEATURES, COSTS, _ = dg.problems.shortest_path_samples(24, rows=4, cols=4)
DATA = dg.Dataset(FEATURES, {"cost": COSTS})
PATHS = dg.problems.shortest_path_layer(4, 4)
with float64():
    START = least_squares(initialized(dg.Linear(), PATHS, DATA, 0), DATA.take(np.arange(4)))
ADAM = steps.adam(0.01)


def trained(data: dg.Dataset, parts: list[np.ndarray], loss, **options) -> list[np.ndarray]:
    """Weights of a lane for each part after two epochs."""
    with float64():
        trainer = Trainer(START, PATHS, loss, data, ADAM, batch_size=4, **options)
        zero, rng = np.zeros(len(parts)), np.random.default_rng(0)
        lanes = trainer.lanes([START] * len(parts), parts, zero, zero)
        for _ in range(2):
            trainer.epoch(lanes, rng)
        return [np.asarray(trainer.predictor(lanes, i).weight) for i in range(len(parts))]


@pytest.mark.parametrize(
    "loss", [NCE(), MAP(), PointwiseRank(), PairwiseRank(0.5), ListwiseRank()], ids=lambda x: type(x).__name__
)
def test_a_lane_ranks_the_decisions_of_its_own_samples_alone(loss):
    """It trains as it does where the samples of other lanes do not exist."""
    every = PATHS.solve({"cost": COSTS}).x["x"]
    assert all(len(np.unique(every[part], axis=0)) < len(np.unique(every, axis=0)) for part in PARTS)
    for found, part in zip(trained(DATA, PARTS, loss), PARTS, strict=True):
        assert np.abs(found - np.asarray(START.weight)).max() > 1e-3
        (alone,) = trained(DATA.take(part), [np.arange(8)], loss)
        np.testing.assert_allclose(found, alone, atol=1e-12)


@pytest.mark.parametrize("ratio", [0.0, 0.5])
def test_a_lane_reuses_the_decisions_of_its_own_samples_alone(ratio):
    together = trained(DATA, PARTS, SPOPlus(), solve_ratio=ratio)
    for found, part in zip(together, PARTS, strict=True):
        (alone,) = trained(DATA.take(part), [np.arange(8)], SPOPlus(), solve_ratio=ratio)
        np.testing.assert_allclose(found, alone, atol=1e-12)
