"""Any regressor with `fit` and `predict`, as scikit-learn has them: two-stage, on the host.

A forest or a boosted tree has no gradient that a decision could train, so such a regressor is a baseline: it
is fitted to the targets, and its predictions are decided with and judged like any other's. Nothing of
scikit-learn is imported here.
"""

from __future__ import annotations

import copy
import inspect
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from decigrad.errors import ModelError
from decigrad.predictors.protocol import OnHost, Outputs

if TYPE_CHECKING:
    from decigrad.data import Dataset


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


def _seeded(estimator: Any, seed: int) -> Any:
    if hasattr(estimator, "get_params"):
        unset = [n for n, v in estimator.get_params().items() if n.endswith("random_state") and v is None]
        estimator.set_params(**dict.fromkeys(unset, seed))
    return estimator
