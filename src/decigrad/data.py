"""Data: features, true parameters, known parameters and weights, one row a sample."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from decigrad.errors import ModelError
from decigrad.splits import time_split

if TYPE_CHECKING:
    from decigrad.layer import DecisionLayer
    from decigrad.solution import Solutions

REMEMBERED = 8
"""Layers whose optimal decisions a dataset remembers."""


class Dataset:
    """N samples of features and of the parameters that were true for them.

    Args:
        features: [N, ...], an array or a pandas or polars frame.
        targets: true values of the predicted parameters, by name, each [N, *shape].
        known: values of the `known` parameters, by name, each [N, *shape]; they are given at decision time.
        weights: [N], nonnegative weights of the samples in training; default 1.
        times: [N], when each sample was taken (dates, or numbers that grow): the order of `split(seed=None)`,
            of `decigrad.walk_forward`, and of the folds within `fit`.
        groups: [N], labels of samples that belong together, which `decigrad.group_folds` and the folds within
            `fit` never divide.

    Raises:
        ModelError: no samples, lengths that differ, NaN or infinite entries (naming the first).
    """

    def __init__(
        self,
        features: Any,
        targets: Mapping[str, Any],
        known: Mapping[str, Any] | None = None,
        weights: Any = None,
        *,
        times: Any = None,
        groups: Any = None,
    ) -> None:
        self.feature_names = [str(c) for c in features.columns] if hasattr(features, "columns") else None
        self.features = _array("features", features)
        if self.features.ndim == 0 or len(self.features) == 0:
            raise ModelError("the dataset is empty: features has no rows")
        if self.features.ndim == 1:
            raise ModelError(
                f"features must be [N, p], got shape {self.features.shape}; use features[:, None]"
            )
        for kind, given in (("targets", targets), ("known", known)):
            if given is not None and not isinstance(given, Mapping):
                raise ModelError(
                    f"{kind} must be a dict from parameter names to arrays, got {type(given).__name__}"
                )
        if not targets:
            raise ModelError("the dataset has no targets: pass the true parameters by name")
        self.targets = {name: _array(f"target {name!r}", value) for name, value in targets.items()}
        self.known = {name: _array(f"known {name!r}", value) for name, value in (known or {}).items()}
        self.weights = np.ones(len(self)) if weights is None else _array("weights", weights)
        if self.weights.shape != (len(self),) or (self.weights < 0).any() or not self.weights.any():
            raise ModelError(f"weights must be [{len(self)}], nonnegative and not all zero")
        for kind, arrays in (("target", self.targets), ("known", self.known)):
            for name, array in arrays.items():
                if array.ndim == 0 or len(array) != len(self):
                    rows = len(array) if array.ndim else "no"
                    raise ModelError(f"{kind} {name!r} has {rows} rows, features has {len(self)}")
        self.times = None if times is None else _label("times", times, len(self))
        self.groups = None if groups is None else _label("groups", groups, len(self))
        both = set(self.targets) & set(self.known)
        if both:
            raise ModelError(f"parameters {sorted(both)} are given both as targets and as known")

        self._optimal: dict[Any, Solutions] = {}
        self.labels: Any = None
        """Optimal decisions that `decigrad.label` has found, shared with whatever is taken from the data."""

    def __len__(self) -> int:
        return len(self.features)

    def __repr__(self) -> str:
        parts = [f"{n}{list(a.shape[1:])}" for n, a in {**self.targets, **self.known}.items()]
        return (
            f"<Dataset of {len(self)} samples: features{list(self.features.shape[1:])}, {', '.join(parts)}>"
        )

    def __getstate__(self) -> dict[str, Any]:
        """All but remembered decisions: those of layers that are not asked for would travel along."""
        return {**self.__dict__, "_optimal": {}}

    @property
    def parameters(self) -> dict[str, np.ndarray]:
        """True and known parameters together."""
        return {**self.targets, **self.known}

    def take(self, index: Any) -> Dataset:
        """The samples at the given positions (or where a mask is true)."""
        index = np.asarray(index)
        taken = object.__new__(Dataset)
        taken.feature_names = self.feature_names
        taken.features, taken.weights = self.features[index], self.weights[index]
        taken.targets = {n: a[index] for n, a in self.targets.items()}
        taken.known = {n: a[index] for n, a in self.known.items()}
        taken.times = None if self.times is None else self.times[index]
        taken.groups = None if self.groups is None else self.groups[index]
        taken._optimal, taken.labels = {}, self.labels
        if len(taken) == 0:
            raise ModelError("the selection of samples is empty")
        return taken

    def optimal(self, layer: DecisionLayer, throw: bool = False) -> tuple[Solutions, int]:
        """The best decisions under the true parameters, by the layer's own solver, and how many were solved.

        They are remembered (for the last few layers, as long as the parameters are the same to the bit), so
        that labels are computed once however often the data train and judge; then 0 were solved, as they
        are where `decigrad.label` has solved them.

        Raises:
            SolveError: with `throw`, where a sample fails.
        """
        exact, digest = layer.exact, hashlib.sha256()
        for name, array in sorted(self.parameters.items()):
            digest.update(name.encode() + np.ascontiguousarray(array).tobytes())
        key = exact, digest.digest()
        solved = 0
        if key not in self._optimal:
            found = None if self.labels is None else self.labels.solutions(exact, self)
            if found is None:
                solved = len(self)
                found = exact.solve(self.parameters, throw=throw)
            self._optimal = dict([*self._optimal.items(), (key, found)][-REMEMBERED:])
        if throw and self._optimal[key].failed.size:
            exact.solve(self.parameters, throw=True)
        return self._optimal[key], solved

    def split(self, fraction: float, *, seed: int | None = 0) -> tuple[Dataset, Dataset]:
        """Two datasets with about `fraction` and 1 − `fraction` of the samples.

        Shuffled with `seed`; in the order of time (the first part first) with `seed=None`: that of `times`
        where they are known, samples of one time on one side, else that of the rows.
        """
        if not 0.0 < fraction < 1.0:
            raise ModelError(f"split: fraction must lie between 0 and 1, got {fraction}")
        n = len(self)
        if n < 2:
            raise ModelError("split needs at least two samples")
        if seed is None:
            return time_split(self, fraction)
        order = np.random.default_rng(seed).permutation(n)
        cut = min(max(round(fraction * n), 1), n - 1)
        return self.take(order[:cut]), self.take(order[cut:])

    def check(self, layer: DecisionLayer) -> None:
        """Refuse data that do not fit the layer's parameters, naming the parameter and the fix."""
        for name in layer.predicts:
            if name not in self.targets:
                raise ModelError(f"the layer predicts {name!r}, but the dataset has no target of that name")
        layer.model.check_names([*self.targets, *self.known])
        extra = [n for n in self.targets if n not in layer.predicts]
        if extra:
            raise ModelError(f"targets {extra} are not predicted by the layer; pass them as known=")
        for name, parameter in layer.parameters.items():
            if name not in self.parameters:
                if parameter.value is None:
                    raise ModelError(f"known parameter {name!r} is neither in the dataset nor has it a value")
                continue
            shape = self.parameters[name].shape[1:]
            if shape != parameter.shape:
                raise ModelError(f"parameter {name!r} has shape {parameter.shape}, got {shape} per sample")
            parameter.check(self.parameters[name])


def _array(name: str, value: Any) -> np.ndarray:
    raw = value.to_numpy() if hasattr(value, "to_numpy") else value
    try:
        array = np.asarray(raw, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise ModelError(f"{name} must be numbers: {error}") from None
    bad = ~np.isfinite(array)
    if bad.any():
        where = tuple(int(i) for i in np.argwhere(bad)[0])
        raise ModelError(
            f"{name}: row {where[0] if where else 0}, entry {list(where[1:])} is NaN or infinite "
            f"({int(bad.sum())} such entries); drop or fill them"
        )
    return array


def _label(name: str, value: Any, count: int) -> np.ndarray:
    """One value for each sample, of any kind that can be ordered."""
    array = np.asarray(value.to_numpy() if hasattr(value, "to_numpy") else value)
    if array.shape != (count,):
        raise ModelError(f"{name} must be [{count}], one for each sample, got shape {array.shape}")
    gone = array != array if array.dtype.kind in "fmM" else np.array([v is None for v in array])
    if gone.any():
        raise ModelError(f"{name}: row {int(np.argmax(gone))} has no value ({int(gone.sum())} such rows)")
    return array.astype(str) if array.dtype.kind == "O" else array


@dataclass(frozen=True)
class Scaling:
    """Mean and standard deviation of features [p] and of flattened targets [m]; constants are left alone."""

    mean: np.ndarray
    spread: np.ndarray
    shift: np.ndarray
    scale: np.ndarray

    @staticmethod
    def of(data: Dataset, names: Iterable[str]) -> Scaling:
        """Fitted on the data, with its weights."""
        features = data.features.reshape(len(data), -1)
        targets = np.concatenate([data.targets[n].reshape(len(data), -1) for n in names], axis=1)
        w = data.weights / data.weights.sum()

        def moments(a: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
            mean = w @ a
            deviation = np.sqrt(w @ (a - mean) ** 2)
            return mean, np.where(deviation > 1e-12 * (1.0 + np.abs(mean)), deviation, 1.0)

        return Scaling(*moments(features), *moments(targets))
