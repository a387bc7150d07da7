"""Shortest paths in grids: over edges, right and down; over nodes, to all eight neighbors."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import ClassVar

import jax
import jax.numpy as jnp
import numpy as np

from decigrad.errors import ModelError
from decigrad.oracles.fixed import one_hot_rows, positive
from decigrad.oracles.protocol import LinearOracle
from decigrad.program import Array, QuadraticProgram


@dataclass(frozen=True)
class GridPath(LinearOracle):
    """Shortest path from the top left to the bottom right of a grid, moving right and down.

    minimize cᵀx over the indicators x [B, n] of such paths; costs of any sign on n = rows·(cols − 1) +
    (rows − 1)·cols edges. Row by row: first the cols − 1 edges within row i, from (i, j) to (i, j + 1), then
    the cols edges down to row i + 1, from (i, j) to (i + 1, j). Nodes are numbered i·cols + j.

    Ties: traced back from the end, the path comes from the left where it could come from above too.

    Dynamic program over anti-diagonals. Edge order: Tang and Khalil (2024), "PyEPO", Mathematical Programming
    Computation 16, doi:10.1007/s12532-024-00255-x.
    """

    rows: int
    cols: int

    name = "grid path"

    def __post_init__(self) -> None:
        object.__setattr__(self, "rows", positive("rows", self.rows))
        object.__setattr__(self, "cols", positive("cols", self.cols))
        if self.rows * self.cols == 1:
            raise ModelError("a grid of one node has no edges")

    def size(self) -> int:
        """Number of edges."""
        return self.rows * (2 * self.cols - 1) - self.cols

    def edges(self) -> np.ndarray:
        """The edges [n, 2] as pairs of nodes, in the order of the costs."""
        node = np.arange(self.rows * self.cols).reshape(self.rows, self.cols)
        right = np.stack([node[:, :-1], node[:, 1:]], axis=-1)
        down = np.stack([node[:-1], node[1:]], axis=-1)
        parts = [part for i in range(self.rows - 1) for part in (right[i], down[i])]
        return np.concatenate([*parts, right[-1]])

    def minimize(self, cost: Array, program: QuadraticProgram) -> Array:
        """Path indicators [B, n]."""
        return _grid_path(self, cost)


def _skewed(table: Array) -> Array:
    """Entries (i, j) of [rows, cols, B] at (i + j − 1, i): the diagonals after the first, padded with ∞."""
    rows, cols, batch = table.shape
    padded = jnp.pad(table, ((0, 0), (0, rows), (0, 0)), constant_values=jnp.inf)
    width = rows + cols - 1  # one less than a padded row: cut there, row i starts i places later
    flat = padded.reshape(rows * (width + 1), batch)[: rows * width]
    return flat.reshape(rows, width, batch).transpose(1, 0, 2)[1:]


@functools.partial(jax.jit, static_argnums=0)
def _grid_path(grid: GridPath, cost: Array) -> Array:
    rows, cols = grid.rows, grid.cols
    batch, n = cost.shape
    table = jnp.pad(cost.T, ((0, cols), (0, 0))).reshape(rows, 2 * cols - 1, batch)
    left = _skewed(jnp.pad(table[:, : cols - 1], ((0, 0), (1, 0), (0, 0)), constant_values=jnp.inf))
    above = _skewed(jnp.pad(table[:-1, cols - 1 :], ((1, 0), (0, 0), (0, 0)), constant_values=jnp.inf))

    def forward(best: Array, into: tuple[Array, Array]) -> tuple[Array, Array]:
        across = best + into[0]
        down = jnp.pad(best, ((1, 0), (0, 0)), constant_values=jnp.inf)[:-1] + into[1]
        return jnp.minimum(across, down), across <= down

    start = jnp.where(jnp.arange(rows)[:, None] == 0, jnp.zeros((rows, batch), cost.dtype), jnp.inf)
    _, horizontal = jax.lax.scan(forward, start, (left, above))

    def backward(row: Array, horizontal: Array) -> tuple[Array, tuple[Array, Array]]:
        taken = horizontal[row, jnp.arange(batch)]
        return row - ~taken, (row, taken)

    end = jnp.full(batch, rows - 1)
    _, (row, taken) = jax.lax.scan(backward, end, horizontal, reverse=True)
    col = jnp.arange(1, rows + cols - 1)[:, None] - row
    return one_hot_rows(row * (2 * cols - 1) + col - jnp.where(taken, 1, cols), n, cost.dtype)


@dataclass(frozen=True)
class NodeGridPath(LinearOracle):
    """Cheapest path from the top left to the bottom right of a grid, moving to any of eight neighbors.

    minimize cᵀx over the indicators x [B, rows·cols] of the nodes of such paths, both ends included; costs
    c ≥ 0 on the nodes, row by row. A sample with a negative cost gets NaN.

    Args:
        rows, cols: of the grid.
        cover: minimize over all sets of nodes that contain a path instead. Where c ≥ 0 the answers are the
            same; nodes of negative cost are taken besides the cheapest path for max(c, 0). So losses that ask
            about costs such as 2ĉ − c find a minimizer, over a set whose best decisions are paths.

    Ties: among cheapest paths one with the fewest nodes; traced back from the end, the predecessor that comes
    first by rows.

    Bellman–Ford sweeps over the whole grid until nothing changes. The setting is that of the Warcraft maps of
    Vlastelica et al. (2020), "Differentiation of Blackbox Combinatorial Solvers", ICLR, arXiv:1912.02175.
    """

    rows: int
    cols: int
    cover: bool = False

    name = "node grid path"
    stated: ClassVar[bool] = False

    def __post_init__(self) -> None:
        object.__setattr__(self, "rows", positive("rows", self.rows))
        object.__setattr__(self, "cols", positive("cols", self.cols))

    def size(self) -> int:
        """Number of nodes."""
        return self.rows * self.cols

    def minimize(self, cost: Array, program: QuadraticProgram) -> Array:
        """Node indicators [B, n]."""
        return _node_grid_path(self, cost)


_NEIGHBORS = [(di, dj) for di in (-1, 0, 1) for dj in (-1, 0, 1) if (di, dj) != (0, 0)]


@functools.partial(jax.jit, static_argnums=0)
def _node_grid_path(grid: NodeGridPath, cost: Array) -> Array:
    rows, cols = grid.rows, grid.cols
    batch, n = cost.shape
    valid = (cost >= 0).all(-1) | grid.cover
    weight = jnp.maximum(cost, 0).T.reshape(rows, cols, batch)
    at_start = (jnp.arange(n) == 0).reshape(rows, cols, 1)

    # A predecessor is noted only when a distance falls. Its own distance fell in an earlier sweep, so
    # following predecessors ends at the start even where nodes cost nothing.
    def sweep(state: tuple[Array, Array, Array]) -> tuple[Array, Array, Array]:
        distance, origin, _ = state
        around = jnp.pad(distance, ((1, 1), (1, 1), (0, 0)), constant_values=jnp.inf)
        best = jnp.full_like(distance, jnp.inf)
        come = jnp.zeros_like(origin)
        for k, (di, dj) in enumerate(_NEIGHBORS):
            other = around[1 + di : 1 + di + rows, 1 + dj : 1 + dj + cols]
            come = jnp.where(other < best, jnp.int8(k), come)
            best = jnp.minimum(best, other)
        found = best + weight
        falls = found < distance
        return jnp.where(falls, found, distance), jnp.where(falls, come, origin), falls.any()

    first = jnp.where(at_start, weight, jnp.inf)
    initial = first, jnp.zeros((rows, cols, batch), jnp.int8), jnp.array(True)
    _, origin, _ = jax.lax.while_loop(lambda state: state[2], sweep, initial)

    step = jnp.array([di * cols + dj for di, dj in _NEIGHBORS])
    origin, lanes = origin.reshape(n, batch), jnp.arange(batch)

    def walk(state: tuple[Array, Array]) -> tuple[Array, Array]:
        node, x = state
        node = jnp.where(node == 0, 0, node + step[origin[node, lanes]])
        return node, x.at[lanes, node].set(1)

    end = jnp.full(batch, n - 1)
    x = jnp.zeros((batch, n), cost.dtype).at[:, n - 1].set(1)
    _, x = jax.lax.while_loop(lambda state: (state[0] != 0).any(), walk, (end, x))
    return jnp.where(valid[:, None], jnp.maximum(x, cost < 0), jnp.nan)
