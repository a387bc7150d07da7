"""The system itself: its layout, products with its blocks, and what counts as zero in it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from decigrad.program import Array, Dense, Diagonal, LowRank, Operator, QuadraticProgram, namespace

SMALL = 32  # matrices up to this size are multiplied without a matrix product in JAX
GRAM = 2_000_000  # outer products up to this size are formed to weight a shared matrix for the whole batch


@dataclass(frozen=True)
class Tolerances:
    """Powers of the unit roundoff; in float64 about the figures named."""

    floor: float  # 1e-8  least curvature of a variable, relative to the largest
    shift: float  # 4e-11 least eigenvalue of a dense H with unit diagonal
    pivot: float  # 1e-12 squared pivot of S with unit diagonal below which rows are suspected dependent
    residual: float  # 1e-10 backward error that refinement must reach
    probe: float  # 1e-6  what refinement may leave of a random right-hand side
    rank: float  # 1e-11 eigenvalue of the equilibrated K that counts as zero


def tolerances_of(dtype: Any) -> Tolerances:
    """The tolerances of a floating-point type."""
    eps = float(np.finfo(dtype).eps)
    return Tolerances(eps**0.5, eps ** (2 / 3), 5e3 * eps, eps**0.64, eps**0.375, eps**0.7)


def pack(x: Array, y: Array, z: Array, w: Array) -> Array:
    """The flat vector v = (x, y, z, w), [..., 2n + me + mi]."""
    return namespace(x, y, z, w).concatenate([x, y, z, w], axis=-1)


def unpack(program: QuadraticProgram, v: Array) -> tuple[Array, Array, Array, Array]:
    """The parts (x, y, z, w) of a flat vector [..., 2n + me + mi]."""
    n, me, mi = program.n, program.num_equalities, program.num_inequalities
    return v[..., :n], v[..., n : n + me], v[..., n + me : n + me + mi], v[..., n + me + mi :]


def times(operator: Operator, rows: Array) -> Array:
    """rows [..., k, n] -> rows of operator @ row [..., k, m]; a shared matrix is one matrix product."""
    if isinstance(operator, Diagonal):
        return operator.diagonal[..., None, :] * rows
    if isinstance(operator, LowRank):
        inner = operator.weight[..., None, :] * times(Dense(operator.factor), rows)
        return operator.diagonal[..., None, :] * rows + transposed(Dense(operator.factor), inner)
    return product(rows, operator.matrix.swapaxes(-1, -2))


def transposed(operator: Dense, rows: Array) -> Array:
    """rows [..., k, m] -> rows of operatorᵀ @ row [..., k, n]."""
    return product(rows, operator.matrix)


def product(rows: Array, matrix: Array) -> Array:
    """rows [B, k, n] @ matrix [B or 1, n, m]."""
    if namespace(rows, matrix) is jnp and matrix.shape[-1] * matrix.shape[-2] <= SMALL:
        # XLA fuses a product and sum with its neighbours; a matrix product is a call of its own.
        return (rows[..., :, :, None] * matrix[..., None, :, :]).sum(-2)
    if matrix.ndim == 3 and matrix.shape[0] == 1 and rows.ndim == 3:
        flat = rows.reshape(rows.shape[0] * rows.shape[1], rows.shape[2]) @ matrix[0]
        return flat.reshape(rows.shape[0], rows.shape[1], matrix.shape[2])
    return rows @ matrix


def gram(matrix: Array, weight: Array) -> Array:
    """M diag(weight) Mᵀ, [B, m, m], of M [B or 1, m, n] and weight [B, n]."""
    m, n = matrix.shape[-2:]
    if matrix.shape[0] == 1 and m * m * n <= GRAM:
        # All samples at once: weight times the outer products of the columns.
        columns = matrix[0].swapaxes(0, 1)
        outer = (columns[:, :, None] * columns[:, None, :]).reshape(1, n, m * m)
        return product(weight[:, None, :], outer).reshape(weight.shape[0], m, m)
    return product(matrix * weight[:, None, :], matrix.swapaxes(-1, -2))


def matvec(program: QuadraticProgram, kz: Array, kw: Array, v: Array) -> Array:
    """K v, for a single program (v [N]) or a batched one (v [B, N])."""
    return matvec_rows(program, kz[..., None, :], kw[..., None, :], v[..., None, :])[..., 0, :]


def matvec_rows(program: QuadraticProgram, kz: Array, kw: Array, rows: Array) -> Array:
    """K times rows [..., k, N]; the compliances have an axis of 1 in place of k."""
    xp = namespace(kz, kw, rows, program.q)
    dx, dy, dz, dw = unpack(program, rows)
    a, f = xp.isfinite(kz), xp.isfinite(kw)
    row_x = times(program.P, dx) + xp.where(f, dw, 0.0)
    row_y = times(program.A, dx)
    if program.num_equalities:
        row_x = row_x + transposed(program.A, dy)
    row_z = dz
    if program.num_inequalities:
        row_x = row_x + transposed(program.G, xp.where(a, dz, 0.0))
        row_z = xp.where(a, times(program.G, dx), dz) - xp.where(a, kz, 0.0) * dz
    row_w = xp.where(f, dx, dw) - xp.where(f, kw, 0.0) * dw
    return pack(row_x, row_y, row_z, row_w)


def assemble(program: QuadraticProgram, kz: Array, kw: Array) -> Array:
    """K as a matrix [N, N], for a single program."""
    xp = namespace(kz, kw, program.q)
    size = 2 * program.n + program.num_equalities + program.num_inequalities
    identity = xp.eye(size, dtype=kw.dtype)
    return matvec_rows(program, kz[None, :], kw[None, :], identity)


def dense_of(P: Operator) -> Array:
    """The matrix of an operator."""
    return P.dense() if not isinstance(P, Dense) else P.matrix


def largest_entry(program: QuadraticProgram, kz: Array, kw: Array) -> Array:
    """Largest entry of K by sample."""
    xp = namespace(kz, kw, program.q)
    size = xp.maximum(xp.where(xp.isfinite(kw), kw, 0.0).max(-1), 1.0)
    for leaf in jax.tree_util.tree_leaves((program.P, program.A, program.G)):
        if leaf.size:
            size = xp.maximum(size, abs(leaf).max(tuple(range(1, leaf.ndim))))
    return size if not kz.shape[-1] else xp.maximum(size, xp.where(xp.isfinite(kz), kz, 0.0).max(-1))
