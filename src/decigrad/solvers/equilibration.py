"""Equilibration: rows and columns of a program scaled to entries of order one.

Source: D. Ruiz, "A scaling algorithm to equilibrate both rows and columns norms in matrices",
RAL-TR-2001-034 (2001).
"""

from __future__ import annotations

from dataclasses import replace
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from decigrad.program import Array, Dense, Diagonal, LowRank, Operator, QuadraticProgram


class Scaled(NamedTuple):
    """The equilibrated program, and what the iteration keeps asking of it."""

    program: QuadraticProgram
    regular: QuadraticProgram  # with the proximal term in P
    e: Array
    mask: Array
    held: Array
    weight: Array  # 1 / number of inequalities
    objective: Array  # size of the objective [B, 1]
    rows: Array  # scaling of the rows of A
    inequalities: Array  # and of G
    columns: Array


def proximal_weight(dtype: jnp.dtype) -> float:
    """Of the proximal terms, relative to the largest curvature: 2.5e-9 in float64."""
    return float(np.finfo(dtype).eps) ** 0.55


def scale(program: QuadraticProgram) -> Scaled:
    """Equilibrate rows and columns of P, A, G; what is shared stays shared, P keeps its structure."""
    P = program.P
    A, G, curvature = abs(program.A.matrix), abs(program.G.matrix), _diagonal(P)

    def root(a: Array) -> Array:
        return jnp.where(a > 0, jax.lax.rsqrt(jnp.where(a > 0, a, 1.0)), 1.0)

    def balanced(_: int, scales: tuple[Array, Array, Array]) -> tuple[Array, Array, Array]:
        rows, inequalities, columns = scales
        across = columns[:, None, :]
        a, g = A * rows[:, :, None] * across, G * inequalities[:, :, None] * across
        size = curvature * columns * columns
        size = jnp.maximum(size, jnp.max(a, axis=-2, initial=0.0))
        size = jnp.maximum(size, jnp.max(g, axis=-2, initial=0.0))
        rows = rows * root(jnp.max(a, axis=-1, initial=0.0))
        inequalities = inequalities * root(jnp.max(g, axis=-1, initial=0.0))
        return rows, inequalities, columns * root(size)

    lanes = max(a.shape[0] for a in (A, G, curvature))
    ones = tuple(jnp.ones((lanes, size), curvature.dtype) for size in (A.shape[1], G.shape[1], program.n))
    rows, inequalities, columns = jax.lax.fori_loop(0, 3, balanced, ones)
    scaled = replace(
        program,
        P=_scaled_operator(P, columns),
        q=program.q * columns,
        A=Dense(program.A.matrix * rows[:, :, None] * columns[:, None, :]),
        b=program.b * rows,
        G=Dense(program.G.matrix * inequalities[:, :, None] * columns[:, None, :]),
        h=program.h * inequalities,
        lb=program.lb / columns,
        ub=program.ub / columns,
    )
    batch = program.batch_size
    e = jnp.concatenate(
        [jnp.broadcast_to(a, (batch, a.shape[1])) for a in (scaled.h, -scaled.lb, scaled.ub)], axis=-1
    )
    held = scaled.lb == scaled.ub
    loose = jnp.zeros_like(scaled.h, bool)
    mask = jnp.isfinite(e) & ~jnp.broadcast_to(
        jnp.concatenate([jnp.broadcast_to(a, (batch, a.shape[1])) for a in (loose, held, held)], axis=-1),
        e.shape,
    )
    count = jnp.maximum(mask.sum(-1, keepdims=True), 1)
    largest = _diagonal(scaled.P).max(-1, keepdims=True)
    objective = jnp.maximum(abs(scaled.q).max(-1, keepdims=True), 1e-8)
    objective = jnp.maximum(objective, 0.0 * largest)
    proximal = proximal_weight(e.dtype) * jnp.where(largest > 0, largest, objective)
    return Scaled(
        program=scaled,
        regular=replace(scaled, P=_shifted_operator(scaled.P, proximal)),
        e=jnp.where(mask, e, 0.0),
        mask=mask,
        held=held,
        weight=1.0 / count.astype(e.dtype),
        objective=jnp.broadcast_to(objective, (batch, 1)),
        rows=rows,
        inequalities=inequalities,
        columns=columns,
    )


def _diagonal(P: Operator) -> Array:
    if isinstance(P, Dense):
        return jnp.diagonal(P.matrix, axis1=-2, axis2=-1)
    if isinstance(P, LowRank):
        return P.diagonal + (P.weight[:, :, None] * P.factor**2).sum(-2)
    return P.diagonal


def _scaled_operator(P: Operator, d: Array) -> Operator:
    if isinstance(P, Dense):
        return Dense(P.matrix * d[:, :, None] * d[:, None, :])
    if isinstance(P, LowRank):
        return LowRank(P.diagonal * d * d, P.factor * d[:, None, :], P.weight)
    return Diagonal(P.diagonal * d * d)


def _shifted_operator(P: Operator, shift: Array) -> Operator:
    if isinstance(P, Dense):
        return Dense(P.matrix + shift[:, :, None] * jnp.eye(P.shape[0], dtype=shift.dtype))
    if isinstance(P, LowRank):
        return LowRank(P.diagonal + shift, P.factor, P.weight)
    return Diagonal(P.diagonal + shift)
