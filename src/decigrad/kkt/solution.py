"""The solution of the system: elimination with refinement, and K⁺ where that is not enough."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from decigrad import native
from decigrad.kkt.elimination import factorize
from decigrad.kkt.system import assemble, dense_of, largest_entry, matvec_rows, tolerances_of
from decigrad.program import Array, QuadraticProgram, namespace

REFINEMENTS = 2
ALONE = 40  # order of K up to which a single sample on the host is solved by one small inverse
REGULAR = 1e8  # and the condition number of that matrix which counts as plainly regular


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
    tolerances = tolerances_of(v.dtype)
    largest, size = abs(residual).max(-1), largest_entry(program, kz, kw)
    scale = abs(rows).max(-1) + size[:, None] * abs(v).max(-1)
    allowed = tolerances.residual * scale + xp.broadcast_to(xp.asarray(noise), scale.shape[:1])[:, None]
    backward = (largest[:, :-1] <= allowed[:, :-1]).all(-1)
    probe = largest[:, -1] <= tolerances.probe * abs(rows[:, -1]).max(-1)
    known = xp.isfinite(rows).all((-1, -2)) & xp.isfinite(size)
    return known & ~(sound & backward & probe & xp.isfinite(v).all((-1, -2)))


def _solve_numpy(
    program: QuadraticProgram, kz: np.ndarray, kw: np.ndarray, rows: np.ndarray, noise: Array
) -> tuple[np.ndarray, np.ndarray]:
    if native.missing() is None and _hard(kz) and _hard(kw):
        return _solve_compiled(program, kz, kw, rows, noise)
    return _solve_general(program, kz, kw, rows, noise)


def _hard(compliance: np.ndarray) -> bool:
    return bool(((compliance == 0.0) | (compliance == np.inf)).all())


def _solve_compiled(
    program: QuadraticProgram, kz: np.ndarray, kw: np.ndarray, rows: np.ndarray, noise: Array
) -> tuple[np.ndarray, np.ndarray]:
    """By the compiled core, which leaves singular curvature and contradictions to the general solution."""
    batch, count = max(program.batch_size, len(kz), len(kw), len(rows)), rows.shape[1]
    kz, kw, rows = (np.broadcast_to(a, (batch, *a.shape[1:])) for a in (kz, kw, rows))
    repeated = program
    if count > 1:  # one sample for each right-hand side; those of one sample share a factor
        repeated = jax.tree_util.tree_map(lambda a: a if len(a) == 1 else np.repeat(a, count, 0), program)
    active, fixed = (np.repeat(k == 0.0, count, 0) for k in (kz, kw))
    v, found = native.sensitivity(repeated, active, fixed, rows.reshape(batch * count, rows.shape[2]))
    v, found = v.reshape(rows.shape), found.reshape(batch, count).min(1)
    singular = found == native.DEPENDENT
    left = np.flatnonzero(found == 0)
    if len(left):
        noise = noise if np.ndim(noise) == 0 or len(noise) == 1 else np.asarray(noise)[left]
        v[left], singular[left] = _solve_general(program.take(left), kz[left], kw[left], rows[left], noise)
    return v, singular


def _solve_general(
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
    P, C, free = dense_of(program.P)[0], program.A.matrix[0], ~held
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
        return rows - matvec_rows(program, kz[:, None, :], kw[:, None, :], v)

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
    null = abs(values) <= tolerances_of(K.dtype).rank * abs(values).max()
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
