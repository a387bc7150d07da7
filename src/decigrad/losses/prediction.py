"""Losses of the prediction alone: the two-stage baselines."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import jax.numpy as jnp

from decigrad.errors import ModelError
from decigrad.losses.protocol import Batch, Parameters

if TYPE_CHECKING:
    from decigrad.layer import DecisionLayer


@dataclass(frozen=True)
class MSE:
    """Mean squared error over the entries of all predicted parameters, trained by gradient.

    mse = (1/m) Σⱼ (ĉⱼ − cⱼ)²
    """

    decides = False
    through = False

    @property
    def metric(self) -> MSE:
        """Itself."""
        return self

    def check(self, layer: DecisionLayer) -> None:
        return None

    def queries(self, layer: DecisionLayer, predicted: Parameters, batch: Batch) -> dict[str, dict[str, Any]]:
        return {}

    def value(
        self, layer: DecisionLayer, predicted: Parameters, answers: dict[str, dict[str, Any]], batch: Batch
    ) -> Any:
        total: Any = 0.0
        count = 0
        for name in layer.predicts:
            shape = layer.parameters[name].shape
            error = self.penalty(predicted[name] - batch.targets[name])
            total = total + error.sum(axis=tuple(range(error.ndim - len(shape), error.ndim)))
            count += layer.parameters[name].size
        return total / count

    def penalty(self, error: Any) -> Any:
        """What an error ĉⱼ − cⱼ costs."""
        return error**2


@dataclass(frozen=True)
class LeastSquares(MSE):
    """Least squares in closed form, for `Linear`; with `ridge` > 0, ridge regression (bias unpenalized).

    minimize over W, b:   Σᵢ ‖W φᵢ + b − cᵢ‖² + ridge · ‖W‖²
    """

    ridge: float = 0.0

    def __post_init__(self) -> None:
        if not self.ridge >= 0:
            raise ModelError(f"LeastSquares: ridge must be ≥ 0, got {self.ridge}")


@dataclass(frozen=True)
class Quantile(MSE):
    """The pinball loss: its minimizer is the conditional quantile of each entry, trained by gradient.

        ℓ = (1/m) Σⱼ max( q (cⱼ − ĉⱼ), (1 − q)(ĉⱼ − cⱼ) )

    Args:
        q: the level, 0 < q < 1; ½ gives the median.

    Source: Koenker and Bassett (1978), Regression Quantiles, doi:10.2307/1913643.
    """

    q: float = 0.5

    def __post_init__(self) -> None:
        if not 0 < self.q < 1:
            raise ModelError(f"Quantile: q must lie between 0 and 1, got {self.q}")

    def penalty(self, error: Any) -> Any:
        """The pinball."""
        return jnp.maximum(-self.q * error, (1.0 - self.q) * error)
