"""`explain`: every number against one computed by hand; sentences and pictures from the same numbers."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import linregress, spearmanr

import decigrad as dg
from decigrad.errors import ModelError
from decigrad.evaluation.aspects import calibration, component_labels, sensitivity_at, weight_change
from decigrad.evaluation.comparison import ComparisonData, Run
from decigrad.evaluation.explanation import explain
from decigrad.evaluation.explanation_report import explanation_figures
from decigrad.evaluation.judge import evaluate_predictions
from decigrad.evaluation.metrics import Evaluation


def model(curvature: float = 1.0, kind: str = "continuous") -> dg.Model:
    m = dg.Model("simplex")
    x = getattr(m, kind)("x", shape=3, **({"lb": 0.0, "ub": 1.0} if kind == "continuous" else {}))
    c = m.parameter("cost", shape=3)
    m.minimize(dg.sum(c * x) + (curvature * dg.sum(x * x) if curvature else 0.0))
    m.subject_to(dg.sum(x) == 1.0)
    return m


LAYER = dg.DecisionLayer(model(), solver="daqp")
NAMES = ["wind", "load", "day"]
RNG = np.random.default_rng(0)
FEATURES = RNG.normal(size=(30, 3)) * [1.0, 10.0, 0.1] + [0.0, 5.0, 0.0]
COSTS = 1.0 + FEATURES @ np.array([[0.3, -0.2, 0.0], [0.02, 0.0, -0.03], [1.0, 0.0, 0.0]]) * 0.5
COSTS = COSTS + 0.2 * RNG.normal(size=COSTS.shape)


class Frame:
    """What `Dataset` needs of a frame."""

    columns = NAMES

    def to_numpy(self) -> np.ndarray:
        return FEATURES


TEST = dg.Dataset(Frame(), {"cost": COSTS})
MATRIX = np.array([[0.1, 0.2, 0.3], [0.0, -0.1, 0.05], [0.2, 0.0, 0.01]])


def linear(matrix: np.ndarray) -> dg.predictors.LinearPredictor:
    return dg.Linear().init(TEST, (("cost", (3,)),)).with_coefficients(matrix, np.ones(3))


BEFORE, AFTER = linear(MATRIX), linear(MATRIX + np.diag([0.5, 0.0, 0.0]))


def judged(predictor: object) -> Evaluation:
    return dg.evaluate(predictor, LAYER, TEST)


@pytest.fixture(scope="module")
def pair() -> tuple[Evaluation, Evaluation]:
    return judged(BEFORE), judged(AFTER)


@pytest.fixture(scope="module")
def data(pair) -> ComparisonData:
    return ComparisonData({"two-stage": [Run(0, pair[0])], "regret": [Run(0, pair[1])]}, unit="EUR")


@pytest.fixture(scope="module")
def found(data):
    return explain(data, predictors=(BEFORE, AFTER), test=TEST, layer=LAYER)


def test_gains_by_hand(found, pair):
    gains = pair[0].regret - pair[1].regret
    np.testing.assert_allclose(found.gains, gains)
    assert list(found.order) == sorted(range(30), key=lambda i: -gains[i])
    better, worse, same = found.shares
    assert better == (gains > 1e-9).mean() and worse == (gains < -1e-9).mean()
    assert better + worse + same == pytest.approx(1.0)
    won = np.sort(np.maximum(gains, 0))[::-1]
    count = next(k for k in range(1, 31) if won[:k].sum() >= 0.5 * won.sum())
    assert found.concentration == pytest.approx(count / 30)
    decided = np.abs(pair[0].decisions["x"] - pair[1].decisions["x"]).max(1) > 1e-6
    assert found.changed == pytest.approx(decided.mean())


def test_errors_and_their_agreement_with_regret(found, pair):
    unit = COSTS.std(axis=0)
    for error, evaluation, mse, rank in zip(found.errors, pair, found.mse, found.agreement, strict=True):
        off = (evaluation.predicted["cost"] - COSTS) / unit
        np.testing.assert_allclose(error, np.sqrt((off**2).mean(1)))
        assert mse == pytest.approx((off**2).mean())
        assert rank == pytest.approx(spearmanr(error, evaluation.regret).statistic)


def test_calibration_is_a_regression(pair):
    unit, centre = COSTS.std(axis=0), COSTS.mean(axis=0)
    p, t = (((a - centre) / unit).ravel() for a in (pair[0].predicted["cost"], COSTS))
    c = calibration(pair[0])
    assert c.slope == pytest.approx(linregress(p, t).slope) and c.bias == pytest.approx((p - t).mean())
    order = np.argsort(p)
    np.testing.assert_allclose(c.predicted, p[order].reshape(10, 9).mean(1))
    np.testing.assert_allclose(c.true, t[order].reshape(10, 9).mean(1))


def test_linear_weights_are_standardized_and_named(found):
    w = found.weights
    assert w is not None and w.exact and w.features == NAMES and w.outputs == ["[0]", "[1]", "[2]"]
    np.testing.assert_allclose(w.before, MATRIX.T * FEATURES.std(0)[:, None] / COSTS.std(0), rtol=1e-9)
    expected = np.zeros((3, 3))
    expected[0, 0] = 0.5 * FEATURES[:, 0].std() / COSTS[:, 0].std()
    np.testing.assert_allclose(w.after - w.before, expected, atol=1e-9)
    np.testing.assert_allclose(w.by_feature, [expected[0, 0] / np.sqrt(3), 0, 0], atol=1e-9)
    assert "most for wind" in dict(found.sentences)["Weights"]


def test_other_predictors_are_explained_by_their_linear_part(pair):
    """The same predictions through functions that show no weights; then something that is not linear."""
    exact = weight_change((BEFORE, AFTER), pair, TEST)
    projected = weight_change((lambda f: f, lambda f: f), pair, TEST)
    assert not projected.exact and projected.linear == pytest.approx((1.0, 1.0))
    np.testing.assert_allclose(projected.after, exact.after, atol=1e-8)
    squared = {"cost": np.tile((FEATURES[:, :1] - FEATURES[:, :1].mean()) ** 2, 3)}
    curved = weight_change((lambda f: f,) * 2, (pair[0], evaluate_predictions(squared, LAYER, TEST)), TEST)
    assert curved.linear[0] == pytest.approx(1.0) and curved.linear[1] < 0.9


def test_one_predictor_for_all_items():
    features = RNG.normal(size=(12, 3, 2))
    data = dg.Dataset(features, {"cost": features @ [1.0, -1.0]})
    recipe = dg.Linear(shared=True).init(data, (("cost", (3,)),))
    two = tuple(recipe.with_coefficients(np.array([[a, -1.0]]), np.zeros(1)) for a in (1.0, 2.0))
    w = weight_change(two, tuple(dg.evaluate(p, LAYER, data) for p in two), data)
    flat = features.reshape(-1, 2)
    unit = (flat @ [1.0, -1.0]).std()
    assert w.exact and w.outputs == ["each item"]
    np.testing.assert_allclose(w.before[:, 0], flat.std(0) * [1.0, -1.0] / unit, rtol=1e-9)
    np.testing.assert_allclose(w.after[:, 0], flat.std(0) * [2.0, -1.0] / unit, rtol=1e-9)


def test_sensitivity_of_an_interior_decision_a_vertex_and_an_integer(pair):
    flat = {"cost": np.tile([0.9, 1.0, 1.1], (30, 1))}
    inner = sensitivity_at(LAYER, evaluate_predictions(flat, LAYER, TEST), 3)
    np.testing.assert_allclose(inner.matrix, np.full((3, 3), 1 / 6) - np.eye(3) / 2, atol=1e-9)
    assert inner.variables == ["x[0]", "x[1]", "x[2]"] and inner.parameters == [
        f"cost[{j}]" for j in range(3)
    ]
    vertex = sensitivity_at(dg.DecisionLayer(model(0.0)), pair[0], 0)
    assert not vertex.matrix.any()
    assert "whole numbers" in sensitivity_at(dg.DecisionLayer(model(0.0, "binary")), pair[0], 0)


def test_sentences(found, data):
    text = str(found)
    assert text.startswith("Why regret decides otherwise than two-stage")
    assert data.verdict("regret").text in text
    assert [heading for heading, _ in found.sentences] == [
        "Is it more than chance",
        "Who gains and who loses",
        "Decisions before and after",
        "Regret against prediction error",
        "Calibration",
        "Weights",
        "Sensitivity",
    ]
    bare = explain(data)
    assert bare.weights is None and dict(bare.sentences)["Weights"].startswith("Not shown")
    with pytest.raises(ModelError, match=r"one of the methods \['regret'\], got 'two-stage'"):
        explain(data, "two-stage")


def test_pictures_are_labelled(found):
    pictures = explanation_figures(found)
    assert len(pictures) == 6
    for figure, caption in pictures:
        axes = figure.axes[0]
        assert (
            caption
            and axes.get_title()
            and axes.get_xlabel()
            and (axes.get_ylabel() or len(axes.get_yticks()))
        )


def test_nothing_to_explain(make_comparison):
    failed = explain(make_comparison(failed=40, noise={"two-stage": 0.5, "spo+": 0.5}), "spo+")
    assert not len(failed.order) and len(str(failed)) and len(explanation_figures(failed)) == 1
    same = explain(make_comparison(noise={"two-stage": 0.5, "spo+": 0.5}))
    assert same.shares == (0.0, 0.0, 1.0) and same.changed == 0.0 and np.isnan(same.concentration)


def test_labels():
    assert component_labels({"x": (2,)}) == ["[0]", "[1]"]
    assert component_labels({"x": (1, 2), "y": ()}) == ["x[0,0]", "x[0,1]", "y"]
    assert component_labels({"x": (1,)}, short=False) == ["x[0]"]


def test_a_comparison_explains_its_best(tmp_path):
    comparison = dg.compare(
        LAYER, TEST, TEST, methods=["two-stage", "regret"], seeds=1, epochs=1, selection=None
    )
    found = comparison.explain()
    assert found.method == "regret" and found.weights.features == NAMES and found.sensitivity is not None
    page = comparison.to_html(tmp_path / "c.html").read_text(encoding="utf-8")
    assert "Why they differ" in page and "wind" in page
