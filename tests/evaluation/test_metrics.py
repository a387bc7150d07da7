"""Metrics against scipy, scikit-learn's formulas and cases computed by hand."""

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from decigrad.evaluation import metrics, prediction
from decigrad.evaluation.metrics import Evaluation


def evaluation(**changes):
    truth = np.array([[1.0, 2.0, 4.0], [3.0, 1.0, 2.0], [2.0, 2.0, 5.0]])
    arguments = {
        "name": "spo+",
        "regret": np.array([0.0, 2.0, 1.0]),
        "optimal_value": np.array([1.0, -1.0, 2.0]),
        "predicted": {"cost": np.array([[1.0, 3.0, 3.0], [1.0, 2.0, 3.0], [2.0, 1.0, 4.0]])},
        "true": {"cost": truth, "capacity": np.ones(3)},
        "decisions": {"x": np.eye(3)[[0, 0, 1]]},
        "optimal_decisions": {"x": np.eye(3)[[0, 1, 1]]},
        "seconds": 0.5,
    }
    return Evaluation(**(arguments | changes))


def test_regret_summary_by_hand():
    s = metrics.regret_summary([2.0, 1.0, 3.0, 10.0], [1.0, -1.0, 3.0, 4.0])
    assert s.mean == pytest.approx(9 / 4)
    assert s.normalized == pytest.approx(9 / 9)
    assert s.maximum == 6.0
    assert s.quantiles[0.5] == pytest.approx(1.5)
    assert s.standard_error == pytest.approx(stats.sem([1.0, 2.0, 0.0, 6.0]))
    assert (s.count, s.failed) == (4, 0)


def test_failed_samples_are_left_out_and_counted():
    s = metrics.regret_summary([2.0, np.nan, 3.0], [1.0, 5.0, np.nan])
    assert (s.mean, s.normalized, s.count, s.failed) == (1.0, 1.0, 3, 2)
    nothing = metrics.regret_summary([np.nan], [1.0])
    assert np.isnan(nothing.mean) and nothing.failed == 1
    e = evaluation(regret=np.array([np.nan, 2.0, 1.0]), failed=np.array([2]))
    assert e.failed.tolist() == [0, 2]
    assert e.mean_regret == 2.0 and e.summary()["failed"] == 2
    assert "2 of 3 FAILED" in str(e)
    # The one sample left decided differently from the optimum.
    assert e.equal_decisions == 0.0


def test_regret_of_one_sample_has_no_spread():
    s = metrics.regret_summary([2.0], [1.0])
    assert np.isnan(s.standard_error) and s.mean == 1.0


def test_normalized_regret_with_a_zero_denominator():
    assert metrics.regret_summary([0.0], [0.0]).normalized == 0.0
    assert np.isnan(metrics.regret_summary([1.0], [0.0]).normalized)


@pytest.mark.parametrize("arguments", [([1.0], [1.0, 2.0]), ([[1.0]], [1.0])])
def test_regret_summary_refuses_shapes(arguments):
    with pytest.raises(ValueError, match=r"cost|lengths"):
        metrics.regret_summary(*arguments)


def test_prediction_error_against_formulas():
    rng = np.random.default_rng(0)
    true, predicted = rng.normal(size=(2, 50, 4))
    e = metrics.prediction_error(predicted, true)
    assert e.mse == pytest.approx(np.mean((predicted - true) ** 2))
    assert e.mae == pytest.approx(np.mean(np.abs(predicted - true)))
    # R² weighted by variance: per component, then averaged with the components' variances as weights.
    by_component = 1 - ((predicted - true) ** 2).sum(0) / ((true - true.mean(0)) ** 2).sum(0)
    assert e.r2 == pytest.approx(np.average(by_component, weights=true.var(0)))


def test_prediction_error_against_scikit_learn():
    reference = pytest.importorskip("sklearn.metrics")
    true, predicted = np.random.default_rng(1).normal(size=(2, 30, 3))
    e = metrics.prediction_error(predicted, true)
    assert e.r2 == pytest.approx(reference.r2_score(true, predicted, multioutput="variance_weighted"))
    assert e.mse == pytest.approx(reference.mean_squared_error(true, predicted))


def test_prediction_error_without_variation_or_data():
    assert np.isnan(metrics.prediction_error(np.ones((3, 2)), np.ones((3, 2))).r2)
    assert metrics.prediction_error([[np.nan], [1.0]], [[1.0], [3.0]]).count == 1
    assert np.isnan(metrics.prediction_error([[np.nan]], [[1.0]]).mse)


@settings(max_examples=40, deadline=None)
@given(st.integers(2, 9), st.integers(1, 6), st.integers(2, 8), st.integers(0, 10_000))
def test_rank_correlations_equal_scipy_with_ties(n, batch, levels, seed):
    rng = np.random.default_rng(seed)
    a, b = rng.integers(0, levels, size=(2, batch, n)).astype(float)
    tau, rho = prediction.kendall(a, b), prediction.spearman(a, b)
    for i in range(batch):
        if np.ptp(a[i]) == 0 or np.ptp(b[i]) == 0:
            assert np.isnan(tau[i]) and np.isnan(rho[i])
            continue
        assert tau[i] == pytest.approx(stats.kendalltau(a[i], b[i]).statistic)
        assert rho[i] == pytest.approx(stats.spearmanr(a[i], b[i]).statistic)


def test_kendall_agrees_on_both_sides_of_the_sweep_limit(monkeypatch):
    a, b = np.random.default_rng(0).integers(0, 30, size=(2, 2, 60)).astype(float)
    sweep = prediction.kendall(a, b)
    monkeypatch.setattr(prediction, "_KENDALL_SWEEP_LIMIT", 10)
    np.testing.assert_allclose(prediction.kendall(a, b), sweep, atol=1e-12)


def test_rank_agreement_counts_what_is_defined():
    r = metrics.rank_agreement([[1.0, 2.0], [1.0, 1.0], [np.nan, 1.0]], [[3.0, 9.0], [1.0, 2.0], [1.0, 2.0]])
    assert (r.spearman, r.kendall, r.defined) == (1.0, 1.0, 1)
    assert metrics.rank_agreement([1.0, 2.0], [1.0, 2.0]).defined == 0  # a scalar has no order


def test_correct_cheapest_breaks_ties_by_chance():
    assert metrics.correct_cheapest([[1, 2], [2, 1]], [[0, 5], [0, 5]]) == 0.5
    assert metrics.correct_cheapest([[1, 1, 1, 1]], [[3, 2, 9, 9]]) == 0.25
    assert metrics.correct_cheapest([[1, 2, 3]], [[0, 0, 1]]) == 1.0
    assert metrics.correct_cheapest([[1, 2]], [[0, 5]], sense="maximize") == 1.0
    assert np.isnan(metrics.correct_cheapest([[1.0]], [[1.0]]))
    with pytest.raises(ValueError, match="sense"):
        metrics.correct_cheapest([[1, 2]], [[1, 2]], sense="max")


def test_equal_decisions_within_a_tolerance():
    x, best = np.array([[1.0, 0.0], [1e6 + 0.5, 0], [np.nan, 0]]), np.array([[1.0, 1e-7], [1e6, 0], [0.0, 0]])
    np.testing.assert_array_equal(metrics.equal_decisions(x, best), [1, 1, np.nan])
    np.testing.assert_array_equal(metrics.equal_decisions(x, best, tolerance=1e-8), [0, 0, np.nan])
    both = metrics.equal_decisions({"x": x, "y": np.ones(3)}, {"x": best, "y": np.array([1.0, 2.0, 1.0])})
    np.testing.assert_array_equal(both, [1, 0, np.nan])
    with pytest.raises(ValueError, match="name"):
        metrics.equal_decisions({"x": x}, {"y": best})


def test_evaluation_summary():
    e = evaluation()
    s = e.summary()
    assert s["mean_regret"] == 1.0 and s["normalized_regret"] == 0.75 and s["max_regret"] == 2.0
    assert s["regret_q50"] == 1.0 and s["instances"] == 3 and s["failed"] == 0
    assert s["equal_decisions"] == pytest.approx(2 / 3)
    assert s["correct_cheapest"] == pytest.approx(2 / 3)
    assert s["mse"] == pytest.approx(10 / 9) and s["seconds"] == 0.5
    assert "mse[cost]" not in s


def test_several_parameters_are_averaged_and_named():
    e = evaluation(
        predicted={"a": np.zeros((3, 2)), "b": np.zeros(3)}, true={"a": np.ones((3, 2)), "b": 3 * np.ones(3)}
    )
    s = e.summary()
    assert (s["mse[a]"], s["mse[b]"], s["mse"]) == (1.0, 9.0, 5.0)
    assert np.isnan(s["spearman[b]"])


def test_evaluation_table_and_json(tmp_path):
    from rich.console import Console

    e = evaluation(name="a [bold] name", regret=np.array([0.0, np.nan, 1.0]))
    console = Console(width=80, record=True, file=open(tmp_path / "out", "w"))  # noqa: SIM115
    console.print(e.table())
    console.file.close()
    assert "a [bold] name" in console.export_text()
    loaded = json.loads(e.to_json(tmp_path / "e.json"))
    assert loaded["regret"] == [0.0, None, 1.0] and loaded["failed"] == [1]
    assert json.loads((tmp_path / "e.json").read_text()) == loaded
    assert "regret" not in json.loads(e.to_json(arrays=False))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"regret": np.empty(0), "optimal_value": np.empty(0)}, "no instances"),
        ({"optimal_value": np.ones(2)}, "2 optimal values"),
        ({"decisions": {"x": np.ones((2, 3))}}, r"decisions\['x'\] has shape \(2, 3\)"),
        ({"predicted": {"price": np.ones(3)}}, r"no true values .*\['price'\]"),
        ({"regret": np.ones((3, 1))}, "one number per sample"),
    ],
)
def test_evaluation_refuses_bad_input(changes, message):
    with pytest.raises(ValueError, match=message):
        evaluation(**changes)
