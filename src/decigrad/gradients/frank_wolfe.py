"""The regularized decision over the convex hull of a solver's answers: Frank–Wolfe, fully corrective.

    minimize  qᵀx + ½μ‖x‖²  over conv{answers}       =  the projection of −q/μ

No constraints are needed but the solver itself, which is asked for a vertex at q + μx in every round. Wolfe's
algorithm keeps affinely independent vertices V and weights w > 0 such that x = Vᵀw minimizes over their
affine hull. So dx/dq = −Π/μ with Π the projection on the directions of that hull: the exact derivative where
it is a face of the whole hull, as it is at the minimizer (up to ties).

Source: P. Wolfe (1976), "Finding the nearest point in a polytope", Mathematical Programming 11,
doi:10.1007/BF01580381; Lacoste-Julien and Jaggi (2015), "On the Global Linear Convergence of Frank-Wolfe
Optimization Variants", NeurIPS; for learning: Dalle et al. (2022), arXiv:2207.13513.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import jax
import jax.numpy as jnp

from decigrad.errors import ModelError
from decigrad.gradients.estimated import Estimated
from decigrad.gradients.methods import cost_size
from decigrad.program import Array, QuadraticProgram, Solver

GAP = 1e-10  # relative duality gap at which the minimizer is found
WEIGHT = 1e-12  # weights up to this are zero
PIVOT = 1e-11  # squared pivot, relative, below which a vertex depends on the others


class _State(NamedTuple):
    vertices: Array  # [K, n]
    weights: Array  # [K]
    active: Array  # [K] bool
    done: Array


@dataclass(frozen=True)
class FrankWolfe(Estimated):
    """The exact derivative of the regularized decision over the convex hull of the solver's answers.

        forward   x(q) = argmin { qᵀx + ½ mu·s ‖x‖² : x in conv{answers} }       backward   q̄ = −Π x̄ / (mu·s)

    with s the root mean square of q (or 1 under `relative=False`) as a constant, and Π the projection on the
    face that x lies in. What `Smoothed(mu)` is for stated constraints, this is for any solver or oracle: the
    set need not be stated. `FenchelYoung()` is the loss that goes with it. The forward value changes;
    evaluation scores the solver's own decision.

    Args:
        mu: strength.
        iterations: solves at most; fewer where the minimizer is found. If they do not suffice, the decision
            is the minimizer over the vertices found so far.
        relative: s as above.

    Source: Dalle, Baty, Bouvier and Parmentier (2022), Learning with Combinatorial Optimization Layers: a
    Probabilistic Approach, arXiv:2207.13513. See `decigrad.gradients.frank_wolfe` for the algorithm.
    """

    mu: float = 1.0
    iterations: int = 20
    relative: bool = True

    changes_forward = True
    exact = True

    def __post_init__(self) -> None:
        if not self.mu > 0 or self.iterations < 1:
            raise ModelError(
                f"FrankWolfe needs mu > 0 and iterations >= 1, got {self.mu} and {self.iterations}"
            )

    @property
    def rounds(self) -> int:  # type: ignore[override]
        """One solve each."""
        return self.iterations

    @property
    def solves(self) -> tuple[int, int]:  # type: ignore[override]
        """One a round."""
        return self.iterations, 0

    def solver(self, asked: str | Solver, program: QuadraticProgram) -> str | Solver:
        """The layer's own; the model must be linear."""
        if not program.linear:
            raise ModelError("FrankWolfe regularizes a linear objective; this one has curvature: use KKT()")
        return asked

    def regularizer(self, program: QuadraticProgram, x: Array) -> Array:
        """What is added to the objective at x, for one sample; s counts as a constant."""
        return 0.5 * self._strength(program.q) * (x**2).sum(-1)

    def _strength(self, q: Array) -> Array:
        return self.mu * (cost_size(q) if self.relative else 1.0)

    def start(self, q: Array, z: Array) -> _State:
        """No vertices."""
        count = self.iterations
        empty = jnp.zeros((count, q.size), q.dtype)
        return _State(empty, jnp.zeros(count, q.dtype), jnp.zeros(count, bool), jnp.zeros((), bool))

    def ask(self, q: Array, z: Array, state: _State) -> Array:
        """The gradient at the current point."""
        return (q + self._strength(q) * (state.weights @ state.vertices))[None]

    def tell(self, q: Array, z: Array, state: _State, answers: Array) -> _State:
        """The new vertex is added where it improves, and weights corrected until none is negative."""
        vertex, x = answers[0], state.weights @ state.vertices
        slope = self.ask(q, z, state)[0]
        least = GAP * (abs(slope) * (abs(x) + abs(vertex))).sum()
        done = state.done | (state.active.any() & (slope @ (x - vertex) <= least))
        slot = jnp.argmin(state.active)  # the first free one
        first = ~state.active.any()
        grown = _State(
            state.vertices.at[slot].set(vertex),
            jnp.where(first, state.weights.at[slot].set(1.0), state.weights),
            state.active.at[slot].set(True),
            done,
        )
        corrected = _corrected(grown, -q / self._strength(q))
        done = done | (state.active.any() & (corrected.active == state.active).all())  # within rounding
        return jax.tree_util.tree_map(lambda new, old: jnp.where(done, old, new), corrected, state)._replace(
            done=done
        )

    def done(self, state: _State) -> Array:
        """Whether the minimizer is found."""
        return state.done

    def answer(self, q: Array, z: Array, state: _State) -> tuple[Array, Array]:
        """x, and the vertices of its face [K, n + 1], marked by a one behind them."""
        marked = jnp.concatenate([state.vertices, state.active[:, None].astype(q.dtype)], axis=1)
        return state.weights @ state.vertices, marked

    def costs(self, q: Array, x: Array, cotangent: Array, z: Array) -> Array:
        """None beyond those of the forward pass."""
        return jnp.zeros((0, q.size), q.dtype)

    def cotangent(
        self, q: Array, x: Array, cotangent: Array, z: Array, forward: Array, answers: Array
    ) -> Array:
        """−Π x̄ / (mu·s)."""
        active = forward[:, -1] > 0
        directions = _directions(forward[:, :-1], active)
        return -(_coordinates(directions, cotangent) @ directions) / self._strength(q)


def _corrected(state: _State, target: Array) -> _State:
    """Weights of the point nearest to the target in the convex hull of the active vertices (minor cycles)."""

    def negative(carry: tuple[_State, Array]) -> Array:
        return ~carry[1]

    def cycle(carry: tuple[_State, Array]) -> tuple[_State, Array]:
        state, _ = carry
        aim = _affine_weights(state.vertices, state.active, target)
        falling = state.active & (aim <= WEIGHT)
        fits = ~falling.any()
        ratio = jnp.where(falling, state.weights / jnp.maximum(state.weights - aim, 1e-300), jnp.inf)
        moved = state.weights + jnp.minimum(ratio.min(), 1.0) * (aim - state.weights)
        left = state.active & (moved > WEIGHT) & ~(falling & (ratio <= ratio.min()))
        kept = jnp.where(left, moved, 0.0)
        weights = jnp.where(fits, aim, kept / kept.sum())
        return state._replace(weights=weights, active=jnp.where(fits, state.active, left)), fits

    return jax.lax.while_loop(negative, cycle, (state, jnp.zeros((), bool)))[0]


def _directions(vertices: Array, active: Array) -> Array:
    """Active vertices minus the first of them, zero rows elsewhere."""
    return jnp.where(active[:, None], vertices - vertices[jnp.argmax(active)], 0.0)


def _affine_weights(vertices: Array, active: Array, target: Array) -> Array:
    """Weights, with sum one, of the point nearest to the target in the affine hull of the active vertices."""
    base = jnp.argmax(active)
    weights = _coordinates(_directions(vertices, active), target - vertices[base])
    return weights.at[base].set(1.0 - weights.sum())


def _coordinates(directions: Array, point: Array) -> Array:
    """Least-squares coordinates [K] of a point [n] in independent directions [K, n]; zero for zero rows."""
    inverse = _inverse(directions @ directions.T)
    found = inverse @ (directions @ point)
    return found + inverse @ (directions @ (point - found @ directions))  # refined


def _inverse(gram: Array) -> Array:
    """Inverse of a Gram matrix by Gauss–Jordan sweeps; rows that are zero or depend on others stay zero."""
    least = PIVOT * jnp.diagonal(gram)

    def sweep(k: Array, a: Array) -> Array:
        pivot = a[k, k]
        usable = (least[k] > 0) & (pivot > least[k])
        row, column = a[k] / pivot, a[:, k]
        swept = a - jnp.outer(column, row)
        swept = swept.at[:, k].set(-column / pivot).at[k].set(row).at[k, k].set(1.0 / pivot)
        dropped = a.at[k].set(0.0).at[:, k].set(0.0)
        return jnp.where(usable, swept, dropped)

    return jax.lax.fori_loop(0, len(gram), sweep, gram)
