"""The vertices next to a vertex of a linear program, by pivoting; on the host, before training."""

from __future__ import annotations

import numpy as np

from decigrad.errors import ModelError
from decigrad.program import QuadraticProgram

ZERO = 1e-9  # pivot elements and steps below it are zero


def adjacent_vertices(program: QuadraticProgram, x: np.ndarray, bases: int) -> np.ndarray:
    """The vertices [K, n] that share an edge with the vertex x [n] of a program (a batch of one).

    With slacks X = (x, h − Gx) a basis holds every entry strictly between its bounds. From a basis each entry
    at a bound can be moved, the basic ones following: a positive step up to the first bound is an edge, and
    its end an adjacent vertex. A step of zero means degeneracy: exchanging the entry with a basic one that
    stops it gives another basis of the same vertex, which may show other edges. The rule there: a random walk
    (of a fixed seed) over such exchanges, `bases` steps long. All that is returned is adjacent; all adjacent
    vertices are, if x is not degenerate, and with growing `bases` if it is. Edges without end have no vertex.

    Raises:
        ModelError: x is not a vertex of the (relaxed) program.
    """
    M, low, high, X = _standard_form(program, x)
    n = x.size
    scale = 1e-7 * (1.0 + np.abs(X))
    at_low, at_high = X - low <= scale, high - X <= scale
    movable = high - low > scale
    basis = _first_basis(M, ~(at_low | at_high))
    rng = np.random.default_rng(0)
    found: dict[bytes, np.ndarray] = {}
    for _ in range(bases):
        outside = np.setdiff1d(np.flatnonzero(movable), basis, assume_unique=True)
        direction = np.where(at_low[outside], 1.0, -1.0)
        follow = -np.linalg.solve(M[:, basis], M[:, outside]) * direction
        room = np.where(follow > 0, (high - X)[basis][:, None], (X - low)[basis][:, None])
        stop = np.full(follow.shape, np.inf)
        np.divide(np.maximum(room, 0.0), abs(follow), out=stop, where=abs(follow) > ZERO)
        step = np.minimum(stop.min(axis=0, initial=np.inf), (high - low)[outside])
        stuck = step <= ZERO * (1.0 + np.abs(X).max())
        for j in np.flatnonzero(~stuck & np.isfinite(step)):
            end = X.copy()
            end[basis] += step[j] * follow[:, j]
            end[outside[j]] += step[j] * direction[j]
            found.setdefault((end[:n].round(7) + 0.0).tobytes(), end[:n])
        if not stuck.any():
            break
        enters = rng.choice(np.flatnonzero(stuck))
        leaves = rng.choice(np.flatnonzero(stop[:, enters] <= step[enters]))
        basis = np.sort(np.append(np.delete(basis, leaves), outside[enters]))
    return np.stack(list(found.values())) if found else np.zeros((0, n))


def _standard_form(
    program: QuadraticProgram, x: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Rows M X = const with independent rows, bounds of X, and X itself."""
    from scipy.linalg import qr

    A, G, h = program.A.matrix[0], program.G.matrix[0], program.h[0]
    kept = np.isfinite(h)
    G, h = G[kept], h[kept]
    if len(A):
        _, triangle, order = qr(A.T, mode="economic", pivoting=True)
        size = np.abs(np.diag(triangle))
        A = A[np.sort(order[: (size > ZERO * max(size.max(initial=0.0), 1.0)).sum()])]
    slacks = np.zeros((len(A) + len(G), len(G)))
    slacks[len(A) :] = np.eye(len(G))
    M = np.hstack([np.vstack([A, G]), slacks])
    low = np.concatenate([program.lb[0], np.zeros(len(G))])
    high = np.concatenate([program.ub[0], np.full(len(G), np.inf)])
    return M, low, high, np.concatenate([x, h - G @ x])


def _first_basis(M: np.ndarray, between: np.ndarray) -> np.ndarray:
    """Columns of a nonsingular square matrix, with all of those strictly between their bounds among them."""
    from scipy.linalg import qr

    inner = np.flatnonzero(between)
    q, triangle = np.linalg.qr(M[:, inner], mode="complete") if len(inner) else (np.eye(len(M)), M[:, inner])
    independent = len(inner) <= len(M) and (np.abs(np.diag(triangle)) > ZERO).all()
    if not independent:
        raise ModelError(
            "AdjacentVertices: an optimal decision is not a vertex of the (relaxed) linear program: entries "
            "strictly between their bounds leave it free to move. Use a solver that returns vertices, as "
            "HiGHS does; of integer variables only 0/1 ones are vertices"
        )
    outer = np.flatnonzero(~between)
    _, _, order = qr(q[:, len(inner) :].T @ M[:, outer], mode="economic", pivoting=True)
    return np.sort(np.concatenate([inner, outer[order[: len(M) - len(inner)]]]))
