"""Losses by the geometry of the feasible set at the optimal decision; no solve in training.

They read the constraints that the model states. With q(ĉ) the cost vector of the program (to be minimized,
known terms included), x* stays optimal exactly while the negative gradient of the objective there lies in the
normal cone of the set at x*, or while no adjacent vertex is better.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np

from decigrad.errors import ModelError
from decigrad.losses.normal_cone import (
    average_normal,
    equality_normals,
    project,
    refuse_without_constraints,
    tight_constraints,
)
from decigrad.losses.protocol import Batch, Parameters
from decigrad.losses.surrogate import Surrogate
from decigrad.losses.vertices import adjacent_vertices

if TYPE_CHECKING:
    from decigrad.layer import DecisionLayer
    from decigrad.program import QuadraticProgram
    from decigrad.solution import Solutions


class Geometric(Surrogate):
    """What losses on the stated constraints share."""

    solves = 0

    def check(self, layer: DecisionLayer) -> None:
        """As every surrogate; and the model must state constraints."""
        super().check(layer)
        refuse_without_constraints(layer, type(self).__name__)

    def queries(self, layer: DecisionLayer, predicted: Parameters, batch: Batch) -> dict[str, Any]:
        """None."""
        return {}


@dataclass(frozen=True)
class CaVE(Geometric):
    """Cone-aligned vector estimation: the predicted cost should point into the cone where x* is optimal.

        ℓ(ĉ) = 1 − cos∠( v, Π(v) ),      v = −∇ₓf(x*; ĉ) = −(P x* + q(ĉ))

    with Π the projection on the normal cone of the tight constraints at x* (of the relaxation, for integer
    models). Between 0, where x* is optimal (for the relaxation), and 1. Gradient in ĉ: that of the cosine
    with Π(v) held fixed, which is exact, since Π(v) maximizes the cosine over the cone (envelope theorem).
    Where Π(v) = 0 the mean a of the tight inequalities' unit normals takes its place. Of the truth it needs
    x* alone.

    CaVE+ (`inner` ρ > 0) aims into the cone instead of at its surface, at (1 − ρ) Π(v)/‖Π(v)‖ + ρa where v is
    outside. CaVE Hybrid (`alpha` < 1 besides) projects in a step with probability `alpha`, and aims at
    (1 − ρ) v/‖v‖ + ρa otherwise. There the target is held fixed by definition.

    Args:
        iterations: of the projection; every iterate is in the cone, and 50 to 200 reach six digits.
        inner: ρ, between 0 and 1.
        alpha: probability of projecting.

    Source: Tang and Khalil (2024), CaVE: A Cone-Aligned Approach for Fast Predict-then-optimize with Binary
    Linear Programs, CPAIOR, arXiv:2312.07718.
    """

    iterations: int = 50
    inner: float = 0.0
    alpha: float = 1.0

    def __post_init__(self) -> None:
        if self.iterations < 1 or not 0 <= self.inner < 1 or not 0 <= self.alpha <= 1:
            raise ModelError(f"CaVE needs iterations ≥ 1, 0 ≤ inner < 1 and 0 ≤ alpha ≤ 1, got {self}")
        if self.alpha < 1 and self.inner == 0:
            raise ModelError("CaVE: without a projection (alpha < 1) the target needs inner > 0")

    def prepare(self, layer: DecisionLayer, labels: Solutions) -> dict[str, np.ndarray]:
        """The optimal decisions and their tight constraints."""
        return tight_constraints(labels)

    def value(
        self, layer: DecisionLayer, predicted: Parameters, answers: dict[str, Any], batch: Batch
    ) -> Any:
        """ℓ by sample."""
        exact = True if self.alpha == 1 else jax.random.bernoulli(batch.key, self.alpha)

        def one(program: QuadraticProgram, at: dict[str, Any]) -> Any:
            v = -(program.P.matvec(at["x"]) + program.q)
            tight = (at["rows"], at["lower"], at["upper"])
            mean = average_normal(program, *tight)

            def projected(v: Any) -> Any:
                normals = equality_normals(layer, program)
                found = project(v, normals, program, *tight, self.iterations)
                found = jnp.where((found**2).sum() > 1e-16 * (v**2).sum(), found, mean)
                inside = ((v - found) ** 2).sum() <= 1e-14 * (v**2).sum()
                pushed = (1.0 - self.inner) * _unit(found) + self.inner * mean
                return jnp.where(inside | (self.inner == 0), found, pushed)

            def near(v: Any) -> Any:
                return (1.0 - self.inner) * _unit(v) + self.inner * mean

            held = jax.lax.stop_gradient(v)
            aim = projected(held) if exact is True else jax.lax.cond(exact, projected, near, held)
            return 1.0 - _unit(v) @ _unit(jax.lax.stop_gradient(aim))

        return _by_sample(layer, {**batch.known, **predicted}, one, batch)


@dataclass(frozen=True)
class AdjacentVertices(Geometric):
    """No vertex next to the optimal one should look better (in the manner of LAVA).

        ℓ(ĉ, c) = mean over x adjacent to x* of  max( 0, m (f(x; c) − f(x*; c)) + f(x*; ĉ) − f(x; ĉ) )

    x* is optimal for a linear program under ĉ exactly if no adjacent vertex is better, so with m = 0 the
    loss vanishes exactly there; `margin` m asks for a share of the true difference. Convex. The adjacent
    vertices are found before training, once for each distinct optimal decision, by pivoting; those of an
    integer program are vertices of its relaxation. Memory: [samples, adjacent vertices, variables].

    Args:
        margin: share of the true difference that is asked for.
        bases: bases that are visited at a degenerate vertex; more show more of its adjacent vertices (see
            `vertices.adjacent_vertices`).

    Source: after Berden et al. (2025), Solver-Free Decision-Focused Learning for Linear Optimization
    Problems, arXiv:2505.22224, which has a constant ε for the margin.
    """

    margin: float = 1.0
    bases: int = 200

    def __post_init__(self) -> None:
        if not self.margin >= 0 or self.bases < 1:
            raise ModelError(
                f"AdjacentVertices needs margin ≥ 0 and bases ≥ 1, got {self.margin} and {self.bases}"
            )

    def check(self, layer: DecisionLayer) -> None:
        """As every surrogate; and the program must be linear."""
        super().check(layer)
        if not layer.form.linear:
            raise ModelError(
                "AdjacentVertices needs a linear objective: with curvature optima are no vertices"
            )

    def prepare(self, layer: DecisionLayer, labels: Solutions) -> dict[str, np.ndarray]:
        """Differences x − x* to adjacent vertices [N, K, n], padded, and which of them are real [N, K]."""
        program, x, ok = labels.program, np.nan_to_num(labels.raw.x), labels.ok.reshape(-1, 1)
        parts = [program.A.matrix, program.b, program.G.matrix, program.h, program.lb, program.ub]
        varying = [np.asarray(a).reshape(len(a), -1) for a in parts if len(a) > 1]
        _, first, which = np.unique(
            np.concatenate([ok, x.round(7) + 0.0, *varying], axis=1),
            axis=0,
            return_index=True,
            return_inverse=True,
        )
        found = [
            adjacent_vertices(program.sample(int(i)), x[i], self.bases) - x[i] if ok[i] else x[:0]
            for i in first
        ]
        most = max(len(f) for f in found)
        padded = np.stack([np.pad(f, ((0, most - len(f)), (0, 0))) for f in found])
        real = np.arange(most) < np.array([len(f) for f in found])[:, None]
        return {"edges": padded[which.reshape(-1)], "real": real[which.reshape(-1)]}

    def value(
        self, layer: DecisionLayer, predicted: Parameters, answers: dict[str, Any], batch: Batch
    ) -> Any:
        """ℓ by sample."""

        def rise(program: QuadraticProgram, at: dict[str, Any]) -> Any:
            return at["edges"] @ program.q

        true = _by_sample(layer, batch.truth, rise, batch)
        found = _by_sample(layer, {**batch.known, **predicted}, rise, batch)
        hinge = jax.nn.relu(self.margin * true - found) * batch.labels["real"]
        return hinge.sum(-1) / jnp.maximum(batch.labels["real"].sum(-1), 1)


def _by_sample(layer: DecisionLayer, parameters: dict[str, Any], function: Any, batch: Batch) -> Any:
    """`function(program, labels)` by sample, [*batch, ...]."""
    lead = batch.weight.shape
    count = int(np.prod(lead, dtype=int))
    flat = {n: jnp.reshape(a, (count, *a.shape[len(lead) :])) for n, a in batch.labels.items()}
    found = layer.over_batch(parameters, function, flat)
    return found.reshape(lead + found.shape[1:])


def _unit(v: Any) -> Any:
    return v / jnp.sqrt(jnp.maximum((v**2).sum(), 1e-30))
