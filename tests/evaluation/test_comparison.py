"""The data of a comparison: pairing, intervals, verdicts."""

import dataclasses

import numpy as np
import pytest
from rich.console import Console

from decigrad.evaluation.comparison import ComparisonData
from decigrad.evaluation.statistics import paired_bootstrap, percent_gain, t_interval


def test_gain_over_seeds_with_their_own_test_sets(make_comparison):
    data = make_comparison(seeds=6)
    assert not data.shared_test and data.challengers == ["regret", "spo+"] and data.best == "regret"
    assert data.level == pytest.approx(0.975)
    base = np.array([r.evaluation.mean_regret for r in data.runs["two-stage"]])
    ours = np.array([r.evaluation.mean_regret for r in data.runs["regret"]])
    assert data.gain("regret") == t_interval(percent_gain(base, ours), confidence=0.975)
    assert data.difference("regret").estimate == pytest.approx((base - ours).mean())
    verdict = data.verdict("regret")
    assert verdict.kind == "gain" and verdict.text.startswith("regret beats two-stage: mean regret ")
    assert "% less" in verdict.text and "jointly" in verdict.text


def test_gain_on_a_shared_test_set_resamples_instances_too(make_comparison):
    data = make_comparison(shared=True)
    assert data.shared_test
    base, ours = np.stack(data.regrets("two-stage")), np.stack(data.regrets("spo+"))
    expected = paired_bootstrap(base, ours, statistic="gain", confidence=data.level)
    assert data.gain("spo+") == expected
    assert "instances and 3 seeds" in data.verdict("spo+").text


def test_a_loss_is_called_a_loss(make_comparison):
    data = make_comparison({"two-stage": 0.2, "regret": 0.9}, seeds=5)
    verdict = data.verdict("regret")
    assert verdict.kind == "loss" and "loses to two-stage" in verdict.text and "% more" in verdict.text
    assert "jointly" not in verdict.text


def test_one_seed_says_what_it_does_not_cover(make_comparison):
    verdict = make_comparison(seeds=1).verdict("regret")
    assert "bootstrap over 40 instances" in verdict.text and "This is one seed" in verdict.text


def test_one_instance_has_no_interval(make_comparison):
    verdict = make_comparison({"two-stage": 0.8, "regret": 0.2}, seeds=1, instances=1).verdict("regret")
    assert verdict.kind == "tie" and "no confidence interval" in verdict.text


def test_equal_methods_tie(make_comparison):
    verdict = make_comparison({"two-stage": 0.4, "regret": 0.4}).verdict("regret")
    assert verdict.kind == "tie" and "decide equally well" in verdict.text


def test_a_difference_within_chance_is_a_tie(make_comparison):
    data = make_comparison({"two-stage": 0.5, "regret": 0.500001}, shared=True, instances=10)
    rng = np.random.default_rng(0)
    for run, base in zip(data.runs["regret"], data.runs["two-stage"], strict=True):
        run.evaluation.regret[:] = base.evaluation.regret + 0.01 * rng.normal(size=10)
    verdict = data.verdict("regret")
    assert verdict.kind == "tie" and "the interval contains zero" in verdict.text


def test_a_perfect_baseline_is_compared_by_difference(make_comparison):
    data = make_comparison({"two-stage": 0.0, "regret": 0.5}, seeds=4)
    for run in data.runs["two-stage"]:
        run.evaluation.regret[:] = 0.0
    verdict = data.verdict("regret")
    assert verdict.kind == "loss" and "%" not in verdict.text.split("(")[0]


def test_failed_instances_are_paired_out(make_comparison):
    data = make_comparison(failed=4)
    assert data.failures("regret") == 12 and data.failures("two-stage") == 0
    base, ours = data.paired_regret("regret")
    np.testing.assert_allclose(base, [r.evaluation.regret[4:].mean() for r in data.runs["two-stage"]])
    np.testing.assert_allclose(ours, [r.evaluation.mean_regret for r in data.runs["regret"]])


def test_all_failed_is_no_comparison(make_comparison):
    data = make_comparison(failed=40)
    assert data.best is None
    assert "cannot be compared" in data.verdict("regret").text


def test_estimates_and_terminal_table(make_comparison, tmp_path):
    data = make_comparison(failed=1)
    e = data.estimate("regret", "seconds_fit")
    assert (e.mean, e.error, e.n) == (1.5, 0.0, 3)
    assert np.isnan(data.estimate("regret", "no such metric").mean)
    with open(tmp_path / "out", "w") as file:
        console = Console(width=220, record=True, file=file)
        console.print(data.table())
    text = console.export_text()
    assert "two-stage" in text and "gain over two-stage, %" in text and "failed" in text
    assert str(data.gain("spo+")) in text


def test_refuses_what_cannot_be_paired(make_comparison):
    data = make_comparison()
    with pytest.raises(ValueError, match="baseline 'ols'"):
        dataclasses.replace(data, baseline="ols")
    with pytest.raises(ValueError, match="has seeds"):
        ComparisonData({**data.runs, "spo+": data.runs["spo+"][:2]})
    with pytest.raises(ValueError, match="different test instances"):
        ComparisonData({"two-stage": data.runs["two-stage"], "x": make_comparison(instances=9).runs["spo+"]})
    with pytest.raises(ValueError, match="at least one seed"):
        ComparisonData({"two-stage": []})
