"""Judging data and answers on the host: valid data, curvature, KKT residuals, the active set.

Every host solver ends here. A solver's own word is not taken: the residuals of the optimality conditions
are computed from the program in its original units, for the whole batch at once.
"""

from __future__ import annotations

import enum
import functools

import numpy as np

from decigrad.program import Array, Diagonal, LowRank, Operator, QuadraticProgram, RawResult, Status

__all__ = [
    "Curvature",
    "active_set",
    "blank",
    "curvature",
    "failed",
    "invalid",
    "kkt_residual",
    "power_of_two",
    "scatter",
    "settle",
    "stack",
    "unit_scale",
]

WEAKLY_ACTIVE = 1e-10
"""A multiplier below this share of the objective's gradient counts as zero: its constraint is inactive."""

_ROUNDING = 1e-11  # an eigenvalue above −_ROUNDING·(largest) is a rounded zero
_TINY = np.finfo(np.float64).tiny


class Curvature(enum.IntEnum):
    """What the quadratic term of a program is."""

    INDEFINITE = 0
    SEMIDEFINITE = 1
    DEFINITE = 2


def invalid(program: QuadraticProgram) -> Array:
    """Which samples have NaN or misplaced infinite data, [B] booleans.

    Infinite values are allowed where they mean "no constraint": h = +∞, lb = −∞, ub = +∞.
    """

    def bad(values: Array, infinity: float | None = None) -> Array:
        wrong = ~np.isfinite(values)
        if not wrong.any():
            return False
        if infinity is not None:
            wrong &= values != infinity
        return wrong.reshape(len(values), -1).any(axis=1)

    operators = [program.P, program.A, program.G]
    leaves = [leaf for op in operators for leaf in vars(op).values()] + [program.q, program.r, program.b]
    found = np.zeros(program.batch_size, dtype=bool)
    for leaf in leaves:
        found |= bad(leaf)
    found |= bad(program.h, np.inf)
    found |= bad(program.lb, -np.inf)
    return found | bad(program.ub, np.inf)


def curvature(P: Operator) -> Array:
    """The `Curvature` of each matrix of a batch, [B or 1] integers.

    An eigenvalue is negative when it is below −1e-11 of the largest in absolute value. DEFINITE is said
    only of matrices whose scaled Cholesky pivots stay above 1e-8, with a margin for solvers that factor.
    """
    if isinstance(P, Diagonal):
        return _by_eigenvalues(P.diagonal, definite=1e-8)
    if isinstance(P, LowRank):
        if (P.weight >= 0).all() and (P.diagonal >= 0).all():
            floor = P.diagonal.min(axis=-1, initial=np.inf) if P.shape[0] else np.ones(len(P.diagonal))
            ceiling = P.diagonal.max(axis=-1, initial=0.0) + (P.weight * (P.factor**2).sum(-1)).sum(-1)
            definite = np.atleast_1d(floor > 1e-8 * ceiling)
            return np.where(definite, Curvature.DEFINITE, Curvature.SEMIDEFINITE)
        return _dense_curvature(P.dense())
    return _dense_curvature(P.matrix)


def _by_eigenvalues(values: Array, definite: float) -> Array:
    """Curvature from eigenvalues [B, n]; DEFINITE above `definite` times the largest."""
    if values.shape[-1] == 0:
        return np.full(len(values), Curvature.DEFINITE)
    low, high = values.min(axis=-1), np.abs(values).max(axis=-1)
    kind = np.where(low > definite * high, Curvature.DEFINITE, Curvature.SEMIDEFINITE)
    return np.where(low < -_ROUNDING * high, Curvature.INDEFINITE, kind)


def _dense_curvature(matrix: Array) -> Array:
    """Cholesky first: it proves definiteness at a tenth of the cost of eigenvalues."""
    if matrix.shape[-1] == 0:
        return np.full(len(matrix), Curvature.DEFINITE)
    sound = np.isfinite(matrix).all(axis=(1, 2))
    matrix = np.where(sound[:, None, None], matrix, np.eye(matrix.shape[-1]))
    diagonal = np.diagonal(matrix, axis1=-2, axis2=-1)
    if (diagonal > 0).all():
        scale = 1.0 / np.sqrt(diagonal)
        try:
            factor = np.linalg.cholesky(scale[:, :, None] * matrix * scale[:, None, :])
        except np.linalg.LinAlgError:
            pass
        else:
            pivots = np.diagonal(factor, axis1=-2, axis2=-1) ** 2
            wide = diagonal.max(axis=-1) > 1e10 * diagonal.min(axis=-1)
            definite = (pivots.min(axis=-1) > 1e-8) & ~wide
            if definite.all():
                return np.full(len(matrix), Curvature.DEFINITE)
    kind = _by_eigenvalues(np.linalg.eigvalsh(matrix), definite=1e-8)
    return kind


# ----------------------------------------------------------------------------------------------- answers


def _largest(values: Array) -> Array:
    """max |·| over the finite entries of the last axis, 0 when there are none."""
    return np.where(np.isfinite(values), np.abs(values), 0.0).max(axis=-1, initial=0.0)


def gradient_scale(program: QuadraticProgram, x: Array) -> Array:
    """max(|P x|, |q|): the unit in which multipliers are judged, by sample."""
    return np.maximum(_largest(program.P.matvec(x)), _largest(program.q)) + _TINY


def kkt_residual(program: QuadraticProgram, x: Array, y: Array, z: Array, w: Array) -> Array:
    """The largest relative violation of the optimality conditions, by sample [B].

    Stationarity is relative to the largest term of the gradient, feasibility to 1 + |x| + |A x| + |b| of
    the rows at hand, complementarity (multiplier times slack) to both. A wrong sign of z and a multiplier
    at an infinite bound count in full. NaN becomes infinity.
    """
    Ax, Gx = program.A.matvec(x), program.G.matvec(x)
    Aty, Gtz = program.A.rmatvec(y), program.G.rmatvec(z)
    size = 1.0 + _largest(x)
    force = np.maximum.reduce([gradient_scale(program, x), _largest(Aty), _largest(Gtz), _largest(w)])
    stationarity = _largest(program.P.matvec(x) + program.q + Aty + Gtz + w) / force

    equality = _largest(Ax - program.b) / (size + _largest(program.b))
    finite = np.isfinite(program.h)
    slack = np.where(finite, program.h - Gx, 0.0)
    row = size[:, None] + np.where(finite, np.abs(program.h), 0.0)
    inequality = (np.maximum(-slack, 0.0) / row).max(axis=-1, initial=0.0)
    below, above = program.lb - x, x - program.ub
    bounds = np.maximum(np.maximum(below, above), 0.0).max(axis=-1, initial=0.0) / size

    held = np.where(w > 0, -above, np.where(w < 0, -below, 0.0))  # distance to the bound that w claims
    absent = ~np.isfinite(held)
    pull = _largest(np.where(absent, w, 0.0)) / force
    loose = (np.abs(w) * np.abs(np.where(absent, 0.0, held))).max(axis=-1, initial=0.0) / (force * size)
    absent_row = _largest(np.where(finite, 0.0, z)) / force
    loose_row = (np.abs(z * slack) / row).max(axis=-1, initial=0.0) / force
    sign = np.maximum(-z, 0.0).max(axis=-1, initial=0.0) / force
    terms = [stationarity, equality, inequality, bounds, pull, loose, absent_row, loose_row, sign]
    worst = functools.reduce(np.maximum, terms)
    unknown = np.isnan(x).any(axis=-1) | np.isnan(worst)
    return np.where(unknown, np.inf, worst)


def active_set(program: QuadraticProgram, x: Array, z: Array, w: Array) -> tuple[Array, Array]:
    """(active [B, m], fixed [B, n]) from the multipliers.

    A row or bound is active when the force of its multiplier, |z_i|·‖G_i‖∞ or |w_j|, exceeds 1e-10 of the
    objective's gradient. At a verified solution complementarity then says that its slack is zero; a
    constraint that merely touches (zero multiplier) is inactive. A variable with lb = ub is always fixed.
    """
    threshold = WEAKLY_ACTIVE * gradient_scale(program, x)[:, None]
    row_norm = np.abs(program.G.matrix).max(axis=-1, initial=0.0)
    active = z * row_norm > threshold
    held = (program.lb == program.ub) | (np.abs(w) > threshold)
    fixed = np.where(held, np.where(w < 0, -1, 1), 0).astype(np.int8)
    return active, fixed


def stack(parts: list[Array], axis: int) -> Array:
    """Concatenate leaves whose leading axis is B or 1, as a contiguous array of that kind."""
    B = max(len(part) for part in parts)
    wide = [part if len(part) == B else np.broadcast_to(part, (B, *part.shape[1:])) for part in parts]
    return np.ascontiguousarray(np.concatenate(wide, axis=axis))


def power_of_two(values: Array) -> Array:
    """The nearest power of two: multiplying by it loses no digit."""
    return np.exp2(np.round(np.log2(values)))


def unit_scale(values: Array) -> Array:
    """The power of two, per line of the last axis, that brings its largest entry near one; 1 for zeros."""
    largest = np.abs(values).max(axis=-1, keepdims=True, initial=0.0)
    return power_of_two(1.0 / np.where(largest > 0, largest, 1.0))


def blank(program: QuadraticProgram) -> RawResult:
    """A result of B failed samples: NaN decisions, zero multipliers, NUMERICAL_ERROR."""
    B, n = program.batch_size, program.n
    m, p = program.num_inequalities, program.num_equalities
    return RawResult(
        x=np.full((B, n), np.nan),
        y=np.zeros((B, p)),
        z=np.zeros((B, m)),
        w=np.zeros((B, n)),
        active=np.zeros((B, m), dtype=bool),
        fixed=np.zeros((B, n), dtype=np.int8),
        status=np.full(B, int(Status.NUMERICAL_ERROR), dtype=np.int32),
        iterations=np.zeros(B, dtype=np.int32),
    )


def scatter(part: RawResult, index: Array, whole: RawResult) -> None:
    """Write the samples of `part` into the positions `index` of `whole`, in place."""
    for name, values in vars(whole).items():
        values[index] = getattr(part, name)


def failed(raw: RawResult, keep_x: Array | None = None) -> RawResult:
    """`raw` with NaN decisions and zero multipliers wherever the status is not OPTIMAL.

    `keep_x` [B] marks failed samples whose decision is kept: the incumbent at a time limit.
    """
    good = raw.status == int(Status.OPTIMAL)
    shown = good if keep_x is None else good | keep_x
    column = good[:, None]
    return raw.replace(
        x=np.where(shown[:, None], raw.x, np.nan),
        y=np.where(column, raw.y, 0.0),
        z=np.where(column, raw.z, 0.0),
        w=np.where(column, raw.w, 0.0),
        active=raw.active & column,
        fixed=np.where(column, raw.fixed, 0).astype(np.int8),
    )


@np.errstate(over="ignore", invalid="ignore")  # what a solver leaves of a sample that it gave up
def settle(
    program: QuadraticProgram,
    raw: RawResult,
    tolerance: float,
    exact: float = 1e-11,
    keep_x: Array | None = None,
) -> RawResult:
    """Verify the samples called OPTIMAL, polish those above `exact`, refuse those above `tolerance`.

    Returns `raw` with verified statuses and the active set filled in. Each sample is judged alone. `keep_x`
    is passed to `failed`.
    """
    good = raw.status == int(Status.OPTIMAL)
    if not good.any():
        return failed(raw, keep_x)
    residual = np.where(good, kkt_residual(program, raw.x, raw.y, raw.z, raw.w), 0.0)
    active, fixed = active_set(program, raw.x, raw.z, raw.w)
    # A held variable is at its bound to the last bit, and none is outside by a rounding error.
    bound = np.where(fixed < 0, program.lb, np.where(fixed > 0, program.ub, raw.x))
    x = np.where(np.isfinite(bound), np.clip(bound, program.lb, program.ub), raw.x)
    raw = raw.replace(x=np.where(residual[:, None] <= tolerance, x, raw.x), active=active, fixed=fixed)
    rough = np.flatnonzero(residual > exact)
    if len(rough):
        raw, residual = _polish(program, raw, residual, rough)
    status = np.where(good & (residual > tolerance), int(Status.NUMERICAL_ERROR), raw.status)
    return failed(raw.replace(status=status.astype(np.int32)), keep_x)


def _polish(
    program: QuadraticProgram, raw: RawResult, residual: Array, rough: Array
) -> tuple[RawResult, Array]:
    """Correct the samples `rough`, one at a time so that a neighbour cannot change their bits."""
    from decigrad.solvers.polish import polish

    fields = {name: np.array(getattr(raw, name)) for name in ("x", "y", "z", "w", "active", "fixed")}
    residual = residual.copy()
    for i in rough:
        if not np.isfinite(raw.x[i]).all():
            continue
        part = program.sample(int(i))
        one = RawResult(**{name: value[i : i + 1] for name, value in vars(raw).items()})
        better, _ = polish(part, one)
        left = float(kkt_residual(part, better.x, better.y, better.z, better.w)[0])
        if left < residual[i]:
            residual[i] = left
            active, fixed = active_set(part, better.x, better.z, better.w)
            answer = better.replace(active=active, fixed=fixed)
            for name, value in fields.items():
                value[i] = getattr(answer, name)[0]
    return raw.replace(**fields), residual
