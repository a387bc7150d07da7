"""Shortest paths in directed graphs: without cycles by a dynamic program, in general by Bellman–Ford."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from decigrad.errors import ModelError
from decigrad.oracles.fixed import FixedArray, edge_list, positive
from decigrad.oracles.protocol import LinearOracle
from decigrad.program import Array, QuadraticProgram

LARGEST_TABLE = 50_000_000
"""Entries of a table of the edges into each node; beyond it a graph is refused."""


class _Table(NamedTuple):
    """The part of a graph between source and target, by the edges into each node.

    Nodes are renumbered. `edge` [.., D]: the edges into a node in their order, padded with E; `tail` [.., D]:
    where they come from. `tail_of` [E]: the same by edge. `steps`: no path has more edges.
    """

    edge: np.ndarray
    tail: np.ndarray
    tail_of: np.ndarray
    source: int
    target: int
    steps: int


@dataclass(frozen=True)
class DagPath(LinearOracle):
    """Shortest path from `source` to `target` in a directed graph without cycles.

    minimize cᵀx over the indicators x [B, E] of such paths; costs of any sign on the edges.

    Args:
        num_nodes: nodes are 0 to num_nodes − 1.
        edges: [E, 2] pairs (tail, head) in any order, that of the costs. Parallel edges are distinct.
        source: the first node.
        target: the last node.

    Ties: traced back from the target, the edge that comes first in `edges`.

    Raises:
        ModelError: the graph has a cycle, or no path from source to target.

    Dynamic program in topological order, level by level: Bellman (1958), "On a routing problem", Quarterly of
    Applied Mathematics 16, doi:10.1090/qam/102435.
    """

    num_nodes: int
    edges: Any
    source: int
    target: int

    name = "dag path"

    def __post_init__(self) -> None:
        _check_graph(self)
        _levels(np.asarray(self.edges), self.num_nodes)
        _ = self._table  # refuses what has no path

    def size(self) -> int:
        """Number of edges."""
        return len(self.edges)

    @functools.cached_property
    def _table(self) -> _Table:
        """Tables [chunks, width, D]: a chunk holds nodes of one level, which do not depend on each other."""
        edges = np.asarray(self.edges)
        kept = _between(edges, self.num_nodes, self.source, self.target)
        level = _levels(edges[kept], self.num_nodes)
        nodes = np.unique(edges[kept])
        # About as many nodes to a chunk as a level has on average: a wide level takes several chunks.
        width = -(-len(nodes) // (int(level[nodes].max()) + 1))
        position, chunk = np.full(self.num_nodes, -1), 0
        for depth in range(int(level[nodes].max()) + 1):
            members = nodes[level[nodes] == depth]
            position[members] = chunk * width + np.arange(len(members))
            chunk += -(-len(members) // width)
        table = _into(self, edges, kept, position, chunk * width, int(level[nodes].max()))
        shape = (chunk, width, table.edge.shape[1])
        return table._replace(edge=table.edge.reshape(shape), tail=table.tail.reshape(shape))

    def minimize(self, cost: Array, program: QuadraticProgram) -> Array:
        """Path indicators [B, E]."""
        return _dag_path(self, cost)


@dataclass(frozen=True)
class GraphPath(LinearOracle):
    """Shortest path from `source` to `target` in a directed graph that may have cycles.

    minimize cᵀx over the indicators x [B, E] of such paths; costs of any sign on the edges. A sample with a
    cycle of negative cost on a walk from source to target gets NaN: what remains is no shortest path problem.

    Args:
        num_nodes: nodes are 0 to num_nodes − 1.
        edges: [E, 2] pairs (tail, head), in the order of the costs. An undirected edge is two.
        source: the first node.
        target: the last node.

    Ties: among shortest paths one with the fewest edges; traced back from the target, the edge that comes
    first in `edges`.

    Raises:
        ModelError: no path from source to target.

    Bellman–Ford sweeps over all nodes until nothing changes; source as for `DagPath`.
    """

    num_nodes: int
    edges: Any
    source: int
    target: int

    name = "graph path"

    def __post_init__(self) -> None:
        _check_graph(self)
        _ = self._table  # refuses what has no path

    def size(self) -> int:
        """Number of edges."""
        return len(self.edges)

    @functools.cached_property
    def _table(self) -> _Table:
        edges = np.asarray(self.edges)
        kept = _between(edges, self.num_nodes, self.source, self.target)
        kept &= edges[:, 0] != edges[:, 1]
        nodes = np.unique(edges[kept])
        position = np.full(self.num_nodes, -1)
        position[nodes] = np.arange(len(nodes))
        return _into(self, edges, kept, position, len(nodes), len(nodes) - 1)

    def minimize(self, cost: Array, program: QuadraticProgram) -> Array:
        """Path indicators [B, E]."""
        return _graph_path(self, cost)


# ------------------------------------------------------------------------------------------ construction


def _check_graph(oracle: DagPath | GraphPath) -> None:
    num_nodes = positive("num_nodes", oracle.num_nodes)
    object.__setattr__(oracle, "num_nodes", num_nodes)
    object.__setattr__(oracle, "edges", FixedArray(edge_list(oracle.edges, num_nodes)))
    for end in ("source", "target"):
        node = getattr(oracle, end)
        if not isinstance(node, (int, np.integer)) or not 0 <= node < num_nodes:
            raise ModelError(f"{end} must be a node from 0 to {num_nodes - 1}, got {node!r}")
        object.__setattr__(oracle, end, int(node))
    if oracle.source == oracle.target:
        raise ModelError(f"source and target are the same node, {oracle.source}")


def _reachable(edges: np.ndarray, num_nodes: int, start: int) -> np.ndarray:
    found = np.zeros(num_nodes, bool)
    found[start] = True
    while True:
        new = edges[found[edges[:, 0]] & ~found[edges[:, 1]], 1]
        if not len(new):
            return found
        found[new] = True


def _between(edges: np.ndarray, num_nodes: int, source: int, target: int) -> np.ndarray:
    """The edges [E] on walks from source to target."""
    ahead = _reachable(edges, num_nodes, source)
    if not ahead[target]:
        raise ModelError(f"no path leads from source {source} to target {target}")
    back = _reachable(edges[:, ::-1], num_nodes, target)
    return ahead[edges[:, 0]] & back[edges[:, 1]]


def _levels(edges: np.ndarray, num_nodes: int) -> np.ndarray:
    """The number of edges [num_nodes] on the longest path into each node."""
    level, open_edges = np.zeros(num_nodes, int), np.ones(len(edges), bool)
    waiting = np.bincount(edges[:, 1], minlength=num_nodes)
    ready = waiting == 0
    for depth in range(1, num_nodes + 1):
        leaving = open_edges & ready[edges[:, 0]]
        if not leaving.any():
            break
        open_edges &= ~leaving
        waiting -= np.bincount(edges[leaving, 1], minlength=num_nodes)
        new = (waiting == 0) & ~ready
        level[new] = depth
        ready |= new
    if open_edges.any():
        on_cycle = int(np.flatnonzero(~ready)[0])
        raise ModelError(f"the graph has a cycle at or before node {on_cycle}: use GraphPath")
    return level


def _into(
    oracle: DagPath | GraphPath,
    edges: np.ndarray,
    kept: np.ndarray,
    position: np.ndarray,
    count: int,
    steps: int,
) -> _Table:
    """The table of the edges into `count` nodes, numbered by `position`."""
    index = np.flatnonzero(kept)
    head = position[edges[index, 1]]
    order = np.argsort(head, kind="stable")
    index, head = index[order], head[order]
    degree = np.bincount(head, minlength=count)
    depth = max(int(degree.max()), 1)
    if count * depth > LARGEST_TABLE:
        raise ModelError(
            f"{count} nodes with up to {depth} edges into one are too many for this oracle: "
            f"split the nodes with many edges, or solve the flow model with HiGHS"
        )
    slot = np.arange(len(index)) - np.repeat(np.cumsum(degree) - degree, degree)
    edge = np.full((count, depth), len(edges), np.int32)
    tail = np.zeros((count, depth), np.int32)
    edge[head, slot] = index
    tail[head, slot] = position[edges[index, 0]]
    source, target = int(position[oracle.source]), int(position[oracle.target])
    return _Table(edge, tail, position[edges[:, 0]].astype(np.int32), source, target, steps)


# ---------------------------------------------------------------------------------------------- solution


def _with_padding(cost: Array) -> Array:
    """Costs by edge [E + 1, B]; the last, for padding, is infinite."""
    return jnp.pad(cost.T, ((0, 1), (0, 0)), constant_values=jnp.inf)


def _cheapest(reached: Array, edge: Array) -> tuple[Array, Array]:
    """The least of `reached` [.., D, B] and the first edge that attains it, both [.., B]."""
    best, first = reached[..., 0, :], jnp.broadcast_to(edge[..., 0, None], reached[..., 0, :].shape)
    for d in range(1, edge.shape[-1]) if edge.shape[-1] <= 8 else ():
        less = reached[..., d, :] < best
        best = jnp.where(less, reached[..., d, :], best)
        first = jnp.where(less, edge[..., d, None], first)
    if edge.shape[-1] > 8:
        best = reached.min(-2)
        first = jnp.where(reached == best[..., None, :], edge[..., None], np.iinfo(np.int32).max).min(-2)
    return best, first


def _traced_back(table: _Table, origin: Array, given_up: Array, x: Array) -> tuple[Array, Array]:
    """x [B, E] with ones on the paths from target to source, and whether they arrive [B].

    `origin` [nodes, B]: the last edge of the shortest path to each node, or E. Samples that are `given_up`
    [B] are not waited for.
    """
    batch, n = x.shape
    tail_of, lanes = jnp.asarray(table.tail_of), jnp.arange(batch)

    def walk(state: tuple[Array, ...]) -> tuple[Array, ...]:
        node, x, k = state
        edge = jnp.where(node == table.source, n, origin[node, lanes])
        x = x.at[lanes, edge].set(1, mode="drop")
        return jnp.where(edge == n, node, tail_of[jnp.minimum(edge, n - 1)]), x, k + 1

    def away(state: tuple[Array, ...]) -> Array:
        return ((state[0] != table.source) & ~given_up).any() & (state[2] < table.steps)

    target = jnp.full(batch, table.target, jnp.int32)
    node, x, _ = jax.lax.while_loop(away, walk, (target, x, jnp.array(0)))
    return x, node == table.source


@functools.partial(jax.jit, static_argnums=0)
def _dag_path(graph: DagPath, cost: Array) -> Array:
    table = graph._table
    batch, (chunks, width, _) = len(cost), table.edge.shape
    into = _with_padding(cost)[table.edge]
    start = jnp.full((chunks * width, batch), jnp.inf, cost.dtype).at[table.source].set(0)

    def chunk(distance: Array, given: tuple[Array, ...]) -> tuple[Array, Array]:
        k, edge, tail, into = given
        best, first = _cheapest(distance[tail] + into, edge)
        at = k * width
        here = jax.lax.dynamic_slice_in_dim(distance, at, width)  # 0 at the source, else infinite
        return jax.lax.dynamic_update_slice_in_dim(distance, jnp.minimum(best, here), at, 0), first

    edge = jnp.asarray(table.edge)
    _, origin = jax.lax.scan(chunk, start, (jnp.arange(chunks), edge, jnp.asarray(table.tail), into))
    return _traced_back(table, origin.reshape(-1, batch), jnp.zeros(batch, bool), jnp.zeros_like(cost))[0]


@functools.partial(jax.jit, static_argnums=0)
def _graph_path(graph: GraphPath, cost: Array) -> Array:
    table = graph._table
    (batch, n), count = cost.shape, len(table.edge)
    into, edge = _with_padding(cost)[table.edge], jnp.asarray(table.edge)
    start = jnp.full((count, batch), jnp.inf, cost.dtype).at[table.source].set(0)

    # An edge is noted only when a distance falls: see `grids._node_grid_path`. Without a negative cycle no
    # distance falls in the sweep after the longest path.
    def sweep(state: tuple[Array, ...]) -> tuple[Array, ...]:
        distance, origin, _, k = state
        best, first = _cheapest(distance[table.tail] + into, edge)
        falls = best < distance
        distance, origin = jnp.where(falls, best, distance), jnp.where(falls, first, origin)
        return distance, origin, falls.any(0), k + 1

    def unsettled(state: tuple[Array, ...]) -> Array:
        return state[2].any() & (state[3] < count)

    initial = start, jnp.full((count, batch), n, jnp.int32), jnp.ones(batch, bool), jnp.array(0)
    _, origin, endless, _ = jax.lax.while_loop(unsettled, sweep, initial)
    x, arrived = _traced_back(table, origin, endless, jnp.zeros_like(cost))
    # Rounding may hide a negative cycle from the sweeps; then the way back does not reach the source.
    return jnp.where((endless | ~arrived)[:, None], jnp.nan, x)
