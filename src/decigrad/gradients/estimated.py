"""Estimated derivatives of a decision in its cost, where the exact one is zero: the rule, written once.

x(q) = argmin qᵀx over a fixed set is piecewise constant. An estimator answers a cotangent x̄ = ∂L/∂x of the
decision by a cotangent q̄ of the cost vector, from the decisions at a few other costs:

    costs(q, x, x̄, z)  ->  q₁ … q_S      solved wherever solving is best
    cotangent(q, x, x̄, z, x(q₁) … x(q_S))  ->  q̄

with noise z that is the same in both. Everything after that (from q̄ to the parameters) is exact. Estimators
are values of `DecisionLayer(gradient=...)`; they see the cost alone, so a predicted parameter must not enter
constraints or curvature. They are not derivatives of anything but what their docstring says.
"""

from __future__ import annotations

import functools
from dataclasses import replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from decigrad.gradients import implicit
from decigrad.gradients.methods import KKT
from decigrad.program import Array, QuadraticProgram, RawResult, Solver, Status


class Estimated:
    """Base of the estimators; pure functions of one sample, in JAX."""

    changes_forward = False
    draws = 0
    """Noise vectors z for each sample."""

    def program(self, program: QuadraticProgram) -> QuadraticProgram:
        """The program that is solved: the model's own."""
        return program

    def solver(self, asked: str | Solver, program: QuadraticProgram) -> str | Solver:
        """The solver: the layer's own."""
        return asked

    def stated(self, program: QuadraticProgram, raw: RawResult) -> RawResult:
        """The result as it is."""
        return raw

    def noise(self, key: Array, n: int, dtype: Any) -> Array:
        """z [draws, n]."""
        return jax.random.normal(key, (self.draws, n), dtype)

    def perturbed(self, q: Array, z: Array) -> Array:
        """Costs [S, n] whose mean decision is the forward value, if that changes."""
        raise NotImplementedError

    def costs(self, q: Array, x: Array, cotangent: Array, z: Array) -> Array:
        """Costs [S, n] that have to be solved for the cotangent; S may be 0."""
        raise NotImplementedError

    def cotangent(
        self, q: Array, x: Array, cotangent: Array, z: Array, forward: Array, answers: Array
    ) -> Array:
        """q̄ [n]. `forward` [S, n] are the decisions at `perturbed`, `answers` those at `costs`."""
        raise NotImplementedError

    def pairing(self, program: QuadraticProgram, saved: Any) -> Array:
        """−q̄ᵀq: its negative gradient in the parameters is their cotangent."""
        return -(saved @ program.q)


def solve(gradient: Estimated, solver: Solver, program: QuadraticProgram, key: Array) -> tuple[Array, Array]:
    """Decision and status of a single program inside a trace, with the estimator as derivative."""
    z = gradient.noise(key, program.n, program.q.dtype)
    return _solve(gradient, solver, program.q, jax.lax.stop_gradient(program), z)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0, 1))
def _solve(
    gradient: Estimated, solver: Solver, q: Array, program: QuadraticProgram, z: Array
) -> tuple[Array, Array]:
    return _forward(gradient, solver, q, program, z)[0]


def _forward(
    gradient: Estimated, solver: Solver, q: Array, program: QuadraticProgram, z: Array
) -> tuple[tuple[Array, Array], Any]:
    if not gradient.changes_forward:
        raw = implicit.solve(KKT(), solver, replace(program, q=q))
        return (raw.x, raw.status), (q, program, z, raw.x, raw.x[None])
    x, status = _each(solver, gradient.perturbed(q, z), program)
    return (x.mean(0), status.max(0)), (q, program, z, x.mean(0), x)


def _each(solver: Solver, costs: Array, program: QuadraticProgram) -> tuple[Array, Array]:
    def one(cost: Array) -> tuple[Array, Array]:
        raw = implicit.solve(KKT(), solver, replace(program, q=cost))
        return raw.x, raw.status

    return jax.vmap(one)(costs)


def _backward(gradient: Estimated, solver: Solver, saved: Any, cotangents: Any) -> tuple[Any, None, None]:
    q, program, z, x, forward = saved
    ok = jnp.isfinite(x).all()
    bar = jnp.where(ok, jnp.nan_to_num(cotangents[0]), 0.0)
    x, forward = jnp.where(ok, x, 0.0), jnp.where(ok, forward, 0.0)
    costs = gradient.costs(q, x, bar, z)
    answers = costs
    if costs.shape[0]:
        answers, status = _each(solver, costs, program)
        ok = ok & (status == int(Status.OPTIMAL)).all()
        answers = jnp.where(ok, answers, 0.0)
    return jnp.where(ok, gradient.cotangent(q, x, bar, z, forward, answers), 0.0), None, None


_solve.defvjp(_forward, _backward)


# ------------------------------------------------------------------------------------------- on the host


def on_host(gradient: Estimated, program: QuadraticProgram, key: Array) -> tuple[QuadraticProgram, Array]:
    """The program to solve for the forward value, [B·S] samples, and the noise z [B, draws, n]."""
    batch, n = program.batch_size, program.n
    z = np.asarray(_noise(gradient, jax.random.split(key, batch), n))
    if not gradient.changes_forward:
        return program, z
    return _repeated(program, np.asarray(_perturbed(gradient, _spread(program.q, batch), z))), z


def averaged(raw: RawResult, batch: int) -> tuple[RawResult, np.ndarray]:
    """The result of the mean decision, and the decisions [B, S, n] that it is the mean of."""

    def by_sample(a: np.ndarray) -> np.ndarray:
        return a.reshape(batch, len(a) // batch, *a.shape[1:])

    x = by_sample(raw.x)
    first = jax.tree_util.tree_map(lambda a: by_sample(a)[:, 0], raw)
    return first.replace(x=x.mean(1), status=by_sample(raw.status).max(1)), x


def pullback(
    gradient: Estimated,
    run: Any,
    program: QuadraticProgram,
    raw: RawResult,
    forward: np.ndarray,
    z: np.ndarray,
    cotangent: np.ndarray,
) -> np.ndarray:
    """q̄ [B, n] for the cotangent x̄ [B, n] of a batch; `run` solves batched programs."""
    batch = len(cotangent)
    ok = (raw.status == Status.OPTIMAL)[:, None]
    x, bar = np.where(ok, raw.x, 0.0), np.where(ok, np.nan_to_num(cotangent), 0.0)
    q = _spread(program.q, batch)
    costs = np.asarray(_costs(gradient, q, x, bar, z))
    answers = costs
    if costs.shape[1]:
        solved = run(_repeated(program, costs))
        answers = solved.x.reshape(costs.shape)
        ok = ok & np.isfinite(answers).all((1, 2))[:, None]
    forward = np.where(ok[:, :, None], forward, 0.0)
    answers = np.where(ok[:, :, None], answers, 0.0)
    return np.where(ok, _cotangent(gradient, q, x, bar, z, forward, answers), 0.0)


def _spread(q: np.ndarray, batch: int) -> np.ndarray:
    return np.broadcast_to(q, (batch, q.shape[-1]))


def _repeated(program: QuadraticProgram, costs: np.ndarray) -> QuadraticProgram:
    """The batch with `costs` [B, S, n], every sample S times in a row."""
    each = costs.shape[1]
    repeated = jax.tree_util.tree_map(lambda a: a if len(a) == 1 else np.repeat(a, each, axis=0), program)
    return replace(repeated, q=costs.reshape(-1, costs.shape[-1]))


@functools.partial(jax.jit, static_argnums=(0, 2))
def _noise(gradient: Estimated, keys: Array, n: int) -> Array:
    return jax.vmap(lambda key: gradient.noise(key, n, jnp.float64))(keys)


@functools.partial(jax.jit, static_argnums=0)
def _perturbed(gradient: Estimated, q: Array, z: Array) -> Array:
    return jax.vmap(gradient.perturbed)(q, z)


@functools.partial(jax.jit, static_argnums=0)
def _costs(gradient: Estimated, q: Array, x: Array, bar: Array, z: Array) -> Array:
    return jax.vmap(gradient.costs)(q, x, bar, z)


@functools.partial(jax.jit, static_argnums=0)
def _cotangent(gradient: Estimated, *arguments: Array) -> Array:
    return jax.vmap(gradient.cotangent)(*arguments)
