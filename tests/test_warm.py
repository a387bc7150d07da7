"""Warm starts in training: the same decisions, in fewer steps of the solver."""

from __future__ import annotations

import numpy as np
import pytest

import decigrad as dg
from decigrad import native, warm
from decigrad.solvers import ActiveSet

pytestmark = pytest.mark.skipif(native.missing() is not None, reason="needs the compiled core")


class Counting:
    """The compiled core by calls from the host, which remembers the active-set changes of every call."""

    name, host, warm = "counting", True, True

    def refuses(self, program):
        return None

    def __call__(self, program, start=None):
        raw = ActiveSet()(program, start)
        changes.append(int(raw.iterations.sum()))
        return raw


changes: list[int] = []


def trained(monkeypatch, room: int, solver=None, **options):
    rng = np.random.default_rng(0)
    m = dg.Model("warm")
    x = m.continuous("x", shape=12, lb=0.0, ub=0.3)
    c = m.parameter("cost", shape=12)
    m.minimize(dg.sum(c * x) + 0.3 * dg.sum(x * x))
    m.subject_to(dg.sum(x) == 1.0)
    m.subject_to(rng.uniform(size=(4, 12)) @ x <= 0.6)
    features = rng.normal(size=(40, 3))
    costs = 1 + features @ rng.normal(size=(3, 12)) + 0.5 * rng.normal(size=(40, 12))
    monkeypatch.setattr(warm, "LARGEST", room)
    changes.clear()
    result = dg.fit(
        dg.Linear(), dg.DecisionLayer(m, solver=solver or Counting()), dg.Dataset(features, {"cost": costs}),
        dg.losses.Regret(), seed=0, selection=None, epochs=6, batch_size=16, learning_rate=1e-3,
        progress=False, **options,
    )  # fmt: skip
    return result.predictor.coefficients, list(changes)


def test_warm_training_equals_cold_training_and_changes_fewer_sets(monkeypatch):
    cold, many = trained(monkeypatch, 0)
    found, few = trained(monkeypatch, 2**28)
    for one, other in zip(cold, found, strict=True):
        np.testing.assert_allclose(one, other, atol=1e-10)
    steps = 3
    assert few[:2] == many[:2]  # the labels, and the first step
    assert sum(few[-5 * steps :]) < 0.6 * sum(many[-5 * steps :])


@pytest.mark.parametrize("solver", [ActiveSet(), None], ids=["in one trace", "step by step"])
def test_a_checkpointed_training_is_resumed_to_the_bit(monkeypatch, tmp_path, solver):
    given = {"solver": solver, "checkpoint_every": 2}
    whole, _ = trained(monkeypatch, 2**28, checkpoint=tmp_path / "a", **given)

    def stop(event):
        if event.epoch == 4:
            raise KeyboardInterrupt

    again = {**given, "checkpoint": tmp_path / "b"}
    part, _ = trained(monkeypatch, 2**28, **again, callbacks=[stop])
    assert not np.array_equal(part[0], whole[0])
    resumed, _ = trained(monkeypatch, 2**28, **again)
    for one, other in zip(whole, resumed, strict=True):
        np.testing.assert_array_equal(one, other)


def test_an_epoch_in_one_trace_is_that_of_its_steps(monkeypatch):
    """Warm and cold, with a last batch that is not full."""
    by_steps, _ = trained(monkeypatch, 2**28)
    for room in (2**28, 0):
        found, calls = trained(monkeypatch, room, ActiveSet())
        assert not calls
        for one, other in zip(by_steps, found, strict=True):
            np.testing.assert_allclose(one, other, atol=1e-10)


def test_a_layer_starts_where_it_is_told():
    m = dg.Model()
    x = m.continuous("x", shape=8, lb=0.0)
    c = m.parameter("cost", shape=8)
    m.minimize(dg.sum(c * x) + 0.05 * dg.sum(x * x))
    m.subject_to(dg.sum(x) == 1.0)
    layer = dg.DecisionLayer(m, solver="active-set")
    costs = np.random.default_rng(0).normal(size=(50, 8))
    first = layer.solve({"cost": costs})
    near = layer.solve({"cost": costs + 1e-6}, start=first.raw)
    assert (near.stats["iterations"] == 1).all()
    np.testing.assert_allclose(near.x["x"], layer.solve({"cost": costs + 1e-6}).x["x"], atol=1e-12)
    elsewhere = layer.solve({"cost": costs[::-1]}, start=first.raw)
    np.testing.assert_allclose(elsewhere.x["x"], first.x["x"][::-1], atol=1e-12)
