"""A decision that fails on one sample of a training: named by index, and training goes on or stops."""

from __future__ import annotations

import logging
import time

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import decigrad as dg
from decigrad.errors import ModelError, SolveError
from decigrad.losses import NCE, SPOPlus
from decigrad.solvers import HiGHS

FEATURES = np.arange(0.1, 1.25, 0.1)[:, None]
TRUE = np.concatenate([np.minimum(FEATURES, 1.0), np.full((12, 1), 0.55)], axis=1)
DATA = dg.Dataset(FEATURES, {"cost": TRUE})
FAILING = [10, 11]
"""Where SPO+ asks about a first cost above 1.05: 2·1.1 − 1 and 2·1.2 − 1. No true cost is so high."""


class Slope(eqx.Module):
    """The first cost is a multiple of the feature, the second is known."""

    slope: jax.Array

    def __call__(self, features):
        return jnp.stack([self.slope * features[0], 0.55 * jnp.ones(())])


def cheapest(cost):
    return 1.0 * (cost == cost.min(axis=-1, keepdims=True))


def choice() -> dg.Model:
    m = dg.Model("choice")
    x = m.continuous("x", shape=2, lb=0.0, ub=1.0)
    m.minimize(dg.sum(m.parameter("cost", shape=2) * x))
    m.subject_to(dg.sum(x) == 1.0)
    return m


def raises(cost):
    if (cost[:, 0] > 1.05).any():
        raise RuntimeError("too expensive")
    return cheapest(cost)


def runs_out_of_time(cost):
    if (cost[:, 0] > 1.05).any():
        raise TimeoutError
    return cheapest(cost)


ORACLES = {
    "ORACLE_ERROR": dg.Oracle(raises),
    "TIME_LIMIT": dg.Oracle(runs_out_of_time),
    "NO_SOLUTION": dg.Oracle(lambda c: jnp.where(c[:, :1] > 1.05, jnp.nan, cheapest(c)), jax=True),
    "INFEASIBLE_POINT": dg.Oracle(lambda c: cheapest(c) * (1.0 + (c[:, :1] > 1.05))),
}
EACH = pytest.mark.parametrize("status", ORACLES)


def train(oracle, data=DATA, throw=True, **options):
    layer = dg.DecisionLayer(choice(), solver=oracle, throw=throw)
    given = {"selection": None, "epochs": 2, "batch_size": 4, "learning_rate": 1e-4, "warm_start": False}
    with jax.enable_x64(True):
        start = Slope(jnp.array(1.0))
    loss = options.pop("loss", SPOPlus())
    return dg.fit(start, layer, data, loss, progress=False, averaging=False, **{**given, **options})


@EACH
def test_training_goes_on_without_the_samples_that_fail_and_lists_them(status, caplog):
    with caplog.at_level(logging.WARNING, logger="decigrad"):
        found = train(ORACLES[status], batch_size=12)
    assert found.failures == dict.fromkeys(FAILING, status)
    assert found.history["failed"] == [2, 2]
    clean = train(dg.Oracle(cheapest), DATA.take(np.arange(10)), batch_size=12)
    np.testing.assert_allclose(found.history["loss"], clean.history["loss"], rtol=1e-12)
    np.testing.assert_allclose(found.predictor.slope, clean.predictor.slope, rtol=1e-12)
    (record,) = caplog.records
    assert record.getMessage().startswith(
        f"2 of 12 samples failed to solve at least once, the first is 10 ({status}"
    )


@EACH
def test_training_stops_at_the_first_sample_that_fails(status):
    with pytest.raises(SolveError, match=rf"sample 1[01] of the data ended with {status}"):
        train(ORACLES[status], on_failure="raise")


def test_failures_of_the_selection_are_listed_too():
    found = train(ORACLES["ORACLE_ERROR"], selection=dg.CrossValidation(folds=3), epochs=1)
    assert set(found.failures) <= set(FAILING)
    assert found.failures


def test_nothing_is_listed_where_nothing_fails(caplog):
    found = train(dg.Oracle(cheapest), on_failure="raise")
    assert found.failures == {}
    assert not caplog.records


def test_a_sample_without_a_true_decision_is_an_error_or_left_out():
    worse = dg.Dataset(FEATURES, {"cost": TRUE + np.eye(12)[:, :1] * 2.0})  # sample 0
    with pytest.raises(SolveError, match="sample 0 ended with ORACLE_ERROR"):
        train(ORACLES["ORACLE_ERROR"], worse)
    found = train(ORACLES["ORACLE_ERROR"], worse, throw=False, batch_size=12)
    assert found.failures == dict.fromkeys([0, *FAILING], "ORACLE_ERROR")
    clean = train(dg.Oracle(cheapest), DATA.take(np.arange(1, 10)), batch_size=12)
    np.testing.assert_allclose(found.history["loss"], clean.history["loss"], rtol=1e-12)
    with pytest.raises(SolveError, match="no sample has a decision"):
        train(dg.Oracle(lambda c: np.full(c.shape, np.nan)), throw=False)


def test_a_sample_without_a_true_decision_adds_none_to_the_pool():
    worse = dg.Dataset(FEATURES, {"cost": TRUE + np.eye(12)[:, :1] * 2.0})  # sample 0
    found = train(ORACLES["ORACLE_ERROR"], worse, throw=False, batch_size=12, loss=NCE())
    clean = train(dg.Oracle(cheapest), DATA.take(np.arange(1, 12)), batch_size=12, loss=NCE())
    assert found.failures == {0: "ORACLE_ERROR"}
    np.testing.assert_allclose(found.history["loss"], clean.history["loss"], rtol=1e-12)


def test_what_to_do_on_failure_is_checked():
    with pytest.raises(ModelError, match="'continue' or 'raise', got 'ignore'"):
        train(dg.Oracle(cheapest), on_failure="ignore")


def test_a_time_limit_of_highs_is_reported_by_sample():
    """Market split: three equalities over 30 binaries take branch and bound hours."""
    rng = np.random.default_rng(0)
    weights = rng.integers(0, 100, (3, 30))
    m = dg.Model("market split")
    x = m.binary("x", shape=30)
    slack = m.continuous("slack", shape=3, lb=0.0)
    hard = m.parameter("hard", known=True)
    m.minimize(dg.sum(m.parameter("cost", shape=3) * slack))
    half = weights.sum(1) // 2
    m.subject_to(weights @ x + slack >= hard * half)
    m.subject_to(weights @ x - slack <= hard * half + (1.0 - hard) * 1e4)
    layer = dg.DecisionLayer(m, solver=HiGHS(time_limit=0.3))
    start = time.perf_counter()
    found = layer.solve({"cost": np.ones((3, 3)), "hard": [0.0, 1.0, 0.0]}, throw=False)
    assert found.status.tolist() == [dg.Status.OPTIMAL, dg.Status.TIME_LIMIT, dg.Status.OPTIMAL]
    assert time.perf_counter() - start < 60
    with pytest.raises(SolveError, match="sample 1 ended with TIME_LIMIT"):
        layer.solve({"cost": np.ones((3, 3)), "hard": [0.0, 1.0, 0.0]})
