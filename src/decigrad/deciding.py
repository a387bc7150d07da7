"""Rows of parameters to decisions: in blocks of one size, within a time, with a stated fallback."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import jax
import numpy as np

from decigrad.errors import ModelError, SolveError
from decigrad.expressions.expression import evaluate, parameters_of
from decigrad.gradients import KKT
from decigrad.layer import DecisionLayer
from decigrad.program import QuadraticProgram, RawResult, Status
from decigrad.solving import run
from decigrad.sources import shown

BLOCK = 32
"""Rows that are predicted and stated at once, the last block padded: a decision then depends on its own row
alone, to the last bit, and not on how many others were asked for; and one compilation serves any number."""

FEASIBILITY = 1e-6
"""Largest violation of a constraint, relative to its size, in a fallback decision."""


@dataclass(frozen=True)
class Decisions:
    """What `Policy.decide` returns, for N rows.

    Attributes:
        x: decisions by variable name, [N, *shape]; NaN where there is none.
        predicted: predicted parameters by name, [N, *shape].
        objective: the model's objective of the decision at the predicted parameters, [N].
        status: how each solve ended, `Status` as int [N]; that of the solver also where the fallback is used.
        fallback: where the stated fallback decision was taken, bool [N].
        seconds: time in all.
    """

    x: dict[str, np.ndarray]
    predicted: dict[str, np.ndarray]
    objective: np.ndarray
    status: np.ndarray
    fallback: np.ndarray
    seconds: float

    def __len__(self) -> int:
        return len(self.status)

    def table(self) -> dict[str, np.ndarray]:
        """Columns [N] by name: entries of decisions as "x[0]" or "x[0,1]", objective, status, fallback."""
        found: dict[str, np.ndarray] = {}
        for name, value in self.x.items():
            for entry in np.ndindex(value.shape[1:]):
                label = f"{name}[{','.join(map(str, entry))}]" if entry else name
                found[label] = value[(slice(None), *entry)]
        names = np.array([status.name for status in sorted(Status)])
        return {
            **found,
            "objective": self.objective,
            "status": names[self.status],
            "fallback": self.fallback,
        }


class Decider:
    """Decides with a layer's own model; see `Policy.decide`."""

    def __init__(self, layer: DecisionLayer) -> None:
        self.layer = layer.exact.with_gradient(KKT())

    def _sound(self, predicted: dict[str, np.ndarray]) -> np.ndarray:
        """Where predictions can be decided with, bool [N]."""
        sound = np.ones(len(next(iter(predicted.values()))), bool)
        for name, value in predicted.items():
            good = np.isfinite(value) & ((value >= 0) | (not self.layer.parameters[name].nonneg))
            sound &= good.reshape(len(good), -1).all(axis=1)
        return sound

    def solve(
        self, params: dict[str, np.ndarray], predicted: dict[str, np.ndarray], deadline: float | None
    ) -> tuple[np.ndarray, np.ndarray]:
        """x [N, n] and status [N], for parameters with one row each; NaN where there is no decision."""
        sound = self._sound(predicted)
        x = np.full((len(sound), self.layer.form.n), np.nan)
        status = np.where(sound, int(Status.TIME_LIMIT), int(Status.INVALID_DATA)).astype(np.int32)
        index = np.flatnonzero(sound)
        for start in range(0, len(index), BLOCK):
            rows = index[start : start + BLOCK]
            if deadline is not None and time.perf_counter() >= deadline:
                break
            padded = np.concatenate([rows, np.repeat(rows[-1:], BLOCK - len(rows))])
            program, _ = self.layer.programs({name: value[padded] for name, value in params.items()})
            for part, raw in self._answers(program, len(rows), deadline):
                x[rows[part]], status[rows[part]] = raw.x[: len(part)], raw.status[: len(part)]
        return x, status

    def _answers(
        self, program: QuadraticProgram, count: int, deadline: float | None
    ) -> Iterator[tuple[np.ndarray, RawResult]]:
        """Positions in a block with their results, as far as the time allows."""
        solver, form, everything = self.layer.solver, self.layer.form, np.arange(count)
        if not solver.host:
            yield everything, _wide(run(form, solver, program)[0], count)
        elif deadline is None:
            yield everything, _wide(run(form, solver, program.take(everything))[0], count)
        else:
            for i in range(count):
                left = deadline - time.perf_counter()
                if left <= 0:
                    return
                limited: Any = solver
                if hasattr(solver, "time_limit"):
                    limited = dataclasses.replace(limited, time_limit=min(solver.time_limit, left))
                yield everything[i : i + 1], run(form, limited, program.sample(i))[0]

    def objective(self, decisions: dict[str, np.ndarray], params: dict[str, np.ndarray]) -> np.ndarray:
        """The model's own objective [N]."""
        count = len(next(iter(decisions.values())))
        parts = [
            self.layer.objective(taken(decisions, rows), taken(params, rows))
            for rows, _ in in_blocks(np.arange(count))
        ]
        return joined(parts, count)

    def failure(
        self, params: dict[str, np.ndarray], status: np.ndarray, time_limit: float | None
    ) -> SolveError:
        """The error for rows without a decision; the first that is not a matter of time is explained."""
        failed = np.flatnonzero(status != Status.OPTIMAL)
        kinds = {Status(int(s)): failed[status[failed] == s] for s in np.unique(status[failed])}
        said = "; ".join(f"{kind.name}: rows {shown(rows)}" for kind, rows in kinds.items())
        advice = "state a fallback= decision, or pass throw=False"
        if Status.TIME_LIMIT in kinds and time_limit is not None:
            advice += f"; or allow more than {time_limit:g} seconds"
        error = SolveError(f"{len(failed)} of {len(status)} rows have no decision ({said}): {advice}")
        if Status.INVALID_DATA in kinds:
            error.add_note("INVALID_DATA: a prediction is NaN, infinite, or negative where nonneg=True")
        others = failed[~np.isin(status[failed], [Status.TIME_LIMIT, Status.INVALID_DATA])]
        if len(others):
            try:
                self.layer.solve(taken(params, others[0]), throw=True)
            except SolveError as found:
                found.args = (f"row {others[0]}: {found.args[0]}", *found.args[1:])
                found.add_note(str(error))
                return found
        return error

    def fallback(self, given: Mapping[str, Any], count: int | None = None) -> dict[str, np.ndarray]:
        """A fallback [*shape] or [count, *shape] by variable name."""
        variables = self.layer.form.variables
        if not isinstance(given, Mapping) or set(given) != set(variables):
            raise ModelError(f"a fallback is a dict with a decision for each of {shown(variables)}")
        found = {
            name: by_row(f"fallback {name!r}", given[name], v.shape, count) for name, v in variables.items()
        }
        for name, value in found.items():
            if not np.isfinite(value).all():
                raise ModelError(f"fallback {name!r} is NaN or infinite")
        for row in range(1 if count is None else count):
            one = found if count is None else taken(found, row)
            if broken := self._violated(one):
                where = "" if count is None else f" of row {row}"
                raise ModelError(f"the fallback{where} violates {broken}")
            if all(np.ndim(given[n]) == v.ndim for n, v in variables.items()):
                break
        return found

    def _violated(self, decision: dict[str, np.ndarray]) -> str | None:
        """The first constraint that a decision violates, of those that are the same for every row."""
        model, values = self.layer.model, dict(decision)
        values |= {
            n: p.value
            for n, p in self.layer.parameters.items()
            if n not in self.layer.predicts and not p.known and p.value is not None
        }
        sides = [(str(c), c.left, c.sense, c.right) for c in model.constraints]
        for v in model.variables.values():
            if v.kind != "continuous" and (decision[v.name] != np.round(decision[v.name])).any():
                return f"integrality of {v.name!r}"
            sides += [(f"the lower bound of {v.name!r}", v, ">=", v.lb)]
            sides += [(f"the upper bound of {v.name!r}", v, "<=", v.ub)]
        for label, left, sense, right in sides:
            if not parameters_of(left, right).keys() <= values.keys():
                continue
            low, high = evaluate([left, right], values, np)
            gap = {"<=": low - high, ">=": high - low, "==": abs(low - high)}[sense]
            size = 1.0 + np.where(np.isfinite(high), abs(high), 0.0)
            if (gap > FEASIBILITY * size).any():
                return label
        return None


def by_row(what: str, value: Any, shape: tuple[int, ...], count: int | None) -> np.ndarray:
    """A value [*shape], or [count, *shape] where there are rows."""
    try:
        array = np.asarray(value, np.float64)
    except (TypeError, ValueError) as error:
        raise ModelError(f"{what} must be numbers: {error}") from None
    if array.shape != shape and (count is None or array.shape != (count, *shape)):
        rows = "" if count is None else f" or {(count, *shape)}"
        raise ModelError(f"{what} must have shape {shape}{rows}, got {array.shape}")
    return array if count is None else np.broadcast_to(array, (count, *shape))


def in_blocks(array: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Positions and rows in blocks of one size, the last padded by its last row."""
    for start in range(0, len(array), BLOCK):
        rows = np.minimum(np.arange(start, start + BLOCK), len(array) - 1)
        yield rows, array[rows]


def joined(parts: list[np.ndarray], count: int) -> np.ndarray:
    """The first `count` rows of blocks."""
    return np.concatenate(parts)[:count]


def taken(arrays: Mapping[str, np.ndarray], rows: Any) -> dict[str, np.ndarray]:
    """Some rows of arrays by name."""
    return {name: value[rows] for name, value in arrays.items()}


def _wide(raw: RawResult, count: int) -> RawResult:
    """Results by row, repeated where nothing differs by row."""

    def wide(a: np.ndarray) -> np.ndarray:
        return a if len(a) >= count else np.broadcast_to(a, (count, *a.shape[1:]))

    return jax.tree_util.tree_map(wide, raw)
