"""The studies on real data: `run_portfolio`, `run_battery` and `run_energy`."""

from decigrad.cli._study_battery import run_battery
from decigrad.cli._study_energy import run_energy
from decigrad.cli._study_portfolio import run_portfolio

__all__ = ["run_battery", "run_energy", "run_portfolio"]
