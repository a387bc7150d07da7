"""A model from what HiGHS reads in an MPS or LP file, some of its numbers as parameters."""

from __future__ import annotations

import fnmatch
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from decigrad.errors import ModelError
from decigrad.expressions import functions as dm
from decigrad.model import Model
from decigrad.program import Array
from decigrad.solvers.highs import instance

KINDS = ("cost", "rhs", "coefficients", "lower", "upper")
_GROUPS = ("continuous", "integer", "binary")


@dataclass(frozen=True)
class Imported:
    """A model that was read, and where its columns and rows are found in it.

    Attributes:
        model: its variables are the vectors "continuous", "integer" and "binary", those that there are; its
            constraints "equal", "at_most" and "at_least".
        columns: by the column's name, variable and position.
        rows: by the row's name, constraint and position; two of them for a row with two sides, "at_most" and
            "at_least". Rows that limit nothing are left out.
    """

    model: Model
    columns: dict[str, tuple[str, int]]
    rows: dict[str, list[tuple[str, int]]]

    def named(self, x: Mapping[str, Any]) -> dict[str, np.ndarray]:
        """Decisions by the names of the file: name → array [*batch], from `layer(...)` or `solution.x`."""
        return {name: np.asarray(x[variable])[..., i] for name, (variable, i) in self.columns.items()}

    def dual(self, duals: Mapping[str, Any], row: str) -> np.ndarray:
        """The multiplier of a row [*batch] among those of a solution; with two sides, that of ≤ less ≥."""
        if row not in self.rows:
            raise ModelError(f"no row {row!r}; rows are such as {', '.join(list(self.rows)[:5])}")
        first, *others = (np.asarray(duals[constraint])[..., i] for constraint, i in self.rows[row])
        return first - others[0] if others else first


@dataclass(frozen=True)
class File:
    """What HiGHS has read: min or max ½xᵀQx + cᵀx + offset s.t. below ≤ Mx ≤ above, lower ≤ x ≤ upper."""

    name: str
    maximize: bool
    offset: float
    Q: Array
    cost: Array
    matrix: Array
    below: Array
    above: Array
    lower: Array
    upper: Array
    kinds: np.ndarray  # of each column, an index into _GROUPS
    columns: list[str]
    rows: list[str]


def read(path: Path, endings: tuple[str, ...], caller: str) -> File:
    """The contents of a file, whose name must end in one of `endings`."""
    import highspy

    if not path.exists():
        raise FileNotFoundError(f"{caller}: no file {str(path)!r}")
    if not path.name.lower().endswith(endings):
        raise ModelError(f"{caller}: {path.name!r} does not end in {' or '.join(endings)}")
    highs = instance({})
    if highs.readModel(str(path)) == highspy.HighsStatus.kError:
        raise ModelError(f"{caller}: {str(path)!r} is not a file that HiGHS can read")
    found = highs.getModel()
    lp, hessian = found.lp_, found.hessian_
    n, m = lp.num_col_, lp.num_row_
    if not n:
        raise ModelError(f"{caller}: {str(path)!r} has no columns")
    columns = _names(lp.col_names_, n, "c")
    kinds = _kinds(lp, columns, highspy.HighsVarType, caller)
    Q = _dense(hessian.start_, hessian.index_, hessian.value_, n, n) if hessian.dim_ else np.zeros((n, n))
    by_column = lp.a_matrix_.format_ == highspy.MatrixFormat.kColwise
    stored = _dense(
        lp.a_matrix_.start_, lp.a_matrix_.index_, lp.a_matrix_.value_, *((m, n) if by_column else (n, m))
    )
    return File(
        name=lp.model_name_ or path.name.split(".")[0],
        maximize=lp.sense_ == highspy.ObjSense.kMaximize,
        offset=float(lp.offset_),
        Q=np.tril(Q) + np.tril(Q, -1).T,
        cost=np.array(lp.col_cost_, float),
        matrix=stored if by_column else stored.T,
        below=_limits(lp.row_lower_),
        above=_limits(lp.row_upper_),
        lower=_limits(lp.col_lower_),
        upper=_limits(lp.col_upper_),
        kinds=kinds,
        columns=columns,
        rows=_names(lp.row_names_, m, "r"),
    )


def _dense(start: Any, index: Any, value: Any, rows: int, columns: int) -> Array:
    """A matrix [rows, columns] that is stored by columns."""
    matrix = np.zeros((rows, columns))
    counts = np.diff(np.asarray(start)[: columns + 1])
    matrix[np.asarray(index, int), np.repeat(np.arange(columns), counts)] = np.asarray(value, float)
    return matrix


def _limits(values: Any) -> Array:
    """Bounds; what HiGHS counts as infinite is infinite."""
    found = np.array(values, float)
    return np.where(found >= 1e30, np.inf, np.where(found <= -1e30, -np.inf, found))


def _names(given: list[str], count: int, letter: str) -> list[str]:
    return (
        [name or f"{letter}{i}" for i, name in enumerate(given)]
        if given
        else [f"{letter}{i}" for i in range(count)]
    )


def _kinds(lp: Any, columns: list[str], types: Any, caller: str) -> np.ndarray:
    lower, upper = _limits(lp.col_lower_), _limits(lp.col_upper_)
    kinds = np.zeros(lp.num_col_, int)
    for j, kind in enumerate(lp.integrality_):
        if kind == types.kInteger:
            kinds[j] = 2 if (lower[j], upper[j]) == (0.0, 1.0) else 1
        elif kind != types.kContinuous:
            raise ModelError(f"{caller}: a semi-continuous column ({columns[j]!r}) is not supported")
    return kinds


# ------------------------------------------------------------------------------------------- parameters


def _chosen(file: File, name: str, places: Any) -> tuple[str, np.ndarray]:
    """A parameter's kind, and the positions of its numbers: [K] columns or rows, or [K, 2] entries."""
    kind, names = places if isinstance(places, tuple) else (places, "*")
    if kind not in KINDS:
        raise ModelError(f"parameter {name!r}: {kind!r} is not one of {', '.join(KINDS)}")
    if kind == "coefficients":
        if isinstance(names, str):
            raise ModelError(f"parameter {name!r}: coefficients are given as (row, column) pairs")
        pairs = [
            (_position(file.rows, r, name, "row"), _position(file.columns, c, name, "column"))
            for r, c in names
        ]
        return kind, np.array(pairs, int).reshape(-1, 2)
    known, what = (file.rows, "row") if kind == "rhs" else (file.columns, "column")
    if isinstance(names, str):
        found = [i for i, each in enumerate(known) if fnmatch.fnmatchcase(each, names)]
        if not found:
            raise ModelError(
                f"parameter {name!r}: no {what} matches {names!r}; they are such as {_few(known)}"
            )
    else:
        found = [_position(known, each, name, what) for each in names]
    return kind, np.array(found, int)


def _position(known: list[str], name: str, parameter: str, what: str) -> int:
    try:
        return known.index(name)
    except ValueError:
        message = f"parameter {parameter!r}: the file has no {what} {name!r}; they are such as {_few(known)}"
        raise ModelError(message) from None


def _few(names: Iterable[str]) -> str:
    return ", ".join(list(names)[:5])


class _Numbers:
    """An array of the file, some of whose entries are parameters."""

    def __init__(self, values: Array) -> None:
        self.constant = values.astype(float)
        self.taken = np.zeros(values.shape, bool)
        self.parts: list[tuple[Any, tuple[np.ndarray, ...]]] = []

    def hand_over(self, parameter: Any, at: tuple[np.ndarray, ...]) -> None:
        """The entries `at` are those of a parameter from now on."""
        places = np.stack(at, axis=-1)
        if self.taken[at].any() or len(np.unique(places, axis=0)) < len(places):
            raise ModelError(f"a number of parameter {parameter!s} is that of a parameter already")
        self.parts.append((parameter, at))
        self.taken[at] = True
        self.constant[at] = 0.0

    def vector(self, index: np.ndarray) -> Any:
        """The entries `index` of a vector."""
        total: Any = self.constant[index]
        for parameter, (at,) in self.parts:
            if np.isin(at, index).any():
                total = total + _spread(index, at) @ parameter
        return total

    def times(self, index: np.ndarray, x: Any) -> Any:
        """The rows `index` of a matrix times x."""
        total = self.constant[index] @ x
        for parameter, (row, column) in self.parts:
            if np.isin(row, index).any():
                total = total + _spread(index, row) @ (parameter * x[column])
        return total


def _spread(index: np.ndarray, at: np.ndarray) -> Array:
    """The matrix [index, at] that brings a parameter's entries to their places."""
    return (index[:, None] == at[None, :]).astype(float)


# ------------------------------------------------------------------------------------------- the model


def imported(file: File, parameters: dict[str, Any]) -> Imported:
    """The model of a file, the numbers that `parameters` names being parameters."""
    model = Model(file.name)
    cost, matrix = _Numbers(file.cost), _Numbers(file.matrix)
    lower, upper, below, above = (_Numbers(v) for v in (file.lower, file.upper, file.below, file.above))
    equal = file.below == file.above
    for name, places in parameters.items():
        kind, at = _chosen(file, name, places)
        if kind == "rhs":
            one = equal[at] | (np.isfinite(file.below[at]) != np.isfinite(file.above[at]))
            if not one.all():
                row = file.rows[at[~one][0]]
                raise ModelError(f"parameter {name!r}: row {row!r} has two right-hand sides, or none")
            upside = np.isfinite(file.above[at])
            parameter = model.parameter(name, value=np.where(upside, file.above[at], file.below[at]))
            for numbers, chosen in ((above, np.flatnonzero(upside)), (below, np.flatnonzero(~upside))):
                if len(chosen):
                    numbers.hand_over(parameter[chosen], (at[chosen],))
            continue
        numbers = {"cost": cost, "coefficients": matrix, "lower": lower, "upper": upper}[kind]
        where = (at[:, 0], at[:, 1]) if kind == "coefficients" else (at,)
        if not np.isfinite(numbers.constant[where]).all():
            raise ModelError(f"parameter {name!r} holds a bound that is infinite in the file, and stays so")
        numbers.hand_over(model.parameter(name, value=numbers.constant[where]), where)
    x, columns = _variables(model, file, lower, upper)
    objective = cost.vector(np.arange(len(file.cost))) @ x
    if file.offset:
        objective = objective + file.offset
    if file.Q.any():
        objective = objective + 0.5 * dm.quad_form(x, file.Q)
    (model.maximize if file.maximize else model.minimize)(objective)
    rows: dict[str, list[tuple[str, int]]] = {}
    for group, chosen in (
        ("equal", equal),
        ("at_most", ~equal & np.isfinite(file.above)),
        ("at_least", ~equal & np.isfinite(file.below)),
    ):
        index = np.flatnonzero(chosen)
        if not len(index):
            continue
        left, right = matrix.times(index, x), (below if group == "at_least" else above).vector(index)
        model.subject_to(
            left == right if group == "equal" else left <= right if group == "at_most" else left >= right,
            group,
        )
        for i, row in enumerate(index):
            rows.setdefault(file.rows[row], []).append((group, i))
    return Imported(model, columns, rows)


def _variables(
    model: Model, file: File, lower: _Numbers, upper: _Numbers
) -> tuple[Any, dict[str, tuple[str, int]]]:
    """The variables, as one vector in the file's order, and where each column is."""
    parts, order, columns = [], [], {}
    for number, kind in enumerate(_GROUPS):
        index = np.flatnonzero(file.kinds == number)
        if not len(index):
            continue
        if kind == "binary" and not (lower.taken[index].any() or upper.taken[index].any()):
            parts.append(model.binary(kind, shape=len(index)))
        else:
            state = model.continuous if kind == "continuous" else model.integer
            parts.append(state(kind, shape=len(index), lb=lower.vector(index), ub=upper.vector(index)))
        order += index.tolist()
        columns.update({file.columns[j]: (kind, i) for i, j in enumerate(index)})
    x = parts[0] if len(parts) == 1 else dm.concatenate(parts)
    inverse = np.argsort(order)
    return (x if (inverse == np.arange(len(order))).all() else x[inverse]), {
        name: columns[name] for name in file.columns
    }
