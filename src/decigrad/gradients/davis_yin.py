"""Davis–Yin splitting of the quadratically regularized relaxation, with Jacobian-free backpropagation.

With a slack s ≥ 0 for every inequality, v = (x, s), the box B of the bounds and the affine set
L = {A x = b, G x + s = h}, the map

    T(u) = u − v + P_L(2v − u − α∇f(v)),       v = P_B(u),    f(v) = qᵀx + ½μ‖x‖²

has fixed points u* whose P_B(u*) minimizes f over B ∩ L. P_B clips; P_L is one product with a factor that is
computed once where A and G are shared.

Source: Davis and Yin (2017), "A Three-Operator Splitting Scheme and its Optimization Applications",
doi:10.1007/s11228-017-0421-z; McKenzie, Wu Fung and Heaton (2024), "Differentiating Through Integer Linear
Programs with Quadratic Regularization and Davis-Yin Splitting", TMLR, arXiv:2301.13395.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from decigrad.errors import ModelError
from decigrad.gradients.implicit import Gradient, with_derivative_of
from decigrad.gradients.methods import Smoothed, for_relaxation
from decigrad.program import Array, QuadraticProgram, RawResult, Solver, Start, Status


@dataclass(frozen=True)
class DavisYin(Gradient):
    """The quadratically smoothed relaxation by splitting, with the derivative of one step of the iteration.

        forward   x = P_B(u), u = T_θ(u): as `Smoothed(mu)`        backward   ∂P_B(T_θ(u))/∂θ, u held fixed

    The backward pass is **not the exact derivative** of the forward one: it leaves out the factor
    (I − ∂T/∂u)⁻¹ (Jacobian-free backpropagation), which keeps a direction of descent under conditions given
    in the source. Neither pass solves a linear system, so it suits large programs and accelerators.

    Args:
        mu: strength, relative: of the root mean square of the cost (as in `Smoothed`).
        iterations: at most; a sample that needs more fails with `Status.ITERATION_LIMIT`.
        relative: see `Smoothed`.
        tolerance: the largest change of an entry at which the iteration stops, relative: to the largest entry
            of the decision or of q/mu, whichever is less.

    Source: McKenzie, Wu Fung and Heaton (2024), arXiv:2301.13395; see `decigrad.gradients.davis_yin`.
    """

    mu: float = 1.0
    iterations: int = 5000
    relative: bool = True
    tolerance: float = 1e-6

    changes_forward = True
    exact = False

    def __post_init__(self) -> None:
        if not self.mu > 0 or self.iterations < 1 or not self.tolerance > 0:
            raise ModelError("DavisYin needs mu > 0, iterations >= 1 and tolerance > 0")

    @property
    def smoothed(self) -> Smoothed:
        """The gradient with the same forward value and the exact derivative."""
        return Smoothed(self.mu, relative=self.relative)

    def program(self, program: QuadraticProgram) -> QuadraticProgram:
        """As `Smoothed`."""
        return self.smoothed.program(program)

    def solver(self, asked: str | Solver, program: QuadraticProgram) -> str | Solver:
        """The splitting, for linear models."""
        if not program.linear:
            raise ModelError("DavisYin regularizes a linear objective; this one has curvature: use KKT()")
        for_relaxation(self, asked, program)
        return Splitting(STEP / self.mu, self.iterations, self.tolerance)

    def stated(self, program: QuadraticProgram, raw: RawResult) -> RawResult:
        """As `Smoothed`."""
        return self.smoothed.stated(program, raw)

    def regularizer(self, program: QuadraticProgram, x: Array) -> Array:
        """As `Smoothed`."""
        return self.smoothed.regularizer(program, x)

    def decide(self, solver: Any, program: QuadraticProgram, start: Start | None = None) -> RawResult:
        """The fixed point, differentiated as one step from it."""
        program = self.program(program)
        affine = _affine(program)
        raw = solver.iterate(*jax.lax.stop_gradient((program, affine)))
        return raw.replace(x=with_derivative_of(raw.x, _step_from(solver.step, program, affine, raw)))

    def saved(self, program: QuadraticProgram, raw: RawResult, cotangent: Array) -> Any:
        """The fixed point and the cotangent there, zero in failed samples."""
        ok = (raw.status == Status.OPTIMAL)[:, None]
        return jnp.where(ok, jnp.nan_to_num(cotangent), 0.0), raw

    def pairing(self, program: QuadraticProgram, saved: Any) -> Array:
        """−x̄ᵀ P_B(T_θ(u)) of a single program, with u held fixed."""
        cotangent, raw = saved
        program = self.program(program)
        return -(cotangent @ _step_from(STEP / self.mu, program, _affine(program), raw))


STEP = 0.2
"""α in units of 1/μ, the curvature of f; up to 2 converges, and grids and knapsacks are fastest near here."""


@dataclass(frozen=True)
class Splitting:
    """A device solver: Davis–Yin splitting with the step length `step`, for programs with small curvature."""

    step: float
    iterations: int = 5000
    tolerance: float = 1e-6

    name = "davis-yin"
    host = False

    def refuses(self, program: QuadraticProgram) -> str | None:
        """Integer variables are refused."""
        return "the splitting needs continuous variables" if program.integer else None

    def __call__(self, program: QuadraticProgram) -> RawResult:
        """Solve a batched program; what is shared is factored once."""
        axes = jax.tree_util.tree_map(lambda a: None if a.shape[0] == 1 else 0, program)
        single = jax.tree_util.tree_map(lambda a: a[0] if a.shape[0] == 1 else a, program)
        if program.batch_size == 1:
            return jax.tree_util.tree_map(lambda a: a[None], self._solved(single))
        return jax.vmap(self._solved, in_axes=(axes,))(single)

    def _solved(self, program: QuadraticProgram) -> RawResult:
        return self.iterate(program, _affine(program))

    def iterate(self, program: QuadraticProgram, affine: _Affine) -> RawResult:
        """The fixed point of a single program as a result with multipliers."""
        n, me = program.n, program.num_equalities
        valid = jnp.isfinite(program.q).all() & (program.lb <= program.ub).all()
        valid = valid & jnp.isfinite(affine.matrix).all() & jnp.isfinite(affine.right).all()
        start = jnp.concatenate([jnp.zeros(n, program.q.dtype), jnp.maximum(affine.right[me:], 0.0)])
        start = _clipped(program, start)

        def further(carry: tuple[Array, Array, Array]) -> Array:
            count, _, settled = carry
            return valid & (count < self.iterations) & ~settled

        def advance(carry: tuple[Array, Array, Array]) -> tuple[Array, Array, Array]:
            count, u, _ = carry
            new = _map(self.step, program, affine, u)
            return count + 1, new, self._settled(program, u, new)

        first = jnp.zeros((), jnp.int32), start, jnp.asarray(False)
        count, u, settled = jax.lax.while_loop(further, advance, first)
        v = _clipped(program, u)
        force = (u - v) / self.step
        x, w = v[:n], force[:n]
        costs = jnp.concatenate([program.P.matvec(x) + program.q, jnp.zeros(len(v) - n, v.dtype)])
        multiplier = -affine.inverse.T @ (costs + force)
        ok = valid & settled
        status = jnp.where(valid, int(Status.ITERATION_LIMIT), int(Status.INVALID_DATA))
        held = jnp.sign(w).astype(jnp.int8)
        return RawResult(
            x=jnp.where(ok, x, jnp.nan),
            y=jnp.where(ok, multiplier[:me], 0.0),
            z=jnp.where(ok, -force[n:] / affine.norms, 0.0),
            w=jnp.where(ok, w, 0.0),
            active=ok & (force[n:] < 0),
            fixed=jnp.where(ok, held, 0).astype(jnp.int8),
            status=jnp.where(ok, int(Status.OPTIMAL), status).astype(jnp.int32),
            iterations=count,
        )

    def _settled(self, program: QuadraticProgram, u: Array, new: Array) -> Array:
        """Whether the step from u to `new` solves the program to the tolerance.

        new − u = P_L(…) − v is by how much v misses L, and α times by how much it misses stationarity: small
        beside the decision, and beside α‖q‖, or as small as rounding allows.
        """
        n, change = program.n, new - u
        x, pulled = jnp.clip(u[:n], program.lb, program.ub), abs(program.q).max() * self.step / STEP
        size = jnp.maximum(abs(x).max(), abs(x + change[:n]).max())
        size = jnp.where(pulled > 0, jnp.minimum(size, pulled), size)
        rounding = 10.0 * jnp.finfo(u.dtype).eps * abs(u[:n]).max()
        return abs(change).max() <= jnp.maximum(self.tolerance * size, rounding)


class _Affine(NamedTuple):
    """The set {v : matrix v = right}, inequalities scaled to unit rows and given slacks."""

    matrix: Array  # [me + mi, n + mi]
    right: Array
    inverse: Array  # the pseudoinverse of the matrix
    norms: Array  # [mi] of the rows of G


def _affine(program: QuadraticProgram) -> _Affine:
    A, G, me, mi = program.A.matrix, program.G.matrix, program.num_equalities, program.num_inequalities
    norms = jnp.sqrt((G**2).sum(-1))
    norms = jnp.where(norms > 0, norms, 1.0)
    slacks = jnp.concatenate([jnp.zeros((me, mi), A.dtype), jnp.eye(mi, dtype=A.dtype)])
    matrix = jnp.concatenate([jnp.concatenate([A, G / norms[:, None]]), slacks], axis=1)
    right = jnp.concatenate([program.b, jnp.where(jnp.isinf(program.h), 1e9, program.h) / norms])
    return _Affine(matrix, right, jnp.linalg.pinv(matrix), norms)


def _clipped(program: QuadraticProgram, u: Array) -> Array:
    """P_B: bounds on x, zero below slacks."""
    n = program.n
    return jnp.concatenate([jnp.clip(u[:n], program.lb, program.ub), jnp.maximum(u[n:], 0.0)])


def _map(step: float, program: QuadraticProgram, affine: _Affine, u: Array) -> Array:
    """T(u)."""
    v = _clipped(program, u)
    x = v[: program.n]
    slope = jnp.concatenate([program.P.matvec(x) + program.q, jnp.zeros(len(v) - program.n, v.dtype)])
    aim = 2.0 * v - u - step * slope
    return u - v + aim - affine.inverse @ (affine.matrix @ aim - affine.right)


def _step_from(step: float, program: QuadraticProgram, affine: _Affine, raw: RawResult) -> Array:
    """x = P_B(T(u)) from the fixed point u of a result."""
    ok = raw.status == int(Status.OPTIMAL)
    x = jnp.where(ok, raw.x, 0.0)
    slack = (program.h - program.G.matvec(x)) / affine.norms
    slack = jnp.where(raw.active, -step * raw.z * affine.norms, slack)
    u = jax.lax.stop_gradient(jnp.concatenate([x + step * raw.w, slack]))
    return jnp.where(ok, _clipped(program, _map(step, program, affine, u))[: program.n], 0.0)
