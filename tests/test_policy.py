"""A policy decides as its layer does, row by row to the last bit, within its time, and survives its file."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import polars as pl
import pytest

import decigrad as dg
from decigrad.errors import InfeasibleError, ModelError, SolveError
from decigrad.policy import Policy
from decigrad.predictors import LinearPredictor

RNG = np.random.default_rng(5)
W, B = RNG.normal(size=(3, 4)), RNG.normal(size=3)
X = RNG.normal(size=(40, 4))
NAMES = ["a", "b", "c", "d"]


def allocation() -> dg.Model:
    """min cᵀx + ‖x‖² on a simplex of size `total`, below limits `cap`."""
    m = dg.Model("allocation")
    x = m.continuous("x", shape=3, lb=0.0)
    c = m.parameter("cost", shape=3)
    total = m.parameter("total", value=1.0, known=True)
    cap = m.parameter("cap", shape=3, known=True)
    m.minimize(dg.sum(c * x) + dg.sum(x * x))
    m.subject_to(dg.sum(x) == total)
    m.subject_to(x <= cap)
    return m


def linear(name: str = "cost", weight: Any = W, bias: Any = B) -> LinearPredictor:
    size = len(weight)
    return LinearPredictor(None, None, None, None, ((name, (size,)),), weight, bias)


LAYER = dg.DecisionLayer(allocation())
POLICY = Policy(linear(), LAYER, feature_names=NAMES)
CAP = {"cap": np.full(3, 0.6)}


def projection(cost: np.ndarray, cap: float) -> np.ndarray:
    """argmin cᵀx + ‖x‖² with Σx = 1, 0 ≤ x ≤ cap: x = clip(−(c + ν)/2, 0, cap), ν by bisection."""
    low, high = -20.0, 20.0
    for _ in range(200):
        nu = (low + high) / 2
        low, high = (nu, high) if np.clip(-(cost + nu) / 2, 0, cap).sum() > 1 else (low, nu)
    return np.clip(-(cost + low) / 2, 0, cap)


def knapsack() -> dg.Model:
    m = dg.Model("knapsack")
    x = m.binary("x", shape=3)
    value = m.parameter("value", shape=3)
    m.maximize(dg.sum(value * x))
    m.subject_to(x[0] + 2 * x[1] + 3 * x[2] <= 4)
    return m


BINARY = dg.DecisionLayer(knapsack())
BINARY_POLICY = Policy(linear("value"), BINARY)


def test_predictions_and_decisions_are_those_of_the_formula():
    found = POLICY.decide(X, CAP)
    np.testing.assert_allclose(found.predicted["cost"], X @ W.T + B, rtol=1e-12)
    assert found.predicted["cost"].dtype == np.float64 == found.x["x"].dtype
    for i in range(len(X)):
        np.testing.assert_allclose(found.x["x"][i], projection(X[i] @ W.T + B, 0.6), atol=1e-8)
    worth = (found.predicted["cost"] * found.x["x"]).sum(1) + (found.x["x"] ** 2).sum(1)
    np.testing.assert_allclose(found.objective, worth, rtol=1e-12)
    assert len(found) == 40 and (found.status == 0).all() and not found.fallback.any()


@pytest.mark.parametrize(("policy", "known"), [(POLICY, CAP), (BINARY_POLICY, None)], ids=["daqp", "highs"])
def test_a_decision_depends_on_its_own_row_to_the_last_bit(policy: Policy, known: Any):
    whole = policy.decide(X, known)
    limited = policy.decide(X, known, time_limit=1e3)
    order = np.random.default_rng(0).permutation(40)
    shuffled = policy.decide(X[order], known)
    for name in ("x", "predicted"):
        for key, value in getattr(whole, name).items():
            assert value.tobytes() == getattr(limited, name)[key].tobytes()
            assert value[order].tobytes() == getattr(shuffled, name)[key].tobytes()
            for i in (0, 17, 39):
                assert value[i].tobytes() == getattr(policy.decide(X[i : i + 1], known), name)[key].tobytes()


def test_known_parameters_are_shared_or_by_row():
    cap = np.linspace(0.4, 1.0, 40)[:, None] * np.ones(3)
    found = POLICY.decide(X, {"cap": cap})
    for i in (0, 20, 39):
        np.testing.assert_allclose(found.x["x"][i], projection(X[i] @ W.T + B, cap[i, 0]), atol=1e-8)
    with pytest.raises(ModelError, match=r"no value|have no value"):
        POLICY.decide(X)
    with pytest.raises(ModelError, match="'cost' is predicted"):
        POLICY.decide(X, {**CAP, "cost": np.ones(3)})
    with pytest.raises(ModelError, match=r"known 'cap' must have shape \(3,\) or \(40, 3\)"):
        POLICY.decide(X, {"cap": np.ones(2)})
    with pytest.raises(ModelError, match="no parameter 'cup'; did you mean 'cap'"):
        POLICY.decide(X, {"cup": np.ones(3)})


@pytest.mark.parametrize("frame", [pd.DataFrame, pl.DataFrame], ids=["pandas", "polars"])
def test_frames_are_matched_by_name(frame: Any):
    columns = {name: X[:, i] for i, name in enumerate(NAMES)}
    swapped = frame({name: columns[name] for name in "dbca"})
    assert POLICY.predict(swapped)["cost"].tobytes() == POLICY.predict(X)["cost"].tobytes()
    with pytest.raises(ModelError, match="lacks the columns 'c'"):
        POLICY.predict(frame({n: v for n, v in columns.items() if n != "c"}))
    with pytest.raises(ModelError, match="knows no columns 'e'"):
        POLICY.predict(frame({**columns, "e": X[:, 0]}))


def test_a_table_holds_known_parameters_where_columns_have_roles():
    roles = dg.Columns(
        features=NAMES, targets={"cost": ["y0", "y1", "y2"]}, known={"cap": ["k0", "k1", "k2"]}
    )
    policy = Policy(linear(), LAYER, columns=roles)
    cap = RNG.uniform(0.4, 1.0, (40, 3))
    table = pd.DataFrame(
        np.column_stack([cap, X, X[:, :3]]), columns=["k0", "k1", "k2", *NAMES, "y0", "y1", "y2"]
    )
    assert policy.table_columns == [*NAMES, "k0", "k1", "k2"]
    same = policy.decide(X, {"cap": cap}).x["x"]
    assert policy.decide(table).x["x"].tobytes() == same.tobytes()
    with pytest.raises(ModelError, match="pattern 'k\\*'"):
        Policy(linear(), LAYER, columns=dg.Columns(NAMES, known={"cap": "k*"}))


@pytest.mark.parametrize(
    ("features", "message"),
    [
        (X[0], r"features must be \[N, ...\]"),
        (X[:0], "no rows"),
        (X[:, :3], r"must have shape \[N, 4\], got \[40, 3\]"),
        (np.where(np.arange(4) == 2, np.nan, X), "row 0, column 'c' is NaN"),
        ([["a", 1, 2, 3]], "must be numbers"),
    ],
)
def test_features_that_do_not_fit_are_refused(features: Any, message: str):
    with pytest.raises(ModelError, match=message):
        POLICY.predict(features)


def test_a_policy_needs_a_fitted_predictor():
    with pytest.raises(ModelError, match="fitted predictor"):
        Policy(dg.Linear(), LAYER)
    with pytest.raises(ModelError, match="does not take features"):
        Policy(linear(), LAYER, feature_shape=(7,)).predict(np.ones((2, 7)))


def test_infeasible_rows_get_the_fallback_and_say_so():
    cap = np.where(np.arange(40) % 10 == 3, 0.2, 0.6)[:, None] * np.ones(3)
    with pytest.raises(InfeasibleError, match=r"row 3: .*infeasible") as caught:
        POLICY.decide(X, {"cap": cap})
    assert "4 of 40 rows" in caught.value.__notes__[0] and "3, 13, 23, 33" in caught.value.__notes__[0]
    instead = np.array([0.2, 0.2, 0.6])
    found = POLICY.decide(X, {"cap": cap}, fallback={"x": instead})
    lost = np.arange(40) % 10 == 3
    assert (found.fallback == lost).all() and (found.status[lost] == dg.Status.PRIMAL_INFEASIBLE).all()
    assert (found.x["x"][lost] == instead).all()
    cost = X[lost] @ W.T + B
    np.testing.assert_allclose(found.objective[lost], cost @ instead + (instead**2).sum(), rtol=1e-12)
    whole = POLICY.decide(X, CAP)
    assert (found.x["x"][~lost] == whole.x["x"][~lost]).all()
    nothing = POLICY.decide(X, {"cap": cap}, throw=False)
    assert np.isnan(nothing.x["x"][lost]).all() and np.isnan(nothing.objective[lost]).all()


def test_predictions_that_are_not_finite_are_failures():
    weight = np.array([[1e300, 0, 0, 0], [0, 1.0, 0, 0], [0, 0, 1.0, 0]])
    policy = Policy(linear(weight=weight), LAYER, fallback={"x": [1.0, 0, 0]})
    rows = X.copy()
    rows[:, 0] = 1e10 * (np.arange(40) == 7)
    found = policy.decide(rows, {"cap": np.ones(3)})
    assert np.flatnonzero(found.fallback).tolist() == [7]
    assert found.status[7] == dg.Status.INVALID_DATA and np.isfinite(found.x["x"]).all()
    with pytest.raises(SolveError, match=r"1 of 40 rows have no decision \(INVALID_DATA: rows 7\)"):
        Policy(policy.predictor, LAYER).decide(rows, {"cap": np.ones(3)})


def test_a_negative_prediction_of_a_nonnegative_parameter_is_a_failure():
    m = dg.Model()
    x, p = m.continuous("x", shape=3), m.parameter("p", shape=3, nonneg=True)
    m.minimize(dg.sum(p * dg.abs(x - 1.0)))
    policy = Policy(linear("p"), dg.DecisionLayer(m), fallback={"x": np.zeros(3)})
    found = policy.decide(X)
    assert (found.fallback == (X @ W.T + B < 0).any(1)).all() and found.fallback.any()


def test_what_the_time_does_not_allow_gets_the_fallback():
    def slow(costs: np.ndarray) -> np.ndarray:
        time.sleep(0.05 * len(costs))
        return np.eye(3)[costs.argmin(1)]

    m = dg.Model()
    x, c = m.continuous("x", shape=3, lb=0.0), m.parameter("cost", shape=3)
    m.minimize(dg.sum(c * x))
    m.subject_to(dg.sum(x) == 1.0)
    policy = Policy(linear(), dg.DecisionLayer(m, solver=dg.Oracle(slow)), fallback={"x": [0, 0, 1]})
    policy.warm_up()
    found = policy.decide(X[:20], time_limit=0.2)
    done = found.status == dg.Status.OPTIMAL
    assert 0 < done.sum() < 20 and (np.diff(done.astype(int)) <= 0).all()
    assert (found.fallback == ~done).all() and (found.status[~done] == dg.Status.TIME_LIMIT).all()
    assert (found.x["x"][done] == np.eye(3)[found.predicted["cost"].argmin(1)][done]).all()
    assert found.seconds < 1.0
    with pytest.raises(SolveError, match=r"TIME_LIMIT.*allow more than 0 seconds"):
        Policy(policy.predictor, policy.layer).decide(X[:4], time_limit=0.0)


@pytest.mark.parametrize(
    ("fallback", "message"),
    [
        ({}, "a decision for each of 'x'"),
        ({"x": [1, 0]}, r"must have shape \(3,\)"),
        ({"x": [0.5, 0, 0]}, "violates integrality of 'x'"),
        ({"x": [0, 1, 1]}, "violates .*<= 4"),
        ({"x": [2, 0, 0]}, "violates the upper bound of 'x'"),
        ({"x": [np.nan, 0, 0]}, "NaN"),
    ],
)
def test_a_fallback_is_checked(fallback: Any, message: str):
    with pytest.raises(ModelError, match=message):
        Policy(linear("value"), BINARY, fallback=fallback)
    with pytest.raises(ModelError, match=message):
        BINARY_POLICY.decide(X, fallback=fallback)


def test_a_fallback_may_differ_by_row():
    by_row = np.zeros((40, 3))
    by_row[:, 0] = np.arange(40) % 2
    found = BINARY_POLICY.decide(X, time_limit=0.0, fallback={"x": by_row})
    assert (found.x["x"] == by_row).all() and found.fallback.all()
    by_row[5] = 1.0
    with pytest.raises(ModelError, match="row 5 violates"):
        BINARY_POLICY.decide(X, fallback={"x": by_row})


def test_binary_decisions_are_the_best_subsets():
    found = BINARY_POLICY.decide(X)
    subsets = np.array([[i, j, k] for i in (0, 1) for j in (0, 1) for k in (0, 1) if i + 2 * j + 3 * k <= 4])
    np.testing.assert_allclose(found.objective, (found.predicted["value"] @ subsets.T).max(1), atol=1e-12)


def test_the_table_of_decisions_names_entries():
    columns = POLICY.decide(X, CAP).table()
    assert list(columns) == ["x[0]", "x[1]", "x[2]", "objective", "status", "fallback"]
    assert set(columns["status"]) == {"OPTIMAL"}
    assert (columns["x[1]"] == POLICY.decide(X, CAP).x["x"][:, 1]).all()


def test_a_policy_survives_its_file(tmp_path: Path):
    policy = Policy(
        linear(),
        LAYER,
        feature_names=NAMES,
        fallback={"x": [0.2, 0.2, 0.6]},
        settings={"seed": 3, "rate": 0.1},
    )
    path = policy.save(tmp_path / "a.decigrad")
    loaded = Policy.load(path)
    assert loaded.layer == LAYER and loaded.layer.model.form is LAYER.form
    assert loaded.settings == {"seed": 3, "rate": 0.1} and loaded.feature_names == tuple(NAMES)
    found, other = policy.decide(X, CAP).table(), loaded.decide(X, CAP).table()
    assert all(value.tobytes() == other[name].tobytes() for name, value in found.items())
    assert loaded.decide(X, CAP, time_limit=0.0).fallback.all()
    assert loaded.save(tmp_path / "b.decigrad").read_bytes() == path.read_bytes()
