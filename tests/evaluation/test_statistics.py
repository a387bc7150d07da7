"""Intervals against scipy, by simulation, and at their edges."""

import numpy as np
import pytest
from scipy import stats

from decigrad.evaluation import statistics


def test_mean_and_error_against_scipy():
    v = np.random.default_rng(0).normal(size=12)
    e = statistics.mean_and_error([*v, np.nan])
    assert (e.mean, e.error, e.n) == (pytest.approx(v.mean()), pytest.approx(stats.sem(v)), 12)


def test_one_value_has_no_interval():
    e = statistics.mean_and_error([3.0])
    assert e.mean == 3.0 and np.isnan(e.error) and str(e) == "3.000"
    i = statistics.paired_difference([3.0], [1.0])
    assert i.estimate == 2.0 and not i.known and not i.excludes_zero
    assert "at least two seeds" in str(i)
    assert statistics.mean_and_error([]).n == 0
    assert not statistics.paired_bootstrap([1.0], [2.0]).known
    assert not statistics.moving_block_bootstrap([1.0]).known


def test_paired_difference_against_scipy():
    a, b = np.random.default_rng(1).normal(size=(2, 9))
    ours = statistics.paired_difference(a, b, confidence=0.9)
    theirs = stats.ttest_rel(a, b).confidence_interval(0.9)
    assert (ours.low, ours.high) == (pytest.approx(theirs.low), pytest.approx(theirs.high))
    with pytest.raises(ValueError, match="one length"):
        statistics.paired_difference([1.0, 2.0], [1.0])


def test_percent_gain():
    assert statistics.percent_gain(2.0, 1.0) == 50.0
    assert statistics.percent_gain(-2.0, -1.0) == -50.0  # costing more is a loss, whatever the sign
    np.testing.assert_array_equal(statistics.percent_gain([0.0, 0.0], [0.0, 1.0]), [0.0, -np.inf])


def test_bootstrap_agrees_with_the_normal_interval():
    rng = np.random.default_rng(2)
    a = rng.exponential(size=400)
    b = a - 0.1 + 0.3 * rng.normal(size=400)
    i = statistics.paired_bootstrap(a, b)
    error = stats.sem(a - b)
    assert i.estimate == pytest.approx((a - b).mean())
    assert i.low == pytest.approx(i.estimate - 1.96 * error, abs=0.15 * error)
    assert i.high == pytest.approx(i.estimate + 1.96 * error, abs=0.15 * error)
    gain = statistics.paired_bootstrap(a, b, statistic="gain")
    assert gain.estimate == pytest.approx(100 * (1 - b.mean() / a.mean()))
    assert gain.excludes_zero


def test_bootstrap_is_reproducible_and_chunked_alike(monkeypatch):
    a, b = np.random.default_rng(3).normal(size=(2, 50))
    first = statistics.paired_bootstrap(a, b, resamples=400, seed=7)
    assert statistics.paired_bootstrap(a, b, resamples=400, seed=7) == first
    assert statistics.paired_bootstrap(a, b, resamples=400, seed=8) != first
    monkeypatch.setattr(statistics, "_CHUNK", 1000)
    other = statistics.paired_bootstrap(a, b, resamples=400, seed=7)
    assert other.low == pytest.approx(first.low, abs=0.1)


def test_bootstrap_leaves_failed_pairs_out():
    a, b = np.random.default_rng(4).normal(size=(2, 60))
    with_failures = statistics.paired_bootstrap([*a, np.nan, 9.0], [*b, 1.0, np.nan])
    assert with_failures.estimate == pytest.approx((a - b).mean())
    assert with_failures.n == 60
    assert not statistics.paired_bootstrap([np.nan, np.nan], [1.0, 2.0]).known


def test_crossed_bootstrap_covers_seeds_and_instances():
    rng = np.random.default_rng(5)
    instance, seed_effect = rng.normal(size=100), 0.5 * rng.normal(size=(8, 1))
    difference = instance + seed_effect
    i = statistics.paired_bootstrap(difference, np.zeros_like(difference))
    width = (i.high - i.low) / (2 * 1.96)
    both = np.sqrt(instance.var() / 100 + seed_effect.var() / 8)
    assert width == pytest.approx(both, rel=0.15)
    # Deterministic methods on one test set: the interval does not collapse with the number of seeds.
    same = statistics.paired_bootstrap(np.tile(instance, (30, 1)), np.zeros((30, 100)))
    assert (same.high - same.low) / (2 * 1.96) == pytest.approx(np.sqrt(instance.var() / 100), rel=0.1)
    assert "100 instances and 30 seeds" in same.method


def test_blocks_widen_the_interval_of_a_dependent_series():
    rng = np.random.default_rng(6)
    v = np.repeat(rng.normal(size=60), 10)
    alone = statistics.moving_block_bootstrap(v, block=1)
    blocks = statistics.moving_block_bootstrap(v, block=30)
    assert blocks.high - blocks.low > 2 * (alone.high - alone.low)
    paired = statistics.paired_bootstrap(v, np.zeros_like(v), block=30)
    assert paired.high - paired.low == pytest.approx(blocks.high - blocks.low, rel=0.15)
    median = statistics.moving_block_bootstrap(v, statistic=np.median, resamples=50)
    assert median.estimate == np.median(v) and "blocks of 9" in median.method


def test_block_index_keeps_runs_and_length():
    index = statistics._block_index(10, 4, 5, np.random.default_rng(0))
    assert index.shape == (5, 10) and index.min() >= 0 and index.max() <= 9
    assert (np.diff(index[:, :4], axis=1) == 1).all()
    counts = np.concatenate(list(statistics._instance_counts(10, 4, 7, np.random.default_rng(0))))
    assert counts.shape == (7, 10) and (counts.sum(axis=1) == 10).all()


@pytest.mark.parametrize(("n", "block"), [(1, 1), (8, 2), (27, 3), (28, 4), (1000, 10)])
def test_default_block(n, block):
    assert statistics.default_block(n) == block


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: statistics.t_interval([1.0, 2.0], confidence=1.0), "confidence"),
        (lambda: statistics.paired_bootstrap([1.0, 2.0], [1.0]), "one shape"),
        (lambda: statistics.paired_bootstrap([1.0, 2.0], [1.0, 2.0], statistic="mean"), "statistic"),
        (lambda: statistics.moving_block_bootstrap([1.0, np.nan]), "1 non-finite"),
        (lambda: statistics.moving_block_bootstrap([1.0, 2.0], block=3), "block"),
        (lambda: statistics.moving_block_bootstrap([]), "non-empty"),
    ],
)
def test_bad_input(call, message):
    with pytest.raises(ValueError, match=message):
        call()


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.0, "0"),
        (0.123456, "0.1235"),
        (-12.3456, "−12.35"),
        (123456.7, "123\u202f457"),
        (1.23456e-7, "1.235e−07"),
        (np.nan, "–"),
        (np.inf, "∞"),
        (-np.inf, "−∞"),
    ],
)
def test_format_number(value, text):
    assert statistics.format_number(value) == text


@pytest.mark.parametrize(
    ("mean", "error", "text"),
    [
        (0.0798, 0.0012, "0.0798 ± 0.0012"),
        (0.0798, 0.0042, "0.080 ± 0.004"),
        (1017.3, 12.0, "1\u202f017 ± 12"),
        (5.0, 0.0, "5.000"),
        (5.0, np.nan, "5.000"),
        (3.2e7, 1e5, "3.200e+07 ± 100\u202f000"),
    ],
)
def test_format_estimate(mean, error, text):
    assert statistics.format_estimate(mean, error) == text
