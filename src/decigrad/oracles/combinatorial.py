"""Classic combinatorial sets: assignments, spanning trees, compatible intervals."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np

from decigrad.errors import ModelError
from decigrad.oracles.fixed import FixedArray, edge_list, finite, one_hot_rows, positive
from decigrad.oracles.protocol import LinearOracle
from decigrad.program import Array, QuadraticProgram


@dataclass(frozen=True)
class Assignment(LinearOracle):
    """Assignment of rows to columns.

    minimize Σ cᵢⱼ xᵢⱼ over 0/1 matrices x, flattened row by row: with rows ≤ cols every row has exactly one 1
    and every column at most one; with rows > cols the other way round. Costs c [B, rows·cols] of any sign.

    Args:
        rows: their number.
        cols: the number of columns; default: as many as rows.

    Ties: as SciPy's `linear_sum_assignment` breaks them, a function of the sample's costs alone.

    On the host. Source: Crouse (2016), "On implementing 2D rectangular assignment algorithms", IEEE
    Transactions on Aerospace and Electronic Systems 52, doi:10.1109/TAES.2016.140952.
    """

    rows: int
    cols: int = 0

    name = "assignment"
    host: ClassVar[bool] = True

    def __post_init__(self) -> None:
        object.__setattr__(self, "rows", positive("rows", self.rows))
        object.__setattr__(self, "cols", positive("cols", self.cols or self.rows))

    def size(self) -> int:
        """Number of pairs."""
        return self.rows * self.cols

    def minimize(self, cost: Array, program: QuadraticProgram) -> Array:
        """Assignment indicators [B, rows·cols]."""
        from scipy.optimize import linear_sum_assignment

        x = np.zeros(cost.shape)
        for table, found in zip(cost.reshape(-1, self.rows, self.cols), x, strict=True):
            row, col = linear_sum_assignment(table)
            found[row * self.cols + col] = 1.0
        return x


@dataclass(frozen=True)
class SpanningTree(LinearOracle):
    """Minimum spanning tree of a connected undirected graph.

    minimize cᵀx over the indicators x [B, E] of spanning trees, of num_nodes − 1 edges each; costs of any
    sign.

    Args:
        num_nodes: nodes are 0 to num_nodes − 1.
        edges: [E, 2] pairs of nodes, in the order of the costs. Parallel edges are distinct.

    Ties: of edges that cost the same, those that come first in `edges` are tried first.

    Source: Kruskal (1956), "On the shortest spanning subtree of a graph and the traveling salesman problem",
    Proceedings of the American Mathematical Society 7, doi:10.1090/S0002-9939-1956-0078686-7.
    """

    num_nodes: int
    edges: Any

    name = "spanning tree"

    def __post_init__(self) -> None:
        num_nodes = positive("num_nodes", self.num_nodes)
        edges = edge_list(self.edges, num_nodes)
        loops = edges[:, 0] == edges[:, 1]
        if loops.any():
            e = int(np.flatnonzero(loops)[0])
            raise ModelError(f"edge {e} joins node {edges[e, 0]} to itself")
        label = np.arange(num_nodes)
        for u, v in edges:
            label[label == label[v]] = label[u]
        if (label != label[0]).any():
            other = int(np.flatnonzero(label != label[0])[0])
            raise ModelError(f"the graph is not connected: no path joins nodes 0 and {other}")
        object.__setattr__(self, "num_nodes", num_nodes)
        object.__setattr__(self, "edges", FixedArray(edges))

    def size(self) -> int:
        """Number of edges."""
        return len(self.edges)

    def minimize(self, cost: Array, program: QuadraticProgram) -> Array:
        """Tree indicators [B, E]."""
        return _spanning_tree(self, cost)


@functools.partial(jax.jit, static_argnums=0)
def _spanning_tree(tree: SpanningTree, cost: Array) -> Array:
    batch, n = cost.shape
    edges, lanes = jnp.asarray(tree.edges.array, jnp.int32), jnp.arange(batch)
    order = jnp.argsort(cost, axis=-1, stable=True).T  # [E, B]

    def join(label: Array, edge: Array) -> tuple[Array, Array]:
        """`label` [num_nodes, B] names the component of each node."""
        here, there = label[edges[edge, 0], lanes], label[edges[edge, 1], lanes]
        return jnp.where(label == there, here, label), here != there

    nodes = jnp.arange(tree.num_nodes, dtype=jnp.int32)[:, None]
    label = jnp.broadcast_to(nodes, (tree.num_nodes, batch))
    _, joins = jax.lax.scan(join, label, order)
    return one_hot_rows(jnp.where(joins, order, n), n, cost.dtype)


@dataclass(frozen=True)
class IntervalScheduling(LinearOracle):
    """Choice of intervals that do not overlap.

    minimize cᵀx over the indicators x [B, n] of sets of pairwise disjoint intervals [startᵢ, endᵢ); one may
    begin where another ends. Costs c [B, n] are the negated weights of the intervals.

    Args:
        starts: [n].
        ends: [n], each later than its start.

    Ties: an interval is not taken where leaving it is as good, judged from the one that ends last to the one
    that ends first; so intervals with c ≥ 0 are never taken.

    Dynamic program over the intervals by their ends. Source: Kleinberg and Tardos (2006), "Algorithm Design",
    section 6.1.
    """

    starts: Any
    ends: Any

    name = "interval scheduling"

    def __post_init__(self) -> None:
        starts, ends = finite("starts", self.starts, 1), finite("ends", self.ends, 1)
        if starts.shape != ends.shape:
            raise ModelError(f"starts and ends differ in number: {len(starts)} and {len(ends)}")
        if (starts >= ends).any():
            i = int(np.flatnonzero(starts >= ends)[0])
            raise ModelError(f"interval {i} must end after its start: it is [{starts[i]:g}, {ends[i]:g})")
        object.__setattr__(self, "starts", FixedArray(starts))
        object.__setattr__(self, "ends", FixedArray(ends))

    def size(self) -> int:
        """Number of intervals."""
        return len(self.starts)

    def minimize(self, cost: Array, program: QuadraticProgram) -> Array:
        """Interval indicators [B, n]."""
        return _interval_scheduling(self, cost)


@functools.partial(jax.jit, static_argnums=0)
def _interval_scheduling(oracle: IntervalScheduling, cost: Array) -> Array:
    starts, ends = oracle.starts.array, oracle.ends.array
    order = np.argsort(ends, kind="stable").astype(np.int32)
    before = np.searchsorted(ends[order], starts[order], side="right")  # intervals that end in time
    (batch, n), before = cost.shape, jnp.asarray(before, jnp.int32)

    # best[i]: the least cost of the first i intervals.
    def forward(best: Array, given: tuple[Array, ...]) -> tuple[Array, Array]:
        i, before, cost = given
        left, taken = best[i], best[before] + cost
        return best.at[i + 1].set(jnp.minimum(left, taken)), taken < left

    place = jnp.arange(n, dtype=jnp.int32)
    _, better = jax.lax.scan(forward, jnp.zeros((n + 1, batch), cost.dtype), (place, before, cost.T[order]))

    def backward(count: Array, given: tuple[Array, ...]) -> tuple[Array, Array]:
        """`count` [B]: the first intervals that may still be taken."""
        i, before, better = given
        taken = better & (count == i + 1)
        return jnp.where(taken, before, jnp.minimum(count, i)), taken

    _, taken = jax.lax.scan(backward, jnp.full(batch, n, jnp.int32), (place, before, better), reverse=True)
    return taken.T[:, np.argsort(order).astype(np.int32)].astype(cost.dtype)
