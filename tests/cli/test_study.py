"""The studies, small: what they train on, what they write, and that the three outputs agree."""

import datetime
import json

import jax
import numpy as np
import pytest

import decigrad as dg
from decigrad.cli import _study_battery, _study_energy, _study_output, _study_portfolio
from decigrad.cli._study_training import DecisionTraining
from decigrad.problems import allocation, battery, portfolio
from decigrad.problems.energy import EnergyKnapsack


@pytest.fixture(scope="module")
def portfolio_study():
    rng = np.random.default_rng(0)
    prices = 50 * np.exp(np.cumsum(0.01 * rng.standard_normal((1200, 4)), axis=0))
    dates = np.datetime64("2001-01-01") + np.arange(len(prices))
    periods = portfolio.portfolio_periods(dates, prices, tuple("ABCD"))
    plan = _study_portfolio.Plan(train=64, test=20, epochs=1, blocks=2)
    cap = _study_portfolio.CAP
    _study_portfolio.CAP = 0.5  # four stocks cannot carry a fifth each
    try:
        with jax.enable_x64(True):
            yield _study_portfolio.study_portfolio(periods, prices, plan, range(2))
    finally:
        _study_portfolio.CAP = cap


@pytest.fixture(scope="module")
def battery_study():
    rng = np.random.default_rng(0)
    first = np.datetime64("2014-01-01")
    shape = 40 + 15 * np.sin(np.arange(24) / 24 * 2 * np.pi)
    level = np.exp(0.1 * rng.standard_normal((80, 1)))
    days = battery.BatteryDays(
        dates=first + np.arange(80),
        features=np.hstack([np.log(level), rng.standard_normal((80, 3))]),
        log_prices=np.log(shape * level) + 0.05 * rng.standard_normal((80, 24)),
        names=("level", "a", "b", "c"),
    )
    plan = _study_battery.Plan(weights=((10.0, 5.0), (35.0, 15.0)), epochs=1)
    with jax.enable_x64(True):
        return _study_battery.study_battery(days, plan, range(2))


def test_portfolio_judges_all_methods_on_the_same_weeks(portfolio_study):
    data = portfolio_study.comparisons["portfolio"]
    assert data.methods == ["two-stage", "mse", "regret"] and data.seeds == [0, 1]
    for method in data.methods:
        for run in data.runs[method]:
            assert len(run.evaluation.failed) == 0
            assert run.evaluation.num_instances == data.settings["test weeks"]
            assert run.evaluation.regret.min() >= -1e-9


def test_portfolio_economics_are_those_of_the_weights(portfolio_study):
    table = portfolio_study.tables[0]
    row = {r[0]: r for r in table.rows}
    assert list(row) == ["two-stage", "mse", "regret", "no forecast", "historical mean", "equal weights"]
    # The benchmark drifts for one week only, so going back to equal weights is cheap.
    assert 0 < float(row["equal weights"][4]) < 5
    certainty = -np.mean(
        [
            -r.evaluation.optimal_value - r.evaluation.regret
            for r in portfolio_study.comparisons["portfolio"].runs["mse"]
        ]
    )
    assert float(row["mse"][5]) == pytest.approx(-certainty * 252 / 5, abs=0.006)


def test_energy_trains_on_the_past_alone():
    rng = np.random.default_rng(0)
    features = rng.standard_normal((60, 6, 2))
    weights = np.array([3.0, 5.0, 7.0, 3.0, 5.0, 7.0])
    values = weights * np.exp(features[..., 0]) + 0.1 * rng.random((60, 6))
    plan = _study_energy.Plan(capacities=(10,), folds=2, test=15, epochs=1)
    days = EnergyKnapsack(features, values, weights)
    study = _study_energy.study_energy(days, plan, range(2))
    data = study.comparisons["capacity 10"]
    assert data.methods == list(_study_energy.METHODS) and data.seeds == [0, 1]
    layer = _study_energy.energy.energy_knapsack_layer(weights, 10)
    for part, first in (
        (slice(0, 15), 30),
        (slice(15, 30), 45),
    ):  # trained on what lies before
        design = np.c_[features[:first].reshape(-1, 2), np.ones(first * 6)]
        found = np.linalg.lstsq(design, values[:first].ravel(), rcond=None)[0]
        test = slice(first, first + 15)
        decided = layer.solve({"value": features[test] @ found[:2] + found[2]}).x["x"]
        best = layer.solve({"value": values[test]}).x["x"]
        regret = (values[test] * (best - decided)).sum(axis=1)
        judged = data.runs["two-stage"][0].evaluation.regret[part]
        np.testing.assert_allclose(judged, regret, atol=1e-9)


def test_battery_compares_each_pair_of_weights(battery_study):
    assert list(battery_study.comparisons) == ["λ = 35, ε = 15", "λ = 10, ε = 5"]
    data = battery_study.comparisons["λ = 10, ε = 5"]
    assert data.runs["two-stage"][0].evaluation.num_instances == 16
    assert len(battery_study.tables[0].rows) == 2 * 5


@pytest.mark.parametrize("name", ["portfolio_study", "battery_study"])
def test_page_json_and_markdown_show_the_same_figures(name, request, tmp_path):
    study = request.getfixturevalue(name)
    study.command = "decigrad study something"
    paths = study.write(tmp_path / "deep" / "study.html")
    assert [p.suffix for p in paths] == [".html", ".json", ".md"]
    page, text = paths[0].read_text(encoding="utf-8"), paths[2].read_text(encoding="utf-8")
    found = json.loads(paths[1].read_text(encoding="utf-8"))
    label, data = next(iter(study.comparisons.items()))
    verdict = found["comparisons"][label]["against_baseline"]["regret"]["verdict"]["text"]
    assert verdict == data.verdict("regret").text
    assert verdict in text
    assert study.command in text and study.command in page
    assert found["comparisons"][label]["methods"]["mse"]["mean_regret"]["mean"] == pytest.approx(
        data.estimate("mse", "mean_regret").mean
    )
    assert study.notes
    for note in study.notes:
        assert note in text
        assert note in found["notes"]


def test_training_keeps_two_stage_when_nothing_beats_it():
    features, _ = allocation.allocation_samples(40, 0)
    # Costs that are exactly linear: the regret of two-stage is zero, and no step can lower it.
    data = dg.Dataset(features, {"cost": 1.0 + features @ allocation.ALLOCATION_WEIGHTS.T})
    layer = dg.DecisionLayer(allocation.allocation_model(), solver="daqp")
    with jax.enable_x64(True):
        predictor, weight = DecisionTraining(weights=(1.0,), epochs=1, learning_rate=0.1)(
            _least_squares(layer), layer, data, seed=0
        )
        expected = _least_squares(layer)(data)
    assert np.isinf(weight)
    np.testing.assert_array_equal(predictor.weight, expected.weight)


def test_training_never_fits_the_validation_part():
    features, costs = allocation.allocation_samples(40, 0)
    layer = dg.DecisionLayer(allocation.allocation_model(), solver="daqp")
    seen = []

    def two_stage(part):
        seen.append(part.features)
        return _least_squares(layer)(part)

    with jax.enable_x64(True):
        DecisionTraining(weights=(1.0,), epochs=1, learning_rate=1e-3)(
            two_stage, layer, dg.Dataset(features, {"cost": costs}), seed=0
        )
    np.testing.assert_array_equal(seen[0], features[:32])
    np.testing.assert_array_equal(seen[1], features)


def _least_squares(layer):
    return lambda part: dg.fit(dg.Linear(), layer, part, dg.losses.LeastSquares()).predictor


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"nothing\.csv: expected a CSV file"):
        _study_battery.run_battery(tmp_path / "nothing.csv")


def test_run_battery_reads_a_file_and_prints(tmp_path, capsys):
    rng = np.random.default_rng(0)
    start = datetime.datetime(2014, 1, 1)
    lines = ["datetime,da_price,load_forecast,temp_dca"]
    for hour in range(24 * 30):
        price, load = 40 + 10 * np.sin(hour / 4) + rng.uniform(0, 5), rng.uniform(6e4, 1e5)
        lines.append(
            f"{start + datetime.timedelta(hours=hour)},{price:.2f},{load:.0f},{rng.uniform(30, 60):.1f}"
        )
    path = tmp_path / "prices.csv"
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    _study_battery.run_battery(path, seeds=1, report=tmp_path / "battery.html", quick=True)
    assert "Day-ahead arbitrage" in capsys.readouterr().out
    assert (tmp_path / "battery.html").stat().st_size > 10_000


def test_pipe_tables_escape_pipes():
    assert _study_output._pipes(["a|b"], [[1.5]]) == "| a\\|b |\n| --- |\n| 1.500 |"
