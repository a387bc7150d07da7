"""Peers in JAX: qpax, and Moreau's dual active set, called as its documentation says."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from benchmarks.peers.own import looped
from benchmarks.programs import Array, Program


def qpax(backend: str) -> Callable[[Program], Any]:
    """Tracy and Manchester (2024): an interior point in JAX, mapped over the batch, at 1e-10."""

    def build(program: Program) -> Any:
        import jax
        from qpax import solve_qp_primal

        jax.config.update("jax_enable_x64", True)
        G, h = program.rows

        def decide(cost: Any) -> Any:
            return solve_qp_primal(
                program.P, cost, program.A, program.b, G, h,
                backend=backend, solver_tol=1e-10, target_kappa=1e-10, max_iter=50,
            )  # fmt: skip

        return _compiled(jax.vmap(decide))

    return build


def _compiled(decide: Callable[[Any], Any]) -> Any:
    import jax

    function = jax.jit(jax.value_and_grad(_loss(decide), has_aux=True))

    def run(cost: Array) -> tuple[Array, Array]:
        (_, x), gradient = jax.block_until_ready(function(cost))
        return np.asarray(x), np.asarray(gradient)

    return run


def _loss(decide: Callable[[Any], Any]) -> Callable[[Any], tuple[Any, Any]]:
    def loss(cost: Any) -> tuple[Any, Any]:
        x = decide(cost)
        return (x**2).sum(), x

    return loss


def _moreau(program: Program, maker: Any, **settings: Any) -> tuple[Any, Array]:
    """A solver of Moreau's for min ½xᵀPx + qᵀx, Cx + s = d, with matrices set once; and d."""
    import moreau
    from scipy import sparse

    G, h = program.rows
    P, C = sparse.csr_array(program.P), sparse.csr_array(np.vstack([program.A, G]))
    cones = moreau.Cones(num_zero_cones=len(program.b), num_nonneg_cones=len(h))
    chosen = moreau.Settings(
        solver="active_set",
        device="cpu",
        active_set_settings=moreau.ActiveSetSettings(primal_tol=1e-10),
        **settings,
    )
    solver = maker(
        program.n, C.shape[0], P.indptr, P.indices, C.indptr, C.indices, cones=cones, settings=chosen
    )
    solver.setup(P.data, C.data)
    return solver, np.concatenate([program.b, h])


def moreau_direct(program: Program) -> Any:
    """Moreau's compiled solver on NumPy arrays, its matrices shared, and its own backward pass."""
    from moreau import CompiledSolver

    batch = len(program.cost)
    solver, d = _moreau(program, CompiledSolver, batch_size=batch, enable_grad=True)
    sides = np.broadcast_to(d, (batch, len(d))).copy()

    def run(cost: Array) -> tuple[Array, Array]:
        x = np.asarray(solver.solve(cost, sides).x)
        return x, np.asarray(solver.backward(2.0 * x)["dq"])

    return run


def _moreau_decide(program: Program) -> Callable[[Any], Any]:
    import jax
    from moreau.jax import Solver

    jax.config.update("jax_enable_x64", True)
    solver, d = _moreau(program, Solver)
    return lambda cost: solver.solve(cost, jax.numpy.asarray(d)).x


def moreau(program: Program) -> Any:
    """Moreau through JAX: two-step API, `vmap` over the batch, under `jit` with its gradient."""
    import jax

    return _compiled(jax.vmap(_moreau_decide(program)))


def moreau_loop(program: Program) -> Any:
    """One program many times within one compiled loop."""
    return looped(_loss(_moreau_decide(program)))
