"""Constraints and bounds as rows of the program."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from decigrad.canonical.atoms import check_atoms
from decigrad.canonical.blocks import Block, block
from decigrad.canonical.forms import Form, negate, scale, select
from decigrad.canonical.rules import Walk
from decigrad.errors import ModelError, UnsupportedModelError
from decigrad.expressions.constraint import Constraint
from decigrad.expressions.expression import Constant, Expression, Variable


@dataclass(frozen=True)
class RowGroup:
    """Where the multipliers of one named constraint lie: kind and position of each of its rows.

    Kinds: 0 equality row, 1 inequality row, 2 upper bound, 3 lower bound (with `scale`, the row's
    coefficient). Parts are summed: the two sides of `abs(x) <= 1` share one name.
    """

    name: str
    shape: tuple[int, ...]
    parts: tuple[tuple[np.ndarray, np.ndarray, np.ndarray], ...]
    text: str


def placed(walk: Walk, expression: Expression, place: str) -> Form:
    """The form of an expression; a term outside the class is reported with its place."""
    try:
        return walk.form(expression)
    except UnsupportedModelError as error:
        raise UnsupportedModelError(
            f"{error} in {place} is outside convex quadratic and mixed-integer linear programs, "
            f"which is what the solvers of this version take"
        ) from None


def bound_blocks(variables: dict[str, Variable], total: int) -> dict[str, Block]:
    """The declared bounds of all variables, as blocks "lb" and "ub"."""
    entries: dict[str, list[tuple[np.ndarray, Any]]] = {"lb": [], "ub": []}
    start = 0
    for variable in variables.values():
        span = np.arange(start, start + variable.size)
        for side, bound in (("lb", variable.lb), ("ub", variable.ub)):
            positions = np.broadcast_to(np.arange(bound.size).reshape(bound.shape), variable.shape).reshape(
                -1
            )
            flat = bound.value.reshape(-1) if isinstance(bound, Constant) else bound.reshape(-1)
            entries[side].append((span, flat[positions]))
        start += variable.size
    return {side: _bound_block(total, entries[side]) for side in entries}


def _bound_block(total: int, entries: list[tuple[np.ndarray, Any]]) -> Block:
    base = np.zeros(total)
    for index, value in entries:
        if isinstance(value, np.ndarray):
            base[index] = value
    return Block((total,), base, tuple((i, v) for i, v in entries if not isinstance(v, np.ndarray)))


class Rows:
    """Collects equality and inequality rows; a row with one constant coefficient becomes a bound if free."""

    def __init__(self, walk: Walk, bounds: dict[str, Block]) -> None:
        self.walk = walk
        self.bounds = bounds
        self.equalities: list[Form] = []
        self.inequalities: list[Form] = []
        self.groups: list[RowGroup] = []
        moving = {side: np.zeros(b.shape, bool) for side, b in bounds.items()}
        for side, bound in bounds.items():
            for index, _ in bound.pieces:
                moving[side][index] = True
        self.open = np.stack(
            [(bounds["lb"].base == -np.inf) & ~moving["lb"], (bounds["ub"].base == np.inf) & ~moving["ub"]]
        )
        self.declared = ~self.open

    def add(self, constraint: Constraint) -> None:
        """Add the rows of a constraint."""
        place = f"constraint {constraint.name!r} ({_cut(str(constraint))})"
        parts = []
        for left, right, sense in _pieces(constraint):
            form = placed(self.walk, left - right, place)
            if form.products:
                raise UnsupportedModelError(
                    f"{place} is quadratic in the variables; quadratic terms are supported in the objective"
                )
            if form.is_constant:
                raise ModelError(f"{place} has no decision variable")
            form = scale(form, np.ones(form.size)) if sense != ">=" else negate(form)
            check_atoms(self.walk, form, place, equality=sense == "==")
            parts.append(self._equality(form) if sense == "==" else self._inequality(form))
        shape = constraint.shape
        self.groups.append(RowGroup(constraint.name or "", shape, tuple(parts), str(constraint)))

    def add_epigraph(self) -> None:
        """Add the rows that define the auxiliary columns, once all constraints are in."""
        done = 0
        while done < len(self.walk.epigraph):  # a nested atom adds rows while we go
            own, form = self.walk.epigraph[done]
            check_atoms(self.walk, form, f"the term {self.walk.atoms[own].text}", own=own)
            self._inequality(form, bounds=False)
            done += 1

    def _equality(self, form: Form) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        start = sum(f.size for f in self.equalities)
        self.equalities.append(form)
        return np.zeros(form.size, int), np.arange(start, start + form.size), np.ones(form.size)

    def _inequality(self, form: Form, bounds: bool = True) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        kind, position, factor = np.ones(form.size, int), np.zeros(form.size, int), np.ones(form.size)
        as_bound = np.zeros(form.size, bool)
        rows, cols, value = form.entries()
        if bounds and isinstance(value, np.ndarray):
            count = np.bincount(rows, value != 0, form.size)
            for entry in np.flatnonzero((count[rows] == 1) & (value != 0) & (cols < self.open.shape[1])):
                row, col, side = rows[entry], cols[entry], int(value[entry] > 0)
                if self.open[side, col]:
                    self.open[side, col] = False
                    as_bound[row] = True
                    kind[row], position[row], factor[row] = 3 - side, col, abs(value[entry])
            self._set_bounds(form, rows, cols, value, as_bound)
        kept = np.flatnonzero(~as_bound)
        if kept.size:
            start = sum(f.size for f in self.inequalities)
            self.inequalities.append(select(form, kept, (kept.size,)))
            position[kept] = np.arange(start, start + kept.size)
        return kind, position, factor

    def _set_bounds(
        self, form: Form, rows: np.ndarray, cols: np.ndarray, value: np.ndarray, as_bound: np.ndarray
    ) -> None:
        """value·x + constant ≤ 0 at the marked rows, as bounds: x ≤ or ≥ −constant/value."""
        for side, positive in (("ub", True), ("lb", False)):
            take = np.flatnonzero(as_bound[rows] & (value != 0) & ((value > 0) == positive))
            if not take.size:
                continue
            limit = form.constant[rows[take]] * (-1.0 / value[take])
            bound = self.bounds[side]
            base = bound.base.copy()
            if isinstance(limit, np.ndarray):
                base[cols[take]] = limit
                self.bounds[side] = replace(bound, base=base)
            else:
                base[cols[take]] = 0.0
                self.bounds[side] = replace(bound, base=base, pieces=(*bound.pieces, (cols[take], limit)))

    def blocks(self, n: int) -> dict[str, Block]:
        """A, b, G, h and the bounds, padded for auxiliary columns."""
        found: dict[str, Block] = {}
        for matrix, side, forms in (("A", "b", self.equalities), ("G", "h", self.inequalities)):
            total = sum(f.size for f in forms)
            entries, constants, start = [], [], 0
            for form in forms:
                entries += [((t.rows + start) * n + t.cols, t.value) for t in form.linear]
                constants.append((np.arange(start, start + form.size), form.constant * np.float64(-1.0)))
                start += form.size
            found[matrix] = block((total, n), *entries)
            found[side] = block((total,), *constants)
        for side, fill in (("lb", -np.inf), ("ub", np.inf)):
            bound = self.bounds[side]
            base = np.concatenate([bound.base, np.full(n - bound.base.size, fill)])
            found[side] = Block((n,), base, bound.pieces)
        return found


def _pieces(constraint: Constraint) -> list[tuple[Expression, Expression, str]]:
    """max-type terms alone on their side split into plain rows: abs(a) ≤ r is a ≤ r and −a ≤ r."""
    left, right, sense = constraint.left, constraint.right, constraint.sense
    if sense == "==":
        return [(left, right, sense)]
    small, large = (left, right) if sense == "<=" else (right, left)
    if small.operation == "abs" and small.shape == constraint.shape:
        parts = [small.arguments[0], -small.arguments[0]]
    elif small.operation == "maximum" and all(a.shape == constraint.shape for a in small.arguments):
        parts = list(small.arguments)
    elif large.operation == "minimum" and all(a.shape == constraint.shape for a in large.arguments):
        return [(small, part, "<=") for part in large.arguments]
    else:
        return [(left, right, sense)]
    if not all(p.has_variables for p in parts):
        return [(left, right, sense)]
    return [(part, large, "<=") for part in parts]


def _cut(text: str, limit: int = 80) -> str:
    return text if len(text) <= limit else text[: limit - 1] + "…"
