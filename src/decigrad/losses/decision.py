"""Losses of the decision: regret, on the model's own objective or on a task's cost."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp

from decigrad.errors import ModelError
from decigrad.expressions.expression import Expression
from decigrad.losses.protocol import Batch, Parameters

if TYPE_CHECKING:
    from decigrad.layer import DecisionLayer


@dataclass(frozen=True, eq=False)
class Regret:
    """What the decision costs under the true parameters above the best decision.

        regret = f(x*(ĉ), c) − f(x*(c), c)

    with the model's full objective f (sign turned under `maximize`), so it is never negative for an exact
    solver. Its gradient in ĉ is (dx*/dĉ)ᵀ ∇ₓf(x*(ĉ), c), through the layer's derivative.

    Args:
        cost: another cost of the decision, to be minimized: an expression in the model's variables and
            parameters, or a function `cost(decisions, parameters)` of one sample in JAX. Then
            regret = cost(x*(ĉ), c) − cost(x*(c), c), which can be negative.

    Source: Elmachtoub and Grigas (2022), Smart "Predict, then Optimize", doi:10.1287/mnsc.2020.3922.
    """

    cost: Expression | Callable[[dict[str, Any], dict[str, Any]], Any] | None = None
    decides = True
    through = True

    @property
    def metric(self) -> Regret:
        """Itself."""
        return self

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Regret) and self.cost is other.cost

    def __hash__(self) -> int:
        return hash((Regret, id(self.cost)))

    def check(self, layer: DecisionLayer) -> None:
        predicted = layer.constrained_by & set(layer.predicts)
        if predicted and self.cost is None:
            raise ModelError(
                f"the predicted parameters {sorted(predicted)} enter constraints: a decision may be "
                f"infeasible under the true ones, and its regret has no meaning; state in the objective what "
                f"a violation costs, as dg.maximum(demand - x, 0), or pass cost= with such a penalty"
            )
        if isinstance(self.cost, Expression):
            layer.check_expression(self.cost)
            if self.cost.size != 1:
                raise ModelError(f"Regret: cost must be one number, got shape {self.cost.shape}")

    def queries(self, layer: DecisionLayer, predicted: Parameters, batch: Batch) -> dict[str, dict[str, Any]]:
        return {"decision": {**batch.known, **predicted}}

    def value(
        self, layer: DecisionLayer, predicted: Parameters, answers: dict[str, dict[str, Any]], batch: Batch
    ) -> Any:
        return self.score(layer, answers["decision"], batch.truth) - self.score(
            layer, batch.optimal, batch.truth
        )

    def score(self, layer: DecisionLayer, decisions: dict[str, Any], truth: dict[str, Any]) -> Any:
        """The cost of decisions by sample, to be minimized."""
        if self.cost is None:
            return layer.sign * layer.objective(decisions, truth)
        if isinstance(self.cost, Expression):
            return layer.evaluate(self.cost, decisions, truth).reshape(_lead(layer, decisions))
        lead = _lead(layer, decisions)
        shapes = {name: layer.parameters[name].shape for name in truth}
        function: Any = self.cost
        for _ in lead:
            function = jax.vmap(function)
        return function(
            decisions, {name: jnp.broadcast_to(value, lead + shapes[name]) for name, value in truth.items()}
        )


def _lead(layer: DecisionLayer, decisions: dict[str, Any]) -> tuple[int, ...]:
    name, variable = next(iter(layer.form.variables.items()))
    return tuple(decisions[name].shape[: decisions[name].ndim - variable.ndim])
