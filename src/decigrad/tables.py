"""Tables: columns with roles, from Parquet, CSV, NPZ or a frame, into a `Dataset`.

Nothing is guessed and nothing is filled: a value that is missing, a column that holds text, a label that is
censored is refused by the name of the column, with the rows and the way out.
"""

from __future__ import annotations

import difflib
import logging
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from decigrad.data import Dataset
from decigrad.errors import ModelError
from decigrad.sources import Table, shown

if TYPE_CHECKING:
    from decigrad.layer import DecisionLayer

Names = str | Sequence[str]
REST = "*"
"""In `features`: every column that has no other role."""


@dataclass(frozen=True)
class Columns:
    """Which columns of a table play which role.

    A parameter of several entries takes a list of columns, in C order of its shape. A `*` in a name
    stands for anything, so "cost_*" or "cost[*]" is every such column, in natural order:
    cost_2 before cost_10. An array of an NPZ file with more than one axis counts as a column of several
    numbers; alone in its role it keeps its shape, so that images stay images.

    Args:
        features: columns that the predictor sees; "*" is every column without another role.
        targets: by the name of a predicted parameter, its columns.
        known: by the name of a `known` parameter, its columns; they may be features too.
        weight: column of sample weights.
        time: column of times (dates, or numbers that grow), for splits in the order of time.
        group: column that tells which samples belong together, for splits by group.
        censored: column that is true where a target was cut off at a limit (sales at an empty shelf).

    Raises:
        ModelError: no features or targets, a column twice in a role, or a target among the features.
    """

    features: Names
    targets: Mapping[str, Names] = field(default_factory=dict)
    known: Mapping[str, Names] = field(default_factory=dict)
    weight: str | None = None
    time: str | None = None
    group: str | None = None
    censored: str | None = None

    def __post_init__(self) -> None:
        if not _listed(self.features):
            raise ModelError("Columns: features names no column")
        for kind, roles in (("targets", self.targets), ("known", self.known)):
            if not isinstance(roles, Mapping):
                raise ModelError(f"Columns: {kind} must be a dict from parameter names to columns")
            for name, columns in roles.items():
                if not _listed(columns):
                    raise ModelError(f"Columns: {kind} {name!r} names no column")

    def among(self, names: Sequence[str]) -> Columns:
        """The same roles with every pattern replaced by the columns of a table, which are checked.

        Raises:
            ModelError: a column that is not there (with the nearest name), a pattern that finds none, a
                column twice in a role, a target in two roles.
        """
        targets = {n: _found(f"target {n!r}", c, names) for n, c in self.targets.items()}
        known = {n: _found(f"known {n!r}", c, names) for n, c in self.known.items()}
        single = {r: getattr(self, r) for r in ("weight", "time", "group", "censored")}
        for role, name in single.items():
            if name is not None and (name not in _found(role, name, names)):
                raise ModelError(f"{role} is one column, {name!r} is a pattern")
        features = _listed(self.features)
        if features == [REST]:
            others = {*single.values(), *(c for part in (*targets.values(), *known.values()) for c in part)}
            features = [n for n in names if n not in others]
            if not features:
                raise ModelError("features: no column is left without another role")
        features = _found("features", features, names)
        _check_apart(features, targets, known)
        return Columns(features, targets, known, **single)


_log = logging.getLogger("decigrad")


def read_table(
    source: Any,
    columns: Columns,
    layer: DecisionLayer | None = None,
    *,
    missing: Literal["raise", "drop"] = "raise",
    censored: Literal["raise", "drop"] = "raise",
) -> Dataset:
    """A `Dataset` from the columns of a table.

    Args:
        source: path of a Parquet (.parquet, .pq), CSV (.csv, .tsv) or NPZ (.npz) file; a pandas or polars
            frame; a dict of arrays.
        columns: the roles.
        layer: gives every parameter its shape. Without one, a parameter named by a single column is a scalar,
            one named by a list or a pattern a vector.
        missing: rows where a *target* is missing: refuse them, or "drop" them and log how many. A feature
            that is missing is always refused: at decision time there would be no decision either.
        censored: rows that `Columns.censored` marks: refuse them, or "drop" them. Training on values at the
            limit learns the limit. Dropping them biases what is learned too (large values are cut off more
            often), so better estimate the true values first and mark nothing as censored.

    Raises:
        ModelError: columns that are not there or are not numbers, missing values (column, rows and
            count), a parameter whose columns do not fill its shape.
        OSError: the file cannot be read.
    """
    for option, value in (("missing", missing), ("censored", censored)):
        if value not in ("raise", "drop"):
            raise ModelError(f"read_table: {option} must be 'raise' or 'drop', got {value!r}")
    table = Table.open(source)
    if not columns.targets:
        raise ModelError("Columns: targets names no parameter, and a dataset needs the true values")
    roles = columns.among(table.names)
    if layer is not None:
        layer.model.check_names([*roles.targets, *roles.known])
    table = table.take(_usable(table, roles, missing, censored))

    def parameter(name: str, asked: Names, resolved: Names) -> np.ndarray:
        values = table.array(f"parameter {name!r}", resolved)
        if layer is None:
            scalar = isinstance(asked, str) and _listed(resolved) == [asked] and values.shape[1:] == (1,)
            return values[:, 0] if scalar else values
        shape = layer.parameters[name].shape
        size = int(np.prod(shape, dtype=int))
        if values[0].size != size:
            raise ModelError(
                f"parameter {name!r} has shape {shape}, so {size} entries, but its columns hold "
                f"{values[0].size} numbers: {shown(_listed(resolved))}"
            )
        return values.reshape(len(values), *shape)

    data = Dataset(
        table.array("features", roles.features),
        {n: parameter(n, columns.targets[n], c) for n, c in roles.targets.items()},
        {n: parameter(n, columns.known[n], c) for n, c in roles.known.items()},
        None if roles.weight is None else table.numbers("weight", roles.weight),
        times=None if roles.time is None else table.times(roles.time),
        groups=None if roles.group is None else table.labels(roles.group),
    )
    if data.features.ndim == 2 and len(roles.features) == data.features.shape[1]:
        data.feature_names = list(roles.features)
    return data


def _usable(table: Table, roles: Columns, missing: str, censored: str) -> np.ndarray:
    """Positions of the rows whose targets are there and are not censored."""
    cut, unlabelled = table.flags(roles.censored), np.zeros(len(table), bool)
    if cut.any():
        text = (
            f"column {roles.censored!r} marks {int(cut.sum())} of {len(table)} rows as censored "
            f"(first rows: {shown(np.flatnonzero(cut)[:5])}): their targets are a limit, not the true value"
        )
        if censored == "raise":
            raise ModelError(
                f"{text}. Replace them by estimates of the true value, or pass censored='drop' and accept "
                f"that what is learned is biased towards what was never cut off"
            )
        _log.warning("%s; they are left out, which biases what is learned", text)
    if missing == "drop":
        for column in (c for part in roles.targets.values() for c in part):
            unlabelled |= table.absent(column)
        if count := int((unlabelled & ~cut).sum()):
            _log.warning("%d of %d rows are left out: a target is missing", count, len(table))
    kept = np.flatnonzero(~(cut | unlabelled))
    if not kept.size:
        raise ModelError(f"no row of {table.where} is left: every target is missing or censored")
    return kept


def _found(role: str, asked: Names, names: Sequence[str]) -> list[str]:
    """The columns that a role asks for, patterns replaced, in order."""
    columns: list[str] = []
    for name in _listed(asked):
        if name in names:
            columns.append(name)
            continue
        if "*" not in name:
            near = difflib.get_close_matches(name, names, n=1)
            hint = f" (did you mean {near[0]!r}?)" if near else ""
            raise ModelError(
                f"{role}: the table has no column {name!r}{hint}; its columns are {shown(names)}"
            )
        matched = sorted((n for n in names if _matches(name, n)), key=_natural)
        if not matched:
            raise ModelError(f"{role}: no column matches {name!r}; the columns are {shown(names)}")
        _log.info("%s: %r is %d columns in this order: %s", role, name, len(matched), shown(matched))
        columns += matched
    if twice := sorted({n for n in columns if columns.count(n) > 1}):
        raise ModelError(f"{role} names {shown(twice)} more than once")
    return columns


def _check_apart(features: list[str], targets: dict[str, list[str]], known: dict[str, list[str]]) -> None:
    """A target's column is neither a feature nor known nor another target's."""
    owner: dict[str, str] = {}
    for name, columns in targets.items():
        for column in columns:
            if column in owner:
                raise ModelError(f"column {column!r} belongs to two targets, {owner[column]!r} and {name!r}")
            owner[column] = name
    if leaked := [c for c in features if c in owner]:
        raise ModelError(
            f"features hold {shown(leaked)}, of which target {owner[leaked[0]]!r} is made: the predictor "
            f"would be shown what it is to predict"
        )
    if both := [c for part in known.values() for c in part if c in owner]:
        raise ModelError(f"column {both[0]!r} is both known and part of target {owner[both[0]]!r}")


def _listed(names: Names | None) -> list[str]:
    return [] if names is None else [names] if isinstance(names, str) else list(names)


def _matches(pattern: str, name: str) -> bool:
    """Whether `*` in a pattern can stand for what a name has there; everything else is literal."""
    return re.fullmatch(".*".join(map(re.escape, pattern.split("*"))), name, re.DOTALL) is not None


def _natural(name: str) -> list[tuple[int, int, str]]:
    """A key that orders x2 before x10."""
    parts = re.split(r"(\d+)", name)
    return [(0, int(p), "") if p.isdecimal() else (1, 0, p) for p in parts]
