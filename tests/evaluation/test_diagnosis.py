"""`diagnose` on problems whose truth is known, and its parts against closed forms and other packages."""

from __future__ import annotations

import json

import numpy as np
import pytest

import decigrad as dg
from decigrad.errors import ModelError
from decigrad.evaluation._structure import KernelRegression, noise_test
from decigrad.evaluation.learning import fit_learning_curve
from decigrad.evaluation.statistics import mean_and_error

WEIGHTS = np.array([[0.4, -0.2, 0.3], [0.0, 0.4, -0.3], [-0.3, 0.1, 0.4]])


def simplex(known: bool = False) -> dg.DecisionLayer:
    m = dg.Model("simplex")
    x = m.continuous("x", shape=3, lb=0.0, ub=1.0)
    c = m.parameter("cost", shape=3)
    total = m.parameter("total", known=True) if known else 1.0
    m.minimize(dg.sum(c * x) + dg.sum(x * x))
    m.subject_to(dg.sum(x) == total)
    return dg.DecisionLayer(m, solver="daqp")


def decisions(costs: np.ndarray) -> np.ndarray:
    """Projection of −c/2 onto the simplex by sorting: independent of every solver here."""
    v = -costs / 2.0
    u = -np.sort(-v, axis=1)
    sums = np.cumsum(u, axis=1) - 1.0
    rho = (u * np.arange(1, 4) > sums).sum(axis=1)
    shift = sums[np.arange(len(v)), rho - 1] / rho
    return np.maximum(v - shift[:, None], 0.0)


def regret(predicted: np.ndarray, true: np.ndarray) -> np.ndarray:
    value = [(true * x).sum(1) + (x * x).sum(1) for x in (decisions(predicted), decisions(true))]
    return value[0] - value[1]


def problem(kind: str, n: int = 200, seed: int = 0) -> tuple[dg.Dataset, np.ndarray]:
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(n, 3))
    expected = np.ones((n, 3))
    if kind != "noise":
        expected = expected + x @ WEIGHTS.T
    if kind == "product":
        expected = expected + 0.5 * np.column_stack(
            [x[:, 0] * x[:, 1], -x[:, 1] * x[:, 2], x[:, 0] * x[:, 2]]
        )
    costs = expected + 0.3 * rng.normal(size=expected.shape)
    return dg.Dataset(x, {"cost": costs}), expected


LAYER = simplex()


@pytest.fixture(scope="module")
def found() -> dict[str, dg.evaluation.Diagnosis]:
    return {kind: dg.diagnose(LAYER, problem(kind)[0], unit="€") for kind in ("linear", "product", "noise")}


# ------------------------------------------------------------------------------------------ known truths


def test_a_right_predictor_leaves_nothing_to_gain(found):
    d = found["linear"]
    assert d.outlook == "none" and "flexible" in d.verdict
    assert d.saving("constant", "two-stage").mean > 5 * d.saving("constant", "two-stage").error


def test_a_wrong_predictor_leaves_something(found):
    d = found["product"]
    assert d.outlook == "gain" and "the linear predictor misses structure" in d.verdict


def test_noise_leaves_nothing(found):
    d = found["noise"]
    assert d.outlook == "none" and "The features say nothing" in d.verdict


@pytest.mark.parametrize("kind", ["linear", "product", "noise"])
def test_the_floor_is_near_the_regret_of_the_expected_costs(found, kind):
    data, expected = problem(kind)
    truth = mean_and_error(regret(expected, data.targets["cost"]))
    judged = found[kind].evaluations["flexible"]
    floor = found[kind].regret("floor")
    assert abs(floor.mean - truth.mean) < 3 * floor.error + 0.1 * truth.mean
    share = found[kind].noise.share
    true_share = 0.09 / ((judged.predicted["cost"] - judged.true["cost"]) ** 2).mean()
    assert abs(share.mean - true_share) < 4 * share.error + 0.05


def test_a_path_of_degree_six(monkeypatch):
    from decigrad.problems import shortest_path_layer, shortest_path_samples

    features, costs, expected = shortest_path_samples(300, 1, degree=6, noise=0.2, rows=3, cols=3)
    layer = shortest_path_layer(3, 3)
    d = dg.diagnose(layer, dg.Dataset(features, {"cost": costs}), draws=1, sizes=())
    assert d.outlook == "gain"
    truth = regret_of_paths(expected, costs)
    gain = d.regret("two-stage").mean - truth.mean()
    assert d.saving("two-stage", "floor").mean == pytest.approx(gain, rel=0.35)
    # Held-out least squares by hand: the same folds.
    order = np.random.default_rng(0).permutation(300)
    predicted = np.zeros_like(costs)
    ones = np.column_stack([features, np.ones(300)])
    for test in np.array_split(order, 5):
        train = np.setdiff1d(order, test)
        predicted[test] = ones[test] @ np.linalg.lstsq(ones[train], costs[train], rcond=None)[0]
    assert d.regret("two-stage").mean == pytest.approx(regret_of_paths(predicted, costs).mean(), rel=1e-9)
    assert d.learning.verdict == "cannot tell" and "too few" in d.learning.text


def regret_of_paths(predicted: np.ndarray, true: np.ndarray) -> np.ndarray:
    """On a 3 × 3 grid, by its six paths."""
    from itertools import pairwise, permutations

    from decigrad.problems import grid_edges

    edges = grid_edges(3, 3)
    paths = []
    for steps in sorted(set(permutations((1, 1, 3, 3)))):
        nodes = np.cumsum([0, *steps])
        if all((a % 3 != 2 or b - a != 1) for a, b in pairwise(nodes)):
            paths.append([float(e in set(pairwise(nodes))) for e in edges])
    use = np.array(paths)
    assert use.shape == (6, 12)
    chosen = (predicted @ use.T).argmin(1)
    value = true @ use.T
    return value[np.arange(len(true)), chosen] - value.min(1)


def test_decisions_that_predictions_do_not_move():
    m = dg.Model("fixed")
    x = m.continuous("x", shape=2, lb=1.0, ub=1.0)
    m.minimize(m.parameter("cost", shape=2) @ x)
    rng = np.random.default_rng(0)
    data = dg.Dataset(rng.normal(size=(40, 2)), {"cost": 1.0 + rng.normal(size=(40, 2))})
    d = dg.diagnose(dg.DecisionLayer(m), data, draws=1)
    assert d.outlook == "none" and "whatever is predicted" in d.verdict
    assert d.changed.max() == 0.0 and d.regret("two-stage").mean == 0.0


def test_a_quantile_is_found_by_a_correction():
    """Newsvendor: the best order is the 80 % quantile, which no prediction of the mean finds."""
    from decigrad.problems import newsvendor_model, newsvendor_samples

    features, demand, _ = newsvendor_samples(150, 1, products=2, degree=1)
    layer = dg.DecisionLayer(newsvendor_model(2))
    d = dg.diagnose(layer, dg.Dataset(features, {"demand": demand}), draws=1, sizes=())
    assert d.outlook == "gain" and "right on average is not the one to decide by" in d.verdict
    assert np.isnan(d.regret("floor").mean) and d.as_dict()["regret"]["floor"] is None
    assert "No floor is known" in str(d)


def test_too_few_samples_are_not_judged():
    d = dg.diagnose(LAYER, problem("product", n=24, seed=3)[0], folds=3)
    assert d.outlook == "unclear" and d.learning.verdict == "cannot tell"


# ------------------------------------------------------------------------------------------------ pieces


def test_decisions_within_the_error_by_hand(found):
    data, _ = problem("linear")
    d = dg.diagnose(LAYER, data, draws=200, sizes=())
    predicted = d.evaluations["two-stage"].predicted["cost"]
    errors = d.evaluations["two-stage"].true["cost"] - predicted
    # The exact mean over all errors, in place of draws.
    exact = np.array(
        [regret(predicted[i] + errors, np.tile(predicted[i], (len(errors), 1))).mean() for i in range(8)]
    )
    np.testing.assert_allclose(d.moved[:8], exact, rtol=0.35)
    assert np.mean(d.moved[:8]) == pytest.approx(exact.mean(), rel=0.1)
    moves = [
        np.abs(decisions(predicted[i] + errors) - decisions(predicted[i : i + 1]))
        for i in range(len(predicted))
    ]
    shares = np.array([(m.max(1) > 1e-6).mean() for m in moves])
    np.testing.assert_allclose(d.changed, shares, atol=0.15)


def test_weights_known_parameters_and_own_folds():
    """Doubling a weight is as good as repeating a sample; the floor's neighbours see it too."""
    data, _ = problem("linear", n=60)
    total = np.linspace(0.5, 1.5, 60)
    layer, weights = simplex(known=True), np.r_[np.full(30, 2.0), np.ones(30)]
    known = dg.Dataset(data.features, data.targets, {"total": total}, weights=weights)
    folds = [(np.arange(20, 60), np.arange(20)), (np.arange(20), np.arange(20, 50))]
    pairs = [(known.take(train), known.take(test)) for train, test in folds]
    d = dg.diagnose(layer, known, folds=pairs, draws=1, sizes=())
    assert len(d.weights) == 50 and d.folds == 2
    ones = np.column_stack([data.features, np.ones(60)])
    root = np.sqrt(weights)[:, None]
    for train, test in folds:
        solution = np.linalg.lstsq(
            root[train] * ones[train], (root * data.targets["cost"])[train], rcond=None
        )[0]
        np.testing.assert_allclose(
            d.evaluations["two-stage"].predicted["cost"][test], ones[test] @ solution, atol=1e-9
        )
    scaled = [
        layer.solve({"cost": c, "total": t}).x["x"].sum()
        for c, t in zip(data.targets["cost"][:3], total, strict=False)
    ]
    np.testing.assert_allclose(scaled, total[:3], atol=1e-9)
    np.testing.assert_allclose(d.evaluations["two-stage"].decisions["x"].sum(1), total[:50], atol=1e-9)
    expected = np.average(d.evaluations["two-stage"].regret, weights=weights[:50])
    assert d.regret("two-stage").mean == pytest.approx(expected)


def test_time_and_groups_are_kept_apart():
    data, _ = problem("linear", n=60)
    d = dg.diagnose(LAYER, data, folds=dg.walk_forward(data, 3, test=10), draws=1, sizes=())
    assert d.folds == 3 and len(d.weights) == 30
    np.testing.assert_array_equal(d.evaluations["two-stage"].true["cost"], data.targets["cost"][30:])
    # Each sample twice: only folds of whole groups keep the twin out of the neighbours.
    twins = dg.Dataset(
        np.repeat(data.features, 2, axis=0),
        {"cost": np.repeat(data.targets["cost"], 2, axis=0)},
        groups=np.repeat(np.arange(60), 2),
    )
    from sklearn.neighbors import KNeighborsRegressor

    nearest = dg.diagnose(LAYER, twins, predictor=KNeighborsRegressor(1), folds=3, draws=1, sizes=())
    assert nearest.evaluations["two-stage"].prediction_error["cost"].mse > 0.1


def test_a_regressor_as_predictor_and_as_flexible():
    from sklearn.linear_model import LinearRegression
    from sklearn.neighbors import KNeighborsRegressor

    data, _ = problem("product", n=60)
    d = dg.diagnose(
        LAYER, data, predictor=LinearRegression(), flexible=KNeighborsRegressor(3), draws=1, sizes=()
    )
    same = dg.diagnose(LAYER, data, draws=1, sizes=())
    assert d.regret("two-stage").mean == pytest.approx(same.regret("two-stage").mean)
    assert d.predictor == "LinearRegression" and d.flexible == "KNeighborsRegressor"


def test_kernel_regression_is_kernel_ridge():
    """Against scikit-learn at the width and ridge that it chose, and its leave-one-out choice beats zero."""
    from sklearn.kernel_ridge import KernelRidge

    rng = np.random.default_rng(0)
    x = rng.normal(size=(60, 2)) * [1.0, 50.0] + [3.0, 0.0]
    y = np.column_stack([np.sin(x[:, 0]), x[:, 0] * x[:, 1]]) + 0.05 * rng.normal(size=(60, 2))
    w = rng.uniform(0.5, 2.0, 60)
    fitted = KernelRegression.fit(x, y, w, seed=0)
    assert fitted.coefficients is not None
    z = (x - x.mean(0)) / x.std(0)
    errors = []
    for alpha in 10.0 ** np.arange(-4.0, 2.1, 0.5):
        ridge = KernelRidge(kernel="rbf", gamma=1.0 / fitted.width, alpha=alpha).fit(
            z, y, sample_weight=w / w.mean()
        )
        errors.append(np.abs(ridge.predict(z) - fitted.predict(x)).max() / np.abs(y).max())
    assert min(errors) < 1e-8
    nothing = KernelRegression.fit(np.ones((20, 2)), y[:20], np.ones(20), seed=0)
    assert not nothing.predict(np.ones((3, 2))).any()


def test_noise_test():
    rng = np.random.default_rng(1)
    x = rng.uniform(-1, 1, size=(1000, 2))
    smooth, noise = np.sin(2 * x[:, :1]), 0.3 * rng.normal(size=(1000, 1))
    ones = np.ones(1000)
    share = noise_test(x, smooth + noise, ones, 0).share
    truth = 0.09 / ((smooth + noise) ** 2).mean()
    assert abs(share.mean - truth) < 3 * share.error < 0.3 * truth
    assert noise_test(x, noise, ones, 0).share.mean > 0.9
    assert noise_test(x, smooth, ones, 0).share.mean < 0.01
    repeated = noise_test(np.zeros((30, 1)), rng.normal(size=(30, 1)), np.ones(30), 0)  # all at distance zero
    assert 0.7 < repeated.share.mean <= 1.0


@pytest.mark.parametrize("rate", [0.5, 1.0])
def test_the_learning_curve_is_recovered(rate):
    rng = np.random.default_rng(0)
    sizes, n = np.array([25, 50, 100, 200]), 4000
    curve = 0.2 + 4.0 * sizes**-rate
    values = curve[:, None] + 0.05 * rng.normal(size=n)  # paired: a sample is hard at every size
    found = fit_learning_curve(sizes, values + 0.001 * rng.normal(size=values.shape), np.ones(n))
    assert found.rate == rate
    assert found.asymptote.mean == pytest.approx(0.2, abs=3 * found.asymptote.error)
    assert found.excess.mean == pytest.approx(4.0 * 200**-rate, rel=0.05)
    needed = (4.0 / (0.05 * curve[-1])) ** (1 / rate)
    assert found.needed == pytest.approx(needed, rel=0.1)
    assert found.verdict == ("estimated" if needed < 4000 else "cannot tell")
    flat = fit_learning_curve(sizes, 0.2 + np.zeros((4, n)) + 0.05 * rng.normal(size=n), np.ones(n))
    assert flat.verdict == "enough" and "seem enough" in flat.text


# ------------------------------------------------------------------------------------------------ shown


def test_shown_as_text_page_and_values(found, tmp_path):
    d = found["product"]
    assert str(d).startswith("Will decision-focused training help? It may help.")
    assert all(f.text in str(d) for f in d.findings) and "€" in str(d)
    values = json.loads(json.dumps(d.as_dict(), allow_nan=False))
    assert values["outlook"] == "gain" and values["samples"] == 200
    by_name = {f["name"]: f for f in values["findings"]}
    assert by_name["regret of two-stage"]["value"] == pytest.approx(d.regret("two-stage").mean)
    page = d.to_html(tmp_path / "d.html", date="").read_text(encoding="utf-8")
    assert "http:" not in page and "https:" not in page and "It may help." in page
    pictures = d.figures()
    assert page.count("<svg") == len(pictures) == 5
    for figure, caption in pictures:
        axes = figure.axes[0]
        assert caption and axes.get_title() and axes.get_xlabel()
    assert d.table().row_count == len(d.findings)


def test_the_same_seed_gives_the_same_diagnosis(found):
    again = dg.diagnose(LAYER, problem("product")[0], unit="€")
    assert again.as_dict() == found["product"].as_dict()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"folds": 1}, "at least 2 folds"),
        ({"folds": 50}, "needs at least 2 folds and 100 samples"),
        ({"folds": []}, "at least one pair"),
        ({"draws": 0}, "draws must be"),
        ({"sizes": (0.5,)}, "sizes must be"),
    ],
)
def test_misuse(arguments, message):
    with pytest.raises(ModelError, match=message):
        dg.diagnose(LAYER, problem("linear", n=30)[0], **arguments)


def test_weighted_mean_and_error():
    values, weights = np.array([1.0, 2.0, 4.0, np.nan]), np.array([1.0, 2.0, 1.0, 5.0])
    found = mean_and_error(values, weights)
    assert found.mean == pytest.approx(np.average(values[:3], weights=weights[:3])) and found.n == 3
    plain, ones = mean_and_error(values), mean_and_error(values, np.full(4, 7.0))
    assert (ones.mean, ones.error) == (pytest.approx(plain.mean), pytest.approx(plain.error))
