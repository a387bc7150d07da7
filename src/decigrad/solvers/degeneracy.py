"""The full active set where more constraints meet at the solution than its dimension needs.

Where the active constraints are linearly dependent, the multipliers are not unique, and a solver returns
those of an independent subset: x₁ ≤ ½ and x₂ ≤ ½ may be left out in favour of x₁ + x₂ ≤ 1. Derivatives
need the whole set: the solution can move along the directions that keep *every* constraint tight that has a
positive multiplier in *some* solution of the dual, which are the directions of the critical cone. The
multipliers of least norm show that set if all of them are positive; otherwise a linear program finds
multipliers with the largest support. (Feasible sets without interior are covered: there the multipliers of
a zero gradient may be positive, and the solution cannot move.)

Source: Goldman and Tucker (1956), "Theory of linear programming", in Linear Inequalities and Related Systems
(strict complementarity); Freund, Roundy and Todd (1985), "Identifying the set of always-active constraints
in a system of linear inequalities by a single linear program", MIT Sloan working paper 1674-85.
"""

from __future__ import annotations

import numpy as np

from decigrad.program import Array, QuadraticProgram, RawResult, Status
from decigrad.solvers.verification import WEAKLY_ACTIVE, active_set, gradient_scale

__all__ = ["complete"]

_TIGHT = 1e-11
"""Slack, relative to 1 + |x| and the row's right-hand side, below which a constraint is met exactly."""


def complete(program: QuadraticProgram, raw: RawResult) -> RawResult:
    """Give the verified samples of `raw` multipliers with full support, and the active set they show.

    Kept to the bit: samples whose tight constraints are all active or linearly independent, linear programs,
    and vertices that n active constraints show and only further bounds meet (x = (1, 0, 0) of a simplex with
    x ≤ 1), where the solution cannot move whichever set is chosen. Where the least norm has a wrong sign but
    the active constraints imply the other tight ones, the solver's choice stands.
    """
    if program.linear:
        return raw
    rows, bounds = _tight(program, raw.x)
    missed_rows = (rows & ~raw.active).any(axis=1)
    missed = missed_rows | ((bounds != 0) & (raw.fixed == 0)).any(axis=1)
    missed &= raw.status == int(Status.OPTIMAL)
    if not missed.any():
        return raw
    equal = program.lb == program.ub
    if len(program.A.matrix) == 1 and (len(equal) == 1 or not equal.any()):
        # What the equalities say of variables that have equal bounds counts once.
        rest = program.A.matrix[0][:, ~equal[0]]
        rank = np.linalg.matrix_rank(rest) if rest.size else 0
        shown = rank + raw.active.sum(axis=1) + (raw.fixed != 0).sum(axis=1)
        missed &= missed_rows | (shown != program.n)
    index = np.flatnonzero(missed)
    if not len(index):
        return raw
    parts = {name: np.array(getattr(raw, name)) for name in ("x", "y", "z", "w", "active", "fixed")}
    for i in index:
        one = program.sample(int(i))
        tight = rows[i] | raw.active[i], np.where(raw.fixed[i], raw.fixed[i], bounds[i])
        found = _multipliers(one, raw.x[i], *tight, raw.active[i], raw.fixed[i])
        if found is None:
            continue
        parts["y"][i], parts["z"][i], parts["w"][i] = found
        active, fixed = active_set(one, raw.x[i : i + 1], parts["z"][i : i + 1], parts["w"][i : i + 1])
        parts["active"][i], parts["fixed"][i] = active[0], fixed[0]
        parts["x"][i] = np.where(fixed[0] < 0, one.lb[0], np.where(fixed[0] > 0, one.ub[0], raw.x[i]))
    return raw.replace(**parts)


def _tight(program: QuadraticProgram, x: Array) -> tuple[Array, Array]:
    """Which rows [B, m] and bounds [B, n] (−1 lower, +1 upper, 0 none) hold with equality."""
    size = _TIGHT * (1.0 + np.nan_to_num(np.abs(x)).max(axis=1, keepdims=True, initial=0.0))
    finite = np.isfinite(program.h)
    slack = np.where(finite, program.h - program.G.matvec(x), np.inf)
    rows = slack <= size + _TIGHT * np.where(finite, np.abs(program.h), 0.0)
    rows &= np.abs(program.G.matrix).max(axis=-1, initial=0.0) > 0
    bounds = np.where(x - program.lb <= size, -1, np.where(program.ub - x <= size, 1, 0))
    return rows, bounds


def _multipliers(
    one: QuadraticProgram, x: Array, rows: Array, bounds: Array, active: Array, fixed: Array
) -> tuple[Array, Array, Array] | None:
    """(y, z, w) of full support for one sample, or None where those that show (active, fixed) serve.

    `rows` and `bounds` are the tight constraints.
    """
    p, n = one.num_equalities, one.n
    held = np.flatnonzero(bounds)
    units = np.zeros((len(held), n))
    units[np.arange(len(held)), held] = 1.0
    normals = np.concatenate([one.A.matrix[0], one.G.matrix[0][rows], units])
    sign = np.concatenate([np.zeros(p), np.ones(int(rows.sum())), bounds[held]])
    sign[p + int(rows.sum()) :][(one.lb == one.ub)[0][held]] = 0.0  # held from both sides: any sign
    force = -(one.P.matvec(x[None]) + one.q)[0]
    scale = gradient_scale(one, x[None])[0]
    found, _, rank, _ = np.linalg.lstsq(normals.T, force, rcond=None)
    if rank == len(normals):
        return None
    if (found[sign != 0] * sign[sign != 0] <= WEAKLY_ACTIVE * scale).any():
        shown = np.concatenate([np.ones(p, bool), active[rows], fixed[held] != 0])
        if np.linalg.matrix_rank(normals[shown]) == rank:
            return None  # the active constraints imply the other tight ones: nothing moves that should not
        widest = _largest_support(normals, sign, force / scale)
        if widest is None:
            return None
        found = widest * scale
    if np.abs(normals.T @ found - force).max() > 1e-10 * max(scale, np.abs(found).max()):
        return None
    found = np.where(found * sign < 0, 0.0, found)
    y, z, w = found[:p], np.zeros(one.num_inequalities), np.zeros(n)
    z[rows] = found[p : p + int(rows.sum())]
    w[held] = found[p + int(rows.sum()) :]
    return y, z, w


def _largest_support(normals: Array, sign: Array, force: Array) -> Array | None:
    """λ with Nᵀλ = force, sign·λ ≥ 0, and as many nonzero signed entries as possible.

    max Σ sᵢ  s.t.  Nᵀμ = θ·force,  0 ≤ sᵢ ≤ 1,  sᵢ ≤ signᵢ·μᵢ,  θ ≥ 1;  then λ = μ/θ. Solutions may be
    added up (θ is free), so at the optimum sᵢ = 1 for every i that is nonzero in any of them.
    """
    from decigrad.solvers.highs import LinearModel

    count, n = normals.shape
    signed = np.flatnonzero(sign)
    k = len(signed)
    matrix = np.zeros((n + k, count + k + 1))  # columns μ, s, θ
    matrix[:n, :count], matrix[:n, -1] = normals.T, -force
    matrix[n + np.arange(k), signed] = -sign[signed]
    matrix[n + np.arange(k), count + np.arange(k)] = 1.0
    cost = np.concatenate([np.zeros(count), -np.ones(k), [0.0]])
    lower = np.concatenate([np.full(count, -np.inf), np.zeros(k), [1.0]])
    upper = np.concatenate([np.full(count, np.inf), np.ones(k), [np.inf]])
    model = LinearModel()
    model.load(cost, matrix, np.append(np.zeros(n), np.full(k, -np.inf)), np.zeros(n + k), lower, upper)
    if model.run() is not Status.OPTIMAL:
        return None
    found = model.solution()[0]
    return found[:count] / found[-1]
