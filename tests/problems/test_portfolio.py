"""Portfolio periods without foresight, the covariance, the model against CVXPY, walk-forward splits."""

import numpy as np
import pytest

import decigrad as dg
from decigrad.cli._study_portfolio import QUICK, Plan
from decigrad.problems import portfolio

TICKERS = tuple("ABCDEF")


def walk(days=400, stocks=6, seed=0):
    rng = np.random.default_rng(seed)
    prices = 50 * np.exp(np.cumsum(0.01 * rng.standard_normal((days, stocks)), axis=0))
    dates = np.datetime64("2001-01-01") + np.arange(days)
    return dates, prices


# ----------------------------------------------------------------------------------------------- periods


def test_targets_are_the_next_periods_returns():
    dates, prices = walk()
    periods = portfolio.portfolio_periods(dates, prices, TICKERS, days=5)
    assert periods.features.shape == (len(periods), 6, len(portfolio.FEATURES))
    assert (np.diff(periods.day) == 5).all()
    assert periods.day[-1] + 5 == len(prices) - 1
    assert periods.day[0] >= portfolio.TRADING_DAYS
    np.testing.assert_allclose(periods.returns, 100 * (prices[periods.day + 5] / prices[periods.day] - 1))
    np.testing.assert_array_equal(periods.dates, dates[periods.day])


@pytest.mark.parametrize("days", [1, 5, 21])
def test_nothing_known_at_a_decision_changes_with_later_prices(days):
    dates, prices = walk()
    periods = portfolio.portfolio_periods(dates, prices, TICKERS, days=days)
    at = len(periods) // 2
    changed = prices.copy()
    changed[periods.day[at] + 1 :] *= 1 + 0.3 * np.random.default_rng(1).random(
        changed[periods.day[at] + 1 :].shape
    )
    other = portfolio.portfolio_periods(dates, changed, TICKERS, days=days)
    np.testing.assert_array_equal(periods.features[: at + 1], other.features[: at + 1])
    np.testing.assert_array_equal(periods.previous[: at + 1], other.previous[: at + 1])
    assert not np.allclose(periods.returns[at], other.returns[at])
    before = portfolio.past_covariance(prices, periods.day[at], window=100, days=days)
    after = portfolio.past_covariance(changed, periods.day[at], window=100, days=days)
    np.testing.assert_array_equal(before.dense(), after.dense())


def test_the_price_of_the_decision_day_is_used():
    dates, prices = walk()
    periods = portfolio.portfolio_periods(dates, prices, TICKERS)
    changed = prices.copy()
    changed[periods.day[7], 2] *= 1.2
    other = portfolio.portfolio_periods(dates, changed, TICKERS)
    assert not np.allclose(periods.features[7], other.features[7])


def test_features_are_standardized_across_stocks():
    periods = portfolio.portfolio_periods(*walk(), TICKERS)
    np.testing.assert_allclose(periods.features.mean(axis=1), 0, atol=1e-10)
    np.testing.assert_allclose(periods.features.std(axis=1), 1, atol=1e-10)


def test_identical_stocks_give_finite_features():
    dates, prices = walk(stocks=1)
    periods = portfolio.portfolio_periods(dates, np.repeat(prices, 6, axis=1), TICKERS)
    assert np.isfinite(periods.features).all()


def test_previous_holdings_are_the_drifted_benchmark():
    dates, prices = walk()
    periods = portfolio.portfolio_periods(dates, prices, TICKERS)
    np.testing.assert_allclose(periods.previous.sum(axis=1), 1)
    np.testing.assert_allclose(
        periods.previous[1], (1 + periods.returns[0] / 100) / (1 + periods.returns[0] / 100).sum()
    )


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda p: np.where(np.arange(len(p))[:, None] == 9, np.nan, p), "positive finite"),
        (lambda p: -p, "positive finite"),
        (lambda p: p[:, :5], r"\[400 dates, 6 tickers\]"),
    ],
)
def test_bad_prices_are_refused(change, message):
    dates, prices = walk()
    with pytest.raises(ValueError, match=message):
        portfolio.portfolio_periods(dates, change(prices), TICKERS)


def test_too_few_days_are_refused():
    dates, prices = walk(days=255)
    with pytest.raises(ValueError, match="too few"):
        portfolio.portfolio_periods(dates, prices, TICKERS)


# --------------------------------------------------------------------------------------------- covariance


def test_factor_covariance_keeps_variances_and_is_positive_definite():
    returns = np.random.default_rng(0).standard_normal((4, 6))
    covariance = portfolio.factor_covariance(returns, factors=2, scale=5.0)
    np.testing.assert_allclose(np.diag(covariance.dense()), 5 * returns.var(axis=0, ddof=1), rtol=2e-3)
    assert np.linalg.eigvalsh(covariance.dense()).min() > 0


def test_all_factors_give_the_sample_covariance():
    returns = np.random.default_rng(0).standard_normal((40, 6))
    covariance = portfolio.factor_covariance(returns, factors=6)
    np.testing.assert_allclose(covariance.dense(), np.cov(returns, rowvar=False), atol=5e-3)


def test_factor_covariance_refuses_too_many_factors():
    with pytest.raises(ValueError, match="between 1 and 6, got 7"):
        portfolio.factor_covariance(np.ones((10, 6)), factors=7)


# -------------------------------------------------------------------------------------------------- model


def cvxpy_weights(covariance, returns, previous, gamma, kappa, impact, cap):
    import cvxpy as cp

    x = cp.Variable(len(returns))
    risk = cp.quad_form(x, cp.psd_wrap(covariance.dense()))
    cost = kappa * cp.norm1(x - previous) + impact * cp.sum_squares(x - previous)
    objective = gamma / 200 * risk - returns @ x + cost
    problem = cp.Problem(cp.Minimize(objective), [cp.sum(x) == 1, x >= 0, x <= cap])
    problem.solve(solver=cp.CLARABEL, tol_gap_abs=1e-11, tol_gap_rel=1e-11, tol_feas=1e-11)
    return x.value, problem.value


@pytest.mark.parametrize(
    ("gamma", "kappa", "impact", "cap"), [(5.0, 0.1, 0.5, 0.3), (1.0, 0.01, 0.1, 1.0), (50.0, 0.5, 5.0, 0.2)]
)
def test_model_agrees_with_cvxpy(gamma, kappa, impact, cap):
    rng = np.random.default_rng(3)
    covariance = portfolio.factor_covariance(4 * rng.standard_normal((60, 6)), factors=2)
    model = portfolio.portfolio_model(covariance, gamma=gamma, kappa=kappa, impact=impact, cap=cap)
    for _ in range(5):
        returns, previous = rng.standard_normal(6), rng.dirichlet(np.ones(6))
        solution = model.solve({"returns": returns, "previous": previous}, solver="daqp")
        weights, value = cvxpy_weights(covariance, returns, previous, gamma, kappa, impact, cap)
        np.testing.assert_allclose(solution.x["weights"], weights, atol=1e-5)
        np.testing.assert_allclose(solution.x["trades"], np.abs(solution.x["weights"] - previous), atol=1e-9)
        assert solution.objective == pytest.approx(value, abs=1e-7)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"gamma": 0.0}, "gamma, kappa must be positive"),
        ({"kappa": 0.0}, "kappa"),
        ({"cap": 0.1}, "cap must be"),
    ],
)
def test_model_refuses_impossible_settings(options, message):
    covariance = portfolio.FactorCovariance(np.zeros((1, 6)), np.ones(6))
    with pytest.raises(ValueError, match=message):
        portfolio.portfolio_model(covariance, **options)


# ------------------------------------------------------------------------------------------- walk-forward


@pytest.mark.parametrize("plan", [Plan(), QUICK])
def test_the_study_trains_on_the_past_and_tests_every_week_after_the_first_window_once(plan):
    n = 1612  # weeks, as in the S&P 500 set
    dates = np.datetime64("1991-01-03") + 7 * np.arange(n)
    nothing = np.zeros((n, 0))
    weeks = portfolio.PortfolioPeriods(dates, np.arange(n), nothing, nothing, nothing, (), (), 5)
    found = list(dg.walk_forward(weeks, train=plan.train, test=plan.test, gap=plan.gap))
    starts = [
        s for s in range(n) if s >= plan.train + plan.gap and not (s - plan.train - plan.gap) % plan.test
    ]
    assert [test.day.tolist() for _, test in found] == [
        [day for day in range(n) if start <= day < start + plan.test] for start in starts
    ]
    for (train, test), start in zip(found, starts, strict=True):
        # The last training target ends with the week after train.day[-1].
        assert train.day.tolist() == list(range(start - plan.gap - plan.train, start - plan.gap))
        assert train.dates[-1] + 7 * (1 + plan.gap) == test.dates[0]
    if plan == Plan():
        assert starts == [521, 729, 937, 1145, 1353, 1561] and len(found[-1][1]) == 51


# --------------------------------------------------------------------------------------------- real prices


def test_sp500_prices():
    pytest.importorskip("skfolio", reason="the S&P 500 prices come with the extra decigrad[datasets]")
    dates, tickers, prices = portfolio.load_sp500_prices()
    assert prices.shape == (8313, 20) == (len(dates), len(tickers))
    assert str(dates[0]) == "1990-01-02" and str(dates[-1]) == "2022-12-28"
    periods = portfolio.portfolio_periods(dates, prices, tickers)
    assert len(periods) == 1612
    assert np.isfinite(periods.features).all()
    assert 3 < periods.returns.std() < 7  # percent per week
