"""Random programs in the standard form, as batches with NumPy leaves.

`FAMILIES` maps a name to a generator `(rng, batch) -> QuadraticProgram` of solvable convex programs;
`LINEAR` to linear ones. The other generators make programs that have no solution, or one that is known.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from decigrad.program import Dense, Diagonal, LowRank, Operator, QuadraticProgram

Generator = Callable[..., QuadraticProgram]


def program(
    P: Operator,
    q: np.ndarray,
    A: np.ndarray | None = None,
    b: np.ndarray | None = None,
    G: np.ndarray | None = None,
    h: np.ndarray | None = None,
    lb: np.ndarray | float = -np.inf,
    ub: np.ndarray | float = np.inf,
    integer: tuple[int, ...] = (),
    linear: bool = False,
) -> QuadraticProgram:
    """A batched program; every array may come single or with a batch axis, and absent blocks are empty."""
    q = np.atleast_2d(q)
    n = q.shape[1]

    def matrix(value: np.ndarray | None) -> np.ndarray:
        value = np.zeros((0, n)) if value is None else np.asarray(value, dtype=float)
        return value if value.ndim == 3 else value[None]

    def vector(value: np.ndarray | None, size: int) -> np.ndarray:
        return np.atleast_2d(np.zeros(size) if value is None else np.asarray(value, dtype=float))

    A, G = matrix(A), matrix(G)
    lb, ub = (np.atleast_2d(np.broadcast_to(v, (n,)) if np.ndim(v) < 2 else v) for v in (lb, ub))
    return QuadraticProgram(
        P=P,
        q=q.astype(float),
        r=np.zeros(1),
        A=Dense(A),
        b=vector(b, A.shape[1]),
        G=Dense(G),
        h=vector(h, G.shape[1]),
        lb=lb.astype(float),
        ub=ub.astype(float),
        integer=integer,
        linear=linear,
    )


def zero(n: int) -> Diagonal:
    """The quadratic term of a linear program."""
    return Diagonal(np.zeros((1, n)))


def definite(rng: np.random.Generator, n: int, shape: tuple[int, ...] = (1,)) -> np.ndarray:
    """Random positive definite matrices with eigenvalues about 0.1 to 4."""
    root = rng.standard_normal((*shape, n, n))
    return root @ root.swapaxes(-1, -2) / n + 0.1 * np.eye(n)


def dense(rng: np.random.Generator, batch: int = 4, n: int = 12, p: int = 3, m: int = 10) -> QuadraticProgram:
    """Dense, shared matrices, equalities, inequalities that cut, no bounds."""
    A, G, point = rng.standard_normal((p, n)), rng.standard_normal((m, n)), rng.standard_normal(n)
    q = 3 * rng.standard_normal((batch, n))
    return program(Dense(definite(rng, n)), q, A, A @ point, G, G @ point + rng.random(m))


def everything_varies(rng: np.random.Generator, batch: int = 4, n: int = 7) -> QuadraticProgram:
    """Every leaf differs by sample; bounds on some variables."""
    p, m = 2, 5
    A, G = rng.standard_normal((batch, p, n)), rng.standard_normal((batch, m, n))
    point = rng.uniform(-0.5, 0.5, (batch, n))
    lb = np.where(rng.random((batch, n)) < 0.6, point - rng.random((batch, n)), -np.inf)
    ub = np.where(rng.random((batch, n)) < 0.6, point + rng.random((batch, n)), np.inf)
    b, h = np.einsum("bij,bj->bi", A, point), np.einsum("bij,bj->bi", G, point) + rng.random((batch, m))
    q = 3 * rng.standard_normal((batch, n))
    return program(Dense(definite(rng, n, (batch,))), q, A, b, G, h, lb, ub)


def boxed(rng: np.random.Generator, batch: int = 4, n: int = 10) -> QuadraticProgram:
    """Diagonal with bounds on all variables and one budget row."""
    q = 2 * rng.standard_normal((batch, n))
    P = Diagonal(0.2 + rng.random((1, n)))
    return program(P, q, np.ones((1, n)), np.array([0.3 * n]), lb=0.0, ub=1.0)


def low_rank(rng: np.random.Generator, batch: int = 4, n: int = 15, k: int = 3) -> QuadraticProgram:
    """A portfolio: factor covariance, fully invested, long only, one sector limit."""
    factor = rng.standard_normal((1, k, n))
    P = LowRank(0.05 + 0.1 * rng.random((1, n)), factor, 0.1 + rng.random((1, k)))
    G = (rng.random((1, n)) < 0.4).astype(float)
    G[0, 0] = 0.0
    return program(P, -rng.random((batch, n)), np.ones((1, n)), np.ones(1), G, np.array([0.5]), lb=0.0)


def simplex(rng: np.random.Generator, batch: int = 4, n: int = 6, mu: float = 1.0) -> QuadraticProgram:
    """min cᵀx + μ/2 ‖x‖² over the simplex: sparsemax(−c/μ)."""
    c = rng.standard_normal((batch, n))
    return program(Diagonal(np.full((1, n), mu)), c, np.ones((1, n)), np.ones(1), lb=0.0)


def degenerate(rng: np.random.Generator, batch: int = 4, n: int = 5) -> QuadraticProgram:
    """Twice as many rows as variables through one point, which is the solution of most samples."""
    G = rng.standard_normal((2 * n, n))
    point = rng.standard_normal(n)
    P = definite(rng, n)
    pull = rng.random((batch, 2 * n)) * (rng.random((batch, 2 * n)) < 0.5)
    q = -(P[0] @ point) - pull @ G  # the gradient at the point lies in the cone of the rows
    return program(Dense(P), q, G=G, h=G @ point)


def weakly_active(rng: np.random.Generator, batch: int = 4, n: int = 5) -> QuadraticProgram:
    """The unconstrained minimizer lies exactly on a bound and a row: both multipliers are zero."""
    point = rng.uniform(0.2, 1.0, (batch, n))
    point[:, 0] = 0.0
    G = rng.integers(-2, 3, (1, n)).astype(float)
    return program(Diagonal(np.ones((1, n))), -point, G=G, h=point @ G.T, lb=0.0)


def redundant(rng: np.random.Generator, batch: int = 4, n: int = 8) -> QuadraticProgram:
    """Dependent equalities, repeated and scaled rows, a zero row, a row that repeats a bound."""
    A = rng.standard_normal((2, n))
    G = rng.standard_normal((4, n))
    point = rng.uniform(0.1, 0.9, n)
    h = G @ point + 0.1 * rng.random(4)
    A_all = np.concatenate([A, A[:1] + A[1:], 2 * A[:1]])
    G_all = np.concatenate([G, G, 3 * G[:1], np.zeros((1, n)), np.eye(n)[:1]])
    h_all = np.concatenate([h, h, 3 * h[:1], [1.0], [1.0]])
    q = 4 * rng.standard_normal((batch, n))
    return program(Dense(definite(rng, n)), q, A_all, A_all @ point, G_all, h_all, lb=0.0, ub=1.0)


def badly_scaled(rng: np.random.Generator, batch: int = 4, n: int = 8) -> QuadraticProgram:
    """Variables in units from 1e-3 to 1e3, rows in units from 1e-2 to 1e4."""
    base = boxed_rows(rng, batch, n)
    unit, row = 10.0 ** rng.uniform(-3, 3, n), 10.0 ** rng.uniform(-2, 4, base.num_inequalities)
    P = base.P.dense() / (unit[:, None] * unit)
    G = row[:, None] * base.G.matrix[0] / unit
    A = base.A.matrix[0] / unit
    return program(Dense(P), base.q / unit, A, base.b, G, row * base.h, base.lb * unit, base.ub * unit)


def boxed_rows(rng: np.random.Generator, batch: int = 4, n: int = 8) -> QuadraticProgram:
    """Dense with bounds, equalities and rows."""
    A, G, point = rng.standard_normal((2, n)), rng.standard_normal((5, n)), rng.uniform(0.2, 0.8, n)
    q = 3 * rng.standard_normal((batch, n))
    return program(
        Dense(definite(rng, n)), q, A, A @ point, G, G @ point + 0.2 * rng.random(5), lb=0.0, ub=1.0
    )


def semidefinite(rng: np.random.Generator, batch: int = 4, n: int = 8) -> QuadraticProgram:
    """P of rank n/2, bounds that make the solution exist (it is unique for almost all costs)."""
    root = rng.standard_normal((n // 2, n))
    q = rng.standard_normal((batch, n))
    return program(Dense((root.T @ root)[None]), q, np.ones((1, n)), np.ones(1), lb=-1.0, ub=1.0)


def near_bounds(rng: np.random.Generator, batch: int = 4, n: int = 6, gap: float = 1e-9) -> QuadraticProgram:
    """The unconstrained minimizer is `gap` inside the bound of x₀, and `gap` outside that of x₁."""
    point = rng.uniform(0.2, 0.8, (batch, n))
    point[:, 0], point[:, 1] = gap, -gap
    P = Diagonal(0.5 + rng.random((1, n)))
    return program(P, -P.diagonal * point, lb=0.0, ub=1.0)


# ---------------------------------------------------------------------------------------- linear programs


def transport(rng: np.random.Generator, batch: int = 4, n: int = 12) -> QuadraticProgram:
    """A bounded LP with equalities and rows, unique for almost all costs."""
    A, G, point = rng.standard_normal((3, n)), rng.standard_normal((4, n)), rng.uniform(0.2, 0.8, n)
    c = rng.standard_normal((batch, n))
    return program(zero(n), c, A, A @ point, G, G @ point + 0.1, lb=0.0, ub=1.0, linear=True)


def tied(rng: np.random.Generator, batch: int = 4, n: int = 5) -> QuadraticProgram:
    """Simplex LP whose two least costs are equal: a whole edge is optimal."""
    c = 1.0 + rng.random((batch, n))
    c[:, 0] = c[:, 1] = 0.5
    return program(zero(n), c, np.ones((1, n)), np.ones(1), lb=0.0, linear=True)


def grid(rng: np.random.Generator, batch: int = 4, side: int = 4) -> QuadraticProgram:
    """Shortest path on a grid of `side` × `side` nodes: a redundant equation, degenerate vertices."""
    edges = [(i * side + j, i * side + j + 1) for i in range(side) for j in range(side - 1)]
    edges += [(i * side + j, (i + 1) * side + j) for i in range(side - 1) for j in range(side)]
    A = np.zeros((side * side, len(edges)))
    for e, (tail, head) in enumerate(edges):
        A[tail, e], A[head, e] = -1.0, 1.0
    b = np.zeros(side * side)
    b[0], b[-1] = -1.0, 1.0
    c = 0.1 + rng.random((batch, len(edges)))
    return program(zero(len(edges)), c, A, b, lb=0.0, ub=1.0, linear=True)


def knapsack(rng: np.random.Generator, batch: int = 3, n: int = 9, continuous: int = 0) -> QuadraticProgram:
    """Two-dimensional knapsack with binary items, and `continuous` fractional ones at the end."""
    weights = rng.integers(300, 800, (2, n + continuous)) / 100
    value = rng.integers(1, 100, (batch, n + continuous)) + rng.random((batch, n + continuous))
    capacity = np.full(2, 0.35 * weights.sum(axis=1).min())
    total = n + continuous
    return program(
        zero(total), -value, G=weights, h=capacity, lb=0.0, ub=1.0, integer=tuple(range(n)), linear=True
    )


# ------------------------------------------------------------------------------ programs without solution


def infeasible(rng: np.random.Generator, n: int = 5, linear: bool = False) -> QuadraticProgram:
    """Three constraints clash (x₀ + x₁ = 1, x₀ ≥ 0.8, x₁ ≥ 0.7) among many that do not."""
    G = rng.standard_normal((6, n))
    G[0], h = 0.0, np.full(6, 10.0)
    G[0, 0], h[0] = -1.0, -0.8
    A = np.zeros((1, n))
    A[0, :2] = 1.0
    lb, ub = np.full(n, -3.0), np.full(n, 3.0)
    lb[1] = 0.7
    P = zero(n) if linear else Diagonal(np.ones((1, n)))
    return program(P, rng.standard_normal((1, n)), A, np.ones(1), G, h, lb, ub, linear=linear)


def unbounded(rng: np.random.Generator, n: int = 5, linear: bool = False) -> QuadraticProgram:
    """The last variable has no curvature, no upper bound and a negative cost."""
    q = rng.standard_normal((1, n))
    q[0, -1] = -1.0
    diagonal = np.ones((1, n))
    diagonal[0, -1] = 0.0
    G = np.zeros((2, n))
    G[:, :-1] = rng.standard_normal((2, n - 1))
    P = zero(n) if linear else Diagonal(diagonal)
    bound = np.append(np.ones(n - 1), np.inf)
    return program(P, q, G=G, h=np.full(2, 5.0), lb=-1.0, ub=bound, linear=linear)


def nonconvex(rng: np.random.Generator, n: int = 5) -> QuadraticProgram:
    """One negative eigenvalue, in a box."""
    basis, _ = np.linalg.qr(rng.standard_normal((n, n)))
    P = basis @ np.diag(np.append(np.ones(n - 1), -0.3)) @ basis.T
    return program(Dense((P + P.T)[None] / 2), rng.standard_normal((1, n)), lb=-1.0, ub=1.0)


QUADRATIC: dict[str, Generator] = {
    "dense": dense,
    "everything varies": everything_varies,
    "boxed": boxed,
    "low rank": low_rank,
    "simplex": simplex,
    "degenerate": degenerate,
    "weakly active": weakly_active,
    "redundant": redundant,
    "badly scaled": badly_scaled,
    "semidefinite": semidefinite,
    "near bounds": near_bounds,
}
LINEAR: dict[str, Generator] = {"transport": transport, "tied": tied, "grid": grid}
FAMILIES: dict[str, Generator] = {**QUADRATIC, **LINEAR}
