"""Weekly portfolio choice on real stock prices: mean and variance, with a cost for turnover.

    maximize    μᵀx − (γ/2) xᵀΣx − κ ‖x − w‖₁ − η ‖x − w‖²        s.t.  Σx = 1, 0 ≤ x ≤ cap

**Units.** Returns and μ are in percent per holding period (five trading days unless stated), Σ in percent²
per period; γ is the usual dimensionless risk aversion, so the program uses γ/100 in these units. κ is in
percent of the amount traded, per side: 0.1 is ten basis points. η, the market's impact, is in percent per
squared share of wealth: at 0.5, trading a tenth of one's wealth in one stock costs another half basis point.
The objective is a certainty equivalent in
percent per period; one unit of regret is one percent a period.

**What is known when.** A decision at the close of day d uses prices up to and including d; its target is the
return from d to d + days. The holdings w from which turnover is counted are *known* and do not depend on the
decisions: an equally weighted benchmark, rebalanced one period ago and drifted since. So every period is one
independent sample and the comparison of two predictors is well defined, at the price of not following one
trader's own path.

The stocks are survivors, chosen with hindsight; that flatters every method alike, the benchmark included.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

import numpy as np

from decigrad import modeling as dm
from decigrad.errors import ModelError

TRADING_DAYS = 252
FEATURES = ("return 1w", "return 1m", "momentum 12-1m", "volatility 3m", "below 1y high", "beta 1y")
"""Per-stock features, each standardized across the stocks of the same date."""


def load_sp500_prices() -> tuple[np.ndarray, tuple[str, ...], np.ndarray]:
    """Daily adjusted closing prices of 20 S&P 500 stocks, 1990–2022, from the `skfolio` package.

    Returns:
        dates [T] datetime64[D], tickers, prices [T, 20] in USD. Nothing is downloaded.

    Raises:
        ImportError: the optional extra `datasets` is not installed.

    Source: `skfolio.datasets.load_sp500_dataset` (BSD-3).
    """
    try:
        from skfolio.datasets import load_sp500_dataset
    except ImportError as error:
        raise ImportError("the S&P 500 prices come with skfolio: install decigrad[datasets]") from error
    frame = load_sp500_dataset()
    dates = frame.index.to_numpy().astype("datetime64[D]")
    return dates, tuple(frame.columns), frame.to_numpy(dtype=np.float64)


@dataclass(frozen=True)
class PortfolioPeriods:
    """One row per decision, in time order; built by `portfolio_periods`.

    `dates` [T] of the decisions; `day` [T], their position in the daily prices; `features` [T, n, k] and
    `previous` [T, n] (the drifted benchmark), known then; `returns` [T, n] in percent of the next `days`
    trading days, to be predicted; `tickers` and `names` label the n stocks and the k features.
    """

    dates: np.ndarray
    day: np.ndarray
    features: np.ndarray
    previous: np.ndarray
    returns: np.ndarray
    tickers: tuple[str, ...]
    names: tuple[str, ...]
    days: int

    def __len__(self) -> int:
        return len(self.dates)

    @property
    def times(self) -> np.ndarray:
        """When each decision is made: the order of `decigrad.walk_forward`."""
        return self.dates

    def take(self, index: np.ndarray | slice) -> PortfolioPeriods:
        """The periods `index`, in that order."""
        rows = {
            name: getattr(self, name)[index] for name in ("dates", "day", "features", "previous", "returns")
        }
        return dataclasses.replace(self, **rows)


def portfolio_periods(
    dates: np.ndarray, prices: np.ndarray, tickers: tuple[str, ...], *, days: int = 5
) -> PortfolioPeriods:
    """Cut daily prices into non-overlapping periods of `days` trading days, with features from the past only.

    Features of a stock on decision day d, from prices up to d: return over 5 and over 21 days; return from
    d − 252 to d − 21; standard deviation of daily returns over 63 days; price over its highest in 252 days;
    beta to the equally weighted mean of the stocks over 252 days. Each is then shifted and scaled across the
    stocks of the same day: a common shift of μ does not change a fully invested portfolio.

    Arguments:
        dates: [T], prices: [T, n] positive, tickers: n names. The first year is used for features only.

    Raises:
        ModelError: shapes disagree, a price is not a positive number, or there are too few days.
    """
    prices = np.asarray(prices, dtype=np.float64)
    if prices.ndim != 2 or prices.shape != (len(dates), len(tickers)):
        raise ModelError(f"prices must be [{len(dates)} dates, {len(tickers)} tickers], got {prices.shape}")
    if not (np.isfinite(prices).all() and (prices > 0).all()):
        raise ModelError("prices must be positive finite numbers; drop or fill missing days first")
    if days < 1:
        raise ModelError(f"days must be at least 1, got {days}")
    # A whole number of periods, counted back from the last price: the last target ends on the last day.
    first = TRADING_DAYS + (len(prices) - 1 - TRADING_DAYS) % days
    day = np.arange(first, len(prices) - days, days)
    if len(day) == 0:
        raise ModelError(f"{len(prices)} days are too few: one year of features and {days} days are needed")
    growth = prices[day] / prices[day - days]
    return PortfolioPeriods(
        dates=np.asarray(dates)[day],
        day=day,
        features=np.stack([_features(prices[d - TRADING_DAYS : d + 1]) for d in day]),
        previous=growth / growth.sum(axis=1, keepdims=True),
        returns=100.0 * (prices[day + days] / prices[day] - 1.0),
        tickers=tuple(tickers),
        names=FEATURES,
        days=days,
    )


def _features(window: np.ndarray) -> np.ndarray:
    """Features [n, k] from the 253 prices that end on the decision day."""
    daily = window[1:] / window[:-1] - 1.0
    market = daily.mean(axis=1)
    centred = market - market.mean()
    last = window[-1]
    raw = [
        last / window[-6] - 1.0,
        last / window[-22] - 1.0,
        window[-22] / window[0] - 1.0,
        daily[-63:].std(axis=0),
        last / window.max(axis=0) - 1.0,
        centred @ daily / (centred @ centred),
    ]
    columns = np.stack(raw, axis=1)
    deviation = columns.std(axis=0)
    return (columns - columns.mean(axis=0)) / np.where(deviation > 0, deviation, 1.0)


# ----------------------------------------------------------------------------------------- covariance, model


@dataclass(frozen=True)
class FactorCovariance:
    """Σ = Fᵀ F + diag(d): `loadings` F [k, n] and `idiosyncratic` d [n], in percent² per period."""

    loadings: np.ndarray
    idiosyncratic: np.ndarray

    def dense(self) -> np.ndarray:
        """Σ as a matrix [n, n]."""
        return self.loadings.T @ self.loadings + np.diag(self.idiosyncratic)


def factor_covariance(returns: np.ndarray, factors: int = 3, *, scale: float = 1.0) -> FactorCovariance:
    """Fit a statistical factor model: the leading principal components, and the rest as a diagonal.

    The diagonal of Σ equals the sample variances. Positive definite with any number of observations, unlike
    the sample covariance.

    Arguments:
        returns: [T, n] past returns, in percent; factors: 1 … n; scale: length of a period over that of an
            observation (5 for daily returns and weekly decisions), under independent returns.
    """
    returns = np.asarray(returns, dtype=np.float64)
    if returns.ndim != 2 or not 1 <= factors <= min(returns.shape):
        raise ModelError(f"factors must be between 1 and {min(returns.shape)}, got {factors}")
    sample = np.cov(returns, rowvar=False) * scale
    values, vectors = np.linalg.eigh(sample)
    loadings = np.sqrt(values[-factors:])[:, None] * vectors[:, -factors:].T
    idiosyncratic = np.diag(sample) - (loadings**2).sum(axis=0)
    return FactorCovariance(loadings, np.maximum(idiosyncratic, 1e-3 * np.diag(sample)))


def past_covariance(
    prices: np.ndarray, end: int, *, window: int = 2 * TRADING_DAYS, factors: int = 3, days: int = 5
) -> FactorCovariance:
    """The factor covariance of a holding period from the `window` daily returns that end on day `end`."""
    if not window <= end < len(prices):
        raise ModelError(f"day {end} has no {window} returns before it in {len(prices)} prices")
    history = prices[end - window : end + 1]
    return factor_covariance(100.0 * (history[1:] / history[:-1] - 1.0), factors, scale=float(days))


def portfolio_model(
    covariance: FactorCovariance,
    *,
    gamma: float = 5.0,
    kappa: float = 0.1,
    impact: float = 0.5,
    cap: float = 0.2,
) -> dm.Model:
    """The program above: `weights` [n] and `trades` [n]; predicted `returns` [n], known `previous` [n].

    Stated as a minimization of the negative certainty equivalent, in percent per period. `trades` is |x − w|:
    it is bounded below by both signs of the difference, and its cost pulls it down to them.

    Arguments:
        covariance: Σ in percent² per period, kept in its factors.
        gamma: risk aversion, positive.
        kappa: cost of turnover, percent of the amount traded; positive.
        impact: η, not negative.
        cap: largest weight of a stock; at least 1/n.
    """
    n = len(covariance.idiosyncratic)
    if gamma <= 0 or kappa <= 0 or impact < 0:
        raise ModelError(
            f"gamma, kappa must be positive, impact not negative: got {gamma}, {kappa}, {impact}"
        )
    if not 1 / n <= cap <= 1:
        raise ModelError(f"cap must be between 1/{n} and 1: weights up to {cap} cannot add up to 1")
    model = dm.Model("portfolio")
    x = model.continuous("weights", shape=n, lb=0.0, ub=cap)
    trades = model.continuous("trades", shape=n, lb=0.0)
    returns = model.parameter("returns", shape=n)
    previous = model.parameter("previous", shape=n, known=True)
    exposure = covariance.loadings @ x
    risk = dm.sum(exposure * exposure) + dm.sum(covariance.idiosyncratic * x * x)
    cost = kappa * dm.sum(trades) + impact * dm.sum(trades * trades)
    model.minimize((0.5 * gamma / 100.0) * risk + cost - dm.sum(returns * x))
    model.subject_to(dm.sum(x) == 1.0, name="budget")
    model.subject_to(x - previous <= trades, name="bought")
    model.subject_to(previous - x <= trades, name="sold")
    return model
