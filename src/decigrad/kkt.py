"""The linear algebra of optimality: one symmetric system for derivatives, polishing and Newton steps.

Inequality rows and bounds enter by their *compliance*, kz [B, mi] and kw [B, n]: 0 holds the constraint
with equality, +inf lets it go, a positive number is the soft coupling of an interior point (s/z for a
row, 1/(zl/sl + zu/su) for a variable). With a = isfinite(kz), c = −kz where finite and 1 elsewhere, and
f, e likewise from kw, the system K v = rhs in v = (dx, dy, dz, dw) is

    row x   P dx + Aᵀ dy + Gᵀ(a·dz) + f·dw
    row y   A dx
    row z   a·(G dx) + c·dz
    row w   f·dx + e·dw

K is symmetric, of order N = 2n + me + mi. It is solved by elimination: soft bounds and (for a dense P) soft
rows go into the Hessian H, held variables are masked out of it, and the remaining rows C give the Schur
complement S = C H⁻¹ Cᵀ + diag(kz). H⁻¹ is elementwise for a diagonal P, Woodbury's formula for low rank
plus diagonal, Cholesky for a dense one. Directions without curvature get a small one in H, and S a small
compliance; iterative refinement against K takes both out again. Dependent rows then leave their multipliers
undetermined, and a projection makes these the least ones. What refinement cannot repair (a direction without
curvature, a contradiction) is solved by K⁺ explicitly.

Arrays are NumPy (computed at once, on the active rows only) or JAX (traceable, static shapes).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from scipy.linalg import lapack

from decigrad.program import Array, Dense, Diagonal, LowRank, Operator, QuadraticProgram, namespace

UNROLLED = 4  # Cholesky factors up to this order are written out: a batched LAPACK call costs more
INVERTED = 32  # up to this order XLA inverts Cholesky factors
REFINEMENTS = 2
SMALL = 32  # matrices up to this size are multiplied without a matrix product in JAX
ALONE = 40  # order of K up to which a single sample on the host is solved by one small inverse
REGULAR = 1e8  # and the condition number of that matrix which counts as plainly regular
GRAM = 2_000_000  # outer products up to this size are formed to weight a shared matrix for the whole batch


@dataclass(frozen=True)
class _Tolerances:
    """Powers of the unit roundoff; in float64 about the figures named."""

    floor: float  # 1e-8  least curvature of a variable, relative to the largest
    shift: float  # 4e-11 least eigenvalue of a dense H with unit diagonal
    pivot: float  # 1e-12 squared pivot of S with unit diagonal below which rows are suspected dependent
    residual: float  # 1e-10 backward error that refinement must reach
    probe: float  # 1e-6  what refinement may leave of a random right-hand side
    rank: float  # 1e-11 eigenvalue of the equilibrated K that counts as zero


def _tolerances(dtype: Any) -> _Tolerances:
    eps = float(np.finfo(dtype).eps)
    return _Tolerances(eps**0.5, eps ** (2 / 3), 5e3 * eps, eps**0.64, eps**0.375, eps**0.7)


# ------------------------------------------------------------------------------------------------ layout


def pack(x: Array, y: Array, z: Array, w: Array) -> Array:
    """The flat vector v = (x, y, z, w), [..., 2n + me + mi]."""
    return namespace(x, y, z, w).concatenate([x, y, z, w], axis=-1)


def unpack(program: QuadraticProgram, v: Array) -> tuple[Array, Array, Array, Array]:
    """The parts (x, y, z, w) of a flat vector [..., 2n + me + mi]."""
    n, me, mi = program.n, program.num_equalities, program.num_inequalities
    return v[..., :n], v[..., n : n + me], v[..., n + me : n + me + mi], v[..., n + me + mi :]


def _times(operator: Operator, rows: Array) -> Array:
    """rows [..., k, n] -> rows of operator @ row [..., k, m]; a shared matrix is one matrix product."""
    if isinstance(operator, Diagonal):
        return operator.diagonal[..., None, :] * rows
    if isinstance(operator, LowRank):
        inner = operator.weight[..., None, :] * _times(Dense(operator.factor), rows)
        return operator.diagonal[..., None, :] * rows + _transposed(Dense(operator.factor), inner)
    return _product(rows, operator.matrix.swapaxes(-1, -2))


def _transposed(operator: Dense, rows: Array) -> Array:
    return _product(rows, operator.matrix)


def _product(rows: Array, matrix: Array) -> Array:
    """rows [B, k, n] @ matrix [B or 1, n, m]."""
    if namespace(rows, matrix) is jnp and matrix.shape[-1] * matrix.shape[-2] <= SMALL:
        # XLA fuses a product and sum with its neighbours; a matrix product is a call of its own.
        return (rows[..., :, :, None] * matrix[..., None, :, :]).sum(-2)
    if matrix.ndim == 3 and matrix.shape[0] == 1 and rows.ndim == 3:
        flat = rows.reshape(rows.shape[0] * rows.shape[1], rows.shape[2]) @ matrix[0]
        return flat.reshape(rows.shape[0], rows.shape[1], matrix.shape[2])
    return rows @ matrix


def _gram(matrix: Array, weight: Array) -> Array:
    """M diag(weight) Mᵀ, [B, m, m], of M [B or 1, m, n] and weight [B, n]."""
    m, n = matrix.shape[-2:]
    if matrix.shape[0] == 1 and m * m * n <= GRAM:
        # All samples at once: weight times the outer products of the columns.
        columns = matrix[0].swapaxes(0, 1)
        outer = (columns[:, :, None] * columns[:, None, :]).reshape(1, n, m * m)
        return _product(weight[:, None, :], outer).reshape(weight.shape[0], m, m)
    return _product(matrix * weight[:, None, :], matrix.swapaxes(-1, -2))


def matvec(program: QuadraticProgram, kz: Array, kw: Array, v: Array) -> Array:
    """K v, for a single program (v [N]) or a batched one (v [B, N])."""
    return _matvec(program, kz[..., None, :], kw[..., None, :], v[..., None, :])[..., 0, :]


def _matvec(program: QuadraticProgram, kz: Array, kw: Array, rows: Array) -> Array:
    xp = namespace(kz, kw, rows, program.q)
    dx, dy, dz, dw = unpack(program, rows)
    a, f = xp.isfinite(kz), xp.isfinite(kw)
    row_x = _times(program.P, dx) + xp.where(f, dw, 0.0)
    row_y = _times(program.A, dx)
    if program.num_equalities:
        row_x = row_x + _transposed(program.A, dy)
    row_z = dz
    if program.num_inequalities:
        row_x = row_x + _transposed(program.G, xp.where(a, dz, 0.0))
        row_z = xp.where(a, _times(program.G, dx), dz) - xp.where(a, kz, 0.0) * dz
    row_w = xp.where(f, dx, dw) - xp.where(f, kw, 0.0) * dw
    return pack(row_x, row_y, row_z, row_w)


# --------------------------------------------------------------------------------------------- Cholesky


def _cholesky(matrix: Array, shift: float = 0.0) -> tuple[Callable[[Array], Array], Array]:
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
        return lambda rows: _product(_product(rows, inverse.swapaxes(-1, -2)), inverse), pivot

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


# --------------------------------------------------------------------------------------------- the Hessian


@dataclass(frozen=True)
class _Inverse:
    """H⁻¹ on the free variables, zero elsewhere."""

    apply: Callable[[Array], Array]
    """rows [B, k, n] -> rows."""
    positive: Array
    """[B]: H is positive definite."""
    diagonal: Array
    """H⁻¹ itself [B, n] where it is diagonal, else None."""
    cheap: bool
    """Applying it costs O(n): better than keeping H⁻¹Cᵀ."""


def _inverse_hessian(P: Operator, extra: Array, free: Array | None, shifted: bool) -> _Inverse:
    """The inverse of H = P + diag(extra). `free` is None where all variables are.

    With `shifted`, curvature below a floor is raised to it.
    """
    xp = namespace(extra, *jax.tree_util.tree_leaves(P))
    tolerances = _tolerances(extra.dtype)
    if isinstance(P, Dense):
        return _inverse_dense(P, extra, free, tolerances if shifted else None)
    h = P.diagonal + extra
    if shifted:
        largest = P.diagonal.max(-1, keepdims=True)
        h = xp.maximum(h, xp.where(largest > 0, tolerances.floor * largest, tolerances.floor))
    inverse = 1.0 / h if free is None else xp.where(free, 1.0 / h, 0.0)
    positive = (h > 0).all(-1)
    if isinstance(P, Diagonal):
        return _Inverse(lambda rows: inverse[:, None, :] * rows, positive, inverse, True)

    # (D + FᵀF)⁻¹ = D⁻¹ − D⁻¹Fᵀ(I + F D⁻¹ Fᵀ)⁻¹F D⁻¹, with the weights' roots in F.
    factor = Dense(xp.sqrt(P.weight)[:, :, None] * P.factor)
    inner = _gram(factor.matrix, inverse) + np.eye(factor.shape[0], dtype=extra.dtype)
    solve, pivot = _cholesky(inner)

    def apply(rows: Array) -> Array:
        scaled = inverse[:, None, :] * rows
        return scaled - inverse[:, None, :] * _transposed(factor, solve(_times(factor, scaled)))

    return _Inverse(apply, positive & (pivot > 0), None, False)


def _inverse_dense(P: Dense, extra: Array, free: Array | None, tolerances: _Tolerances | None) -> _Inverse:
    xp = namespace(extra, P.matrix)
    identity = np.eye(extra.shape[-1], dtype=extra.dtype)
    H = P.matrix + extra[:, :, None] * identity
    if free is not None:
        H = xp.where(free[:, :, None] & free[:, None, :], H, 0.0)
        H = H + xp.where(free, 0.0, 1.0)[:, :, None] * identity
    if tolerances is not None:
        diagonal = xp.diagonal(H, axis1=-2, axis2=-1)
        least = tolerances.floor * xp.maximum(diagonal.max(-1, keepdims=True), 0.0)
        # Relative to each variable's own curvature, and to the largest where there is none.
        raised = tolerances.shift * diagonal + xp.where(diagonal > 0, 0.0, least)
        H = H + raised[:, :, None] * identity
    solve, pivot = _cholesky(H)
    if free is None:
        return _Inverse(solve, pivot > 0, None, False)
    inside = free[:, None, :]

    def apply(rows: Array) -> Array:
        return xp.where(inside, solve(xp.where(inside, rows, 0.0)), 0.0)

    return _Inverse(apply, pivot > 0, None, False)


# ------------------------------------------------------------------------------------------ factorization


@dataclass(frozen=True)
class Factors:
    """What `factorize` returns."""

    solve: Callable[[Array], Array]
    """Rows of right-hand sides [B, k, N] -> rows of solutions, to be refined against `matvec`."""
    project: Callable[[Array], Array]
    """Rows of vectors -> the same without their part in the null space of dependent constraints."""
    sound: Array
    """[B]: the factors exist."""
    dependent: Array
    """[B]: some rows that hold with equality are linear combinations of others, or nearly."""


def factorize(
    program: QuadraticProgram,
    kz: Array,
    kw: Array,
    *,
    soft: bool = False,
    hard: bool = False,
    shifted: bool = True,
    ky: float = 0.0,
) -> Factors:
    """Factor K once, for any number of right-hand sides.

    Arguments:
        program: batched.
        kz, kw: compliances [B, mi], [B, n].
        soft: promise that no row and no bound is held hard (an interior point), which saves work.
        hard: promise that no compliance is positive and finite.
        shifted: raise missing curvature and missing independence of rows to a floor. Without it P must make H
            positive definite, as a proximal term does.
        ky: compliance of the equality rows (a dual proximal term).
    """
    xp = namespace(kz, kw, program.q, *jax.tree_util.tree_leaves(program.P))
    n, me, mi = program.n, program.num_equalities, program.num_inequalities
    P: Operator = Diagonal(xp.zeros((1, n), kw.dtype)) if program.linear and shifted else program.P
    condensed = mi > 0 and (isinstance(P, Dense) or mi > n) and not (hard and not isinstance(P, Dense))
    kept = kz if not condensed else xp.where(kz == 0, kz, xp.inf)  # rows that stay in S
    soft_w = xp.isfinite(kw) if soft else xp.isfinite(kw) & (kw > 0)
    hard = not soft_w.any() if xp is np else hard
    extra = xp.zeros((1, n), kw.dtype) if hard else xp.where(soft_w, 1.0 / xp.where(soft_w, kw, 1.0), 0.0)
    fixed: Array = None if soft or (xp is np and not (kw == 0).any()) else kw == 0

    weight: Array = None
    soft_z = xp.isfinite(kz) & (kz > 0)
    if condensed and (soft_z.any() if xp is np else not hard):
        weight = xp.where(soft_z, 1.0 / xp.where(soft_z, kz, 1.0), 0.0)
        P = Dense(_dense(P) + _gram(program.G.matrix.swapaxes(-1, -2), weight))
    elif condensed and not soft:
        P = Dense(_dense(P))

    # With a shared P and nothing else in H, held variables are rows of S: one H serves all.
    as_rows = hard and fixed is not None and isinstance(P, Dense) and P.matrix.shape[0] == 1
    if as_rows:
        C_shared = max(program.A.matrix.shape[0], program.G.matrix.shape[0]) == 1
        as_rows = int(fixed.sum(-1).max()) <= n // 2 if xp is np else C_shared
    held: Array = None if as_rows else fixed
    inverse = _inverse_hessian(P, extra, None if held is None else ~held, shifted)

    batch = max(kz.shape[0], kw.shape[0], program.batch_size)
    rows, compliance = [program.A.matrix], [xp.full((1, me), ky, kw.dtype)]
    with_z = mi > 0 and not (soft and condensed)
    if with_z:
        rows.append(program.G.matrix)
        compliance.append(kept)
    if as_rows:
        rows.append(xp.eye(n, dtype=kw.dtype)[None])
        compliance.append(xp.where(fixed, 0.0, xp.inf).astype(kw.dtype))
    shared = max(r.shape[0] for r in rows)
    C = xp.concatenate([xp.broadcast_to(r, (shared, *r.shape[1:])) for r in rows], axis=-2)
    kc = xp.concatenate([xp.broadcast_to(k, (batch, k.shape[1])) for k in compliance], axis=-1)
    choice = _choose(kc, n)
    schur_solve, pivot = _schur(C, kc, choice, inverse, shifted)

    def by_row(dy: Array, dz: Array, dw: Array) -> Array:
        """The parts that belong to the rows of C."""
        return xp.concatenate([dy] + [dz] * with_z + [dw] * as_rows, axis=-1)

    def solve(rhs: Array) -> Array:
        r1, r2, r3, r4 = unpack(program, rhs)
        reduced, target = r1 + extra[:, None, :] * r4, by_row(r2, r3, r4)
        if held is not None:
            given = xp.where(held[:, None, :], r4, 0.0)
            reduced, target = reduced - _times(P, given), target - _times(Dense(C), given)
        if weight is not None:
            reduced = reduced + _transposed(program.G, weight[:, None, :] * r3)
        dx, multipliers = schur_solve(reduced, target)
        if held is not None:
            dx = xp.where(held[:, None, :], given, dx)
        dy, dz = multipliers[..., :me], r3
        if with_z:
            dz = xp.where(xp.isfinite(kept)[:, None, :], multipliers[..., me : me + mi], dz)
        if weight is not None:
            compliant = (_times(program.G, dx) - r3) * weight[:, None, :]
            dz = xp.where((weight > 0)[:, None, :], compliant, dz)
        dw = xp.where(soft_w[:, None, :], (dx - r4) * extra[:, None, :], r4)
        if fixed is not None:
            rest = r1 - _times(program.P, dx) - _transposed(program.A, dy)
            if mi:
                rest = rest - _transposed(program.G, xp.where(xp.isfinite(kz)[:, None, :], dz, 0.0))
            dw = xp.where(fixed[:, None, :], rest, dw)
        return pack(dx, dy, dz, dw)

    def project(v: Array) -> Array:
        dx, dy, dz, dw = unpack(program, v)
        null, shift = _null_part(C, kc, choice, held, by_row(dy, dz, dw), dw)
        dy, rest = dy - null[..., :me], null[..., me:]
        if with_z:
            dz = dz - rest[..., :mi]
        dw = dw - (rest[..., mi * with_z :] if as_rows else shift)
        return pack(dx, dy, dz, dw)

    dependent = pivot <= 100 * _tolerances(kw.dtype).shift
    return Factors(solve, project, inverse.positive & (pivot > 0) & ~choice.overflow, dependent)


def _dense(P: Operator) -> Array:
    return P.dense() if not isinstance(P, Dense) else P.matrix


@dataclass(frozen=True)
class _Choice:
    """Which rows of C are active by sample; only so many are kept as are needed."""

    total: int
    order: Array
    """[B, kept] positions of the rows kept, or None where all are."""
    active: Array
    """[B, kept]."""
    overflow: Array
    """[B]: more rows are active than there are variables."""

    def pick(self, t: Array) -> Array:
        """[B, k, total] -> [B, k, kept]."""
        if self.order is None:
            return t
        return namespace(t).take_along_axis(t, self.order[:, None, :], -1)

    def gather(self, C: Array) -> Array:
        """Rows of C [B or 1, total, n] -> [B, kept, n]."""
        if self.order is None:
            return C
        if C.shape[0] == 1:
            return C[0][self.order]
        return namespace(C).take_along_axis(C, self.order[:, :, None], -2)

    def scatter(self, t: Array) -> Array:
        """[B, k, kept] -> [B, k, total], zero elsewhere."""
        if self.order is None:
            return t
        shape, index = (*t.shape[:-1], self.total), self.order[:, None, :]
        if namespace(t, index) is np:
            out = np.zeros(shape, t.dtype)
            np.put_along_axis(out, np.broadcast_to(index, t.shape), t, -1)
            return out
        sample, column = jnp.arange(shape[0])[:, None, None], jnp.arange(shape[1])[None, :, None]
        return jnp.zeros(shape, t.dtype).at[sample, column, index].set(t)


def _choose(kc: Array, n: int) -> _Choice:
    xp = namespace(kc)
    active, total = xp.isfinite(kc), kc.shape[1]
    count, room = active.sum(-1), total
    if xp is np:
        room = int(count.max(initial=0))
    elif total > n + UNROLLED:
        room = n + UNROLLED
    if room == total:
        return _Choice(total, None, active, xp.zeros(len(kc), bool))
    order = xp.argsort(~active, axis=-1, kind="stable" if xp is np else None)[:, :room]
    return _Choice(total, order, xp.take_along_axis(active, order, -1), count > room)


def _on_active(S: Array, kc: Array, choice: _Choice) -> Array:
    """S plus the compliances on the active rows, the identity on the others."""
    xp, active = namespace(S, kc), choice.active
    kc = choice.pick(kc[:, None, :])[:, 0, :]
    S = xp.where(active[:, :, None] & active[:, None, :], S, 0.0)
    return S + xp.where(active, kc, 1.0)[:, :, None] * np.eye(active.shape[1], dtype=kc.dtype)


def _schur(
    C: Array, kc: Array, choice: _Choice, inverse: _Inverse, shifted: bool
) -> tuple[Callable[[Array, Array], tuple[Array, Array]], Array]:
    """(r₁, r₂ -> u, λ with H u + Cᵀλ = r₁ and C u − diag(kc) λ = r₂ on the active rows; least pivot)."""
    xp = namespace(C, kc)
    # Where C and H are shared each S is a selection from one matrix; else the active rows are gathered first.
    gathered = choice.order is not None and max(C.shape[0], inverse.positive.shape[0]) > 1
    if gathered:
        C = choice.gather(C)
    columns: Array = None if inverse.cheap else inverse.apply(C)
    S = _gram(C, inverse.diagonal) if columns is None else _product(columns, C.swapaxes(-1, -2))
    if choice.order is not None and not gathered:
        S = S[0][choice.order[:, :, None], choice.order[:, None, :]]
    factor, pivot = _cholesky(_on_active(S, kc, choice), _tolerances(kc.dtype).shift if shifted else 0.0)

    def solve(r1: Array, r2: Array) -> tuple[Array, Array]:
        u = inverse.apply(r1)
        if choice.active.shape[1] == 0:
            return u, xp.zeros_like(r2)
        t = _times(Dense(C), u)
        t = t - choice.pick(r2) if gathered else choice.pick(t - r2)
        found = factor(xp.where(choice.active[:, None, :], t, 0.0))
        full = choice.scatter(found)
        used = found if gathered else full
        if columns is None:
            return u - inverse.apply(_transposed(Dense(C), used)), full
        return u - _transposed(Dense(columns), used), full

    return solve, pivot


def _null_part(
    C: Array, kc: Array, choice: _Choice, held: Array, multipliers: Array, dw: Array
) -> tuple[Array, Array]:
    """The part of the multipliers of rows and held variables that no constraint force shows.

    It is (λ, −C_hᵀλ) with C_fᵀλ = 0 (columns of free and held variables), nearest to (multipliers, dw): with
    R = I + C_h C_hᵀ, minimize ½λᵀRλ − λᵀ(multipliers − C_h dw) on that subspace. A penalty
    C_f C_fᵀ/ε does it to order ε, its third power to order ε³; a second sweep removes rounding.
    """
    xp = namespace(C, kc, multipliers)
    kept = choice.gather(C)
    everywhere = xp.ones((1, C.shape[-1]), kc.dtype)
    free = everywhere if held is None else xp.where(held, 0.0, 1.0)
    force = _on_active(_gram(kept, free), kc, choice)
    metric = np.eye(force.shape[-1], dtype=kc.dtype)
    if held is not None:
        metric = metric + _gram(kept, 1.0 - free)
    # Against the largest row, so that rounding stays below the metric; the powers then pay for small rows.
    ratio = xp.diagonal(force, axis1=-2, axis2=-1) / xp.diagonal(metric, axis1=-2, axis2=-1)
    largest = xp.where(choice.active, ratio, 0.0).max(-1, initial=0.0)
    epsilon = _tolerances(kc.dtype).shift * xp.where(largest > 0, largest, 1.0)[:, None, None]
    factor, _ = _cholesky(force + epsilon * metric)

    def penalized(t: Array) -> Array:
        return factor(xp.where(choice.active[:, None, :], epsilon * t, 0.0))

    def forced(t: Array) -> Array:
        return 0.0 if held is None else xp.where(held[:, None, :], -_transposed(Dense(kept), t), 0.0)

    def measured(t: Array, w: Array) -> Array:
        return t if held is None else t - _times(Dense(kept), xp.where(held[:, None, :], w, 0.0))

    t = choice.pick(multipliers)
    null = xp.zeros_like(t)
    for _ in range(2):
        part = penalized(measured(t - null, dw - forced(null)))
        for _ in range(2):
            part = penalized(measured(part, forced(part)))
        null = null + part
    return choice.scatter(null), xp.zeros_like(dw) + forced(null)


# ---------------------------------------------------------------------------------------------- solution


def solve(
    program: QuadraticProgram,
    kz: Array,
    kw: Array,
    rhs: Array,
    *,
    hard: bool = False,
    noise: Array | float = 0.0,
) -> tuple[Array, Array]:
    """Solve K v = rhs for a batch: (v, singular).

    Arguments:
        program: batched program; its leaves have a leading axis of size B or 1.
        kz: compliance of the inequality rows [B or 1, mi].
        kw: compliance of the bounds [B or 1, n].
        rhs: [B or 1, N], or [B or 1, N, k] for k right-hand sides with one factorization.
        hard: promise that every compliance is 0 or +inf, which lets JAX factor a shared dense P once for the
            batch. NumPy sees it in the values.
        noise: absolute rounding error in rhs [B or scalar], such as that of a residual. Contradictions
            between dependent constraints that are no larger than this are none.

    Returns:
        v shaped like rhs with B samples, and singular [B]: K is rank deficient there and v is the
        minimum-norm least-squares solution K⁺ rhs (dependent active constraints share their multiplier,
        directions without curvature stay at zero). The map rhs -> v is linear and symmetric in both cases.
        A sample with NaN in its data has NaN in v and is not singular.
    """
    columns = rhs.ndim == 3
    rows = rhs.swapaxes(-1, -2) if columns else rhs[:, None, :]
    if namespace(rhs, kz, kw, *jax.tree_util.tree_leaves(program)) is np:
        with np.errstate(all="ignore"):
            v, singular = _solve_numpy(program, kz, kw, rows, noise)
    else:
        v, singular = _solve_jax(program, kz, kw, rows, hard, noise)
    return (v.swapaxes(-1, -2) if columns else v[:, 0, :]), singular


def _aligned(program: QuadraticProgram, kz: Array, kw: Array, rows: Array) -> tuple[Array, Array, Array]:
    """The compliances and right-hand sides for the whole batch, the probe appended to the latter."""
    xp = namespace(kz, kw, rows)
    batch = max(program.batch_size, kz.shape[0], kw.shape[0], rows.shape[0])
    kz, kw = xp.broadcast_to(kz, (batch, kz.shape[1])), xp.broadcast_to(kw, (batch, kw.shape[1]))
    rows = xp.broadcast_to(rows, (batch, *rows.shape[1:]))
    # A direction without curvature leaves its share of any right-hand side unexplained however often one
    # refines: a fixed vector without pattern finds it whatever the caller's right-hand side is.
    i = np.arange(1, program.n + 1)
    probe = np.where(np.sin(1e4 * i) < 0, -1.0, 1.0) * (0.5 + 0.5 * np.abs(np.sin(12.9898 * i)))
    rest = np.zeros(rows.shape[-1] - program.n)
    probe = xp.broadcast_to(np.concatenate([probe, rest]).astype(rows.dtype), (batch, 1, rows.shape[-1]))
    return kz, kw, xp.concatenate([rows, probe], axis=1)


def _suspect(
    program: QuadraticProgram,
    kz: Array,
    kw: Array,
    v: Array,
    rows: Array,
    residual: Array,
    sound: Array,
    noise: Array,
) -> Array:
    """Samples with dependent rows, or whose refined solution leaves more than rounding explains.

    Samples whose data are not finite are past help, and not suspect.
    """
    xp = namespace(v, rows, residual)
    tolerances = _tolerances(v.dtype)
    largest, size = abs(residual).max(-1), _largest(program, kz, kw)
    scale = abs(rows).max(-1) + size[:, None] * abs(v).max(-1)
    allowed = tolerances.residual * scale + xp.broadcast_to(xp.asarray(noise), scale.shape[:1])[:, None]
    backward = (largest[:, :-1] <= allowed[:, :-1]).all(-1)
    probe = largest[:, -1] <= tolerances.probe * abs(rows[:, -1]).max(-1)
    known = xp.isfinite(rows).all((-1, -2)) & xp.isfinite(size)
    return known & ~(sound & backward & probe & xp.isfinite(v).all((-1, -2)))


def _largest(program: QuadraticProgram, kz: Array, kw: Array) -> Array:
    """Largest entry of K by sample."""
    xp = namespace(kz, kw, program.q)
    size = xp.maximum(xp.where(xp.isfinite(kw), kw, 0.0).max(-1), 1.0)
    for leaf in jax.tree_util.tree_leaves((program.P, program.A, program.G)):
        if leaf.size:
            size = xp.maximum(size, abs(leaf).max(tuple(range(1, leaf.ndim))))
    return size if not kz.shape[-1] else xp.maximum(size, xp.where(xp.isfinite(kz), kz, 0.0).max(-1))


def _solve_numpy(
    program: QuadraticProgram, kz: np.ndarray, kw: np.ndarray, rows: np.ndarray, noise: Array
) -> tuple[np.ndarray, np.ndarray]:
    if len(rows) == len(kz) == len(kw) == 1 and rows.shape[-1] <= ALONE and program.batch_size == 1:
        alone = _solve_alone(program, kz[0], kw[0], rows[0])
        if alone is not None:
            return alone[None], np.zeros(1, bool)
    kz, kw, rows = _aligned(program, kz, kw, rows)
    v, suspect, singular = _eliminated(program, kz, kw, rows, False, noise)
    v = v[:, :-1]
    for i in np.flatnonzero(suspect):
        one = jax.tree_util.tree_map(lambda a, i=i: a[0] if a.shape[0] == 1 else a[i], program)
        v[i], singular[i] = _minimum_norm(one, kz[i], kw[i], rows[i, :-1])
    return v, singular


def _solve_alone(
    program: QuadraticProgram, kz: np.ndarray, kw: np.ndarray, rows: np.ndarray
) -> np.ndarray | None:
    """K⁻¹ rows [k, N] for one small sample, or None where elimination has to look closer.

    With every constraint held or let go, K reduces to the saddle matrix M = [[P, Cᵀ], [C, 0]] on the free
    variables and the held rows C. For a handful of variables one inverse of M costs a fifth of the general
    elimination's steps. It is taken only where M is plainly regular, so that both give the same solution.
    """
    held, active = kw == 0, kz == 0
    if not ((held | (kw == np.inf)).all() and (active | (kz == np.inf)).all()):
        return None
    P, C, free = _dense(program.P)[0], program.A.matrix[0], ~held
    n, me = program.n, program.num_equalities
    if active.any():
        C = np.concatenate([C, program.G.matrix[0][active]])
    f = np.count_nonzero(free)
    M = np.zeros((f + len(C), f + len(C)))
    M[:f, :f] = P[free][:, free]
    M[f:, :f] = C[:, free]
    M[:f, f:] = M[f:, :f].T
    try:
        inverse = np.linalg.inv(M)
    except np.linalg.LinAlgError:
        return None
    if M.size and not abs(M).sum(0).max() * abs(inverse).sum(0).max() < REGULAR:
        return None
    v = rows.copy()
    dx, dz, dw = v[:, :n], v[:, n + me : len(v[0]) - n], v[:, len(v[0]) - n :]
    dx[:] = np.where(held, dw, 0.0)
    rhs = np.concatenate([(rows[:, :n] - dx @ P)[:, free], rows[:, n : n + me], dz[:, active]], axis=1)
    rhs[:, f:] -= dx @ C.T
    found = rhs @ inverse
    found += (rhs - found @ M) @ inverse
    dx[:, free] = found[:, :f]
    v[:, n : n + me] = found[:, f : f + me]
    dz[:, active] = found[:, f + me :]
    if held.any():
        dw[:, held] = (rows[:, :n] - dx @ P - found[:, f:] @ C)[:, held]
    return v


def _solve_jax(
    program: QuadraticProgram, kz: Array, kw: Array, rows: Array, hard: bool, noise: Array
) -> tuple[Array, Array]:
    kz, kw, rows = _aligned(program, kz, kw, rows)
    v, suspect, singular = _eliminated(program, kz, kw, rows, hard, noise)
    v = v[:, :-1]

    def one(i: Array) -> tuple[Array, Array]:
        def pseudo_inverse() -> tuple[Array, Array]:
            single = jax.tree_util.tree_map(lambda a: a[0] if a.shape[0] == 1 else a[i], program)
            return _minimum_norm(single, kz[i], kw[i], rows[i, :-1])

        return jax.lax.cond(suspect[i], pseudo_inverse, lambda: (v[i], singular[i]))

    return jax.lax.cond(suspect.any(), lambda: jax.lax.map(one, jnp.arange(len(v))), lambda: (v, singular))


def _eliminated(
    program: QuadraticProgram, kz: Array, kw: Array, rows: Array, hard: bool, noise: Array
) -> tuple[Array, Array, Array]:
    """Elimination and refinement: (v, suspect, dependent). What is suspect has to be solved otherwise."""
    factors = factorize(program, kz, kw, hard=hard)

    def residual(v: Array) -> Array:
        return rows - _matvec(program, kz[:, None, :], kw[:, None, :], v)

    def least(v: Array) -> Array:
        v = factors.project(v)
        return v + factors.project(factors.solve(residual(v)))

    def refined(_: Any, v: Array) -> Array:
        return v + factors.solve(residual(v))

    v, dependent = rows * 0.0, factors.dependent
    if isinstance(v, np.ndarray):
        for step in range(1 + REFINEMENTS):
            v = refined(step, v)
    else:  # a loop, so that XLA compiles the solution once
        v = jax.lax.fori_loop(0, 1 + REFINEMENTS, refined, v)
    if isinstance(v, np.ndarray):
        v = np.where(dependent[:, None, None], least(v), v) if dependent.any() else v
    else:
        v = jax.lax.cond(
            dependent.any(), lambda v: jnp.where(dependent[:, None, None], least(v), v), lambda v: v, v
        )
    suspect = _suspect(program, kz, kw, v, rows, residual(v), factors.sound, noise)
    return v, suspect, dependent


def assemble(program: QuadraticProgram, kz: Array, kw: Array) -> Array:
    """K as a matrix [N, N], for a single program."""
    xp = namespace(kz, kw, program.q)
    size = 2 * program.n + program.num_equalities + program.num_inequalities
    identity = xp.eye(size, dtype=kw.dtype)
    return _matvec(program, kz[None, :], kw[None, :], identity)


def _minimum_norm(program: QuadraticProgram, kz: Array, kw: Array, rows: Array) -> tuple[Array, Array]:
    """K⁺ applied to rows [k, N] of a single program, and whether K is rank deficient.

    The rank is judged after equilibration, K̂ = D K D, so that units do not decide it. With N spanning the
    null space of K and Π the orthogonal projector on it, K⁺ = (I − Π) D K̂⁺ D (I − Π): rows in the range of K
    are solved exactly in the scaled system, and the solution's null component is then removed.
    """
    xp = namespace(kz, kw, program.q)
    K = assemble(program, kz, kw)
    given = rows
    if xp is np:  # constraints that are let go decouple
        coupled = np.concatenate(
            [np.ones(program.n + program.num_equalities, bool), np.isfinite(kz), np.isfinite(kw)]
        )
        K, rows = K[np.ix_(coupled, coupled)], rows[:, coupled]
    valid = xp.isfinite(K).all() & xp.isfinite(rows).all()
    K = xp.where(valid, K, np.eye(K.shape[-1], dtype=K.dtype))

    def equilibrated(_: Any, d: Array) -> Array:
        size = xp.max(abs(K * d[:, None] * d[None, :]), axis=-1)
        return d / xp.sqrt(xp.where(size > 0, size, 1.0))

    d = xp.ones(K.shape[-1], K.dtype)
    if xp is np:
        for step in range(4):
            d = equilibrated(step, d)
    else:
        d = jax.lax.fori_loop(0, 4, equilibrated, d)
    values, vectors = xp.linalg.eigh(K * d[:, None] * d[None, :])
    order = xp.argsort(abs(values))
    values, vectors = values[order], vectors[:, order]
    null = abs(values) <= _tolerances(K.dtype).rank * abs(values).max()
    basis = xp.linalg.qr(vectors * d[:, None])[0] * null[None, :]  # null vectors come first
    inverse = xp.where(null, 0.0, 1.0 / xp.where(null, 1.0, values))

    def project(t: Array) -> Array:
        return t - (t @ basis) @ basis.T

    def apply(t: Array) -> Array:
        return project((((project(t) * d) @ vectors) * inverse) @ vectors.T * d)

    v = apply(rows)
    v = v + apply(rows - v @ K)
    v = xp.where(valid, v, xp.nan)
    if xp is np:
        full = np.array(given)
        full[:, coupled] = v
        v = full
    return v, null.any() & valid
