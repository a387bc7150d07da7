"""Elimination: the Hessian's inverse, the Schur complement of the held rows, and their solution."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np

from decigrad.kkt.cholesky import UNROLLED, after, cholesky
from decigrad.kkt.system import (
    Tolerances,
    dense_of,
    gram,
    pack,
    product,
    times,
    tolerances_of,
    transposed,
    unpack,
)
from decigrad.program import Array, Dense, Diagonal, Operator, QuadraticProgram, namespace


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
    tolerances = tolerances_of(extra.dtype)
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
    inner = gram(factor.matrix, inverse) + np.eye(factor.shape[0], dtype=extra.dtype)
    solve, pivot = cholesky(inner)

    def apply(rows: Array) -> Array:
        scaled = inverse[:, None, :] * rows
        return scaled - inverse[:, None, :] * transposed(factor, solve(times(factor, scaled)))

    return _Inverse(apply, positive & (pivot > 0), None, False)


def _inverse_dense(P: Dense, extra: Array, free: Array | None, tolerances: Tolerances | None) -> _Inverse:
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
    solve, pivot = cholesky(H)
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
        P = Dense(dense_of(P) + gram(program.G.matrix.swapaxes(-1, -2), weight))
    elif condensed and not soft:
        P = Dense(dense_of(P))

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
            reduced, target = reduced - times(P, given), target - times(Dense(C), given)
        if weight is not None:
            reduced = reduced + transposed(program.G, weight[:, None, :] * r3)
        dx, multipliers = schur_solve(reduced, target)
        if held is not None:
            dx = xp.where(held[:, None, :], given, dx)
        dy, dz = multipliers[..., :me], r3
        if with_z:
            dz = xp.where(xp.isfinite(kept)[:, None, :], multipliers[..., me : me + mi], dz)
        if weight is not None:
            compliant = (times(program.G, dx) - r3) * weight[:, None, :]
            dz = xp.where((weight > 0)[:, None, :], compliant, dz)
        dw = xp.where(soft_w[:, None, :], (dx - r4) * extra[:, None, :], r4)
        if fixed is not None:
            rest = r1 - times(program.P, dx) - transposed(program.A, dy)
            if mi:
                rest = rest - transposed(program.G, xp.where(xp.isfinite(kz)[:, None, :], dz, 0.0))
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

    dependent = pivot <= 100 * tolerances_of(kw.dtype).shift
    return Factors(solve, project, inverse.positive & (pivot > 0) & ~choice.overflow, dependent)


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
    S = gram(C, inverse.diagonal) if columns is None else product(columns, C.swapaxes(-1, -2))
    if choice.order is not None and not gathered:
        S = S[0][choice.order[:, :, None], choice.order[:, None, :]]
    factor, pivot = cholesky(_on_active(S, kc, choice), tolerances_of(kc.dtype).shift if shifted else 0.0)

    def solve(r1: Array, r2: Array) -> tuple[Array, Array]:
        u = inverse.apply(after(r1, pivot))
        if choice.active.shape[1] == 0:
            return u, xp.zeros_like(r2)
        t = times(Dense(C), u)
        t = t - choice.pick(r2) if gathered else choice.pick(t - r2)
        found = factor(xp.where(choice.active[:, None, :], t, 0.0))
        full = choice.scatter(found)
        used = found if gathered else full
        if columns is None:
            return u - inverse.apply(transposed(Dense(C), used)), full
        return u - transposed(Dense(columns), used), full

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
    force = _on_active(gram(kept, free), kc, choice)
    metric = np.eye(force.shape[-1], dtype=kc.dtype)
    if held is not None:
        metric = metric + gram(kept, 1.0 - free)
    # Against the largest row, so that rounding stays below the metric; the powers then pay for small rows.
    ratio = xp.diagonal(force, axis1=-2, axis2=-1) / xp.diagonal(metric, axis1=-2, axis2=-1)
    largest = xp.where(choice.active, ratio, 0.0).max(-1, initial=0.0)
    epsilon = tolerances_of(kc.dtype).shift * xp.where(largest > 0, largest, 1.0)[:, None, None]
    factor, _ = cholesky(after(force + epsilon * metric, multipliers))

    def penalized(t: Array) -> Array:
        return factor(xp.where(choice.active[:, None, :], epsilon * t, 0.0))

    def forced(t: Array) -> Array:
        return 0.0 if held is None else xp.where(held[:, None, :], -transposed(Dense(kept), t), 0.0)

    def measured(t: Array, w: Array) -> Array:
        return t if held is None else t - times(Dense(kept), xp.where(held[:, None, :], w, 0.0))

    t = choice.pick(multipliers)
    null = xp.zeros_like(t)
    for _ in range(2):
        part = penalized(measured(t - null, dw - forced(null)))
        for _ in range(2):
            part = penalized(measured(part, forced(part)))
        null = null + part
    return choice.scatter(null), xp.zeros_like(dw) + forced(null)
