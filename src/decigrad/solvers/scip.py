"""SCIP: mixed-integer quadratic programs by branch and bound, the continuous part exact.

Source: S. Bolusani et al., "The SCIP Optimization Suite 9.0", arXiv:2402.17702 (2024). Extra:
`decigrad[scip]`; SCIP itself is in the wheel, under the Apache license.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from decigrad import native
from decigrad.errors import ModelError
from decigrad.program import Array, QuadraticProgram, RawResult, Status
from decigrad.solvers.integers import with_integers_held
from decigrad.solvers.verification import Curvature, blank, curvature, invalid, scatter

__all__ = ["SCIP"]

_FEASIBLE = 1e-9


@dataclass(frozen=True)
class SCIP:
    """Convex quadratic programs with integer variables; mixed-integer linear ones too.

    Attributes:
        time_limit: seconds for one sample.
        tolerance: largest relative KKT residual accepted of the continuous part.
        mip_gap: relative gap at which the search may stop; 0 proves optimality up to SCIP's tolerance.

    The integers of SCIP's answer are held, and the continuous quadratic program that remains is solved to
    machine precision; multipliers, active set and derivatives are those of that program, so the derivative
    of an integer decision is zero. Where two integer points are within SCIP's tolerance (1e-9) of each
    other in value, either may be returned.

    Statuses: OPTIMAL after verification; PRIMAL_INFEASIBLE and UNBOUNDED after confirmation by linear
    programs; TIME_LIMIT keeps the best point found in `x` (NaN if there is none); NONCONVEX, NUMERICAL_ERROR,
    INVALID_DATA. Nothing is raised for numerical outcomes.
    """

    time_limit: float = float("inf")
    tolerance: float = 1e-9
    mip_gap: float = 0.0
    name: str = field(default="scip", init=False, repr=False)
    host: bool = field(default=True, init=False, repr=False)

    def __post_init__(self) -> None:
        try:
            import pyscipopt  # noqa: F401
        except ImportError:
            raise ImportError("SCIP is not installed: pip install 'decigrad[scip]'") from None
        if not self.time_limit > 0 or self.mip_gap < 0:
            raise ModelError("SCIP: time_limit must be positive and mip_gap not negative")

    def refuses(self, program: QuadraticProgram) -> str | None:
        """Why this class of programs is not for SCIP, or None."""
        if not program.integer:
            return "SCIP is used for integer variables; this program has none: choose 'auto'"
        return None

    def __call__(self, program: QuadraticProgram) -> RawResult:
        """Solve a batched program. Leaves may be NumPy or JAX arrays; the result holds NumPy arrays."""
        from decigrad.solvers.diagnosis import confirm

        program = program.numpy()
        raw = blank(program)
        broken = invalid(program)
        indefinite = np.broadcast_to(curvature(program.P) == Curvature.INDEFINITE, broken.shape)
        raw.status[:] = np.where(broken, int(Status.INVALID_DATA), int(Status.NONCONVEX))
        index = np.flatnonzero(~broken & ~indefinite)
        if not len(index):
            return raw
        part = program.take(index)
        found = blank(part)
        for i in range(len(index)):
            self._search(part.sample(i), found, i)
        answer = with_integers_held(part, found, _continuous, self.tolerance)
        doubtful = np.isin(answer.status, (Status.PRIMAL_INFEASIBLE, Status.UNBOUNDED))
        for k in np.flatnonzero(doubtful).tolist():
            answer.status[k] = int(confirm(part.sample(k), Status(int(answer.status[k]))))
        scatter(answer, index, raw)
        return raw

    def _search(self, one: QuadraticProgram, found: RawResult, i: int) -> None:
        """Branch and bound on a single program, into place i of `found`."""
        model, x = _stated(one)
        if np.isfinite(self.time_limit):
            model.setParam("limits/time", self.time_limit)
        model.setParam("limits/gap", self.mip_gap)
        model.optimize()
        status = {
            "optimal": Status.OPTIMAL,
            "gaplimit": Status.OPTIMAL,
            "infeasible": Status.PRIMAL_INFEASIBLE,
            "unbounded": Status.UNBOUNDED,
            "inforunbd": Status.UNBOUNDED,  # told apart by `diagnosis.confirm`
            "timelimit": Status.TIME_LIMIT,
        }.get(model.getStatus(), Status.NUMERICAL_ERROR)
        found.status[i] = int(status)
        found.iterations[i] = min(int(model.getNTotalNodes()), np.iinfo(np.int32).max)
        if status in (Status.OPTIMAL, Status.TIME_LIMIT) and model.getNSols():
            best = model.getBestSol()
            found.x[i] = [best[v] for v in x]
        model.freeProb()


def _continuous(program: QuadraticProgram) -> RawResult:
    """Quadratic programs whose integers are held."""
    from decigrad.solvers.active_set import ActiveSet
    from decigrad.solvers.daqp import DAQP

    solver: Any = ActiveSet() if native.missing() is None else DAQP()
    found: RawResult = solver(program)
    return found


def _stated(one: QuadraticProgram) -> tuple[Any, list[Any]]:
    """A single program as SCIP takes it: silent, serial, seeded; the quadratic part is below a variable."""
    import pyscipopt

    model = pyscipopt.Model()
    model.hideOutput()
    model.setParam("misc/catchctrlc", False)
    model.setParam("numerics/feastol", _FEASIBLE)
    model.setParam("parallel/maxnthreads", 1)
    integer = set(one.integer)
    bounds = zip(one.lb[0], one.ub[0], strict=True)
    x = [
        model.addVar(vtype="I" if j in integer else "C", lb=_side(low), ub=_side(high))
        for j, (low, high) in enumerate(bounds)
    ]

    def times(row: Array) -> Any:
        return pyscipopt.quicksum(float(row[j]) * x[j] for j in np.flatnonzero(row))

    for rows, sides, equal in ((one.A, one.b, True), (one.G, one.h, False)):
        for row, side in zip(rows.matrix[0], sides[0], strict=True):
            if not np.isfinite(side):
                continue
            if not row.any():  # 0 ≤ side: SCIP takes no row without variables
                if (side != 0) if equal else (side < 0):
                    model.addCons(model.addVar(lb=0.0, ub=0.0) >= 1.0)
                continue
            model.addCons(times(row) == float(side) if equal else times(row) <= float(side))
    goal = times(one.q[0])
    if not one.linear:
        P = one.P.dense()[0]
        i, j = np.nonzero(np.triu(P))
        curved = pyscipopt.quicksum(
            float(P[a, b]) * (0.5 if a == b else 1.0) * x[a] * x[b] for a, b in zip(i, j, strict=True)
        )
        above = model.addVar(lb=None)
        model.addCons(curved <= above)
        goal = goal + above
    model.setObjective(goal, "minimize")
    return model, x


def _side(bound: float) -> float | None:
    return float(bound) if np.isfinite(bound) else None
