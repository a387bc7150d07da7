"""Choosing a solver, running it, and explaining what failed; shared by models and layers."""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import numpy as np

from decigrad import compiled
from decigrad.canonical import CanonicalForm
from decigrad.errors import InfeasibleError, ModelError, SolveError, UnboundedError, UnsupportedModelError
from decigrad.program import QuadraticProgram, RawResult, Solver, Status
from decigrad.solution import Solution


def resolve(
    solver: str | Solver,
    program: QuadraticProgram,
    time_limit: float | None = None,
    max_iterations: int | None = None,
) -> tuple[Solver, str]:
    """The solver object for a program, and the reason for it; refuses what the solver cannot take."""
    from decigrad.solvers.automatic import by_name

    try:
        chosen, why = by_name(solver, program=program)
    except ValueError as error:
        raise UnsupportedModelError(str(error)) from None
    for option, value in (("time_limit", time_limit), ("max_iterations", max_iterations)):
        if value is not None:
            if option not in {f.name for f in dataclasses.fields(chosen)}:  # type: ignore[arg-type]
                raise ModelError(f"solver {chosen.name!r} has no option {option!r}")
            chosen = dataclasses.replace(chosen, **{option: value})  # type: ignore[type-var]
    return chosen, why


def run(form: CanonicalForm, solver: Solver, program: QuadraticProgram) -> tuple[RawResult, np.ndarray]:
    """Any solver on a batched NumPy program, outside a trace.

    Returns the result and, by sample, whether the solver gave up on it and handed it on to its `second`.
    """
    if solver.host:
        raw = solver(program)
        return raw, np.zeros(raw.status.shape, bool)
    raw = compiled.device_solve(form, solver, program)
    gave_up = (raw.status == Status.NUMERICAL_ERROR) | (raw.status == Status.ITERATION_LIMIT)
    second = getattr(solver, "second", lambda program: None)(program)
    if second is None or not gave_up.any():
        return raw, np.zeros_like(gave_up)
    index = np.flatnonzero(gave_up)
    found = second(program.take(index))

    def filled(old: np.ndarray, new: np.ndarray) -> np.ndarray:
        merged = old.copy()
        merged[index] = new
        return merged

    return jax.tree_util.tree_map(filled, raw, found), gave_up


def explain(solution: Solution, form: CanonicalForm, program: QuadraticProgram) -> None:
    """Add the certificate, the conflict or the ray to a solution that failed; corrects the status."""
    from decigrad.solvers.diagnosis import diagnose

    found = diagnose(program, solution.status)
    solution.status = found.status
    if found.certificate is not None:
        solution.duals = form.multipliers(found.certificate.y, found.certificate.z, found.certificate.w)
    if found.status == Status.PRIMAL_INFEASIBLE:
        solution.conflict = [form.describe(kind, position) for kind, position in found.conflict]
    if found.status == Status.UNBOUNDED and found.ray is not None:
        solution.ray = form.split(found.ray)


def failure(name: str, solution: Solution, sample: Any = None) -> SolveError:
    """The exception for a solution that is not optimal, naming the model, the sample and the cause."""
    where = f"model {name!r}" + (f", sample {sample}" if sample is not None else "")
    status = solution.status
    if status == Status.PRIMAL_INFEASIBLE:
        clash = "; ".join(solution.conflict) or "unknown"
        return InfeasibleError(f"{where} is infeasible: these constraints clash: {clash}", solution)
    if status == Status.UNBOUNDED:
        moved = [n for n, d in (solution.ray or {}).items() if np.abs(d).max(initial=0.0) > 1e-9]
        return UnboundedError(
            f"{where} is unbounded: the objective improves without limit as {', '.join(moved) or 'all'} "
            f"run away along solution.ray; add bounds",
            solution,
        )
    return SolveError(f"{where} ended with {status.name}: {status.advice}", solution)
