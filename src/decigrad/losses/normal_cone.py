"""Cones at an optimal decision: the constraints that are tight there, and the projection on their normals.

The normal cone of the feasible set of a program at x is

    N(x) = { Aᵀy + Gᵀz + w :  z ≥ 0 on tight rows, 0 elsewhere;  wⱼ ≥ 0 where xⱼ = ubⱼ, ≤ 0 where xⱼ = lbⱼ }

and x minimizes a convex objective f over the set exactly if −∇f(x) lies in N(x).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np

from decigrad import compiled
from decigrad.errors import ModelError
from decigrad.oracles.protocol import LinearOracle
from decigrad.program import QuadraticProgram

if TYPE_CHECKING:
    from decigrad.layer import DecisionLayer
    from decigrad.solution import Solutions

TIGHT = 1e-7
"""Largest slack, relative to 1 + the bound's size, at which a constraint counts as tight."""


def refuse_without_constraints(layer: DecisionLayer, name: str) -> None:
    """Raise unless the model states the set: an oracle may know one that the program does not show."""
    program = layer.form.assemble({n: np.ones(p.shape) for n, p in layer.parameters.items()})
    if isinstance(layer.solver, LinearOracle):
        layer.solver.refuse_unstated(program, name)
    if not (program.num_equalities or program.num_inequalities or np.isfinite(program.lb).any()
            or np.isfinite(program.ub).any()):  # fmt: skip
        raise ModelError(f"{name} reads the constraints that the model states, and it states none: add them")


def tight_constraints(labels: Solutions) -> dict[str, np.ndarray]:
    """The decisions x [N, n], and where rows of G [N, mi], lower and upper bounds [N, n] are tight.

    Of an integer program it is the relaxation's constraints that are looked at.
    """
    program, x = labels.program, np.nan_to_num(labels.raw.x)
    h = np.where(np.isfinite(program.h), program.h, np.inf)
    slack = h - program.G.matvec(x)
    return {
        "x": x,
        "rows": slack <= TIGHT * (1.0 + np.abs(np.where(np.isfinite(h), h, 0.0))),
        "lower": x - program.lb <= TIGHT * (1.0 + np.abs(x)),
        "upper": program.ub - x <= TIGHT * (1.0 + np.abs(x)),
    }


def average_normal(program: QuadraticProgram, rows: Any, lower: Any, upper: Any) -> Any:
    """The mean of the unit normals of the tight inequalities of one sample [n]; equalities have no side."""
    G = _unit_rows(program.G.matrix)
    total = rows.astype(G.dtype) @ G + upper.astype(G.dtype) - lower.astype(G.dtype)
    return total / jnp.maximum(rows.sum() + lower.sum() + upper.sum(), 1)


def equality_normals(layer: DecisionLayer, program: QuadraticProgram) -> Any:
    """Orthonormal rows that span the rows of A; once for the model where A is constant."""
    if layer.form.depends("A"):
        return _orthonormal_rows(program.A.matrix, jnp)

    def build() -> np.ndarray:
        ones = {n: np.ones(p.shape) for n, p in layer.parameters.items()}
        found: np.ndarray = _orthonormal_rows(layer.form.assemble(ones).A.matrix, np)
        return found

    return compiled.cached(layer.form, "equality normals", build)


def project(
    target: Any, normals: Any, program: QuadraticProgram, rows: Any, lower: Any, upper: Any, iterations: int
) -> Any:
    """The point of N(x) nearest to `target` [n], for one sample inside a trace; `normals` as above.

    min over y, z ≥ 0, w:  ½‖v − Aᵀy − Gᵀz − w‖². The multipliers w of bounds are eliminated: what is left of
    u = v − Aᵀy − Gᵀz is s(u), its projection on the bounds' tangent cone, and the gradient in (y, z) is −K s
    with K = [A; G], A with orthonormal rows (which is what makes it quick) and G with rows of unit length.
    Accelerated projected gradient with restarts; every iterate is in N.

    Source: Beck and Teboulle (2009), FISTA, doi:10.1137/080716542; O'Donoghue and Candès (2015), Adaptive
    Restart, doi:10.1007/s10208-013-9150-3.
    """

    def left(u: Any) -> Any:
        u = jnp.where(upper, jnp.minimum(u, 0.0), u)
        return jnp.where(lower, jnp.maximum(u, 0.0), u)

    K = jnp.concatenate([jnp.asarray(normals, target.dtype), _unit_rows(program.G.matrix)])
    if K.shape[0] == 0:
        return target - left(target)
    free = jnp.arange(K.shape[0]) < len(normals)
    used = jnp.concatenate([jnp.ones(len(normals), bool), rows])
    gram = jnp.abs(K @ K.T)
    step = 1.0 / jnp.maximum(jnp.minimum(gram.sum(1).max(), jnp.sqrt((gram**2).sum())), 1e-30)

    def iterate(_: int, state: tuple[Any, Any, Any]) -> tuple[Any, Any, Any]:
        y, ahead, momentum = state
        moved = ahead + step * (K @ left(target - ahead @ K))
        moved = jnp.where(used, jnp.where(free, moved, jnp.maximum(moved, 0.0)), 0.0)
        restart = ((ahead - moved) * (moved - y)).sum() > 0
        momentum = jnp.where(restart, 1.0, momentum)
        following = 0.5 * (1.0 + jnp.sqrt(1.0 + 4.0 * momentum**2))
        return moved, moved + jnp.where(restart, 0.0, (momentum - 1.0) / following) * (moved - y), following

    start = jnp.zeros(K.shape[0], target.dtype)
    y, _, _ = jax.lax.fori_loop(0, iterations, iterate, (start, start, jnp.ones((), target.dtype)))
    return target - left(target - y @ K)


def _orthonormal_rows(matrix: Any, xp: Any) -> Any:
    """Orthonormal rows with the same span; zero where rows are dependent."""
    values, vectors = xp.linalg.eigh(matrix @ matrix.T)
    kept = values > 1e-10 * xp.maximum(values.max(initial=0.0), 1e-300)
    weight = xp.where(kept, 1.0 / xp.sqrt(xp.where(kept, values, 1.0)), 0.0)
    return weight[:, None] * (vectors.T @ matrix)


def _unit_rows(matrix: Any) -> Any:
    length = jnp.sqrt((matrix**2).sum(-1, keepdims=True))
    return matrix / jnp.where(length > 0, length, 1.0)
