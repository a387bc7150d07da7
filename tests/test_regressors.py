"""Regressors as scikit-learn has them: fitted to the targets, judged by their decisions, never trained."""

import jax
import numpy as np
import pytest
from sklearn.ensemble import GradientBoostingRegressor, RandomForestRegressor
from sklearn.linear_model import LinearRegression
from sklearn.neighbors import KNeighborsRegressor
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

import decigrad as dg
from decigrad.errors import ModelError
from decigrad.losses import LeastSquares, SPOPlus

RNG = np.random.default_rng(0)
FEATURES = RNG.normal(size=(60, 4))
COSTS = 2.0 + FEATURES @ RNG.normal(size=(4, 3)) + 0.3 * RNG.normal(size=(60, 3))
TILT = RNG.normal(size=(60, 2, 3))


def layer(two: bool = False) -> dg.DecisionLayer:
    m = dg.Model("toy")
    x, c = m.continuous("x", shape=3, lb=0.0, ub=1.0), m.parameter("cost", shape=3)
    objective = c @ x + dg.sum(x * x)
    m.minimize(objective + dg.sum(m.parameter("tilt", shape=(2, 3)) @ x) if two else objective)
    m.subject_to(dg.sum(x) == 1.0)
    return dg.DecisionLayer(m, solver="daqp")


def data(rows: slice, **more: np.ndarray) -> dg.Dataset:
    return dg.Dataset(FEATURES[rows], {"cost": COSTS[rows], **more})


TRAIN, TEST = data(slice(0, 40)), data(slice(40, 60))


def test_a_linear_regression_is_two_stage_least_squares():
    made = dg.fit(dg.Regressor(LinearRegression()), layer(), TRAIN, loss="two-stage")
    own = dg.fit(dg.Linear(), layer(), TRAIN, loss=LeastSquares())
    both = [dg.evaluate(fit.predictor, layer(), TEST) for fit in (made, own)]
    np.testing.assert_allclose(both[0].predicted["cost"], both[1].predicted["cost"], atol=1e-10)
    np.testing.assert_allclose(both[0].regret, both[1].regret, atol=1e-8)
    one = made.predictor(TEST.features[0])["cost"]
    np.testing.assert_allclose(one, both[0].predicted["cost"][0], atol=1e-12)


def test_several_parameters_weights_and_features_of_any_shape():
    weights = np.arange(1.0, 41.0)
    samples = dg.Dataset(
        FEATURES[:40].reshape(40, 2, 2), {"cost": COSTS[:40], "tilt": TILT[:40]}, weights=weights
    )
    made = dg.fit(dg.Regressor(LinearRegression()), layer(True), samples, loss="two-stage").predictor
    found = made.predictions(samples.features)
    for name, target in samples.targets.items():
        reference = LinearRegression().fit(FEATURES[:40], target.reshape(40, -1), sample_weight=weights)
        np.testing.assert_allclose(found[name], reference.predict(FEATURES[:40]).reshape(target.shape))
    with pytest.raises(ModelError, match="takes no sample_weight"):
        dg.Regressor(KNeighborsRegressor()).fitted(samples, made.outputs)


def test_estimators_of_one_target_are_fitted_for_each_entry_and_the_users_own_is_left_alone():
    own = GradientBoostingRegressor(n_estimators=5)
    with pytest.raises(ValueError) as caught:
        dg.fit(dg.Regressor(own), layer(), TRAIN, loss="two-stage")
    assert "separate=True" in caught.value.__notes__[0]
    fits = [
        dg.fit(dg.Regressor(own, separate=True), layer(), TRAIN, loss="two-stage", seed=7) for _ in range(2)
    ]
    reference = GradientBoostingRegressor(n_estimators=5, random_state=7).fit(TRAIN.features, COSTS[:40, 1])
    for fit in fits:
        found = fit.predictor.predictions(TEST.features)["cost"]
        np.testing.assert_array_equal(found[:, 1], reference.predict(TEST.features))
    assert not hasattr(own, "estimators_") and own.random_state is None


def test_compare_takes_regressors_beside_named_methods():
    forest = make_pipeline(StandardScaler(), RandomForestRegressor(n_estimators=5))
    methods = {
        "two-stage": "two-stage",
        "forest": forest,
        "own": dg.Method(LeastSquares(), dg.Regressor(forest)),
    }
    found = dg.compare(layer(), TRAIN, TEST, methods, seeds=2, progress=False)
    regrets = {name: found.data.values(name, "mean_regret") for name in methods}
    np.testing.assert_array_equal(regrets["forest"], regrets["own"])
    assert regrets["forest"][0] != regrets["forest"][1]  # the seed is the forest's
    assert (regrets["forest"] >= 0).all() and (regrets["forest"] != regrets["two-stage"]).all()


def test_training_one_by_a_gradient_is_refused():
    recipe = dg.Regressor(LinearRegression())
    for loss in (None, SPOPlus(), "spo+", "auto", LeastSquares(ridge=1.0)):
        with pytest.raises(ModelError, match="loss='two-stage'"):
            dg.fit(recipe, layer(), TRAIN, loss)
    fitted = dg.fit(recipe, layer(), TRAIN, "two-stage").predictor
    with pytest.raises(ModelError, match="runs outside of JAX"):
        dg.fit(fitted, layer(), TRAIN, SPOPlus())
    with pytest.raises(ModelError, match="runs outside of JAX"):
        jax.jit(fitted)(TEST.features[0])
    for wrong in (object(), LinearRegression):
        with pytest.raises(ModelError, match=r"fit\(X, Y\)"):
            dg.Regressor(wrong)
