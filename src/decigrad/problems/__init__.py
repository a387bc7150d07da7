"""Benchmark problems: models, generators, and loaders of real data."""

from decigrad.problems.allocation import (
    TutorialDraws,
    allocation_model,
    allocation_samples,
    returns_model,
    returns_samples,
    tutorial_draws,
)
from decigrad.problems.battery import (
    BatteryDays,
    BatterySpec,
    battery_model,
    load_battery_days,
)
from decigrad.problems.portfolio import (
    FactorCovariance,
    PortfolioPeriods,
    SharedLinear,
    factor_covariance,
    load_sp500_prices,
    portfolio_model,
    portfolio_periods,
    walk_forward,
)

__all__ = [
    "TutorialDraws",
    "allocation_model",
    "allocation_samples",
    "returns_model",
    "returns_samples",
    "tutorial_draws",
    "BatteryDays",
    "BatterySpec",
    "battery_model",
    "load_battery_days",
    "FactorCovariance",
    "PortfolioPeriods",
    "SharedLinear",
    "factor_covariance",
    "load_sp500_prices",
    "portfolio_model",
    "portfolio_periods",
    "walk_forward",
]
