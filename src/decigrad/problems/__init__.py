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
    "EnergyDays",
    "EnergyKnapsack",
    "FactorCovariance",
    "PortfolioPeriods",
    "SchedulingInstance",
    "SharedLinear",
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
    "portfolio_model",
    "portfolio_periods",
    "returns_model",
    "returns_samples",
    "scheduling_model",
    "scheduling_starts",
    "shortest_path_layer",
    "shortest_path_model",
    "shortest_path_samples",
    "tsp_layer",
    "tsp_model",
    "tsp_samples",
    "tutorial_draws",
    "walk_forward",
]
