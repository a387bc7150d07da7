"""Independent answers: Clarabel for convex programs, enumeration for small integer ones."""

from __future__ import annotations

import itertools

import clarabel
import numpy as np
import scipy.sparse

from decigrad.program import QuadraticProgram


def clarabel_solution(program: QuadraticProgram, i: int = 0) -> tuple[str, np.ndarray]:
    """(status, x) of sample i, by an interior-point method that shares no code with ours."""
    one = program.sample(i).numpy()
    n, up, low, rows = one.n, np.isfinite(one.ub[0]), np.isfinite(one.lb[0]), np.isfinite(one.h[0])
    matrix = np.concatenate([one.A.matrix[0], one.G.matrix[0][rows], np.eye(n)[up], -np.eye(n)[low]])
    sides = np.concatenate([one.b[0], one.h[0][rows], one.ub[0][up], -one.lb[0][low]])
    settings = clarabel.DefaultSettings()
    settings.verbose = False
    settings.tol_gap_abs = settings.tol_gap_rel = settings.tol_feas = 1e-11
    cones = [clarabel.ZeroConeT(one.num_equalities)]
    cones.append(clarabel.NonnegativeConeT(len(sides) - one.num_equalities))
    P = scipy.sparse.triu(one.P.dense()[0], format="csc")
    A = scipy.sparse.csc_matrix(matrix)
    found = clarabel.DefaultSolver(P, one.q[0], A, sides, cones, settings).solve()
    return str(found.status), np.array(found.x)


def enumerate_binaries(program: QuadraticProgram, i: int = 0) -> tuple[float, np.ndarray]:
    """(least objective, x) over all 0-1 points of sample i; every variable is binary."""
    one = program.sample(i)
    points = np.array(list(itertools.product([0.0, 1.0], repeat=one.n)))
    feasible = (points @ one.G.matrix[0].T <= one.h[0] + 1e-9).all(axis=1)
    feasible &= (np.abs(points @ one.A.matrix[0].T - one.b[0]) <= 1e-9).all(axis=1)
    values = np.where(feasible, points @ one.q[0], np.inf)
    return float(values.min()), points[values.argmin()]


def sparsemax(v: np.ndarray) -> np.ndarray:
    """The Euclidean projection of v on the simplex, in closed form.

    Source: Martins and Astudillo (2016), "From softmax to sparsemax", arXiv:1602.02068.
    """
    ordered = np.sort(v)[::-1]
    sums = np.cumsum(ordered)
    support = np.flatnonzero(1 + np.arange(1, len(v) + 1) * ordered > sums)[-1]
    return np.maximum(v - (sums[support] - 1) / (support + 1), 0.0)
