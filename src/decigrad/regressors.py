"""Any regressor with `fit` and `predict`, as scikit-learn has them: two-stage, on the host.

A forest or a boosted tree has no gradient that a decision could train, so such a regressor is a baseline: it
is fitted to the targets, and its predictions are decided with and judged like any other's. It can be where
training starts (`taught`), and a correction of it can be trained (`Residual`). Nothing of scikit-learn is
imported here.
"""

from __future__ import annotations

import copy
import inspect
import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import equinox as eqx
import numpy as np

from decigrad.errors import ModelError
from decigrad.predictors.linear import Linear
from decigrad.predictors.protocol import OnHost, Outputs, constant, initialized, named, outputs_of, predict
from decigrad.splits import folds_of

if TYPE_CHECKING:
    from decigrad.data import Dataset
    from decigrad.layer import DecisionLayer


@dataclass(frozen=True, eq=False)
class Regressor:
    """A recipe: a copy of the estimator is fitted to features [N, p] and targets [N, m].

        dg.fit(dg.Regressor(RandomForestRegressor()), layer, data, loss="two-stage")
        dg.compare(layer, train, test, methods={"forest": RandomForestRegressor()})

    Args:
        estimator: an object with `fit(X, Y)` and `predict(X)`; features and targets are flattened, several
            parameters concatenated. Its `random_state`, where it has one that is None, becomes the seed.
        separate: one copy for each of the m entries, for estimators that take one target only.
    """

    estimator: Any
    separate: bool = False

    def __post_init__(self) -> None:
        if not is_regressor(self.estimator):
            kind = type(self.estimator).__name__
            raise ModelError(f"Regressor needs an object with fit(X, Y) and predict(X), got {kind}")

    def fitted(self, data: Dataset, outputs: Outputs, seed: int = 0) -> FittedRegressor:
        """Fitted to the targets, with the samples' weights.

        Raises:
            ModelError: the samples have weights, and the estimator takes none.
        """
        targets = np.concatenate([data.targets[n].reshape(len(data), -1) for n, _ in outputs], axis=1)
        columns = targets.T if self.separate else [targets[:, 0] if targets.shape[1] == 1 else targets]
        weights = {}
        if np.ptp(data.weights) > 0:
            if "sample_weight" not in inspect.signature(self.estimator.fit).parameters:
                kind = type(self.estimator).__name__
                raise ModelError(f"{kind}.fit takes no sample_weight: drop the dataset's weights")
            weights["sample_weight"] = data.weights
        made = []
        for column in columns:
            estimator = _seeded(copy.deepcopy(self.estimator), seed)
            try:
                estimator.fit(data.features.reshape(len(data), -1), column, **weights)
            except ValueError as error:
                if column.ndim > 1:
                    error.add_note("if it takes one target only, pass Regressor(..., separate=True)")
                raise
            made.append(estimator)
        return FittedRegressor(tuple(made), outputs)


@dataclass(frozen=True, eq=False)
class FittedRegressor(OnHost):
    """A fitted `Regressor`: a predictor outside traces. It cannot be trained further."""

    estimators: tuple[Any, ...]
    outputs: Outputs

    def predictions(self, features: Any) -> dict[str, np.ndarray]:
        """Parameters by name, [B, *shape], for features [B, ...]."""
        flat = np.asarray(features, np.float64).reshape(len(features), -1)
        found = np.column_stack([np.asarray(e.predict(flat), np.float64) for e in self.estimators])
        cuts = np.cumsum([int(np.prod(shape, dtype=int)) for _, shape in self.outputs])[:-1]
        parts = np.split(found, cuts, axis=1)
        return {
            n: part.reshape(len(flat), *shape) for (n, shape), part in zip(self.outputs, parts, strict=True)
        }

    @property
    def kind(self) -> str:
        return type(self.estimators[0]).__name__


def is_regressor(value: Any) -> bool:
    """Whether it looks like an estimator: an object, not a class, with `fit` and `predict`."""
    return not isinstance(value, type) and all(callable(getattr(value, a, None)) for a in ("fit", "predict"))


def taught(regressor: Any, data: Dataset, part: np.ndarray, outputs: Outputs, seed: int) -> Dataset:
    """The data with a regressor's predictions as targets; it is fitted to the samples in `part` alone."""
    recipe = regressor if isinstance(regressor, Regressor) else Regressor(regressor)
    fitted = recipe.fitted(data.take(part), outputs, seed)
    twin = copy.copy(data)
    twin.targets = {**data.targets, **fitted.predictions(data.features)}
    twin._optimal = {}
    return twin


@dataclass(frozen=True, eq=False)
class Residual:
    """A trained correction on top of a scikit-learn regressor.

        ĉ(φ) = g(φ) + r(φ; θ) − r(φ; θ₀)

    g is the regressor, fitted to the targets by `fit`; r the correction, which starts at zero, so that
    two-stage is the regressor alone and a proximal weight pulls towards it. Only θ is trained.

        dg.fit(dg.Residual(GradientBoostingRegressor(), separate=True), layer, data, loss="spo+")

    A flexible regressor reproduces the targets that it was fitted to, and would leave nothing to correct
    there. So the correction is trained on predictions for samples that the regressor did not see, one part of
    the data after the other (cross-fitting); the regressor that predicts in the end is fitted to all of them.
    As in stacking, what `CrossValidation` trains on may come from regressors that saw samples it holds out;
    the prediction for a sample itself never does.

    Args:
        estimator: as in `Regressor`.
        correction: `Linear()`, `MLP()`, or another predictor.
        folds: parts of the cross-fitting.
        ordered: as in `CrossValidation`, groups of the data included.
        separate: as in `Regressor`.
    """

    estimator: Any
    correction: Any = field(default_factory=Linear)
    folds: int = 5
    ordered: bool | None = None
    separate: bool = False

    def __post_init__(self) -> None:
        Regressor(self.estimator)
        if self.folds < 2:
            raise ModelError(f"Residual: folds must be at least 2, got {self.folds}")

    def stacked(self, data: Dataset, layer: DecisionLayer, seed: int = 0) -> Stacked:
        """The regressor fitted to all data, the correction's start, and the data that train it."""
        if len(data) < self.folds:
            raise ModelError(f"Residual: {len(data)} samples are too few for {self.folds} parts")
        outputs, recipe = outputs_of(layer), Regressor(self.estimator, self.separate)
        base = {name: np.empty_like(data.targets[name]) for name, _ in outputs}
        for part in folds_of(data, self.folds, self.ordered, np.random.default_rng(seed)):
            others = np.setdiff1d(np.arange(len(data)), part)
            unseen = recipe.fitted(data.take(others), outputs, seed).predictions(data.features[part])
            for name, value in unseen.items():
                base[name][part] = value
        left = copy.copy(data)
        left.targets = {**data.targets, **{name: data.targets[name] - base[name] for name in base}}
        left._optimal = {}
        correction = initialized(self.correction, layer, left, seed)
        start = Corrected(correction, constant(correction), data.features.shape[1:], outputs)
        return Stacked(recipe.fitted(data, outputs, seed), start, _extended(data, base))


@dataclass(frozen=True, eq=False)
class Stacked:
    """What `fit` trains in place of a `Residual`: `start` on `data`, whose features hold the regressor's
    predictions."""

    regressor: FittedRegressor
    start: Corrected
    data: Dataset

    def extended(self, data: Dataset) -> Dataset:
        """Other data with the regressor's predictions among the features."""
        return _extended(data, self.regressor.predictions(data.features))

    def finished(self, corrected: Corrected) -> CorrectedRegressor:
        """The predictor of plain features."""
        return CorrectedRegressor(self.regressor, corrected)


class Corrected(eqx.Module):
    """g + r(φ; θ) − r(φ; θ₀), of features and predictions in a row."""

    trained: Any
    origin: Any
    shape: tuple[int, ...] = eqx.field(static=True)
    outputs: Outputs = eqx.field(static=True)

    def __call__(self, extended: Any) -> dict[str, Any]:
        count = math.prod(self.shape)
        features, found, start = extended[:count].reshape(self.shape), {}, count
        now, before = (named(part(features), self.outputs) for part in (self.trained, self.origin))
        for name, shape in self.outputs:
            base = extended[start : start + math.prod(shape)].reshape(shape)
            found[name], start = base + (now[name] - before[name]), start + math.prod(shape)
        return found


@dataclass(frozen=True, eq=False)
class CorrectedRegressor(OnHost):
    """A fitted `Residual`."""

    regressor: FittedRegressor
    corrected: Corrected

    def predictions(self, features: Any) -> dict[str, np.ndarray]:
        """Parameters by name, [B, *shape], for features [B, ...]."""
        extended = _columns(features, self.regressor.predictions(features))
        return predict(self.corrected, extended, self.corrected.outputs)

    @property
    def kind(self) -> str:
        return f"a corrected {self.regressor.kind}"


def _columns(features: Any, base: dict[str, np.ndarray]) -> np.ndarray:
    parts = [np.asarray(features, np.float64), *base.values()]
    return np.concatenate([part.reshape(len(part), -1) for part in parts], axis=1)


def _extended(data: Dataset, base: dict[str, np.ndarray]) -> Dataset:
    """The data with predictions after the flattened features."""
    twin = copy.copy(data)
    twin.features, twin.feature_names = _columns(data.features, base), None
    return twin


def _seeded(estimator: Any, seed: int) -> Any:
    if hasattr(estimator, "get_params"):
        unset = [n for n, v in estimator.get_params().items() if n.endswith("random_state") and v is None]
        estimator.set_params(**dict.fromkeys(unset, seed))
    return estimator
