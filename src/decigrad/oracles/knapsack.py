"""Knapsacks: one constraint by dynamic programming, several by enumeration of the maximal sets."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from decigrad.errors import ModelError
from decigrad.oracles.fixed import FixedArray, finite, integers
from decigrad.oracles.protocol import LinearOracle
from decigrad.oracles.sets import first_minimizer
from decigrad.program import Array, QuadraticProgram

ROUNDING = 1e-9
"""How far, relative to it, a total weight may exceed a capacity: decimals such as 0.1 are not exact."""

LARGEST_TABLE = 10_000_000
"""Entries of the table of items and capacities of a dynamic program; beyond it a knapsack is refused."""


@dataclass(frozen=True)
class Knapsack(LinearOracle):
    """The 0-1 knapsack with integer weights.

    minimize cᵀx over x in {0, 1}ⁿ with wᵀx ≤ capacity. Costs c [B, n] are the negated values of the items.

    Args:
        weights: w [n], nonnegative integers.
        capacity: an integer, or None to read it by sample from the model, which must then state wᵀx ≤ h as
            its only inequality: h, rounded down. A sample with h < 0 gets NaN.

    Ties: an item is not taken where leaving it is as good, judged from the last item to the first; so items
    with c ≥ 0 are never taken.

    Dynamic program over the items and the capacities 0, g, 2g, …, where g is the greatest common divisor of
    the weights. Source: Kellerer, Pferschy and Pisinger (2004), "Knapsack Problems", section 2.3,
    doi:10.1007/978-3-540-24777-7.
    """

    weights: Any
    capacity: int | None = None

    name = "knapsack"

    def __post_init__(self) -> None:
        weights = integers("weights", self.weights, 1)
        if (weights < 0).any():
            raise ModelError(f"weights must not be negative, got {weights.min()}")
        object.__setattr__(self, "weights", FixedArray(weights))
        if self.capacity is not None:
            capacity = int(integers("capacity", [self.capacity], 1)[0])
            if capacity < 0:
                raise ModelError(f"capacity must not be negative, got {capacity}")
            object.__setattr__(self, "capacity", capacity)
        if self.size() * (self.top + 1) > LARGEST_TABLE:
            raise ModelError(
                f"{self.size()} items and capacities up to {self.top} (in units of {self.unit}) are too many "
                f"for a dynamic program: state a model with integer variables and solve that with HiGHS"
            )

    @functools.cached_property
    def unit(self) -> int:
        """The greatest common divisor of the weights."""
        return max(int(np.gcd.reduce(self.weights.array)), 1)

    @functools.cached_property
    def top(self) -> int:
        """The largest capacity that matters, in units."""
        total = int(self.weights.array.sum())
        return (total if self.capacity is None else min(self.capacity, total)) // self.unit

    def size(self) -> int:
        """Number of items."""
        return len(self.weights)

    def refuses(self, program: QuadraticProgram) -> str | None:
        """Why this class of programs is not for the oracle, or None."""
        if self.capacity is None and program.num_inequalities != 1:
            return (
                f"a knapsack without a capacity reads it from the model's only inequality; this model has "
                f"{program.num_inequalities}"
            )
        return super().refuses(program)

    def minimize(self, cost: Array, program: QuadraticProgram) -> Array:
        """Item indicators [B, n]."""
        if self.capacity is not None:
            return _knapsack(self, cost, np.full(1, self.top))
        limit = jnp.minimum(program.h[:, 0], self.top * self.unit) / self.unit
        whole = jnp.round(limit)
        close = abs(limit - whole) <= max(ROUNDING, 4 * float(jnp.finfo(limit.dtype).eps)) * whole
        return _knapsack(self, cost, jnp.where(close, whole, jnp.floor(limit)))


@functools.partial(jax.jit, static_argnums=0)
def _knapsack(knapsack: Knapsack, cost: Array, limit: Array) -> Array:
    """`limit` [B or 1]: capacities in units, whole numbers."""
    top, batch = knapsack.top, cost.shape[0]
    weight = np.minimum(knapsack.weights.array // knapsack.unit, top + 1)  # top + 1: fits in no knapsack
    reach = int(weight.max())
    room = jnp.broadcast_to(jnp.where(limit >= 0, limit, 0).astype(jnp.int32), (batch,))

    # best[r]: the least cost of the items so far in a knapsack of capacity r.
    def forward(best: Array, item: tuple[Array, Array]) -> tuple[Array, Array]:
        weight, cost = item
        padded = jnp.pad(best, ((reach, 0), (0, 0)), constant_values=jnp.inf)
        packed = jax.lax.dynamic_slice_in_dim(padded, reach - weight, top + 1) + cost
        return jnp.minimum(best, packed), packed < best

    items = jnp.asarray(weight, jnp.int32)
    _, better = jax.lax.scan(forward, jnp.zeros((top + 1, batch), cost.dtype), (items, cost.T))

    def backward(room: Array, item: tuple[Array, Array]) -> tuple[Array, Array]:
        weight, better = item
        taken = better[room, jnp.arange(batch)]
        return room - jnp.where(taken, weight, 0), taken

    _, taken = jax.lax.scan(backward, room, (items, better), reverse=True)
    return jnp.where((limit >= 0)[:, None], taken.T.astype(cost.dtype), jnp.nan)


@dataclass(frozen=True)
class MultiKnapsack(LinearOracle):
    """The 0-1 knapsack with several constraints, for instances with few maximal sets.

    minimize cᵀx over x in {0, 1}ⁿ with W x ≤ capacities. Costs c [B, n] are the negated values of the items.

    Args:
        weights: W [m, n], nonnegative.
        capacities: [m], nonnegative.
        limit: the largest number of sets to search through.

    Every maximal feasible set (no further item fits) is found at construction; the best one has the least sum
    of min(c, 0), a matrix product for all of them at once, and items with c ≥ 0 are dropped from it.

    Ties: the first of the sets in descending lexicographic order of their indicators.

    A total weight may exceed a capacity by a relative 1e-9, for weights such as 0.1 that are not exact.

    Raises:
        ModelError: there are more than `limit` sets; solve the model with HiGHS instead.
    """

    weights: Any
    capacities: Any
    limit: int = 200_000

    name = "multi-knapsack"

    def __post_init__(self) -> None:
        weights, capacities = finite("weights", self.weights, 2), finite("capacities", self.capacities, 1)
        if len(weights) != len(capacities):
            raise ModelError(
                f"weights [{len(weights)}, {weights.shape[1]}] need {len(weights)} capacities, "
                f"got {len(capacities)}"
            )
        for name, values in (("weights", weights), ("capacities", capacities)):
            if (values < 0).any():
                raise ModelError(f"{name} must not be negative, got {values.min():g}")
        object.__setattr__(self, "weights", FixedArray(weights))
        object.__setattr__(self, "capacities", FixedArray(capacities))
        _ = self.sets  # refuses too many

    def size(self) -> int:
        """Number of items."""
        return self.weights.array.shape[1]

    @functools.cached_property
    def sets(self) -> np.ndarray:
        """The maximal feasible sets as 0/1 rows [K, n]."""
        return _maximal_sets(np.asarray(self.weights), np.asarray(self.capacities), self.limit)

    def minimize(self, cost: Array, program: QuadraticProgram) -> Array:
        """Item indicators [B, n]."""
        return _multi_knapsack(self, cost)


@functools.partial(jax.jit, static_argnums=0)
def _multi_knapsack(knapsack: MultiKnapsack, cost: Array) -> Array:
    best = first_minimizer(knapsack.sets, jnp.minimum(cost, 0))
    return jnp.where(cost < 0, best, 0)


def _maximal_sets(weights: np.ndarray, capacities: np.ndarray, limit: int) -> np.ndarray:
    """All maximal x in {0, 1}ⁿ with W x ≤ capacities, in descending lexicographic order.

    Items are decided one after the other, the heaviest first, for all partial sets at once. A partial set
    ends when an item left out would fit even beside all that are still to come.
    """
    roof = capacities + ROUNDING * np.maximum(1.0, capacities)
    order = np.argsort(-(weights / np.maximum(capacities, 1e-300)[:, None]).max(axis=0), kind="stable")
    weights = weights[:, order].T  # [n, m]
    n = len(weights)
    rest = np.concatenate([np.cumsum(weights[::-1], axis=0)[::-1][1:], np.zeros((1, len(capacities)))])
    chosen, load = np.zeros((1, n), bool), np.zeros((1, len(capacities)))
    for k in range(n):
        packed = load + weights[k]
        fits = (packed <= roof).all(axis=1)
        more = chosen[fits]
        more[:, k] = True
        chosen, load = np.concatenate([chosen, more]), np.concatenate([load, packed[fits]])
        # Items left out so far, each against what the set will weigh at most.
        room = roof - (load + rest[k])
        open_ = np.zeros(len(chosen), bool)
        for j in range(k + 1):
            open_ |= ~chosen[:, j] & (weights[j] <= room).all(axis=1)
        chosen, load = chosen[~open_], load[~open_]
        if len(chosen) > limit:
            raise ModelError(
                f"the knapsack of {n} items has more than {limit} sets to search through: raise `limit`, or "
                f"state it as a model with integer variables and solve that with HiGHS"
            )
    sets = np.zeros((len(chosen), n), bool)
    sets[:, order] = chosen
    return sets[np.lexsort(~sets.T[::-1])]
