"""The derivative rule: the implicit function theorem on the KKT conditions, written once.

At a solution v* = (x, y, z, w) of the program with data θ and active set fixed, the residual

    R(θ, v) = ( Px + q + Aᵀy + Gᵀz + w,   Ax − b,   Gx − h on active rows (z elsewhere),
                x − bound on held variables (w elsewhere; x − const for integers) )

vanishes, so K dv = −∂R/∂θ · dθ with the symmetric K of `decigrad.kkt`. JAX differentiates the residual in
θ; one linear system gives dv, in forward mode and, transposed, in reverse mode. Second derivatives follow
from `jax.custom_jvp` around `jax.lax.custom_linear_solve`.

Elements returned where the solution map is not differentiable: an active constraint whose multiplier is
zero within tolerance counts as inactive; dependent active constraints get minimum-norm multipliers;
directions without curvature (ties of a linear program) get zero; at a degenerate vertex of a linear program
the active set is the simplex basis, and the derivative in the sides of the constraints is that basis's. A
failed sample has a zero derivative.

Source: Fiacco (1983), Introduction to Sensitivity and Stability Analysis in Nonlinear Programming;
Amos and Kolter (2017), OptNet.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from decigrad import kkt, native
from decigrad.batching import device_call, host_batch, host_call, may_block
from decigrad.errors import ModelError
from decigrad.program import (
    Array,
    QuadraticProgram,
    RawResult,
    Solver,
    Start,
    Status,
    gives_multipliers,
    namespace,
    raw_shapes,
)


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Coupling:
    """How constraints hold at a solution: compliances of rows and bounds (see `kkt`), and the share of the
    upper bound in each variable's bound (1: held at ub, 0: held at lb, between: barrier)."""

    rows: Array
    bounds: Array
    upper: Array


class Gradient:
    """How the derivative of a decision is defined; a value of `DecisionLayer(gradient=...)`.

    As it stands: that of the model's own program, at its active set.
    """

    changes_forward = False
    solves = (1, 0)
    """Programs solved for a sample, at most: for the decision, and for its derivative besides."""
    exact = True
    """Whether it is the derivative of the decision that the layer returns."""

    def program(self, program: QuadraticProgram) -> QuadraticProgram:
        """The program that is solved and differentiated in place of the model's."""
        return program

    def solver(self, asked: str | Solver, program: QuadraticProgram) -> str | Solver:
        """What to solve it with in place of the layer's solver; `program` is the model's own."""
        return asked

    def coupling(self, program: QuadraticProgram, raw: RawResult) -> Coupling:
        """The coupling of the constraints at the solution, batched or single."""
        xp = namespace(program.q, raw.x)
        return Coupling(
            rows=xp.where(raw.active, 0.0, xp.inf),
            bounds=xp.where(raw.fixed != 0, 0.0, xp.inf),
            upper=xp.where(raw.fixed > 0, 1.0, 0.0),
        )

    def curved(self, program: QuadraticProgram, raw: RawResult) -> QuadraticProgram:
        """The solved program with the curvature at the solution of what it does not state."""
        return program

    def stated(self, program: QuadraticProgram, raw: RawResult) -> RawResult:
        """The result with multipliers in the unit of the model's own `program`."""
        return raw

    def decide(self, solver: Solver, program: QuadraticProgram, start: Start | None = None) -> RawResult:
        """The result for one of the model's programs inside a trace, differentiable."""
        return solve(self, solver, program, start)

    def saved(self, program: QuadraticProgram, raw: RawResult, cotangent: Array) -> Any:
        """What `pairing` needs for the cotangent [B, n] of the decisions of a solved batch, on the host."""
        return adjoint(program, self, raw, cotangent), raw, self.coupling(program, raw)

    def pairing(self, program: QuadraticProgram, saved: Any) -> Array:
        """λᵀR(θ) of a single program: with the solution held fixed, its negative gradient is the pullback."""
        multiplier, raw, coupling = saved
        return multiplier @ residual(self.program(program), coupling, raw)


def undefined(solver: Solver) -> tuple[str, ...]:
    """The parts of a program in which the solver's decisions have no derivative."""
    if gives_multipliers(solver):
        return ()
    constraints = ("A", "b", "G", "h", "lb", "ub")
    return constraints if getattr(solver, "vertex", True) else ("q", *constraints)


def refuse(solver: Solver, moving: Iterable[str], parameters: Iterable[str] = ()) -> None:
    """Raise where a derivative is asked for that the solver's decisions do not have.

    `moving` are the parts of the program that `parameters` enter.
    """
    if not (found := [part for part in undefined(solver) if part in set(moving)]):
        return
    who = f"of {', '.join(map(repr, parameters))}, which enters" if parameters else "of what enters"
    where, advice = "the cost", "an estimated gradient such as BlackBox(), or a loss such as SPOPlus()"
    if found != ["q"]:
        where, advice = "constraints", "a solver with multipliers ('highs'), or ScoreFunction()"
    raise ModelError(
        f"{solver.name} finds decisions without multipliers, so there is no derivative {who} {where} "
        f"({', '.join(found)}): use {advice}"
    )


def residual(program: QuadraticProgram, coupling: Coupling, raw: RawResult) -> Array:
    """R(θ, v) as a flat vector [..., 2n + me + mi], up to terms that do not depend on θ."""
    xp = namespace(program.q, raw.x)
    x = safe(raw)
    whole = program.is_integer
    equal = program.A.matvec(x) - program.b
    if whole.any():  # no move of b can be followed in a row of integers alone
        equal = xp.where((program.A.matrix[..., ~whole] != 0).any(-1), equal, 0.0)
    rows = xp.where(xp.isfinite(coupling.rows), program.G.matvec(x) - program.h, 0.0)
    held = xp.isfinite(coupling.bounds) & ~whole
    lower = xp.where(held & (coupling.upper < 1.0), program.lb, 0.0)
    upper = xp.where(held & (coupling.upper > 0.0), program.ub, 0.0)
    bound = (1.0 - coupling.upper) * lower + coupling.upper * upper
    return kkt.pack(
        program.stationarity(x, raw.y, raw.z, raw.w),
        equal,
        rows,
        xp.where(held, x - bound, 0.0),
    )


def safe(raw: RawResult) -> Array:
    """The decision with zeros in failed samples, so that nothing multiplies NaN."""
    xp = namespace(raw.x)
    return xp.where((raw.status == Status.OPTIMAL)[..., None], raw.x, 0.0)


def adjoint(program: QuadraticProgram, gradient: Gradient, raw: RawResult, cotangent: Array) -> Array:
    """λ = K⁻¹ (x̄, 0, 0, 0) for a batch, on the host: the pullback of x̄ [B, n] is −λᵀ ∂R/∂θ."""
    coupling = gradient.coupling(program, raw)
    lead = cotangent.shape[0]
    pad = kkt.pack(
        np.nan_to_num(cotangent), *(np.zeros((lead, a.shape[-1])) for a in (program.b, program.h, program.q))
    )
    solved, _ = kkt.solve(gradient.curved(program, raw), coupling.rows, coupling.bounds, pad)
    return np.where((raw.status == Status.OPTIMAL)[:, None], solved, 0.0)


# ------------------------------------------------------------------------------------------ inside a trace


@jax.custom_jvp
def with_derivative_of(value: Array, other: Array) -> Array:
    """`value`, differentiated as if it were `other`."""
    return value


@with_derivative_of.defjvp
def _with_derivative_of_jvp(primals: Any, tangents: Any) -> tuple[Array, Array]:
    return primals[0], tangents[1]


def solve(
    gradient: Gradient, solver: Solver, program: QuadraticProgram, start: Start | None = None
) -> RawResult:
    """Solve a single program inside a trace, with the derivative rule attached; batch with `jax.vmap`.

    `solver` takes what `gradient` makes of the program, and tries `start` first if it has a `traced` form.
    """
    return _solve(gradient, solver, gradient.program(program), start)


@functools.partial(jax.custom_jvp, nondiff_argnums=(0, 1))
def _solve(gradient: Gradient, solver: Solver, program: QuadraticProgram, start: Start | None) -> RawResult:
    if not solver.host:
        return device_call(solver, program)
    if hasattr(solver, "traced"):
        return device_call(solver.traced, program, start)
    return host_call(solver, raw_shapes(program), program)


@functools.partial(_solve.defjvp, symbolic_zeros=True)
def _solve_jvp(
    gradient: Gradient, solver: Solver, primals: Any, tangents: Any
) -> tuple[RawResult, RawResult]:
    (program, start), (moved, _) = primals, tangents
    raw = _solve(gradient, solver, program, start)
    coupling = gradient.coupling(program, raw)
    leaves, structure = jax.tree_util.tree_flatten(program)
    directions = jax.tree_util.tree_leaves(moved, is_leaf=_is_symbolic_zero)
    moving = [i for i, d in enumerate(directions) if not _is_symbolic_zero(d)]
    parts = [path[0].name for path, _ in jax.tree_util.tree_leaves_with_path(program)]
    refuse(solver, {parts[i] for i in moving})

    def of_moving(*values: Array) -> Array:
        changed = list(leaves)
        for i, value in zip(moving, values, strict=True):
            changed[i] = value
        return residual(jax.tree_util.tree_unflatten(structure, changed), coupling, raw)

    _, change = jax.jvp(of_moving, tuple(leaves[i] for i in moving), tuple(directions[i] for i in moving))
    change = jnp.where(raw.status == Status.OPTIMAL, change, 0.0)
    dv = _linear_solve(
        _system(gradient, solver), gradient.curved(program, raw), coupling, raw.status, -change
    )
    dx, dy, dz, dw = kkt.unpack(program, dv)
    dz = jnp.where(jnp.isfinite(coupling.rows), dz, 0.0)
    dw = jnp.where(jnp.isfinite(coupling.bounds), dw, 0.0)
    return raw, RawResult(
        dx, dy, dz, dw, *(_no_tangent(a) for a in (raw.active, raw.fixed, raw.status, raw.iterations))
    )


def _is_symbolic_zero(value: Any) -> bool:
    return isinstance(value, jax.custom_derivatives.SymbolicZero)


def _no_tangent(value: Array) -> np.ndarray:
    return np.zeros(value.shape, jax.dtypes.float0)


def _system(gradient: Gradient, solver: Solver) -> Callable[..., Array] | None:
    """What solves K v = rhs for a batch inside a trace; None: a callback."""
    if not solver.host:
        return _solve_system
    hard = type(gradient).coupling is Gradient.coupling
    return _solve_compiled if hard and hasattr(solver, "traced") else None


def _linear_solve(
    system: Callable[..., Array] | None,
    program: QuadraticProgram,
    coupling: Coupling,
    status: Array,
    rhs: Array,
) -> Array:
    def matvec(v: Array) -> Array:
        return kkt.matvec(program, coupling.rows, coupling.bounds, v)

    def solve_system(_matvec: Any, b: Array) -> Array:
        arguments = (program, coupling.rows, coupling.bounds, status, b)
        if system is None:
            return host_call(_solve_system, jax.ShapeDtypeStruct(b.shape, b.dtype), *arguments)
        return device_call(system, *arguments)

    return jax.lax.custom_linear_solve(matvec, rhs, solve_system, symmetric=True)


def _solve_compiled(*system: Any) -> Array:
    """As `_solve_system`, on a CPU by the compiled core; every compliance is 0 or +inf."""
    rhs = system[-1]

    def otherwise(*system: Any) -> Array:
        if may_block(system):
            return _solve_system(*system)
        return host_batch(_solve_system, jax.ShapeDtypeStruct(rhs.shape[1:], rhs.dtype), *system)

    def compiled(program: QuadraticProgram, kz: Array, kw: Array, status: Array, rhs: Array) -> Array:
        ok = jnp.broadcast_to(status == Status.OPTIMAL, len(rhs))
        active, fixed = (jnp.broadcast_to(k == 0.0, (len(rhs), k.shape[1])) for k in (kz, kw))
        clean = jnp.where(ok[:, None], rhs, 0.0)
        v, found = native.traced_sensitivity(program, active, fixed.astype(jnp.int8), clean)
        v = jnp.where(ok[:, None], v, 0.0)
        return jax.lax.cond((ok & (found == 0)).any(), lambda: otherwise(*system), lambda: v)

    if rhs.dtype != np.float64 or native.missing():
        return otherwise(*system)
    return jax.lax.platform_dependent(*system, cpu=compiled, default=otherwise)


def _solve_system(program: QuadraticProgram, kz: Array, kw: Array, status: Array, rhs: Array) -> Array:
    """K⁻¹ rhs by sample; zero for failed samples, whatever their data hold."""
    xp = namespace(rhs)
    ok = (status == Status.OPTIMAL)[:, None]
    solved, _ = kkt.solve(program, kz, kw, xp.where(ok, rhs, 0.0))
    return xp.where(ok, solved, 0.0)
