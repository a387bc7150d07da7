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
from decigrad.problems.energy import (
    EnergyDays,
    EnergyKnapsack,
    SchedulingInstance,
    energy_knapsack_layer,
    energy_split,
    load_energy_knapsack,
    load_energy_prices,
    load_scheduling,
    scheduling_model,
    scheduling_starts,
)
from decigrad.problems.knapsack import (
    knapsack_layer,
    knapsack_model,
    knapsack_samples,
    knapsack_weights,
)
from decigrad.problems.matching import matching_layer, matching_model, matching_samples
from decigrad.problems.newsvendor import newsvendor_model, newsvendor_samples
from decigrad.problems.portfolio import (
    FactorCovariance,
    PortfolioPeriods,
    factor_covariance,
    load_sp500_prices,
    portfolio_model,
    portfolio_periods,
)
from decigrad.problems.ranking import ranking_layer, ranking_model, ranking_samples
from decigrad.problems.risk_portfolio import (
    risk_limit,
    risk_portfolio_covariance,
    risk_portfolio_layer,
    risk_portfolio_model,
    risk_portfolio_samples,
)
from decigrad.problems.selection import selection_layer, selection_model, selection_samples
from decigrad.problems.shortest_path import (
    grid_edges,
    shortest_path_layer,
    shortest_path_model,
    shortest_path_samples,
)
from decigrad.problems.terrain import terrain_layer, terrain_model, terrain_samples
from decigrad.problems.tsp import tsp_layer, tsp_model, tsp_samples

__all__ = [
    "BatteryDays",
    "BatterySpec",
    "EnergyDays",
    "EnergyKnapsack",
    "FactorCovariance",
    "PortfolioPeriods",
    "SchedulingInstance",
    "TutorialDraws",
    "allocation_model",
    "allocation_samples",
    "battery_model",
    "energy_knapsack_layer",
    "energy_split",
    "factor_covariance",
    "grid_edges",
    "knapsack_layer",
    "knapsack_model",
    "knapsack_samples",
    "knapsack_weights",
    "load_battery_days",
    "load_energy_knapsack",
    "load_energy_prices",
    "load_scheduling",
    "load_sp500_prices",
    "matching_layer",
    "matching_model",
    "matching_samples",
    "newsvendor_model",
    "newsvendor_samples",
    "portfolio_model",
    "portfolio_periods",
    "ranking_layer",
    "ranking_model",
    "ranking_samples",
    "returns_model",
    "returns_samples",
    "risk_limit",
    "risk_portfolio_covariance",
    "risk_portfolio_layer",
    "risk_portfolio_model",
    "risk_portfolio_samples",
    "scheduling_model",
    "scheduling_starts",
    "selection_layer",
    "selection_model",
    "selection_samples",
    "shortest_path_layer",
    "shortest_path_model",
    "shortest_path_samples",
    "terrain_layer",
    "terrain_model",
    "terrain_samples",
    "tsp_layer",
    "tsp_model",
    "tsp_samples",
    "tutorial_draws",
]
