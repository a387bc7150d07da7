"""What can be said of a batch in JAX before the first iteration: invalid data, crossed bounds, concavity."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np

from decigrad.program import Array, Diagonal, LowRank, Operator, QuadraticProgram, Status


def presolved_status(program: QuadraticProgram, batch: int) -> Array:
    """Status of samples that need no iteration, −1 for the others."""

    def every(a: Array) -> Array:
        return a.reshape(a.shape[0], -1).all(-1)

    finite = [
        every(jnp.isfinite(leaf))
        for leaf in jax.tree_util.tree_leaves(
            (program.P, program.q, program.r, program.A, program.b, program.G)
        )
    ]
    bounds = [every(program.h > -jnp.inf), every(program.lb < jnp.inf), every(program.ub > -jnp.inf)]
    valid = jnp.ones(batch, bool)
    for condition in finite + bounds:
        valid = valid & condition
    crossed = ~every(program.lb <= program.ub)
    status = jnp.where(crossed, int(Status.PRIMAL_INFEASIBLE), -1)
    if not program.linear:
        status = jnp.where(_nonconvex(program.P), int(Status.NONCONVEX), status)
    return jnp.where(valid, status, int(Status.INVALID_DATA)).astype(jnp.int32)


def _nonconvex(P: Operator) -> Array:
    if isinstance(P, Diagonal):
        return (P.diagonal < 0).any(-1)
    if isinstance(P, LowRank):
        return (P.diagonal < 0).any(-1) | (P.weight < 0).any(-1)
    diagonal = jnp.diagonal(P.matrix, axis1=-2, axis2=-1)
    d = 1.0 / jnp.sqrt(jnp.where(diagonal > 0, diagonal, 1.0))
    shift = 100 * float(np.finfo(diagonal.dtype).eps) ** 0.75 * jnp.eye(P.shape[0], dtype=diagonal.dtype)
    factor = jnp.linalg.cholesky(P.matrix * d[:, :, None] * d[:, None, :] + shift)
    return jnp.isnan(factor).any((-1, -2))
