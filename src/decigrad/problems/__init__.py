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
from decigrad.problems.knapsack import (
    knapsack_layer,
    knapsack_model,
    knapsack_samples,
    knapsack_weights,
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
from decigrad.problems.shortest_path import (
    grid_edges,
    shortest_path_layer,
    shortest_path_model,
    shortest_path_samples,
)
from decigrad.problems.tsp import tsp_layer, tsp_model, tsp_samples

__all__ = [
    "BatteryDays",
    "BatterySpec",
    "FactorCovariance",
    "PortfolioPeriods",
    "SharedLinear",
    "TutorialDraws",
    "allocation_model",
    "allocation_samples",
    "battery_model",
    "factor_covariance",
    "grid_edges",
    "knapsack_layer",
    "knapsack_model",
    "knapsack_samples",
    "knapsack_weights",
    "load_battery_days",
    "load_sp500_prices",
    "portfolio_model",
    "portfolio_periods",
    "returns_model",
    "returns_samples",
    "shortest_path_layer",
    "shortest_path_model",
    "shortest_path_samples",
    "tsp_layer",
    "tsp_model",
    "tsp_samples",
    "tutorial_draws",
    "walk_forward",
]
