"""Structured prediction: the optimal decision should win by a margin that grows with the difference."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import jax.numpy as jnp
import numpy as np

from decigrad import compiled
from decigrad.errors import ModelError
from decigrad.losses.protocol import Batch, Parameters
from decigrad.losses.surrogate import Surrogate, best, cost_of

if TYPE_CHECKING:
    from decigrad.layer import DecisionLayer


@dataclass(frozen=True)
class StructuredHinge(Surrogate):
    """The structured hinge loss (structured SVM, margin rescaling).

        ℓ(ĉ) = max_x { m Δ(x, x*) − f(x; ĉ) } + f(x*; ĉ),      gradient in ĉ:  g(x*) − g(x̃)

    with x̃ the maximizer: one solve a step, of the same problem with a shifted cost. Never negative, convex.

    - `kind="hamming"`: Δ = Σ |xⱼ − x*ⱼ| over the entries that the prediction prices, which must lie between 0
      and 1, and m = `margin` times the mean standard deviation of the targets. Of the truth it needs x*
      alone. The objective must be cᵀx in one predicted parameter c, plus known terms: there Δ, linear for
      0/1 decisions, is a change of c.
    - `kind="cost"`: Δ = f(x; c) − f(x*; c) and m = `margin` < 1. Needs the true costs; any objective that is
      affine in c. With m = ½ it is half of SPO+.

    Args:
        margin: see above.
        kind: of the margin.

    Source: Tsochantaridis et al. (2005), Large Margin Methods for Structured and Interdependent Output
    Variables, JMLR 6; Taskar et al. (2005), Learning Structured Prediction Models: A Large Margin
    Approach, doi:10.1145/1102351.1102464.
    """

    margin: float = 0.5
    kind: Literal["hamming", "cost"] = "hamming"

    def __post_init__(self) -> None:
        if self.kind not in ("hamming", "cost"):
            raise ModelError(f"StructuredHinge: kind must be hamming or cost, got {self.kind!r}")
        if not self.margin > 0 or (self.kind == "cost" and not self.margin < 1):
            limit = "between 0 and 1" if self.kind == "cost" else "positive"
            raise ModelError(f"StructuredHinge: margin must be {limit}, got {self.margin}")

    def check(self, layer: DecisionLayer) -> None:
        """Refuse what the margin cannot be written for."""
        super().check(layer)
        if self.kind == "hamming":
            priced_entries(layer)

    def _unit(self, layer: DecisionLayer, batch: Batch) -> Any:
        (name,) = layer.predicts
        return self.margin * jnp.mean(batch.spread[name])

    def _augmented(self, layer: DecisionLayer, predicted: Parameters, batch: Batch) -> dict[str, Any]:
        if self.kind == "cost":
            rest = 1.0 - self.margin
            moved = {n: (predicted[n] - self.margin * batch.targets[n]) / rest for n in predicted}
            return {**batch.known, **moved}
        ((name, value),) = predicted.items()
        turn = 1.0 - 2.0 * _priced(layer, batch.optimal)
        shift = layer.sign * self._unit(layer, batch) * turn.reshape(value.shape)
        return {**batch.known, name: value - shift}

    def queries(self, layer: DecisionLayer, predicted: Parameters, batch: Batch) -> dict[str, Any]:
        """The decision at the augmented cost."""
        return {"augmented": self._augmented(layer, predicted, batch)}

    def value(
        self, layer: DecisionLayer, predicted: Parameters, answers: dict[str, Any], batch: Batch
    ) -> Any:
        """ℓ by sample."""
        label = cost_of(layer, batch.optimal, {**batch.known, **predicted})
        inner = cost_of(layer, answers["augmented"], self._augmented(layer, predicted, batch))
        if self.kind == "cost":
            return label - (1.0 - self.margin) * inner - self.margin * best(layer, batch)
        return label - inner + self._unit(layer, batch) * _priced(layer, batch.optimal).sum(-1)


def priced_entries(layer: DecisionLayer) -> np.ndarray:
    """Positions in x of the entries whose cost is the predicted parameter itself, in its order [m].

    Raises:
        ModelError: the objective is not cᵀx in one predicted parameter c, or x may leave [0, 1].
    """
    found: np.ndarray = compiled.cached(
        layer.form, ("priced entries", layer.predicts, layer.sign), lambda: _priced_entries(layer)
    )
    return found


def _priced_entries(layer: DecisionLayer) -> np.ndarray:
    why = "the Hamming margin is a change of the predicted cost: "
    if len(layer.predicts) != 1:
        raise ModelError(f"{why}predict one parameter, not {list(layer.predicts)}, or use kind='cost'")
    (name,) = layer.predicts
    rng = np.random.default_rng(0)
    base = {n: rng.uniform(0.5, 1.5, p.shape) for n, p in layer.parameters.items()}
    shape, size = layer.parameters[name].shape, layer.parameters[name].size
    at = layer.form.assemble(base)

    def change(direction: np.ndarray) -> np.ndarray:
        moved = layer.form.assemble({**base, name: base[name] + direction.reshape(shape)})
        return layer.sign * np.append(moved.q - at.q, moved.r - at.r)

    # Numbered entries show which variable each one prices; a random direction confirms it.
    numbered, probe = np.rint(change(np.arange(1.0, size + 1.0))).astype(int), rng.uniform(0.5, 1.5, size)
    entries = np.array([np.flatnonzero(numbered == j + 1)[:1].sum() for j in range(size)])
    expected = np.zeros(layer.form.n + 1)
    expected[entries] = probe
    if len(set(entries)) < size or np.abs(change(probe) - expected).max() > 1e-9:
        raise ModelError(
            f"{why}the objective must hold {name!r} as {name} @ x, each entry the cost of one variable; "
            f"use kind='cost'"
        )
    low, high = at.lb[entries], at.ub[entries]
    if (low < 0).any() or (high > 1).any() or layer.form.depends("lb", "ub"):
        raise ModelError("the Hamming margin needs variables with lb=0 and ub=1; use kind='cost'")
    return entries


def _priced(layer: DecisionLayer, decisions: dict[str, Any]) -> Any:
    """The priced entries of decisions, [..., m]."""
    variables = layer.form.variables
    flat = [
        jnp.reshape(decisions[n], (*decisions[n].shape[: decisions[n].ndim - variables[n].ndim], -1))
        for n in layer.form.offsets
    ]
    return jnp.concatenate(flat, axis=-1)[..., priced_entries(layer)]
