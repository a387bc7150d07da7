"""DAQP: a dual active-set method for small and medium dense quadratic programs, on the host.

Source: Arnström, Bemporad, Axehill (2022), "A dual active-set solver for embedded quadratic programming
using recursive LDLᵀ updates", IEEE Transactions on Automatic Control, doi:10.1109/TAC.2022.3176430.

Data are first scaled by powers of two (exact in floating point): x = D x̂ so that P̂ = D P D has a unit
diagonal, and each row of A and G to a largest entry of one. The method's absolute tolerances then act
relative to the data. With x = D x̂ and row scales R the multipliers are y = R ŷ, z = R ẑ, w = ŵ / D.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from decigrad.program import Array, QuadraticProgram, RawResult, Status
from decigrad.solvers.degeneracy import complete
from decigrad.solvers.verification import (
    Curvature,
    blank,
    curvature,
    invalid,
    power_of_two,
    scatter,
    settle,
    stack,
    unit_scale,
)

__all__ = ["DAQP"]

_STATUS = {
    2: Status.OPTIMAL,
    1: Status.OPTIMAL,
    -1: Status.PRIMAL_INFEASIBLE,
    -2: Status.NUMERICAL_ERROR,  # cycling
    -3: Status.UNBOUNDED,
    -4: Status.ITERATION_LIMIT,
    -5: Status.NUMERICAL_ERROR,  # its factorization failed; curvature was judged before
    -6: Status.PRIMAL_INFEASIBLE,  # more independent equalities than variables
    -7: Status.TIME_LIMIT,
    -8: Status.NUMERICAL_ERROR,
}

_EQUALITY, _IGNORED = 5, 4  # DAQP's constraint senses: always active; never activated
_PRIMAL_TOLERANCES = (1e-11, 1e-9, 1e-7)
"""Tried in turn. The first finds constraints that are violated by 1e-10 active; at very large solutions
rounding exceeds it, the method then reports cycling or infeasibility, and the next one is tried."""


@dataclass(frozen=True)
class DAQP:
    """The dual active-set solver DAQP.

    Attributes:
        max_iterations: active-set changes allowed for one sample.
        tolerance: largest relative KKT residual accepted; above it a sample is NUMERICAL_ERROR.

    Every sample starts from the empty active set, so that its answer depends on its own data alone: not
    on the batch, the order in it, or earlier calls. Where P is only semidefinite the solution may not be
    unique; the one returned is the limit of the proximal-point method started from x = 0.

    Statuses: OPTIMAL after verification of the KKT conditions; PRIMAL_INFEASIBLE and UNBOUNDED after
    confirmation by an independent linear program; NONCONVEX, ITERATION_LIMIT, NUMERICAL_ERROR and
    INVALID_DATA for the sample concerned. Nothing is raised for numerical outcomes.
    """

    max_iterations: int = 10_000
    tolerance: float = 1e-9
    name: str = field(default="daqp", init=False, repr=False)
    host: bool = field(default=True, init=False, repr=False)

    def refuses(self, program: QuadraticProgram) -> str | None:
        """Why this class of programs is not for DAQP, or None."""
        if program.integer:
            return "DAQP solves continuous programs; this one has integer variables"
        return None

    def __call__(self, program: QuadraticProgram) -> RawResult:
        """Solve a batched program. Leaves may be NumPy or JAX arrays; the result holds NumPy arrays."""
        program = program.numpy()
        kinds = curvature(program.P)
        broken = invalid(program)
        sound = ~broken & np.broadcast_to(kinds != Curvature.INDEFINITE, broken.shape)
        if sound.all():
            return self._batch(program, kinds)
        raw = blank(program)
        raw.status[:] = np.where(broken, int(Status.INVALID_DATA), int(Status.NONCONVEX))
        index = np.flatnonzero(sound)
        if len(index):
            kinds = kinds if len(kinds) == 1 else kinds[index]
            scatter(self._batch(program.take(index), kinds), index, raw)
        return raw

    def _batch(self, program: QuadraticProgram, kinds: Array) -> RawResult:
        """Solve convex programs with valid data: the whole batch, then what failed, one by one."""
        raw = self._attempt(program, kinds, _PRIMAL_TOLERANCES[0])
        for i in np.flatnonzero(raw.status != int(Status.OPTIMAL)):
            kind = kinds if len(kinds) == 1 else kinds[i : i + 1]
            scatter(self._rescue(program.sample(int(i)), kind, raw.status[i]), np.array([i]), raw)
        return raw

    def _attempt(self, program: QuadraticProgram, kinds: Array, primal_tolerance: float) -> RawResult:
        """Run DAQP at one tolerance and verify its answers."""
        settings = {
            "primal_tol": primal_tolerance,
            "dual_tol": 1e-12,
            "eta_prox": 1e-12,  # the error in stationarity at which the proximal method stops
            "iter_limit": self.max_iterations,
            "eq_reduction": -1,
        }
        scaled = _Scaled(program)
        raw = blank(program)
        multipliers = np.zeros((len(raw.x), scaled.rows))
        flags = _run(scaled, kinds == Curvature.DEFINITE, settings, raw, multipliers)
        raw.status[:] = [int(_STATUS.get(flag, Status.NUMERICAL_ERROR)) for flag in flags]
        return complete(program, settle(program, scaled.unscale(raw, multipliers), self.tolerance))

    def _rescue(self, one: QuadraticProgram, kind: Array, claimed: int) -> RawResult:
        """Settle a sample that was not solved: confirm why, or solve it at a looser tolerance."""
        from decigrad.solvers.diagnosis import confirm

        verdict = confirm(one, Status(int(claimed)))
        if verdict not in (Status.PRIMAL_INFEASIBLE, Status.UNBOUNDED):
            for tolerance in _PRIMAL_TOLERANCES[1:]:
                trial = self._attempt(one, kind, tolerance)
                if trial.status[0] == int(Status.OPTIMAL):
                    return trial
        raw = blank(one)
        raw.status[:] = int(verdict)
        return raw


class _Scaled:
    """The data as DAQP takes them: scaled, contiguous, writable, bounds first, one sense per row."""

    def __init__(self, program: QuadraticProgram) -> None:
        P = program.P.dense()
        C = stack([program.A.matrix, program.G.matrix], axis=1)
        diagonal = np.abs(np.diagonal(P, axis1=-2, axis2=-1))
        largest = diagonal.max(axis=-1, keepdims=True, initial=0.0)
        # A column without curvature has no unit of its own in P: it takes that of the largest. Blown up to
        # unit curvature, an auxiliary column of a piecewise-linear term made DAQP cycle.
        curved = np.where(diagonal > 0, np.maximum(diagonal, 1e-10 * largest), largest)
        unit = np.where(largest > 0, curved, 1.0)
        self.column = power_of_two(1.0 / np.sqrt(unit))
        C = C * self.column[:, None, :]
        size = np.abs(C).max(axis=-1, initial=0.0)
        self.row = unit_scale(C)[..., 0]
        self.C = np.ascontiguousarray(C * self.row[:, :, None])
        self.q = np.ascontiguousarray(program.q * self.column)
        self.P = np.ascontiguousarray(self.column[:, :, None] * P * self.column[:, None, :])
        # Without P nothing fixes the unit of the objective: the largest cost becomes one.
        self.unit = np.where(largest > 0, 1.0, unit_scale(self.q))
        self.q = self.q * self.unit

        p = program.num_equalities
        none = np.full((1, p + program.num_inequalities), -np.inf)
        right = stack([program.b, program.h], axis=1)
        left = none if p == 0 else stack([program.b, none[:, p:]], axis=1)
        self.upper = stack([program.ub / self.column, right * self.row], axis=1)
        self.lower = stack([program.lb / self.column, left * self.row], axis=1)
        sense = np.zeros(self.upper.shape, dtype=np.intc)
        sense[:, program.n : program.n + p] = _EQUALITY
        free = ~(np.isfinite(self.upper) | np.isfinite(self.lower))
        sense[free] = _IGNORED
        sense = np.broadcast_to(sense, (max(len(sense), len(size)), sense.shape[1])).copy()
        sense[:, program.n :][np.broadcast_to(size == 0, sense[:, program.n :].shape)] = _IGNORED
        self.sense = sense
        self.rows = self.upper.shape[1]
        self.shared = len(self.P) == len(self.C) == 1

    def unscale(self, raw: RawResult, multipliers: Array) -> RawResult:
        """The answers in the program's units."""
        n, p = raw.x.shape[1], raw.y.shape[1]
        forces = multipliers[:, n:] * self.row / self.unit
        return raw.replace(
            x=raw.x * self.column,
            y=forces[:, :p],
            z=np.maximum(forces[:, p:], 0.0),
            w=multipliers[:, :n] / (self.column * self.unit),
        )


def _run(
    scaled: _Scaled, definite: Array, settings: dict[str, Any], raw: RawResult, multipliers: Array
) -> list[int]:
    """Solve sample by sample, writing into `raw` and `multipliers`; returns DAQP's exit flags.

    A model is set up with no constraint in force and then given the sample's, so that a batch with shared
    matrices (set up once) and a sample on its own go the same way to the last bit. Passing `sense` empties
    the active set. For semidefinite P the proximal method would start from the last answer: such samples
    get a workspace of their own.
    """
    import daqp

    q, lower, upper, sense, C, P = scaled.q, scaled.lower, scaled.upper, scaled.sense, scaled.C, scaled.P
    none, origin = np.full(scaled.rows, np.inf), np.zeros(q.shape[1])
    ignored = np.full(scaled.rows, _IGNORED, dtype=np.intc)
    model = daqp.Model()
    model.settings = settings
    x, iterations, update, solve = raw.x, raw.iterations, model.update, model.solve
    shared_bounds, ready, flags = len(upper) == len(lower) == 1, False, []
    for i in range(len(x)):
        f, s = q[i if len(q) > 1 else 0], sense[i if len(sense) > 1 else 0]
        if ready and shared_bounds:
            flag = update(f=f, sense=s)
        else:
            up, low = upper[i if len(upper) > 1 else 0], lower[i if len(lower) > 1 else 0]
            H, M = P[i if len(P) > 1 else 0], C[i if len(C) > 1 else 0]
            if not definite[i if len(definite) > 1 else 0]:
                x[i], _, flag, info = daqp.solve(H if H.any() else None, f, M, up, low, s, **settings)
                multipliers[i], iterations[i] = info["lam"], info["iterations"]
                flags.append(flag)
                continue
            flag = 0 if ready else model.setup(H, origin, M, none, -none, ignored)[0]
            if flag >= 0:
                flag = update(f=f, bupper=up, blower=low, sense=s)
                ready = scaled.shared
        if flag >= 0:
            x[i], _, flag, info = solve()
            multipliers[i] = info["lam"]
            iterations[i] = info["iterations"]
        flags.append(flag)
    return flags
