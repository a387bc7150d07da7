"""A reference for decisions and gradients, to about 1e-14: the active-set formula, its active set verified.

Clarabel at 1e-12 proposes an active set. With its rows C, the system

    [ P  Cᵀ ] [x]   [ −c ]
    [ C  0  ] [μ] = [ d  ]

gives the decision; it counts where every other constraint holds and multipliers of the right sign exist,
both to 1e-9. Else the set is corrected by the worst offender and tried again. The gradient of ‖x‖² in c is
−u for K(u, v) = (2x, 0). Systems are solved with residuals in extended precision; where constraints depend
on each other, by least squares of minimum norm. No code is shared with decigrad.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from benchmarks.programs import Array, Cell, Program

_TOLERANCE = 1e-9
_CORRECTIONS = 50


@dataclass(frozen=True)
class Reference:
    """x and d‖x‖²/dc of the first samples of a batch, [R, n]; `sure` where the active set was verified."""

    x: Array
    gradient: Array
    sure: Array

    @property
    def size(self) -> int:
        return len(self.x)


def reference_samples(cell: Cell) -> int:
    """How many samples of a cell are compared: all that take seconds, at least two, at most 128."""
    return min(cell.batch, int(np.clip(32 * (200 / cell.n) ** 3, 2, 128)))


def reference(program: Program, samples: int) -> Reference:
    """Solve the first samples one by one."""
    G, h = program.rows
    C, d = np.vstack([program.A, G]), np.concatenate([program.b, h])
    found = [_sample(program, C, d, cost) for cost in program.cost[:samples]]
    x, gradient, sure = (np.array(part) for part in zip(*found, strict=True))
    return Reference(x, gradient, sure)


def _sample(program: Program, C: Array, d: Array, cost: Array) -> tuple[Array, Array, bool]:
    me, n = len(program.b), program.n
    tolerance = _TOLERANCE * (1.0 + np.abs(cost).max())
    following = np.ones(len(d), bool)
    following[me:] = _proposed(program, C, d, cost)
    for _ in range(_CORRECTIONS):
        active = following
        system = _System(program.P, C[active])
        solved = system.solve(np.concatenate([-cost, d[active]]))
        x, multipliers = solved[:n], np.zeros(len(d))
        multipliers[active] = solved[n:]
        slack = d - C @ x
        # An active row is at fault by a negative multiplier, another one by a negative slack.
        fault = np.where(active, -multipliers, -slack)
        fault[:me] = 0.0
        if fault[active].max(initial=0.0) > tolerance and system.dependent:
            stationarity = program.P @ x + cost
            if _supported(stationarity, C[:me], C[active & (np.arange(len(d)) >= me)], tolerance):
                fault[active] = 0.0
        worst = int(fault.argmax())
        sure = fault[worst] <= tolerance and np.abs(slack[active]).max(initial=0.0) <= tolerance
        if fault[worst] <= tolerance:
            break
        following = active.copy()
        following[worst] = not active[worst]
    pulled = system.solve(np.concatenate([2.0 * x, np.zeros(int(active.sum()))]))
    return x, -pulled[:n], bool(sure)


def _supported(stationarity: Array, A: Array, G: Array, tolerance: float) -> bool:
    """Whether dependent active rows have multipliers of the right sign: those of minimum norm need not."""
    from scipy.linalg import null_space
    from scipy.optimize import nnls

    free = null_space(A).T if len(A) else np.eye(len(stationarity))
    _, distance = nnls(free @ G.T, -free @ stationarity)
    return bool(distance <= tolerance)


def _proposed(program: Program, C: Array, d: Array, cost: Array) -> Array:
    import clarabel
    from scipy import sparse

    settings = clarabel.DefaultSettings()
    settings.verbose = False
    settings.tol_gap_abs = settings.tol_gap_rel = settings.tol_feas = 1e-12
    me = len(program.b)
    cones: list[Any] = [clarabel.NonnegativeConeT(len(d) - me)]
    if me:
        cones.insert(0, clarabel.ZeroConeT(me))
    upper = sparse.csc_matrix(np.triu(program.P))
    solved = clarabel.DefaultSolver(upper, cost, sparse.csc_matrix(C), d, cones, settings).solve()
    return np.asarray(solved.z)[me:] > np.asarray(solved.s)[me:]


class _System:
    """K factored once; solutions refined until their extended-precision residual stops to fall."""

    def __init__(self, P: Array, C: Array) -> None:
        import scipy.linalg

        m = len(C)
        self.K = np.block([[P, C.T], [C, np.zeros((m, m))]])
        self.exact = self.K.astype(np.longdouble)
        rank = np.linalg.matrix_rank(C, tol=1e-10 * np.abs(C).max()) if m else 0
        self.dependent = bool(rank < m)
        if not self.dependent:
            factored = scipy.linalg.lu_factor(self.K)
            self.apply = lambda right: scipy.linalg.lu_solve(factored, right)
        else:
            inverse = np.linalg.pinv(self.K, rcond=1e-12, hermitian=True)
            self.apply = lambda right: inverse @ right

    def solve(self, right: Array) -> Array:
        found, best = np.zeros(len(right), np.longdouble), np.inf
        for _ in range(5):
            residual = right - self.exact @ found
            size = float(np.abs(residual).max())
            if size >= 0.5 * best:
                break
            best, found = size, found + self.apply(residual.astype(float))
        return found.astype(float)
