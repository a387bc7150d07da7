"""The Fenchel–Young loss of a regularized decision: convex, smooth, and needs decisions alone."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp

from decigrad.errors import ModelError
from decigrad.losses.protocol import Batch, Parameters
from decigrad.losses.surrogate import Surrogate, cost_of

if TYPE_CHECKING:
    from decigrad.layer import DecisionLayer


@dataclass(frozen=True)
class FenchelYoung(Surrogate):
    """The suboptimality of the optimal decision in the layer's regularized program.

        ℓ(ĉ, x*) = f_Ω(x*; ĉ) − min_x f_Ω(x; ĉ),       f_Ω(x; ĉ) = f(x; ĉ) + Ω(x)
        gradient in ĉ:  g(x*) − g(x̂),                  x̂ the layer's decision at ĉ

    with f(x; c) = cᵀg(x) + h(x) the objective and Ω what the layer's gradient adds to it: `Smoothed(mu)`,
    `Smoothed(mu, kind="entropy")` or `FrankWolfe(mu)`. Convex in ĉ, never negative, zero exactly at x̂ = x*;
    no derivative of the solver is needed. x* is the optimal decision, the only thing of the truth that it
    needs. One solve a step. On the simplex, entropy gives the cross-entropy of a softmax, the quadratic Ω the
    sparsemax loss.

    Source: Blondel, Martins and Niculae (2020), Learning with Fenchel-Young Losses, JMLR 21.
    """

    def check(self, layer: DecisionLayer) -> None:
        """Refuse layers without a regularizer, and predictions that do not enter the objective affinely."""
        super().check(layer)
        if not hasattr(layer.gradient, "regularizer"):
            raise ModelError(
                f"FenchelYoung needs a layer that regularizes its decision, such as "
                f"layer.with_gradient(Smoothed(1.0, relative=True)); this one has gradient={layer.gradient}"
            )
        layer.gradient.regularizer(layer.form.assemble(_ones(layer)), jnp.ones(layer.form.n))
        if layer.form.n > layer.form.num_user:
            raise ModelError(
                "FenchelYoung: the model has piecewise-linear terms (abs, maximum), and the layer smooths "
                "their auxiliary variables too, so the loss would not be exact; state them as constraints"
            )

    def queries(self, layer: DecisionLayer, predicted: Parameters, batch: Batch) -> dict[str, Any]:
        """The regularized decision at ĉ."""
        return {"decision": {**batch.known, **predicted}}

    def value(
        self, layer: DecisionLayer, predicted: Parameters, answers: dict[str, Any], batch: Batch
    ) -> Any:
        """ℓ by sample."""
        parameters = {**batch.known, **predicted}
        constants = jax.lax.stop_gradient(parameters)
        total = [
            cost_of(layer, x, parameters) + _regularizer(layer, x, constants)
            for x in (batch.optimal, answers["decision"])
        ]
        return total[0] - total[1]


def _regularizer(layer: DecisionLayer, decisions: dict[str, Any], parameters: Parameters) -> Any:
    """Ω by sample, [*batch]."""
    parts = []
    for name in layer.form.offsets:
        x, rank = jnp.asarray(decisions[name]), layer.form.variables[name].ndim
        lead = x.shape[: x.ndim - rank]
        parts.append(x.reshape(-1, layer.form.variables[name].size))
    flat = jnp.concatenate(parts, axis=1)
    return layer.over_batch(parameters, layer.gradient.regularizer, flat).reshape(lead)


def _ones(layer: DecisionLayer) -> dict[str, Any]:
    return {name: jnp.ones(p.shape) for name, p in layer.parameters.items()}
