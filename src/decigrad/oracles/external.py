"""Solvers of other makers behind the oracle's interface, for any linear or integer model: optional extras.

They read the program that the model states. Multipliers are not taken from them, so derivatives in
constraints are refused as for every oracle.
"""

from __future__ import annotations

import functools
import importlib
import threading
from abc import abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import numpy as np

from decigrad.errors import ModelError
from decigrad.oracles.protocol import LinearOracle, answered
from decigrad.program import Array, QuadraticProgram, RawResult, Status

Answer = tuple[Array | None, Status]
"""The best point found, if any, and how the search ended."""


class External(LinearOracle):
    """A linear or mixed-integer program solver, one sample after the other, in their order."""

    host: ClassVar[bool] = True

    @abstractmethod
    def prepare(self, program: QuadraticProgram) -> Callable[[int], Answer]:
        """A function that solves sample i of a program."""

    def minimize(self, cost: Array, program: QuadraticProgram) -> Array:
        """Solutions [B, n]; NaN where there is none."""
        return self._each(replace(program, q=cost))[0]

    def __call__(self, program: QuadraticProgram) -> RawResult:
        """Solve a batched program."""
        cost, known, program = self._asked(program)
        x, outcome = self._each(replace(program, q=cost))
        return answered(program, x, known, outcome)

    def refuse_unstated(self, program: QuadraticProgram, reader: str) -> None:
        """Nothing: the set is what the program states."""

    def _each(self, program: QuadraticProgram) -> tuple[Array, Array]:
        integer = list(program.integer)
        x = np.full(program.q.shape, np.nan)
        outcome = np.zeros(len(x), np.int32)
        solve = self.prepare(program)
        for i in range(len(x)):
            point, status = solve(i)
            if status is Status.OPTIMAL and point is not None:
                point[integer] = np.round(point[integer]) + 0.0  # no −0
                x[i] = np.clip(point, _at(program.lb, i), _at(program.ub, i))
            else:
                outcome[i] = int(status)
        return x, outcome


@dataclass(frozen=True)
class Gurobi(External):
    """Gurobi, for any linear or mixed-integer linear model. Extra: `decigrad[gurobi]`.

    Args:
        time_limit: seconds for one sample; beyond, its status is `TIME_LIMIT`.
        mip_gap: relative gap at which branch and bound may stop; 0 proves optimality.

    Every sample starts afresh, on one thread with a fixed seed, so its answer depends on its own data alone.
    The wheel's own licence takes models of up to 2,000 variables and constraints.
    """

    time_limit: float = float("inf")
    mip_gap: float = 0.0

    name = "gurobi"

    def __post_init__(self) -> None:
        _needed("gurobipy", "gurobi", "Gurobi")

    def prepare(self, program: QuadraticProgram) -> Callable[[int], Answer]:
        """One model, in which costs change; stated anew where anything else does."""
        gp = _needed("gurobipy", "gurobi", "Gurobi")
        ended = {
            gp.GRB.OPTIMAL: Status.OPTIMAL,
            gp.GRB.INFEASIBLE: Status.PRIMAL_INFEASIBLE,
            gp.GRB.UNBOUNDED: Status.UNBOUNDED,
            gp.GRB.INF_OR_UNBD: Status.NO_SOLUTION,
            gp.GRB.TIME_LIMIT: Status.TIME_LIMIT,
        }
        kept: list[tuple[Any, Any]] = []

        def solve(i: int) -> Answer:
            with _LOCK:
                if not kept or not _only_costs_differ(program):
                    kept[:] = [self._stated(gp, program, i)]
                model, x = kept[0]
                model.reset()
                x.Obj = program.q[i]
                model.optimize()
                status = ended.get(model.Status, Status.NUMERICAL_ERROR)
                return (np.array(x.X) if status is Status.OPTIMAL else None), status

        return solve

    def _stated(self, gp: Any, program: QuadraticProgram, i: int) -> tuple[Any, Any]:
        model = gp.Model(env=_gurobi_environment())
        options = {"Threads": 1, "Seed": 0, "MIPGap": self.mip_gap, "MIPGapAbs": 0.0}
        for name in ("FeasibilityTol", "OptimalityTol", "IntFeasTol"):
            options[name] = 1e-9
        if np.isfinite(self.time_limit):
            options["TimeLimit"] = self.time_limit
        for name, value in options.items():
            model.setParam(name, value)
        kinds = np.full(program.n, gp.GRB.CONTINUOUS)
        kinds[list(program.integer)] = gp.GRB.INTEGER
        x = model.addMVar(program.n, lb=_at(program.lb, i), ub=_at(program.ub, i), vtype=kinds)
        for matrix, sense, side in ((program.A, "=", program.b), (program.G, "<", program.h)):
            rows = np.isfinite(_at(side, i))
            if rows.any():
                model.addMConstr(_at(matrix.matrix, i)[rows], x, sense, _at(side, i)[rows])
        return model, x


@dataclass(frozen=True)
class ORTools(External):
    """A solver of OR-Tools, for any linear or mixed-integer linear model. Extra: `decigrad[ortools]`.

    Args:
        solver: "glop" (linear programs), "scip" (integer too), "cp-sat" (integer variables only; costs are
            scaled to integers, so that an answer is optimal to about 1e-6 of the largest cost) or "highs";
            by default "scip" where there are integer variables and else "glop".
        time_limit: seconds for one sample; beyond, its status is `TIME_LIMIT`.

    Every sample starts afresh, on one thread with a fixed seed, so its answer depends on its own data alone.
    """

    solver: str | None = None
    time_limit: float = float("inf")

    name = "ortools"

    def __post_init__(self) -> None:
        _needed("ortools.linear_solver.python.model_builder_helper", "ortools", "OR-Tools")
        if self.solver not in (None, *_ORTOOLS):
            raise ModelError(f"ORTools: solver must be one of {', '.join(_ORTOOLS)}, got {self.solver!r}")

    def refuses(self, program: QuadraticProgram) -> str | None:
        """Why this class of programs is not for the solver, or None."""
        if self.solver == "glop" and program.integer:
            return "glop solves linear programs; this one has integer variables: use 'scip' or 'cp-sat'"
        if self.solver == "cp-sat" and len(program.integer) < program.n:
            return "cp-sat needs integer variables only: use 'scip'"
        return super().refuses(program)

    def prepare(self, program: QuadraticProgram) -> Callable[[int], Answer]:
        """One model, in which costs change; stated anew where anything else does."""
        helper = _needed("ortools.linear_solver.python.model_builder_helper", "ortools", "OR-Tools")
        kind = self.solver or ("scip" if program.integer else "glop")
        name, options = _ORTOOLS[kind]
        ends = helper.SolveStatus
        ended = {
            ends.OPTIMAL: Status.OPTIMAL,
            ends.INFEASIBLE: Status.PRIMAL_INFEASIBLE,
            ends.UNBOUNDED: Status.UNBOUNDED,
            ends.FEASIBLE: Status.TIME_LIMIT,
            ends.NOT_SOLVED: Status.TIME_LIMIT if np.isfinite(self.time_limit) else Status.NO_SOLUTION,
        }
        kept: list[Any] = []

        def solve(i: int) -> Answer:
            if not kept or not _only_costs_differ(program):
                kept[:] = [_filled(helper, program, i)]
            model, solver = kept[0], helper.ModelSolverHelper(name)
            model.set_objective_coefficients(np.arange(program.n, dtype=np.int32), program.q[i])
            solver.set_solver_specific_parameters(options)
            if np.isfinite(self.time_limit):
                solver.set_time_limit_in_seconds(self.time_limit)
            solver.solve(model)
            status = ended.get(solver.status(), Status.NUMERICAL_ERROR)
            return (np.array(solver.variable_values()) if solver.has_solution() else None), status

        return solve


_ORTOOLS = {
    "glop": ("glop", ""),
    "scip": ("scip", "limits/gap = 0\nlimits/absgap = 0\nnumerics/feastol = 1e-9"),
    "cp-sat": ("sat", "num_workers: 1 random_seed: 0 absolute_gap_limit: 0 relative_gap_limit: 0"),
    "highs": ("highs", ""),
}
"""By name: OR-Tools' own name, and its options."""


def _filled(helper: Any, program: QuadraticProgram, i: int) -> Any:
    from scipy.sparse import csr_matrix

    rows = np.concatenate([_at(program.A.matrix, i), _at(program.G.matrix, i)])
    b, h = _at(program.b, i), _at(program.h, i)
    model = helper.ModelBuilderHelper()
    model.fill_model_from_sparse_data(
        _at(program.lb, i),
        _at(program.ub, i),
        program.q[i],
        np.concatenate([b, np.full(len(h), -np.inf)]),
        np.concatenate([b, h]),
        csr_matrix(rows),
    )
    for j in program.integer:
        model.set_var_integrality(j, True)
    return model


_LOCK = threading.Lock()  # a Gurobi environment serves one thread at a time


@functools.cache
def _gurobi_environment() -> Any:
    return _needed("gurobipy", "gurobi", "Gurobi").Env(params={"OutputFlag": 0})


def _needed(module: str, extra: str, product: str) -> Any:
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise ImportError(f"{product} is not installed: pip install 'decigrad[{extra}]'") from error


def _at(leaf: Array, i: int) -> Array:
    """Sample i of a leaf whose leading axis is B or 1."""
    return np.array(leaf[i if len(leaf) > 1 else 0], np.float64)


def _only_costs_differ(program: QuadraticProgram) -> bool:
    parts = (program.A.matrix, program.b, program.G.matrix, program.h, program.lb, program.ub)
    return all(len(leaf) == 1 for leaf in parts)
