"""Arranging a batch, choosing a solver, running it, explaining what failed; shared by models and layers."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Callable, Iterator, Mapping
from contextvars import ContextVar
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from decigrad import compiled
from decigrad.canonical import CanonicalForm
from decigrad.errors import InfeasibleError, ModelError, SolveError, UnboundedError, UnsupportedModelError
from decigrad.program import QuadraticProgram, RawResult, Solver, Start, Status, gives_multipliers
from decigrad.solution import Solution, Solutions


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


_ask: ContextVar[Callable[..., Any] | None] = ContextVar("ask", default=None)


@contextlib.contextmanager
def by(ask: Callable[..., Any] | None) -> Iterator[None]:
    """Host solvers are called as `ask(solver, program[, start])` in this block; None: directly."""
    token = _ask.set(ask)
    try:
        yield
    finally:
        _ask.reset(token)


def run(
    form: CanonicalForm, solver: Solver, program: QuadraticProgram, start: RawResult | Start | None = None
) -> tuple[RawResult, np.ndarray]:
    """Any solver on a batched NumPy program, outside a trace; from `start`, where it takes one.

    Returns the result and, by sample, whether the solver gave up on it and handed it on to its `second`.
    """
    if solver.host:
        warm = start is not None and getattr(solver, "warm", False)
        given = (program, Start(start.active, start.fixed)) if start is not None and warm else (program,)
        ask = _ask.get()
        raw: RawResult = solver(*given) if ask is None else ask(solver, *given)
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


def explain(solution: Solution, form: CanonicalForm, program: QuadraticProgram, solver: Solver) -> None:
    """Add the certificate, the conflict or the ray to a solution that failed; corrects the status."""
    from decigrad.solvers.diagnosis import diagnose

    found = diagnose(program, solution.status)
    if not gives_multipliers(solver) and found.status != Status.PRIMAL_INFEASIBLE:
        return  # the set that an oracle knows is smaller than what the model states
    solution.status = found.status
    if found.certificate is not None:
        solution.duals = form.multipliers(found.certificate.y, found.certificate.z, found.certificate.w)
    if found.status == Status.PRIMAL_INFEASIBLE:
        solution.conflict = [form.describe(kind, position) for kind, position in found.conflict]
    if found.status == Status.UNBOUNDED and found.ray is not None:
        solution.ray = form.split(found.ray)


def cause(solver: Solver, program: QuadraticProgram, status: Status) -> Exception | None:
    """What an oracle raised on the only sample of a program."""
    return solver.exception(program) if status == Status.ORACLE_ERROR else None  # type: ignore[attr-defined]


def failure(
    name: str, solution: Solution, sample: Any = None, original: Exception | None = None
) -> SolveError:
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
    advice = status.advice if original is None else f"the oracle raised {original!r}"
    error = SolveError(f"{where} ended with {status.name}: {advice}", solution)
    error.__cause__ = original
    return error


def first_failure(name: str, form: CanonicalForm, solver: Solver, solutions: Solutions) -> SolveError:
    """The exception for the first failed sample of a batch."""
    index = int(solutions.failed[0])
    raw = jax.tree_util.tree_map(lambda a: a[index : index + 1], solutions.raw)
    solution = Solution(
        x=form.split(raw.x[0]),
        objective=float("nan"),
        duals={},
        status=Status(int(raw.status[0])),
        stats=dict(solutions.stats),
    )
    program = solutions.program.sample(index)
    explain(solution, form, program, solver)
    lead = solutions.status.shape
    position: Any = tuple(int(i) for i in np.unravel_index(index, lead)) if lead else None
    sample = position[0] if position is not None and len(position) == 1 else position
    error = failure(name, solution, sample, cause(solver, program, solution.status))
    count = solutions.failed.size
    if count > 1:
        error.add_note(f"{count} of {solutions.status.size} samples failed: {solutions.failed.tolist()[:20]}")
    return error


def arranged(
    given: Mapping[str, Any], shapes: Mapping[str, tuple[int, ...]], xp: Any
) -> tuple[dict[str, Any], tuple[int, ...]]:
    """Arrays with at most one leading axis, and the batch shape that it stands for."""
    arrays, leads = {}, []
    for name, value in given.items():
        try:
            array = xp.asarray(value) if xp is jnp else np.asarray(value, dtype=np.float64)
        except (TypeError, ValueError) as error:
            raise ModelError(f"{name!r} needs numbers: {error}") from None
        if not xp.issubdtype(array.dtype, xp.floating):
            array = array.astype(float)
        shape = shapes[name]
        rank = array.ndim - len(shape)
        if rank < 0 or array.shape[rank:] != shape:
            raise ModelError(f"{name!r} has shape {shape} (after batch axes), got {array.shape}")
        arrays[name], lead = array, array.shape[:rank]
        leads.append(lead)
    try:
        batch = np.broadcast_shapes(*leads)
    except ValueError:
        shown = ", ".join(f"{n!r} {lead}" for n, lead in zip(arrays, leads, strict=True) if lead)
        raise ModelError(f"batch axes do not fit each other: {shown}") from None
    for name, lead in zip(list(arrays), leads, strict=True):
        shape = shapes[name]
        if all(size == 1 for size in lead):
            arrays[name] = arrays[name].reshape(shape)
        else:
            arrays[name] = xp.broadcast_to(arrays[name], batch + shape).reshape((-1, *shape))
    return arrays, tuple(batch)


def spread(found: Any, size: int) -> Any:
    """Arrays with one leading axis, repeated for `size` samples where nothing differs by sample."""
    return jax.tree_util.tree_map(
        lambda a: a if len(a) == size else np.broadcast_to(a, (size, *a.shape[1:])), found
    )
