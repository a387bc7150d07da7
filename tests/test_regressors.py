"""Regressors as scikit-learn has them: fitted to the targets, judged by their decisions, never trained."""

import jax
import numpy as np
import optax
import pytest
from sklearn.ensemble import GradientBoostingRegressor, RandomForestRegressor
from sklearn.linear_model import LinearRegression
from sklearn.model_selection import GroupKFold
from sklearn.neighbors import KNeighborsRegressor
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

import decigrad as dg
from decigrad.errors import ModelError
from decigrad.losses import MSE, LeastSquares, SPOPlus

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


# ------------------------------------------------------------------------------------------------ warm start


def test_a_regressor_as_warm_start_is_what_least_squares_makes_of_its_predictions():
    tree = GradientBoostingRegressor(n_estimators=20, random_state=0)
    start = dg.Regressor(tree, separate=True)
    fit = dg.fit(dg.Linear(), layer(), TRAIN, SPOPlus(), selection=None, epochs=1, warm_start=start)
    design = np.column_stack([FEATURES[:40], np.ones(40)])
    taught = np.column_stack(
        [tree.fit(TRAIN.features, target).predict(TRAIN.features) for target in COSTS[:40].T]
    )
    expected = np.linalg.lstsq(design, taught, rcond=None)[0]
    weight, bias = fit.two_stage.coefficients
    np.testing.assert_allclose(np.vstack([weight.T, bias]), expected, atol=1e-9)


def test_a_warm_start_has_the_seed_of_the_fit():
    forest = RandomForestRegressor(3)
    fit = dg.fit(dg.Linear(), layer(), TRAIN, SPOPlus(), selection=None, epochs=1, warm_start=forest, seed=7)
    taught = RandomForestRegressor(3, random_state=7).fit(TRAIN.features, TRAIN.targets["cost"])
    expected = LinearRegression().fit(TRAIN.features, taught.predict(TRAIN.features))
    np.testing.assert_allclose(fit.two_stage.coefficients[0], expected.coef_, atol=1e-9)


def test_a_loss_of_predictions_starts_from_a_regressor_too():
    options = {"selection": None, "epochs": 1, "optimizer": optax.sgd(0.0)}
    fit = dg.fit(dg.Linear(), layer(), TRAIN, MSE(), warm_start=LinearRegression(), **options)
    expected = LinearRegression().fit(TRAIN.features, TRAIN.targets["cost"])
    np.testing.assert_allclose(fit.predictor.coefficients[0], expected.coef_, atol=1e-9)


def test_a_warm_start_of_a_fold_never_sees_what_the_fold_holds_out():
    class Spy(LinearRegression):
        seen: list = []  # noqa: RUF012 - shared by the copies that are fitted

        def fit(self, features, targets):
            self.seen.append(len(features))
            return super().fit(features, targets)

    options = {"selection": dg.CrossValidation(folds=4, weights=(1.0,)), "epochs": 1, "seed": 0}
    own = dg.fit(dg.Linear(), layer(), TRAIN, SPOPlus(), **options)
    fit = dg.fit(dg.Linear(), layer(), TRAIN, SPOPlus(), warm_start=Spy(), **options)
    assert sorted(Spy.seen) == [30, 30, 30, 30, 40]
    # Least squares of a linear regression's predictions is that regression, so all that follows agrees.
    np.testing.assert_allclose(fit.chosen["two_stage_score"], own.chosen["two_stage_score"], rtol=1e-7)
    np.testing.assert_allclose(fit.two_stage.coefficients[0], own.two_stage.coefficients[0], atol=1e-9)


# ------------------------------------------------------------------------------------------------ correction


class Mean:
    """Predicts the mean of the targets that it saw, so that a prediction tells which they were."""

    def fit(self, features, targets):
        self.mean = targets.mean(axis=0)

    def predict(self, features):
        return np.broadcast_to(self.mean, (len(features), *self.mean.shape))


def test_a_correction_starts_at_the_regressor_and_is_trained_on_what_the_regressor_did_not_see():
    two = layer(True)
    samples = dg.Dataset(
        FEATURES[:40].reshape(40, 2, 2), {"cost": COSTS[:40], "tilt": TILT[:40]}, weights=np.ones(40)
    )
    recipe = dg.Residual(Mean(), dg.MLP((4,)), folds=4, ordered=True)
    stack = recipe.stacked(samples, two)
    for part in np.split(np.arange(40), 4):
        others = np.setdiff1d(np.arange(40), part)
        expected = np.concatenate([COSTS[others].mean(0), TILT[others].mean(0).ravel()])
        found = stack.data.features[part]
        np.testing.assert_array_equal(found[:, :4], FEATURES[part])
        np.testing.assert_allclose(found[:, 4:], np.tile(expected, (10, 1)))
    start = stack.finished(stack.start).predictions(samples.features)
    np.testing.assert_allclose(start["tilt"], np.broadcast_to(TILT[:40].mean(0), (40, 2, 3)), atol=1e-12)


def test_the_regressor_behind_a_correction_saw_no_member_of_a_samples_group():
    groups = np.random.default_rng(3).integers(0, 7, 40)
    samples = dg.Dataset(FEATURES[:40], {"cost": COSTS[:40]}, groups=groups)
    base = dg.Residual(Mean(), folds=3).stacked(samples, layer()).data.features[:, 4:]
    for others, part in GroupKFold(3).split(FEATURES[:40], groups=groups):
        np.testing.assert_allclose(base[part], np.tile(COSTS[others].mean(0), (len(part), 1)))


def test_a_linear_correction_of_the_mean_trains_to_least_squares_of_the_residuals():
    fit = dg.fit(
        dg.Residual(Mean(), folds=40, ordered=True), layer(), TRAIN, MSE(), selection=None, epochs=300,
        batch_size=40, learning_rate=0.1, progress=False,
    )  # fmt: skip
    base = (COSTS[:40].sum(0) - COSTS[:40]) / 39  # the mean of the others
    design = np.column_stack([FEATURES[:40], np.ones(40)])
    slope = np.linalg.lstsq(design, COSTS[:40] - base, rcond=None)[0]
    expected = COSTS[:40].mean(0) + np.column_stack([TEST.features, np.ones(20)]) @ slope
    np.testing.assert_allclose(fit.predictor.predictions(TEST.features)["cost"], expected, atol=1e-5)
    two_stage = fit.two_stage.predictions(TEST.features)["cost"]
    np.testing.assert_allclose(two_stage, np.tile(COSTS[:40].mean(0), (20, 1)), atol=1e-12)
    one = fit.predictor(TEST.features[3])["cost"]
    np.testing.assert_allclose(one, expected[3], atol=1e-5)


def test_a_correction_is_trained_for_decisions_and_judged_like_any_predictor():
    recipe = dg.Residual(GradientBoostingRegressor(n_estimators=5, max_depth=1), separate=True)
    cross = dg.CrossValidation(folds=2, weights=(0.0,), caution=0.0)
    options = {"epochs": 15, "selection": cross, "batch_size": 20, "progress": False, "seed": 3}
    fit = dg.fit(recipe, layer(), TRAIN, SPOPlus(), validation=TEST, **options)
    trained, start = (dg.evaluate(p, layer(), TRAIN).mean_regret for p in (fit.predictor, fit.two_stage))
    assert trained < 0.9 * start and fit.chosen["gain"] > 0
    own = dg.fit(dg.Regressor(recipe.estimator, separate=True), layer(), TRAIN, "two-stage", seed=3)
    np.testing.assert_allclose(start, dg.evaluate(own.predictor, layer(), TRAIN).mean_regret, rtol=1e-9)
    assert len(fit.history["validation"]) == fit.chosen["epochs"]
    with pytest.raises(ModelError, match="runs outside of JAX"):
        jax.jit(fit.predictor)(TEST.features[0])


def test_corrections_that_cannot_be_are_refused():
    with pytest.raises(ModelError, match=r"fit\(X, Y\)"):
        dg.Residual(object())
    with pytest.raises(ModelError, match="folds must be at least 2"):
        dg.Residual(Mean(), folds=1)
    with pytest.raises(ModelError, match="too few for 50 parts"):
        dg.fit(dg.Residual(Mean(), folds=50), layer(), TRAIN)
    with pytest.raises(ModelError, match="leave warm_start"):
        dg.fit(dg.Residual(Mean()), layer(), TRAIN, warm_start=LinearRegression())
