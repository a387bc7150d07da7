"""A trained decision rule: a predictor and the model that it was trained for, as one object."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from decigrad import archive
from decigrad.deciding import Decider, Decisions, by_row, in_blocks, joined
from decigrad.errors import ModelError
from decigrad.layer import DecisionLayer
from decigrad.predictors import LinearPredictor, MLPPredictor, OnHost, Recipe, outputs_of, predict
from decigrad.program import Status
from decigrad.sources import Table, shown
from decigrad.streaming import FileDecisions, decide_file
from decigrad.tables import Columns


class Policy:
    """A trained decision rule: features in, decisions out.

        policy = dg.Policy(result.predictor, layer)
        policy.decide(features).x["x"]
        policy.save("shop.decigrad")
        dg.Policy.load("shop.decigrad").decide(features)

    Everything is computed in float64, and a decision depends on its own row alone: the same bits whether it
    is asked for by itself, in a batch, from a file or over HTTP.

    Args:
        predictor: a fitted one, as `fit(...).predictor`.
        layer: the layer that it was trained for. Decisions are those of the model itself (`layer.exact`).
        feature_names: columns of the features, in order; frames are then matched by name.
        columns: the roles of a table's columns, so that known parameters are found in a table too; its
            `features` are the `feature_names` unless these are given.
        feature_shape: of one row, where it cannot be told from the names or the predictor.
        fallback: a decision by variable name, each [*shape], for rows whose solve runs over or fails.
        settings: anything that JSON can hold and that should be kept with the rule (method, seed, date).

    Raises:
        ModelError: a predictor that is not fitted, a fallback that does not fit the variables or violates a
            constraint.
    """

    def __init__(
        self,
        predictor: Any,
        layer: DecisionLayer,
        *,
        feature_names: Sequence[str] | None = None,
        columns: Columns | None = None,
        feature_shape: Sequence[int] | None = None,
        fallback: Mapping[str, Any] | None = None,
        settings: Mapping[str, Any] | None = None,
    ) -> None:
        if isinstance(predictor, Recipe) or not callable(predictor):
            raise ModelError(
                f"a policy needs a fitted predictor, as fit(...).predictor; got {type(predictor).__name__}"
            )
        if columns is not None and (open_ := [c for c in _roles(columns) if "*" in c]):
            raise ModelError(f"columns has the pattern {open_[0]!r}: pass columns.among(the table's columns)")
        if feature_names is None and columns is not None:
            feature_names = _listed(columns.features)
        self.predictor, self.layer, self.columns = predictor, layer, columns
        self.feature_names = None if feature_names is None else tuple(str(n) for n in feature_names)
        self.settings = dict(settings or {})
        shape = _feature_shape(predictor, self.feature_names) if feature_shape is None else feature_shape
        self.feature_shape: tuple[int, ...] | None = None if shape is None else tuple(map(int, shape))
        self._decider = Decider(layer)
        self._outputs = outputs_of(layer)
        self.fallback = None if fallback is None else self._decider.fallback(fallback)

    def __repr__(self) -> str:
        features = "" if self.feature_shape is None else f" features{list(self.feature_shape)}"
        return f"<Policy{features} -> {list(self.layer.predicts)} -> {list(self.layer.form.variables)}>"

    def with_fallback(self, fallback: Mapping[str, Any] | None) -> Policy:
        """The same rule with another fallback decision."""
        kept = "feature_names columns feature_shape settings".split()
        others = {name: getattr(self, name) for name in kept}
        return Policy(self.predictor, self.layer, fallback=fallback, **others)

    # ------------------------------------------------------------------------------------------ deciding

    def predict(self, features: Any) -> dict[str, np.ndarray]:
        """Predicted parameters by name, float64 [N, *shape].

        Args:
            features: [N, ...], or a pandas or polars frame, its columns matched by name. One row is [1, p].

        Raises:
            ModelError: columns that are missing or unknown, NaN or infinite entries, a wrong shape.
        """
        return self._predicted(self._read(features)[0])

    def decide(
        self,
        features: Any,
        known: Mapping[str, Any] | None = None,
        *,
        time_limit: float | None = None,
        fallback: Mapping[str, Any] | None = None,
        throw: bool = True,
    ) -> Decisions:
        """Decisions for N rows of features.

        Args:
            features: as in `predict`. A frame may hold known parameters, where the policy has `columns`.
            known: values of known parameters by name, each [N, *shape], or [*shape] for all rows.
            time_limit: seconds for all rows together. Rows are solved in their order; what has not been
                started then ends with `Status.TIME_LIMIT`. HiGHS, Gurobi and OR-Tools stop within a solve
                and other host solvers after the row at hand. Solvers on the device (interior point, JAX
                oracles) stop after the block of 32 rows at hand. The first call compiles: `warm_up` before.
            fallback: in place of the policy's own: by variable name, [*shape] for all rows or [N, *shape].
                It is taken where a solve runs over, fails or is infeasible, or a prediction is not finite
                (or negative for a `nonneg` parameter); the best point found so far is not used in its place.
            throw: raise where a row has no decision and there is no fallback; else it holds NaN (after a time
                limit: the best integer point found, if any).

        Raises:
            ModelError: bad features or known parameters; a fallback of wrong shape, not integer, or outside
                constraints that are the same for all rows (others are not checked).
            SolveError: with `throw`; names the rows.
        """
        start = time.perf_counter()
        array, from_table = self._read(features)
        count = len(array)
        stated = self._known({**from_table, **(known or {})}, count)
        instead = self.fallback if fallback is None else self._decider.fallback(fallback, count)
        predicted = self._predicted(array)
        params = {**predicted, **stated}
        deadline = None if time_limit is None else start + time_limit
        x, status = self._decider.solve(params, predicted, deadline)
        failed = status != Status.OPTIMAL
        if throw and instead is None and failed.any():
            raise self._decider.failure(params, status, time_limit)
        taken = failed & (instead is not None)
        decisions = self.layer.form.split(x)
        for name, value in (instead or {}).items():
            whole = np.broadcast_to(value, decisions[name].shape)
            decisions[name] = np.where(taken.reshape(-1, *(1,) * (whole.ndim - 1)), whole, decisions[name])
        return Decisions(
            x=decisions,
            predicted=predicted,
            objective=self._decider.objective(decisions, params),
            status=status,
            fallback=taken,
            seconds=time.perf_counter() - start,
        )

    def decide_file(
        self,
        source: str | Path,
        target: str | Path,
        *,
        batch: int = 8192,
        keep: Sequence[str] = (),
        time_limit: float | None = None,
        fallback: Mapping[str, Any] | None = None,
        throw: bool = True,
        progress: Callable[[int], None] | None = None,
    ) -> FileDecisions:
        """Decisions for a table of features, which may be larger than memory: it is read batch by batch.

        Args:
            source: a Parquet (.parquet, .pq) or CSV (.csv, .tsv) file that holds the policy's `table_columns`
                by name; other columns are ignored.
            target: the table of decisions, of either kind: the columns of `Decisions.table`. The file is put
                in place as a whole, when all rows are decided.
            batch: rows at a time.
            keep: columns of the source that go before the decisions; from a CSV file, as text.
            time_limit: as in `decide`, for each batch.
            fallback: as in `decide`, [*shape] for all rows.
            throw: raise at the first row without a decision; else it holds NaN and its status.
            progress: called with the number of rows done after each batch.

        Raises:
            ModelError: columns that are missing, or a value that is no finite number, naming row (counted
                from 0) and column.
            SolveError: with `throw`, as in `decide`.
        """
        return decide_file(
            self, Path(source), Path(target), batch=batch, keep=keep, throw=throw, progress=progress,
            time_limit=time_limit, fallback=fallback,
        )  # fmt: skip

    def warm_up(self) -> None:
        """Compile: decide one row of zeros, with ones where a known parameter has no value of its own.

        Raises:
            ModelError: the shape of the features is not known: pass `feature_shape`.
        """
        if self.feature_shape is None:
            raise ModelError("the shape of the features is not known: Policy(..., feature_shape=(p,))")
        known = {n: np.ones(self.layer.parameters[n].shape) for n in self.known_needed}
        self.decide(np.zeros((1, *self.feature_shape)), known, throw=False)

    @property
    def known_needed(self) -> list[str]:
        """Known parameters that `decide` must be given: they have no value of their own."""
        parameters = self.layer.parameters.items()
        return [n for n, p in parameters if n not in self.layer.predicts and p.value is None]

    @property
    def table_columns(self) -> list[str]:
        """The columns that a table of rows to decide must hold: features, then known parameters.

        Raises:
            ModelError: their names are not known, or features are not one number for each column.
        """
        if self.feature_names is None:
            raise ModelError("the policy does not know its columns: Policy(..., feature_names=[...])")
        if self.feature_shape != (len(self.feature_names),):
            raise ModelError(f"features {self.feature_shape} are not one number for each column: pass arrays")
        known = () if self.columns is None else self.columns.known.values()
        return list(dict.fromkeys([*self.feature_names, *(c for part in known for c in _listed(part))]))

    def from_columns(self, columns: Mapping[str, Any]) -> tuple[np.ndarray, dict[str, np.ndarray]]:
        """Features [N, p] and known parameters, of columns [N] by name."""
        features = np.stack([np.asarray(columns[n], np.float64) for n in self.feature_names or ()], axis=1)
        known = {}
        for name, asked in ({} if self.columns is None else self.columns.known).items():
            values = np.stack([np.asarray(columns[c], np.float64) for c in _listed(asked)], axis=1)
            known[name] = values.reshape(len(values), *self.layer.parameters[name].shape)
        return features, known

    def _predicted(self, array: np.ndarray) -> dict[str, np.ndarray]:
        try:
            if isinstance(self.predictor, OnHost):
                return predict(self.predictor, array, self._outputs)
            parts = [predict(self.predictor, block, self._outputs) for _, block in in_blocks(array)]
        except (TypeError, ValueError) as error:
            if isinstance(error, ModelError):
                raise
            raise ModelError(
                f"the predictor does not take features of shape {array.shape[1:]}: {error}"
            ) from error
        return {
            name: np.asarray(joined([part[name] for part in parts], len(array)), np.float64)
            for name, _ in self._outputs
        }

    # ------------------------------------------------------------------------------------------ checking

    def _read(self, features: Any) -> tuple[np.ndarray, dict[str, np.ndarray]]:
        """Features [N, ...], and the known parameters that a table holds."""
        if hasattr(features, "columns"):
            array, known = self._of_table(Table.open(features))
        else:
            known = {}
            try:
                array = np.asarray(features, np.float64)
            except (TypeError, ValueError) as error:
                raise ModelError(f"features must be numbers: {error}") from None
        if array.ndim < 2:
            raise ModelError(f"features must be [N, ...], got shape {array.shape}; one row is features[None]")
        if len(array) == 0:
            raise ModelError("features has no rows")
        if self.feature_shape is not None and array.shape[1:] != self.feature_shape:
            raise ModelError(
                f"features must have shape {['N', *self.feature_shape]}, got {list(array.shape)}".replace(
                    "'", ""
                )
            )
        bad = ~np.isfinite(array)
        if bad.any():
            row, *entry = (int(i) for i in np.argwhere(bad)[0])
            names = self.feature_names if len(entry) == 1 else None
            where = f"entry {entry}" if names is None else f"column {names[entry[0]]!r}"
            raise ModelError(f"features: row {row}, {where} is NaN or infinite")
        return array, known

    def _of_table(self, table: Table) -> tuple[np.ndarray, dict[str, np.ndarray]]:
        """Features and known parameters in a table's columns; columns that play no role are refused."""
        if self.feature_names is None:  # nothing to match by
            return table.array("features", table.names), {}
        needed = self.table_columns
        if missing := [n for n in needed if n not in table.names]:
            raise ModelError(f"{table.where} lacks the columns {shown(missing)}; it has {shown(table.names)}")
        if spare := [n for n in table.names if n not in {*needed, *_roles(self.columns)}]:
            raise ModelError(f"the policy knows no columns {shown(spare)}; it reads {shown(needed)}")
        return self.from_columns({name: table.array("features", [name])[:, 0] for name in needed})

    def _known(self, given: Mapping[str, Any], count: int) -> dict[str, np.ndarray]:
        self.layer.model.check_names(given)
        if wrong := [n for n in given if n in self.layer.predicts]:
            raise ModelError(f"{shown(wrong)} is predicted, not known")
        if absent := [n for n in self.known_needed if n not in given]:
            raise ModelError(
                f"known parameters {shown(absent)} have no value: pass known={{{absent[0]!r}: …}}"
            )
        found = {}
        for name, value in given.items():
            parameter = self.layer.parameters[name]
            found[name] = by_row(f"known {name!r}", value, parameter.shape, count)
            parameter.check(found[name])
        return found

    # -------------------------------------------------------------------------------------------- saving

    def save(self, path: str | Path, *, given: Sequence[str] = ()) -> Path:
        """Write the policy to one file, conventionally `.decigrad`: JSON and arrays, no code, no pickle.

        The file is replaced as a whole, and equal policies give equal bytes.

        Args:
            path: where to.
            given: parts that are objects of yours and that `load` will be given again: "predictor" (then its
                arrays alone are stored) and "solver" (then its name alone is).

        Raises:
            ModelError: a part that the format does not know, with the way out.
        """
        mine = {"predictor": self.predictor, "solver": self.layer.asked}
        archive.save(Path(path), "policy", self, archive.chosen(given, mine))
        return Path(path)

    @staticmethod
    def load(path: str | Path, *, predictor: Any = None, solver: Any = None) -> Policy:
        """The policy in a file.

        Args:
            path: what `save` wrote.
            predictor: where it was saved with `given=("predictor",)`: a predictor of the same structure; its
                arrays are replaced by those of the file.
            solver: where it was saved with `given=("solver",)`: the solver.

        Raises:
            ModelError: not a policy, damaged (the part is named), of a newer format, or a part is not given.
        """
        mine = {"predictor": predictor, "solver": solver}
        found = archive.load(Path(path), "policy", {n: part for n, part in mine.items() if part is not None})
        if not isinstance(found, Policy):
            raise ModelError(f"{path} holds no policy")
        return found


def _feature_shape(predictor: Any, names: tuple[str, ...] | None) -> tuple[int, ...] | None:
    """The shape of one row of features, where it can be told."""
    if names is not None:
        return (len(names),)
    if isinstance(predictor, LinearPredictor | MLPPredictor):
        first = predictor if isinstance(predictor, LinearPredictor) else predictor.layers[0]
        items = predictor.outputs[0][1] if predictor.shared else ()
        return (*items, first.weight.shape[1])
    known = getattr(next(iter(getattr(predictor, "estimators", ())), None), "n_features_in_", None)
    return None if known is None else (int(known),)


def _roles(columns: Columns | None) -> list[str]:
    """All columns that play a role."""
    if columns is None:
        return []
    single = (columns.weight, columns.time, columns.group, columns.censored)
    several = [*columns.targets.values(), *columns.known.values(), columns.features]
    return [*filter(None, single), *(c for part in several for c in _listed(part))]


def _listed(names: str | Sequence[str]) -> list[str]:
    return [names] if isinstance(names, str) else list(names)
