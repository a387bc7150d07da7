"""The programs that the layers are timed on: five rows, in any size and for any batch.

    min ½xᵀPx + cᵀx   s.t.  Ax = b,  Gx ≤ h,  lb ≤ x ≤ ub,        c differs by sample, the rest is shared.

This module imports NumPy alone: it is read by processes that hold one peer each.
"""

from __future__ import annotations

import zlib
from dataclasses import dataclass

import numpy as np

Array = np.ndarray


@dataclass(frozen=True)
class Cell:
    """One measurement's place: a row of the table, a batch, a size (the row's own if None)."""

    row: str
    batch: int
    size: int | None = None

    @property
    def n(self) -> int:
        """Variables asked for; a grid takes the nearest number of edges that it can have."""
        return self.size or ROWS[self.row].size

    @property
    def key(self) -> str:
        return f"{self.row}-n{self.n}-batch{self.batch}"


@dataclass(frozen=True)
class Row:
    """A row of the table: what it is, its own size and batch."""

    title: str
    size: int
    batch: int


ROWS = {
    "a": Row("the tutorial's QP: shares that add up to one", 3, 128),
    "b": Row("dense QP, n/5 equalities, n inequalities", 50, 128),
    "c": Row("dense QP, n/4 equalities, n inequalities", 200, 32),
    "d": Row("shortest path on a grid, with a small quadratic", 40, 128),
    "e": Row("portfolio, covariance of n/10 factors plus a diagonal", 100, 128),
}
"""a: n = 3; b: n = 50; c: n = 200; d: a 5 × 5 grid, 40 edges; e: n = 100."""


@dataclass(frozen=True)
class Program:
    """A cell's program, and its costs [B, n]. P = diag(diagonal) + factorᵀfactor where these are given."""

    P: Array
    A: Array
    b: Array
    G: Array
    h: Array
    lb: Array
    ub: Array
    cost: Array
    factor: Array | None = None
    diagonal: Array | None = None

    @property
    def n(self) -> int:
        return len(self.lb)

    @property
    def rows(self) -> tuple[Array, Array]:
        """Inequalities with the finite bounds as rows below them: ub, then lb."""
        low, high = np.isfinite(self.lb), np.isfinite(self.ub)
        eye = np.eye(self.n)
        return (
            np.vstack([self.G, eye[high], -eye[low]]),
            np.concatenate([self.h, self.ub[high], -self.lb[low]]),
        )


def program(cell: Cell) -> Program:
    """The program of a cell; the first costs are the same for every batch."""
    n = cell.n
    rng = np.random.default_rng(zlib.crc32(f"{cell.row}{n}".encode()))
    draw = np.random.default_rng(zlib.crc32(f"costs {cell.row}{n}".encode()))
    none, nothing, free = np.zeros((0, n)), np.zeros(0), np.full(n, np.inf)
    ones, zeros = np.ones(n), np.zeros(n)
    if cell.row == "a":
        cost = draw.normal(size=(cell.batch, n))
        return Program(
            2.0 * np.eye(n), np.ones((1, n)), np.ones(1), none, nothing, zeros, ones, cost, None, 2.0 * ones
        )
    if cell.row in ("b", "c"):
        root, equalities = rng.normal(size=(n, n)), n // (5 if cell.row == "b" else 4)
        P = root @ root.T / n + 0.1 * np.eye(n)
        A, G, inside = rng.normal(size=(equalities, n)), rng.normal(size=(n, n)), rng.normal(size=n)
        h = G @ inside + rng.uniform(0.0, 1.0, n)
        return Program(P, A, A @ inside, G, h, -free, free, 3.0 * draw.normal(size=(cell.batch, n)))
    if cell.row == "d":
        A, b = grid(grid_side(n))
        n = A.shape[1]
        cost = draw.uniform(0.5, 2.0, size=(cell.batch, n))
        none, ones, zeros = np.zeros((0, n)), np.ones(n), np.zeros(n)
        return Program(0.1 * np.eye(n), A, b, none, nothing, zeros, ones, cost, None, 0.1 * ones)
    factor = rng.normal(size=(max(1, n // 10), n)) / np.sqrt(max(1, n // 10))
    diagonal = rng.uniform(0.1, 0.5, n)
    cost = -draw.normal(0.1, 0.5, size=(cell.batch, n))
    P = np.diag(diagonal) + factor.T @ factor
    return Program(P, np.ones((1, n)), np.ones(1), none, nothing, zeros, ones, cost, factor, diagonal)


def grid_side(n: int) -> int:
    """Nodes on a side of the grid whose 2k(k − 1) edges are nearest to n."""
    return min(range(2, 100), key=lambda k: abs(2 * k * (k - 1) - n))


def grid(k: int) -> tuple[Array, Array]:
    """Flow conservation on a k × k grid, right and down; the last, dependent row is left out."""
    edges = [((i, j), (i, j + 1)) for i in range(k) for j in range(k - 1)]
    edges += [((i, j), (i + 1, j)) for i in range(k - 1) for j in range(k)]
    A = np.zeros((k * k, len(edges)))
    for e, ((i, j), (u, v)) in enumerate(edges):
        A[i * k + j, e], A[u * k + v, e] = 1.0, -1.0
    b = np.zeros(k * k)
    b[0], b[-1] = 1.0, -1.0
    return A[:-1], b[:-1]
