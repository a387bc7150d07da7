"""Surrogates of regret for objectives that are affine in the prediction: SPO+, directional gradients.

Throughout, f(x; c) = cᵀg(x) + h(x) is the model's objective (sign turned under `maximize`), c the true and ĉ
the predicted parameters, x*(c) a minimizer of f(·; c) and V(c) = f(x*(c); c). Decisions count as constants in
the gradient; where a minimizer is not unique, it is the subgradient of the one that the solver returns.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Any, Literal

import jax.numpy as jnp

from decigrad.errors import ModelError
from decigrad.expressions.degrees import is_affine
from decigrad.losses.decision import Regret
from decigrad.losses.protocol import Batch, Parameters

if TYPE_CHECKING:
    from decigrad.layer import DecisionLayer


class Surrogate:
    """What losses share that see the objective as affine in the prediction, and decisions as constants."""

    decides = True
    through = False
    pools = False
    solves = 1

    @property
    def metric(self) -> Regret:
        """Regret: what the loss stands in for."""
        return Regret()

    def check(self, layer: DecisionLayer) -> None:
        """Refuse predicted parameters in constraints or curvature, or that enter the cost nonlinearly."""
        refuse_nonlinear(layer, type(self).__name__)


def refuse_nonlinear(layer: DecisionLayer, name: str) -> None:
    """Raise unless the objective is affine in the predicted parameters, and nothing else depends on them."""
    predicted = set(layer.predicts)
    if found := layer.form.depends("P", "A", "b", "G", "h", "lb", "ub") & predicted:
        raise ModelError(
            f"{name} sees the prediction as a cost: {sorted(found)} enter constraints or curvature; predict "
            f"something else, mark them known, or use Regret()"
        )
    pieces = [*layer.form.blocks["q"].pieces, *layer.form.blocks["r"].pieces]
    if not is_affine([value for _, value in pieces], predicted):
        raise ModelError(
            f"{name} needs an objective that is affine in {sorted(predicted)}: predict the cost itself and "
            f"state the nonlinear function of it in the predictor, or use Regret()"
        )


def shifted(batch: Batch, predicted: Parameters, *weights: float) -> dict[str, Any]:
    """Parameters whose predicted part is weights[0]·ĉ + weights[1]·c."""
    a, b = weights
    moved = {name: a * predicted[name] + b * batch.targets[name] for name in predicted}
    return {**batch.known, **moved}


def cost_of(layer: DecisionLayer, decisions: dict[str, Any], parameters: dict[str, Any]) -> Any:
    """f, to be minimized, by sample."""
    return layer.sign * layer.objective(decisions, parameters)


def best(layer: DecisionLayer, batch: Batch) -> Any:
    """V(c) by sample."""
    return layer.sign * batch.optimal_value


@dataclass(frozen=True)
class SPOPlus(Surrogate):
    """The convex upper bound of regret of Elmachtoub and Grigas.

        ℓ(ĉ, c) = max_x { f(x; c) − 2 f(x; ĉ) } + 2 f(x*(c); ĉ) − V(c)
        subgradient in ĉ:  2 (g(x*(c)) − g(x*(2ĉ − c)))

    Zero at ĉ = c, never below regret. One solve a step, at 2ĉ − c. Needs the true costs.

    Source: Elmachtoub and Grigas (2022), Smart "Predict, then Optimize", doi:10.1287/mnsc.2020.3922.
    """

    def queries(self, layer: DecisionLayer, predicted: Parameters, batch: Batch) -> dict[str, Any]:
        """The decision at 2ĉ − c."""
        return {"plus": shifted(batch, predicted, 2.0, -1.0)}

    def value(
        self, layer: DecisionLayer, predicted: Parameters, answers: dict[str, Any], batch: Batch
    ) -> Any:
        """ℓ by sample."""
        inner = cost_of(layer, answers["plus"], shifted(batch, predicted, 2.0, -1.0))
        labels = cost_of(layer, batch.optimal, {**batch.known, **predicted})
        return 2.0 * labels - inner - best(layer, batch)


@dataclass(frozen=True)
class PerturbationGradient(Surrogate):
    """The directional derivative of V at ĉ along the true cost, by a finite difference (PG).

        backward:  ( V(ĉ) − V(ĉ ⊖ hc) ) / h − V(c)        forward: ( V(ĉ ⊕ hc) − V(ĉ) ) / h − V(c)
        central:   ( V(ĉ ⊕ hc) − V(ĉ ⊖ hc) ) / 2h − V(c)
        gradient, backward:  ( g(x*(ĉ)) − g(x*(ĉ ⊖ hc)) ) / h

    where V(ĉ ⊕ hc) = min_x f(x; ĉ) + h f(x; c). As h → 0 the value tends to regret, and backward it is an
    upper bound of it. Two solves a step. Needs the true costs.

    Args:
        h: length of the step in units of the true cost.
        kind: of the difference.

    Source: Gupta and Huang (2024), Decision-Focused Learning with Directional Gradients, NeurIPS.
    """

    h: float = 0.1
    kind: Literal["backward", "central", "forward"] = "backward"
    solves = 2

    def __post_init__(self) -> None:
        if not 0 < self.h < 1:
            raise ModelError(f"PerturbationGradient: h must lie between 0 and 1, got {self.h}")
        if self.kind not in ("backward", "central", "forward"):
            raise ModelError(
                f"PerturbationGradient: kind must be backward, central or forward, got {self.kind!r}"
            )

    def _steps(self) -> tuple[float, float]:
        return {"backward": (0.0, -self.h), "central": (self.h, -self.h), "forward": (self.h, 0.0)}[self.kind]

    def queries(self, layer: DecisionLayer, predicted: Parameters, batch: Batch) -> dict[str, Any]:
        """The decisions at the two ends of the step."""
        # f(·; ĉ) + t f(·; c) = (1 + t) f(·; (ĉ + tc)/(1 + t)): the h(x) in f is weighed along.
        right, left = self._steps()
        return {
            "right": shifted(batch, predicted, 1.0 / (1.0 + right), right / (1.0 + right)),
            "left": shifted(batch, predicted, 1.0 / (1.0 + left), left / (1.0 + left)),
        }

    def value(
        self, layer: DecisionLayer, predicted: Parameters, answers: dict[str, Any], batch: Batch
    ) -> Any:
        """The difference quotient minus V(c), by sample."""
        right, left = self._steps()
        ends = []
        for label, t in (("right", right), ("left", left)):
            at = shifted(batch, predicted, 1.0 / (1.0 + t), t / (1.0 + t))
            ends.append((1.0 + t) * cost_of(layer, answers[label], at))
        return (ends[0] - ends[1]) / (right - left) - best(layer, batch)


@dataclass(frozen=True)
class CILO(Surrogate):
    """The prediction should not have to give up objective to keep the true cost within a budget.

        ℓ(ĉ, c) = max_{h ∈ {0, h₁, …}} { min_x [ f(x; ĉ) + h f(x; c) ] − h β } − V(ĉ)
        gradient in ĉ:  g(x*(ĉ ⊕ hc)) − g(x*(ĉ)),   β = V(c) + budget · |V(c)|

    By duality ℓ is the gap under ĉ between the best decision (a mixture of decisions, where none attains the
    budget) with true cost at most β and the best of all; never negative, zero where x*(ĉ) keeps the budget.
    It is the shift of `PerturbationGradient` with its length h set by the budget, for each sample, on the
    grid `lengths`: the answer for a grid is a lower bound. One solve for each length, and one at ĉ.

    Args:
        budget: excess of the true cost that is allowed, as a share of the optimal value.
        lengths: h, in units of the true cost, increasing.

    Source: the loss known as CILO in implementations by the authors of Gupta and Huang (2024),
    arXiv:2402.03256, where h is found by bisection on the batch's mean cost; here by sample.
    """

    budget: float = 0.05
    lengths: tuple[float, ...] = (0.1, 0.3, 1.0, 3.0)

    def __post_init__(self) -> None:
        lengths = self.lengths
        if not lengths or any(not a < b for a, b in pairwise((0.0, *lengths))):
            raise ModelError(f"CILO: lengths must be positive and increasing, got {lengths}")
        if not self.budget >= 0:
            raise ModelError(f"CILO: budget must be ≥ 0, got {self.budget}")

    @property
    def solves(self) -> int:  # type: ignore[override]
        """Solver calls for a sample and step."""
        return 1 + len(self.lengths)

    def _shifts(self, batch: Batch, predicted: Parameters) -> dict[str, Any]:
        steps = jnp.asarray((0.0, *self.lengths))

        def moved(name: str) -> Any:
            h = steps.reshape((-1,) + (1,) * predicted[name].ndim)
            return (predicted[name] + h * batch.targets[name]) / (1.0 + h)

        return {**batch.known, **{name: moved(name) for name in predicted}}

    def queries(self, layer: DecisionLayer, predicted: Parameters, batch: Batch) -> dict[str, Any]:
        """The decisions at ĉ and at each shift, [1 + lengths, *batch]."""
        return {"shifted": self._shifts(batch, predicted)}

    def value(
        self, layer: DecisionLayer, predicted: Parameters, answers: dict[str, Any], batch: Batch
    ) -> Any:
        """ℓ by sample."""
        inner = cost_of(layer, answers["shifted"], self._shifts(batch, predicted))
        optimum = best(layer, batch)
        h = jnp.asarray((0.0, *self.lengths)).reshape((-1,) + (1,) * (inner.ndim - 1))
        bound = (1.0 + h) * inner - h * (optimum + self.budget * abs(optimum))
        return bound.max(0) - bound[0]
