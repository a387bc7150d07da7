"""HiGHS: linear programs and mixed-integer linear programs on the host, through a persistent model.

Source: Huangfu and Hall (2018), "Parallelizing the dual revised simplex method", Mathematical Programming
Computation 10, doi:10.1007/s12532-017-0130-5.

One model is passed per call and worker; from sample to sample only what differs is changed, and the basis is
cleared, so that a sample's answer depends on its own data alone.
"""

from __future__ import annotations

import functools
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from decigrad.errors import ModelError
from decigrad.program import Array, QuadraticProgram, RawResult, Status
from decigrad.solvers.integers import with_integers_held
from decigrad.solvers.verification import blank, invalid, scatter, settle, stack, unit_scale

__all__ = ["HiGHS", "LinearModel"]


@dataclass(frozen=True)
class HiGHS:
    """Linear and mixed-integer linear programs by simplex and branch and bound.

    Attributes:
        time_limit: seconds for one sample.
        max_iterations: simplex iterations for one sample, or None.
        tolerance: largest relative KKT residual accepted; above it a sample is NUMERICAL_ERROR.
        mip_gap: relative gap at which branch and bound may stop; 0 proves optimality.
        workers: samples solved at the same time, each by a model and a thread of its own (HiGHS runs outside
            Python's lock). Answers do not depend on it.

    Ties: where several solutions are optimal, the vertex that the dual simplex method reaches from the
    slack basis is returned: a function of the sample's own data.

    Integer programs: integer variables are rounded to exact integers and held there, and the linear
    program that remains is solved for the others. The multipliers and the active set are those of that
    linear program; `fixed` is +1 at every integer variable, so that "fix and differentiate" is what
    derivatives do: the derivative of an integer decision is zero.

    Statuses: OPTIMAL after verification; PRIMAL_INFEASIBLE and UNBOUNDED after confirmation by an
    independent linear program; TIME_LIMIT keeps the best integer point found in `x` (NaN if there is
    none); ITERATION_LIMIT, NUMERICAL_ERROR, INVALID_DATA. Nothing is raised for numerical outcomes.
    """

    time_limit: float = float("inf")
    max_iterations: int | None = None
    tolerance: float = 1e-9
    mip_gap: float = 0.0
    workers: int = 1
    name: str = field(default="highs", init=False, repr=False)
    host: bool = field(default=True, init=False, repr=False)

    def __post_init__(self) -> None:
        if self.workers < 1:
            raise ModelError(f"HiGHS: workers must be at least 1, got {self.workers}")

    def refuses(self, program: QuadraticProgram) -> str | None:
        """Why this class of programs is not for HiGHS, or None."""
        if not program.linear:
            return "HiGHS is used for linear objectives; this program has a quadratic term"
        return None

    def __call__(self, program: QuadraticProgram) -> RawResult:
        """Solve a batched program. Leaves may be NumPy or JAX arrays; the result holds NumPy arrays."""
        program = program.numpy()
        broken = invalid(program)
        if not broken.any():
            return self._batch(program)
        raw = blank(program)
        raw.status[:] = int(Status.INVALID_DATA)
        index = np.flatnonzero(~broken)
        if len(index):
            scatter(self._batch(program.take(index)), index, raw)
        return raw

    def _batch(self, program: QuadraticProgram) -> RawResult:
        """Solve programs with valid data."""
        if program.integer:
            found = self._run(program, program.integer)
            raw = with_integers_held(program, found, self._linear, self.tolerance)
        else:
            raw = self._linear(program)
        doubtful = (Status.PRIMAL_INFEASIBLE, Status.UNBOUNDED, Status.NUMERICAL_ERROR)
        for i in np.flatnonzero(np.isin(raw.status, doubtful)):
            from decigrad.solvers.diagnosis import confirm  # solves linear programs with this module

            raw.status[i] = int(confirm(program.sample(int(i)), Status(int(raw.status[i]))))
        return raw

    def _linear(self, program: QuadraticProgram) -> RawResult:
        """Linear programs, verified."""
        raw = self._run(program, ())
        return settle(program, raw, self.tolerance)

    def _run(self, program: QuadraticProgram, integer: tuple[int, ...]) -> RawResult:
        """Every sample, unverified; each worker has a model and a share of the samples."""
        raw = blank(program)
        unit = unit_scale(program.q)  # the largest cost becomes one: dual tolerances are absolute
        none = np.full((1, program.num_inequalities), -np.inf)
        above, below = stack([program.b, program.h], axis=1), stack([program.b, none], axis=1)
        data = program.q * unit, above, below, program.lb, program.ub
        shares = np.array_split(np.arange(len(raw.x)), min(self.workers, len(raw.x)))

        def solve(share: np.ndarray) -> None:
            self._share(program, integer, share, data, raw)

        if len(shares) == 1:
            solve(shares[0])
        else:
            with ThreadPoolExecutor(len(shares)) as pool:
                list(pool.map(solve, shares))
        return raw.replace(y=raw.y / unit, z=raw.z / unit, w=raw.w / unit)

    def _share(
        self,
        program: QuadraticProgram,
        integer: tuple[int, ...],
        share: np.ndarray,
        data: tuple[Array, ...],
        raw: RawResult,
    ) -> None:
        """Some samples through one model, into `raw`."""
        q, above, below, lb, ub = data
        A, G, p = program.A.matrix, program.G.matrix, program.num_equalities
        model = LinearModel(integer, self._options())
        for place, i in enumerate(share.tolist()):
            cost, rows, bounds = _at(i, q), _at(i, below, above), _at(i, lb, ub)
            if place == 0 or len(A) > 1 or len(G) > 1:
                model.load(cost[0], np.concatenate(_at(i, A, G)), *rows, *bounds)
            else:
                model.change(
                    cost=cost[0] if len(q) > 1 else None,
                    rows=rows if len(above) > 1 else None,
                    bounds=bounds if max(len(lb), len(ub)) > 1 else None,
                )
            status = model.run(self.time_limit)
            raw.status[i] = int(status)
            raw.iterations[i] = model.iterations
            if status is Status.OPTIMAL or (status is Status.TIME_LIMIT and model.has_point):
                raw.x[i], force, raw.w[i] = model.solution()
                raw.y[i] = force[:p]
                raw.z[i] = np.maximum(force[p:], 0.0)

    def _options(self) -> dict[str, Any]:
        options: dict[str, Any] = {"mip_rel_gap": self.mip_gap, "mip_abs_gap": 0.0}
        if self.max_iterations is not None:
            options["simplex_iteration_limit"] = self.max_iterations
        return options


@functools.cache
def _quiet() -> Any:
    """The HiGHS class without callbacks: registering them prints a banner that no option prevents."""
    import highspy

    class Quiet(highspy.Highs):
        def enableCallbacks(self) -> None:
            self.setOptionValue("output_flag", False)

    return Quiet


def instance(options: dict[str, Any]) -> Any:
    """HiGHS itself: silent, serial, seeded."""
    highs = _quiet()()
    for name, value in {"parallel": "off", "random_seed": 0, **options}.items():
        highs.setOptionValue(name, value)
    return highs


def stated(cost: Array, matrix: Array, row_lower: Array, row_upper: Array, lower: Array, upper: Array) -> Any:
    """A linear program as HiGHS takes it. `matrix` [m, n] is dense; its zeros are dropped."""
    import highspy

    m, n = matrix.shape
    column, row = np.nonzero(matrix.T)
    lp = highspy.HighsLp()
    lp.num_col_, lp.num_row_ = n, m
    lp.col_cost_, lp.col_lower_, lp.col_upper_ = cost, lower, upper
    lp.row_lower_, lp.row_upper_ = row_lower, row_upper
    lp.a_matrix_.format_ = highspy.MatrixFormat.kColwise
    lp.a_matrix_.start_ = np.searchsorted(column, np.arange(n + 1)).astype(np.int32)
    lp.a_matrix_.index_ = row.astype(np.int32)
    lp.a_matrix_.value_ = np.ascontiguousarray(matrix.T[column, row])
    return lp


class LinearModel:
    """One persistent HiGHS model: min cᵀx s.t. lower ≤ C x ≤ upper (rows), lb ≤ x ≤ ub.

    Each `run` starts from the slack basis, whatever was solved before. Linear programs are scaled here, by
    powers of two that depend on C alone: HiGHS would keep the scale factors of the first costs it saw.
    """

    def __init__(self, integer: tuple[int, ...] = (), options: dict[str, Any] | None = None) -> None:
        import highspy

        self._api = highspy
        self._integer = integer
        settings: dict[str, Any] = {
            # Presolve pays in branch and bound; for one linear program it doubles the time.
            "presolve": "on" if integer else "off",
            "solver": "choose" if integer else "simplex",
            "simplex_scale_strategy": 2 if integer else 0,  # 2: HiGHS's own choice
            "primal_feasibility_tolerance": 1e-10,
            "dual_feasibility_tolerance": 1e-10,
            "mip_feasibility_tolerance": 1e-9,
        }
        self._highs: Any = instance({**settings, **(options or {})})

    def load(
        self,
        cost: Array,
        matrix: Array,
        row_lower: Array,
        row_upper: Array,
        lower: Array,
        upper: Array,
    ) -> None:
        """State the model. `matrix` [m, n] is dense; its zeros are dropped."""
        m, n = matrix.shape
        self._row_scale, self._scale = np.ones(m), np.ones(n)
        if not self._integer:
            row, column = np.nonzero(matrix)
            self._row_scale, self._scale = _scales(row, column, np.abs(matrix[row, column]), m, n)
        lp = stated(
            cost * self._scale,
            self._row_scale[:, None] * matrix * self._scale,
            row_lower * self._row_scale,
            row_upper * self._row_scale,
            lower / self._scale,
            upper / self._scale,
        )
        if self._integer:
            kinds = [self._api.HighsVarType.kContinuous] * n
            for j in self._integer:
                kinds[j] = self._api.HighsVarType.kInteger
            lp.integrality_ = kinds
        self._columns, self._rows = np.arange(n, dtype=np.int32), np.arange(m, dtype=np.int32)
        self._highs.passModel(lp)

    def change(
        self,
        cost: Array | None = None,
        rows: tuple[Array, Array] | None = None,
        bounds: tuple[Array, Array] | None = None,
    ) -> None:
        """Replace the costs, the row limits (lower, upper) or the bounds (lower, upper)."""
        if cost is not None:
            self._highs.changeColsCost(len(cost), self._columns, cost * self._scale)
        if rows is not None and len(self._rows):
            scaled = [limit * self._row_scale for limit in rows]
            self._highs.changeRowsBounds(len(self._rows), self._rows, *scaled)
        if bounds is not None:
            scaled = [limit / self._scale for limit in bounds]
            self._highs.changeColsBounds(len(self._columns), self._columns, *scaled)

    def run(self, time_limit: float = float("inf")) -> Status:
        """Solve from the slack basis."""
        highs = self._highs
        highs.clearSolver()
        if np.isfinite(time_limit):  # HiGHS counts the time of all runs of a model
            highs.setOptionValue("time_limit", highs.getRunTime() + time_limit)
        highs.run()
        kind = self._api.HighsModelStatus
        return {
            kind.kOptimal: Status.OPTIMAL,
            kind.kModelEmpty: Status.OPTIMAL,
            kind.kInfeasible: Status.PRIMAL_INFEASIBLE,
            kind.kUnbounded: Status.UNBOUNDED,
            kind.kUnboundedOrInfeasible: Status.UNBOUNDED,  # told apart by `diagnosis.confirm`
            kind.kTimeLimit: Status.TIME_LIMIT,
            kind.kIterationLimit: Status.ITERATION_LIMIT,
            kind.kSolutionLimit: Status.ITERATION_LIMIT,
        }.get(highs.getModelStatus(), Status.NUMERICAL_ERROR)

    @property
    def iterations(self) -> int:
        """Simplex iterations of the last run."""
        return max(int(self._highs.getInfo().simplex_iteration_count), 0)

    @property
    def has_point(self) -> bool:
        """Whether the last run holds a feasible point."""
        return int(self._highs.getInfo().primal_solution_status) == 2

    def solution(self) -> tuple[Array, Array, Array]:
        """(x, row multipliers, bound multipliers), with the signs of `program.py`."""
        found = self._highs.getSolution()
        x = np.array(found.col_value) * self._scale
        if self._integer:
            return x, np.zeros(len(self._rows)), np.zeros(len(self._columns))
        rows, columns = np.array(found.row_dual), np.array(found.col_dual)
        return x, -rows * self._row_scale, -columns / self._scale


def _scales(row: Array, column: Array, size: Array, m: int, n: int) -> tuple[Array, Array]:
    """Row and column factors, powers of two, that bring the entries of a matrix near one.

    Two rounds of geometric scaling: each line by the inverse root of (least · greatest entry). Matrices
    whose entries lie between 0.2 and 5 are left alone.
    """
    factors = np.ones(m), np.ones(n)
    if not len(size) or (size.min() >= 0.2 and size.max() <= 5.0):
        return factors
    for line, factor in ((row, factors[0]), (column, factors[1])) * 2:
        now = size * factors[0][row] * factors[1][column]
        low, high = np.full(len(factor), np.inf), np.zeros(len(factor))
        np.minimum.at(low, line, now)
        np.maximum.at(high, line, now)
        used = high > 0
        factor[used] *= np.exp2(-np.round(0.5 * np.log2(low[used] * high[used])))
    return factors


def _at(i: int, *leaves: Array) -> tuple[Array, ...]:
    """Sample i of leaves whose leading axis is B or 1."""
    return tuple(leaf[i if len(leaf) > 1 else 0] for leaf in leaves)
