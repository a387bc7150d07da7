"""The linear predictor, and its least squares in closed form."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import equinox as eqx
import jax.numpy as jnp
import numpy as np

from decigrad.compiled import float64
from decigrad.data import Dataset
from decigrad.errors import ModelError
from decigrad.predictors.protocol import UNSCALED, Outputs, Recipe, Scaled, pooled, scaling, size_of


class LinearPredictor(Scaled):
    """ĉ = W φ + b, for flattened features φ [p] and flattened, concatenated parameters ĉ [m]."""

    weight: Any
    bias: Any

    def raw(self, inputs: Any) -> Any:
        """W φ + b in standardized units."""
        flat = self.weight @ inputs
        return flat if self.bias is None else flat + self.bias

    def fitted_on(self, data: Dataset) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Features [N, p], targets [N, m] and weights [N] of the regression, over samples or their items."""
        if self.shared:
            data = pooled(data, self.outputs, "Linear")
        columns = [data.targets[name].reshape(len(data), -1) for name, _ in self.outputs]
        return data.features.reshape(len(data), -1), np.concatenate(columns, axis=1), data.weights

    @property
    def coefficients(self) -> tuple[np.ndarray, np.ndarray]:
        """W [m, p] and b [m] in the units of the data."""
        weight = np.asarray(self.weight, np.float64)
        bias = np.zeros(len(weight)) if self.bias is None else np.asarray(self.bias, np.float64)
        if self.scale is None or self.mean is None:
            return weight, bias
        raw = self.scale[:, None] * weight / self.spread
        return raw, self.shift + self.scale * bias - raw @ self.mean

    def with_coefficients(self, weight: np.ndarray, bias: np.ndarray | None = None) -> LinearPredictor:
        """The same predictor with W and b (in the units of the data) in place of its own."""
        offset = np.zeros(len(weight)) if bias is None else np.asarray(bias)
        if self.scale is not None and self.mean is not None:
            offset = (offset + weight @ self.mean - self.shift) / self.scale
            weight = weight * self.spread / self.scale[:, None]
        with float64():
            new = (jnp.asarray(weight), None if self.bias is None else jnp.asarray(offset))
        return eqx.tree_at(lambda m: (m.weight, m.bias), self, new, is_leaf=lambda leaf: leaf is None)


@dataclass(frozen=True)
class Linear(Recipe):
    """A linear predictor ĉ = W φ + b.

    Args:
        bias: with an intercept b.
        standardize: train in standardized features and targets (the same functions, better conditioned);
            default: as `bias`, since scaling shifts the origin.
        shared: one W [1, p] for all entries of the predicted parameter [items], each with features of its
            own: ĉᵢ = W φᵢ + b, for features φ [items, p]; with k parameters of that shape W is [k, p].
    """

    bias: bool = True
    standardize: bool | None = None
    shared: bool = False

    def init(self, data: Dataset, outputs: Outputs, seed: int = 0) -> LinearPredictor:
        """A predictor that starts at zero (in standardized units: at the mean of the targets)."""
        standardize = self.bias if self.standardize is None else self.standardize
        if standardize and not self.bias:
            raise ModelError("Linear: standardize=True needs bias=True, because centring moves the origin")
        if self.shared:
            data = pooled(data, outputs, "Linear")
        inputs, size = int(np.prod(data.features.shape[1:])), size_of(outputs, self.shared)
        with float64():
            return LinearPredictor(
                *(scaling(data, outputs) if standardize else UNSCALED),
                outputs=outputs,
                weight=jnp.zeros((size, inputs)),
                bias=jnp.zeros(size) if self.bias else None,
                shared=self.shared,
            )


def least_squares(predictor: LinearPredictor, data: Dataset, ridge: float = 0.0) -> LinearPredictor:
    """The linear predictor that minimizes Σ wᵢ‖W φᵢ + b − cᵢ‖² + ridge·‖W‖²_F, in closed form.

    The bias is not penalized; with several solutions, the one of minimum norm.
    """
    features, targets, w = predictor.fitted_on(data)
    w = np.sqrt(w)[:, None]
    columns = features if predictor.bias is None else np.column_stack([features, np.ones(len(features))])
    if ridge > 0:
        penalty = np.sqrt(ridge) * np.eye(features.shape[1], columns.shape[1])
        left, right = (
            np.vstack([w * columns, penalty]),
            np.vstack([w * targets, np.zeros((len(penalty), targets.shape[1]))]),
        )
    else:
        left, right = w * columns, w * targets
    solution = np.linalg.lstsq(left, right, rcond=None)[0].T
    if predictor.bias is None:
        return predictor.with_coefficients(solution)
    return predictor.with_coefficients(solution[:, :-1], solution[:, -1])
