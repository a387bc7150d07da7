"""Simple sets: finitely many points, the k least costs, the simplex, rankings."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np

from decigrad.errors import ModelError
from decigrad.oracles.fixed import FixedArray, finite, one_hot_rows, positive
from decigrad.oracles.protocol import LinearOracle
from decigrad.program import Array, QuadraticProgram

CHUNK = 4096
"""Most points scored at once: their scores for a batch stay in the cache."""


def first_minimizer(points: np.ndarray, cost: Array) -> Array:
    """The first of `points` [K, n] that minimizes pᵀc, by sample [B, n]; inside a trace.

    Scores are one matrix product, so costs in which two points tie exactly but not in rounding count as
    different.
    """
    count, n = points.shape
    batch, dtype = cost.shape[0], cost.dtype

    def best_of(part: Array) -> tuple[Array, Array]:
        score = jnp.matmul(part.astype(dtype), cost.T, precision=jax.lax.Precision.HIGHEST)
        least = score.min(0)
        place = jnp.arange(len(part), dtype=jnp.int32)[:, None]
        return least, jnp.where(score == least, place, len(part)).min(0)

    if count <= CHUNK:
        return jnp.asarray(points, dtype)[best_of(jnp.asarray(points))[1]]
    chunks = -(-count // CHUNK)
    size = -(-count // chunks)
    padded = np.concatenate([points, np.broadcast_to(points[:1], (chunks * size - count, n))])
    table = jnp.asarray(padded.reshape(chunks, size, n))

    def chunk(best: tuple[Array, Array], given: tuple[Array, Array]) -> tuple[tuple[Array, Array], None]:
        k, part = given
        least, place = best_of(part)
        less = least < best[0]
        return (jnp.where(less, least, best[0]), jnp.where(less, k * size + place, best[1])), None

    start = jnp.full(batch, jnp.inf, dtype), jnp.zeros(batch, jnp.int32)
    (_, index), _ = jax.lax.scan(chunk, start, (jnp.arange(chunks, dtype=jnp.int32), table))
    return jnp.asarray(points)[index].astype(dtype)


@dataclass(frozen=True)
class Enumeration(LinearOracle):
    """Any finite set, by its points.

    minimize cᵀx over x in {p₁, …, p_K}; costs c [B, n] of any sign.

    Args:
        points: [K, n].

    Ties: the first point among those whose computed scores are equal.
    """

    points: Any

    name = "enumeration"

    def __post_init__(self) -> None:
        points = finite("points", self.points, 2)
        small = points.astype(np.int8, casting="unsafe") if abs(points).max() < 128 else points
        points = small if (small == points).all() else points  # an eighth of the memory
        object.__setattr__(self, "points", FixedArray(points))

    def size(self) -> int:
        """Length of a point."""
        return self.points.array.shape[1]

    def minimize(self, cost: Array, program: QuadraticProgram) -> Array:
        """The best points [B, n]."""
        return _enumeration(self, cost)


@functools.partial(jax.jit, static_argnums=0)
def _enumeration(oracle: Enumeration, cost: Array) -> Array:
    return first_minimizer(oracle.points.array, cost)


@dataclass(frozen=True)
class TopK(LinearOracle):
    """Choice of k of n items.

    minimize cᵀx over x in {0, 1}ⁿ with Σx = k, or Σx ≤ k with `exact=False`: then items with c ≥ 0 are never
    taken. Costs c [B, n] of any sign.

    Ties: the items that come first.
    """

    n: int
    k: int
    exact: bool = True

    name = "top-k"

    def __post_init__(self) -> None:
        object.__setattr__(self, "n", positive("n", self.n))
        object.__setattr__(self, "k", positive("k", self.k))
        if self.k > self.n:
            raise ModelError(f"k = {self.k} of n = {self.n} items cannot be chosen")

    def size(self) -> int:
        """Number of items."""
        return self.n

    def minimize(self, cost: Array, program: QuadraticProgram) -> Array:
        """Item indicators [B, n]."""
        return _top_k(self, cost)


@functools.partial(jax.jit, static_argnums=0)
def _top_k(oracle: TopK, cost: Array) -> Array:
    chosen = jnp.argsort(cost, axis=-1, stable=True)[:, : oracle.k]
    x = one_hot_rows(chosen.T, oracle.n, cost.dtype)
    return x if oracle.exact else jnp.where(cost < 0, x, 0)


@dataclass(frozen=True)
class Simplex(LinearOracle):
    """The probability simplex.

    minimize cᵀx over x ≥ 0 with Σx = 1: the unit vector of the least cost. Costs c [B, n] of any sign.

    Ties: the first.
    """

    n: int

    name = "simplex"

    def __post_init__(self) -> None:
        object.__setattr__(self, "n", positive("n", self.n))

    def size(self) -> int:
        """Number of variables."""
        return self.n

    def minimize(self, cost: Array, program: QuadraticProgram) -> Array:
        """Unit vectors [B, n]."""
        return _simplex(cost)


@jax.jit
def _simplex(cost: Array) -> Array:
    return one_hot_rows(jnp.argmin(cost, axis=-1)[None], cost.shape[1], cost.dtype)


@dataclass(frozen=True)
class Ranking(LinearOracle):
    """Rankings of n items, the vertices of the permutahedron.

    minimize cᵀx over the permutations x of (1, …, n): xᵢ is the rank of item i when the costs are sorted in
    descending order, 1 for the largest. Costs c [B, n] of any sign.

    Ties: of equal costs the first gets the lower rank.

    Source: Blondel, Teboul, Berthet and Djolonga (2020), "Fast Differentiable Sorting and Ranking", ICML,
    arXiv:2002.08871.
    """

    n: int

    name = "ranking"
    stated: ClassVar[bool] = False

    def __post_init__(self) -> None:
        object.__setattr__(self, "n", positive("n", self.n))

    def size(self) -> int:
        """Number of items."""
        return self.n

    def minimize(self, cost: Array, program: QuadraticProgram) -> Array:
        """Ranks [B, n]."""
        return _ranking(cost)


@jax.jit
def _ranking(cost: Array) -> Array:
    order = jnp.argsort(-cost, axis=-1, stable=True)
    ranks = jnp.broadcast_to(jnp.arange(1, cost.shape[1] + 1, dtype=cost.dtype), cost.shape)
    return jnp.zeros_like(cost).at[jnp.arange(len(cost))[:, None], order].set(ranks)
