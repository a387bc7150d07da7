"""Cutting planes and branching on one persistent HiGHS model, for sets with too many constraints to state.

    minimize cᵀx  over integers  0 ≤ x ≤ upper  with  row_lower ≤ A x ≤ row_upper  and all cuts of a family

The linear relaxation is solved and cuts of the family that its solution violates are added until there are
none; a solution that is still fractional is branched on. Cuts hold for every cost, so they stay: later
samples start from those that mattered lately.

Source: Padberg and Rinaldi (1991), "A branch-and-cut algorithm for the resolution of large-scale symmetric
traveling salesman problems", SIAM Review 33, doi:10.1137/1033004.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import numpy as np

from decigrad.errors import SolveError
from decigrad.program import Array
from decigrad.solvers.highs import instance, stated

Cut = tuple[tuple[int, ...], float]
"""(columns, limit): the sum of x over the columns is at most the limit."""

ROUNDING = 1e-7
"""What is this close to an integer is one; a cut that is violated by less is satisfied."""

UNDECIDED = 0.2
"""Variables this far from an integer are preferred for branching."""

SCALE = 2.0**20
"""The largest cost is scaled to between half of this and this, ..."""
SPREAD = 2.0**-13
"""... each cost is then raised by up to this, ..."""
SAME = 1e-6
"""... and objectives that differ by less than this are the same: less than SPREAD, far more than rounding."""

MANY = 20
"""Cuts that may stay whether or not they are used."""
IDLE = 20
"""Beyond those, a cut leaves when it was not tight at the solutions of so many samples."""


class CuttingPlanes:
    """The solver of one set; its answers do not depend on what it solved before.

    Costs are raised by fixed amounts of up to 2.4e-10 of the largest, so that the optimum is unique: else the
    cuts that happen to be there would choose among tied solutions. An answer costs at most
    2.4e-10 · max|c| · Σx more than the best one.

    Args:
        matrix: A [m, n], dense.
        row_lower, row_upper: [m].
        upper: [n], integers.
        separate: cuts that a solution x [n] of the relaxation violates, by more than `ROUNDING`; for an
            integral x at least one, unless x is in the set.
    """

    def __init__(
        self,
        matrix: Array,
        row_lower: Array,
        row_upper: Array,
        upper: Array,
        separate: Callable[[Array], list[Cut]],
    ) -> None:
        import highspy

        m, n = matrix.shape
        self._kind = highspy.HighsModelStatus
        self._highs: Any = instance(_OPTIONS)
        self._highs.passModel(stated(np.zeros(n), matrix, row_lower, row_upper, np.zeros(n), upper))
        self._base, self._columns = m, np.arange(n, dtype=np.int32)
        self._upper, self._separate = np.array(upper, np.float64), separate
        self._bounds = np.zeros(n), self._upper  # those in the model
        self._raise = np.random.RandomState(0).uniform(0.0, SPREAD, n)
        self._lock = threading.Lock()
        self._sample = 0
        # The pool: rows of the model after the base, their limits, and the sample that used them last.
        self._cuts: list[Cut] = []
        self._limits, self._used = np.zeros(0), np.zeros(0, int)

    def minimize(self, cost: Array) -> Array:
        """Solutions [B, n] of costs [B, n]; NaN where the set is empty."""
        with self._lock:
            return np.stack([self._solve(c) for c in np.asarray(cost, np.float64)])

    def _solve(self, cost: Array) -> Array:
        _, power = np.frexp(abs(cost).max())
        cost = np.ldexp(cost, -int(power)) * SCALE + self._raise
        self._highs.clearSolver()  # the slack basis takes fewer iterations than that of other costs
        self._highs.changeColsCost(len(cost), self._columns, cost)
        self._sample += 1
        try:
            return self._branch(cost)
        finally:
            self._bound(np.zeros(len(cost)), self._upper)
            self._forget()

    def _branch(self, cost: Array) -> Array:
        """Depth first; of two sides the one that the fraction is closer to."""
        best, found = np.inf, np.full(len(cost), np.nan)
        nodes = [(np.zeros(len(cost)), self._upper)]
        while nodes:
            lower, upper = nodes.pop()
            self._bound(lower, upper)
            x = self._relaxation(cost, best)
            if x is None:
                continue
            whole: Array = np.round(x)
            fraction = abs(x - whole)
            if fraction.max() <= ROUNDING:
                best, found = float(cost @ whole), whole + 0.0  # no −0
                continue
            # The dearest variable that is far from an integer: its bounds move the objective most.
            j = int(np.argmax(fraction + np.where(fraction > UNDECIDED, abs(cost), 0.0)))
            below, above = upper.copy(), lower.copy()
            below[j], above[j] = np.floor(x[j]), np.ceil(x[j])
            sides = [(lower, below), (above, upper)]
            nodes += sides if whole[j] > x[j] else sides[::-1]
        return found

    def _bound(self, lower: Array, upper: Array) -> None:
        changed = np.flatnonzero((lower != self._bounds[0]) | (upper != self._bounds[1])).astype(np.int32)
        if len(changed):
            self._highs.changeColsBounds(len(changed), changed, lower[changed], upper[changed])
            self._bounds = lower, upper

    def _relaxation(self, cost: Array, best: float) -> Array | None:
        """The solution of a node's relaxation with all cuts, or None if it is no better than `best`."""
        while True:
            solution = self._run()
            if solution is None:
                return None
            x = np.array(solution.col_value)
            if cost @ x >= best - SAME:
                return None
            cuts = self._separate(x)
            if not cuts:
                rows = np.array(solution.row_value)[self._base :]
                self._used[rows >= self._limits - ROUNDING] = self._sample
                return x
            self._add(cuts)

    def _run(self) -> Any:
        """HiGHS's solution of the current linear program, or None if it is infeasible."""
        highs = self._highs
        for _ in range(2):
            highs.run()
            status = highs.getModelStatus()
            if status == self._kind.kOptimal:
                return highs.getSolution()
            if status == self._kind.kInfeasible:
                return None
            highs.clearSolver()
        raise SolveError(f"a linear relaxation could not be solved: HiGHS ended with {status}")

    def _add(self, cuts: list[Cut]) -> None:
        columns = [np.array(c, np.int32) for c, _ in cuts]
        start = np.cumsum([0, *map(len, columns[:-1])]).astype(np.int32)
        index, limits = np.concatenate(columns), np.array([limit for _, limit in cuts])
        none = np.full(len(cuts), -np.inf)
        self._highs.addRows(len(cuts), none, limits, len(index), start, index, np.ones(len(index)))
        self._cuts += cuts
        self._limits = np.concatenate([self._limits, limits])
        self._used = np.concatenate([self._used, np.full(len(cuts), self._sample)])

    def _forget(self) -> None:
        """Remove idle cuts: a row costs time in every linear program, finding it again once."""
        idle = self._used < self._sample - IDLE
        if len(self._cuts) <= MANY or not idle.any():
            return
        drop = (self._base + np.flatnonzero(idle)).astype(np.int32)
        self._highs.deleteRows(len(drop), drop)
        self._cuts = [cut for cut, gone in zip(self._cuts, idle, strict=True) if not gone]
        self._limits, self._used = self._limits[~idle], self._used[~idle]


_OPTIONS = {
    "presolve": "off",
    "solver": "simplex",
    "simplex_scale_strategy": 0,
    "dual_simplex_cost_perturbation_multiplier": 0.0,  # costs are in general position already
    "primal_feasibility_tolerance": 1e-9,
    "dual_feasibility_tolerance": 1e-8,  # of costs up to SCALE: below SAME
}
