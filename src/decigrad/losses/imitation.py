"""Imitation of the optimal decision, for gradients that let a discrete decision be differentiated."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from decigrad.losses.decision import Regret
from decigrad.losses.protocol import Batch, Parameters

if TYPE_CHECKING:
    from decigrad.layer import DecisionLayer


@dataclass(frozen=True)
class Imitation:
    """The squared distance to the optimal decision.

        ℓ(ĉ) = ‖x*(ĉ) − x*‖²             (over all variables)

    Of the truth it needs x* alone. Its gradient goes through the layer's derivative: exact for a quadratic
    program, zero almost everywhere for a linear one, so there with `Perturbed()`, `Identity()`,
    `Smoothed(mu)` or another of `decigrad.gradients`. For 0/1 decisions it is the Hamming distance.

    Args:
        cost: of the regret by which predictors are selected, as in `Regret`; needed where predictions enter
            constraints.

    Source: the Hamming loss of Vlastelica et al. (2020), Differentiation of Blackbox Combinatorial Solvers,
    ICLR.
    """

    cost: Any = None
    decides = True
    through = True

    @property
    def metric(self) -> Regret:
        """Regret, on the same cost."""
        return Regret(self.cost)

    def check(self, layer: DecisionLayer) -> None:
        """As `Regret`."""
        self.metric.check(layer)

    def queries(self, layer: DecisionLayer, predicted: Parameters, batch: Batch) -> dict[str, Any]:
        """The decision at ĉ."""
        return {"decision": {**batch.known, **predicted}}

    def value(
        self, layer: DecisionLayer, predicted: Parameters, answers: dict[str, Any], batch: Batch
    ) -> Any:
        """ℓ by sample."""
        lead = batch.weight.ndim
        total: Any = 0.0
        for name, x in answers["decision"].items():
            error = (x - batch.optimal[name]) ** 2
            total = total + error.sum(axis=tuple(range(lead, error.ndim)))
        return total
