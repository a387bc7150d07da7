"""A batched primal-dual interior point method in JAX (Mehrotra's predictor-corrector), polished.

All inequalities, bounds included, are written E x + s = e with s ≥ 0 and multipliers z ≥ 0, where
E = (G; −I; I) and e = (h; −lb; ub); an infinite side is masked. Each step factors one system of
`kkt.factorize`, in which bounds are a diagonal of the Hessian and rows are soft, and solves it twice. A tiny
proximal term in x and y keeps the factors sound for free variables, linear programs and redundant rows; it
acts on the step, not on the residuals, so it does not change the solution.

Samples that have converged or failed are frozen, and nothing of theirs reaches the others.

Source: S. Mehrotra, "On the implementation of a primal-dual interior point method", SIAM Journal on
Optimization 2 (1992), doi:10.1137/0802028; M. P. Friedlander and D. Orban, "A primal-dual regularized
interior-point method for convex quadratic programs", Mathematical Programming Computation 4 (2012),
doi:10.1007/s12532-012-0035-2.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from decigrad import kkt
from decigrad.program import (
    Array,
    QuadraticProgram,
    RawResult,
    Solver,
    Status,
)
from decigrad.solvers.daqp import DAQP
from decigrad.solvers.equilibration import Scaled, proximal_weight, scale
from decigrad.solvers.highs import HiGHS
from decigrad.solvers.polish import polish
from decigrad.solvers.presolve import presolved_status

HELD = 1e-25  # compliance of a variable with lb = ub


@dataclass(frozen=True)
class InteriorPoint:
    """Batched interior point solver for linear and convex quadratic programs.

    Arguments:
        tolerance: relative residuals and complementarity at which the iteration stops.
        max_iterations: a sample that needs more gets `Status.ITERATION_LIMIT`.
        polish: solve the active set's KKT system exactly afterwards (errors of about 1e-12 in float64).
            A sample whose active set cannot be verified gets `Status.NUMERICAL_ERROR`: about one in ten of
            those with constraints 1e-9 from switching. Without `polish`, the point of the iteration is
            returned as it is, with the active set that it suggests.
        barrier: None, or μ > 0: return the minimizer of ½xᵀPx + qᵀx − μ Σ log(e − E x) over A x = b instead,
            not polished. Its multipliers are z = μ/(h − Gx) and w = μ/(ub − x) − μ/(x − lb), so the
            derivative has the compliances kz = (h − Gx)²/μ and kw = 1/(μ/(x − lb)² + μ/(ub − x)²); `active`
            and `fixed` mark nothing but variables with lb = ub.

    Raises:
        ValueError: a tolerance below what the program's dtype can reach (about 7e-5 in float32).
    """

    tolerance: float = 1e-9
    max_iterations: int = 60
    polish: bool = True
    barrier: float | None = None

    name = "interior-point"
    host = False

    def __post_init__(self) -> None:
        if not self.tolerance > 0 or self.max_iterations < 1:
            raise ValueError("InteriorPoint needs tolerance > 0 and max_iterations >= 1")
        if self.barrier is not None and not self.barrier > 0:
            raise ValueError(f"barrier must be positive, got {self.barrier}")

    def refuses(self, program: QuadraticProgram) -> str | None:
        """Integer variables are refused."""
        if program.integer:
            return f"{len(program.integer)} variables are integer; an interior point method finds none"
        return None

    def second(self, program: QuadraticProgram) -> Solver | None:
        """Who is asked, outside `jit`, about the samples that this solver gives up on."""
        if self.barrier is not None or not self.polish:
            return None
        return HiGHS() if program.linear else DAQP()

    def __call__(self, program: QuadraticProgram) -> RawResult:
        """Solve a batched program; leaves become JAX arrays of their common dtype."""
        dtype = jnp.result_type(*jax.tree_util.tree_leaves(program))
        dtype = jnp.result_type(dtype, jnp.float32)
        least = float(np.finfo(dtype).eps) ** 0.6
        if self.tolerance < least:
            raise ValueError(
                f"tolerance {self.tolerance:g} is below what {dtype} can reach ({least:.1g}): "
                "enable float64 (jax.enable_x64) or ask for less"
            )
        return _solve(self, jax.tree_util.tree_map(lambda a: jnp.asarray(a, dtype), program))


# --------------------------------------------------------------------------------------------- iteration


class _Iterate(NamedTuple):
    x: Array
    y: Array
    s: Array
    z: Array


class _Residuals(NamedTuple):
    dual: Array
    equality: Array
    slack: Array
    complementarity: Array  # mean of s·z
    size_dual: Array
    size_primal: Array


class _State(NamedTuple):
    point: _Iterate
    residuals: _Residuals
    status: Array  # −1 while running
    iterations: Array
    step: Array


@partial(jax.jit, static_argnums=0)
def _solve(options: InteriorPoint, program: QuadraticProgram) -> RawResult:
    batch = program.batch_size
    presolved = presolved_status(program, batch)
    scaled = scale(_after(program, presolved))
    state = _initial(options, scaled, presolved)
    state = jax.lax.while_loop(
        lambda state: (state.status < 0).any(), partial(_iterate, options, scaled), state
    )
    result = _unscale(scaled, state, options.barrier is not None)
    if options.polish and options.barrier is None:
        polished, verified = polish(_after(program, state.status), result)
        # What the iteration could not bring to tolerance may still have shown its active set.
        unsure = (result.status == int(Status.ITERATION_LIMIT)) | (
            result.status == int(Status.NUMERICAL_ERROR)
        )
        status = jnp.where(verified & unsure, int(Status.OPTIMAL), result.status)
        # Derivatives need the active set: a point without a verified one is no answer.
        lost = ~verified & (status == int(Status.OPTIMAL))
        status = jnp.where(lost, int(Status.NUMERICAL_ERROR), status)
        result = polished.replace(status=status)
    failed = (result.status != int(Status.OPTIMAL))[:, None]

    def clear(a: Array) -> Array:
        return jnp.where(failed, jnp.zeros((), a.dtype), a)

    return result.replace(
        x=jnp.where(failed, jnp.nan, result.x),
        y=clear(result.y),
        z=clear(result.z),
        w=clear(result.w),
        active=clear(result.active),
        fixed=clear(result.fixed),
    )


def _after(program: QuadraticProgram, token: Array) -> QuadraticProgram:
    """The program, its curvature not factored before `token` is there (see `kkt.cholesky`)."""
    return replace(program, P=jax.tree_util.tree_map(lambda leaf: kkt.after(leaf, token), program.P))


def _initial(options: InteriorPoint, scaled: Scaled, status: Array) -> _State:
    """Least squares violation of all inequalities, pushed inside (Mehrotra 1992, section 7)."""
    program, objective, mask = scaled.program, scaled.objective, scaled.mask
    batch, n, mi = len(status), program.n, program.num_inequalities
    stiff = jnp.where(mask, objective, 0.0)
    stiff_w = stiff[:, mi : mi + n] + stiff[:, mi + n :]
    kz, kw = 1.0 / stiff[:, :mi], 1.0 / stiff_w
    held = scaled.held
    factors = kkt.factorize(
        scaled.regular, kz, jnp.where(held, HELD, kw), soft=True, shifted=False, ky=proximal_weight(kw.dtype)
    )
    start = jnp.where(held, program.lb, 0.0)
    pull = stiff[:, mi + n :] * scaled.e[:, mi + n :] - stiff[:, mi : mi + n] * scaled.e[:, mi : mi + n]
    rhs = kkt.pack(
        jnp.where(held, 0.0, pull - program.q - program.P.matvec(start)) + jnp.zeros((batch, 1), kw.dtype),
        program.b - program.A.matvec(start) + jnp.zeros((batch, 1), kw.dtype),
        jnp.where(mask[:, :mi], scaled.e[:, :mi] - program.G.matvec(start), 0.0)
        + jnp.zeros((batch, 1), kw.dtype),
        jnp.zeros((batch, n), kw.dtype),
    )
    dx, y, _, _ = kkt.unpack(program, factors.solve(rhs[:, None, :])[:, 0, :])
    x = jnp.where(held, start, dx)
    slack = jnp.where(mask, scaled.e - _constraints(program, x), 1.0)
    z = jnp.where(mask, -objective * slack, 0.0)
    unit = jnp.maximum(abs(slack).max(-1, keepdims=True), 1e-3)
    least_s = jnp.where(mask, slack, jnp.inf).min(-1, keepdims=True)
    least_z = jnp.where(mask, z, jnp.inf).min(-1, keepdims=True)
    s = slack + jnp.where(mask, jnp.maximum(-1.5 * least_s, 0.0), 0.0) * mask
    z = z + jnp.maximum(-1.5 * least_z, 0.0)
    s, z = jnp.where(mask, s, 1.0), jnp.where(mask, z, 0.0)
    product = (s * z).sum(-1, keepdims=True)
    more_s = 0.5 * product / jnp.maximum(z.sum(-1, keepdims=True), 1e-30)
    more_z = 0.5 * product / jnp.maximum(jnp.where(mask, s, 0.0).sum(-1, keepdims=True), 1e-30)
    s = jnp.where(mask, s + jnp.maximum(more_s, 1e-2 * unit), 1.0)
    z = jnp.where(mask, z + jnp.maximum(more_z, 1e-2 * objective), 0.0)
    point = _Iterate(x, y, s, z)
    return _State(
        point, _residuals(scaled, point), status, jnp.zeros(batch, jnp.int32), jnp.ones((batch, 1), x.dtype)
    )


def _iterate(options: InteriorPoint, scaled: Scaled, state: _State) -> _State:
    """Judge the current point; where the sample goes on, one predictor-corrector step."""
    target = 0.0 if options.barrier is None else options.barrier
    status = jnp.where(state.status < 0, _verdict(options, scaled, state), state.status)
    point, r = state.point, state.residuals
    program, mask = scaled.program, scaled.mask
    n, mi = program.n, program.num_inequalities
    ratio = jnp.where(mask, point.z / point.s, 0.0)
    kw = 1.0 / (ratio[:, mi : mi + n] + ratio[:, mi + n :])
    factors = kkt.factorize(
        scaled.regular,
        1.0 / ratio[:, :mi],
        jnp.where(scaled.held, HELD, kw),
        soft=True,
        shifted=False,
        ky=proximal_weight(kw.dtype),
    )

    def direction(product: Array) -> _Iterate:
        gap = jnp.where(mask, (point.z * r.slack + product) / point.s, 0.0)
        r1 = -r.dual + gap[:, mi + n :] - gap[:, mi : mi + n]
        r1 = jnp.where(scaled.held, 0.0, r1)
        r3 = jnp.where(mask[:, :mi], r.slack[:, :mi] + product[:, :mi] / point.z[:, :mi], 0.0)
        v = factors.solve(kkt.pack(r1, -r.equality, r3, jnp.zeros_like(r1))[:, None, :])[:, 0, :]
        dx, dy, _, _ = kkt.unpack(program, v)
        dx = jnp.where(scaled.held, 0.0, dx)
        ds = jnp.where(mask, r.slack - _constraints(program, dx), 0.0)
        dz = jnp.where(mask, -(product + point.z * ds) / point.s, 0.0)
        return _Iterate(dx, dy, ds, dz)

    mu = r.complementarity
    product = point.s * point.z
    affine = direction(product - target)
    primal, dual = _steps(program, point, affine)
    if options.barrier is None:
        reached = (point.s + primal * affine.s) * (point.z + dual * affine.z)
        reached = jnp.where(mask, reached, 0.0).sum(-1, keepdims=True) * scaled.weight
        centre = jnp.clip(reached / mu, 0.0, 1.0) ** 3 * mu
        step = direction(product + affine.s * affine.z - centre)
        primal, dual = _steps(program, point, step)
    else:
        step = affine  # Newton's step to the one point that is sought: corrected, it can go round in circles
    back = 1.0 - jnp.minimum(0.01, 1.0 - jnp.minimum(primal, dual) + 1e-3)
    primal, dual = jnp.minimum(back * primal, 1.0), jnp.minimum(back * dual, 1.0)
    new = _Iterate(
        point.x + primal * step.x,
        point.y + dual * step.y,
        point.s + primal * step.s,
        point.z + dual * step.z,
    )
    sound = jnp.isfinite(new.x).all(-1) & jnp.isfinite(new.y).all(-1) & jnp.isfinite(new.z).all(-1)
    status = jnp.where((status < 0) & ~sound, int(Status.NUMERICAL_ERROR), status)
    running = (status < 0)[:, None]
    point = _Iterate(*(jnp.where(running, a, b) for a, b in zip(new, point, strict=True)))
    iterations = state.iterations + running[:, 0]
    return _State(
        point,
        _residuals(scaled, point),
        status.astype(jnp.int32),
        iterations,
        jnp.where(running, jnp.minimum(primal, dual), state.step),
    )


def _steps(program: QuadraticProgram, point: _Iterate, step: _Iterate) -> tuple[Array, Array]:
    """Longest steps that keep s and z positive; one for both where the objective is quadratic."""
    primal = jnp.max(-step.s / point.s, axis=-1, keepdims=True, initial=0.0)
    dual = jnp.max(jnp.where(step.z < 0, -step.z / point.z, 0.0), axis=-1, keepdims=True, initial=0.0)
    if not program.linear:
        primal = dual = jnp.maximum(primal, dual)
    return 1.0 / jnp.maximum(primal, 1.0), 1.0 / jnp.maximum(dual, 1.0)


def _constraints(program: QuadraticProgram, x: Array) -> Array:
    """E x = (G x; −x; x)."""
    return jnp.concatenate([program.G.matvec(x), -x, x], axis=-1)


def _residuals(scaled: Scaled, point: _Iterate) -> _Residuals:
    program = scaled.program
    n, mi = program.n, program.num_inequalities
    curvature = program.P.matvec(point.x)
    constraint = program.A.rmatvec(point.y) + program.G.rmatvec(point.z[:, :mi])
    constraint = constraint + point.z[:, mi + n :] - point.z[:, mi : mi + n]
    dual = jnp.where(scaled.held, 0.0, curvature + program.q + constraint)
    equality = program.A.matvec(point.x) - program.b
    applied = _constraints(program, point.x)
    slack = jnp.where(scaled.mask, scaled.e - applied - point.s, 0.0)
    mu = jnp.where(scaled.mask, point.s * point.z, 0.0).sum(-1, keepdims=True) * scaled.weight
    size = jnp.maximum(abs(curvature).max(-1, keepdims=True), scaled.objective)
    return _Residuals(dual, equality, slack, mu, size, abs(point.x).max(-1, keepdims=True))


def _verdict(options: InteriorPoint, scaled: Scaled, state: _State) -> Array:
    """OPTIMAL, a certified failure, the iteration limit, or −1 to go on."""
    program, point, r = scaled.program, state.point, state.residuals
    tolerance = options.tolerance
    n, mi = program.n, program.num_inequalities

    def largest(a: Array) -> Array:
        return jnp.max(abs(a), axis=-1, initial=0.0)

    size_p = jnp.maximum(r.size_primal[:, 0], 1e-3)
    size_d = r.size_dual[:, 0]
    right = jnp.maximum(largest(program.b), size_p)
    gap = jnp.where(scaled.mask, point.s * point.z, 0.0)
    if options.barrier is None:
        central = gap.sum(-1) <= tolerance * size_d * size_p
    else:
        central = largest(jnp.where(scaled.mask, gap - options.barrier, 0.0)) <= tolerance * options.barrier
    optimal = (
        (largest(r.dual) <= tolerance * size_d)
        & (largest(r.equality) <= tolerance * right)
        & (largest(r.slack) <= tolerance * right)
        & central
    )

    # Farkas: Aᵀy + Eᵀz = 0, z ≥ 0, bᵀy + eᵀz < 0. A held variable takes any sign.
    combined = program.A.rmatvec(point.y) + program.G.rmatvec(point.z[:, :mi])
    combined = combined + point.z[:, mi + n :] - point.z[:, mi : mi + n]
    free = jnp.where(scaled.held, 0.0, combined)
    value = (program.b * point.y).sum(-1) + (scaled.e * point.z).sum(-1)
    value = value - jnp.where(scaled.held, combined * program.lb, 0.0).sum(-1)
    infeasible = (value < 0) & (largest(free) * size_p <= 1e-7 * -value) & (-value > 1e4 * size_d * size_p)

    # A ray: P x = 0, A x = 0, E x ≤ 0, qᵀx < 0.
    slope = (program.q * point.x).sum(-1)
    leak = jnp.maximum(largest(program.A.matvec(point.x)), largest(program.P.matvec(point.x)))
    outward = jnp.where(scaled.mask, _constraints(program, point.x), 0.0)
    leak = jnp.maximum(leak, jnp.max(outward, axis=-1, initial=0.0))
    unbounded = (slope < 0) & (leak * size_d <= 1e-7 * -slope) & (largest(point.x) > 1e6)
    verdict = jnp.where(state.iterations >= options.max_iterations, int(Status.ITERATION_LIMIT), -1)
    verdict = jnp.where(infeasible, int(Status.PRIMAL_INFEASIBLE), verdict)
    verdict = jnp.where(unbounded, int(Status.UNBOUNDED), verdict)
    return jnp.where(optimal, int(Status.OPTIMAL), verdict)


def _unscale(scaled: Scaled, state: _State, barrier: bool) -> RawResult:
    program, point, r = scaled.program, state.point, state.residuals
    n, mi = program.n, program.num_inequalities
    # A constraint is active where its multiplier beats its slack, each in the units of its problem.
    strong = scaled.mask & (point.z * jnp.maximum(r.size_primal, 1e-3) > point.s * r.size_dual)
    if barrier:
        strong = jnp.zeros_like(strong)
    lower, upper = strong[:, mi : mi + n], strong[:, mi + n :]
    w = point.z[:, mi + n :] - point.z[:, mi : mi + n]
    gradient = program.stationarity(point.x, point.y, point.z[:, :mi], 0.0)
    w = jnp.where(scaled.held, -gradient, w)
    fixed = upper.astype(jnp.int8) - lower.astype(jnp.int8)
    fixed = jnp.where(scaled.held, jnp.where(w < 0, -1, 1), fixed).astype(jnp.int8)
    status = state.status
    return RawResult(
        x=point.x * scaled.columns,
        y=point.y * scaled.rows,
        z=point.z[:, :mi] * scaled.inequalities,
        w=w / scaled.columns,
        active=strong[:, :mi],
        fixed=fixed,
        status=status,
        iterations=state.iterations,
    )
