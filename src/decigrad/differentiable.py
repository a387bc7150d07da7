"""The tutorial's spelling: solve a model at its parameters' current values, with sensitivities at hand."""

from __future__ import annotations

from typing import Any

from decigrad.model import Model
from decigrad.program import Solver
from decigrad.solution import Solution


def differentiable_solve(model: Model, *, solver: str | Solver = "auto", throw: bool = True) -> Solution:
    """Solve at the parameters' `.value`; the solution offers `gradient`, the L1 sensitivity."""
    return model.solve(solver=solver, throw=throw)


def differentiable_solve_l3(model: Model, *, solver: str | Solver = "auto", throw: bool = True) -> Solution:
    """As `differentiable_solve`, with dx*/dp computed at once (`sensitivity_matrix`, `implicit_gradient`).

    Vector and matrix constraints, parameters anywhere, and any active set are covered.
    """
    solution: Any = model.solve(solver=solver, throw=throw)
    if not solution._l3_failed:
        solution.sensitivity_matrix()
    return solution
