"""Batched Cholesky factors that say how close to singular a matrix is, and never raise.

On the CPU, JAX splits a batched LAPACK call over XLA's threads and waits for them *on* one of these threads:
as many calls at once as there are threads, and all of them wait for good (jaxlib 0.10 on two cores, within
fifty solves). So no two of them may be independent in a compiled program; `after` puts one behind the other.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from decigrad.kkt.system import product
from decigrad.program import Array, namespace

UNROLLED = 4  # factors up to this order are written out: a batched LAPACK call costs more
INVERTED = 32  # up to this order XLA inverts the factors


def cholesky(matrix: Array, shift: float = 0.0) -> tuple[Callable[[Array], Array], Array]:
    """Factor [B, m, m]: (rows [B', k, m] -> rows of the solution, least squared pivot [B]).

    The matrix is scaled to unit diagonal first, and `shift` added to that. A matrix that is not positive
    definite has pivot NaN or a value not above zero, and solutions without meaning. Nothing raises.
    """
    xp, m = namespace(matrix), matrix.shape[-1]
    if m == 0:
        return lambda rows: rows, xp.ones(matrix.shape[0], matrix.dtype)
    diagonal = xp.diagonal(matrix, axis1=-2, axis2=-1)
    usable = diagonal > 0
    d = xp.where(usable, 1.0 / xp.sqrt(xp.where(usable, diagonal, 1.0)), 1.0)
    if m <= UNROLLED:
        solve, pivot = _cholesky_unrolled(xp, matrix, d, shift)
    else:
        scaled = matrix * d[:, :, None] * d[:, None, :]
        if shift:
            scaled = scaled + shift * np.eye(m, dtype=matrix.dtype)
        solve, pivot = _cholesky_lapack(scaled) if xp is np else _cholesky_xla(scaled)
    return lambda rows: d[:, None, :] * solve(d[:, None, :] * rows), pivot


def after(value: Array, token: Array) -> Array:
    """`value`, computed when `token` is there: a dependence that the compiler does not see through."""
    if namespace(value, token) is np:
        return value
    never = jnp.isfinite(token.astype(value.dtype)).sum() < 0
    return jnp.where(never, jnp.zeros((), value.dtype), value)


def _cholesky_unrolled(
    xp: Any, matrix: Array, d: Array, shift: float
) -> tuple[Callable[[Array], Array], Array]:
    m = matrix.shape[-1]
    factor: dict[tuple[int, int], Array] = {}
    inverse, pivots = [], []
    for j in range(m):
        pivot = matrix[:, j, j] * d[:, j] * d[:, j] + shift
        pivot = pivot - sum(factor[j, k] * factor[j, k] for k in range(j))
        pivots.append(pivot)
        inverse.append(1.0 / xp.sqrt(xp.where(pivot > 0, pivot, 1.0)))
        for i in range(j + 1, m):
            entry = matrix[:, i, j] * d[:, i] * d[:, j]
            factor[i, j] = (entry - sum(factor[i, k] * factor[j, k] for k in range(j))) * inverse[j]
    least = pivots[0]
    for pivot in pivots[1:]:
        least = xp.minimum(least, pivot)

    def solve(rows: Array) -> Array:
        t: list[Array] = []
        for i in range(m):
            known = sum(factor[i, k][:, None] * t[k] for k in range(i))
            t.append((rows[..., i] - known) * inverse[i][:, None])
        for i in reversed(range(m)):
            known = sum(factor[k, i][:, None] * t[k] for k in range(i + 1, m))
            t[i] = (t[i] - known) * inverse[i][:, None]
        return xp.stack(t, axis=-1)

    return solve, least


def _cholesky_lapack(matrix: np.ndarray) -> tuple[Callable[[Array], Array], Array]:
    from scipy.linalg import lapack

    # numpy.linalg.cholesky raises for the whole batch when one matrix fails; LAPACK reports it by matrix.
    single = matrix.dtype == np.float32
    potrf, potrs = (lapack.spotrf, lapack.spotrs) if single else (lapack.dpotrf, lapack.dpotrs)
    factors, pivot = [], np.zeros(len(matrix), matrix.dtype)
    for i, one in enumerate(matrix):
        factor, info = potrf(one.T, lower=1)
        factors.append(factor if info == 0 else None)
        if info == 0:
            pivot[i] = np.min(np.diagonal(factor)) ** 2

    def solve(rows: np.ndarray) -> np.ndarray:
        if len(factors) == 1:
            if factors[0] is None:
                return np.full(rows.shape, np.nan)
            flat = rows.reshape(-1, rows.shape[-1])
            return potrs(factors[0], flat.T, lower=1)[0].T.reshape(rows.shape)
        rows = np.broadcast_to(rows, (len(factors), *rows.shape[1:]))
        out = np.full(rows.shape, np.nan, rows.dtype)
        for i, factor in enumerate(factors):
            if factor is not None:
                out[i] = potrs(factor, rows[i].T, lower=1)[0].T
        return out

    return solve, pivot


def _cholesky_xla(matrix: Array) -> tuple[Callable[[Array], Array], Array]:
    factor, m = jnp.linalg.cholesky(matrix, symmetrize_input=False), matrix.shape[-1]
    pivot = jnp.diagonal(factor, axis1=-2, axis2=-1).min(-1) ** 2
    if m <= INVERTED:
        # One triangular solution with the identity, then products: a triangular solution is a call to LAPACK.
        identity = jnp.broadcast_to(jnp.eye(m, dtype=matrix.dtype), matrix.shape)
        inverse = jax.lax.linalg.triangular_solve(factor, identity, left_side=True, lower=True)
        pivot = after(pivot, inverse)
        return lambda rows: product(product(rows, inverse.swapaxes(-1, -2)), inverse), pivot

    def triangular(rows: Array, transpose: bool) -> Array:
        return jax.lax.linalg.triangular_solve(
            factor, rows, left_side=False, lower=True, transpose_a=transpose
        )

    def solve(rows: Array) -> Array:
        shape = rows.shape
        if factor.shape[0] == 1:
            rows = rows.reshape(1, -1, m)
        elif shape[0] == 1:
            rows = jnp.broadcast_to(rows, (factor.shape[0], *shape[1:]))
        solution = triangular(triangular(rows, True), False)
        return solution.reshape(shape) if factor.shape[0] == 1 else solution

    return solve, pivot
