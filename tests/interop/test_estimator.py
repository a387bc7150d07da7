"""The scikit-learn estimator: its conventions, and that it is `fit`, `evaluate` and the layer underneath."""

import pickle

import numpy as np
import pandas as pd
import polars as pl
import pytest
import sklearn
from sklearn.base import clone
from sklearn.ensemble import GradientBoostingRegressor
from sklearn.exceptions import NotFittedError
from sklearn.linear_model import LinearRegression
from sklearn.model_selection import GridSearchCV, KFold, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils.estimator_checks import parametrize_with_checks

import decigrad as dg
from decigrad.errors import ModelError
from decigrad.interop.estimator import records

RNG = np.random.default_rng(0)
X = RNG.normal(size=(40, 4)) * [1.0, 5.0, 1.0, 1.0]
COSTS = 2.0 + X @ RNG.normal(size=(4, 3)) * 0.3 + 0.3 * RNG.normal(size=(40, 3))
BUDGET = RNG.uniform(0.5, 1.5, size=40)
QUICK = {"epochs": 2, "selection": None}


def choice(known: bool = False) -> dg.Model:
    """min cᵀx + ½‖x‖² over a simplex, of a size that may be known."""
    m = dg.Model("choice")
    x, c = m.continuous("x", shape=3, lb=0.0, ub=2.0), m.parameter("cost", shape=3)
    m.minimize(c @ x + 0.5 * dg.sum(x * x))
    m.subject_to(dg.sum(x) == (m.parameter("budget", known=True) if known else 1.0))
    return m


def several() -> dg.Model:
    """Two predicted parameters and two variables."""
    m = dg.Model("several")
    x, y = m.continuous("x", shape=(2,), lb=0.0, ub=1.0), m.continuous("y", lb=0.0, ub=1.0)
    price, load = m.parameter("price"), m.parameter("load", shape=(2,))
    m.minimize(load @ x + price * y + dg.sum(x * x) + y * y)
    return m


def scalar() -> dg.Model:
    """A stock x for a demand: min x² − demand · x, so that x is half of the predicted demand."""
    m = dg.Model("stock")
    x = m.continuous("x", lb=-1e6, ub=1e6)
    m.minimize(x * x - m.parameter("demand") * x)
    return m


# -------------------------------------------------------------------------------- scikit-learn's own


@parametrize_with_checks([dg.DecisionFocusedRegressor(scalar(), loss="two-stage")])
def test_conventions_of_scikit_learn(estimator, check):
    check(estimator)


STEPS = "a step sees a weight of 2 once and a repeated sample twice, among other samples"


@pytest.mark.slow
@parametrize_with_checks(
    [dg.DecisionFocusedRegressor(scalar(), epochs=1, selection=None, batch_size=256)],
    expected_failed_checks=lambda _: {"check_sample_weight_equivalence_on_dense_data": STEPS},
)
def test_conventions_of_scikit_learn_hold_where_it_trains(estimator, check):
    check(estimator)


# -------------------------------------------------------------------------------- a thin shell


@pytest.fixture(scope="module")
def fitted() -> dg.DecisionFocusedRegressor:
    return dg.DecisionFocusedRegressor(choice(), loss="spo+", random_state=3, **QUICK).fit(X, COSTS)


def test_it_predicts_decides_and_scores_as_fit_layer_and_evaluate_do(fitted):
    layer = dg.DecisionLayer(choice())
    data = dg.Dataset(X, {"cost": COSTS})
    result = dg.fit(dg.Linear(), layer, data, "spo+", seed=3, progress=False, **QUICK)
    own = dg.evaluate(result.predictor, layer, data)
    np.testing.assert_allclose(fitted.predict(X), own.predicted["cost"], rtol=1e-12)
    np.testing.assert_allclose(fitted.decide(X), own.decisions["x"], atol=1e-10)
    assert fitted.score(X, COSTS) == pytest.approx(-own.mean_regret, rel=1e-9) and own.mean_regret > 0
    weights = np.arange(40.0)
    expected = -np.average(own.regret, weights=weights)
    assert fitted.score(X, COSTS, sample_weight=weights) == pytest.approx(expected, rel=1e-9)
    again = pickle.loads(pickle.dumps(fitted))
    np.testing.assert_array_equal(again.decide(X), fitted.decide(X))


def test_weights_of_two_stage_are_those_of_linear_regression():
    weights = RNG.uniform(0.0, 2.0, size=40)
    est = dg.DecisionFocusedRegressor(choice(), loss="two-stage").fit(X, COSTS, sample_weight=weights)
    reference = LinearRegression().fit(X, COSTS, sample_weight=weights)
    np.testing.assert_allclose(est.predict(X), reference.predict(X), rtol=1e-9)


def test_several_parameters_come_by_name_flattened_or_as_records():
    price, load = RNG.normal(size=40), RNG.normal(size=(40, 2))
    by_name = {"price": price, "load": load}
    est = dg.DecisionFocusedRegressor(several(), loss="two-stage")
    given = [by_name, records(by_name), np.column_stack([price, load])]
    found = [clone(est).fit(X, y).predict(X) for y in given]
    reference = LinearRegression().fit(X, given[2]).predict(X)
    for one in found:
        np.testing.assert_allclose(one["price"], reference[:, 0], atol=1e-9)
        np.testing.assert_allclose(one["load"], reference[:, 1:], atol=1e-9)
    decided = clone(est).fit(X, by_name).decide(X)
    np.testing.assert_allclose(decided["y"], np.clip(-reference[:, 0] / 2, 0, 1), atol=1e-7)
    np.testing.assert_allclose(decided["x"], np.clip(-reference[:, 1:] / 2, 0, 1), atol=1e-7)
    frame = pd.DataFrame({"demand": price, "other": 1.0})
    one = dg.DecisionFocusedRegressor(scalar(), loss="two-stage").fit(X, frame)
    np.testing.assert_allclose(one.decide(X), one.predict(X) / 2, rtol=1e-6)


def test_frames_in_and_out():
    names = ["wind", "sun", "hour", "day"]
    frame = pd.DataFrame(X, columns=names, index=np.arange(40) + 100)
    plain = dg.DecisionFocusedRegressor(choice(), loss="two-stage").fit(X, COSTS)
    est = dg.DecisionFocusedRegressor(choice(), loss="two-stage").fit(frame, pd.DataFrame(COSTS))
    assert list(est.feature_names_in_) == names and est.n_features_in_ == 4
    np.testing.assert_allclose(est.predict(frame), plain.predict(X), rtol=1e-12)
    polars = dg.DecisionFocusedRegressor(choice(), loss="two-stage").fit(pl.DataFrame(X, names), COSTS)
    np.testing.assert_allclose(polars.predict(pl.DataFrame(X, names)), plain.predict(X), rtol=1e-12)
    with pytest.raises(ValueError, match="feature names"):
        est.predict(frame[names[::-1]])
    by_name = est.policy_.predict(frame[names[::-1]])["cost"]
    np.testing.assert_allclose(by_name, plain.predict(X), rtol=1e-12)
    shown = clone(est.set_output(predict="pandas")).fit(frame, COSTS)  # clone keeps the setting
    decided = shown.decide(frame)
    assert list(decided.columns) == ["x[0]", "x[1]", "x[2]"] and list(decided.index) == list(frame.index)
    np.testing.assert_allclose(decided, plain.decide(X), atol=1e-9)
    assert list(shown.predict(frame).columns) == ["cost[0]", "cost[1]", "cost[2]"]
    assert isinstance(shown.set_output(predict="polars").decide(frame), pl.DataFrame)
    assert isinstance(shown.set_output(predict="default").decide(frame), np.ndarray)
    with pytest.raises(ValueError, match="must be 'default', 'pandas' or 'polars'"):
        est.set_output(predict="arrow")


# -------------------------------------------------------------------------------- meta-estimators


def test_pipelines_searches_and_cross_validation():
    folds = KFold(3)
    est = dg.DecisionFocusedRegressor(choice(), loss="two-stage")
    scores = cross_val_score(est, X, COSTS, cv=folds)
    layer, expected = dg.DecisionLayer(choice()), []
    for train, test in folds.split(X):
        two_stage = dg.fit(dg.Linear(), layer, dg.Dataset(X[train], {"cost": COSTS[train]}), "two-stage")
        unseen = dg.Dataset(X[test], {"cost": COSTS[test]})
        expected.append(-dg.evaluate(two_stage.predictor, layer, unseen).mean_regret)
    np.testing.assert_allclose(scores, expected, rtol=1e-9)
    # standardizing does not change least squares
    np.testing.assert_allclose(
        cross_val_score(make_pipeline(StandardScaler(), est), X, COSTS, cv=folds), expected, rtol=1e-6
    )
    grid = {"predictor": [dg.Linear(), LinearRegression(), dg.Linear(bias=False)]}
    search = GridSearchCV(est, grid, cv=folds).fit(X, COSTS)
    found = search.cv_results_["mean_test_score"]
    np.testing.assert_allclose(found[:2], np.mean(expected), rtol=1e-6)
    assert found[2] != found[0]
    assert search.best_estimator_.decide(X).shape == (40, 3)


def test_known_parameters_are_routed_by_sample():
    known = records({"budget": BUDGET})
    est = dg.DecisionFocusedRegressor(choice(known=True), loss="two-stage")
    decided = clone(est).fit(X, COSTS, known={"budget": BUDGET}).decide(X, known=pd.DataFrame(known))
    np.testing.assert_allclose(decided.sum(1), BUDGET, atol=1e-8)
    with sklearn.config_context(enable_metadata_routing=True):
        routed = clone(est).set_fit_request(known=True).set_score_request(known=True)
        search = GridSearchCV(routed, {"loss": ["two-stage"]}, cv=KFold(3)).fit(X, COSTS, known=known)
    expected = []
    for train, test in KFold(3).split(X):
        fitted = clone(est).fit(X[train], COSTS[train], known=known[train])
        expected.append(fitted.score(X[test], COSTS[test], known=known[test]))
    np.testing.assert_allclose(search.cv_results_["mean_test_score"], np.mean(expected), rtol=1e-9)
    fitted = clone(est).fit(X, COSTS, known=known)
    with pytest.raises(ModelError, match="budget"):
        fitted.decide(X)
    with pytest.raises(ModelError, match="known must be by name"):
        fitted.decide(X, known=BUDGET)


def test_regressors_are_warm_starts_corrected_or_two_stage():
    start = dg.DecisionFocusedRegressor(choice(), loss="spo+", warm_start=LinearRegression(), **QUICK)
    own = dg.DecisionFocusedRegressor(choice(), loss="spo+", **QUICK)
    np.testing.assert_allclose(start.fit(X, COSTS).predict(X), own.fit(X, COSTS).predict(X), rtol=1e-6)
    forest = dg.Regressor(GradientBoostingRegressor(n_estimators=3), separate=True)
    two_stage = dg.DecisionFocusedRegressor(choice(), predictor=forest, loss="two-stage").fit(X, COSTS)
    reference = GradientBoostingRegressor(n_estimators=3, random_state=0).fit(X, COSTS[:, 1]).predict(X)
    np.testing.assert_array_equal(two_stage.predict(X)[:, 1], reference)


# -------------------------------------------------------------------------------- refusals


def test_failed_samples_count_as_the_worst(caplog):
    m = dg.Model("tight")
    x = m.continuous("x", shape=3, lb=0.0, ub=1.0)
    m.minimize(m.parameter("cost", shape=3) @ x + dg.sum(x * x))
    m.subject_to(dg.sum(x) == m.parameter("budget", known=True))
    layer = dg.DecisionLayer(m, throw=False)
    est = dg.DecisionFocusedRegressor(layer, loss="two-stage").fit(X, COSTS, known={"budget": np.ones(40)})
    budget = np.where(np.arange(40) == 5, 9.0, 1.0)  # no decision for sample 5
    data = dg.Dataset(X, {"cost": COSTS}, known={"budget": budget})
    regret = dg.evaluate(est.policy_.predictor, layer, data).regret
    regret[5] = np.nanmax(regret)
    assert est.score(X, COSTS, known={"budget": budget}) == pytest.approx(-regret.mean(), rel=1e-9)
    assert "1 of 40 samples have no decision, the first is 5" in caplog.text


def test_what_does_not_fit_is_named(fitted):
    est = dg.DecisionFocusedRegressor(choice())
    for call, message in (
        (lambda: est.fit(X, COSTS[:, :2]), r"y has 2 numbers for each sample, .*'cost' \(3,\): 3 numbers"),
        (lambda: est.fit(X, {"price": COSTS}), "no target of that name"),
        (lambda: dg.DecisionFocusedRegressor("m").fit(X, COSTS), "a Model or a DecisionLayer, got str"),
        (lambda: records({"a": [1.0], "b": [1.0, 2.0]}), r"arrays of one length, got 'a' \(1,\), 'b' \(2,\)"),
    ):
        with pytest.raises(ModelError, match=message):
            call()
    with pytest.raises(NotFittedError):
        est.decide(X)
    options = clone(fitted).set_params(options={"epochs": 3})
    with pytest.raises(TypeError, match="multiple values"):
        options.fit(X, COSTS)
