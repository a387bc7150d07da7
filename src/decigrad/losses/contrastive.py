"""Losses that compare the optimal decision with a pool of known decisions: contrastive and learning to rank.

No solver runs during training: the pool S is the set of distinct optimal decisions of the training data (see
`Batch.pool`), in cross-validation those of the fold's own (`Batch.seen`). f(x; c) = cᵀg(x) + h(x) is the
objective, to be minimized, and x* the optimal decision.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp

from decigrad.errors import ModelError
from decigrad.losses.protocol import Batch, Parameters
from decigrad.losses.surrogate import Surrogate, cost_of
from decigrad.program import QuadraticProgram

if TYPE_CHECKING:
    from decigrad.layer import DecisionLayer


class Pooled(Surrogate):
    """What losses on a pool share."""

    pools = True
    solves = 0

    def queries(self, layer: DecisionLayer, predicted: Parameters, batch: Batch) -> dict[str, Any]:
        """None: the pool is known."""
        return {}


def _on_pool(layer: DecisionLayer, batch: Batch, parameters: Parameters) -> Any:
    """f of every decision in the pool, [K, *batch].

    f(x; c) = q(c)ᵀx + r(c) + ½xᵀPx in the program, so the pool's values are one matrix product; the quadratic
    part is computed once unless P differs by sample. Where the objective has piecewise-linear terms, whose
    auxiliary columns the pool does not hold, the stated expression is evaluated instead.
    """
    lead, form = batch.weight.shape, layer.form
    count = next(iter(batch.pool.values())).shape[0]
    given = {**batch.known, **parameters}
    if form.n > form.num_user:
        pool = {n: x.reshape(x.shape[:1] + (1,) * len(lead) + x.shape[1:]) for n, x in batch.pool.items()}
        return cost_of(layer, pool, given)
    flat = jnp.concatenate([jnp.reshape(batch.pool[name], (count, -1)) for name in form.offsets], axis=1)

    def one(program: QuadraticProgram, weight: Any) -> Any:
        linear = jnp.matmul(flat, program.q, precision=jax.lax.Precision.HIGHEST) + program.r
        if program.linear:
            return linear
        return linear + 0.5 * (flat * jax.vmap(program.P.matvec)(flat)).sum(-1)

    found = layer.over_batch(given, one, jnp.reshape(batch.weight, -1))
    return found.T.reshape(count, *lead)


def _gap(layer: DecisionLayer, batch: Batch, parameters: Parameters) -> Any:
    """f(x*; p) − f(x; p) for every decision in the pool, [K, *batch]."""
    label = cost_of(layer, batch.optimal, {**batch.known, **parameters})
    return label - _on_pool(layer, batch, parameters)


@dataclass(frozen=True)
class NCE(Pooled):
    """Noise-contrastive estimation: the optimal decision should beat the pool's average.

        ℓ(ĉ, c) = mean_{x∈S} [ f(x*; ĉ) − f(x; ĉ) ]

    (At ĉ − c, as also published, it differs by a constant.) Bounded below only on a bounded set of
    predictions: train it from two-stage, with a proximal weight.

    Source: Mulamba et al. (2021), Contrastive Losses and Solution Caching for Predict-and-Optimize, IJCAI,
    doi:10.24963/ijcai.2021/390.
    """

    def value(
        self, layer: DecisionLayer, predicted: Parameters, answers: dict[str, Any], batch: Batch
    ) -> Any:
        """ℓ by sample."""
        return _gap(layer, batch, predicted).mean(0, where=batch.seen)


@dataclass(frozen=True)
class MAP(Pooled):
    """The optimal decision should beat the best of the pool (contrastive MAP).

        ℓ(ĉ, c) = max_{x∈S} [ Δ(x; ĉ) − Δ(x; c) ],       Δ(x; p) = f(x*; p) − f(x; p)

    Without `margin`: max_{x∈S} Δ(x; ĉ). With it (the default, as published: f at ĉ − c where f is cᵀx), every
    x must be worse than x* by at least as much as it is in truth; h cancels, and ℓ is zero at ĉ = c.

    Source: Mulamba et al. (2021), doi:10.24963/ijcai.2021/390.
    """

    margin: bool = True

    def value(
        self, layer: DecisionLayer, predicted: Parameters, answers: dict[str, Any], batch: Batch
    ) -> Any:
        """ℓ by sample."""
        gap = _gap(layer, batch, predicted)
        gap = gap - _gap(layer, batch, batch.targets) if self.margin else gap
        return gap.max(0, where=batch.seen, initial=-jnp.inf)


@dataclass(frozen=True)
class PointwiseRank(Pooled):
    """The objective of each pooled decision is a regression target.

    ℓ(ĉ, c) = mean_{x∈S} ( f(x; ĉ) − f(x; c) )²

    Source: Mandi et al. (2022), Decision-Focused Learning: Through the Lens of Learning to Rank, ICML.
    """

    def value(
        self, layer: DecisionLayer, predicted: Parameters, answers: dict[str, Any], batch: Batch
    ) -> Any:
        """ℓ by sample."""
        error = _on_pool(layer, batch, predicted) - _on_pool(layer, batch, batch.targets)
        return (error**2).mean(0, where=batch.seen)


@dataclass(frozen=True)
class PairwiseRank(Pooled):
    """Each pooled decision should be worse than the best, by as much as it is in truth.

        ℓ(ĉ, c) = mean_{x∈S} max(0, m + f(x*; ĉ) − f(x; ĉ)),      m = margin · (f(x; c) − f(x*; c))

    Args:
        margin: share of the true difference that is asked for; 0 asks for the order alone.

    Source: Mandi et al. (2022), as `PointwiseRank`.
    """

    margin: float = 1.0

    def __post_init__(self) -> None:
        if not self.margin >= 0:
            raise ModelError(f"PairwiseRank: margin must be ≥ 0, got {self.margin}")

    def value(
        self, layer: DecisionLayer, predicted: Parameters, answers: dict[str, Any], batch: Batch
    ) -> Any:
        """ℓ by sample."""
        gap, true = (_gap(layer, batch, p) for p in (predicted, batch.targets))
        return jax.nn.relu(gap - self.margin * true).mean(0, where=batch.seen)


@dataclass(frozen=True)
class ListwiseRank(Pooled):
    """The distribution exp(−f/τ) over the pool under ĉ should be that under c.

        ℓ(ĉ, c) = −τ Σ_{x∈S} p(x; c) log p(x; ĉ),       p(x; c) ∝ exp(−f(x; c)/τ)

    Args:
        temperature: τ in units of the standard deviation of the pool's true costs, by sample.

    Source: Mandi et al. (2022), as `PointwiseRank`.
    """

    temperature: float = 0.5

    def __post_init__(self) -> None:
        if not self.temperature > 0:
            raise ModelError(f"ListwiseRank: temperature must be positive, got {self.temperature}")

    def value(
        self, layer: DecisionLayer, predicted: Parameters, answers: dict[str, Any], batch: Batch
    ) -> Any:
        """ℓ by sample."""
        true, seen = _on_pool(layer, batch, batch.targets), batch.seen
        tau = self.temperature * jnp.maximum(true.std(0, where=seen), 1e-12)
        found = jax.nn.log_softmax(-_on_pool(layer, batch, predicted) / tau, axis=0, where=seen)
        share = jax.nn.softmax(-true / tau, axis=0, where=seen)
        return -tau * (share * found).sum(0, where=seen)
