"""Losses of randomly perturbed predictions: perturbed Fenchel–Young and the score function.

Noise is in units of the training targets: its standard deviation is `sigma` times the mean standard deviation
of the entries of each parameter, so that a default fits costs in cents and in millions.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import jax
import jax.numpy as jnp

from decigrad.errors import ModelError
from decigrad.losses.decision import Regret
from decigrad.losses.protocol import Batch, Parameters
from decigrad.losses.surrogate import Surrogate, cost_of

if TYPE_CHECKING:
    from decigrad.layer import DecisionLayer


def noise(batch: Batch, predicted: Parameters, samples: int, antithetic: bool) -> dict[str, Any]:
    """Standard normal noise [samples, *batch, *shape] by predicted parameter; the same for equal keys."""
    found = {}
    for i, (name, value) in enumerate(sorted(predicted.items())):
        key = jax.random.fold_in(batch.key, i)
        half = -(-samples // 2) if antithetic else samples
        z = jax.random.normal(key, (half, *value.shape), value.dtype)
        found[name] = jnp.concatenate([z, -z])[:samples] if antithetic else z
    return found


def unit_of(batch: Batch, name: str) -> Any:
    """The mean standard deviation of a target's entries."""
    return jnp.mean(batch.spread[name])


def _checked(name: str, sigma: float, samples: int) -> None:
    if not sigma > 0 or samples < 1:
        raise ModelError(f"{name} needs sigma > 0 and samples >= 1, got {sigma} and {samples}")


@dataclass(frozen=True)
class PerturbedFenchelYoung(Surrogate):
    """The Fenchel–Young loss of the perturbed minimizer (PFYL).

        ℓ(ĉ, x*) = f(x*; ĉ) − E_z[ min_x f(x; ĉ + σz) ]          (up to a constant)
        gradient in ĉ:  g(x*) − E_z[ g(x*(ĉ + σz)) ]

    with x* the optimal decision, the only thing of the truth that it needs. With `kind="multiplicative"` the
    perturbed cost is ĉ·exp(σz − σ²/2), which keeps its sign. `samples` solves a step.

    Args:
        sigma: standard deviation of the noise, relative to the spread of the targets (additive).
        samples: draws of z for each sample and step.
        kind: of the perturbation.
        antithetic: draw z in pairs of opposite sign, which reduces the variance.

    Source: Berthet et al. (2020), Learning with Differentiable Perturbed Optimizers, NeurIPS; multiplicative:
    Dalle et al. (2022), Learning with Combinatorial Optimization Layers, arXiv:2207.13513.
    """

    sigma: float = 1.0
    samples: int = 1
    kind: Literal["additive", "multiplicative"] = "additive"
    antithetic: bool = False

    def __post_init__(self) -> None:
        _checked("PerturbedFenchelYoung", self.sigma, self.samples)
        if self.kind not in ("additive", "multiplicative"):
            raise ModelError(
                f"PerturbedFenchelYoung: kind must be additive or multiplicative, got {self.kind!r}"
            )

    @property
    def solves(self) -> int:  # type: ignore[override]
        """Solver calls for a sample and step."""
        return self.samples

    def _perturbed(self, predicted: Parameters, batch: Batch) -> dict[str, Any]:
        z = noise(batch, predicted, self.samples, self.antithetic)
        if self.kind == "multiplicative":
            factor = {name: jnp.exp(self.sigma * z[name] - 0.5 * self.sigma**2) for name in predicted}
            return {**batch.known, **{name: predicted[name] * factor[name] for name in predicted}}
        moved = {name: predicted[name] + self.sigma * unit_of(batch, name) * z[name] for name in predicted}
        return {**batch.known, **moved}

    def queries(self, layer: DecisionLayer, predicted: Parameters, batch: Batch) -> dict[str, Any]:
        """The decisions at the perturbed costs, [samples, *batch]."""
        return {"perturbed": self._perturbed(predicted, batch)}

    def value(
        self, layer: DecisionLayer, predicted: Parameters, answers: dict[str, Any], batch: Batch
    ) -> Any:
        """ℓ by sample."""
        labels = cost_of(layer, batch.optimal, {**batch.known, **predicted})
        inner = cost_of(layer, answers["perturbed"], self._perturbed(predicted, batch))
        return labels - inner.mean(0)


@dataclass(frozen=True)
class ScoreFunction(Surrogate):
    """Expected regret under a random prediction, by the score function (SFGE).

        ℓ(ĉ) = E_z[ regret(ĉ + σz) ],     gradient  E_z[ (regret(ĉ + σz) − b) z / σ ]

    with b the mean regret of the sample's other draws. It uses nothing of the model but the value of its
    decisions, so predicted parameters may enter anywhere, and `cost` may be any cost of the decision.
    `samples` solves a step; high variance.

    Args:
        sigma: standard deviation of the noise, relative to the spread of the targets.
        samples: draws for each sample and step, at least 2.
        cost: as in `Regret`.

    Source: Silvestri et al. (2024), Score Function Gradient Estimation to Widen the Applicability of
    Decision-Focused Learning, arXiv:2307.05213; Williams (1992), REINFORCE.
    """

    sigma: float = 0.5
    samples: int = 4
    cost: Any = None

    def __post_init__(self) -> None:
        _checked("ScoreFunction", self.sigma, self.samples)
        if self.samples < 2:
            raise ModelError("ScoreFunction needs samples >= 2: each draw is compared with the others")

    @property
    def solves(self) -> int:  # type: ignore[override]
        """Solver calls for a sample and step."""
        return self.samples

    @property
    def metric(self) -> Regret:
        """Regret, on the same cost."""
        return Regret(self.cost)

    def check(self, layer: DecisionLayer) -> None:
        """As `Regret`: where predictions enter constraints, a cost is needed."""
        self.metric.check(layer)

    def queries(self, layer: DecisionLayer, predicted: Parameters, batch: Batch) -> dict[str, Any]:
        """The decisions at the perturbed parameters, [samples, *batch]."""
        z = noise(batch, predicted, self.samples, False)
        moved = {name: predicted[name] + self.sigma * unit_of(batch, name) * z[name] for name in predicted}
        return {"perturbed": {**batch.known, **moved}}

    def value(
        self, layer: DecisionLayer, predicted: Parameters, answers: dict[str, Any], batch: Batch
    ) -> Any:
        """Mean regret of the draws by sample, with the score function's gradient."""
        regret = self.metric
        cost = regret.score(layer, answers["perturbed"], batch.truth)
        cost = jax.lax.stop_gradient(cost - regret.score(layer, batch.optimal, batch.truth))
        centred = (cost - cost.mean(0)) * (self.samples / (self.samples - 1.0))
        z = noise(batch, predicted, self.samples, False)
        total: Any = 0.0
        for name, value in predicted.items():
            score = (centred.reshape(centred.shape + (1,) * (value.ndim - cost.ndim + 1)) * z[name]).mean(0)
            weight = score / (self.sigma * unit_of(batch, name))
            total = total + (weight * (value - jax.lax.stop_gradient(value))).sum(
                axis=tuple(range(cost.ndim - 1, value.ndim))
            )
        return cost.mean(0) + total
